"""When failures come so fast that the next round of checks should not be waited for.

Pure: counts that only grow go in, once a second.
"""

from __future__ import annotations

import math
from collections import deque

__all__ = ("Burst", "Pace")

OVER_SECONDS = 5.0


class Burst:
    """Sees a burst: many failures within five seconds, and too many of all that ended.

    `fewest` failures make a burst, if more than `percent` of a hundred failed.
    """

    def __init__(self, *, fewest: int, percent: float) -> None:
        self._fewest = fewest
        self._percent = percent
        self._looks: deque[tuple[float, int, int]] = deque()

    def seen(self, failed: int, total: int, now: float) -> bool:
        """Whether there is a burst, where `failed` of `total` have failed until `now`."""
        looks = self._looks
        if looks and (failed < looks[-1][1] or total < looks[-1][2]):
            # Numbers that are folded by another thread may be missing for a moment.
            failed, total = max(failed, looks[-1][1]), max(total, looks[-1][2])
        looks.append((now, failed, total))
        while len(looks) > 1 and looks[1][0] <= now - OVER_SECONDS:
            looks.popleft()
        more, of_all = failed - looks[0][1], total - looks[0][2]
        return more >= self._fewest and 100 * more > self._percent * of_all


class Pace:
    """How often a burst may start a round: at once, and seldom where it goes on.

    The first pause is `first` seconds, each further one twice as long, at most `longest`; after a
    pause without any burst it is the first one again.
    """

    def __init__(self, *, first: float = 5.0, longest: float = 60.0) -> None:
        self._first = first
        self._longest = longest
        self._pause = first
        self._until = -math.inf

    def may_start(self, now: float, *, burst: bool) -> bool:
        """Whether a round is to be started now."""
        if now < self._until:
            return False
        if not burst:
            self._pause = self._first
            return False
        self._until = now + self._pause
        self._pause = min(2 * self._pause, self._longest)
        return True
