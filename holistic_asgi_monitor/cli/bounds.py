"""The end of a command that may not last, whatever an app's code does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

__all__ = ("Bound", "end_soon")

_MOMENT_SECONDS = 1.0


class Bound:
    """Ends the process where its block takes longer than `limit` seconds.

    `last_words` prints what there is to say, in a thread of its own, and returns the exit status.
    Nothing else ends a startup that blocks the event loop, or an import that waits for ever.
    """

    def __init__(self, limit: float, last_words: Callable[[], int]) -> None:
        self._last_words = last_words
        self._timer = self._started(limit)

    def shorten(self, limit: float) -> None:
        """Let `limit` seconds from now hold instead."""
        self._timer.cancel()
        self._timer = self._started(limit)

    def _started(self, limit: float) -> threading.Timer:
        return _timer(limit, lambda: _leave(self._last_words()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def end_soon(status: int) -> None:
    """End the process in a moment, also where threads that an app left behind would hold it."""
    _timer(_MOMENT_SECONDS, lambda: _leave(status))


def _timer(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


def _leave(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        # One that is closed, or missing, must not keep the process.
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(status)
