"""What history costs: `python -m benchmarks.history`.

Services of several sizes run through a day in quick motion: every minute each replica writes its
batch and looks after the store, on a clock of its own. Then the questions that a page asks are
timed, and the longest stall of the event loop while it was written. A last run goes through a year
with a cap on the size of the file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.options import forget_settings, new_parser, positive
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Batch, Query, Store
from holistic_asgi_monitor.history.values import Kind, Packed, Row, Series, Sum, Value
from holistic_asgi_monitor.metrics.latency import FIRST, LAST

MIDNIGHT = 20_000 * 86_400
MINUTE, HOUR, DAY = 60, 3600, 86_400
RATE = 1.0
"""Requests in a second for each endpoint of a replica, on the average."""
SIGMA = 0.8
VARIANTS = 4
ROWS_AT_ONCE = 50
NAP = 0.001
MEBIBYTE = 1 << 20
SIZES = ((10, 1), (100, 1), (500, 1), (100, 4))
HEAD = (
    "endpoints x replicas",
    "MiB in a day",
    "flush, ms, median (99 %)",
    "roll-up, ms",
    "loop stall, ms, 99.9 % (longest)",
    "(another process meanwhile)",
    "24 h of p95, one endpoint, ms",
    "the whole service, ms",
    "every endpoint's 24 h, ms",
)
YEAR_HEAD = (
    "cap, MiB",
    "largest on disk, MiB",
    "1 min goes back",
    "5 min",
    "1 h",
    "1 d",
    "24 h of p95, ms",
)


class Traffic:
    """Values of endpoints of which each is asked for less than the one before, as in life."""

    def __init__(self, endpoints: int, seconds: int) -> None:
        self._draw = random.Random(endpoints)
        weights = [1 / (number + 1) for number in range(endpoints)]
        rates = [RATE * endpoints * weight / sum(weights) for weight in weights]
        self.series = [
            Series(Kind.REQUESTS, ("GET", f"/v1/thing{number}/{{id}}"))
            for number in range(endpoints)
        ]
        every = [
            [self._value(rate * seconds, number) for _ in range(VARIANTS)]
            for number, rate in enumerate(rates)
        ]
        self._whole = [
            pack(Sum.of(values[variant] for values in every)) for variant in range(VARIANTS)
        ]
        self._packed = [[pack(value) for value in values] for values in every]

    async def rows(self, time_: int) -> tuple[Row, ...]:
        """What happened from `time_` on; yields in between, as it is not to be timed."""
        made = [Row(Series(Kind.TRAFFIC), time_, self._any_whole())]
        for number, series in enumerate(self.series):
            packed = self._draw.choice(self._packed[number])
            if packed.count:
                made.append(Row(series, time_, packed))
            if number % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        return tuple(made)

    def _any_whole(self) -> Packed:
        return self._draw.choice(self._whole)

    def _value(self, count: float, number: int) -> Value:
        """About `count` lognormal durations; the endpoints differ in their median."""
        middle = math.log2(0.005 * 2 ** (number % 7)) * 32
        width = SIGMA / math.log(2) * 32
        cells: dict[int, int] = {}
        for index in range(FIRST, LAST + 1):
            expected = count * (
                _below((index - middle) / width) - _below((index - 1 - middle) / width)
            )
            drawn = int(expected) + (self._draw.random() < expected % 1)
            if drawn:
                cells[index] = drawn
        total = sum(cells.values())
        return Value(total, total // 100, total * 10**7, 0, cells, {"500": total // 100})


def _below(x: float) -> float:
    """The share of a normal distribution below `x`."""
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


@dataclass
class Stall:
    """For how long a task that sleeps for a millisecond was not run when it was to be."""

    late: list[float] = field(default_factory=list)
    running: bool = True

    @property
    def worst(self) -> float:
        """The longest."""
        return max(self.late, default=0.0)

    @property
    def typical(self) -> float:
        """Longer than 99.9 % of them."""
        return sorted(self.late)[int(0.999 * (len(self.late) - 1))]

    async def watch(self) -> None:
        """Look until told to stop."""
        while self.running:
            began = time.perf_counter()
            await asyncio.sleep(NAP)
            self.late.append(time.perf_counter() - began - NAP)

    def text(self) -> str:
        """What is longer than 99.9 % of them, and the longest, in ms."""
        return f"{1000 * self.typical:.1f} ({1000 * self.worst:.1f})"


class Witness:
    """Another process that sleeps as the task does: what it sees, the machine has done."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_witness, args=(theirs,), daemon=True)
        self._process.start()
        self._line.recv()

    def end(self) -> Stall:
        """Have it end; what it has seen."""
        self._line.send(None)
        seen = Stall(self._line.recv())
        self._process.join()
        return seen


def _witness(line: Connection) -> None:
    late: list[float] = []
    line.send(None)
    while not line.poll():
        began = time.perf_counter()
        time.sleep(NAP)
        late.append(time.perf_counter() - began - NAP)
    line.send(late)


@dataclass
class Times:
    """Seconds that calls took."""

    taken: list[float] = field(default_factory=list)

    def text(self) -> str:
        """Median and 99th percentile in ms."""
        ordered = sorted(self.taken)
        last = ordered[int(0.99 * (len(ordered) - 1))]
        return f"{1000 * ordered[len(ordered) // 2]:.1f} ({1000 * last:.1f})"


async def _day(store: Store, endpoints: int, replicas: int, minutes: int) -> tuple[str, ...]:
    """One row: a day of `minutes` minutes."""
    await store.open()
    traffic, stall = Traffic(endpoints, MINUTE), Stall()
    flushes, rolls, size = Times(), Times(), 0
    # What the benchmark itself has made is no work for the garbage collector.
    gc.collect()
    gc.freeze()
    witness = await asyncio.to_thread(Witness)
    watching = asyncio.create_task(stall.watch())
    for minute in range(minutes):
        now = MIDNIGHT + minute * MINUTE
        for replica in range(replicas):
            rows = await traffic.rows(now)
            batch = Batch(f"run-{replica}", minute, f"web-{replica}", rows)
            flushes.taken.append(await _timed(store.write(batch)))
        if minute % 5 == 4:
            began = time.perf_counter()
            size = (await store.maintain(now + MINUTE + 90)).bytes
            rolls.taken.append(time.perf_counter() - began)
    stall.running = False
    await watching
    beside = witness.end()
    end = MIDNIGHT + minutes * MINUTE
    asked = [await _asked(store, query, end) for query in _questions(traffic, end)]
    return (
        f"{endpoints} x {replicas}",
        f"{size / MEBIBYTE * 1440 / minutes:.1f}",
        flushes.text(),
        rolls.text(),
        stall.text(),
        beside.text(),
        *(f"{1000 * seconds:.0f}" for seconds in asked),
    )


def _questions(traffic: Traffic, end: int) -> Iterator[Query]:
    where = dict(zip(("method", "endpoint"), traffic.series[0].labels, strict=True))
    yield Query(Kind.REQUESTS, end - DAY, end, 300, where=where)
    yield Query(Kind.TRAFFIC, end - DAY, end, 300)
    yield Query(Kind.REQUESTS, end - DAY, end, by=("method", "endpoint"))


async def _asked(store: Store, query: Query, now: float) -> float:
    """The seconds that an answer takes, with the quantiles; the quickest of three."""

    async def ask() -> None:
        answer = await store.read(query, now)
        found = [value for group in answer.groups for _, value in answer.points(group)]
        if not any(value is not None and value.quantile(0.95) for value in found):
            raise SystemExit("a question has no answer")

    return min([await _timed(ask()) for _ in range(3)])


async def _timed(work: object) -> float:
    began = time.perf_counter()
    await work  # type: ignore[misc]  # a coroutine of any kind
    return time.perf_counter() - began


async def _year(folder: Path, endpoints: int, cap: int, days: int) -> tuple[str, ...]:
    """The row of the year: what is so old that only days are kept is written by the day.

    Then come hours, 4 days in 5 minutes, and 2 days in minutes.
    """
    path = folder / "year.sqlite"
    store = SQLite(path, max_mb=cap)
    await store.open()
    largest, number = 0, 0
    now = MIDNIGHT
    for step, first, last in (
        (DAY, 0, days - 100),
        (HOUR, max(0, days - 100), days - 6),
        (5 * MINUTE, days - 6, days - 2),
        (MINUTE, days - 2, days),
    ):
        traffic = Traffic(endpoints, step)
        for now in range(MIDNIGHT + first * DAY, MIDNIGHT + last * DAY, step):
            await store.write(Batch("run", number, "web", await traffic.rows(now)))
            number += 1
            largest = max(largest, _on_disk(path))
            if number % 12 == 0:
                await store.maintain(now)
    now += MINUTE
    query = next(_questions(traffic, now))
    seconds = await _asked(store, query, now)
    await store.close()
    return (
        str(cap),
        f"{largest / MEBIBYTE:.1f}",
        *_reach(path, now),
        f"{1000 * seconds:.0f}",
    )


def _on_disk(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.iterdir())


def _reach(path: Path, now: int) -> list[str]:
    """How far back each tier goes."""
    connection = sqlite3.connect(path)
    try:
        reach = []
        for step in (MINUTE, 5 * MINUTE, HOUR, DAY):
            (oldest,) = connection.execute(f"SELECT min(time) FROM points_{step}").fetchone()
            reach.append(f"{(now - oldest) / DAY:.1f} d")
        return reach
    finally:
        connection.close()


async def _run(options: argparse.Namespace) -> str:
    rows = []
    for endpoints, replicas in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = SQLite(Path(folder) / "day.sqlite", max_mb=10_000)
            rows.append(await _day(store, endpoints, replicas, options.minutes))
            await store.close()
    if options.postgres is not None:
        endpoints, replicas = options.sizes[-1]
        server = PostgreSQL(options.postgres, clock=lambda: MIDNIGHT)
        size, *rest = await _day(server, endpoints, replicas, options.minutes)
        rows.append((f"{size}, PostgreSQL", *rest))
        await server.close()
    measured = f"{RATE * 60:,.0f} requests a minute for each endpoint, {options.minutes} minutes"
    text = f"{conditions((), measured)}\n\n{markdown(HEAD, rows)}"
    if options.days:
        with tempfile.TemporaryDirectory() as folder:
            year = await _year(Path(folder), options.year_endpoints, options.cap, options.days)
        text += f"\n\n{options.days} days of {options.year_endpoints} endpoints:\n\n"
        text += markdown(YEAR_HEAD, [year])
    return text


def _size(text: str) -> tuple[int, int]:
    endpoints, _, replicas = text.partition("x")
    return positive(endpoints.strip()), positive(replicas.strip() or "1")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and print or publish the tables."""
    forget_settings()
    parser = new_parser("benchmarks.history", __doc__)
    parser.add_argument("--sizes", type=_size, nargs="+", default=SIZES, metavar="ENDPOINTSxN")
    parser.add_argument("--minutes", type=positive, default=1440)
    parser.add_argument("--days", type=int, default=365, help="of the last run; 0 leaves it out")
    parser.add_argument("--year-endpoints", type=positive, default=100)
    parser.add_argument("--cap", type=positive, default=50, help="MiB, of the last run")
    parser.add_argument("--postgres", metavar="URL", help="measure the last size there as well")
    parser.add_argument(
        "--alone", action="store_true", help="let nothing else run meanwhile: takes a privilege"
    )
    options = parser.parse_args(argv)
    if options.alone:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    publish("history", asyncio.run(_run(options)), options.write)


if __name__ == "__main__":
    main()
