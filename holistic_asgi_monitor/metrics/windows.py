"""Rolling windows over the request path's numbers, kept in memory.

The cells only grow; a window is what they hold now less what they held when it began. Snapshots
of the whole are taken every 5 s, 1 min and 15 min, each kept as long as a window needs it, and
store no more than the span of cells in use.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import anyio.lowlevel

from holistic_asgi_monitor.metrics.latency import Bounds, Cells, merge
from holistic_asgi_monitor.metrics.series import Endpoint, RequestSeries

__all__ = ("WINDOWS", "EndpointDay", "Window", "Windows")

WINDOWS = {"1m": 60.0, "5m": 300.0, "1h": 3600.0, "24h": 86_400.0}
DAY_SECONDS = 86_400.0
SLOT_SECONDS = 900.0
_RINGS = ((5.0, 330.0), (60.0, 3_720.0), (SLOT_SECONDS, DAY_SECONDS + 2 * SLOT_SECONDS))
_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in one stretch of time.

    `count` and `errors` are requests; `cells` hold their durations, `plain` those of responses
    sent in one piece; `seconds` is the length that the numbers really cover.
    """

    bounds: Bounds
    seconds: float
    count: int
    errors: int
    cells: Cells
    plain: Cells

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.count / self.seconds if self.seconds > 0 else 0.0

    @property
    def error_percent(self) -> float:
        """Errors per hundred requests, 0 where there were none."""
        return 100.0 * self.errors / self.count if self.count else 0.0

    def quantile_ms(self, q: float) -> float | None:
        """A quantile of all durations in milliseconds."""
        return _milliseconds(self.bounds.quantile(self.cells, q))

    def plain_quantile_ms(self, q: float) -> float | None:
        """A quantile of the durations of responses sent in one piece, in milliseconds."""
        return _milliseconds(self.bounds.quantile(self.plain, q))


@dataclass(frozen=True, slots=True)
class EndpointDay:
    """What one method and endpoint did in the last 24 h."""

    method: str
    endpoint: str
    window: Window


class Windows:
    """Takes the snapshots and answers for any of `WINDOWS`; `now` is monotonic seconds."""

    def __init__(self, series: RequestSeries, now: float) -> None:
        self._series = series
        self._born = now
        first = _Snapshot.of(series, now)
        self._rings = [
            _Ring(spacing, deque([first], maxlen=round(kept / spacing) + 1))
            for spacing, kept in _RINGS
        ]
        self._days: dict[tuple[str, str], _Day] = {}
        self._slot_began = now

    async def sample(self, now: float) -> None:
        """Take the snapshots that are due; cheap to call often."""
        self._series.slowest.turn()
        self._series.slowest_streamed.turn()
        due = [ring for ring in self._rings if now - ring.snapshots[-1].taken >= ring.spacing]
        if due:
            snapshot = _Snapshot.of(self._series, now)
            for ring in due:
                ring.snapshots.append(snapshot)
        if now - self._slot_began >= SLOT_SECONDS:
            self._slot_began = now
            await self._close_slots(now)

    def window(self, seconds: float, now: float) -> Window:
        """The numbers of the last `seconds`, reaching back to the nearest snapshot before."""
        began = self._began(now - seconds)
        live = _Snapshot.of(self._series, now)
        plain = _less(self._series.whole, began.plain)
        cells = _less(self._series.whole_streamed, began.streamed)
        merge(cells, plain)
        return Window(
            self._series.bounds,
            max(0.0, now - began.taken),
            self._series.bounds.count(cells),
            max(0, live.errors - began.errors),
            cells,
            plain,
        )

    async def endpoints(self, now: float) -> AsyncIterator[EndpointDay]:
        """Every endpoint that was asked for in the last 24 h; yields to the loop in between."""
        for key, found in list(self._series.endpoints.items()):
            window = self._day(key).window(self._series.bounds, found, now - self._born)
            await anyio.lowlevel.checkpoint()
            if window.count:
                yield EndpointDay(found.method, found.endpoint, window)

    def _began(self, when: float) -> _Snapshot:
        for ring in self._rings:
            if ring.snapshots[0].taken <= when or ring is self._rings[-1]:
                return ring.at(when)
        return self._rings[-1].at(when)

    def _day(self, key: tuple[str, str]) -> _Day:
        day = self._days.get(key)
        if day is None:
            day = self._days[key] = _Day(self._series.bounds)
        return day

    async def _close_slots(self, now: float) -> None:
        for number, (key, found) in zip(
            count(1), list(self._series.endpoints.items()), strict=False
        ):
            self._day(key).close_slot(found, now)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000.0


@dataclass(frozen=True, slots=True)
class _Span:
    """The cells in use of a set: where they begin, and their counts; the sum apart."""

    start: int
    counts: array[int]
    total: int

    @classmethod
    def of(cls, cells: Sequence[int]) -> _Span:
        used = [index for index, value in enumerate(cells[:-1]) if value]
        if not used:
            return cls(0, array("Q"), cells[-1])
        return cls(used[0], array("Q", cells[used[0] : used[-1] + 1]), cells[-1])

    def add_to(self, cells: Cells) -> None:
        for index, value in enumerate(self.counts, self.start):
            cells[index] += value
        cells[-1] += self.total


def _less(cells: Sequence[int], span: _Span) -> Cells:
    left = list(cells)
    for index, value in enumerate(span.counts, span.start):
        left[index] -= value
    left[-1] -= span.total
    return left


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The whole as it stood at one time."""

    taken: float
    errors: int
    plain: _Span
    streamed: _Span

    @classmethod
    def of(cls, series: RequestSeries, now: float) -> _Snapshot:
        errors = sum(found.errors for found in list(series.endpoints.values()))
        return cls(now, errors, _Span.of(series.whole), _Span.of(series.whole_streamed))


@dataclass(slots=True)
class _Ring:
    """Snapshots at one spacing, oldest first."""

    spacing: float
    snapshots: deque[_Snapshot]

    def at(self, when: float) -> _Snapshot:
        """The newest snapshot not after `when`, else the oldest there is."""
        best = self.snapshots[0]
        for snapshot in self.snapshots:
            if snapshot.taken > when:
                break
            best = snapshot
        return best


@dataclass(slots=True)
class _Totals:
    """The running numbers of one endpoint: requests, errors, durations."""

    count: int
    errors: int
    cells: Cells

    @classmethod
    def of(cls, found: Endpoint) -> _Totals:
        cells = list(found.latency)
        if found.streamed is not None:
            merge(cells, found.streamed)
        return cls(found.count, found.errors, cells)


@dataclass(slots=True)
class _Slot:
    """What one endpoint gained in one slot."""

    ended: float
    count: int
    errors: int
    span: _Span


@dataclass(slots=True)
class _Day:
    """One endpoint's last 24 h: what has left the window, and the slots still in it."""

    bounds: Bounds
    expired: _Totals = field(init=False)
    closed: _Totals = field(init=False)
    slots: deque[_Slot] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.expired = _Totals(0, 0, self.bounds.cells())
        self.closed = _Totals(0, 0, self.bounds.cells())

    def close_slot(self, found: Endpoint, now: float) -> None:
        """Put what was gained since the last call into a slot, and drop what is too old."""
        totals = _Totals.of(found)
        if totals.count != self.closed.count:
            gained = [new - old for new, old in zip(totals.cells, self.closed.cells, strict=True)]
            self.slots.append(
                _Slot(
                    now,
                    totals.count - self.closed.count,
                    totals.errors - self.closed.errors,
                    _Span.of(gained),
                )
            )
            self.closed = totals
        self._expire(now - DAY_SECONDS)

    def window(self, bounds: Bounds, found: Endpoint, age: float) -> Window:
        """The numbers of the last 24 h."""
        totals = _Totals.of(found)
        cells = [new - old for new, old in zip(totals.cells, self.expired.cells, strict=True)]
        return Window(
            bounds,
            min(age, DAY_SECONDS),
            totals.count - self.expired.count,
            totals.errors - self.expired.errors,
            cells,
            cells,
        )

    def _expire(self, before: float) -> None:
        while self.slots and self.slots[0].ended <= before:
            slot = self.slots.popleft()
            self.expired.count += slot.count
            self.expired.errors += slot.errors
            slot.span.add_to(self.expired.cells)
