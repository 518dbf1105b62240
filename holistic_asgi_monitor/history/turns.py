"""Long work: on the event loop, with other tasks let in after each stretch of it, or beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

import anyio.lowlevel
import anyio.to_thread

from holistic_asgi_monitor.history.pace import Stretch
from holistic_asgi_monitor.threads import own_threads

__all__ = ("beside", "taking_turns")

T = TypeVar("T")
THREADS = 4


async def beside(work: Callable[[], T], *, forsakable: bool = False) -> T:
    """What `work` returns, done in a thread that the application has no share in.

    Work that is `forsakable` is left to itself once nobody waits for it.
    """
    limiter = own_threads("history", THREADS)
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=forsakable, limiter=limiter)


async def taking_turns(found: Iterable[T]) -> AsyncIterator[T]:
    """The same, with other tasks let in after each stretch of work."""
    stretch = Stretch()
    for each in found:
        if stretch.over:
            await anyio.lowlevel.checkpoint()
            stretch.renew()
        yield each
