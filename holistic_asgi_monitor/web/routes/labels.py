"""Text that is safe to be a label: printable, encodable, of bounded length."""

from __future__ import annotations

import re

__all__ = ("LONGEST", "braced", "safe")

LONGEST = 200
"""Characters of a label."""

_CONVERTER = re.compile(r"\{\s*([A-Za-z_]\w*)\s*:[^{}]*\}")
_REPLACEMENT = "\ufffd"
_CUT = "\u2026"


def safe(text: str) -> str:
    """`text` as a label: what cannot be printed or encoded replaced, and cut at 200 characters."""
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + _CUT
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _REPLACEMENT for letter in text)


def braced(template: str) -> str:
    """A template without its converters: `/items/{id:int}` becomes `/items/{id}`."""
    return _CONVERTER.sub(r"{\1}", template)
