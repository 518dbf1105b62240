"""What may be said of an exception: its type and where it came from, never its text.

The text of a foreign exception may hold a password, a key or an address; ours never do.
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import PurePath
from types import FrameType

from holistic_asgi_monitor.model import MonitorError

__all__ = ("described", "own_place")

_PLACES = 3
_LONGEST_PLACE = 200
_INSTALLED = frozenset(("site-packages", "dist-packages"))
_NOT_THE_APPS = (
    *{f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")},
    f"{PurePath(__file__).parent}{os.sep}",
    "<",
)


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


def own_place(error: BaseException) -> str:
    """Where in the application's own code `error` came from: `shop/views.py:12 in pay`.

    The last place outside of installed packages, Python and ourselves; where there is none, the
    last of all, and empty where there is no traceback.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    places = list(traceback.walk_tb(error.__traceback__))
    if not places:
        return ""
    own = (place for place in reversed(places) if _is_own(place[0].f_code.co_filename))
    frame, line = next(own, places[-1])
    return f"{_file(frame)}:{line} in {frame.f_code.co_name}"[:_LONGEST_PLACE]


def _is_own(file: str) -> bool:
    return not file.startswith(_NOT_THE_APPS) and _INSTALLED.isdisjoint(PurePath(file).parts)


def _file(frame: FrameType) -> str:
    """The file below the folder that it was imported from."""
    path = PurePath(frame.f_code.co_filename)
    package = str(frame.f_globals.get("__package__") or "")
    depth = package.count(".") + 2 if package else 1
    return "/".join(path.parts[-depth:])
