"""How the run is going, read from Monitor's own pages as any user could."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from holistic_asgi_monitor.demo.screen import Colour, Screen
from holistic_asgi_monitor.model import Report, Status

if TYPE_CHECKING:
    import httpx2

    from holistic_asgi_monitor.monitor import Monitor

__all__ = ("Gauge", "Pace", "sentence")

_IN_PLACE_SECONDS = 0.5
_NOTHING_YET = {"total": 0, "windows": {"1m": {"p95_ms": None, "error_rate_percent": None}}}


class Pace:
    """Requests per second over the last few readings of a counter.

    `now` is the time, in monotonic seconds, at which the counter stands at 0.
    """

    def __init__(self, now: float, *, window_seconds: float = 5.0) -> None:
        self._window = window_seconds
        self._readings = deque([(now, 0)])

    def of(self, total: int, *, now: float) -> float:
        """The pace when the counter stands at `total` at the time `now`."""
        self._readings.append((now, total))
        while len(self._readings) > 2 and now - self._readings[0][0] > self._window:
            self._readings.popleft()
        began, first = self._readings[0]
        return (total - first) / (now - began) if now > began else 0.0


class Gauge:
    """Reads the statistics page and the last report, and shows both as the line of progress."""

    def __init__(self, monitor: Monitor, http: httpx2.AsyncClient, screen: Screen) -> None:
        self._monitor = monitor
        self._http = http
        self._screen = screen
        self._pace = Pace(time.monotonic())
        self._numbers: Mapping[str, Any] = _NOTHING_YET

    async def show(self, *, every: float) -> None:
        """Show how it goes until nobody looks, every `every` seconds where it makes new lines."""
        while not self._screen.gone:
            await anyio.sleep(_IN_PLACE_SECONDS if self._screen.in_place else every)
            await self.read()
            report = await self._monitor.report()
            pace = self._pace.of(self.requests, now=time.monotonic())
            self._screen.progress(*sentence(self._numbers, report, pace))

    async def read(self) -> None:
        """Read the statistics page; where it does not come, the last numbers stay."""
        import httpx2

        with suppress(httpx2.HTTPError):
            self._numbers = (await self._http.get("/api/monitoring/stats")).json()["requests"]

    @property
    def requests(self) -> int:
        """How many requests Monitor has counted since the start."""
        total: int = self._numbers["total"]
        return total


def sentence(requests: Mapping[str, Any], report: Report, pace: float) -> tuple[str, Colour]:
    """The line of progress and its colour, from the numbers of the last minute."""
    minute = requests["windows"]["1m"]
    parts = (
        f"{pace:5.1f} requests/s",
        f"p95 {_or_dash(minute['p95_ms'], '.0f')} ms",
        f"errors {_or_dash(minute['error_rate_percent'], '.1f')} %",
        f"health {_health(report)}",
    )
    return "   ".join(parts), _COLOURS.get(report.overall_status, Colour.RED)


_COLOURS = {Status.HEALTHY: Colour.CYAN, Status.DEGRADED: Colour.YELLOW}


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _health(report: Report) -> str:
    troubled = report.named(Status.UNKNOWN, Status.DEGRADED, Status.UNHEALTHY, Status.CRITICAL)
    named = f" ({', '.join(troubled)})" if troubled else ""
    return f"{report.overall_status.value}{named}"
