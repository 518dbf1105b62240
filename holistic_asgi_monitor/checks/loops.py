"""What anyio leaves to each event loop: tasks without a parent, and threads that nobody awaits.

A check may ignore its cancellation, or hang in a call that nothing interrupts. In a task group it
would hold whoever runs it, and in a pooled worker thread the end of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from holistic_asgi_monitor.threads import Call, on_asyncio

__all__ = ("StillRunningError", "Threaded", "running_loop", "spawn")


def spawn(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
    """Start `work` in a task without a parent, in an empty context; keep what is returned.

    `work` must not raise: on trio that would end the loop.
    """
    context = contextvars.Context()
    if on_asyncio():
        # Entered rather than passed on: a task factory need not know the argument `context`.
        loop = asyncio.get_running_loop()
        return context.run(lambda: loop.create_task(work(), name=name))
    import trio

    return trio.lowlevel.spawn_system_task(work, name=name, context=context)


def running_loop() -> object:
    """Something that is the same as long as this event loop runs, and another one's never."""
    if on_asyncio():
        return asyncio.get_running_loop()
    import trio

    return trio.lowlevel.current_trio_token()


class StillRunningError(Exception):
    """A call was not begun, since the one before has not returned; `since` is when that began."""

    def __init__(self, since: datetime) -> None:
        super().__init__(since)
        self.since = since


class Threaded:
    """A function that may block, called in a daemon thread, one call at a time.

    Who waits can be cancelled at any time: the call is then left to itself. Until it has
    returned, another one is refused with `StillRunningError`: there is at most one thread.
    """

    def __init__(self, function: Callable[[], object], name: str) -> None:
        self._function = function
        self._name = name
        self._call: Call[object] | None = None
        self._began = datetime.now(UTC)

    async def __call__(self) -> object:
        """Call the function, and return or raise what it does."""
        if self._call is not None and not self._call.ended:
            raise StillRunningError(self._began)
        call = self._call = Call(self._function)
        self._began = datetime.now(UTC)
        try:
            threading.Thread(target=call.run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._call = None
            raise
        return await call.outcome()
