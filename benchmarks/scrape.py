"""What one scrape costs, beside prometheus_client: `python -m benchmarks.scrape`.

The same requests are counted by Monitor and by a plain prometheus_client Counter and Histogram
with the same names, labels and buckets; both pages are compared number by number before any is
timed. `GET /metrics` goes through the ASGI app; `generate_latest` is called on the event loop and
in a thread, as the apps that serve it do.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from benchmarks.driving import metrics_pieces, started
from benchmarks.options import forget_settings, new_parser, positive, positives
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor import Monitor, Settings

SIZES = (50, 500, 5000)
TOTAL = "holisticos_requests_total"
DURATION = "holisticos_request_duration_seconds"
MILLISECONDS = 1e3
FIRST_SECONDS = 0.1
IDLE_SECONDS = 0.05
MOST_TURNS = 10
HEAD = (
    "endpoints",
    "page, kB",
    "Monitor, unchanged, ms",
    "all changed",
    "`generate_latest`, unchanged, ms",
    "all changed",
    "Monitor is faster",
    "loop stall, ms: Monitor",
    "`generate_latest` on the loop",
    "in a thread",
    "(idle loop)",
)

Page = Callable[[], Awaitable[Sequence[bytes]]]
"""Makes a page, in the pieces that are handed to the server."""

Numbers = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: how to count a request, and how to get its page on the loop."""

    count: Callable[[str, float], None]
    page: Page


@dataclass(frozen=True, slots=True)
class Stall:
    """How long the event loop stood still while a page was made, in milliseconds."""

    usual: float
    worst: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """What pages cost at one number of endpoints.

    `size` is Monitor's page in bytes; `ours` and `theirs` are milliseconds with nothing changed
    since the page before and with every series changed; `stalls` are those of Monitor,
    `generate_latest` on the loop, the same in a thread, and of an idle loop.
    """

    endpoints: int
    size: int
    ours: tuple[float, float]
    theirs: tuple[float, float]
    stalls: Sequence[Stall]


def endpoints(count: int) -> list[str]:
    """`count` endpoint labels of the usual shape and length."""
    return [f"/api/v1/resources{number}/{{resource_id}}" for number in range(count)]


def monitor_side(monitor: Monitor) -> Side:
    """Monitor's own numbers and page."""

    def count(endpoint: str, seconds: float) -> None:
        monitor.track_request("GET", endpoint, 200, seconds)

    async def page() -> Sequence[bytes]:
        return await metrics_pieces(monitor)

    return Side(count, page)


def client_side(registry: CollectorRegistry, bounds: Sequence[float]) -> Side:
    """The same with prometheus_client alone, filled through `labels()`."""
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    total = Counter(TOTAL, "Requests.", ["method", "endpoint", "status"], registry=registry)
    duration = Histogram(
        DURATION, "Seconds.", ["method", "endpoint"], registry=registry, buckets=bounds
    )

    def count(endpoint: str, seconds: float) -> None:
        total.labels("GET", endpoint, "200").inc()
        duration.labels("GET", endpoint).observe(seconds)

    async def page() -> Sequence[bytes]:
        return (generate_latest(registry),)

    return Side(count, page)


def numbers(page: bytes) -> Numbers:
    """The request counts and durations on a page, by sample name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
        if sample.name.startswith((TOTAL, DURATION)) and not sample.name.endswith("_created")
    }


def bounds_of(page: bytes) -> list[float]:
    """The finite bucket bounds of the duration histogram on a page, in seconds."""
    labels = [dict(pairs) for name, pairs in numbers(page) if name == f"{DURATION}_bucket"]
    bounds = {float(each["le"]) for each in labels if "le" in each}
    return sorted(bound for bound in bounds if math.isfinite(bound))


def demand_same(ours: Numbers, theirs: Numbers) -> None:
    """End unless both hold the same; Monitor may have more series that are still at 0."""
    for name, labels in ours.keys() | theirs.keys():
        left, right = ours.get((name, labels)), theirs.get((name, labels), 0.0)
        if left is None or not math.isclose(left, right, rel_tol=1e-6):
            raise SystemExit(f"{name} {dict(labels)} is {left} with Monitor and {right} without")


class Traffic:
    """Rounds of requests, one at every endpoint, that every side counts alike."""

    def __init__(self, labels: Sequence[str], sides: Sequence[Side]) -> None:
        self._labels = labels
        self._sides = sides
        self._random = random.Random(1)

    @property
    def endpoints(self) -> int:
        """How many endpoints there are."""
        return len(self._labels)

    def round(self) -> None:
        """One request at every endpoint, of some 20 ms."""
        for label in self._labels:
            seconds = self._random.lognormvariate(-4.0, 1.5)
            for side in self._sides:
                side.count(label, seconds)


async def quickest(
    pages: Sequence[Page], scrapes: int, between: Callable[[], None]
) -> Sequence[float]:
    """The milliseconds of the quickest of `scrapes` of each page, which take turns.

    `between` is called before each turn.
    """
    best = [math.inf] * len(pages)
    for _ in range(scrapes):
        between()
        for number, page in enumerate(pages):
            begin = perf_counter()
            await page()
            best[number] = min(best[number], perf_counter() - begin)
    return [seconds * MILLISECONDS for seconds in best]


async def stall(page: Page, scrapes: int, between: Callable[[], None]) -> Stall:
    """How long nothing else ran on the loop while each of `scrapes` pages was made."""
    gaps = []
    for _ in range(scrapes):
        between()
        gaps.append(await _longest_gap(page))
    return Stall(median(gaps) * MILLISECONDS, max(gaps) * MILLISECONDS)


async def _longest_gap(page: Page) -> float:
    beats: list[float] = []
    heart = asyncio.create_task(_beat(beats))
    await asyncio.sleep(0)
    await page()
    await asyncio.sleep(0)
    heart.cancel()
    with suppress(asyncio.CancelledError):
        await heart
    return max(later - earlier for earlier, later in pairwise(beats))


async def _beat(beats: list[float]) -> None:
    while True:
        beats.append(perf_counter())
        await asyncio.sleep(0)


async def measure(count: int, scrapes: int) -> Scrape:
    """All the numbers at `count` endpoints, after both sides proved to hold the same."""
    labels, registry = endpoints(count), CollectorRegistry()
    monitor = Monitor(Starlette(), settings=Settings(max_endpoints=count + 10))
    async with started(monitor):
        ours = monitor_side(monitor)
        ours.count(labels[0], FIRST_SECONDS)
        theirs = client_side(registry, bounds_of(b"".join(await ours.page())))
        theirs.count(labels[0], FIRST_SECONDS)
        traffic = Traffic(labels, (ours, theirs))
        traffic.round()
        gc.collect()
        gc.freeze()
        try:
            return await _measure_sides(ours, theirs, registry, traffic, scrapes)
        finally:
            gc.unfreeze()


async def _measure_sides(
    ours: Side, theirs: Side, registry: CollectorRegistry, traffic: Traffic, scrapes: int
) -> Scrape:
    async def threaded() -> Sequence[bytes]:
        return (await asyncio.to_thread(generate_latest, registry),)

    async def idle() -> Sequence[bytes]:
        await asyncio.sleep(IDLE_SECONDS)
        return ()

    stalls = [
        await stall(page, scrapes, traffic.round)
        for page in (ours.page, theirs.page, threaded, idle)
    ]
    page = b"".join(await ours.page())
    demand_same(numbers(page), numbers(b"".join(await theirs.page())))
    turns, pages = scrapes * _turns(traffic.endpoints), (ours.page, theirs.page)
    unchanged = await quickest(pages, turns, lambda: None)
    changed = await quickest(pages, turns, traffic.round)
    return Scrape(
        endpoints=traffic.endpoints,
        size=len(page),
        ours=(unchanged[0], changed[0]),
        theirs=(unchanged[1], changed[1]),
        stalls=stalls,
    )


def _turns(endpoints: int) -> int:
    """How many times more pages are timed where they are small: what is short varies the most."""
    return max(1, min(MOST_TURNS, SIZES[-1] // endpoints))


def report(scrapes: int, results: Sequence[Scrape]) -> str:
    """The table with the conditions above it."""
    turns = ", ".join(f"{scrapes * _turns(each.endpoints)}" for each in results)
    measured = f"the quickest of {turns} scrapes; stalls as median (and longest) of {scrapes}"
    return f"{conditions(['prometheus-client'], measured)}\n\n{markdown(HEAD, map(row, results))}"


def row(scrape: Scrape) -> list[str]:
    """One line of the table."""
    times = [f"{each:.2f}" for each in (*scrape.ours, *scrape.theirs)]
    faster = f"{scrape.theirs[1] / scrape.ours[1]:.0f}x"
    stalls = [f"{each.usual:.1f} ({each.worst:.1f})" for each in scrape.stalls]
    return [f"{scrape.endpoints:,}", f"{scrape.size / 1e3:,.0f}", *times, faster, *stalls]


async def run(sizes: Sequence[int], scrapes: int) -> str:
    """Measure at each of `sizes` endpoints and give the report."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it bare
    return report(scrapes, [await measure(size, scrapes) for size in sizes])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, and print or write the table."""
    parser = new_parser("benchmarks.scrape", __doc__)
    parser.add_argument(
        "--scrapes",
        type=positive,
        default=10,
        help="pages of each kind (10), and up to ten times as many where they are small",
    )
    parser.add_argument(
        "--endpoints",
        type=positives,
        default=SIZES,
        help="how many endpoints, with commas (50,500,5000)",
    )
    options = parser.parse_args(arguments)
    forget_settings()
    publish("scrape", asyncio.run(run(options.endpoints, options.scrapes)), options.write)


if __name__ == "__main__":
    main()
