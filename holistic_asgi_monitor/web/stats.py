"""The statistics: what memory holds, as one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.windows import WINDOWS, Window, Windows
from holistic_asgi_monitor.model import Report
from holistic_asgi_monitor.web.requests import Failure

__all__ = ("Identity", "Statistics")

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who reports: the service, where it runs, which versions, since when."""

    service: str
    environment: str
    version: str
    monitor_version: str
    instance: str
    started_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """The identity as JSON values."""
        return {
            "service": self.service,
            "environment": self.environment,
            "version": self.version,
            "monitor_version": self.monitor_version,
            "instance": self.instance,
            "started_at": self.started_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Statistics:
    """Reads every part at the time of the call; `clock` gives monotonic seconds."""

    identity: Identity
    catalogue: Catalogue
    windows: Windows
    clock: Callable[[], float]
    started: float
    report: Callable[[], Report | None]
    system: Callable[[], Mapping[str, Any]]
    users: Callable[[], Mapping[str, int]]
    failures: Callable[[], list[Failure]]
    alerts: Callable[[], Mapping[str, Any]]

    async def as_dict(self) -> dict[str, Any]:
        """The statistics as JSON values; yields to the loop while it adds up endpoints."""
        now = self.clock()
        report = self.report()
        return self.identity.as_dict() | {
            "uptime_seconds": round(now - self.started, 3),
            "health": report.as_dict() if report else None,
            "requests": await self._requests(now),
            "system": dict(self.system()),
            "users": dict(self.users()),
            "features": self._features(),
            "errors": [failure.as_dict() for failure in self.failures()],
            "alerts": dict(self.alerts()),
        }

    async def _requests(self, now: float) -> dict[str, Any]:
        series = self.catalogue.series
        windows = {name: _window(self.windows.window(span, now)) for name, span in WINDOWS.items()}
        endpoints = [
            {"method": day.method, "endpoint": day.endpoint, **_endpoint(day.window)}
            async for day in self.windows.endpoints(now)
        ]
        endpoints.sort(key=lambda row: row["count"], reverse=True)
        return {
            "total": sum(found.count for found in list(series.endpoints.values())),
            "in_progress": series.in_progress,
            "windows": windows,
            "endpoints": endpoints,
        }

    def _features(self) -> list[dict[str, Any]]:
        uses = sorted(self.catalogue.feature_uses.values.items(), key=lambda item: -item[1])
        return [{"feature": labels[0], "uses": int(count)} for labels, count in uses]


def _quantiles(window: Window) -> dict[str, float | None]:
    return {name: _rounded(window.quantile_ms(q)) for name, q in _QUANTILES.items()}


def _window(window: Window) -> dict[str, Any]:
    return {
        "count": window.count,
        "rate_per_second": round(window.rate, 4),
        "error_rate_percent": round(window.error_percent, 4),
        **_quantiles(window),
    }


def _endpoint(window: Window) -> dict[str, Any]:
    return {
        "count": window.count,
        "errors": window.errors,
        "error_rate_percent": round(window.error_percent, 4),
        **_quantiles(window),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
