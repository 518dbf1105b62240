"""The check of what real requests meet: their errors and their latency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.settings import Settings

__all__ = ("Traffic", "TrafficWindow", "judge_traffic")

UNHEALTHY_PERCENT = 50.0


@dataclass(frozen=True, slots=True)
class TrafficWindow:
    """The requests of the last five minutes.

    `errors` are 5xx and unhandled exceptions. `timed` of the `count` requests were answered in
    one piece; `p95_ms`, in milliseconds, is theirs, None where there are none.
    """

    count: int
    errors: int
    timed: int
    p95_ms: float | None

    @property
    def error_percent(self) -> float:
        """Errors per hundred requests, 0 where there were none."""
        return 100.0 * self.errors / self.count if self.count else 0.0


def judge_traffic(
    window: TrafficWindow,
    *,
    error_rate_percent: float,
    response_time_ms: float,
    minimum_requests: int,
) -> CheckResult:
    """Judge `window`: degraded above a threshold, unhealthy where more than half failed.

    Nothing is made of fewer than `minimum_requests`, nor of the latency of fewer than that.
    """
    details = {
        "count": window.count,
        "errors": window.errors,
        "error_rate_percent": round(window.error_percent, 2),
        "p95_ms": None if window.p95_ms is None else round(window.p95_ms, 1),
    }
    if window.count < minimum_requests:
        return CheckResult(Status.HEALTHY, "too few requests to judge", details)
    status, complaints = Status.HEALTHY, []
    bearable = min(error_rate_percent, UNHEALTHY_PERCENT)
    if window.error_percent > bearable:
        failing = window.error_percent > UNHEALTHY_PERCENT
        status = Status.UNHEALTHY if failing else Status.DEGRADED
        complaints.append(_of_errors(window, bearable))
    slow = window.p95_ms is not None and window.p95_ms > response_time_ms
    if slow and window.timed >= minimum_requests:
        status = max(status, Status.DEGRADED)
        complaints.append(_of_latency(window, response_time_ms))
    return CheckResult(status, "; ".join(complaints) or _all_well(window), details)


def _of_errors(window: TrafficWindow, threshold: float) -> str:
    return (
        f"{window.error_percent:.3g} % of {window.count:,} requests in 5 min failed "
        f"(threshold {threshold:g} %)"
    )


def _of_latency(window: TrafficWindow, threshold: float) -> str:
    return (
        f"the slowest 5 % of {window.timed:,} requests in 5 min took over {window.p95_ms:,.0f} ms "
        f"(threshold {threshold:,.0f} ms)"
    )


def _all_well(window: TrafficWindow) -> str:
    return f"{window.error_percent:.3g} % of {window.count:,} requests in 5 min failed"


class Traffic(Options):
    """Judges what `read` gives by the thresholds in `settings`."""

    def __init__(
        self,
        read: Callable[[], Awaitable[TrafficWindow]],
        settings: Settings,
        *,
        name: str = "traffic",
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        self._read = read
        self._settings = settings

    async def __call__(self) -> CheckResult:
        """Judge the last five minutes."""
        return judge_traffic(
            await self._read(),
            error_rate_percent=self._settings.error_rate_percent,
            response_time_ms=self._settings.response_time_ms,
            minimum_requests=self._settings.minimum_requests,
        )
