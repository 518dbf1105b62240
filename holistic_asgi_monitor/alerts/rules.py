"""What is seen beside the checks: single endpoints, certificates, the objectives of the settings.

Pure: numbers and results go in, observations come out, which `condition` makes incidents of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from holistic_asgi_monitor.alerts.budget import Objective
from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.alerts.verdicts import Known, Minute, Verdict, verdict
from holistic_asgi_monitor.checks.traffic import TrafficWindow
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.settings import Settings

__all__ = (
    "TRAFFIC",
    "Asked",
    "EndpointTraffic",
    "certificates",
    "endpoints",
    "explained",
    "key_of",
    "objectives",
    "observed",
    "to_judge",
    "whole",
)

TRAFFIC = "traffic"
MOST_WORST = 20
MOST_KEYS = 100
"""How many endpoints may be remembered at a time: they must leave room for the checks."""

WARNING_DAYS = 14
URGENT_DAYS = 3
LATENCY_PERCENT = 99.0
_EMPTY = TrafficWindow(0, 0, 0, None)
_CERTIFICATE = "certificate "
_WHOLE_DAYS = "certificate_days_left"
_EXPIRES = "certificate_expires_at"


@dataclass(frozen=True, slots=True)
class EndpointTraffic:
    """One endpoint, method and template in its `name`: its last five minutes, and the last one.

    `cause_over` says that it failed with a check, which is well again.
    """

    name: str
    window: TrafficWindow = _EMPTY
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
    patient: Collection[str] = (),
) -> list[Observation]:
    """What is so with single endpoints, by the thresholds of the check `traffic`.

    With many of them that takes a while: `to_judge` and `observed` are its two ends, between which
    each is judged. `remembered` are the keys of which something is open: they are observed until
    it is over, and others where they are among the worst, so that there are at most 20 bad ones at
    a time. Silence of a remembered one says something only once five minutes have been seen, which
    is `settled`, and is its end unless it is among the `patient`. What is clearly over for a minute
    is over, though the five minutes still have it in them.
    """
    asked = to_judge(seen, remembered, settings, settled=settled, patient=patient)
    judged = {key: each.verdict(settings) for key, each in asked.items()}
    return observed(judged, asked, remembered)


@dataclass(frozen=True, slots=True)
class Asked:
    """An endpoint that is to be judged, with what is known of it from before."""

    traffic: EndpointTraffic
    known: Known

    def verdict(self, settings: Settings) -> Verdict:
        """What is so with it."""
        return verdict(self.traffic.window, self.traffic.latest, settings, self.known)


def to_judge(
    seen: Sequence[EndpointTraffic],
    remembered: Collection[str],
    settings: Settings,
    *,
    settled: bool,
    patient: Collection[str] = (),
) -> dict[str, Asked]:
    """The endpoints that can be judged, by key."""
    live = {key_of(each.name): each for each in seen}
    known = {key: live.get(key, EndpointTraffic("")) for key in remembered}
    if not settled:
        fewest = settings.minimum_requests
        live = {key: each for key, each in live.items() if each.window.count >= fewest}
        known = {key: each for key, each in known.items() if each.window.count >= fewest}
    return {
        key: Asked(each, Known(key in known, key in patient, each.cause_over))
        for key, each in {**live, **known}.items()
    }


def observed(
    judged: Mapping[str, Verdict], asked: Mapping[str, Asked], remembered: Collection[str]
) -> list[Observation]:
    """What is told of those that were judged: of the known ones, and of the worst."""
    worst = _worst(judged, {key: each.traffic for key, each in asked.items()}, remembered)
    return [
        _observed(key, judged[key], told=key in worst)
        for key, each in asked.items()
        if each.known.remembered or key in worst
    ]


def _worst(
    judged: Mapping[str, Verdict], live: Mapping[str, EndpointTraffic], remembered: Collection[str]
) -> set[str]:
    """Those of which it is told that they are bad: the gravest, of these the known ones first."""

    def gravity(key: str) -> tuple[object, ...]:
        window = live[key].window
        known = key in remembered
        return judged[key].status.gravity, known, window.errors, window.p95_ms or 0.0, key

    bad = [key for key, each in judged.items() if each.status > Status.HEALTHY]
    bad.sort(key=gravity, reverse=True)
    worst = bad[:MOST_WORST]
    fresh = [key for key in worst if key not in remembered]
    return set(worst) - set(fresh[max(0, MOST_KEYS - len(remembered)) :])


def _observed(key: str, judged: Verdict, *, told: bool) -> Observation:
    if judged.status > Status.HEALTHY and not told:
        return Observation(key, Status.SKIPPED, depends_on=(TRAFFIC,), kept=True)
    return Observation(
        key,
        judged.status,
        judged.summary,
        depends_on=(TRAFFIC,),
        details=judged.details,
        kept=judged.kept,
    )


def whole(
    observation: Observation,
    window: TrafficWindow,
    latest: Minute,
    settings: Settings,
    known: Known,
) -> Observation:
    """What the check `traffic` saw, with what alone opens and ends an incident.

    The report keeps to the thresholds; the alarm does not end at the one at which it began.
    """
    judged = verdict(window, latest, settings, known)
    if observation.status > Status.HEALTHY and judged.status > Status.HEALTHY:
        return observation
    if observation.status <= Status.HEALTHY and not known.remembered:
        return observation
    return replace(
        observation,
        status=judged.status,
        summary=judged.summary,
        details=judged.details,
        kept=judged.kept,
    )


def certificates(
    results: Mapping[str, CheckResult], remembered: Collection[str] = ()
) -> Iterator[Observation]:
    """What is so with the certificates that checks saw: bad news below 14 days and below 3.

    One that is `remembered` is kept as it is where its check saw none this time.
    """
    for name, result in results.items():
        days = result.details.get(_WHOLE_DAYS)
        if not isinstance(days, int):
            if f"{_CERTIFICATE}{name}" in remembered:
                yield Observation(f"{_CERTIFICATE}{name}", Status.SKIPPED, kept=True)
            continue
        expires = str(result.details.get(_EXPIRES, ""))
        yield Observation(
            f"{_CERTIFICATE}{name}",
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
