"""Slack, by an incoming webhook.

slack_sdk's synchronous client is used, in a thread: the asynchronous one needs aiohttp. Its own
retries are off, for they never try again after most errors, and write the webhook's URL, which is
a secret, to the log; when to try again is the outbox's affair.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import RemoteDisconnected
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit

from holistic_asgi_monitor.model import Alert, ConfigurationError, MissingExtraError
from holistic_asgi_monitor.notifiers.blocks import message
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.threads import OneThread

if TYPE_CHECKING:
    from slack_sdk.webhook import WebhookClient

__all__ = ("Slack", "judged")

_REASON = re.compile(r"[a-z][a-z_]{0,60}")
_HOPELESS = frozenset(
    {
        "action_prohibited",
        "channel_is_archived",
        "channel_not_found",
        "invalid_blocks",
        "invalid_payload",
        "invalid_token",
        "no_service",
        "no_service_id",
        "no_team",
        "no_text",
        "posting_to_general_channel_denied",
        "team_disabled",
        "too_many_attachments",
        "user_not_found",
    }
)


class Slack:
    """Posts alerts to a Slack channel by its incoming webhook, all of one delivery together.

    `webhook_url` begins with https:// (or, for tests, is on this machine); `timeout` is in
    seconds. It needs the extra `slack`: without it, MissingExtraError. A wrong argument is a
    ConfigurationError.
    """

    def __init__(self, webhook_url: str, *, name: str = "slack", timeout: float = 10.0) -> None:
        _refuse_wrong(webhook_url, timeout)
        self.name = name
        self.timeout = float(timeout)
        self._client = _client(webhook_url, self.timeout)
        self._thread = OneThread(f"holistic-asgi-monitor {name}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(webhook_url=..., name={self.name!r})"

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the alerts in one message; DeliveryError where Slack did not take it."""
        if not alerts:
            return
        body = message(alerts, datetime.now(UTC))
        failure = await self._thread.call(partial(self._post, body))
        if failure is not None:
            raise failure

    def _post(self, body: dict[str, Any]) -> DeliveryError | None:
        """Post, and judge the answer; given back and not raised, so that no URL hangs on it."""
        try:
            response = self._client.send_dict(body)
        except Exception as error:
            # Whatever urllib and the client raise; their texts may hold the URL.
            return _unanswered(error, self.timeout)
        return judged(response.status_code, response.body, response.headers, datetime.now(UTC))


def judged(
    status: int, body: str | None, headers: Mapping[str, Any], now: datetime
) -> DeliveryError | None:
    """What an answer of a webhook means; None where Slack took the message."""
    said = (body or "").strip()
    if status == 200 and said == "ok":
        return None
    reason = f" {said}" if _REASON.fullmatch(said) else ""
    busy = status in {408, 429}
    return DeliveryError(
        f"Slack answered {status}{reason}",
        retry_after=_asked_wait(headers, said, now) if busy or status >= 500 else None,
        permanent=not busy and (400 <= status < 500 or (status == 200 and said in _HOPELESS)),
    )


def _unanswered(error: Exception, timeout: float) -> DeliveryError:
    if isinstance(error, URLError):
        kind = type(error.reason).__name__ if isinstance(error.reason, Exception) else "no route"
        return DeliveryError(f"Slack could not be reached ({kind})")
    if isinstance(error, TimeoutError):
        return DeliveryError(f"Slack did not answer within {timeout:g} s", ambiguous=True)
    kind = type(error).__name__
    if isinstance(error, RemoteDisconnected | ConnectionError):
        return DeliveryError(f"Slack closed the connection without an answer ({kind})")
    return DeliveryError(f"Slack's answer could not be read ({kind})", ambiguous=True)


def _asked_wait(headers: Mapping[str, Any], body: str, now: datetime) -> float | None:
    """The seconds to wait that `Retry-After` asks for, else the body; None where neither does."""
    named = (str(value) for name, value in headers.items() if name.lower() == "retry-after")
    value = next(named, "").strip()
    seconds = _number(value)
    if seconds is None:
        seconds = _seconds_until(value, now)
    return seconds if seconds is not None else _wait_in_body(body)


def _number(value: object) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _wait_in_body(body: str) -> float | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return _number(answer.get("retry_after")) if isinstance(answer, dict) else None


def _refuse_wrong(url: object, timeout: object) -> None:
    if not _is_accepted(url):
        raise ConfigurationError(
            "The webhook_url of notifiers.Slack is not shown and refused: it must be the whole "
            "address that Slack gives, which begins with https://."
        )
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 300:
        raise ConfigurationError(
            f"The timeout of notifiers.Slack is {timeout!r}: it must be a number of seconds above "
            "0 and at most 300."
        )


def _is_accepted(url: object) -> bool:
    """Whether it is an address that a secret may be sent to: by TLS, or within this machine."""
    if not isinstance(url, str) or not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        return False
    try:
        parts = urlsplit(url)
        sound = parts.port != 0 and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
    local = parts.scheme == "http" and _is_loopback(parts.hostname or "")
    return sound and (parts.scheme == "https" or local)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client(url: str, timeout: float) -> WebhookClient:
    try:
        from slack_sdk.webhook import WebhookClient
    except ImportError:
        raise MissingExtraError("notifiers.Slack", "slack") from None
    # The client writes the URL at several levels: this logger is nobody's child and above them all.
    silent = logging.Logger("slack_sdk", logging.CRITICAL + 1)  # noqa: LOG001 - not to be found
    # The client hands the timeout on to urllib, which takes fractions as well.
    seconds: Any = timeout
    return WebhookClient(url, timeout=seconds, logger=silent, retry_handlers=[])
