"""From what the process counts to what the store keeps: minute by minute, batch by batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from uuid import uuid4

import anyio
import anyio.lowlevel

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.gathering import joined, matching
from holistic_asgi_monitor.history.ledger import Ledger, seen_on
from holistic_asgi_monitor.history.pending import Pending
from holistic_asgi_monitor.history.requests import RequestGains
from holistic_asgi_monitor.history.store import (
    Answer,
    Batch,
    Query,
    Store,
    StoreError,
    UnusableStoreError,
)
from holistic_asgi_monitor.history.tiers import DAY, GRACE_SECONDS, MINUTE, WINDOW, WINDOWS_AT_ONCE
from holistic_asgi_monitor.history.trouble import Trouble
from holistic_asgi_monitor.history.values import Row, Series, Sum
from holistic_asgi_monitor.history.wallclock import WallClock
from holistic_asgi_monitor.metrics.series import RequestSeries

__all__ = ("Recorder", "Tally")

_logger = logging.getLogger("holistic_asgi_monitor")

BATCHES_AT_ONCE = 50
ROWS_AT_ONCE = 20
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
CLOSE_SECONDS = 3.0
ATTEMPTS = 3


@dataclass(slots=True)
class Tally:
    """What became of the writing so far: for the monitor's own metrics.

    `flush_seconds` is how long the last flush took, None before the first; `failures` counts
    flushes that failed, `dropped` rows that never came into the store, `pending` batches that
    wait.
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
    seconds, `wall` UTC epoch seconds.
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
    ) -> None:
        self.store = store
        self.ledger = Ledger(instance)
        self.tally = Tally()
        self._gains = RequestGains(requests)
        self._instance = instance
        self._flush_seconds = flush_seconds
        self._spare = spare
        self._clock = clock
        self._time = WallClock(clock, wall)
        self._pending = Pending() if pending is None else pending
        self._trouble = Trouble()
        self._run = uuid4().hex
        self._batches = 0
        self._closing: tuple[tuple[Series, int, Sum], ...] = ()
        self._opened = False
        self._announced = ""
        self._behind = False
        self._began = self._time.now()
        self._flushed = self._began
        self._tended = self._began
        self._not_before = 0.0
        self._pause = FIRST_PAUSE
        self._writing = anyio.Lock()

    @property
    def now(self) -> float:
        """The time of day that history goes by, UTC epoch seconds."""
        return self._time.now()

    async def step(self) -> None:
        """Do what is due: close the minute, write, look after the store. Never raises for those."""
        if not self._opened and self._may_try():
            await self._try(self._open, proves=False)
        now = self.now
        if _passed(self._began, now, min(float(MINUTE), self._flush_seconds)):
            await self._close_minute(now)
        if not self._opened:
            return
        if _passed(self._flushed, now, self._flush_seconds) and self._may_try():
            await self._flush(now)
        if _passed(self._tended, now - GRACE_SECONDS, WINDOW) and self._may_try():
            await self._tend(now)

    async def read(self, query: Query) -> Answer:
        """Answer a query, with what is not written yet; `StoreError` where the store cannot."""
        if not self._opened:
            await self._open()
        # First: from the store's answer on, nothing may move until it is known what it lacks.
        await self._gains.tell(self.ledger.add)
        for _ in range(ATTEMPTS):
            done = self._pending.done
            answer = await self.store.read(query, self.now)
            if done == self._pending.done:
                break
            # A batch went from us into the store meanwhile, and might be missing or counted twice.
        if not self.store.writable or query.instance not in {None, self._instance}:
            return answer
        rows = self._unwritten(query, answer)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            answer = joined(query, answer, some)
            await anyio.lowlevel.checkpoint()
        return answer

    def _unwritten(self, query: Query, answer: Answer) -> Iterator[Row]:
        """What is not in the store, and belongs into the answer."""
        minute = int(self._began // MINUTE) * MINUTE
        rows = [row for row in self._pending.rows() if matching(query, row.series)]
        rows += [
            Row(series, closing, pack(sum_))
            for series, closing, sum_ in self._closing
            if matching(query, series)
        ]
        look = self.ledger.look(minute, partial(matching, query))
        return (row for row in chain(rows, look) if answer.start <= row.time < answer.end)

    async def users_by_day(self, start: int, end: int, feature: str = "") -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any, as was written."""
        if not self._opened:
            await self._open()
        return await self.store.users_by_day(start, end, feature)

    async def get_state(self, key: str) -> str | None:
        """The text kept under a key; `StoreError` where the store cannot be read."""
        if not self._opened:
            await self._open()
        return await self.store.get_state(key)

    async def put_state(self, key: str, text: str) -> None:
        """Keep a text under a key, where anything may be written; `StoreError` if that fails."""
        if not self._opened:
            await self._open()
        if self.store.writable:
            await self.store.put_state(key, text, self.now)

    async def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what there is, within `seconds`, and close the store."""
        with anyio.move_on_after(seconds, shield=True):
            if not self._opened:
                await self._try(self._open, proves=False)
            await self._close_minute(self.now)
            if self._opened:
                await self._flush(self.now)
        with anyio.move_on_after(seconds, shield=True):
            await self._try(self.store.close)
        self._opened = False

    async def _open(self) -> None:
        async with self._writing:
            if self._opened:
                return
            try:
                await self.store.open()
            except UnusableStoreError as error:
                _logger.warning("History cannot be kept %s: %s", self.store.describe(), error)
                self.store = self._spare()
                await self.store.open()
            self._opened = True
        if self._announced != self.store.describe():
            self._announced = self.store.describe()
            _logger.info("History is kept %s", self._announced)

    async def _close_minute(self, now: float) -> None:
        """Make a batch of what happened since the last one, of the minute in which that began."""
        await self._gains.tell(self.ledger.add)
        minute = int(self._began // MINUTE) * MINUTE
        day = int(self._began // DAY)
        self._began = now
        sums, users = self.ledger.take()
        if self._opened and not self.store.writable:
            self.tally.dropped += len(sums)
            return
        rows = await self._packed(sums, minute)
        batch = Batch(self._run, self._batches, self._instance, rows, seen_on(day, users))
        self._closing = ()
        if not batch.empty:
            self._batches += 1
            self._add(batch)

    async def _packed(self, sums: Mapping[Series, Sum], minute: int) -> tuple[Row, ...]:
        """The sums as rows; yields to the event loop in between, and cannot be cancelled there.

        An answer finds them in `_closing` meanwhile.
        """
        self._closing = tuple((series, minute, sum_) for series, sum_ in sums.items())
        rows: list[Row] = []
        for series, sum_ in sums.items():
            rows.append(Row(series, minute, pack(sum_)))
            if len(rows) % ROWS_AT_ONCE == 0:
                await anyio.lowlevel.cancel_shielded_checkpoint()
        return tuple(rows)

    def _add(self, batch: Batch) -> None:
        before = self._pending.dropped
        self._pending.add(batch)
        self._count(before)

    async def _flush(self, now: float) -> None:
        """Write what waits."""
        began = self._clock()
        if await self._try(self._write_all):
            self.tally.flush_seconds = self._clock() - began
            # What is left is written with the next step.
            self._flushed = now if not len(self._pending) else self._flushed
        self.tally.pending = len(self._pending)

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
            await self.store.write(batch)
        except StoreError:
            # It may be another database by the time that it answers again.
            self._opened = False
            raise
        except Exception:
            # What the store cannot even say something about would stand in the way for ever.
            self._pending.drop(batch)
            self._count(before)
            raise
        self._pending.written(batch)

    def _count(self, before: int) -> None:
        self.tally.dropped += self._pending.dropped - before
        self.tally.pending = len(self._pending)

    async def _tend(self, now: float) -> None:
        if await self._try(self._maintain) and not self._behind:
            self._tended = now - GRACE_SECONDS

    async def _maintain(self) -> None:
        if self.store.writable:
            done = await self.store.maintain(self.now)
            self.tally.bytes = done.bytes
            # After a long outage there is more to roll up than one step does.
            self._behind = done.rolled >= WINDOWS_AT_ONCE

    async def _try(self, work: Callable[[], Awaitable[None]], *, proves: bool = True) -> bool:
        """Whether it could be done; what kept it from that is said once.

        `proves` says whether a success means that the trouble is over.
        """
        try:
            await work()
        except Exception as error:
            # History is no reason to disturb the app: the next step comes soon.
            self.tally.failures += 1
            self._trouble.met(described(error))
            self._not_before = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        if proves:
            self._trouble.over()
            self._not_before, self._pause = 0.0, FIRST_PAUSE
        return True

    def _may_try(self) -> bool:
        return self._clock() >= self._not_before


def _passed(before: float, now: float, every: float) -> bool:
    """Whether a whole multiple of `every` lies between two times."""
    return before // every != now // every
