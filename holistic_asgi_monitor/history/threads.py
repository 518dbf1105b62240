"""A thread of one's own, for what may block: it is given work and does it piece by piece."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.threads import Call

__all__ = ("Desk",)

T = TypeVar("T")
LONGEST_QUEUE = 64


class Desk:
    """Does what it is asked, one after the other, in a daemon thread that lives until `close`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._pid = 0

    async def ask(self, work: Callable[[], T], *, forsakable: bool = False) -> T:
        """What `work` returns or raises; who waits may be cancelled, the work is done all the same.

        Work that is `forsakable` is not begun once nobody waits for it. `StoreError` where too
        much is waiting already.
        """
        jobs = self._manned() or self._started()
        if jobs.qsize() >= LONGEST_QUEUE:
            raise StoreError(f"more than {LONGEST_QUEUE} calls wait for {self._name}")
        call = Call(work)
        jobs.put(_Job(call, forsakable))
        return await call.outcome()

    async def finish(self, work: Callable[[], object]) -> None:
        """Have something done at last, and the thread end; nothing where it never began.

        Who waits may be cancelled: both come all the same, after what has been asked so far.
        """
        jobs, self._jobs = self._manned(), None
        if jobs is None:
            return
        call = Call(work)
        jobs.put(_Job(call, forsakable=False))
        jobs.put(None)
        await call.outcome()

    def _manned(self) -> SimpleQueue[_Job | None] | None:
        """The queue, where a thread of this process serves it: a forked child has none."""
        return self._jobs if self._pid == os.getpid() else None

    def _started(self) -> SimpleQueue[_Job | None]:
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
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


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job.run()
        del job


class _Job(NamedTuple):
    """A call that is waiting, and whether it is not begun once nobody waits for it."""

    call: Call[Any]
    forsakable: bool

    def run(self) -> None:
        if not (self.call.left and self.forsakable):
            self.call.run()
