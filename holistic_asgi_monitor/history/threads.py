"""A thread of one's own, for what may block: it is given work and does it piece by piece.

anyio's worker threads are shared with the application and hold up the end of the process; this
one does neither.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio

from holistic_asgi_monitor.history.store import StoreError

__all__ = ("Desk",)

T = TypeVar("T")
LONGEST_QUEUE = 64


class Desk:
    """Does what it is asked, one after the other, in a daemon thread that lives until `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job[Any] | None] | None = None
        self._pid = 0

    async def ask(self, work: Callable[[], T], *, forsakable: bool = False) -> T:
        """What `work` returns or raises; who waits may be cancelled, the work is done all the same.

        Work that is `forsakable` is not begun once nobody waits for it. `StoreError` where too
        much is waiting already.
        """
        jobs = self._manned() or self._started()
        if jobs.qsize() >= LONGEST_QUEUE:
            raise StoreError(f"more than {LONGEST_QUEUE} calls wait for {self._name}")
        done = anyio.Event()
        job = _Job(work, _waker(done.set))
        jobs.put(job)
        try:
            await done.wait()
        finally:
            job.forsaken = forsakable
        return job.outcome()

    async def finish(self, work: Callable[[], object]) -> None:
        """Have something done at last, and the thread end; nothing where it never began.

        Who waits may be cancelled: both come all the same, after what has been asked so far.
        """
        jobs, self._jobs = self._manned(), None
        if jobs is None:
            return
        done = anyio.Event()
        job = _Job(work, _waker(done.set))
        jobs.put(job)
        jobs.put(None)
        await done.wait()
        job.outcome()

    def _manned(self) -> SimpleQueue[_Job[Any] | None] | None:
        """The queue, where a thread of this process serves it: a forked child has none."""
        return self._jobs if self._pid == os.getpid() else None

    def _started(self) -> SimpleQueue[_Job[Any] | None]:
        jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        thread = threading.Thread(target=_serve, args=(jobs,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            raise StoreError(f"no thread can be started for {self._name}") from None
        self._jobs, self._pid = jobs, os.getpid()
        return jobs

    def close(self) -> None:
        """Let the thread end after what it has been asked so far."""
        jobs, self._jobs = self._manned(), None
        if jobs is not None:
            jobs.put(None)


class _Job(Generic[T]):
    """One piece of work, and what came of it."""

    def __init__(self, work: Callable[[], T], wake: Callable[[], object]) -> None:
        self._work = work
        self._wake = wake
        self.forsaken = False
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        if self.forsaken:
            return
        try:
            self._results.append(self._work())
        except BaseException as error:  # protects the thread: who waits is given it
            self._error = error
        try:
            self._wake()
        except RuntimeError:
            # The event loop has ended meanwhile, and with it who waited.
            self._results.clear()

    def outcome(self) -> T:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._results.pop()


def _serve(jobs: SimpleQueue[_Job[Any] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job


def _waker(callback: Callable[[], object]) -> Callable[[], object]:
    """A function that has `callback` called in this event loop, from any thread."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return partial(asyncio.get_running_loop().call_soon_threadsafe, callback)
    import trio

    return partial(trio.lowlevel.current_trio_token().run_sync_soon, callback)
