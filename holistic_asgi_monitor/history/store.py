"""What is written to a store, what is asked of it, and what a store must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from holistic_asgi_monitor.history.values import Kind, Row, Value
from holistic_asgi_monitor.model import MonitorError

__all__ = (
    "Answer",
    "AwayError",
    "Batch",
    "Event",
    "Ours",
    "Query",
    "Store",
    "StoreError",
    "UnusableStoreError",
    "Upkeep",
    "UsersSeen",
)

DAY_MINUTES = 1440
_ROW_BYTES, _HASH_BYTES = 200, 80
_ANY: Mapping[str, str] = MappingProxyType({})


class StoreError(MonitorError):
    """The store could not do it now; the sentence says what and where, and holds no secret."""


class AwayError(StoreError):
    """The store is not there now; it is one trouble, in whatever ways it shows."""


class UnusableStoreError(StoreError):
    """The store cannot be used at all here: another one must take its place."""


@dataclass(frozen=True, slots=True)
class UsersSeen:
    """Who was there on a UTC day (whole days since 1970): keyed hashes of their ids.

    `feature` is what they used, empty for the whole service; `minute` (since 1970) the one in
    which they were last seen, None where only the day is known.
    """

    day: int
    feature: str
    hashes: frozenset[bytes] = field(repr=False)
    minute: int | None = None

    @property
    def last(self) -> int:
        """The minute in which they were last seen, or else the last one of the day."""
        return (self.day + 1) * DAY_MINUTES - 1 if self.minute is None else self.minute


@dataclass(frozen=True, slots=True)
class Batch:
    """What one process hands over at once, written as a whole or not at all.

    `run` is unique to the process, `number` to the batch within it: a store that has seen the
    pair does nothing, so that a batch may be written again after a doubtful failure.
    """

    run: str
    number: int
    instance: str
    rows: tuple[Row, ...]
    users: tuple[UsersSeen, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it."""
        return not self.rows and not self.users

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        points = sum(_ROW_BYTES + len(row.packed.body) for row in self.rows)
        return points + _HASH_BYTES * sum(len(seen.hashes) for seen in self.users)


@dataclass(frozen=True, slots=True)
class Ours:
    """Which batches the one who asks may hold himself: those of a run, from a number on."""

    run: str
    first: int


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: the values of a kind from `start` to before `end`, UTC epoch seconds.

    `step` is the length of the stretches in seconds, which begin at its whole multiples; None
    asks for one stretch. `where` names the labels that must match, `by` those that are kept apart
    in the answer. `instance` leaves out every other process; that is known for 48 h only.
    Without `cells` the answer has neither cells nor extra counts, which is quicker. With `ours`
    the answer says which of those batches are in it.
    """

    kind: Kind
    start: int
    end: int
    step: int | None = None
    where: Mapping[str, str] = field(default_factory=lambda: _ANY)
    by: tuple[str, ...] = ()
    instance: str | None = None
    cells: bool = True
    ours: Ours | None = None

    def __post_init__(self) -> None:
        unknown = {*self.where, *self.by} - set(self.kind.labels)
        if unknown:
            message = f"{self.kind.value} has no label {', '.join(sorted(unknown))}"
            raise ValueError(message)
        if self.step is not None and self.step <= 0:
            message = f"the step is {self.step} s; allowed is a whole number above 0"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Answer:
    """The values found, by the labels of `Query.by` and then by the start of their stretch.

    `start`, `end` and `step` are those in force: older numbers are kept in longer stretches.
    What is missing was not recorded. `written` are the numbers of the batches of `Query.ours`
    that are in the store, and so in the values.
    """

    start: int
    end: int
    step: int
    groups: Mapping[tuple[str, ...], Mapping[int, Value]]
    written: frozenset[int] = frozenset()

    def points(self, group: tuple[str, ...] = ()) -> list[tuple[int, Value | None]]:
        """Every stretch of the range with its value, None in a gap."""
        found = self.groups.get(group, {})
        return [(time, found.get(time)) for time in range(self.start, self.end, self.step)]


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log that is only added to: of an incident, for example.

    `id` is unique, so that an entry may be added again; `time` is UTC epoch seconds, `text` JSON.
    """

    id: str
    time: float
    topic: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a step of upkeep has done: windows rolled up, rows deleted, bytes now in use.

    `unreadable` values were left out of what was rolled up.
    """

    rolled: int = 0
    deleted: int = 0
    bytes: int = 0
    unreadable: int = 0


class Store(Protocol):
    """A place for history. What fails raises `StoreError`; nothing blocks the event loop.

    `now` is always UTC epoch seconds.
    """

    @property
    def writable(self) -> bool:
        """Whether anything may be written: not to a file of a newer version, and not to `off`."""
        ...

    @property
    def faults(self) -> int:
        """How often what was found there could not be gone on with: it was damaged, or newer."""
        ...

    def describe(self) -> str:
        """Where it is, in safe words that complete "history is kept"."""
        ...

    async def open(self) -> None:
        """Make it ready: make or migrate what is needed. It may be called again after a failure."""
        ...

    async def write(self, batch: Batch) -> int:
        """Write a batch as a whole, unless it has been written before.

        The answer is how many users were left out, where their day has too many already.
        """
        ...

    async def read(self, query: Query, now: float) -> Answer:
        """Answer a query."""
        ...

    async def users(self, start: int, end: int, feature: str = "") -> int:
        """How many different users there were from UTC day `start` to before `end`."""
        ...

    async def users_by_day(
        self, start: int, end: int, feature: str = "", also: Sequence[UsersSeen] = ()
    ) -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any.

        `also` has at most one entry for each of these days, for the same feature: those count as
        well, and nobody twice.
        """
        ...

    async def users_by_feature(self, start: int, end: int) -> Mapping[str, int]:
        """How many different users each feature had from UTC day `start` to before `end`."""
        ...

    async def users_since(
        self, minutes: Sequence[int], also: Sequence[UsersSeen] = ()
    ) -> Mapping[str, tuple[int, ...]]:
        """How many different users were seen in or after each of `minutes` (since 1970).

        By feature, "" for the whole service, as far as there were any. Those of `also` count as
        well, and nobody twice.
        """
        ...

    async def put_state(self, key: str, text: str, now: float) -> None:
        """Keep a text (JSON) under a key, in the place of what was there."""
        ...

    async def get_state(self, key: str) -> str | None:
        """The text kept under a key."""
        ...

    async def settle_state(self, key: str, text: str, now: float) -> str:
        """Keep a text under a key unless there is one; the text that is kept then.

        Of all processes that begin together one is the first, and all are told its text.
        """
        ...

    async def claim(self, key: str, now: float) -> bool:
        """Whether this caller is the first with this key, of all processes; kept for 90 days."""
        ...

    async def add_event(self, event: Event) -> None:
        """Add to the log, unless it is there."""
        ...

    async def events(
        self, topic: str, start: float, end: float, limit: int = 100
    ) -> Sequence[Event]:
        """The newest entries of a topic from `start` to before `end`, newest first."""
        ...

    async def maintain(self, now: float) -> Upkeep:
        """One step of upkeep: roll up, delete what is too old or too much, make room ahead."""
        ...

    async def close(self) -> None:
        """End what is open; it may be called at any time, and again."""
        ...
