"""Maintenance and silence as people begin and end them, with what the log says of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from holistic_asgi_monitor.alerts.quiet import (
    Orders,
    Quiet,
    Silence,
    Window,
    refuse_wrong_minutes,
)
from holistic_asgi_monitor.model import Severity

__all__ = ("Maintenance", "QuietTimes")

_logger = logging.getLogger("holistic_asgi_monitor")

REASON_CHARACTERS = 200
DEFAULT_MINUTES = 60.0
DEFAULT_REASON = "maintenance"


class QuietTimes:
    """Begins and ends the times of `quiet`, and says so in the log.

    `changed` is called after each change, with whether a window has ended. `clock` gives
    monotonic seconds, `wall` the time in UTC; `redacted` takes secrets out of a text.
    """

    def __init__(
        self,
        quiet: Quiet,
        *,
        changed: Callable[[bool], object],
        redacted: Callable[[str], str],
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._quiet = quiet
        self._changed = changed
        self._redacted = redacted
        self._clock = clock
        self._wall = wall

    def begin(self, reason: str, minutes: float, *, lasting: bool = True) -> int:
        """Begin a window of maintenance; gives its number.

        `lasting` is whether it goes on after a restart. ConfigurationError for wrong minutes.
        """
        seconds = refuse_wrong_minutes(minutes, "The minutes of a maintenance window")
        now = self._clock()
        window = Window(self._reason(reason), now, now + seconds, lasting=lasting)
        number = self._quiet.begin(window)
        _logger.info(
            "Maintenance begins: %s, for %g minutes at most; alerts are held back",
            window.reason,
            minutes,
        )
        self._changed(False)  # noqa: FBT003 - the one argument of a callback
        return number

    def end(self, number: int) -> None:
        """End one window, unless it is over."""
        window = self._quiet.end(number, self._clock())
        self._say_ended([window] if window is not None else [])

    def end_all(self, reason: str | None = None) -> None:
        """End all windows, or those with `reason`."""
        wanted = None if reason is None else self._reason(reason)
        self._say_ended(self._quiet.end_all(self._clock(), wanted))

    def expire(self) -> None:
        """End what is over by now."""
        self._say_ended(self._quiet.expire(self._clock()))

    def silence(self, key: str, minutes: float, severity: Severity | None) -> None:
        """Tell nothing of `key` for a time, unless it gets worse than `severity`.

        ConfigurationError for wrong minutes.
        """
        seconds = refuse_wrong_minutes(minutes, "The minutes of a silence")
        self._quiet.silence(key, Silence(self._clock() + seconds, severity))
        _logger.info("Alerts of %s are silenced for %g minutes", key, minutes)
        self._changed(False)  # noqa: FBT003 - the one argument of a callback

    def speak(self, key: str) -> None:
        """End the silence of `key`, if there is one."""
        if self._quiet.speak(key):
            _logger.info("Alerts of %s are no longer silenced", key)
            self._changed(False)  # noqa: FBT003 - the one argument of a callback

    @property
    def orders(self) -> Orders:
        """What people have ordered and still holds."""
        return self._quiet.orders(self._clock())

    def agree(self, orders: Orders) -> None:
        """Let exactly these orders hold, which were given to whichever process."""
        before = self.orders
        begun, ended = self._quiet.agree(orders, self._clock())
        for window in begun:
            _logger.info("Maintenance begins: %s, as another process was told", window.reason)
        if begun or before.silences != orders.silences:
            self._changed(False)  # noqa: FBT003 - the one argument of a callback
        self._say_ended(ended)

    def as_dict(self) -> dict[str, Any]:
        """What holds now, as JSON values."""
        now = self._clock()
        windows = self._quiet.windows(now)
        return {
            "maintenance": self._maintenance(windows) if windows else None,
            "silences": [
                {"key": key, "until": self._time(silence.until)}
                for key, silence in self._quiet.silenced(now).items()
            ],
        }

    def _maintenance(self, windows: Sequence[Window]) -> dict[str, Any]:
        reasons = dict.fromkeys(window.reason for window in windows)
        until = max(window.until for window in windows)
        return {"reason": ", ".join(reasons), "until": self._time(until)}

    def _time(self, moment: float) -> str:
        ahead = timedelta(seconds=moment - self._clock())
        return (self._wall() + ahead).isoformat(timespec="microseconds")

    def _reason(self, reason: str) -> str:
        """The reason as one line, without secrets."""
        line = " ".join(self._redacted(str(reason)).split())
        shown = "".join(letter for letter in line if letter.isprintable())
        return shown[:REASON_CHARACTERS] or DEFAULT_REASON

    def _say_ended(self, windows: Sequence[Window]) -> None:
        for window in windows:
            _logger.info("Maintenance ends: %s", window.reason)
        if windows:
            self._changed(True)  # noqa: FBT003 - the one argument of a callback


class Maintenance:
    """A window of maintenance: `async with` it, or `begin` and `end` it.

    It ends by itself when its minutes are over.
    """

    def __init__(self, times: QuietTimes, reason: str, minutes: float) -> None:
        refuse_wrong_minutes(minutes, "The minutes of a maintenance window")
        self._times = times
        self._reason = reason
        self._minutes = minutes
        self._numbers: list[int] = []

    def begin(self) -> None:
        """Begin it; once more means another window, which has to be ended as well."""
        self._numbers.append(self._times.begin(self._reason, self._minutes, lasting=False))

    def end(self) -> None:
        """End it, unless it is over."""
        if self._numbers:
            self._times.end(self._numbers.pop())

    async def __aenter__(self) -> Self:
        self.begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()
