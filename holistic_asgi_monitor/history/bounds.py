"""How much one question may cost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from holistic_asgi_monitor.history.store import StoreError

__all__ = ("MOST_VALUES", "ForsakenError", "TooMuchError", "bounded", "waited_for")

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


class ForsakenError(StoreError):
    """Nobody waits for the answer any longer, and so nobody is told."""


def bounded(found: Iterable[T], wanted: Callable[[], bool]) -> Iterator[T]:
    """The same values, as long as somebody wants them; `TooMuchError` where there are too many."""
    for number, each in enumerate(found):
        if number >= MOST_VALUES:
            raise TooMuchError
        if not wanted():
            raise ForsakenError("nobody waits for the answer any longer")
        yield each


@contextmanager
def waited_for() -> Iterator[Callable[[], bool]]:
    """Tells any thread whether the block has not been left yet."""
    left = threading.Event()
    try:
        yield lambda: not left.is_set()
    finally:
        left.set()
