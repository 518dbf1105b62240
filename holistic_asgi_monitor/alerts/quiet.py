"""When nothing is told: windows of maintenance for everything, a silence for one key.

Pure: `now` is monotonic seconds and passed in, so that a clock that jumps changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from holistic_asgi_monitor.model import ConfigurationError, Severity

__all__ = ("Orders", "Quiet", "Silence", "Window", "refuse_wrong_minutes")

MOST_MINUTES = 1440
MOST_SILENCES = 1000
MOST_WINDOWS = 100
LOOK_SECONDS = 60.0
LIKE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """One window of maintenance, from `began` to before `until`, in monotonic seconds.

    `lasting` is whether it goes on after a restart: a block of code does not.
    """

    reason: str
    began: float
    until: float
    lasting: bool = True

    def is_like(self, other: Window) -> bool:
        """Whether it is the same one, which clocks and files may have moved a little."""
        return self.reason == other.reason and abs(self.until - other.until) < LIKE_SECONDS


@dataclass(frozen=True, slots=True)
class Silence:
    """One key of which nothing is told until `until`, in monotonic seconds.

    What is worse than `severity` ends it; where that is None, nothing does.
    """

    until: float
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Orders:
    """What people have ordered, for all processes that have one voice."""

    windows: tuple[Window, ...] = ()
    silences: Mapping[str, Silence] = field(default_factory=dict)

    def merged(self, before: Orders, now: Orders, moment: float) -> Orders:
        """These, with what was changed elsewhere from `before` to `now`; `moment` is now."""
        begun = [each for each in now.windows if not _among(each, before.windows)]
        ended = [each for each in before.windows if not _among(each, now.windows)]
        kept = [
            each
            for each in self.windows
            if each.until > moment and not _among(each, ended) and not _among(each, begun)
        ]
        silences = {key: each for key, each in self.silences.items() if each.until > moment}
        for key in before.silences.keys() - now.silences.keys():
            silences.pop(key, None)
        fresh = {
            key: each for key, each in now.silences.items() if before.silences.get(key) != each
        }
        return Orders((*kept, *begun), {**silences, **fresh})


def _among(window: Window, others: Iterable[Window]) -> bool:
    return any(window.is_like(each) for each in others)


class Quiet:
    """The windows of maintenance, which may overlap, and the keys that are silenced.

    May be changed and asked from several threads: what is walked through is a copy.
    """

    def __init__(self) -> None:
        self._windows: dict[int, Window] = {}
        self._silences: dict[str, Silence] = {}
        self._numbers = count()
        self._ended = -math.inf

    def begin(self, window: Window) -> int:
        """Take in a window; gives the number by which it can be ended."""
        number = next(self._numbers)
        self._windows[number] = window
        if len(self._windows) > MOST_WINDOWS:
            del self._windows[next(iter(self._windows))]
        return number

    def end(self, number: int, now: float) -> Window | None:
        """End one window; None where it is over already."""
        window = self._windows.pop(number, None)
        if window is not None:
            self._ended = max(self._ended, min(now, window.until))
        return window

    def end_all(self, now: float, reason: str | None = None) -> list[Window]:
        """End all windows, or those with `reason`."""
        chosen = [
            number
            for number, window in list(self._windows.items())
            if reason is None or window.reason == reason
        ]
        return [window for number in chosen if (window := self.end(number, now)) is not None]

    def expire(self, now: float) -> list[Window]:
        """Let go of the windows and silences whose time is over; gives the windows."""
        self._silences = {
            key: silence for key, silence in list(self._silences.items()) if now < silence.until
        }
        over = [number for number, window in list(self._windows.items()) if window.until <= now]
        return [window for number in over if (window := self.end(number, now)) is not None]

    def windows(self, now: float) -> list[Window]:
        """The windows that are open, the oldest first."""
        return [window for window in list(self._windows.values()) if now < window.until]

    def active(self, now: float) -> bool:
        """Whether a window is open."""
        return any(now < window.until for window in list(self._windows.values()))

    def orders(self, now: float) -> Orders:
        """What people have ordered and still holds."""
        windows = [each for each in self.windows(now) if each.lasting]
        return Orders(tuple(windows), self.silenced(now))

    def agree(self, orders: Orders, now: float) -> tuple[list[Window], list[Window]]:
        """Let exactly these orders hold; gives the windows that this begins, and those it ends."""
        held = self.orders(now).windows
        begun = [each for each in orders.windows if not _among(each, held) and now < each.until]
        over = [
            number
            for number, each in list(self._windows.items())
            if each.lasting and not _among(each, orders.windows)
        ]
        ended = [window for number in over if (window := self.end(number, now)) is not None]
        for window in begun:
            self.begin(window)
        self._silences = dict(list(orders.silences.items())[:MOST_SILENCES])
        return begun, ended

    def next_end(self) -> float:
        """When the next window ends by itself, infinite where none does."""
        return min((window.until for window in list(self._windows.values())), default=math.inf)

    def mutes(self, seen: float, now: float) -> bool:
        """Whether nothing at all is told of a key that was last looked at when it was `seen`.

        That is so in a window, and after it until the key was looked at once more: what was so
        in the window may be over with it.
        """
        if self.active(now):
            return True
        over = [window.until for window in list(self._windows.values())]
        ended = max(self._ended, *over) if over else self._ended
        return seen < ended and now - ended < LOOK_SECONDS

    def silence(self, key: str, silence: Silence) -> None:
        """Tell nothing of `key`, in the place of what was said of it before."""
        self._silences.pop(key, None)
        self._silences[key] = silence
        if len(self._silences) > MOST_SILENCES:
            del self._silences[next(iter(self._silences))]

    def speak(self, key: str) -> bool:
        """End the silence of `key`; whether there was one."""
        return self._silences.pop(key, None) is not None

    def worsened(self, key: str, severity: Severity) -> bool:
        """Whether `key` is now worse than its silence covers, which is then over."""
        silence = self._silences.get(key)
        if silence is None or silence.severity is None or severity <= silence.severity:
            return False
        return self.speak(key)

    def silences(self, key: str, now: float) -> bool:
        """Whether `key` is silenced."""
        silence = self._silences.get(key)
        return silence is not None and now < silence.until

    def silenced(self, now: float) -> Mapping[str, Silence]:
        """The silences that hold, by key."""
        return {
            key: silence for key, silence in list(self._silences.items()) if now < silence.until
        }


def refuse_wrong_minutes(minutes: object, whose: str) -> float:
    """The minutes as seconds; ConfigurationError where they are none.

    `whose` begins the sentence, as in "The minutes of a maintenance window".
    """
    sound = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not sound or not 0 < float(minutes) <= MOST_MINUTES:  # type: ignore[arg-type]  # sound
        raise ConfigurationError(
            f"{whose} are {minutes!r}: they must be a number above 0 and at most {MOST_MINUTES}."
        )
    return float(minutes) * 60  # type: ignore[arg-type]  # sound
