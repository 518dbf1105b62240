"""How many users there are, and which features they use: from history, over all processes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import anyio

from holistic_asgi_monitor.history.attendance import latest
from holistic_asgi_monitor.history.store import Answer, Query, StoreError, UsersSeen
from holistic_asgi_monitor.history.tiers import DAY, HOUR, MINUTE
from holistic_asgi_monitor.history.values import Kind
from holistic_asgi_monitor.threads import Turn
from holistic_asgi_monitor.usage.activity import WINDOWS, Remembered

__all__ = ("Audience", "Crowd", "Feature", "People")

MANY, RECOUNT_SECONDS, RECOUNT_SHARE = 10_000, 60.0, 20
RETRY_SECONDS = 10.0
PATIENCE_SECONDS = 1.0
MOST_FEATURES = 200
_NOBODY: Mapping[str, int] = MappingProxyType(dict.fromkeys(WINDOWS, 0))

Counts = Mapping[str, tuple[int, ...]]
"""By feature, "" for the whole service: different users of each window."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature: how often it was used, and by how many different users."""

    name: str
    uses: int
    users: int

    def as_dict(self) -> dict[str, str | int]:
        """The feature as JSON values."""
        return {"feature": self.name, "uses": self.uses, "users": self.users}


@dataclass(frozen=True, slots=True)
class Crowd:
    """Different users by window, and the features, the most used first."""

    users: Mapping[str, int] = field(default_factory=lambda: _NOBODY)
    features: tuple[Feature, ...] = ()

    @classmethod
    def of(cls, counts: Counts, uses: Mapping[str, int]) -> Crowd:
        """Put together what was counted; the features are those with any use."""
        nobody = (0,) * len(WINDOWS)
        features = (Feature(each, uses[each], counts.get(each, nobody)[-1]) for each in uses)
        ordered = sorted(features, key=lambda feature: (-feature.uses, feature.name))
        users = dict(zip(WINDOWS, counts.get("", nobody), strict=True))
        return cls(users, tuple(ordered[:MOST_FEATURES]))


class People(Protocol):
    """Where users are counted; `now` is UTC epoch seconds."""

    @property
    def now(self) -> float:
        """The time of day that history goes by."""
        ...

    async def users_since(self, minutes: list[int]) -> Counts:
        """How many were seen in or after each minute; `StoreError` where nobody can say."""
        ...

    def users_waiting(self) -> list[UsersSeen]:
        """Those that this process has seen and not written."""
        ...

    async def read(self, query: Query) -> Answer:
        """Answer a query; `StoreError` where that cannot be."""
        ...


class Audience:
    """Counts users and features, of very many users once a minute; never raises for the store.

    `uses` are those since the start, for when history cannot say it; `watched` whether history
    may be opened; `remembered` knows the users where no history is kept. Nobody waits longer than
    `patience` seconds; what was known last is shown then.
    """

    def __init__(
        self,
        people: People,
        *,
        uses: Callable[[], Mapping[str, int]],
        watched: Callable[[], bool],
        remembered: Remembered | None = None,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._people = people
        self._uses = uses
        self._watched = watched
        self._remembered = remembered
        self._clock = clock
        self._patience = patience
        self._known: Crowd | None = None
        self._known_uses: Mapping[str, int] = {}
        self._counted = self._again = self._features_again = self._rested = float("-inf")
        self._reading = Turn()
        self.last = Crowd()

    async def now(self, *, features: bool = True) -> Crowd:
        """What is known now; without `features` theirs may be old, which is cheaper."""
        if self._remembered is None and not self._watched():
            self.last = self._guessed()
        else:
            with anyio.move_on_after(self._patience) as patience:
                # Callers at the same time wait for the first of them, and take what it found.
                async with self._reading:
                    now = self._clock()
                    if now >= (self._features_again if features else self._again):
                        await self._count(features=features)
            if patience.cancelled_caught:
                # What is known already is counted again by `refresh`, however long that takes.
                pause = RETRY_SECONDS if self._known is None else RECOUNT_SECONDS
                self._again = self._features_again = self._clock() + pause
            self.last = self._best()
        return self.last

    async def refresh(self) -> None:
        """Count again, however long that takes; but what takes long not too often."""
        async with self._reading:
            if self._clock() >= self._rested:
                await self._count(features=True)
        self.last = self._best()

    async def _count(self, *, features: bool) -> None:
        began = self._clock()
        try:
            self._known = await self._counted_now(features=features)
        except StoreError:
            # The log says it where it is written.
            self._again = self._features_again = began + RETRY_SECONDS
            return
        self._counted = self._clock()
        many = max(self._known.users.values()) > MANY
        rest = RECOUNT_SHARE * (self._counted - began)
        self._again = self._counted + many * max(RECOUNT_SECONDS, rest)
        if features:
            self._features_again, self._rested = self._again, self._counted + rest

    async def _counted_now(self, *, features: bool) -> Crowd:
        if self._remembered is not None:
            return Crowd.of(await self._remembered.counts(), self._uses())
        now = self._people.now
        minutes = [int((now - span) // MINUTE) for span in WINDOWS.values()]
        counts = await self._people.users_since(minutes)
        if features:
            self._known_uses = await feature_uses(self._people.read, now)
        return Crowd.of(counts, self._known_uses)

    def _best(self) -> Crowd:
        """What was counted last, or, where that cannot be done now, at least who is known here."""
        known, age = self._known, self._clock() - self._counted
        if known is not None and age < 2 * RECOUNT_SECONDS:
            return known
        here = self._guessed()
        if known is None:
            return here
        # Nobody who was counted then can still be in a window that has passed since.
        users = {
            name: max(here.users[name], known.users[name] if age < span else 0)
            for name, span in WINDOWS.items()
        }
        return Crowd(users, known.features)

    def _guessed(self) -> Crowd:
        """What the memory of this process has: fewer than there are, never more."""
        now, counts = self._people.now, dict[str, tuple[int, ...]]()
        for feature, users in latest(self._people.users_waiting()).items():
            ages = [now - last * MINUTE for last in users.values()]
            counts[feature] = tuple(sum(age <= span for age in ages) for span in WINDOWS.values())
        return Crowd.of(counts, self._uses())


async def feature_uses(
    read: Callable[[Query], Awaitable[Answer]], now: float, days: int = 30
) -> Mapping[str, int]:
    """How often each feature was used in the last `days` days, to the hour; `StoreError`."""
    start = int((now - days * DAY) // HOUR) * HOUR
    midnight = -(-start // DAY) * DAY
    uses: dict[str, int] = {}
    for first, end, step in ((start, midnight, HOUR), (midnight, int(now) + MINUTE, None)):
        if first >= end:
            continue
        query = Query(Kind.FEATURES, first, end, step, by=("feature",), cells=False)
        for (feature,), values in (await read(query)).groups.items():
            counted = sum(value.count for value in values.values())
            uses[feature] = uses.get(feature, 0) + counted
    return uses
