"""What an event loop needs to have something done in a thread that it can leave alone.

anyio's worker threads are shared with the application and hold up the end of the process; a thread
of one's own does neither.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar

__all__ = ("Call", "Turn", "current_loop", "on_asyncio", "own_threads", "waker")

T = TypeVar("T")


def on_asyncio() -> bool:
    """Whether this event loop is one of asyncio; else it is one of trio."""
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError


def current_loop() -> object:
    """What tells this event loop from others that follow it, or run in other threads."""
    if on_asyncio():
        return asyncio.get_running_loop()
    import trio

    return trio.lowlevel.current_trio_token()


def own_threads(purpose: str, number: int) -> anyio.CapacityLimiter:
    """Worker threads of our own in this event loop, so that the application keeps all of its."""
    variable = RunVar[anyio.CapacityLimiter](f"holistic_asgi_monitor {purpose}")
    limiter = variable.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(number)
        variable.set(limiter)
    return limiter


def waker(callback: Callable[[], object]) -> Callable[[], object]:
    """A function that has `callback` called in this event loop, from any thread.

    It raises RuntimeError once the loop has ended.
    """
    if on_asyncio():
        return partial(asyncio.get_running_loop().call_soon_threadsafe, callback)
    import trio

    return partial(trio.lowlevel.current_trio_token().run_sync_soon, callback)


class Turn:
    """`async with turn:` lets one task of an event loop in at a time.

    Each event loop has a lock of its own: none knows both libraries, and who waits for one that
    is let go of in another thread is not woken.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[object, anyio.Lock] = WeakKeyDictionary()

    def _lock(self) -> anyio.Lock:
        return self._locks.setdefault(current_loop(), anyio.Lock())

    async def __aenter__(self) -> None:
        await self._lock().acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock().release()


class Call(Generic[T]):
    """One call of a function in a thread, and what came of it; made where its end is awaited.

    `done` is set once it has ended, as long as the event loop lives; `left` says that nobody
    waits for it any longer.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.done = anyio.Event()
        self.ended = False
        self.left = False
        self._function = function
        self._wake = waker(self.done.set)
        self._values: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's work: call, keep what came of it, and wake who waits."""
        try:
            self._values.append(self._function())
        except BaseException as error:  # protects the thread: who waits is given it
            self._error = error
        self.ended = True
        if self.left:
            self._discard()
            return
        try:
            self._wake()
        except RuntimeError:
            # The event loop has ended meanwhile, and with it who waited.
            self._discard()

    async def outcome(self) -> T:
        """What the function returned or raised, once it has ended."""
        try:
            await self.done.wait()
        finally:
            self.left = True
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._values.pop()

    def _discard(self) -> None:
        # A coroutine that nobody will await must be closed, or Python warns of it.
        for value in self._values:
            if inspect.iscoroutine(value):
                value.close()
        self._values.clear()
        self._error = None
