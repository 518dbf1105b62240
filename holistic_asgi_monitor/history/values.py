"""The one shape in which every number is kept, and how two of them become one.

A value of a minute, of five minutes, of a day, of one process or of a hundred is the same kind of
thing: counts that add up, a peak of which the greater stays, and cells that add up. So any window
and any number of processes merge exactly, in any order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from holistic_asgi_monitor.metrics.latency import quantile

__all__ = (
    "Kind",
    "Packed",
    "Row",
    "Series",
    "Sum",
    "Value",
    "key_of",
    "labels_text",
    "plain",
    "series_from",
    "statuses",
)

_NOTHING: Mapping[str, int] = MappingProxyType({})
_NO_CELLS: Mapping[int, int] = MappingProxyType({})
USUAL_STATUS = "200"
LONGEST_KEY = 500


class Kind(Enum):
    """What is kept; each with the names of its labels, and what the fields of its values hold."""

    TRAFFIC = "traffic"
    """All requests: `count`, `errors`, `total` ns, `cells`, `extra` by status."""
    REQUESTS = "requests"
    """The same for one method and endpoint."""
    HEALTH = "health"
    """One check: `count` results, `errors` of them not healthy, `peak` the worst gravity of
    `Status`, `total` ns and `cells` of the response times, `extra` results by status."""
    SYSTEM = "system"
    """One resource of one instance: `count` samples, their `total` and `peak`; `cpu` in
    thousandths of a percent, `memory` in bytes."""
    LAG = "lag"
    """The event loop of one instance: `count` probes, `total` ns, `peak` ns, `cells`."""
    SPEND = "spend"
    """Calls of a model: `count` calls, `errors` failed ones, `total` nano-dollars, `extra`:
    tokens as `input`, `output`, `cached`, `reasoning`; `unpriced`; calls as `status:<status>`."""
    FEATURES = "features"
    """One feature: `count` uses."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels of its series."""
        return _LABELS[self]


_LABELS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        Kind.TRAFFIC: (),
        Kind.REQUESTS: ("method", "endpoint"),
        Kind.HEALTH: ("check",),
        Kind.SYSTEM: ("instance", "resource"),
        Kind.LAG: ("instance",),
        Kind.SPEND: ("model", "endpoint", "feature"),
        Kind.FEATURES: ("feature",),
    }
)


@dataclass(frozen=True, slots=True)
class Series:
    """What a value is about: a kind, and one text for each of the kind's labels."""

    kind: Kind
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.kind.labels):
            message = f"a series of {self.kind.value} has the labels {self.kind.labels}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Value:
    """What happened to one series in one stretch of time; `Kind` says what the fields hold.

    All are whole numbers from 0 on. `cells` are counts by the scale-5 index of
    `metrics.latency`, `extra` further counts by name.
    """

    count: int = 0
    errors: int = 0
    total: int = 0
    peak: int = 0
    cells: Mapping[int, int] = field(default_factory=lambda: _NO_CELLS)
    extra: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    def quantile(self, q: float) -> float | None:
        """The `q` quantile (0 to 1) of the cells in seconds, within 1.1 %; None without any."""
        return quantile(self.cells, q)

    @property
    def mean(self) -> float | None:
        """`total` for one of `count`; None where there was none."""
        return self.total / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Packed:
    """A value as it is stored: `codec.encode` has made `body` of its cells and further counts."""

    count: int
    errors: int
    total: int
    peak: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """The value of one series from `time` on (UTC epoch seconds, a whole minute)."""

    series: Series
    time: int
    packed: Packed


class Sum:
    """A value in the making."""

    __slots__ = ("cells", "count", "errors", "extra", "peak", "total")

    def __init__(self) -> None:
        self.count = self.errors = self.total = self.peak = 0
        self.cells: dict[int, int] = {}
        self.extra: dict[str, int] = {}

    @classmethod
    def of(cls, values: Iterable[Value]) -> Sum:
        """The sum of `values`."""
        made = cls()
        for value in values:
            made.add(value)
        return made

    def add(self, value: Value | Sum) -> None:
        """Add a whole value."""
        self.add_numbers(value.count, value.errors, value.total, value.peak)
        for index, count in value.cells.items():
            self.cells[index] = self.cells.get(index, 0) + count
        for name, count in value.extra.items():
            self.extra[name] = self.extra.get(name, 0) + count

    def add_numbers(self, count: int, errors: int, total: int, peak: int) -> None:
        """Add the plain numbers of a value."""
        self.count += count
        self.errors += errors
        self.total += total
        self.peak = max(self.peak, peak)

    def add_extra(self, name: str, count: int = 1) -> None:
        """Add to one of the further counts."""
        self.extra[name] = self.extra.get(name, 0) + count

    def value(self) -> Value:
        """The value as it stands; this sum must not be added to afterwards."""
        return Value(self.count, self.errors, self.total, self.peak, self.cells, self.extra)


def statuses(value: Value) -> dict[str, int]:
    """Requests by status; the most usual one is not stored, since it is what is left."""
    usual = value.count - sum(value.extra.values())
    return {**({USUAL_STATUS: usual} if usual > 0 else {}), **value.extra}


def plain(text: str) -> str:
    """The text as any database takes it: lone surrogates and NUL are written out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def key_of(text: str) -> str:
    """The text as the key of an index takes it: plain, and not too long."""
    return plain(text)[:LONGEST_KEY]


def labels_text(series: Series) -> str:
    """The labels of a series as one text, plain ASCII."""
    return json.dumps(series.labels, separators=(",", ":"))


def series_from(kind: Kind, text: str) -> Series:
    """The series whose labels `labels_text` has written."""
    return Series(kind, tuple(json.loads(text)))
