"""The time of day as history counts it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ("WallClock",)

AHEAD_SECONDS = 2.0
BEHIND_SECONDS = 600.0


class WallClock:
    """UTC epoch seconds that pass evenly, whatever is done to the clock of the machine.

    `clock` gives monotonic seconds, `wall` the clock of the machine. Where that is set back a
    little, ours goes on, ahead of it, so that no minute comes twice. A clock that was set forward
    (or a machine that slept), or was wrong by more than ten minutes, is followed.
    """

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._clock = clock
        self._wall = wall
        self._offset = wall() - clock()

    def now(self) -> float:
        """The time."""
        monotonic, real = self._clock(), self._wall()
        behind = self._offset + monotonic - real
        if not -AHEAD_SECONDS <= behind <= BEHIND_SECONDS:
            self._offset = real - monotonic
        return self._offset + monotonic
