"""Slack, by an incoming webhook or by a bot's token.

slack_sdk's synchronous clients are used, in a thread: the asynchronous ones need aiohttp. Their
own retries are off, for they never try again after most errors, and write the webhook's URL, which
is a secret, to the log; when to try again is the outbox's affair.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from holistic_asgi_monitor.model import Alert, ConfigurationError, MissingExtraError
from holistic_asgi_monitor.notifiers.addresses import is_private_way, refuse_wrong_timeout
from holistic_asgi_monitor.notifiers.blocks import message
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.slack_answers import judged, unanswered
from holistic_asgi_monitor.notifiers.slack_bot import Bot
from holistic_asgi_monitor.notifiers.slack_threads import Threads
from holistic_asgi_monitor.notifiers.threads import OneThread

if TYPE_CHECKING:
    from slack_sdk.webhook import WebhookClient

__all__ = ("Slack",)

API_URL = "https://slack.com/api/"

_WORD = re.compile(r"[\x21-\x7e]+")
_CHANNEL = re.compile(r"[^\s\x00-\x1f\x7f]{1,100}")


class _Way(Protocol):
    """How alerts come to Slack; called in a thread."""

    def deliver(self, alerts: Sequence[Alert]) -> DeliveryError | None:
        """Deliver; what stood in the way is given back and not raised.

        So no secret hangs on it.
        """
        ...


class Slack:
    """Posts alerts to a Slack channel.

    Either by its incoming webhook, `Slack(webhook_url)`, or as a bot, `Slack(token=..., channel=
    ...)`. All that is new in a delivery is one message. A bot answers its alarms in their threads,
    posts what must be seen (worse, over) to the channel too, and edits an alarm that is over; it
    needs the scope `chat:write`, and to be in the channel.

    Addresses begin with https:// (or, for tests, are on this machine); `timeout` is in seconds,
    for a whole delivery. It needs the extra `slack`: without it, MissingExtraError. A wrong
    argument is a ConfigurationError.
    """

    def __init__(
        self,
        webhook_url: str | None = None,
        *,
        token: str | None = None,
        channel: str | None = None,
        name: str = "slack",
        timeout: float = 10.0,
        api_url: str = API_URL,
    ) -> None:
        self.name = name
        self.timeout = refuse_wrong_timeout(timeout, "notifiers.Slack")
        self._threads = Threads(channel or "")
        self._way: _Way
        if token is None and channel is None:
            _refuse_wrong_address(webhook_url, "webhook_url")
            self._way = _Webhook(str(webhook_url), self.timeout)
        else:
            _refuse_wrong_bot(webhook_url, token, channel)
            _refuse_wrong_address(api_url, "api_url")
            self._way = Bot(str(token), api_url, self._threads, timeout=self.timeout)
        self._thread = OneThread(f"holistic-asgi-monitor {name}")

    def __repr__(self) -> str:
        if self._threads.channel:
            return f"{type(self).__name__}(token=..., channel={self._threads.channel!r})"
        return f"{type(self).__name__}(webhook_url=..., name={self.name!r})"

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the alerts; DeliveryError where Slack did not take them."""
        if not alerts:
            return
        failure = await self._thread.call(partial(self._way.deliver, alerts))
        if failure is not None:
            raise failure

    def state(self) -> dict[str, Any]:
        """What `restore` takes after a restart, as JSON values: a bot's open threads."""
        return self._threads.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` gave; nothing of another channel, nor what it did not give."""
        self._threads.restore(state)


class _Webhook:
    """The way by a webhook, which answers `ok` and gives nothing to answer to."""

    def __init__(self, url: str, timeout: float) -> None:
        self._client = _client(url, timeout)
        self._timeout = timeout

    def deliver(self, alerts: Sequence[Alert]) -> DeliveryError | None:
        """Post the alerts in one message."""
        try:
            response = self._client.send_dict(message(alerts, datetime.now(UTC)))
        except Exception as error:
            # Whatever urllib and the client raise; their texts may hold the URL.
            return unanswered(error, self._timeout)
        return judged(response.status_code, response.body, response.headers, datetime.now(UTC))


def _refuse_wrong_address(url: object, argument: str) -> None:
    if not is_private_way(url):
        raise ConfigurationError(
            f"The {argument} of notifiers.Slack is not shown and refused: it must be the whole "
            "address that Slack gives, which begins with https://; or give token and channel."
        )


def _refuse_wrong_bot(webhook_url: object, token: object, channel: object) -> None:
    if webhook_url is not None:
        raise ConfigurationError(
            "notifiers.Slack takes either a webhook_url, or a token and a channel, not both."
        )
    if not isinstance(token, str) or not _WORD.fullmatch(token):
        raise ConfigurationError(
            "The token of notifiers.Slack is not shown and refused: it must be that of a bot, "
            "such as xoxb-..."
        )
    if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
        raise ConfigurationError(
            f"The channel of notifiers.Slack is {str(channel)[:100]!r}: it must be the name or the "
            "id of a channel, such as #alerts or C0123456789."
        )


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
