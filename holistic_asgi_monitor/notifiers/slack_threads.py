"""The messages of a bot that are not over: where their threads are, and what stands in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from holistic_asgi_monitor.model import Alert, AlertState
from holistic_asgi_monitor.notifiers.blocks import shortened
from holistic_asgi_monitor.notifiers.values import alert_from, as_json

__all__ = ("Thread", "Threads")

MOST_THREADS = 200
MOST_ALERTS = 100
VERSION = 1


@dataclass(frozen=True, slots=True)
class Thread:
    """A message with alarms: the id of its channel, its timestamp, what it says of each key."""

    channel: str
    ts: str
    alerts: Mapping[str, Alert]

    @property
    def open(self) -> bool:
        """Whether any of its alarms goes on."""
        return any(self.goes_on(key) for key in self.alerts)

    def goes_on(self, key: str) -> bool:
        """Whether its alarm of `key` goes on."""
        return key in self.alerts and self.alerts[key].state is AlertState.FIRING

    def with_ends(self, alerts: Sequence[Alert]) -> Thread:
        """The same message after the ends among `alerts`, each in the place of its alarm."""
        ends = {
            alert.key: shortened(alert)
            for alert in alerts
            if alert.state is AlertState.RESOLVED and alert.key in self.alerts
        }
        return replace(self, alerts=MappingProxyType({**self.alerts, **ends}))


class Threads:
    """The open threads in `channel`, the oldest first; at most so many that memory is bounded.

    Changed from one thread; `state` may be asked from any other.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self._by_ts: dict[str, Thread] = {}

    def of(self, key: str) -> Thread | None:
        """The newest thread in which an alarm of `key` goes on."""
        found = (each for each in reversed(list(self._by_ts.values())) if each.goes_on(key))
        return next(found, None)

    def begin(self, channel: str, ts: str, alerts: Sequence[Alert]) -> None:
        """Remember a new message, and its alarms in place of older ones."""
        alarms = [alert for alert in alerts if alert.state is AlertState.FIRING][:MOST_ALERTS]
        for alert in alarms:
            self._leave(alert.key)
        if alarms:
            kept = {alert.key: shortened(alert) for alert in alarms}
            self._by_ts[ts] = Thread(channel, ts, MappingProxyType(kept))
        for oldest in list(self._by_ts)[:-MOST_THREADS]:
            del self._by_ts[oldest]

    def keep(self, thread: Thread) -> None:
        """Remember what a thread has become; one in which nothing goes on is let go."""
        if thread.open:
            self._by_ts[thread.ts] = thread
        else:
            self.forget(thread)

    def forget(self, thread: Thread) -> None:
        """Let go of a thread."""
        self._by_ts.pop(thread.ts, None)

    def state(self) -> dict[str, Any]:
        """The threads as JSON values."""
        threads = [
            {
                "channel": thread.channel,
                "ts": thread.ts,
                "alerts": [as_json(alert) for alert in thread.alerts.values()],
            }
            for thread in list(self._by_ts.values())
        ]
        return {"version": VERSION, "channel": self.channel, "threads": threads}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` gave; nothing of another channel, nor what it did not give."""
        if state.get("version") != VERSION or state.get("channel") != self.channel:
            return
        rows = state.get("threads")
        for row in rows[-MOST_THREADS:] if isinstance(rows, list) else ():
            thread = _thread(row)
            if thread is not None:
                self.keep(thread)

    def _leave(self, key: str) -> None:
        """Let an alarm of `key` that goes on no longer be looked for."""
        thread = self.of(key)
        if thread is not None:
            left = {name: alert for name, alert in thread.alerts.items() if name != key}
            self.keep(replace(thread, alerts=MappingProxyType(left)))


def _thread(row: Any) -> Thread | None:
    try:
        alerts = [alert_from(each) for each in row["alerts"][:MOST_ALERTS]]
        channel, ts = row["channel"], row["ts"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    if not isinstance(channel, str) or not isinstance(ts, str):
        return None
    return Thread(channel, ts, MappingProxyType({alert.key: alert for alert in alerts}))
