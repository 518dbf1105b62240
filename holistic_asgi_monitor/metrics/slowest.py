"""The slowest requests of the last 24 hours, kept hour by hour.

Nothing of this happens in a request: durations are looked at when they are folded into the cells,
and only the longest of each fold against one number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappush, heapreplace, nlargest

__all__ = ("SLOWEST_KEPT", "Slow", "Slowest")

SLOWEST_KEPT = 100
HOUR_SECONDS = 3600.0
DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, order=True)
class Slow:
    """One request: how long it took in ns, when that was noted (monotonic seconds), and what."""

    nanoseconds: int
    noted: float
    method: str = field(compare=False)
    endpoint: str = field(compare=False)
    status: int = field(compare=False)
    streamed: bool = field(compare=False)


class Slowest:
    """Keeps the slowest of each of the last 25 hours; `floor` is what a duration must be above.

    Hours, since the slowest of a day that passes out of it would leave a hole behind.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.floor = -1
        self._began = clock()
        self._hours: deque[list[Slow]] = deque([[]], maxlen=round(DAY_SECONDS / HOUR_SECONDS) + 1)

    def note(self, nanoseconds: int, method: str, endpoint: str, signed: int) -> None:
        """Keep a request that took longer than the floor; `signed` is negative where streamed."""
        slow = Slow(nanoseconds, self._clock(), method, endpoint, abs(signed), signed < 0)
        hour = self._hours[-1]
        if len(hour) < SLOWEST_KEPT:
            heappush(hour, slow)
        else:
            heapreplace(hour, slow)
        if len(hour) == SLOWEST_KEPT:
            self.floor = hour[0].nanoseconds

    def turn(self) -> None:
        """Begin another hour where the last one is over."""
        if self._clock() - self._began >= HOUR_SECONDS:
            self._began = self._clock()
            self._hours.append([])
            self.floor = -1

    def of_last_day(self) -> list[Slow]:
        """The slowest of the last 24 hours, slowest first."""
        since = self._clock() - DAY_SECONDS
        every = (slow for hour in list(self._hours) for slow in list(hour) if slow.noted >= since)
        return nlargest(SLOWEST_KEPT, every)
