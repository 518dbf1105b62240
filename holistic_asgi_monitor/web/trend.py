"""The trend: the last hour against the same hour a day ago and a week ago.

It comes from history, so it is over all processes that write there. The hour ends with the last
whole five minutes, in which all three hours are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import anyio.lowlevel

from holistic_asgi_monitor.history.store import Answer, Query, StoreError
from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.threads import Turn

__all__ = ("AGO", "Hour", "Trend", "Trends", "Where", "read_trend")

HOUR, DAY = 3600, 86_400
GRAIN_SECONDS = 300
FRESH_SECONDS = 60.0
PATIENCE_SECONDS = 1.0
AGO: Mapping[str, int] = MappingProxyType({"now": 0, "day_ago": DAY, "week_ago": 7 * DAY})
_AT_ONCE = 50

Read = Callable[[Query], Awaitable[Answer]]
Where = tuple[str, ...]
"""A method and endpoint; nothing for the whole."""


@dataclass(frozen=True, slots=True)
class Hour:
    """What happened in one hour; `p95` in seconds, None where nothing was timed."""

    count: int
    errors: int
    p95: float | None

    @classmethod
    def of(cls, value: Value) -> Hour:
        """The hour that a stored value is about."""
        return cls(value.count, value.errors, value.quantile(0.95))

    @property
    def error_percent(self) -> float:
        """Errors per hundred requests, 0 where there were none."""
        return 100 * self.errors / self.count if self.count else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The hour as JSON values."""
        return {
            "count": self.count,
            "error_rate_percent": round(self.error_percent, 4),
            "p95_ms": None if self.p95 is None else round(self.p95 * 1000, 3),
        }


_NO_REQUEST = Hour(0, 0, None)


@dataclass(frozen=True, slots=True)
class Trend:
    """The hours that end at `until` (UTC epoch seconds) and a day and a week before, by `AGO`.

    `hours` hold them for the whole under `()` and for each method and endpoint; an hour of which
    nothing at all is known is not among them.
    """

    until: int
    hours: Mapping[str, Mapping[Where, Hour]]

    def of(self, *where: str) -> dict[str, Hour | None]:
        """The hours of the whole, or of a method and endpoint."""
        return {
            name: found.get(where, _NO_REQUEST) if found else None
            for name, found in self.hours.items()
        }

    def wheres(self) -> list[Where]:
        """The whole, and every method and endpoint that is known, the busiest hours first."""
        busiest: dict[Where, int] = {}
        for found in self.hours.values():
            for where, hour in found.items():
                busiest[where] = max(hour.count, busiest.get(where, 0))
        busiest.pop((), None)
        return [(), *sorted(busiest, key=lambda where: (-busiest[where], where))]

    def as_dict(self) -> dict[str, Any]:
        """The trend of the whole as JSON values."""
        until = datetime.fromtimestamp(self.until, UTC).isoformat()
        return {"until": until, "window_seconds": HOUR, **self.rows()}

    def rows(self, *where: str) -> dict[str, Any]:
        """The hours of the whole, or of a method and endpoint, as JSON values."""
        return {
            name: None if hour is None else hour.as_dict() for name, hour in self.of(*where).items()
        }


async def read_trend(
    read: Read, now: float, known: dict[int, Mapping[Where, Hour]] | None = None
) -> Trend:
    """The trend at the time `now` (UTC epoch seconds); `StoreError` where it cannot be read.

    Hours of the past are taken from `known`, by their ends, and those that are read put into it.
    """
    until = int(now // GRAIN_SECONDS) * GRAIN_SECONDS
    past = {} if known is None else known
    ends = [until - ago for ago in AGO.values() if ago]
    for end in set(past).difference(ends):
        del past[end]
    # The past first: who is cut short has less to do the next time.
    for end in ends:
        if end not in past:
            past[end] = await _hours(read, end)
    newest = await _hours(read, until)
    return Trend(until, {name: past[until - ago] if ago else newest for name, ago in AGO.items()})


async def _hours(read: Read, end: int) -> dict[Where, Hour]:
    """The hour before `end`, of the whole and of everything in it."""
    found: dict[Where, Hour] = {}
    for kind in (Kind.TRAFFIC, Kind.REQUESTS):
        answer = await read(Query(kind, end - HOUR, end, by=kind.labels))
        for where, stretches in answer.groups.items():
            for value in stretches.values():
                found[where] = Hour.of(value)
            if len(found) % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
    if not found and (await read(Query(Kind.LAG, end - HOUR, end, cells=False))).groups:
        # The service ran, since its event loop was measured, and nobody asked it for anything.
        found[()] = _NO_REQUEST
    return found


class Trends:
    """Reads the trend, at most once in a minute; `clock` gives UTC epoch seconds.

    Nobody waits longer for it than `patience` seconds.
    """

    def __init__(
        self, read: Read, clock: Callable[[], float], patience: float = PATIENCE_SECONDS
    ) -> None:
        self._read = read
        self._clock = clock
        self._patience = patience
        self._known: Trend | None = None
        self._past: dict[int, Mapping[Where, Hour]] = {}
        self._taken: float | None = None
        self._reading = Turn()

    async def now(self) -> Trend | None:
        """The trend, or the last one where history is slow; None where it cannot be read now."""
        with anyio.move_on_after(self._patience) as patience:
            # Callers at the same time wait for the first of them, and take what it found.
            async with self._reading:
                now = self._clock()
                if self._taken is None or not 0 <= now - self._taken < FRESH_SECONDS:
                    self._known = await self._fresh(now)
                    self._taken = now
        if patience.cancelled_caught:
            self._taken = self._clock()
        return self._known

    async def _fresh(self, now: float) -> Trend | None:
        try:
            return await read_trend(self._read, now, self._past)
        except StoreError:
            # The other statistics are not to suffer; the log says it where it is written.
            return None
