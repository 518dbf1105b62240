"""What may be said of an exception: its type and where it came from, never its text.

The text of a foreign exception may hold a password, a key or an address; ours never do.
"""

from __future__ import annotations

import traceback

from holistic_asgi_monitor.model import MonitorError

__all__ = ("described",)

_PLACES = 3


def described(error: BaseException | None) -> str:
    """The type of `error` and its last places, or the sentence of one of our own."""
    if error is None:
        return "no exception"
    if isinstance(error, MonitorError):
        return str(error)
    # Not extract_tb: it reads source files, which would block the event loop.
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    where = f" at {', '.join(places[-_PLACES:])}" if places else ""
    return type(error).__name__ + where
