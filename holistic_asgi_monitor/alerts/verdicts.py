"""Whether traffic begins to fail, goes on, or is over: of one endpoint, or of all together.

Pure. What opens an incident is not what ends it, or one at the threshold would come and go: it
ends well below the thresholds, and where there are too few requests it goes on for a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holistic_asgi_monitor.alerts.condition import NO_REQUESTS
from holistic_asgi_monitor.checks.traffic import TrafficWindow, judge_traffic
from holistic_asgi_monitor.model import Status
from holistic_asgi_monitor.settings import Settings

__all__ = ("Known", "Minute", "Verdict", "verdict")

CLEAR_TIMES = 5
CLEAR_SHARE = 0.25
SLOW_PERCENT = 5.0
CLOSE_ERRORS = 0.5
CLOSE_LATENCY = 0.8
"""An incident ends at half of the error rate that opens it, and at four fifths of the latency."""


@dataclass(frozen=True, slots=True)
class Minute:
    """The last minute: `slow` of the `timed` requests were above the threshold."""

    count: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known from before: whether it is `remembered` as open, now or lately.

    `patient`: too few requests are no end yet. `cause_over`: it failed with a check, which is
    well again.
    """

    remembered: bool = False
    patient: bool = False
    cause_over: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is so; `kept` where nothing was seen by which it would begin, or be over."""

    status: Status
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    kept: bool = False


def verdict(window: TrafficWindow, latest: Minute, settings: Settings, known: Known) -> Verdict:
    """What is so with the last five minutes, of which `latest` is the end."""
    result = judge_traffic(
        window,
        error_rate_percent=settings.error_rate_percent,
        response_time_ms=settings.response_time_ms,
        minimum_requests=settings.minimum_requests,
    )
    is_few = window.count < settings.minimum_requests
    if result.status > Status.HEALTHY or (known.remembered and not is_few):
        if _is_over(latest, settings, known):
            return _over(latest, result.details)
        if result.status <= Status.HEALTHY and _lingers(window, settings):
            return Verdict(Status.SKIPPED, result.message, result.details, kept=True)
    elif known.remembered:
        return _too_few(window, settings, known)
    return Verdict(result.status, result.message, result.details)


def _is_over(latest: Minute, settings: Settings, known: Known) -> bool:
    """Whether the last minute alone shows that it is over: many requests, and hardly a bad one.

    By chance what fails may look well for a while, and nobody should be told of that. Where its
    cause is over, a minute without a bad request is enough.
    """
    if known.cause_over and not latest.errors and not latest.slow:
        return True
    bearable = CLEAR_SHARE * settings.error_rate_percent
    return (
        latest.count >= CLEAR_TIMES * settings.minimum_requests
        and 100 * latest.errors <= bearable * latest.count
        and 100 * latest.slow <= CLEAR_SHARE * SLOW_PERCENT * latest.timed
    )


def _over(latest: Minute, details: Mapping[str, Any]) -> Verdict:
    if not latest.count:
        return Verdict(Status.SKIPPED, NO_REQUESTS)
    summary = f"{latest.errors:,} of {latest.count:,} requests in the last minute failed"
    return Verdict(Status.HEALTHY, summary, details)


def _lingers(window: TrafficWindow, settings: Settings) -> bool:
    """Whether it is not so well that what is open would be over."""
    many = window.error_percent > CLOSE_ERRORS * settings.error_rate_percent
    slow = window.p95_ms is not None and window.p95_ms > CLOSE_LATENCY * settings.response_time_ms
    return many or slow


def _too_few(window: TrafficWindow, settings: Settings, known: Known) -> Verdict:
    if known.patient or _lingers(window, settings):
        return Verdict(Status.SKIPPED, kept=True)
    if not window.count:
        return Verdict(Status.SKIPPED, NO_REQUESTS)
    return Verdict(Status.HEALTHY, f"of {window.count:,} requests in 5 min none failed")
