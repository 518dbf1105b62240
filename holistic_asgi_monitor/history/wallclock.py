"""The time of day as history counts it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ("WallClock",)

AHEAD_SECONDS = 2.0
BEHIND_SECONDS = 600.0
SLEW = 1 / 30
"""How much slower our clock goes until that of the machine has caught up: two seconds a minute."""


class WallClock:
    """UTC epoch seconds that pass evenly, whatever is done to the clock of the machine.

    `clock` gives monotonic seconds, `wall` the clock of the machine. Where that is set back a
    little, ours goes on, ahead of it and a little slower, until they agree again: so no minute
    comes twice. A clock that was set forward (or a machine that slept), or was wrong by more than
    ten minutes, is followed.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._asked = clock()
        self._offset = wall() - self._asked

    def now(self) -> float:
        """The time."""
        monotonic, real = self._clock(), self._wall()
        ahead = self._offset + monotonic - real
        if not -AHEAD_SECONDS <= ahead <= BEHIND_SECONDS:
            self._offset = real - monotonic
        elif ahead > 0:
            self._offset -= min(ahead, SLEW * (monotonic - self._asked))
        self._asked = monotonic
        return self._offset + monotonic
