"""The numbers of the request path: what each method and endpoint has been asked for.

A request only appends its duration to the target that it belongs to; every so many durations, and
before anybody reads, they are folded into the cells. That is cheaper than counting at once: the
cells of a busy application are never in the processor's cache when a request ends, and sorted
durations are counted by stretches. It is also exact when several threads count.

Cells are plain lists: an increment costs a third of that on an array or a memory view. Any
mutable sequence of integers will do, so a shared buffer can take their place where workers share.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import anyio.lowlevel

from holistic_asgi_monitor.metrics.latency import Bounds, Cells
from holistic_asgi_monitor.metrics.slowest import Slowest

__all__ = (
    "METHODS",
    "OTHER",
    "OVERFLOW",
    "UNMATCHED",
    "Endpoint",
    "RequestSeries",
    "Target",
)

_logger = logging.getLogger("holistic_asgi_monitor")

METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY")
)
OTHER = "_OTHER"
UNMATCHED = "_unmatched"
OVERFLOW = "_overflow"
PENDING_LENGTH = 256
PAIRS = 4
FOLDED_AT_ONCE = 50


class Target:
    """Where requests of one kind are counted: those of one endpoint, status and way of sending.

    `pending` durations in nanoseconds are still to be folded into `cells` (the endpoint's),
    `buckets` (its classic ones), `whole` (over all endpoints, without a sum), and into `count` and
    `total`, one cell each: the requests with this status, and all of the endpoint. `method` and
    `endpoint` are the endpoint's, `signed` the status, negative for what is sent in several pieces.
    """

    __slots__ = (
        "buckets",
        "cells",
        "count",
        "endpoint",
        "method",
        "pending",
        "signed",
        "total",
        "whole",
    )

    def __init__(
        self, found: Endpoint, signed: int, cells: Cells, whole: Cells, count: Cells
    ) -> None:
        self.method = found.method
        self.endpoint = found.endpoint
        self.signed = signed
        self.pending: list[int] = []
        self.cells = cells
        self.buckets = found.buckets
        self.whole = whole
        self.count = count
        self.total = found.total


class Endpoint:
    """What is counted of one method and endpoint.

    `latency` holds the durations of responses sent in one piece, `streamed` those of responses
    sent in several (None until there is one), `buckets` how many of both fell into each classic
    bucket, `statuses` a one-cell counter for each status and `total` one for all of them; `targets`
    are where requests for it are added until they are folded in, and `broken` counts exceptions
    that came after a status below 500 had been sent.
    """

    __slots__ = (
        "broken",
        "buckets",
        "endpoint",
        "latency",
        "method",
        "statuses",
        "streamed",
        "targets",
        "total",
    )

    def __init__(self, method: str, endpoint: str, bounds: Bounds) -> None:
        self.method = method
        self.endpoint = endpoint
        self.latency = bounds.cells()
        self.streamed: Cells | None = None
        self.buckets = [0] * len(bounds.slices)
        self.statuses: dict[int, Cells] = {}
        self.total: Cells = [0]
        self.broken = 0
        self.targets: list[Target] = []

    def status(self, status: int) -> Cells:
        """The counter cell of `status`."""
        return self.statuses.setdefault(status, [0])

    @property
    def count(self) -> int:
        """All requests so far."""
        return self.total[0]

    @property
    def errors(self) -> int:
        """Requests answered with 5xx or broken off by an exception."""
        failed = sum(cell[0] for status, cell in self.statuses.items() if status >= 500)
        return failed + self.broken

    def durations(self) -> list[Cells]:
        """The sets of cells that together hold every duration."""
        return [self.latency] if self.streamed is None else [self.latency, self.streamed]


class RequestSeries:
    """Every endpoint's numbers, bounded in their number whatever clients send.

    `endpoints`, `whole` and `whole_streamed` (the cells over all endpoints) are up to date whenever
    they are read. `slowest` and `slowest_streamed` are told of long durations when these are folded
    in; `clock` gives them monotonic seconds.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        max_endpoints: int,
        exclude: re.Pattern[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bounds = bounds
        self.max_endpoints = max_endpoints
        self._targets: dict[tuple[str, str, int, bool], Target] = {}
        self.started = 0
        self._ended = 0
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._whole = bounds.cells()
        self._whole_streamed = bounds.cells()
        self._folding = threading.Lock()
        self.slowest = Slowest(clock)
        self.slowest_streamed = Slowest(clock)
        self.overflowed = 0
        self._labels: set[str] = set()
        self._exclude = exclude
        self._sink = Endpoint(OTHER, OTHER, bounds)
        self._sunk = bounds.cells()

    @property
    def in_progress(self) -> int:
        """Requests whose last byte has not left yet."""
        waiting = map(attrgetter("pending"), list(self._targets.values()))
        pending = sum(map(len, waiting))
        return max(0, self.started - self._ended - pending)

    @property
    def failed(self) -> int:
        """Requests that failed so far, as `Endpoint.errors` has them; nothing is folded for it."""
        failing = [
            target
            for target in list(self._targets.values())
            if abs(target.signed) >= 500 and target.whole is not self._sunk
        ]
        # One counter is shared by the targets of one status.
        counted = {id(target.count): target.count[0] for target in failing}
        pending = sum(len(target.pending) for target in failing)
        broken = sum(found.broken for found in list(self._endpoints.values()))
        return sum(counted.values()) + pending + broken

    @property
    def endpoints(self) -> dict[tuple[str, str], Endpoint]:
        """The numbers by method and endpoint."""
        self.fold()
        return self._endpoints

    @property
    def whole(self) -> Cells:
        """The durations of all responses sent in one piece."""
        self.fold()
        return self._whole

    @property
    def whole_streamed(self) -> Cells:
        """The durations of all responses sent in several pieces."""
        self.fold()
        return self._whole_streamed

    def fold(self) -> None:
        """Fold whatever is pending."""
        for target in list(self._targets.values()):
            if target.pending:
                self.fold_in(target)

    def fold_in(self, target: Target) -> None:
        """Fold what is pending at one target into its cells."""
        with self._folding:
            pending = target.pending
            # Other threads may append meanwhile: only what has been read is removed.
            size = len(pending)
            if size == 1:
                self._count_one(target, pending.pop())
            elif size:
                durations = sorted(pending[:size])
                del pending[:size]
                self._count_stretches(target, durations)
            self._ended += size
            target.count[0] += size
            target.total[0] += size

    def _note_slow(self, slowest: Slowest, target: Target, durations: Sequence[int]) -> None:
        """Note the sorted durations above the floor, which rises meanwhile."""
        if target.whole is self._sunk:
            return
        for duration in reversed(durations):
            if duration <= slowest.floor:
                break
            slowest.note(duration, target.method, target.endpoint, target.signed)

    def _count_one(self, target: Target, duration: int) -> None:
        """Count a lone duration: between two scrapes most endpoints have no more."""
        index = bisect_left(self.bounds.upper, duration)
        target.cells[index] += 1
        target.cells[-1] += duration
        target.buckets[self.bounds.bucket[index]] += 1
        target.whole[index] += 1
        slowest = self.slowest if target.signed > 0 else self.slowest_streamed
        if duration > slowest.floor:
            self._note_slow(slowest, target, (duration,))

    def _count_stretches(self, target: Target, durations: list[int]) -> None:
        """Count sorted durations, each stretch that falls into one cell at once."""
        upper, bucket = self.bounds.upper, self.bounds.bucket
        cells, buckets, whole = target.cells, target.buckets, target.whole
        cells[-1] += sum(durations)
        start, size = 0, len(durations)
        while start < size:
            index = bisect_left(upper, durations[start])
            end = bisect_right(durations, upper[index], start) if index < len(upper) else size
            count = end - start
            cells[index] += count
            buckets[bucket[index]] += count
            whole[index] += count
            start = end
        slowest = self.slowest if target.signed > 0 else self.slowest_streamed
        if durations[-1] > slowest.floor:
            self._note_slow(slowest, target, durations)

    def one_by_one(self) -> Iterator[tuple[tuple[str, str], Endpoint]]:
        """Every endpoint with its key, folded just before it is given."""
        for found in self.folded():
            yield (found.method, found.endpoint), found

    def folded(self) -> Iterator[Endpoint]:
        """Every endpoint, folded just before it is given: who yields in between stalls nobody."""
        for found in list(self._endpoints.values()):
            for target in found.targets:
                if target.pending:
                    self.fold_in(target)
            yield found

    async def fold_in_pieces(self) -> None:
        """Fold whatever is pending; others run in between, so that little is left to fold then."""
        for number, _ in enumerate(self.folded()):
            if number % FOLDED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    def find(self, method: str, endpoint: str | None) -> Endpoint:
        """The numbers of a method and an endpoint; `None` means that no route took the request.

        Excluded endpoints share one sink that is never shown.
        """
        if endpoint is not None and self._exclude is not None and self._exclude.search(endpoint):
            return self._sink
        label = self.label(endpoint)
        key = (method if method in METHODS else OTHER, label)
        if key not in self._endpoints and len(self._endpoints) >= PAIRS * self.max_endpoints:
            # Clients choose the method: eleven of them at each endpoint would be too many.
            key = (key[0], OVERFLOW)
            self.overflowed += 1
        found = self._endpoints.get(key)
        if found is None:
            found = self._endpoints.setdefault(key, self._born(*key))
        return found

    def excludes(self, found: Endpoint) -> bool:
        """Whether these numbers are the sink of what is left out."""
        return found is self._sink

    def target(self, found: Endpoint, status: int, *, streamed: bool) -> Target:
        """Where a request of this kind is counted."""
        key = (found.method, found.endpoint, status, streamed)
        if found is self._sink:
            key = (*key[:2], 0, False)
        target = self._targets.get(key)
        if target is None:
            # Two threads may come here at once; one target must win.
            target = self._targets.setdefault(key, self._aim(found, status, streamed=streamed))
            if target not in found.targets:
                found.targets.append(target)
        return target

    def _aim(self, found: Endpoint, status: int, *, streamed: bool) -> Target:
        if not streamed:
            cells, whole = found.latency, self._whole
        else:
            with self._folding:
                found.streamed = found.streamed or self.bounds.cells()
            cells, whole = found.streamed, self._whole_streamed
        if found is self._sink:
            whole = self._sunk
        signed = -status if streamed else status
        return Target(found, signed, cells, whole, found.status(status))

    def write(self, target: Target, nanoseconds: int) -> None:
        """Add one finished request."""
        target.pending.append(nanoseconds)
        if len(target.pending) >= PENDING_LENGTH:
            self.fold_in(target)

    def observe(self, found: Endpoint, status: int, nanoseconds: int, *, streamed: bool) -> None:
        """Count one request that was never in progress."""
        self.started += 1
        self.write(self.target(found, status, streamed=streamed), nanoseconds)

    def label(self, endpoint: str | None) -> str:
        """The label of an endpoint: `_unmatched` for None, `_overflow` beyond the cap."""
        if endpoint is None:
            return UNMATCHED
        if endpoint in self._labels:
            return endpoint
        if len(self._labels) < self.max_endpoints:
            self._labels.add(endpoint)
            return endpoint
        if not self.overflowed:
            _logger.warning(
                "More than %d endpoints: further ones are counted together as %s. "
                "Raise MONITOR_MAX_ENDPOINTS, or give Monitor(route=...) to name them.",
                self.max_endpoints,
                OVERFLOW,
            )
        self.overflowed += 1
        return OVERFLOW

    def _born(self, method: str, label: str) -> Endpoint:
        born = Endpoint(method, label, self.bounds)
        if label not in {UNMATCHED, OVERFLOW}:
            # Prometheus sees no increase in a counter that appears at 1: 500 exists from the start.
            born.status(500)
        return born
