"""Which calls of OpenAI are counted, and what is peculiar to them, by their path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ("Operation", "operation_at")

_BILLED = re.compile(
    r"/(?:chat/completions|completions|responses(?:/compact)?|embeddings|moderations"
    r"|videos(?:/edits|/extensions|/[^/]+/remix)?"
    r"|images/(?:generations|edits|variations)|audio/(?:speech|transcriptions|translations))$"
)
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of call.

    Streams of `chat` say their usage only where that is asked for; those of `events` are of
    named events. All output of `images` is one of them. Nobody pays for a `free` one.
    """

    chat: bool
    events: bool
    images: bool
    free: bool


@lru_cache(maxsize=_REMEMBERED)
def operation_at(url: str) -> Operation | None:
    """What is called at a URL, or at its path; None where that is nothing to count."""
    path = url.partition("?")[0]
    if _BILLED.search(path) is None:
        return None
    return Operation(
        chat=path.endswith("/chat/completions"),
        events=path.endswith("/responses"),
        images="/images/" in path,
        free=path.endswith("/moderations"),
    )
