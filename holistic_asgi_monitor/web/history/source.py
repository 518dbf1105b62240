"""Where a series is read: what this process keeps, or a store that another one writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping

import anyio

from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Answer, Query, Store, StoreError
from holistic_asgi_monitor.history.tiers import MINUTE
from holistic_asgi_monitor.threads import current_loop

__all__ = ("Recorded", "Shared", "Stored")


class Shared:
    """Reads once what several ask for at the same time, in one event loop."""

    def __init__(self, read: Callable[[Query], Awaitable[Answer]]) -> None:
        self._read = read
        self._running: dict[Hashable, _Reading] = {}

    async def __call__(self, query: Query) -> Answer:
        """Answer a query, or take the answer that another asker is waiting for."""
        key = current_loop(), _key(query)
        while key in self._running:
            reading = self._running[key]
            await reading.over.wait()
            if reading.error is not None:
                raise reading.error from None
            if reading.answer is not None:
                return reading.answer
            # Who was reading has left: one of us goes on.
        return await self._first(key, query)

    async def _first(self, key: Hashable, query: Query) -> Answer:
        reading = self._running[key] = _Reading()
        try:
            reading.answer = await self._read(query)
        except StoreError as error:
            reading.error = error
            raise
        finally:
            del self._running[key]
            reading.over.set()
        return reading.answer


class _Reading:
    """One reading under way; afterwards one of answer and error, or neither."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.answer: Answer | None = None
        self.error: StoreError | None = None


def _key(query: Query) -> Hashable:
    """The same for queries with the same answer: every tier is made of whole minutes."""
    start, end = query.start, query.end
    if query.step is not None:
        start, end = start // MINUTE, -(-end // MINUTE)
    where = frozenset(query.where.items())
    return query.kind, start, end, query.step, where, query.by, query.instance, query.cells


class Recorded:
    """Reads what `recorder` has written, and what it is still to write."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._shared = Shared(recorder.read)

    @property
    def note(self) -> str:
        """Why there is nothing to read; empty where history is kept."""
        off = isinstance(self._recorder.store, Off)
        return "History is off: MONITOR_HISTORY_URL says so." if off else ""

    async def read(self, query: Query) -> Answer:
        """Answer a query."""
        return await self._shared(query)

    async def users_by_day(self, start: int, end: int, feature: str = "") -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any."""
        return await self._recorder.users_by_day(start, end, feature)


class Stored:
    """Reads a store and changes nothing there; `clock` gives UTC epoch seconds."""

    note = ""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    async def read(self, query: Query) -> Answer:
        """Answer a query."""
        return await self._store.read(query, self._clock())

    async def users_by_day(self, start: int, end: int, feature: str = "") -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any."""
        return await self._store.users_by_day(start, end, feature)
