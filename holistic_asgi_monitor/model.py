"""The values that travel through the house: statuses, results, reports, alerts, protocols.

Everything here is frozen and imports nothing but the standard library, so that a check or a
notifier of one's own needs no more than this module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol, runtime_checkable

__all__ = (
    "Alert",
    "AlertState",
    "Check",
    "CheckResult",
    "ConfigurationError",
    "MissingExtraError",
    "MonitorError",
    "Notifier",
    "Report",
    "Severity",
    "Status",
)


class MonitorError(Exception):
    """The base of every error that this package raises on purpose."""


class ConfigurationError(MonitorError, ValueError):
    """A setting or an argument is wrong; the sentence says which, where, and what is allowed."""


class MissingExtraError(MonitorError, ImportError):
    """Something asked for needs an optional package; the sentence gives the `pip install`."""

    def __init__(self, wanted: str, extra: str) -> None:
        super().__init__(f"{wanted} needs an extra: pip install 'holistic-asgi-monitor[{extra}]'")
        self.extra = extra


class _Ordered(Enum):
    """Members compare by gravity: the order in which they are written, mildest first."""

    @property
    def gravity(self) -> int:
        """The position among the members, 0 for the mildest."""
        return list(type(self)).index(self)

    def __lt__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.gravity < other.gravity

    def __le__(self, other: object) -> bool:
        return self == other or self < other

    def __gt__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.gravity > other.gravity

    def __ge__(self, other: object) -> bool:
        return self == other or self > other


class Status(_Ordered):
    """How a dependency, or the whole, is doing; ordered by gravity.

    `UNKNOWN` (no answer could be had: a stalled event loop, a stale snapshot) counts as degraded
    in the whole; `SKIPPED` (not configured) never counts.
    """

    SKIPPED = "skipped"
    HEALTHY = "healthy"
    UNKNOWN = "unknown"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    CRITICAL = "critical"

    @property
    def serving(self) -> bool:
        """Whether traffic may still be sent here: false for unhealthy and critical."""
        return self < Status.UNHEALTHY

    @staticmethod
    def whole(statuses: Iterable[Status]) -> Status:
        """The status of the whole: the worst of all, healthy where there is nothing to judge."""
        worst = max((status for status in statuses), default=Status.HEALTHY)
        if worst is Status.SKIPPED:
            return Status.HEALTHY
        return Status.DEGRADED if worst is Status.UNKNOWN else worst


class Severity(_Ordered):
    """How urgent an alert is; ordered, mildest first."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class AlertState(Enum):
    """What an alert says of its incident."""

    FIRING = "firing"
    RESOLVED = "resolved"
    NOTICE = "notice"
    """A message that opens no incident: one of the user's own."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check saw.

    `message` is one safe sentence, `details` JSON values; `response_time_ms` is the elapsed time
    of the probe in milliseconds, or None where nothing was timed.
    """

    status: Status
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    response_time_ms: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "status": self.status.value,
            "response_time_ms": self.response_time_ms,
            "message": self.message,
            "details": dict(self.details),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one round of checks.

    `timestamp` is the UTC time at which the round ended, `age_seconds` how long ago that was when
    the report was handed out. `required` holds the names of the checks that the app cannot serve
    without.
    """

    overall_status: Status
    timestamp: datetime
    age_seconds: float
    services: Mapping[str, CheckResult]
    service: str = ""
    environment: str = ""
    instance: str = ""
    required: frozenset[str] = frozenset()

    @property
    def serving(self) -> bool:
        """Whether no required check is unhealthy or critical."""
        return all(
            result.status.serving for name, result in self.services.items() if name in self.required
        )

    def named(self, *statuses: Status) -> list[str]:
        """The names of the services in one of `statuses`, in the order of the round."""
        return [name for name, result in self.services.items() if result.status in statuses]

    def as_dict(self, *, public: bool = False) -> dict[str, Any]:
        """The report as JSON values; `public` leaves out messages, details and the issue lists."""
        head = {
            "overall_status": self.overall_status.value,
            "timestamp": self.timestamp.isoformat(timespec="microseconds"),
            "age_seconds": round(self.age_seconds, 3),
            "service": self.service,
            "environment": self.environment,
            "instance": self.instance,
        }
        if public:
            names = {"healthy_services": self.named(Status.HEALTHY)}
            return head | {"services": self._public_services(), "summary": names}
        return head | {
            "services": {name: result.as_dict() for name, result in self.services.items()},
            "summary": self._summary(),
        }

    def _public_services(self) -> dict[str, Any]:
        return {
            name: {"status": result.status.value, "response_time_ms": result.response_time_ms}
            for name, result in self.services.items()
        }

    def _summary(self) -> dict[str, list[str]]:
        def sentences(*statuses: Status) -> list[str]:
            return [f"{name}: {self.services[name].message}" for name in self.named(*statuses)]

        return {
            "critical_issues": sentences(Status.UNHEALTHY, Status.CRITICAL),
            "warnings": sentences(Status.UNKNOWN, Status.DEGRADED),
            "healthy_services": self.named(Status.HEALTHY),
        }


@dataclass(frozen=True, slots=True)
class Alert:
    """One message about one incident, as a notifier receives it.

    `key` names the incident (for a check, the check's name) and stays the same from the alarm to
    the all-clear. `reason` says why it is sent now: `fire`, `escalate`, `ease`, `remind`, `clear`,
    `was_down`, `flapping`, `notice` or `bulletin` (told once by the whole service). Times are UTC;
    `ended_at` is None while it lasts.
    """

    key: str
    severity: Severity
    state: AlertState
    title: str
    summary: str
    started_at: datetime
    ended_at: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    reason: str = "fire"
    service: str = ""
    environment: str = ""
    instance: str = ""
    dashboard_url: str | None = None
    runbook_url: str | None = None


@runtime_checkable
class Check(Protocol):
    """A probe of one dependency: a name, how to run it, and an awaitable call.

    `timeout` and `interval` are seconds (None: the settings' values); `depends_on` names the
    checks without which this one cannot be well.
    """

    @property
    def name(self) -> str:
        """The name in reports, metrics and alerts."""
        ...

    @property
    def required(self) -> bool:
        """Whether the app cannot serve without it."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds after which the call is given up."""
        ...

    @property
    def interval(self) -> float | None:
        """Seconds from one call to the next."""
        ...

    @property
    def depends_on(self) -> Sequence[str]:
        """The names of the checks that must be well for this one to be."""
        ...

    async def __call__(self) -> CheckResult:
        """Probe once."""
        ...


@runtime_checkable
class Notifier(Protocol):
    """A channel for alerts; `send` raises to have the same alerts brought again later."""

    @property
    def name(self) -> str:
        """The name in logs and metrics."""
        ...

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Deliver `alerts`, in one message where the channel can."""
        ...
