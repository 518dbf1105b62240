"""What knowing the users costs: `python -m benchmarks.users`.

A service with many users lives through weeks in quick motion, on a clock of its own: each flush
brings those who were there since the last one. At the end the counts must be exact; then they are
timed, with users among them who are not written yet, and so is what history says of each day.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from array import array
from collections.abc import Awaitable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from benchmarks.options import forget_settings, new_parser, positive
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import DAY_MINUTES, Batch, Store, UsersSeen
from holistic_asgi_monitor.usage.activity import WINDOWS

FIRST_DAY, DAY = 20_000, 86_400
FRESH_SHARE = 10
"""Every tenth user of a day was never there before."""
UNWRITTEN = 10_000
MEBIBYTE = 1 << 20
HEAD = (
    "store",
    "users a day x days",
    "different users: day, week, month",
    "MiB in all",
    "bytes for a user and day",
    "users in a flush",
    "flush, ms, median (99 %)",
    "upkeep, ms, median (99 %)",
    "day, week and month, ms",
    "with 10,000 not written yet, ms",
    "users of each day, ms",
)


class Population:
    """The users of each day; `last` is the minute in which each was last there, 0 for never."""

    def __init__(self, users: int, days: int, flushes: int) -> None:
        self._draw = random.Random(users)
        self._users, self._flushes = users, flushes
        self._fresh = max(1, users // FRESH_SHARE)
        self.last = array("l", bytes(8 * (users + self._fresh * days)))

    def day(self, day: int) -> Iterator[tuple[int, list[int]]]:
        """The flushes of a day: the minute, and who was there; everybody once, at any time."""
        flushes: list[list[int]] = [[] for _ in range(self._flushes)]
        start = day * self._fresh
        for user in range(start, start + self._users):
            self._draw.choice(flushes).append(user)
        for number, users in enumerate(flushes):
            minute = (FIRST_DAY + day) * DAY_MINUTES + number * DAY_MINUTES // self._flushes
            for user in users:
                self.last[user] = minute
            yield minute, users

    def since(self, minutes: Sequence[int]) -> tuple[int, ...]:
        """How many were there in or after each minute."""
        return tuple(sum(last >= minute for last in self.last) for minute in minutes)


def _hashes(users: Sequence[int]) -> frozenset[bytes]:
    return frozenset(blake2b(b"%d" % user, digest_size=8, key=b"key").digest() for user in users)


class Times:
    """Seconds that calls took."""

    def __init__(self) -> None:
        self._taken: list[float] = []

    async def of(self, work: Awaitable[object]) -> object:
        """Await it, and note how long that took."""
        began = time.perf_counter()
        result = await work
        self._taken.append(time.perf_counter() - began)
        return result

    def text(self) -> str:
        """Median and 99th percentile in ms."""
        ordered = sorted(self._taken)
        last = ordered[int(0.99 * (len(ordered) - 1))]
        return f"{1000 * ordered[len(ordered) // 2]:.1f} ({1000 * last:.1f})"

    @property
    def quickest(self) -> str:
        """The quickest in ms."""
        return f"{1000 * min(self._taken):.0f}"


async def _lived(store: Store, people: Population, days: int) -> tuple[Times, Times, int, int, int]:
    """All days: the times of flushes and of upkeep, the bytes, the marks and the last minute."""
    flushes, upkeep = Times(), Times()
    number = marks = minute = size = 0
    for day in range(days):
        for minute, users in people.day(day):
            seen = UsersSeen(FIRST_DAY + day, "", _hashes(users), minute)
            await flushes.of(store.write(Batch("run", number, "web", (), (seen,))))
            number, marks = number + 1, marks + len(users)
            if number % 12 == 0:
                await upkeep.of(store.maintain(minute * 60))
    size = (await store.maintain(minute * 60)).bytes
    return flushes, upkeep, size, marks // number, minute


async def _row(name: str, store: Store, options: argparse.Namespace) -> tuple[str, ...]:
    await store.open()
    people = Population(options.users, options.days, options.flushes)
    flushes, upkeep, size, in_flush, minute = await _lived(store, people, options.days)
    since = [minute - int(span // 60) for span in WINDOWS.values()]
    truth = people.since(since)
    plain, joined, daily = Times(), Times(), Times()
    also = [UsersSeen(FIRST_DAY + options.days - 1, "", _hashes(range(UNWRITTEN)), minute)]
    first, end = FIRST_DAY, FIRST_DAY + options.days
    for _ in range(3):
        _demand(await plain.of(store.users_since(since)), {"": truth})
        await joined.of(store.users_since(since, also))
        days = await daily.of(store.users_by_day(first, end))
        _demand(days, dict.fromkeys(range(first, end), options.users))
    return (
        name,
        f"{options.users:,} x {options.days}",
        ", ".join(f"{count:,}" for count in truth),
        f"{size / MEBIBYTE:.1f}",
        f"{size / options.users / options.days:.1f}",
        f"{in_flush:,}",
        flushes.text(),
        upkeep.text(),
        *(times.quickest for times in (plain, joined, daily)),
    )


def _demand(found: object, truth: object) -> None:
    if found != truth:
        raise SystemExit(f"counted {found}, and there were {truth}")


async def _run(options: argparse.Namespace) -> str:
    with tempfile.TemporaryDirectory() as folder:
        store = SQLite(Path(folder) / "users.sqlite", max_mb=10_000)
        rows = [await _row("SQLite", store, options)]
        await store.close()
    if options.postgres is not None:
        server = PostgreSQL(options.postgres, clock=lambda: FIRST_DAY * DAY)
        rows.append(await _row("PostgreSQL", server, options))
        await server.close()
    measured = f"{options.flushes} flushes a day, each user in one of them"
    return f"{conditions((), measured)}\n\n{markdown(HEAD, rows)}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and print or publish the table."""
    forget_settings()
    parser = new_parser("benchmarks.users", __doc__)
    parser.add_argument("--users", type=positive, default=100_000, help="of each day")
    parser.add_argument("--days", type=positive, default=35)
    parser.add_argument("--flushes", type=positive, default=144, help="of each day")
    parser.add_argument("--postgres", metavar="URL", help="measure the same there as well")
    options = parser.parse_args(argv)
    publish("users", asyncio.run(_run(options)), options.write)


if __name__ == "__main__":
    main()
