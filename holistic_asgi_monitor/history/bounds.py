"""How much one question may cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from holistic_asgi_monitor.history.store import StoreError

__all__ = ("MOST_VALUES", "TooMuchError", "bounded")

T = TypeVar("T")
MOST_VALUES = 200_000
"""How many stored values a question may be answered from: seconds of work for one thread."""


class TooMuchError(StoreError):
    """The question is made of too many values; the sentence may be shown to anyone."""

    def __init__(self) -> None:
        super().__init__(
            f"the question takes more than {MOST_VALUES} stored values; "
            "allowed: a shorter range, a longer step, or one endpoint or name alone"
        )


def bounded(found: Iterable[T]) -> Iterator[T]:
    """The same values; `TooMuchError` where there are too many."""
    for number, each in enumerate(found):
        if number >= MOST_VALUES:
            raise TooMuchError
        yield each
