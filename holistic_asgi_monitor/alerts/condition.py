"""What is so with one key: how many rounds were bad, whether that is an incident, whether it flaps.

Pure: observations, `now` and `time` go in. Decisions are made on `now`, monotonic seconds; `time`,
UTC, is for the words only, so that a clock that jumps changes nothing. What is so is the same for
every channel; what each was told of it is for `incidents`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

from holistic_asgi_monitor.model import Severity, Status

__all__ = (
    "NO_REQUESTS",
    "Belief",
    "Condition",
    "Incident",
    "Observation",
    "Policy",
    "abandoned",
    "burns",
    "excused",
    "kept",
    "speaking",
    "step",
)

UNTOLD_INCIDENTS = 10
NO_REQUESTS = "no requests any more"
"""The summary of an end of which nothing good was seen either."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_SEVERITY = {
    Status.UNKNOWN: Severity.WARNING,
    Status.DEGRADED: Severity.WARNING,
    Status.UNHEALTHY: Severity.ERROR,
    Status.CRITICAL: Severity.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What one round saw of one key; `summary` is one safe sentence, `details` JSON values.

    `depends_on` names the keys without which this one cannot be well: while one of them burns,
    this one gives no alarm. `kept`: nothing was seen by which it would begin, or be over; an
    incident that goes on takes over `summary` and `details` where there is a summary.
    """

    key: str
    status: Status
    summary: str = ""
    required: bool = False
    depends_on: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    kept: bool = False

    @property
    def severity(self) -> Severity | None:
        """How urgent this is; None where it is no bad news."""
        return _SEVERITY.get(self.status)


@dataclass(frozen=True, slots=True)
class Policy:
    """When to speak; times are in seconds.

    An incident begins after `failures` bad rounds in a row, or with `ratio[0]` bad ones among the
    last `ratio[1]`; it ends after `successes` good ones in a row, and if the ratio began it, not
    before that has fallen too. `reminders` are counted from the delivery of the alarm; the last
    one repeats. `flap_incidents` within `flap_window` are told as one flapping, until nothing has
    changed for `flap_quiet`. In the first `grace` a key gives no alarm before it was well once.
    What depends on a key stays silent for `failures` more good rounds after that one's end, but
    not longer than `linger`; traffic, of which the last minute or a little more is judged, for
    `traffic_linger`, however many rounds that is. A key that nobody has observed for `forget` is
    over.
    """

    failures: int = 2
    successes: int = 2
    ratio: tuple[int, int] = (5, 10)
    reminders: tuple[float, ...] = (900.0, 3600.0, 14400.0)
    flap_incidents: int = 3
    flap_window: float = 3600.0
    flap_quiet: float = 900.0
    grace: float = 0.0
    linger: float = 60.0
    traffic_linger: float = 120.0
    forget: float = 172800.0

    @property
    def cooldown(self) -> float:
        """The shortest time between two messages of which the second one is no alarm."""
        return self.reminders[0] if self.reminders else math.inf

    def reminder(self, number: int) -> float:
        """How long after the alarm the reminder comes that has `number` others before it."""
        if not self.reminders:
            return math.inf
        further = max(0, number - len(self.reminders) + 1)
        return self.reminders[min(number, len(self.reminders) - 1)] + further * self.reminders[-1]


class Belief(Enum):
    """What somebody takes to be so with a key."""

    CALM = "calm"
    FIRING = "firing"
    FLAPPING = "flapping"


@dataclass(frozen=True, slots=True)
class Incident:
    """One time of trouble with one key: how bad it is now (or was at its end), and since when.

    `serial` counts the incidents of the key. `by_ratio` says which rule began it, `silent` that
    it has been kept back ever since. One that stands for several has their number in `times`.
    `worst` is the worst of it, with `worst_summary`; None where that is what it is now.
    """

    serial: int
    started_at: datetime
    ended_at: datetime | None = None
    severity: Severity = Severity.WARNING
    status: Status = Status.UNKNOWN
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    by_ratio: bool = False
    silent: bool = True
    times: int = 1
    worst: Status | None = None
    worst_summary: str = ""

    def seeing(self, observation: Observation) -> Incident:
        """The incident as `observation` shows it, which is bad news."""
        assert observation.severity is not None
        worst, its_summary = self.worst, self.worst_summary
        if worst is None:
            worst, its_summary = self.status, self.summary
        is_worst = observation.severity >= _SEVERITY[worst]
        return replace(
            self,
            worst=observation.status if is_worst else worst,
            worst_summary=observation.summary if is_worst else its_summary,
            severity=observation.severity,
            status=observation.status,
            summary=observation.summary,
            details=observation.details,
        )


@dataclass(frozen=True, slots=True)
class Condition:
    """What is so with one key.

    `bad` and `good` count the rounds in a row, the current row began at `row_began`. `recent`
    holds the time of each bad round among the last ones, and None for each good one. `milder`
    counts rounds in a row that were less bad than the open incident. `ended` are the incidents
    of which a channel may not know yet, `last` is the last one that ended. `opened` says when
    the incidents of the flap window began, `changed` when the last one began or ended, `seen`
    when the key was last observed.
    """

    bad: int = 0
    good: int = 0
    row_began: datetime | None = None
    recent: tuple[datetime | None, ...] = ()
    milder: int = 0
    serial: int = 0
    open: Incident | None = None
    flapping: Incident | None = None
    ended: tuple[Incident, ...] = ()
    last: Incident | None = None
    opened: tuple[tuple[float, datetime], ...] = ()
    changed: float = -math.inf
    seen: float = -math.inf
    latest: Observation | None = None

    @property
    def belief(self) -> Belief:
        """What should be believed."""
        if self.flapping is not None:
            return Belief.FLAPPING
        return Belief.CALM if self.open is None else Belief.FIRING

    @property
    def current(self) -> Incident | None:
        """What an alarm would be about."""
        return self.flapping or self.open

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        return not (self.bad or self.current or self.ended or self.opened or any(self.recent))

    def ended_since(self, serial: int) -> tuple[Incident, ...]:
        """The incidents after the one numbered `serial` that have come and gone."""
        return tuple(incident for incident in self.ended if incident.serial > serial)


def step(
    before: Condition, observation: Observation, policy: Policy, *, now: float, time: datetime
) -> Condition:
    """What is so after one more observation."""
    counted = _counted(before, observation, policy, now=now, time=time)
    incident = counted.open
    if incident is None:
        after = _opened(counted, observation, policy, now=now)
    elif _is_over(counted, incident, policy):
        after = _closed(counted, incident, now=now)
    else:
        after = _pursued(counted, incident, observation, policy)
    return _judged_flapping(after, observation, policy, now=now)


def _counted(
    before: Condition, observation: Observation, policy: Policy, *, now: float, time: datetime
) -> Condition:
    bad = observation.severity is not None
    in_row = before.bad if bad else before.good
    window = (*before.recent, time if bad else None)[-policy.ratio[1] :]
    return replace(
        before,
        bad=before.bad + 1 if bad else 0,
        good=0 if bad else before.good + 1,
        row_began=before.row_began if in_row else time,
        recent=window,
        seen=now,
        latest=observation,
    )


def _opened(
    condition: Condition, observation: Observation, policy: Policy, *, now: float
) -> Condition:
    """The condition with an incident, if it is bad enough by one of the two rules."""
    bad_ones = [moment for moment in condition.recent if moment is not None]
    by_row = condition.bad >= policy.failures
    if observation.severity is None or not (by_row or len(bad_ones) >= policy.ratio[0]):
        return condition
    began = condition.row_began if by_row else bad_ones[0]
    assert began is not None
    flapping = condition.flapping
    return replace(
        condition,
        serial=condition.serial + 1,
        open=Incident(condition.serial + 1, began, by_ratio=not by_row).seeing(observation),
        milder=0,
        opened=(*condition.opened, (now, began)),
        changed=now,
        flapping=flapping and replace(flapping, times=flapping.times + 1),
    )


def _is_over(condition: Condition, incident: Incident, policy: Policy) -> bool:
    # The rule that began an incident ends it: the ratio would hold others open far too long.
    too_many = sum(moment is not None for moment in condition.recent) >= policy.ratio[0]
    return condition.good >= policy.successes and not (incident.by_ratio and too_many)


def _closed(condition: Condition, incident: Incident, *, now: float) -> Condition:
    over = replace(incident, ended_at=condition.row_began)
    return replace(
        condition,
        open=None,
        last=over,
        ended=condition.ended if over.silent else _bounded((*condition.ended, over)),
        # What made this incident must not make the next one.
        recent=(),
        changed=now,
    )


def _bounded(ended: tuple[Incident, ...]) -> tuple[Incident, ...]:
    """The same incidents, the two oldest as one where there are too many."""
    if len(ended) <= UNTOLD_INCIDENTS:
        return ended
    first, second, *others = ended
    both = replace(
        max(first, second, key=lambda incident: incident.severity),
        serial=second.serial,
        started_at=first.started_at,
        ended_at=second.ended_at,
        times=first.times + second.times,
    )
    return (both, *others)


def _pursued(
    condition: Condition, incident: Incident, observation: Observation, policy: Policy
) -> Condition:
    """The condition while its incident goes on: worse counts at once, better after a while."""
    severity = observation.severity
    if severity is None:
        return condition
    if severity < incident.severity:
        # No answer at all does not show that it is better.
        milder = 0 if observation.status is Status.UNKNOWN else condition.milder + 1
        if milder < policy.successes:
            return replace(condition, milder=milder)
    return replace(condition, milder=0, open=incident.seeing(observation))


def _judged_flapping(
    condition: Condition, observation: Observation, policy: Policy, *, now: float
) -> Condition:
    opened = tuple(each for each in condition.opened if now - each[0] <= policy.flap_window)
    flapping = condition.flapping
    if flapping is None:
        if condition.open is not None and 0 < policy.flap_incidents <= len(opened):
            flapping = replace(condition.open, started_at=opened[0][1], times=len(opened))
    elif now - condition.changed >= policy.flap_quiet:
        # The history goes with it, or the next incident alone would be flapping again.
        flapping, opened = None, ()
    elif observation.severity is not None and observation.severity >= flapping.severity:
        flapping = flapping.seeing(observation)
    return replace(condition, opened=opened, flapping=flapping)


def kept(before: Condition, observation: Observation, *, now: float) -> Condition:
    """What is so after a look that showed neither a beginning nor an end."""
    if before.open is None:
        return replace(before, bad=0, seen=now)
    incident = before.open
    if observation.summary:
        summary, details = observation.summary, observation.details
        incident = replace(incident, summary=summary, details=details)
    return replace(before, seen=now, latest=observation, open=incident)


def speaking(condition: Condition) -> Condition:
    """The condition with an open incident that is not kept back, or no longer."""
    if condition.open is None or not condition.open.silent:
        return condition
    flapping = condition.flapping and replace(condition.flapping, silent=False)
    return replace(condition, open=replace(condition.open, silent=False), flapping=flapping)


def excused(condition: Condition) -> Condition:
    """The condition without what planned work has done to it, but for what goes on.

    Else the rounds of a deployment would count as flapping, or in the ratio, when it is over.
    """
    return replace(condition, opened=(), recent=())


def abandoned(condition: Condition, *, now: float, time: datetime) -> Condition:
    """The condition once nobody observes the key any more: whatever there was is over."""
    latest = condition.latest
    gone = latest and replace(latest, status=Status.SKIPPED, summary="", details=_NOTHING)
    over = replace(condition, bad=0, flapping=None, opened=(), recent=(), latest=gone)
    if over.open is None:
        return over
    return _closed(replace(over, row_began=time), over.open, now=now)


def burns(condition: Condition, policy: Policy, *, now: float, for_traffic: bool = False) -> bool:
    """Whether what depends on it cannot be judged: it is in trouble, about to be, or just was."""
    if condition.current is not None or condition.bad:
        return True
    if condition.last is None:
        return False
    ended = now - condition.changed
    if for_traffic:
        return ended < policy.traffic_linger
    # What depends on it may need a round or two to find that it is back.
    return condition.good < policy.successes + policy.failures and ended < policy.linger
