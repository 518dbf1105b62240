"""Saying once, without anybody's secrets, that a label could not be found."""

from __future__ import annotations

import logging
import sys
from traceback import extract_tb

__all__ = ("Complaints",)

_logger = logging.getLogger("holistic_asgi_monitor")


class Complaints:
    """Logs each sentence once, with the type and the place of the exception being handled.

    The exception's own text stays out: it may hold what a request or a setting held.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    def once(self, sentence: str) -> None:
        """Log `sentence`, unless it has been logged before."""
        if sentence in self._said:
            return
        self._said.add(sentence)
        _logger.warning("%s (%s)", sentence, _cause(sys.exception()))


def _cause(error: BaseException | None) -> str:
    if error is None:
        return "no exception"
    places = extract_tb(error.__traceback__)
    where = f" at {places[-1].filename}:{places[-1].lineno}" if places else ""
    return type(error).__name__ + where
