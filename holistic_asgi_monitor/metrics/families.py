"""The metric families: what the page shows, each with its HELP and TYPE from the start.

A family keeps the prepared text of each of its series, so that a scrape only fills in numbers;
as bytes, which are filled in twice as fast as text and need no encoding of the whole page. It
writes itself as blocks of lines for our page, and as a prometheus_client `Metric` for
everything that reads registries.
"""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice

from prometheus_client import Metric

from holistic_asgi_monitor.metrics.latency import Bounds, Cells
from holistic_asgi_monitor.metrics.series import OTHER, OVERFLOW, Endpoint, RequestSeries
from holistic_asgi_monitor.metrics.text import help_text, label_text, number, safe_label

__all__ = ("FEATURES_LIMIT", "Counter", "Durations", "Family", "Gauge", "Histogram", "Requests")

_logger = logging.getLogger("holistic_asgi_monitor")

Labels = tuple[str, ...]
Pairs = list[tuple[str, str]]
Sample = tuple[str, Pairs, float]

SERIES_LIMIT, FEATURES_LIMIT = 1000, 200
TOGETHER = 16
_NANO = 1e9


class Family(ABC):
    """One metric family: its name without `_total`, its kind, its labels and its series."""

    kind: str

    def __init__(
        self, name: str, text: str, labels: Labels = (), *, constant: Mapping[str, str]
    ) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._constant = list(constant.items())
        self._heads: dict[bool, bytes] = {}

    @property
    def exposed_names(self) -> list[str]:
        """The names of the samples, as `name[]` filters them and as registries know them."""
        return [self.name]

    def head(self, *, openmetrics: bool) -> bytes:
        """The HELP and TYPE lines."""
        head = self._heads.get(openmetrics)
        if head is None:
            name = self.name if openmetrics else self.exposed_names[0]
            text = f"# HELP {name} {help_text(self.text)}\n# TYPE {name} {self.kind}\n"
            head = self._heads[openmetrics] = text.encode()
        return head

    def metric(self) -> Metric:
        """The family as prometheus_client's own type, with all its samples."""
        metric = Metric(self.name, self.text, self.kind)
        for suffix, pairs, value in self.samples():
            metric.add_sample(self.name + suffix, dict(pairs), value)
        return metric

    def pairs(self, values: Iterable[str], *more: tuple[str, str]) -> Pairs:
        """Label names with values, the constant labels among them."""
        return [*self._constant, *zip(self.labels, values, strict=True), *more]

    def _prefix(self, suffix: str, values: Iterable[str], *more: tuple[str, str]) -> bytes:
        return f"{self.name}{suffix}{label_text(self.pairs(values, *more))} ".encode()

    @abstractmethod
    def blocks(self) -> Iterator[bytes]:
        """The sample lines, in blocks small enough to yield between them."""

    def batches(self) -> Iterator[Sequence[bytes]]:
        """The blocks, as many at a time as are written before anybody looks at the clock."""
        for block in self.blocks():
            yield (block,)

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """The samples: suffix, labels, value."""


class _Scalar(Family):
    """A family whose series are single numbers, bounded in their number."""

    suffix = ""

    def __init__(
        self, name: str, text: str, labels: Labels = (), *, constant: Mapping[str, str]
    ) -> None:
        super().__init__(name, text, labels, constant=constant)
        self.limit = SERIES_LIMIT
        self.values: dict[Labels, float] = {}
        self._prefixes: dict[Labels, bytes] = {}
        self._lock = threading.Lock()
        self._warned = False
        if not labels and self.born:
            self.values[()] = 0.0

    born = True

    def blocks(self) -> Iterator[bytes]:
        for labels, value in list(self.values.items()):
            yield b"%b%b\n" % (self._known_prefix(labels), number(value).encode())

    def samples(self) -> Iterator[Sample]:
        for labels, value in list(self.values.items()):
            yield self.suffix, self.pairs(labels), value

    def admit(self, labels: Labels) -> Labels:
        """The series to use: `labels` made safe, or the overflow once the limit is reached."""
        if labels in self.values:
            return labels
        safe = tuple(safe_label(value) for value in labels)
        if safe in self.values or len(self.values) < self.limit:
            return safe
        if not self._warned:
            self._warned = True
            _logger.warning(
                "%s has reached %d series: further ones are counted together as %s.",
                self.name,
                self.limit,
                OVERFLOW,
            )
        return (OVERFLOW,) * len(labels)

    def _known_prefix(self, labels: Labels) -> bytes:
        prefix = self._prefixes.get(labels)
        if prefix is None:
            prefix = self._prefixes[labels] = self._prefix(self.suffix, labels)
        return prefix


class Counter(_Scalar):
    """A number that only grows."""

    kind = "counter"
    suffix = "_total"

    @property
    def exposed_names(self) -> list[str]:
        """The one sample's name."""
        return [f"{self.name}_total"]

    def inc(self, *labels: str, by: float = 1.0) -> Labels:
        """Add `by`, a finite number from 0 on, to the series of these label values.

        The answer is the series that counted it: its labels are safe, and may be the overflow's.
        """
        if not 0 <= by < math.inf:
            message = f"{self.name}_total cannot grow by {by}"
            raise ValueError(message)
        with self._lock:
            series = labels if labels in self.values else self.admit(labels)
            self.values[series] = self.values.get(series, 0.0) + by
        return series


Reading = float | Mapping[Labels, float] | None


class Gauge(_Scalar):
    """A number that goes up and down.

    `read`, where given, is asked at each scrape: a number, one for each set of label values, or
    None where nothing is known.
    """

    kind = "gauge"
    born = False

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels = (),
        *,
        constant: Mapping[str, str],
        read: Callable[[], Reading] | None = None,
    ) -> None:
        super().__init__(name, text, labels, constant=constant)
        self.read = read

    def set(self, *labels: str, value: float) -> None:
        """Set the series of these label values."""
        self.values[self.admit(labels)] = value

    def add(self, change: float) -> None:
        """Move the one series of a gauge without labels."""
        with self._lock:
            self.values[()] = self.values.get((), 0.0) + change

    def forget(self, *labels: str) -> None:
        """Show the series no longer."""
        self.values.pop(labels, None)
        self._prefixes.pop(labels, None)

    def blocks(self) -> Iterator[bytes]:
        """The sample lines, after a reading."""
        self._ask()
        yield from super().blocks()

    def samples(self) -> Iterator[Sample]:
        """The samples, after a reading."""
        self._ask()
        yield from super().samples()

    def _ask(self) -> None:
        if self.read is None:
            return
        reading = self.read()
        if reading is None:
            self.values = {}
        elif isinstance(reading, Mapping):
            self.values = {self.admit(labels): value for labels, value in reading.items()}
        else:
            self.values = {(): float(reading)}


class _Distribution(Family):
    """A family whose series are sets of latency cells."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels = (),
        *,
        constant: Mapping[str, str],
        bounds: Bounds,
    ) -> None:
        super().__init__(name, text, labels, constant=constant)
        self.bounds = bounds
        self._templates: dict[Labels, bytes] = {}

    @property
    def exposed_names(self) -> list[str]:
        """The three samples' names; the family's own leads, as its TYPE line wants it."""
        return [self.name, f"{self.name}_bucket", f"{self.name}_count", f"{self.name}_sum"]

    def block(self, labels: Labels, counts: list[int], nanoseconds: int) -> bytes:
        """The lines of one series, from its cumulative counts and its sum."""
        template = self._templates.get(labels)
        if template is None:
            template = self._templates[labels] = self._prepare(labels)
        return template % (*counts, counts[-1], nanoseconds / _NANO)

    def series(self, labels: Labels, counts: list[int], nanoseconds: int) -> Iterator[Sample]:
        """The samples of one series, in the same order as its lines."""
        for bound, count in zip(self._bounds_text(), counts, strict=True):
            yield "_bucket", self.pairs(labels, ("le", bound)), float(count)
        yield "_count", self.pairs(labels), float(counts[-1])
        yield "_sum", self.pairs(labels), nanoseconds / _NANO

    def _bounds_text(self) -> list[str]:
        return [*(number(bound) for bound in self.bounds.le), "+Inf"]

    def _prepare(self, labels: Labels) -> bytes:
        prefixes = [self._prefix("_bucket", labels, ("le", le)) for le in self._bounds_text()]
        prefixes.append(self._prefix("_count", labels))
        lines = [b"%b%%d.0\n" % _literal(prefix) for prefix in prefixes]
        total = _literal(self._prefix("_sum", labels))
        return b"".join([*lines, b"%b%%r\n" % total])


class Histogram(_Distribution):
    """Durations by labels, for everything but the request path."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Labels = (),
        *,
        constant: Mapping[str, str],
        bounds: Bounds,
    ) -> None:
        super().__init__(name, text, labels, constant=constant, bounds=bounds)
        self.cells: dict[Labels, Cells] = {}
        self._lock = threading.Lock()
        if not labels:
            self.cells[()] = bounds.cells()

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration; beyond the limit of series all go to the overflow."""
        nanoseconds = max(0, round(seconds * _NANO))
        with self._lock:
            self.bounds.observe(self._admit(labels), nanoseconds)

    def blocks(self) -> Iterator[bytes]:
        """The lines, one series at a time."""
        for labels, cells in list(self.cells.items()):
            yield self.block(labels, self.bounds.classic(cells), cells[-1])

    def samples(self) -> Iterator[Sample]:
        """The samples of all series."""
        for labels, cells in list(self.cells.items()):
            yield from self.series(labels, self.bounds.classic(cells), cells[-1])

    def _admit(self, labels: Labels) -> Cells:
        cells = self.cells.get(labels)
        if cells is not None:
            return cells
        safe = tuple(safe_label(value) for value in labels)
        if safe not in self.cells and len(self.cells) >= SERIES_LIMIT:
            safe = (OVERFLOW,) * len(labels)
        return self.cells.setdefault(safe, self.bounds.cells())


class _Written:
    """What the last page had of one endpoint: its lines, and the requests that they counted.

    `template` takes the numbers; `cells` are the counters that they are read from, where it is
    not the same ones for every endpoint. An object of its own, and no tuple, since thousands of
    new ones on each page would call the garbage collector while the page is written.
    """

    __slots__ = ("cells", "count", "template", "text")

    def __init__(self) -> None:
        self.count = -1
        self.template = self.text = b""
        self.cells: list[Cells] = []


def _status_text(status: int) -> str:
    return str(status) if 100 <= status <= 999 else OTHER


class Requests(_Scalar):
    """`requests_total`, read from the request path's own numbers."""

    kind = "counter"
    suffix = "_total"
    born = False

    def __init__(
        self, name: str, text: str, *, constant: Mapping[str, str], series: RequestSeries
    ) -> None:
        super().__init__(name, text, ("method", "endpoint", "status"), constant=constant)
        self._series = series
        self._written: dict[Endpoint, _Written] = {}

    @property
    def exposed_names(self) -> list[str]:
        """The one sample's name."""
        return [f"{self.name}_total"]

    def blocks(self) -> Iterator[bytes]:
        """The lines of each endpoint; those of before where nothing was counted since."""
        return map(self._lines_of, self._series.folded())

    def batches(self) -> Iterator[Sequence[bytes]]:
        """The lines of some endpoints at a time."""
        return _together(self.blocks())

    def _lines_of(self, found: Endpoint) -> bytes:
        written = self._written.get(found) or self._written.setdefault(found, _Written())
        count = found.total[0]
        if written.count != count or not count:
            if len(written.cells) != len(found.statuses):
                self._prepare(found, written)
            written.text = written.template % tuple([cell[0] for cell in written.cells])
            written.count = count
        return written.text

    def _prepare(self, found: Endpoint, written: _Written) -> None:
        statuses = list(found.statuses.items())
        prefixes = [
            self._prefix(self.suffix, (found.method, found.endpoint, _status_text(status)))
            for status, _ in statuses
        ]
        written.cells = [cell for _, cell in statuses]
        written.template = b"".join([b"%b%%d.0\n" % _literal(prefix) for prefix in prefixes])

    def samples(self) -> Iterator[Sample]:
        """The samples of all endpoints."""
        for found in self._series.folded():
            for labels, count in _statuses(found):
                yield self.suffix, self.pairs(labels), float(count)


def _statuses(found: Endpoint) -> list[tuple[Labels, int]]:
    return [
        ((found.method, found.endpoint, _status_text(status)), cell[0])
        for status, cell in list(found.statuses.items())
    ]


class Durations(_Distribution):
    """`request_duration_seconds`, read from the request path's own cells."""

    def __init__(
        self, name: str, text: str, *, constant: Mapping[str, str], series: RequestSeries
    ) -> None:
        super().__init__(
            name, text, ("method", "endpoint"), constant=constant, bounds=series.bounds
        )
        self._series = series
        self._written: dict[Endpoint, _Written] = {}

    def blocks(self) -> Iterator[bytes]:
        """The lines of each endpoint; those of before where nothing was counted since."""
        return map(self._lines_of, self._series.folded())

    def batches(self) -> Iterator[Sequence[bytes]]:
        """The lines of some endpoints at a time."""
        return _together(self.blocks())

    def _lines_of(self, found: Endpoint) -> bytes:
        written = self._written.get(found) or self._written.setdefault(found, _Written())
        count = found.total[0]
        if written.count != count:
            if not written.template:
                written.template = self._prepare((found.method, found.endpoint))
            counts = [*accumulate(found.buckets)]
            written.text = written.template % (*counts, counts[-1], _total(found) / _NANO)
            written.count = count
        return written.text

    def samples(self) -> Iterator[Sample]:
        """The samples of all endpoints."""
        for found in self._series.folded():
            labels = found.method, found.endpoint
            yield from self.series(labels, list(accumulate(found.buckets)), _total(found))


def _total(found: Endpoint) -> int:
    return found.latency[-1] + (0 if found.streamed is None else found.streamed[-1])


def _together(texts: Iterator[bytes]) -> Iterator[Sequence[bytes]]:
    while some := list(islice(texts, TOGETHER)):
        yield some


def _literal(prefix: bytes) -> bytes:
    """A text as it stands in a template."""
    return prefix.replace(b"%", b"%%")
