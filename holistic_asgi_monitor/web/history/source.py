"""Where a series is read: what this process keeps, or a store that another one writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Answer, Query, Store

__all__ = ("Recorded", "Stored")


class Recorded:
    """Reads what `recorder` has written, and what it is still to write."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def note(self) -> str:
        """Why there is nothing to read; empty where history is kept."""
        off = isinstance(self._recorder.store, Off)
        return "History is off: MONITOR_HISTORY_URL says so." if off else ""

    async def read(self, query: Query) -> Answer:
        """Answer a query."""
        return await self._recorder.read(query)

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
