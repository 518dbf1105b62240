"""What each endpoint did lately: in the last five minutes, and in the hour before them.

Every half minute, what an endpoint gained is put into a slot; slots that leave the five minutes are
merged into blocks of five minutes, which are kept for an hour. Of the durations only the cells in
use are kept. An endpoint that nobody has asked for in all that time costs one comparison.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from operator import sub

import anyio.lowlevel

from holistic_asgi_monitor.metrics.latency import Bounds, Cells
from holistic_asgi_monitor.metrics.series import Endpoint, RequestSeries

__all__ = ("EndpointLately", "Recent", "Stretch")

SLOT_SECONDS = 30.0
LATELY_SECONDS = 300.0
LATEST_SECONDS = 60.0
BEFORE_SECONDS = 3600.0
_AT_ONCE = 5


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one endpoint did in one stretch of time.

    `timed` of the `count` requests were answered in one piece, and `slow` of these took longer
    than the threshold; `cells` have their durations: index and count of each cell in use, in turn.
    """

    count: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0
    cells: tuple[array[int], ...] = ()

    @property
    def error_percent(self) -> float:
        """Errors per hundred requests, 0 where there were none."""
        return 100.0 * self.errors / self.count if self.count else 0.0

    def quantile_ms(self, bounds: Bounds, q: float) -> float | None:
        """A quantile of the durations in milliseconds; None where nothing was timed."""
        dense = bounds.cells()
        for index, count in self.durations():
            dense[index] += count
        seconds = bounds.quantile(dense, q)
        return None if seconds is None else seconds * 1000.0

    def durations(self) -> Iterator[tuple[int, int]]:
        """The cells in use and their counts; a cell may come several times."""
        for part in self.cells:
            yield from zip(part[::2], part[1::2], strict=True)


@dataclass(frozen=True, slots=True)
class EndpointLately:
    """One method and endpoint: the last five minutes, and up to an hour before them.

    `latest` is the end of the five minutes, a minute to a minute and a half.
    """

    method: str
    endpoint: str
    lately: Stretch
    latest: Stretch
    before: Stretch

    @property
    def name(self) -> str:
        """Method and endpoint, as people write them."""
        return f"{self.method} {self.endpoint}"


class Recent:
    """Keeps the last minutes of each endpoint of `series`; `now` is monotonic seconds.

    `slow_ms` is the threshold in milliseconds above which a duration is slow.
    """

    def __init__(self, series: RequestSeries, slow_ms: float, now: float) -> None:
        self._series = series
        self._slow_from = bisect_left(series.bounds.upper, round(slow_ms * 1e6)) + 1
        self._records: dict[tuple[str, str], _Record] = {}
        self._born = self._closed = now

    def is_settled(self, now: float) -> bool:
        """Whether five minutes have been seen: before, few requests say little."""
        return now - self._born >= LATELY_SECONDS

    async def sample(self, now: float) -> None:
        """Close the slots when they are due; cheap to call often. Yields to the loop."""
        if now - self._closed < SLOT_SECONDS:
            return
        self._closed = now
        for number, (key, found) in enumerate(self._series.one_by_one(), 1):
            self._record(key).close_slot(found, self._slow_from, now)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    async def endpoints(self, now: float, least: int) -> AsyncIterator[EndpointLately]:
        """Every endpoint with at least `least` requests lately; yields to the loop in between."""
        for number, (key, found) in enumerate(self._series.one_by_one(), 1):
            record = self._record(key)
            if record.count_lately(found, now) >= least:
                yield record.seen(found, self._slow_from, now)
            if number % _AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    def _record(self, key: tuple[str, str]) -> _Record:
        return self._records.setdefault(key, _Record())


@dataclass(slots=True)
class _Slot:
    """What was gained until `ended`, monotonic seconds."""

    ended: float
    gain: Stretch


@dataclass(slots=True)
class _Record:
    """One endpoint: what it had when the last slot was closed, the slots, the blocks."""

    count: int = 0
    errors: int = 0
    start: int = 0
    cells: array[int] = field(default_factory=lambda: array("Q"))
    slots: deque[_Slot] = field(default_factory=deque)
    blocks: deque[_Slot] = field(default_factory=deque)

    def close_slot(self, found: Endpoint, slow_from: int, now: float) -> None:
        """Put what was gained since the last call into a slot, and drop what is too old."""
        if (found.count, found.errors) != (self.count, self.errors):
            self.slots.append(_Slot(now, self._gain(found, slow_from)))
            self.count, self.errors = found.count, found.errors
            self.start, self.cells = _used(found.latency)
        while self.slots and self.slots[0].ended <= now - LATELY_SECONDS:
            self._keep(self.slots.popleft())
        while self.blocks and self.blocks[0].ended <= now - LATELY_SECONDS - BEFORE_SECONDS:
            self.blocks.popleft()

    def count_lately(self, found: Endpoint, now: float) -> int:
        """How many requests there were in the last five minutes."""
        closed = sum(gain.count for gain in self._since(now - LATELY_SECONDS))
        return closed + found.count - self.count

    def seen(self, found: Endpoint, slow_from: int, now: float) -> EndpointLately:
        """What the endpoint did, up to now."""
        live = []
        if (found.count, found.errors) != (self.count, self.errors):
            live.append(self._gain(found, slow_from))
        over = [slot.gain for slot in self.slots if slot.ended <= now - LATELY_SECONDS]
        return EndpointLately(
            found.method,
            found.endpoint,
            lately=_joined([*self._since(now - LATELY_SECONDS), *live]),
            latest=_joined([*self._since(now - LATEST_SECONDS), *live]),
            before=_joined([*(block.gain for block in self.blocks), *over]),
        )

    def _since(self, began: float) -> list[Stretch]:
        return [slot.gain for slot in self.slots if slot.ended > began]

    def _gain(self, found: Endpoint, slow_from: int) -> Stretch:
        """What came since the last slot."""
        left = list(found.latency[:-1])
        known = slice(self.start, self.start + len(self.cells))
        left[known] = map(sub, left[known], self.cells)
        flat = array("I", chain.from_iterable(compress(enumerate(left), left)))
        return Stretch(
            count=found.count - self.count,
            errors=max(0, found.errors - self.errors),
            timed=sum(flat[1::2]),
            slow=sum(left[slow_from:]),
            cells=(flat,) if flat else (),
        )

    def _keep(self, slot: _Slot) -> None:
        """Merge a slot into the newest block, or begin another."""
        newest = self.blocks[-1] if self.blocks else None
        if newest is None or slot.ended - newest.ended >= LATELY_SECONDS:
            self.blocks.append(slot)
        else:
            newest.gain = _merged(_joined([newest.gain, slot.gain]))


def _used(cells: Cells) -> tuple[int, array[int]]:
    """Where the cells in use begin, and their counts."""
    used = list(compress(range(len(cells) - 1), cells))
    return (used[0], array("Q", cells[used[0] : used[-1] + 1])) if used else (0, array("Q"))


def _joined(parts: Iterable[Stretch]) -> Stretch:
    """Several stretches as one, each with its own cells."""
    every = list(parts)
    return Stretch(
        count=sum(part.count for part in every),
        errors=sum(part.errors for part in every),
        timed=sum(part.timed for part in every),
        slow=sum(part.slow for part in every),
        cells=tuple(cells for part in every for cells in part.cells),
    )


def _merged(stretch: Stretch) -> Stretch:
    """The same with each cell once, as it is kept for long."""
    counts: dict[int, int] = {}
    for index, count in stretch.durations():
        counts[index] = counts.get(index, 0) + count
    flat = array("I", [number for pair in counts.items() for number in pair])
    return replace(stretch, cells=(flat,) if flat else ())
