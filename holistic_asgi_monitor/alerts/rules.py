"""What is seen beside the checks: single endpoints, certificates, the objectives of the settings.

Pure: numbers and results go in, observations come out, which `condition` makes incidents of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from holistic_asgi_monitor.alerts.budget import Objective
from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.checks.traffic import TrafficWindow, judge_traffic
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.settings import Settings

__all__ = (
    "TRAFFIC",
    "EndpointTraffic",
    "Minute",
    "certificates",
    "endpoints",
    "explained",
    "key_of",
    "objectives",
)

TRAFFIC = "traffic"
MOST_WORST = 20
MOST_KEYS = 100
"""How many endpoints may be remembered at a time: they must leave room for the checks."""

WARNING_DAYS = 14
URGENT_DAYS = 3
LATENCY_PERCENT = 99.0
CLEAR_TIMES = 5
CLEAR_SHARE = 0.25
SLOW_PERCENT = 5.0
_WHOLE_DAYS = "certificate_days_left"
_EXPIRES = "certificate_expires_at"


@dataclass(frozen=True, slots=True)
class Minute:
    """The last minute of an endpoint: `slow` of the `timed` requests were above the threshold."""

    count: int = 0
    errors: int = 0
    timed: int = 0
    slow: int = 0


@dataclass(frozen=True, slots=True)
class EndpointTraffic:
    """One endpoint, method and template in its `name`: its last five minutes, and the last one.

    `cause_over` says that it failed with a check, which is well again.
    """

    name: str
    window: TrafficWindow
    latest: Minute = field(default_factory=Minute)
    cause_over: bool = False


def key_of(name: str) -> str:
    """The key of an endpoint's incident."""
    return f"{TRAFFIC} {name}"


def endpoints(
    seen: Sequence[EndpointTraffic],
    remembered: Collection[str],
    settings: Settings,
    *,
    settled: bool,
) -> list[Observation]:
    """What is so with single endpoints, by the thresholds of the check `traffic`.

    `remembered` are the keys of which something is open: they are observed until it is over, and
    others where they are among the worst, so that there are at most 20 bad ones at a time. Silence
    of a remembered one is good news only once five minutes have been seen, which is `settled`.
    What is clearly over for a minute is over, though the five minutes still have it in them.
    """
    judged = {key_of(each.name): (_judged(each, settings), each.window) for each in seen}
    known = [
        _observed(key, judged[key][0])
        for key in remembered
        if key in judged and (settled or judged[key][1].count >= settings.minimum_requests)
    ]
    known += [_silent(key) for key in remembered if settled and key not in judged]
    bad = [key for key, (result, _) in judged.items() if result.status > Status.HEALTHY]
    bad.sort(key=lambda key: _gravity(key, *judged[key]), reverse=True)
    room = min(
        MOST_WORST - sum(each.severity is not None for each in known), MOST_KEYS - len(remembered)
    )
    fresh = [key for key in bad if key not in remembered][: max(0, room)]
    return known + [_observed(key, judged[key][0]) for key in fresh]


def _judged(each: EndpointTraffic, settings: Settings) -> CheckResult:
    result = judge_traffic(
        each.window,
        error_rate_percent=settings.error_rate_percent,
        response_time_ms=settings.response_time_ms,
        minimum_requests=settings.minimum_requests,
    )
    if result.status > Status.HEALTHY and _is_over(each, settings):
        latest = each.latest
        summary = f"{latest.errors:,} of {latest.count:,} requests in the last minute failed"
        return replace(result, status=Status.HEALTHY, message=summary)
    return result


def _is_over(each: EndpointTraffic, settings: Settings) -> bool:
    """Whether the last minute alone shows that it is over: many requests, and hardly a bad one.

    By chance a failing endpoint may look well for a while, and nobody should be told of that. Where
    its cause is over, a minute without a bad request is enough.
    """
    latest = each.latest
    if each.cause_over and not latest.errors and not latest.slow:
        return True
    bearable = CLEAR_SHARE * settings.error_rate_percent
    return (
        latest.count >= CLEAR_TIMES * settings.minimum_requests
        and 100 * latest.errors <= bearable * latest.count
        and 100 * latest.slow <= CLEAR_SHARE * SLOW_PERCENT * latest.timed
    )


def _gravity(key: str, result: CheckResult, window: TrafficWindow) -> tuple[object, ...]:
    """The order of the worst: how bad, then for how many; the name, so that it is always one."""
    return result.status.gravity, window.errors, window.p95_ms or 0.0, key


def _observed(key: str, result: CheckResult) -> Observation:
    return Observation(
        key, result.status, result.message, depends_on=(TRAFFIC,), details=result.details
    )


def _silent(key: str) -> Observation:
    return Observation(key, Status.HEALTHY, "too few requests to judge", depends_on=(TRAFFIC,))


def certificates(results: Mapping[str, CheckResult]) -> Iterator[Observation]:
    """What is so with the certificates that checks saw: bad news below 14 days and below 3."""
    for name, result in results.items():
        days = result.details.get(_WHOLE_DAYS)
        if not isinstance(days, int):
            continue
        expires = str(result.details.get(_EXPIRES, ""))
        yield Observation(
            f"certificate {name}",
            _certificate_status(days),
            f"the certificate of {name} {_expiring(days)}{_on(expires)}",
            details={_EXPIRES: expires} if expires else {},
        )


def _certificate_status(days: int) -> Status:
    if days < URGENT_DAYS:
        return Status.CRITICAL
    return Status.DEGRADED if days < WARNING_DAYS else Status.HEALTHY


def _expiring(days: int) -> str:
    if days < 0:
        return "has expired"
    if days == 0:
        return "expires in less than a day"
    return f"expires in {days:,} day{'s' if days > 1 else ''}"


def _on(expires: str) -> str:
    day = expires.partition("T")[0]
    return f", on {day}" if day else ""


def objectives(settings: Settings) -> list[tuple[Objective, float | None]]:
    """What the settings promise; for latency with its threshold in milliseconds, else None.

    Latency is promised to 99 % of the requests, or to fewer where fewer are to be answered well.
    """
    promised: list[tuple[Objective, float | None]] = []
    percent, slow_ms = settings.slo_availability_percent, settings.slo_latency_ms
    if percent is not None:
        text = f"the error budget of 30 days ({percent:g} %)"
        promised.append((Objective("slo availability", percent, text, "failed"), None))
    if slow_ms is not None:
        share = min(LATENCY_PERCENT, percent or LATENCY_PERCENT)
        text = f"the latency budget of 30 days ({share:g} % within {slow_ms:,.10g} ms)"
        promised.append((Objective("slo latency", share, text, "took longer"), slow_ms))
    return promised


def explained(observation: Observation, suffering: Sequence[str]) -> Observation:
    """Bad news with the endpoints that suffer among its details."""
    if observation.severity is None or not suffering:
        return observation
    return replace(observation, details={"endpoints": list(suffering), **observation.details})
