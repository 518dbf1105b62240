"""What can be asked of history: each metric with its unit, its filters and where it is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.model import Status

__all__ = ("FILTERS", "MEASURES", "Measure", "Number")

Number = int | float

FILTERS = ("method", "endpoint", "service", "model", "feature", "instance")
_HEALTH = MappingProxyType(
    {
        Status.HEALTHY: 0,
        Status.UNKNOWN: 1,
        Status.DEGRADED: 1,
        Status.UNHEALTHY: 2,
        Status.CRITICAL: 3,
    }
)
_STATUSES = tuple(Status)


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric of history.

    `value` makes its number of what is stored in one stretch, given the quantile asked for; None
    where there is none. `kind` is where it is kept (None: with the users), `fixed` are labels that
    always hold. Where `zero` is set, nothing stored means 0 while the service ran. Without `cells`
    the plain numbers are enough.
    """

    name: str
    unit: str
    filters: tuple[str, ...]
    kind: Kind | None
    value: Callable[[Value, float], Number | None]
    fixed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    zero: bool = False
    timed: bool = False
    cells: bool = False


def _count(value: Value, _: float) -> int:
    return value.count


def _errors(value: Value, _: float) -> int:
    return value.errors


def _error_rate(value: Value, _: float) -> float | None:
    return round(100 * value.errors / value.count, 4) if value.count else None


def _quantile(value: Value, q: float) -> float | None:
    found = value.quantile(q)
    return None if found is None else round(found, 9)


def _health(value: Value, _: float) -> int | None:
    return _HEALTH.get(_STATUSES[min(value.peak, len(_STATUSES) - 1)])


def _dollars(value: Value, _: float) -> float:
    return value.total / 1_000_000_000


def _tokens(value: Value, _: float) -> int:
    return value.extra.get("input", 0) + value.extra.get("output", 0)


def _percent(value: Value, _: float) -> float | None:
    mean = value.mean
    return None if mean is None else round(mean / 1000, 3)


def _mean(value: Value, _: float) -> int | None:
    mean = value.mean
    return None if mean is None else round(mean)


_REQUEST = ("method", "endpoint", "instance")
_SPEND = ("model", "endpoint", "feature", "instance")
_CPU, _MEMORY = (MappingProxyType({"resource": resource}) for resource in ("cpu", "memory"))

_ALL = (
    Measure("requests", "requests", _REQUEST, Kind.TRAFFIC, _count, zero=True),
    Measure("errors", "errors", _REQUEST, Kind.TRAFFIC, _errors, zero=True),
    Measure("error_rate", "percent", _REQUEST, Kind.TRAFFIC, _error_rate),
    Measure("latency", "seconds", _REQUEST, Kind.TRAFFIC, _quantile, timed=True, cells=True),
    Measure("health", "status", ("service", "instance"), Kind.HEALTH, _health),
    Measure(
        "response_time",
        "seconds",
        ("service", "instance"),
        Kind.HEALTH,
        _quantile,
        timed=True,
        cells=True,
    ),
    Measure("cost", "USD", _SPEND, Kind.SPEND, _dollars, zero=True),
    Measure("tokens", "tokens", _SPEND, Kind.SPEND, _tokens, zero=True, cells=True),
    Measure("users", "users", ("feature",), None, _count),
    Measure("feature_uses", "uses", ("feature", "instance"), Kind.FEATURES, _count, zero=True),
    Measure("cpu", "percent", ("instance",), Kind.SYSTEM, _percent, fixed=_CPU),
    Measure("memory", "bytes", ("instance",), Kind.SYSTEM, _mean, fixed=_MEMORY),
    Measure(
        "event_loop_lag", "seconds", ("instance",), Kind.LAG, _quantile, timed=True, cells=True
    ),
)

MEASURES: Mapping[str, Measure] = MappingProxyType({each.name: each for each in _ALL})
