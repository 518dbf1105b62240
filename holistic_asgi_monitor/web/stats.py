"""The statistics: what memory holds, as one JSON document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from typing import Any

import anyio.lowlevel

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.slowest import SLOWEST_KEPT, Slow
from holistic_asgi_monitor.metrics.windows import WINDOWS, EndpointDay, Window, Windows
from holistic_asgi_monitor.model import Report
from holistic_asgi_monitor.usage.audience import Crowd
from holistic_asgi_monitor.web.requests import Failure
from holistic_asgi_monitor.web.trend import Trend

__all__ = ("Identity", "Statistics")

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}
_OF_ALERTS = ("open", "recent", "maintenance")


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
            "version": self.version or None,
            "monitor_version": self.monitor_version,
            "instance": self.instance,
            "started_at": self.started_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Statistics:
    """Reads every part at the time of the call; `clock` gives monotonic seconds.

    `trend` gives None where no history can be read.
    """

    identity: Identity
    catalogue: Catalogue
    windows: Windows
    clock: Callable[[], float]
    started: float
    report: Callable[[], Report | None]
    system: Callable[[], Mapping[str, Any]]
    database: Callable[[], Mapping[str, int] | None]
    audience: Callable[[], Awaitable[Crowd]]
    openai: Callable[[], Awaitable[Mapping[str, Any]]]
    failures: Callable[[], list[Failure]]
    alerts: Callable[[], Mapping[str, Any]]
    trend: Callable[[], Awaitable[Trend | None]]
    summary: Callable[[], Awaitable[Mapping[str, Any]]]

    async def as_dict(self) -> dict[str, Any]:
        """The statistics as JSON values; yields to the loop while it adds up endpoints."""
        now = self.clock()
        report = self.report()
        trend = await self.trend()
        audience = await self.audience()
        return self.identity.as_dict() | {
            "uptime_seconds": round(now - self.started, 3),
            "health": report.as_dict() if report else None,
            "requests": await self._requests(now, trend),
            "trend": trend.as_dict() if trend else None,
            "system": dict(self.system()),
            "database": self.database(),
            "openai": dict(await self.openai()),
            "users": dict(audience.users),
            "features": [feature.as_dict() for feature in audience.features],
            "errors": [failure.as_dict() for failure in reversed(self.failures())],
            "slow_requests": self._slow_requests(now),
            "alerts": {name: self.alerts()[name] for name in _OF_ALERTS},
            "summary": dict(await self.summary()),
        }

    async def _requests(self, now: float, trend: Trend | None) -> dict[str, Any]:
        series = self.catalogue.series
        await series.fold_in_pieces()
        windows = {}
        for name, span in WINDOWS.items():
            windows[name] = _window(self.windows.window(span, now))
            await anyio.lowlevel.checkpoint()
        endpoints = [_endpoint(day, trend) async for day in self.windows.endpoints(now)]
        endpoints.sort(key=lambda row: row["count"], reverse=True)
        return {
            "total": sum(found.count for found in list(series.endpoints.values())),
            "in_progress": series.in_progress,
            "windows": windows,
            "endpoints": endpoints,
        }

    def _slow_requests(self, now: float) -> list[dict[str, Any]]:
        """Those answered in one piece come first into the hundred: a stream is long by nature."""
        series = self.catalogue.series
        plain = series.slowest.of_last_day()
        streamed = series.slowest_streamed.of_last_day()[: SLOWEST_KEPT - len(plain)]
        wall = datetime.now(UTC)
        return [_slow(each, wall, now) for each in nlargest(SLOWEST_KEPT, [*plain, *streamed])]


def _quantiles(window: Window) -> dict[str, float | None]:
    return {name: _rounded(window.quantile_ms(q)) for name, q in _QUANTILES.items()}


def _window(window: Window) -> dict[str, Any]:
    return {
        "count": window.count,
        "rate_per_second": round(window.rate, 4),
        "error_rate_percent": round(window.error_percent, 4),
        **_quantiles(window),
    }


def _endpoint(day: EndpointDay, trend: Trend | None) -> dict[str, Any]:
    window = day.window
    return {
        "method": day.method,
        "endpoint": day.endpoint,
        "count": window.count,
        "errors": window.errors,
        "error_rate_percent": round(window.error_percent, 4),
        **_quantiles(window),
        "trend": trend.rows(day.method, day.endpoint) if trend else None,
    }


def _slow(slow: Slow, wall: datetime, now: float) -> dict[str, Any]:
    return {
        "time": (wall - timedelta(seconds=now - slow.noted)).isoformat(),
        "method": slow.method,
        "endpoint": slow.endpoint,
        "status": slow.status,
        "duration_ms": round(slow.nanoseconds / 1_000_000, 3),
        "streamed": slow.streamed,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
