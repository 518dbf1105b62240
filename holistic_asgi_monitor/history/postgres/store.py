"""The store on PostgreSQL: two connections of its own, one to write and one to read."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from holistic_asgi_monitor.history.gathering import Unreadable
from holistic_asgi_monitor.history.postgres import reading, upkeep, users, writing
from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.postgres.line import HeldUpError, Line
from holistic_asgi_monitor.history.postgres.schema import SCHEMA, VERSION, found_version, step_up
from holistic_asgi_monitor.history.store import (
    Answer,
    Batch,
    Event,
    Query,
    StoreError,
    Upkeep,
    UsersSeen,
)
from holistic_asgi_monitor.history.tiers import WINDOWS_AT_ONCE
from holistic_asgi_monitor.history.values import plain

if TYPE_CHECKING:
    import asyncpg

__all__ = ("PostgreSQL",)

_logger = logging.getLogger("holistic_asgi_monitor")

T = TypeVar("T")
DAYS_PAUSE = 240.0
"""Seconds until days are added and dropped again, after something held that up."""
NAMES_PAUSE = 3600.0
"""Seconds until names without values are looked for again."""


class PostgreSQL:
    """History in the schema `holistic_monitor` of the database that `url` names.

    Several services may use one database; each sees its own numbers only. Nothing of the
    application's own pool is used. `MissingExtraError` without asyncpg. `clock` gives UTC epoch
    seconds.
    """

    def __init__(
        self, url: str, *, service: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._address = Address.parse(url)
        self._service = plain(service)
        self._clock = clock
        self._writer, self._reader = Line(self._address), Line(self._address)
        self._known = writing.Known()
        self._newer = False
        self.faults = 0
        self._held_up, self._holding_up = -inf, ""
        self._forgot = -inf

    @property
    def writable(self) -> bool:
        """Whether the tables are not those of a newer version."""
        return not self._newer

    def describe(self) -> str:
        """Where it is."""
        return f"in PostgreSQL at {self._address.shown}, schema {SCHEMA}"

    async def open(self) -> None:
        """Make the tables, or bring them up to date."""
        await self._write(self._open)

    async def write(self, batch: Batch) -> int:
        """Write a batch as a whole, unless it has been written before."""
        if not self._newer:
            with suppress(writing.NewerError):
                return await self._write(lambda line: self._written(line, batch))
        raise StoreError(
            f"the history at {self._address.shown} was written by a newer version, and is only read"
        )

    async def read(self, query: Query, now: float) -> Answer:
        """Answer a query."""
        return await self._read(lambda line: reading.read(line, self._service, query, now))

    async def users(self, start: int, end: int, feature: str = "") -> int:
        """How many different users there were; who was there is known for 35 days."""
        return await self._read(lambda line: users.users(line, self._service, start, end, feature))

    async def users_by_day(
        self, start: int, end: int, feature: str = "", also: Sequence[UsersSeen] = ()
    ) -> Mapping[int, int]:
        """How many different users there were on each day that had any."""
        return await self._read(
            lambda line: users.users_by_day(line, self._service, start, end, feature, also=also)
        )

    async def users_by_feature(self, start: int, end: int) -> Mapping[str, int]:
        """How many different users each feature had."""
        return await self._read(
            lambda line: users.users_by_feature(line, self._service, start, end)
        )

    async def users_since(
        self, minutes: Sequence[int], also: Sequence[UsersSeen] = ()
    ) -> Mapping[str, tuple[int, ...]]:
        """How many different users were seen in or after each minute, by feature."""
        return await self._read(lambda line: users.users_since(line, self._service, minutes, also))

    async def put_state(self, key: str, text: str, now: float) -> None:
        """Keep a text under a key."""
        await self._write(lambda line: writing.put_state(line, self._service, key, text, now))

    async def get_state(self, key: str) -> str | None:
        """The text kept under a key."""
        return await self._read(lambda line: reading.state(line, self._service, key))

    async def settle_state(self, key: str, text: str, now: float) -> str:
        """Keep a text under a key unless there is one; the text that is kept then."""
        return await self._write(
            lambda line: writing.settle_state(line, self._service, key, text, now)
        )

    async def claim(self, key: str, now: float) -> bool:
        """Whether this caller is the first with this key."""
        # Asked again after a doubtful failure, the first would be told that it is not.
        return await self._writer.ask(
            lambda line: writing.claim(line, self._service, key, now), again=False
        )

    async def add_event(self, event: Event) -> None:
        """Add to the log, unless it is there."""
        await self._write(lambda line: writing.add_event(line, self._service, event))

    async def events(
        self, topic: str, start: float, end: float, limit: int = 100
    ) -> Sequence[Event]:
        """The newest entries of a topic."""
        return await self._read(
            lambda line: reading.events(line, self._service, topic, (start, end), limit)
        )

    async def maintain(self, now: float) -> Upkeep:
        """Roll up what is due, make partitions, delete what is too old: one replica at a time."""
        windows, unreadable = 0, Unreadable()
        while windows < WINDOWS_AT_ONCE and await self._write(
            lambda line: upkeep.roll_next(line, now, unreadable)
        ):
            windows += 1
        deleted = await self._write(lambda line: upkeep.delete_old(line, now))
        deleted += await self._turn_days(now)
        await self._forget_names(now)
        size = await self._read(_size)
        return Upkeep(windows, deleted, size, unreadable.count)

    async def close(self) -> None:
        """Close both connections; a later call opens them again."""
        await self._writer.close()
        await self._reader.close()

    async def _forget_names(self, now: float) -> None:
        """Now and then: to find those without values takes a look at each."""
        if not 0 <= now - self._forgot < NAMES_PAUSE:
            await self._write(upkeep.forget_names)
            self._forgot = now

    async def _turn_days(self, now: float) -> int:
        """Add and drop days where nothing holds that up; how many are gone."""
        if 0 <= now - self._held_up < DAYS_PAUSE:
            return 0
        try:
            deleted = await self._write(lambda line: upkeep.turn_days(line, now))
        except HeldUpError as error:
            self._held_up = now
            if str(error) != self._holding_up:
                self._holding_up = str(error)
                _logger.warning("History goes on, but adds and drops no days now: %s", error)
            return 0
        self._held_up, self._holding_up = -inf, ""
        return deleted

    async def _write(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
        return await self._writer.ask(work)

    async def _read(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
        return await self._reader.ask(work)

    async def _written(self, connection: asyncpg.Connection[Any], batch: Batch) -> int:
        try:
            return await writing.write(connection, self._service, batch, self._known, self._clock())
        except writing.NewerError as error:
            self._note_version(error.version)
            raise

    async def _open(self, connection: asyncpg.Connection[Any]) -> None:
        self._known = writing.Known()
        version = await found_version(connection)
        if version < VERSION:
            version = max(VERSION, await step_up(connection, self._clock()))
        self._note_version(version)

    def _note_version(self, version: int) -> None:
        if version > VERSION and not self._newer:
            self.faults += 1
            _logger.warning(
                "The history at %s was written by a newer version (format %d, known is %d): it is "
                "only read, and nothing is added to it",
                self._address.shown,
                version,
                VERSION,
            )
        self._newer = version > VERSION


async def _size(connection: asyncpg.Connection[Any]) -> int:
    return int(
        await connection.fetchval(
            "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = $1 AND c.relkind = 'r'",
            SCHEMA,
        )
    )
