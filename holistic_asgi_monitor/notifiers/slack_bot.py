"""The way to Slack by a bot's token: its alarms have threads, and are edited when they are over."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.model import Alert, AlertState, MissingExtraError
from holistic_asgi_monitor.notifiers.blocks import message
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.slack_answers import judged_api, unanswered
from holistic_asgi_monitor.notifiers.slack_threads import Thread, Threads

if TYPE_CHECKING:
    from slack_sdk import WebClient

__all__ = ("Bot",)

MOST_REPLIES = 5
MOST_EDITS = 50
SHORTEST_SECONDS = 0.05

_IN_A_THREAD = frozenset({"ease", "escalate", "flapping", "remind"})
_TO_BE_SEEN = frozenset({"escalate", "flapping"})

_Identity = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What one message says; `thread` is where it belongs, None for one of its own."""

    thread: Thread | None
    alerts: tuple[Alert, ...]


class Bot:
    """Posts as the bot of `token` to the channel of `threads`.

    One delivery may be several messages. What of it has arrived is not posted again when it is
    brought again because the rest has not.
    """

    def __init__(self, token: str, api_url: str, threads: Threads, *, timeout: float) -> None:
        self._client, self._refusal = _client(token, api_url)
        self._threads = threads
        self._timeout = timeout
        self._until = 0.0
        self._arrived: set[_Identity] = set()
        self._unedited: dict[str, Thread] = {}

    def deliver(self, alerts: Sequence[Alert]) -> DeliveryError | None:
        """Post the alerts, each to its thread, and edit the messages that are over."""
        self._until = time.monotonic() + self._timeout
        self._arrived &= set(map(_identity, alerts))
        waiting = [alert for alert in alerts if _identity(alert) not in self._arrived]
        for parcel in self._parcels(waiting):
            failure = self._post(parcel)
            if failure is not None:
                return failure
            self._arrived.update(map(_identity, parcel.alerts))
        self._arrived.clear()
        self._edit()
        return None

    def _parcels(self, alerts: Iterable[Alert]) -> Iterator[_Parcel]:
        """What is new first, in one message; then what belongs into threads, one for each."""
        fresh: list[Alert] = []
        replies: dict[str, list[Alert]] = {}
        threads: dict[str, Thread] = {}
        for alert in alerts:
            thread = self._thread_of(alert)
            if thread is None:
                fresh.append(alert)
            else:
                threads[thread.ts] = thread
                replies.setdefault(thread.ts, []).append(alert)
        if len(replies) > MOST_REPLIES:
            # So many would only meet Slack's limit of a message a second.
            fresh += [alert for each in replies.values() for alert in each]
            replies.clear()
        if fresh:
            yield _Parcel(None, tuple(fresh))
        for ts, each in replies.items():
            yield _Parcel(threads[ts], tuple(each))

    def _thread_of(self, alert: Alert) -> Thread | None:
        over = alert.state is AlertState.RESOLVED
        return self._threads.of(alert.key) if over or alert.reason in _IN_A_THREAD else None

    def _post(self, parcel: _Parcel) -> DeliveryError | None:
        answer = self._say(parcel)
        if parcel.thread is not None and isinstance(answer, DeliveryError) and answer.permanent:
            # The message was deleted, say: it is told in any case.
            lost, parcel = parcel.thread, replace(parcel, thread=None)
            answer = self._say(parcel)
            if not isinstance(answer, DeliveryError):
                self._threads.forget(lost)
        if isinstance(answer, DeliveryError):
            return answer
        self._note(parcel, answer)
        return None

    def _say(self, parcel: _Parcel) -> dict[str, Any] | DeliveryError:
        thread = parcel.thread
        body = message(parcel.alerts, datetime.now(UTC))
        if thread is None:
            return self._call("chat.postMessage", {**body, "channel": self._threads.channel})
        place = {"channel": thread.channel, "thread_ts": thread.ts}
        return self._call("chat.postMessage", {**body, **place, **_broadcast(parcel.alerts)})

    def _note(self, parcel: _Parcel, answer: dict[str, Any]) -> None:
        """Remember where the new alarms stand, and which messages are to be edited."""
        for alert in parcel.alerts:
            thread = self._threads.of(alert.key)
            if alert.state is AlertState.RESOLVED and thread is not None:
                changed = thread.with_ends([alert])
                self._threads.keep(changed)
                self._unedited[changed.ts] = changed
        for oldest in list(self._unedited)[:-MOST_EDITS]:
            del self._unedited[oldest]
        channel, ts = answer.get("channel"), answer.get("ts")
        if parcel.thread is None and isinstance(channel, str) and isinstance(ts, str):
            alarms = [alert for alert in parcel.alerts if self._begins(alert)]
            self._threads.begin(channel, ts, alarms)

    def _begins(self, alert: Alert) -> bool:
        """Whether the thread of an alert is that of the message in which it has just been told."""
        return self._thread_of(alert) is None

    def _edit(self) -> None:
        """Show in the messages that are over that they are; a failure of that fails nothing."""
        for ts, thread in list(self._unedited.items()):
            body = message(list(thread.alerts.values()), datetime.now(UTC))
            answer = self._call("chat.update", {**body, "channel": thread.channel, "ts": ts})
            if isinstance(answer, DeliveryError) and not answer.permanent:
                return
            del self._unedited[ts]

    def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any] | DeliveryError:
        left = self._until - time.monotonic()
        if left < SHORTEST_SECONDS:
            return DeliveryError(f"Slack did not take all messages within {self._timeout:g} s")
        # The client hands the timeout on to urllib, which takes fractions as well.
        seconds: Any = left
        self._client.timeout = seconds
        try:
            answer = self._client.api_call(method, json=body)
        except self._refusal as error:
            return _judged(error.response, replying="thread_ts" in body)
        except Exception as error:
            # Whatever urllib and the client raise; of their texts nothing is told.
            return unanswered(error, self._timeout)
        return answer.data if isinstance(answer.data, dict) else {}


def _judged(response: Any, *, replying: bool) -> DeliveryError:
    word = response.data.get("error") if isinstance(response.data, dict) else None
    status, headers, now = response.status_code, response.headers, datetime.now(UTC)
    return judged_api(status, word, headers, now, replying=replying)


def _broadcast(alerts: Iterable[Alert]) -> dict[str, bool]:
    """Whether the channel is to see what stands in a thread: what is worse, and what is over."""
    seen = any(
        alert.state is AlertState.RESOLVED or alert.reason in _TO_BE_SEEN for alert in alerts
    )
    return {"reply_broadcast": True} if seen else {}


def _identity(alert: Alert) -> _Identity:
    """What makes it the same alert when it is brought again."""
    return alert.key, alert.state, alert.reason, alert.severity, alert.title, alert.started_at


def _client(token: str, api_url: str) -> tuple[WebClient, Any]:
    """The client, and the class of what it raises for a refusal."""
    try:
        from slack_sdk import WebClient
        from slack_sdk.errors import SlackApiError
    except ImportError:
        raise MissingExtraError("notifiers.Slack", "slack") from None
    # What goes wrong is told by us, once.
    silent = logging.Logger("slack_sdk", logging.CRITICAL + 1)  # noqa: LOG001 - not to be found
    base = api_url if api_url.endswith("/") else f"{api_url}/"
    return WebClient(token, base_url=base, logger=silent, retry_handlers=[]), SlackApiError
