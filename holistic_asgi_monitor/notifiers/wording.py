"""Wording that the notifiers share: texts without surprises, times and durations."""

from __future__ import annotations

import re
from datetime import datetime

from holistic_asgi_monitor.model import Alert

__all__ = ("clock", "duration", "escaped", "plain", "span")

# Control characters, and the marks with which a text can turn its reading direction.
_UNWANTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_ESCAPES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))
_CUT = "…"


def plain(text: str) -> str:
    """The text on one line, without control characters and direction marks."""
    return " ".join(_UNWANTED.sub("", text.replace("\n", " ")).split())


def escaped(text: str, limit: int) -> str:
    """The text with Slack's three characters escaped, at most `limit` long, no entity cut."""
    pieces: list[str] = []
    left = limit - len(_CUT)
    characters = _UNWANTED.sub("", text)
    for character in characters:
        piece = dict(_ESCAPES).get(character, character)
        if len(piece) > left:
            return "".join(pieces) + _CUT
        pieces.append(piece)
        left -= len(piece)
    return "".join(pieces)


def clock(time: datetime) -> str:
    """A time of day in UTC, as it stands in a message."""
    return f"{time:%H:%M:%S} UTC"


def duration(alert: Alert) -> str:
    """How long it lasted, in brackets; nothing while it lasts."""
    if alert.ended_at is None:
        return ""
    return f" (it lasted {span((alert.ended_at - alert.started_at).total_seconds())})"


def span(seconds: float) -> str:
    """A length of time in its two largest units: `4 min 10 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, whole = divmod(whole, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
