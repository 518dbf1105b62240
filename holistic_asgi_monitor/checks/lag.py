"""How late the event loop has been lately: who could not answer in time may not be to blame."""

from __future__ import annotations

from collections import deque

__all__ = ("LoopLag",)

WORTH_NOTING_SECONDS = 0.05
MOST = 256


class LoopLag:
    """The recent delays of one event loop; all times are seconds of the same clock.

    `last` is the newest, None before the first.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque(maxlen=MOST)
        self.last: float | None = None
        self._worst = 0.0

    def note(self, now: float, seconds: float) -> None:
        """Take in that the loop was `seconds` late at `now`."""
        self.last = seconds
        self._worst = max(self._worst, seconds)
        if seconds >= WORTH_NOTING_SECONDS:
            self._delays.append((now, seconds))

    def worst(self, since: float) -> float:
        """The longest delay that ended after `since`."""
        return max((seconds for ended, seconds in self._delays if ended >= since), default=0.0)

    def take_worst(self) -> float:
        """The longest delay since the last call."""
        worst, self._worst = self._worst, 0.0
        return worst
