"""Long work on the event loop, with other tasks let in after each stretch of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

import anyio.lowlevel

from holistic_asgi_monitor.history.pace import Stretch

__all__ = ("taking_turns",)

T = TypeVar("T")


async def taking_turns(found: Iterable[T]) -> AsyncIterator[T]:
    """The same, with other tasks let in after each stretch of work."""
    stretch = Stretch()
    for each in found:
        if stretch.over:
            await anyio.lowlevel.checkpoint()
            stretch.renew()
        yield each
