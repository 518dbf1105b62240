"""How long one stretch of work may be, before others have their turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ("Stretch", "give_way", "giving_way")

T = TypeVar("T")
STRETCH_SECONDS = 0.001
PAUSE_SECONDS = 0.0001
"""Long enough for another thread to wake up; a pause of 0 is over before it does."""


class Stretch:
    """Says when a stretch of work has become too long; `clock` gives monotonic seconds."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """The next stretch begins."""
        self._end = self._clock() + STRETCH_SECONDS

    @property
    def over(self) -> bool:
        """Whether it is time to let others in."""
        return self._clock() >= self._end


def give_way() -> None:
    """Let go of the interpreter lock for as long as the event loop takes to wake up."""
    time.sleep(PAUSE_SECONDS)


def giving_way(found: Iterable[T], stretch: Stretch | None = None) -> Iterator[T]:
    """The same, with the interpreter lock let go after each stretch of work; for threads.

    Without it the event loop would wait for 5 ms each time that it wants to go on.
    """
    stretch = Stretch() if stretch is None else stretch
    for each in found:
        if stretch.over:
            give_way()
            stretch.renew()
        yield each
