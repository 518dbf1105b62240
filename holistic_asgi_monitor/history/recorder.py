"""From what the process counts to what the store keeps: minute by minute, batch by batch."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import inf
from uuid import uuid4

import anyio
import anyio.lowlevel

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.attendance import Attendance, each_day, once_each
from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.gathering import Joining, matching
from holistic_asgi_monitor.history.ledger import Ledger
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.pace import Stretch
from holistic_asgi_monitor.history.pending import Pending
from holistic_asgi_monitor.history.requests import RequestGains
from holistic_asgi_monitor.history.store import (
    Answer,
    AwayError,
    Batch,
    Event,
    Ours,
    Query,
    Store,
    StoreError,
    UnusableStoreError,
    UsersSeen,
)
from holistic_asgi_monitor.history.tiers import GRACE_SECONDS, MINUTE, WINDOW, WINDOWS_AT_ONCE
from holistic_asgi_monitor.history.trouble import Trouble
from holistic_asgi_monitor.history.turns import taking_turns
from holistic_asgi_monitor.history.values import Row, Series, Sum
from holistic_asgi_monitor.history.wallclock import WallClock
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.threads import Turn

__all__ = ("Recorder", "Tally")

_logger = logging.getLogger("holistic_asgi_monitor")

BATCHES_AT_ONCE = 50
CLOSE_SECONDS = 3.0
OPEN_SECONDS = 3.0
"""How long a question waits for a store that is not open yet."""


@dataclass(slots=True)
class Tally:
    """What became of the writing so far: for the monitor's own metrics.

    `flush_seconds` is how long the last flush took, None before the first; `failures` counts
    flushes that failed, `dropped` rows and users that never came into the store, `pending` batches
    that wait.
    """

    flush_seconds: float | None = None
    failures: int = 0
    dropped: int = 0
    pending: int = 0
    bytes: int | None = None


class Recorder:
    """Keeps history: `step` is to be called about every second, `close` at the end.

    What happens is told to `ledger`, from any thread; requests are read from `requests`. `spare`
    makes the store that takes the place of one that cannot be used here. `clock` gives monotonic
    seconds, `wall` UTC epoch seconds. With `keyed_users` the users that the ledger is told of are
    hashed with a key already; else that is done here, with the key of the store.
    """

    def __init__(
        self,
        store: Store,
        *,
        requests: RequestSeries,
        instance: str,
        flush_seconds: float,
        spare: Callable[[], Store],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pending: Pending | None = None,
        keyed_users: bool = False,
    ) -> None:
        self.store = store
        self.ledger = Ledger(instance)
        self._attendance = Attendance(keyed=keyed_users)
        self.tally = Tally()
        self._gains = RequestGains(requests)
        self._instance = instance
        self._flush_seconds = flush_seconds
        self._spare = spare
        self._clock = clock
        self._time = WallClock(clock, wall)
        self._pending = Pending() if pending is None else pending
        self._writing_trouble = Trouble(
            "History cannot be written now, and its numbers are kept in memory",
            "History is written again",
        )
        self._upkeep_trouble = Trouble(
            "Older history cannot be summed up and cleared away now, and waits",
            "Older history is summed up and cleared away again",
        )
        self._pid = 0
        self._run = ""
        self._batches = 0
        self._closing: tuple[tuple[Series, int, Sum], ...] = ()
        self._opened = False
        self._ended = False
        self._visitors = 0
        self._announced = ""
        self._behind = False
        self._unreadable = False
        self._crowded = False
        self._began = self._time.now()
        self._flushed = self._began
        self._tended = self._began
        self._writing = Turn()

    @property
    def now(self) -> float:
        """The time of day that history goes by, UTC epoch seconds."""
        return self._time.now()

    @property
    def ended(self) -> bool:
        """Whether it was closed: each question then opens the store for itself, and closes it."""
        return self._ended

    async def step(self) -> None:
        """Do what is due: close the minute, write, look after the store. Never raises for those."""
        self._ended = False
        await self._settle_in()
        writing = self._writing_trouble
        if not self._opened and writing.may_try(self._clock()):
            await self._try(self._open, writing, proves=False)
        now = self.now
        if _passed(self._began, now, min(float(MINUTE), self._flush_seconds)):
            await self._close_minute(now)
        if not self._opened:
            return
        if _passed(self._flushed, now, self._flush_seconds) and writing.may_try(self._clock()):
            await self._flush(now)
        if self._opened and _passed(self._tended, now - GRACE_SECONDS, WINDOW):
            await self._tend(now)

    async def _settle_in(self) -> None:
        """Begin a run of our own: at first, and where this is the child of a process that lived.

        What was counted in a parent is its own to write.
        """
        pid, before = os.getpid(), self._pid
        if pid == before:
            return
        self._pid, self._run, self._batches = pid, uuid4().hex, 0
        if before:
            self._opened, self._closing, self._writing = False, (), Turn()
            self._pending.clear()
            await self._gains.tell(self.ledger.add)
            self.ledger.take()
            self._attendance.clear()

    async def read(self, query: Query) -> Answer:
        """Answer a query, with what is not written yet; `StoreError` where the store cannot."""
        async with self._visit(OPEN_SECONDS) as store:
            if not store.writable or query.instance not in {None, self._instance}:
                return await store.read(query, self.now)
            # First: what it moves must not move between the store's answer and the rest.
            await self._gains.tell(self.ledger.add)
            waiting = self._pending.first()
            first = self._batches if waiting is None else waiting.number
            with self._pending.watched() as meanwhile:
                asked = replace(query, ours=Ours(self._run, first))
                answer = await store.read(asked, self.now)
                # At one moment: what was on its way then is in one of these, once.
                batches = [*meanwhile, *self._pending]
                lacking = self._lacking(query, answer.written, batches)
        return await _joined(query, answer, lacking)

    async def read_waiting(self, query: Query) -> Answer:
        """Answer a query with what is not written yet alone, for which nothing is opened."""
        await self._settle_in()
        answer = await Off().read(query, self.now)
        return await _joined(query, answer, self._lacking(query, frozenset(), [*self._pending]))

    def _lacking(
        self, query: Query, written: frozenset[int], batches: list[Batch]
    ) -> Iterator[Row | None]:
        """What the store does not hold yet; most of it may not belong into the answer."""
        minute = int(self._began // MINUTE) * MINUTE
        pending = (row for each in batches if each.number not in written for row in each.rows)
        closing = (
            Row(series, closing, pack(sum_)) if matching(query, series) else None
            for series, closing, sum_ in self._closing
        )
        return chain(pending, closing, self.ledger.look(minute, partial(matching, query)))

    async def users_by_day(self, start: int, end: int, feature: str = "") -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any.

        With those that are not written yet; `StoreError` where the store cannot say it.
        """
        async with self._visit() as store:
            days = range(start, end)
            also = await self._not_written(store, lambda seen: each_day(seen, feature, days))
            return await store.users_by_day(start, end, feature, also)

    async def users(self, start: int, end: int) -> int:
        """How many different users there were from UTC day `start` to before `end`, as written."""
        async with self._visit() as store:
            return await store.users(start, end)

    async def users_since(self, minutes: list[int]) -> Mapping[str, tuple[int, ...]]:
        """How many different users were seen in or after each of `minutes` (since 1970).

        By feature, "" for the whole service; with those that are not written yet. `StoreError`
        where the store cannot say it.
        """
        async with self._visit() as store:
            return await store.users_since(minutes, await self._not_written(store, once_each))

    async def _not_written(
        self, store: Store, each_once: Callable[[Sequence[UsersSeen]], list[UsersSeen]]
    ) -> list[UsersSeen]:
        """Who waits to be written, hashed as the store has them.

        To be asked for before the store: who comes into it meanwhile is counted once all the same.
        Each once: where writing waits, most of them are in every batch.
        """
        waiting = any(batch.users for batch in self._pending)
        if waiting or len(self._attendance) or self.ledger.present:
            await self._attendance.settle(store, self.now)
        return await self._attendance.hashed(each_once(self.users_waiting()))

    def users_waiting(self) -> list[UsersSeen]:
        """Who was there and is not known to be in the store, hashed as the ledger was told."""
        written = [seen for batch in list(self._pending) for seen in batch.users]
        minute = int(self._began // MINUTE)
        return [*written, *self._attendance.waiting(minute, self.ledger.users())]

    async def get_state(self, key: str) -> str | None:
        """The text kept under a key; `StoreError` where the store cannot be read."""
        async with self._visit() as store:
            return await store.get_state(key)

    async def put_state(self, key: str, text: str) -> None:
        """Keep a text under a key, where anything may be written; `StoreError` if that fails."""
        async with self._visit() as store:
            if store.writable:
                await store.put_state(key, text, self.now)

    async def claim(self, key: str) -> bool | None:
        """Whether this caller is the first with this key, of all processes.

        None where nothing can be written and so nobody knows; `StoreError` if asking fails.
        """
        async with self._visit() as store:
            return await store.claim(key, self.now) if store.writable else None

    async def add_event(self, event: Event) -> None:
        """Add to the log, where anything may be written; `StoreError` if that fails."""
        async with self._visit() as store:
            if store.writable:
                await store.add_event(event)

    async def events(
        self, topic: str, start: float, end: float, limit: int = 100
    ) -> Sequence[Event]:
        """The newest entries of a topic in the log, newest first; `StoreError` if that fails."""
        async with self._visit() as store:
            return await store.events(topic, start, end, limit)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what there is, within `seconds`, and close the store.

        What could not be written is said, once. A question that comes later opens the store for
        itself; the next step begins another life.
        """
        self._ended = True
        with anyio.move_on_after(seconds, shield=True):
            await self._settle_in()
            await self._close_minute(self.now)
            await self._write_the_last()
        lost = self._pending.rows + len(self.ledger) + len(self._attendance)
        if lost:
            _logger.warning(
                "The end came before all history was written: %d values are lost with the process",
                lost,
            )
        await self._shut(seconds)

    async def _write_the_last(self) -> None:
        if not self._opened and (len(self._pending) or len(self._attendance)):
            await self._try(self._open, self._writing_trouble, proves=False)
        await self._call_roll()
        while self._opened and len(self._pending) and await self._flush(self.now):
            pass

    async def _shut(self, seconds: float) -> None:
        """Close the store, whatever it says."""
        self._opened = False
        with anyio.move_on_after(seconds, shield=True):
            try:
                await self.store.close()
            except Exception as error:
                _logger.warning("History could not be closed in order: %s", described(error))

    @asynccontextmanager
    async def _visit(self, patience: float = inf) -> AsyncIterator[Store]:
        """The store, open; after the end for as long as it is needed, since nobody closes it.

        `StoreError` where it does not open within `patience` seconds.
        """
        self._visitors += 1
        try:
            await self._settle_in()
            if not self._opened:
                await self._open_within(patience)
            yield self.store
        finally:
            self._visitors -= 1
            if self._ended and not self._visitors:
                await self._shut(CLOSE_SECONDS)

    async def _open_within(self, seconds: float) -> None:
        with anyio.move_on_after(seconds) as limit:
            await self._open()
        if limit.cancelled_caught:
            raise StoreError(f"the history {self.store.describe()} gives no answer")

    async def _open(self) -> None:
        async with self._writing:
            if self._opened:
                return
            before = self.store.faults
            try:
                await self.store.open()
                self.tally.failures += self.store.faults - before
            except UnusableStoreError as error:
                self.tally.failures += 1
                _logger.warning("History cannot be kept %s: %s", self.store.describe(), error)
                # It may have threads already.
                await self._shut(CLOSE_SECONDS)
                self.store = self._spare()
                await self.store.open()
            self._opened = True
            self._attendance.doubt()
        if self._announced != self.store.describe():
            self._announced = self.store.describe()
            _logger.info("History is kept %s", self._announced)

    async def _close_minute(self, now: float) -> None:
        """Make a batch of what happened since the last one, of the minute in which that began."""
        await self._gains.tell(self.ledger.add)
        minute = int(self._began // MINUTE) * MINUTE
        self._began = now
        sums, users = self.ledger.take()
        self._attendance.add(minute // MINUTE, users)
        self._count_dropped_users(self.ledger.dropped + self._attendance.dropped)
        self.ledger.dropped = self._attendance.dropped = 0
        if self._opened and not self.store.writable:
            self.tally.dropped += len(sums) + len(self._attendance)
            self._attendance.clear()
            self._drop_pending()
            return
        rows = await self._packed(sums, minute)
        self._hand_over(rows, self._those_present())
        if self._writing_trouble.may_try(self._clock()):
            await self._call_roll()

    async def _call_roll(self) -> None:
        """Learn the key that users wait for, and make a batch of them."""
        if self._opened and len(self._attendance):
            await self._try(self._settle, self._writing_trouble, proves=False)
            self._hand_over((), self._those_present())

    def _those_present(self) -> tuple[UsersSeen, ...]:
        """The users for a batch, once the key is known."""
        return self._attendance.taken() if self._attendance.ready else ()

    def _hand_over(self, rows: tuple[Row, ...], seen: tuple[UsersSeen, ...]) -> None:
        """Make a batch that is to be written."""
        batch = Batch(self._run, self._batches, self._instance, rows, seen)
        self._closing = ()
        if not batch.empty:
            self._batches += 1
            self._add(batch)

    async def _settle(self) -> None:
        try:
            await self._attendance.settle(self.store, self.now)
        except StoreError:
            # As after a write that failed: it may have to be made anew.
            self._opened = False
            raise

    def _count_dropped_users(self, dropped: int) -> None:
        self.tally.dropped += dropped
        if dropped and not self._crowded:
            self._crowded = True
            _logger.warning(
                "There are more users than can be kept, such as where each request has an id of "
                "its own: further ones only count in monitor_history_dropped_total"
            )

    async def _packed(self, sums: Mapping[Series, Sum], minute: int) -> tuple[Row, ...]:
        """The sums as rows; yields to the event loop in between, and cannot be cancelled there.

        An answer finds them in `_closing` meanwhile.
        """
        self._closing = tuple((series, minute, sum_) for series, sum_ in sums.items())
        rows: list[Row] = []
        stretch = Stretch()
        for series, sum_ in sums.items():
            rows.append(Row(series, minute, pack(sum_)))
            if stretch.over:
                await anyio.lowlevel.cancel_shielded_checkpoint()
                stretch.renew()
        return tuple(rows)

    def _add(self, batch: Batch) -> None:
        before = self._pending.dropped
        self._pending.add(batch)
        self._count(before)

    async def _flush(self, now: float) -> bool:
        """Write what waits; whether that could be done."""
        began = self._clock()
        some = bool(len(self._pending))
        done = await self._try(self._write_all, self._writing_trouble, proves=some)
        if done:
            self.tally.flush_seconds = self._clock() - began
            # What is left is written with the next step.
            self._flushed = now if not len(self._pending) else self._flushed
        self.tally.pending = len(self._pending)
        return done

    async def _write_all(self) -> None:
        async with self._writing:
            for _ in range(BATCHES_AT_ONCE):
                batch = self._pending.first()
                if batch is None:
                    return
                await self._write(batch)

    async def _write(self, batch: Batch) -> None:
        before = self._pending.dropped
        try:
            left_out = await self.store.write(await self._signed(batch))
        except StoreError:
            if not self.store.writable:
                # A newer version has come, as the store has said.
                self.tally.failures += 1
                self._drop_pending()
                return
            # It may be another database by the time that it answers again.
            self._opened = False
            raise
        except Exception:
            # What the store cannot even say something about would stand in the way for ever.
            self._pending.drop(batch)
            self._count(before)
            raise
        self._pending.written(batch)
        self._count_dropped_users(left_out)

    def _drop_pending(self) -> None:
        before = self._pending.dropped
        while (batch := self._pending.first()) is not None:
            self._pending.drop(batch)
        self._count(before)

    async def _signed(self, batch: Batch) -> Batch:
        """The batch as it is written: the users hashed with the key that the store has now.

        Since the batch was made, another may have come into its place, with another key.
        """
        if not batch.users:
            return batch
        self._attendance.doubt()
        await self._attendance.settle(self.store, self.now)
        return replace(batch, users=tuple(await self._attendance.hashed(batch.users)))

    def _count(self, before: int) -> None:
        self.tally.dropped += self._pending.dropped - before
        self.tally.pending = len(self._pending)

    async def _tend(self, now: float) -> None:
        trouble = self._upkeep_trouble
        if not trouble.may_try(self._clock()):
            return
        if await self._try(self._maintain, trouble) and not self._behind:
            self._tended = now - GRACE_SECONDS

    async def _maintain(self) -> None:
        self._attendance.doubt()
        if self.store.writable:
            done = await self.store.maintain(self.now)
            self.tally.bytes = done.bytes
            # After a long outage there is more to roll up than one step does.
            self._behind = done.rolled >= WINDOWS_AT_ONCE
            self._count_unreadable(done.unreadable)

    def _count_unreadable(self, count: int) -> None:
        self.tally.dropped += count
        if count and not self._unreadable:
            self._unreadable = True
            _logger.warning(
                "Some values cannot be read, and are left out of the history that is kept %s",
                self.store.describe(),
            )

    async def _try(
        self, work: Callable[[], Awaitable[None]], trouble: Trouble, *, proves: bool = True
    ) -> bool:
        """Whether it could be done; what kept it from that is said once.

        `proves` says whether a success means that the trouble is over.
        """
        try:
            await work()
        except Exception as error:
            # History is no reason to disturb the app: the next step comes soon.
            self.tally.failures += 1
            kind = AwayError.__name__ if isinstance(error, AwayError) else ""
            trouble.met(described(error), self._clock(), kind)
            return False
        if proves:
            trouble.over()
        return True


def _passed(before: float, now: float, every: float) -> bool:
    """Whether a whole multiple of `every` lies between two times."""
    return before // every != now // every


async def _joined(query: Query, answer: Answer, lacking: Iterator[Row | None]) -> Answer:
    """An answer of the store with what it lacks."""
    joining = Joining(query, answer)
    async for row in taking_turns(lacking):
        if row is not None:
            joining.add(row)
    for joined in joining.merged():
        # A group alone may have thousands of stretches.
        await anyio.lowlevel.checkpoint()
        answer = joined
    return answer
