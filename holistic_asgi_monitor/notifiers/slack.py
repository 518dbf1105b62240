"""Slack, by an incoming webhook: one message for all alerts of a delivery.

slack_sdk's synchronous client is used, in a worker thread: its asynchronous one needs aiohttp. Its
own retries are switched off (they log the webhook's URL, which is a secret); what to try again,
and when, is the outbox's business. Limits and answers: docs.slack.dev.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from holistic_asgi_monitor.model import (
    Alert,
    AlertState,
    ConfigurationError,
    MissingExtraError,
    Severity,
)
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.wording import clock, escaped, plain, span

if TYPE_CHECKING:
    from slack_sdk.webhook import WebhookClient, WebhookResponse

__all__ = ("Slack", "message")

MOST_ALERTS = 15
"""Three blocks each, and one more for what is left out, stay below Slack's 50."""

HEADER_LIMIT = 150
SECTION_LIMIT = 2900
CONTEXT_LIMIT = 1900
TEXT_LIMIT = 3900
LONGEST_WAIT = 300.0

_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))
_MARKS = {
    Severity.INFO: "\N{INFORMATION SOURCE}",
    Severity.WARNING: "\N{WARNING SIGN}",
    Severity.ERROR: "\N{LARGE RED CIRCLE}",
    Severity.CRITICAL: "\N{POLICE CARS REVOLVING LIGHT}",
}
_ALL_CLEAR = "\N{WHITE HEAVY CHECK MARK}"


class Slack:
    """Posts alerts to an incoming webhook; needs the extra `slack`. `timeout` is in seconds."""

    def __init__(self, webhook_url: str, *, name: str = "slack", timeout: float = 10.0) -> None:
        self.name = name
        self._client = _client(_checked(webhook_url), timeout)
        self._limiter: anyio.CapacityLimiter | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r})"

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the alerts in one message; a `DeliveryError` says what to do when it failed."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        await anyio.to_thread.run_sync(
            self._post, message(alerts), abandon_on_cancel=True, limiter=self._limiter
        )

    def _post(self, body: dict[str, Any]) -> None:
        try:
            response = self._client.send_dict(body)
        except TimeoutError:
            raise DeliveryError("Slack did not answer in time", ambiguous=True) from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise DeliveryError("Slack could not be reached in time") from None
            kind = type(error.reason).__name__
            raise DeliveryError(f"Slack could not be reached ({kind})") from None
        except Exception as error:
            # Texts of foreign exceptions may hold the URL: only the type goes on.
            raise DeliveryError(f"Slack could not be reached ({type(error).__name__})") from None
        _judge(response)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if host and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)):
        return url
    raise ConfigurationError(
        "SLACK_WEBHOOK_URL (notifiers.Slack) is not an address that begins with https://"
    )


def _client(url: str, timeout: float) -> WebhookClient:
    try:
        from slack_sdk.webhook import WebhookClient
    except ImportError:
        raise MissingExtraError("notifiers.Slack", "slack") from None
    # With its own logger the client would log the URL at DEBUG.
    silent = logging.getLogger("holistic_asgi_monitor.slack_sdk")
    silent.setLevel(logging.CRITICAL)
    # The client only hands it on to urllib, which takes fractions too.
    seconds: Any = timeout
    return WebhookClient(url, timeout=seconds, logger=silent, retry_handlers=[])


def _judge(response: WebhookResponse) -> None:
    """Raise what the answer means; success is 200 and the body `ok`."""
    status, body = response.status_code, (response.body or "").strip()
    if status == 200 and body == "ok":
        return
    said = plain(body)[:80] if body.replace("_", "").isalnum() else "no word of why"
    sentence = f"Slack refused the message: {status} {said}"
    if status == 429:
        raise DeliveryError(sentence, retry_after=_wait(response.headers))
    permanent = 200 <= status < 500 and status not in {408, 429}
    raise DeliveryError(sentence, permanent=permanent)


def _wait(headers: Mapping[str, Any]) -> float:
    """Seconds that `Retry-After` asks for: whole, fractional or a date; 1 where it says nothing."""
    value = next((str(v) for k, v in headers.items() if k.lower() == "retry-after"), "")
    try:
        seconds = float(value)
    except ValueError:
        seconds = _until(value)
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else 1.0  # noqa: PLR0124 - NaN


def _until(value: str) -> float:
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 1.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return (when - datetime.now(UTC)).total_seconds()


def message(alerts: Sequence[Alert]) -> dict[str, Any]:
    """The message as Slack wants it: a text for notifications, and blocks for the eye."""
    shown = sorted(alerts, key=lambda alert: (alert.ended_at is not None, -alert.severity.gravity))
    blocks = [block for alert in shown[:MOST_ALERTS] for block in _blocks(alert)]
    if len(shown) > MOST_ALERTS:
        more = f"and {len(shown) - MOST_ALERTS} more"
        blocks.append({"type": "section", "text": _plain_text(more, SECTION_LIMIT)})
    text = "; ".join(_headline(alert) for alert in shown)
    return {"text": escaped(text, TEXT_LIMIT), "blocks": blocks}


def _headline(alert: Alert) -> str:
    resolved = alert.state is AlertState.RESOLVED
    mark = _ALL_CLEAR if resolved else _MARKS[alert.severity]
    where = f"{alert.service} " if alert.service else ""
    return f"{mark} {where}{alert.title}"


def _blocks(alert: Alert) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": _plain_text(_headline(alert), HEADER_LIMIT)}
    ]
    if alert.summary or alert.details:
        blocks.append({"type": "section", "text": _marked(_body(alert), SECTION_LIMIT)})
    context = {"type": "context", "elements": [_marked_raw(_context(alert))]}
    return [*blocks, context]


def _body(alert: Alert) -> str:
    lines = [alert.summary] if alert.summary else []
    lines += [f"{name}: {value}" for name, value in alert.details.items()]
    return "\n".join(lines)


def _context(alert: Alert) -> str:
    """Severity, since when, how long, where; links last. Escaped already."""
    parts = [alert.severity.value, f"since {alert.started_at:%Y-%m-%d} {clock(alert.started_at)}"]
    if alert.ended_at is not None:
        lasted = (alert.ended_at - alert.started_at).total_seconds()
        parts.append(f"until {clock(alert.ended_at)}, {span(lasted)}")
    parts += [part for part in (alert.environment, alert.instance) if part]
    text = escaped(" · ".join(parts), CONTEXT_LIMIT)
    links = (("dashboard", alert.dashboard_url), ("runbook", alert.runbook_url))
    return text + "".join(f" · <{_link(url)}|{name}>" for name, url in links if url)


def _link(url: str) -> str:
    return escaped(url, 400).replace("|", "%7C")


def _plain_text(text: str, limit: int) -> dict[str, str]:
    short = plain(text)
    return {
        "type": "plain_text",
        "text": short if len(short) <= limit else f"{short[: limit - 1]}…",
    }


def _marked(text: str, limit: int) -> dict[str, str]:
    return _marked_raw(escaped(text, limit))


def _marked_raw(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}
