"""What the request path has counted since the last time: its cells now, less what they were.

The cells of the request path only grow, and are never touched here.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import anyio.lowlevel

from holistic_asgi_monitor.history.pace import Stretch
from holistic_asgi_monitor.history.values import USUAL_STATUS, Kind, Series, Sum, Value
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import Endpoint, RequestSeries

__all__ = ("RequestGains",)


class RequestGains:
    """Tells what each endpoint, and all of them together, gained since the last call.

    What is there already when it is made counts as gained.
    """

    def __init__(self, requests: RequestSeries) -> None:
        self._requests = requests
        self._last: dict[tuple[str, str], _Totals] = {}

    async def tell(self, gained: Callable[[Series, Value], None]) -> None:
        """Give every gain to `gained`; yields to the event loop in between.

        Where it is cancelled, nothing is lost: the rest is told the next time.
        """
        stretch = Stretch()
        for key, found in self._requests.one_by_one():
            value = self._gain(key, found)
            if value is not None:
                gained(Series(Kind.REQUESTS, key), value)
                gained(Series(Kind.TRAFFIC), value)
            if stretch.over:
                await anyio.lowlevel.checkpoint()
                stretch.renew()

    def _gain(self, key: tuple[str, str], found: Endpoint) -> Value | None:
        last = self._last.get(key)
        if last is None:
            last = self._last[key] = _Totals(self._requests.bounds)
        counts = {status: cell[0] for status, cell in list(found.statuses.items())}
        if counts == last.statuses and found.broken == last.broken:
            return None
        return last.gain(counts, found)


class _Totals:
    """What one endpoint had counted the last time.

    Arrays, since lists of numbers hold up the garbage collector, and with it the event loop.
    """

    __slots__ = ("bounds", "broken", "cells", "statuses", "totals")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.statuses: dict[int, int] = {}
        self.broken = 0
        self.cells: list[array[int]] = []
        self.totals: list[int] = []

    def gain(self, counts: dict[int, int], found: Endpoint) -> Value:
        sum_ = Sum()
        for status, count in counts.items():
            more = count - self.statuses.get(status, 0)
            sum_.add_numbers(more, more if status >= 500 else 0, 0, 0)
            if more and str(status) != USUAL_STATUS:
                sum_.extra[str(status)] = more
        sum_.errors += found.broken - self.broken
        self.statuses, self.broken = counts, found.broken
        for number, cells in enumerate(found.durations()):
            if number == len(self.cells):
                self.cells.append(array("Q", bytes(8 * (self.bounds.size - 1))))
                self.totals.append(0)
            sum_.add(self._gained(number, cells[-1], array("Q", cells[:-1])))
        return sum_.value()

    def _gained(self, number: int, total: int, cells: array[int]) -> Value:
        """What a set of cells gained, with the sum of its durations in nanoseconds."""
        before, self.cells[number] = self.cells[number], cells
        more, self.totals[number] = total - self.totals[number], total
        if not more and cells == before:
            return Value()
        gained = [new - old for new, old in zip(cells, before, strict=True)]
        return Value(total=more, cells=self.bounds.sparse(gained))
