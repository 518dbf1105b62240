"""The store on SQLite: calls from the event loop, done in threads of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import anyio

from holistic_asgi_monitor.history.bounds import waited_for
from holistic_asgi_monitor.history.gathering import Unreadable
from holistic_asgi_monitor.history.sqlite import reading, room, upkeep, users, writing
from holistic_asgi_monitor.history.sqlite.file import LOG_BYTES, DamagedError, File, Session
from holistic_asgi_monitor.history.store import (
    Answer,
    Batch,
    Event,
    Query,
    StoreError,
    Upkeep,
    UsersSeen,
)
from holistic_asgi_monitor.history.threads import Desk
from holistic_asgi_monitor.history.tiers import WINDOWS_AT_ONCE
from holistic_asgi_monitor.history.values import plain

__all__ = ("SQLite",)

P = ParamSpec("P")
T = TypeVar("T")
MEBIBYTE = 1 << 20
READER_SECONDS = 0.5
"""How long the end waits for a question that is being answered."""
LOG_SHARE = 16
"""The log of a small file is short as well: this part of its cap."""


class SQLite:
    """History in the file at `path`, with its log no larger than about `max_mb` MiB.

    Without a path it is in memory, and ends with the process. Several processes may use one file,
    and several services, of which each sees its own numbers only.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_mb: int,
        service: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._cap = max_mb * MEBIBYTE
        self._file = File(path, plain(service), min(LOG_BYTES, self._cap // LOG_SHARE))
        self._desk = Desk("holistic-asgi-monitor history")
        # What is in memory is there for one connection only.
        self._reading_desk = self._desk if path is None else Desk("holistic-asgi-monitor reading")
        # Each is of its thread alone, even where that is hung up while another takes its place,
        # or was left behind in the process that this one was forked from.
        self._sessions: dict[threading.Thread, Session] = {}
        self._newer = False

    @property
    def writable(self) -> bool:
        """Whether the file is not one of a newer version."""
        return not self._newer

    @property
    def faults(self) -> int:
        """How often the file was damaged, or one of a newer version."""
        return self._file.faults

    @property
    def path(self) -> Path | None:
        """The file, None in memory."""
        return self._file.path

    def describe(self) -> str:
        """Where it is."""
        path = self._file.path
        return "in memory only, and ends with the process" if path is None else f"in {path}"

    async def open(self) -> None:
        """Make the file, or bring it up to date; `UnusableStoreError` where that cannot be."""
        await self._desk.ask(self._opened)

    async def write(self, batch: Batch) -> int:
        """Write a batch as a whole, unless it has been written before."""
        return await self._write(writing.write, batch, self._clock())

    async def read(self, query: Query, now: float) -> Answer:
        """Answer a query."""
        with waited_for() as wanted:
            return await self._read(reading.read, query, now, wanted)

    async def users(self, start: int, end: int, feature: str = "") -> int:
        """How many different users there were; who was there is known for 35 days."""
        return await self._read(users.users, start, end, feature)

    async def users_by_day(
        self, start: int, end: int, feature: str = "", also: Sequence[UsersSeen] = ()
    ) -> Mapping[int, int]:
        """How many different users there were on each day that had any."""
        return await self._read(users.users_by_day, start, end, feature, also)

    async def users_by_feature(self, start: int, end: int) -> Mapping[str, int]:
        """How many different users each feature had."""
        return await self._read(users.users_by_feature, start, end)

    async def users_since(
        self, minutes: Sequence[int], also: Sequence[UsersSeen] = ()
    ) -> Mapping[str, tuple[int, ...]]:
        """How many different users were seen in or after each minute, by feature."""
        return await self._read(users.users_since, minutes, also)

    async def put_state(self, key: str, text: str, now: float) -> None:
        """Keep a text under a key."""
        await self._write(writing.put_state, key, text, now)

    async def get_state(self, key: str) -> str | None:
        """The text kept under a key."""
        return await self._read(reading.state, key)

    async def settle_state(self, key: str, text: str, now: float) -> str:
        """Keep a text under a key unless there is one; the text that is kept then."""
        return await self._write(writing.settle_state, key, text, now)

    async def claim(self, key: str, now: float) -> bool:
        """Whether this caller is the first with this key."""
        return await self._write(writing.claim, key, now)

    async def add_event(self, event: Event) -> None:
        """Add to the log, unless it is there."""
        await self._write(writing.add_event, event)

    async def events(
        self, topic: str, start: float, end: float, limit: int = 100
    ) -> Sequence[Event]:
        """The newest entries of a topic."""
        return await self._read(reading.events, topic, start, end, limit)

    async def maintain(self, now: float) -> Upkeep:
        """Roll up what is due, delete what is too old or too much; in pieces, between writes."""
        windows, unreadable = 0, Unreadable()
        while windows < WINDOWS_AT_ONCE and await self._write(upkeep.roll_next, now, unreadable):
            windows += 1
        deleted = await self._write(upkeep.delete_expired, now)
        deleted += await self._write(self._make_room)
        return Upkeep(windows, deleted, await self._write(self._bytes), unreadable.count)

    async def close(self) -> None:
        """Close the file; a later call opens it again."""
        try:
            if self._reading_desk is not self._desk:
                # First, so that the writer is the last one; but it must not wait for long.
                with anyio.move_on_after(READER_SECONDS):
                    await self._reading_desk.finish(self._close_reader)
        finally:
            await self._desk.finish(self._close)

    async def _write(
        self,
        work: Callable[Concatenate[Session, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        return await self._desk.ask(
            lambda: self._locked(lambda session: work(session, *arguments, **options))
        )

    async def _read(
        self,
        work: Callable[Concatenate[Session, P], T],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        return await self._reading_desk.ask(
            lambda: self._seen(lambda session: work(session, *arguments, **options)),
            forsakable=True,
        )

    def _opened(self) -> Session:
        """The session of the writing thread, on the file as it is now."""
        session = self._own_session()
        if session is not None and not self._file.is_current(session):
            # Somebody removed or replaced the file: it is not coming back.
            self._close()
            session = None
        if session is None:
            session = self._sessions[threading.current_thread()] = self._file.open()
            self._newer = not session.writable
        return session

    def _locked(self, work: Callable[[Session], T]) -> T:
        """Do some writing, while no other process writes."""
        session = self._opened()
        try:
            with self._file.speaking(), self._file.lock():
                self._refuse_newer(session)
                with room.lean(self._file, session):
                    result = work(session)
                room.checkpoint(self._file, session)
                return result
        except DamagedError:
            self._sessions.pop(threading.current_thread(), None)
            with self._file.speaking(), self._file.lock():
                self._file.set_aside(session)
            raise

    def _refuse_newer(self, session: Session) -> None:
        self._file.look_again(session)
        self._newer = not session.writable
        if self._newer:
            raise StoreError(f"{self._file.name} was written by a newer version, and is only read")

    def _seen(self, work: Callable[[Session], T]) -> T:
        """Do some reading."""
        with self._file.speaking():
            return work(self._reading_session())

    def _reading_session(self) -> Session:
        if self._file.path is None:
            return self._opened()
        reader = self._own_session()
        if reader is not None and not self._file.is_current(reader):
            self._close_reader()
            reader = None
        if reader is None:
            reader = self._sessions[threading.current_thread()] = self._file.open_to_read()
        return reader

    def _own_session(self) -> Session | None:
        """The session of this thread."""
        return self._sessions.get(threading.current_thread())

    def _make_room(self, session: Session) -> int:
        return room.keep_below(self._file, session, self._cap)

    def _bytes(self, session: Session) -> int:
        if self._file.path is None:
            return room.used_bytes(session.connection)
        return self._file.bytes()

    def _close_reader(self) -> None:
        reader = self._sessions.pop(threading.current_thread(), None)
        if reader is not None:
            reader.connection.close()

    def _close(self) -> None:
        session = self._sessions.pop(threading.current_thread(), None)
        if session is None:
            return
        # The last one to close empties the log, which only the holder of the lock may do.
        with suppress(StoreError), self._file.speaking(), self._file.lock():
            session.connection.close()
