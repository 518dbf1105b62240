"""What is said of trouble: each kind once, and that it is over."""

from __future__ import annotations

import logging

__all__ = ("Trouble",)

_logger = logging.getLogger("holistic_asgi_monitor")


class Trouble:
    """Logs a warning for each kind of trouble, not for each time."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def met(self, sentence: str) -> None:
        """Something failed, for a reason that the sentence gives."""
        if sentence not in self._said:
            self._said.add(sentence)
            _logger.warning(
                "History cannot be written now, and its numbers are kept in memory: %s", sentence
            )

    def over(self) -> None:
        """It works."""
        if self._said:
            self._said.clear()
            _logger.info("History is written again")
