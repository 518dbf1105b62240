"""What anyio leaves to each event loop: tasks without a parent, and threads that nobody awaits.

A check may ignore its cancellation, or hang in a call that nothing interrupts. In a task group it
would hold whoever runs it, and in a pooled worker thread the end of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio

__all__ = ("StillRunningError", "Threaded", "running_loop", "spawn")


def spawn(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
    """Start `work` in a task without a parent, in an empty context; keep what is returned.

    `work` must not raise: on trio that would end the loop.
    """
    context = contextvars.Context()
    if _on_asyncio():
        # Entered rather than passed on: a task factory need not know the argument `context`.
        loop = asyncio.get_running_loop()
        return context.run(lambda: loop.create_task(work(), name=name))
    import trio

    return trio.lowlevel.spawn_system_task(work, name=name, context=context)


def running_loop() -> object:
    """Something that is the same as long as this event loop runs, and another one's never."""
    if _on_asyncio():
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
        self._call: _Call | None = None

    async def __call__(self) -> object:
        """Call the function, and return or raise what it does."""
        if self._call is not None and not self._call.ended:
            raise StillRunningError(self._call.began)
        done = anyio.Event()
        call = self._call = _Call(self._function, _waker(done.set))
        try:
            threading.Thread(target=call.run, name=self._name, daemon=True).start()
        except RuntimeError:
            self._call = None
            raise
        try:
            await done.wait()
        finally:
            call.leave()
        return call.outcome()


class _Call:
    """One call of a function in a thread."""

    def __init__(self, function: Callable[[], object], wake: Callable[[], object]) -> None:
        self.began = datetime.now(UTC)
        self.ended = False
        self._function = function
        self._wake = wake
        self._left = False
        self._value: object = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's work: call, keep what came of it, and wake who waits."""
        try:
            self._value = self._function()
        except BaseException as error:  # protects the thread: who waits is given it
            self._error = error
        self.ended = True
        if self._left:
            self._discard()
            return
        try:
            self._wake()
        except RuntimeError:
            # The event loop has ended meanwhile, and with it who waited.
            self._discard()

    def leave(self) -> None:
        """Nobody waits any longer."""
        self._left = True

    def outcome(self) -> object:
        """What the function returned; what it raised is raised."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        value, self._value = self._value, None
        return value

    def _discard(self) -> None:
        # A coroutine that nobody will await must be closed, or Python warns of it.
        if inspect.iscoroutine(self._value):
            self._value.close()
        self._value = self._error = None


def _waker(callback: Callable[[], object]) -> Callable[[], object]:
    """A function that has `callback` called in this event loop, from any thread."""
    if _on_asyncio():
        return partial(asyncio.get_running_loop().call_soon_threadsafe, callback)
    import trio

    return partial(trio.lowlevel.current_trio_token().run_sync_soon, callback)


def _on_asyncio() -> bool:
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError
