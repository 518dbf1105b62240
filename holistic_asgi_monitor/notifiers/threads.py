"""What a notifier needs to work in a thread: a way back to the loop, and no thread that stays.

A pooled worker thread would hold up the end of the process as long as a peer does not answer, and
share its limit with the application's own threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import anyio

from holistic_asgi_monitor.notifiers.errors import DeliveryError

__all__ = ("OneThread", "waker")

T = TypeVar("T")


def waker(callback: Callable[[], object]) -> Callable[[], object]:
    """A function that has `callback` called in this event loop, from any thread.

    It raises RuntimeError once the loop has ended.
    """
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return partial(asyncio.get_running_loop().call_soon_threadsafe, callback)
    import trio

    return partial(trio.lowlevel.current_trio_token().run_sync_soon, callback)


class OneThread:
    """Calls functions in a daemon thread, one at a time.

    Who waits can be cancelled at any time: the call is then left to itself, and as long as it
    lasts another one is refused with a `DeliveryError`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns; what it raises is raised."""
        if self._thread is not None and self._thread.is_alive():
            raise DeliveryError("the message before is still on its way")
        call = _Call(function)
        self._thread = threading.Thread(target=call.run, name=self._name, daemon=True)
        self._thread.start()
        await call.done.wait()
        # It has nothing left to do but end.
        self._thread = None
        return call.outcome()


class _Call(Generic[T]):
    """One call, and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.done = anyio.Event()
        self._function = function
        self._wake = waker(self.done.set)
        self._values: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """The thread's work."""
        try:
            self._values.append(self._function())
        except BaseException as error:  # protects the thread: who waits is given it
            self._error = error
        try:
            self._wake()
        except RuntimeError:
            # The loop has ended meanwhile, and with it whoever waited.
            return

    def outcome(self) -> T:
        """What the function returned; what it raised is raised."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._values.pop()
