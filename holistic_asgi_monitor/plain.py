"""Plain JSON values of whatever somebody gives, and not more of them than a report can carry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

__all__ = ("UNREADABLE", "plain_details", "shortened")

LONGEST_TEXT = 2_000
MOST_ENTRIES = 100
MOST_VALUES = 1_000
DEEPEST = 6
CUT = "..."
UNREADABLE = "could not be read"


def shortened(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text, cut at a space where it is too long: half a secret would not be known as one."""
    if len(text) <= longest:
        return text
    kept = text[: longest - len(CUT)]
    whole, space, _ = kept.rpartition(" ")
    return (whole if space and len(whole) > longest // 2 else kept) + CUT


def plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `details` of JSON values: others as text, NaN and infinity as None.

    What goes beyond 100 entries of one mapping or sequence, 1,000 values in all or six levels is
    left out; keys that are no texts are left out too.
    """
    try:
        return dict(_Copy().entries(details, 0))
    except Exception:
        # Protects who publishes them: these are somebody's objects, and may not like to be read.
        return {"left_out": "the details could not be read"}


class _Copy:
    """One copy, which counts what it has taken."""

    def __init__(self) -> None:
        self._left = MOST_VALUES

    def entries(self, mapping: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
        for key, value in islice(mapping.items(), MOST_ENTRIES):
            if isinstance(key, str):
                yield shortened(key), self._value(value, depth + 1)

    def _items(self, values: Iterable[Any], depth: int) -> Iterator[Any]:
        for value in islice(values, MOST_ENTRIES):
            yield self._value(value, depth + 1)

    def _value(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > DEEPEST:
            return CUT
        if value is None or isinstance(value, bool | int):
            return value if value is None or _is_writable(value) else CUT
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return dict(self.entries(value, depth))
        if isinstance(value, list | tuple | set | frozenset):
            return list(self._items(value, depth))
        return _text(value)


def _is_writable(number: int) -> bool:
    """Whether Python writes it out: very long integers are refused."""
    return number.bit_length() <= 1_000


def _text(value: object) -> str:
    if isinstance(value, BaseException):
        # Its text may hold a secret.
        return type(value).__name__
    try:
        return shortened(value if isinstance(value, str) else str(value))
    except Exception:
        # As above, for one value.
        return UNREADABLE
