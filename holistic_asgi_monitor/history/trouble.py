"""What is said of trouble, each kind once, and how long it is left alone."""

from __future__ import annotations

import logging

__all__ = ("Trouble",)

_logger = logging.getLogger("holistic_asgi_monitor")

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0


class Trouble:
    """Logs a warning for each kind of trouble with one thing, not for each time.

    `sentence` says what does not work, `relief` that it works again. `now` is in seconds, by any
    clock that only goes on.
    """

    def __init__(self, sentence: str, relief: str) -> None:
        self._sentence = sentence
        self._relief = relief
        self._said: set[str] = set()
        self._not_before = float("-inf")
        self._pause = FIRST_PAUSE

    def met(self, reason: str, now: float, kind: str = "") -> None:
        """It failed, for a reason that is a sentence; several may be of one kind."""
        if (kind or reason) not in self._said:
            self._said.add(kind or reason)
            _logger.warning("%s: %s", self._sentence, reason)
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def over(self) -> None:
        """It works."""
        self._not_before, self._pause = float("-inf"), FIRST_PAUSE
        if self._said:
            self._said.clear()
            _logger.info("%s", self._relief)

    def may_try(self, now: float) -> bool:
        """Whether it is time to try again."""
        return now >= self._not_before
