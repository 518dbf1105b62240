"""The numbers of the request path: what each method and endpoint has been asked for.

A request only writes down which cells it belongs to and how long it took; every so many
requests, and before anybody reads, the journal is folded into the cells. That is cheaper than
counting at once (the cells of a busy application are never in the processor's cache when a
request ends, and folding fetches them once for many), and exact when several threads count.

Cells are plain lists: an increment costs a third of that on an array or a memory view. Any
mutable sequence of integers will do, so a shared buffer can take their place where workers share.
"""

from __future__ import annotations

import logging
import re
import threading
from bisect import bisect_left

from holistic_asgi_monitor.metrics.latency import Bounds, Cells

__all__ = (
    "JOURNAL_LENGTH",
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
JOURNAL_LENGTH = 256

Target = tuple[Cells, Cells, Cells, Cells, object]
Entry = tuple[Target, int]


class Endpoint:
    """What is counted of one method and endpoint.

    `latency` holds the durations of responses sent in one piece, `streamed` those of responses
    sent in several (None until there is one), `statuses` a one-cell counter for each status, and
    `broken` counts exceptions that came after a status below 500 had been sent.
    """

    __slots__ = ("broken", "buckets", "endpoint", "latency", "method", "statuses", "streamed")

    def __init__(self, method: str, endpoint: str, bounds: Bounds) -> None:
        self.method = method
        self.endpoint = endpoint
        self.latency = bounds.cells()
        self.streamed: Cells | None = None
        self.buckets = [0] * len(bounds.slices)
        self.statuses: dict[int, Cells] = {}
        self.broken = 0

    def status(self, status: int) -> Cells:
        """The counter cell of `status`."""
        return self.statuses.setdefault(status, [0])

    @property
    def count(self) -> int:
        """All requests so far."""
        return sum(cell[0] for cell in self.statuses.values())

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
    they are read. `journal` is where the request path writes: the target and the duration in
    nanoseconds. A target is an endpoint's cells and buckets, the cells of the whole (which have no
    sum), a status counter, and anything that must be kept alive.
    """

    def __init__(
        self, bounds: Bounds, *, max_endpoints: int, exclude: re.Pattern[str] | None = None
    ) -> None:
        self.bounds = bounds
        self.max_endpoints = max_endpoints
        self.journal: list[Entry] = []
        self.started = 0
        self._ended = 0
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._whole = bounds.cells()
        self._whole_streamed = bounds.cells()
        self._folding = threading.Lock()
        self.overflowed = 0
        self._labels: set[str] = set()
        self._exclude = exclude
        self._sink = Endpoint(OTHER, OTHER, bounds)
        self._sunk = bounds.cells()

    @property
    def in_progress(self) -> int:
        """Requests whose last byte has not left yet."""
        return max(0, self.started - self._ended - len(self.journal))

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
        """Add what the journal holds to the cells."""
        with self._folding:
            journal = self.journal
            size = len(journal)
            # Other threads may append meanwhile: only what has been read is removed.
            entries = journal[:size]
            del journal[:size]
            self._ended += size
            upper, bucket = self.bounds.upper, self.bounds.bucket
            for (cells, buckets, whole, count, _), nanoseconds in entries:
                index = bisect_left(upper, nanoseconds)
                cells[index] += 1
                cells[-1] += nanoseconds
                buckets[bucket[index]] += 1
                whole[index] += 1
                count[0] += 1

    def find(self, method: str, endpoint: str | None) -> Endpoint:
        """The numbers of a method and an endpoint; `None` means that no route took the request.

        Excluded endpoints share one sink that is never shown.
        """
        if endpoint is not None and self._exclude is not None and self._exclude.search(endpoint):
            return self._sink
        label = self.label(endpoint)
        key = (method if method in METHODS else OTHER, label)
        found = self._endpoints.get(key)
        if found is None:
            found = self._endpoints[key] = self._born(*key)
        return found

    def target(self, found: Endpoint, status: int, *, streamed: bool, alive: object) -> Target:
        """Where a request of this kind is counted; `alive` is kept as long as the target is."""
        if not streamed:
            cells, whole = found.latency, self._whole
        else:
            if found.streamed is None:
                found.streamed = self.bounds.cells()
            cells, whole = found.streamed, self._whole_streamed
        if found is self._sink:
            whole = self._sunk
        return cells, found.buckets, whole, found.status(status), alive

    def write(self, target: Target, nanoseconds: int) -> None:
        """Write one finished request down."""
        journal = self.journal
        journal.append((target, nanoseconds))
        if len(journal) >= JOURNAL_LENGTH:
            self.fold()

    def observe(self, found: Endpoint, status: int, nanoseconds: int, *, streamed: bool) -> None:
        """Count one request that was never in progress."""
        self.started += 1
        self.write(self.target(found, status, streamed=streamed, alive=None), nanoseconds)

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
