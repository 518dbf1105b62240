"""No history at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holistic_asgi_monitor.history.store import Answer, Batch, Event, Query, Upkeep, UsersSeen
from holistic_asgi_monitor.history.tiers import plan

__all__ = ("Off",)


class Off:
    """A store that keeps nothing, and finds nothing."""

    writable = False
    faults = 0

    def describe(self) -> str:
        """Where it is."""
        return "nowhere: MONITOR_HISTORY_URL is off"

    async def open(self) -> None:
        """Nothing is needed."""

    async def write(self, batch: Batch) -> int:
        """Nothing is kept."""
        return 0

    async def read(self, query: Query, now: float) -> Answer:
        """An answer without values."""
        chosen = plan(query, now)
        return Answer(chosen.start, chosen.end, chosen.step, {})

    async def users(self, start: int, end: int, feature: str = "") -> int:
        """Nobody."""
        return 0

    async def users_by_day(
        self, start: int, end: int, feature: str = "", also: Sequence[UsersSeen] = ()
    ) -> Mapping[int, int]:
        """Nobody."""
        return {}

    async def users_by_feature(self, start: int, end: int) -> Mapping[str, int]:
        """Nobody."""
        return {}

    async def users_since(
        self, minutes: Sequence[int], also: Sequence[UsersSeen] = ()
    ) -> Mapping[str, tuple[int, ...]]:
        """Nobody."""
        return {}

    async def put_state(self, key: str, text: str, now: float) -> None:
        """Nothing is kept."""

    async def get_state(self, key: str) -> str | None:
        """Nothing was kept."""
        return None

    async def settle_state(self, key: str, text: str, now: float) -> str:
        """The text itself: each process has its own."""
        return text

    async def claim(self, key: str, now: float) -> bool:
        """Everybody is the first: to speak twice is better than to be silent."""
        return True

    async def add_event(self, event: Event) -> None:
        """Nothing is kept."""

    async def events(
        self, topic: str, start: float, end: float, limit: int = 100
    ) -> Sequence[Event]:
        """Nothing was kept."""
        return []

    async def maintain(self, now: float) -> Upkeep:
        """There is nothing to look after."""
        return Upkeep()

    async def close(self) -> None:
        """There is nothing to close."""
