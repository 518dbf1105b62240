"""The decision what to say of an incident, and why: what is known against what was told.

Pure: observations and the time go in, reasons come out. Whether something is bad for long enough
is the same for everyone; what was told is each channel's own, and only what was delivered counts.
`now` is in monotonic seconds and decides; `time` is the UTC time and is for the words.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Any

from holistic_asgi_monitor.model import Severity, Status

__all__ = ("Incidents", "Kind", "Observation", "Policy", "Reason", "Told", "Wanted", "decide")

_SEVERITIES = {
    Status.UNKNOWN: Severity.WARNING,
    Status.DEGRADED: Severity.WARNING,
    Status.UNHEALTHY: Severity.ERROR,
    Status.CRITICAL: Severity.CRITICAL,
}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check saw in one round."""

    key: str
    status: Status
    summary: str = ""
    required: bool = False
    depends_on: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @property
    def bad(self) -> bool:
        """Whether this is no good news."""
        return self.status > Status.HEALTHY


@dataclass(frozen=True, slots=True)
class Policy:
    """When to speak; times in seconds.

    An incident opens after `failures` bad rounds in a row, or `ratio[0]` of the last `ratio[1]`,
    and ends after `successes` good ones. Reminders come after 1x, 4x and 16x of `cooldown`, then
    every 16x. `flap_incidents` within `flap_window` are flapping, until `flap_quiet` without a
    change. In the first `grace` a check that has never been well opens nothing.
    """

    failures: int = 2
    successes: int = 2
    ratio: tuple[int, int] = (5, 10)
    cooldown: float = 900.0
    grace: float = 60.0
    flap_incidents: int = 3
    flap_window: float = 3600.0
    flap_quiet: float = 900.0

    def patience(self, reminders: int) -> float:
        """How long to wait for the next reminder when there have been so many."""
        return self.cooldown * (1, 4, 16)[min(reminders, 2)]


class Kind(Enum):
    """What there is to know of one key."""

    OK = "ok"
    FIRING = "firing"
    FLAPPING = "flapping"


class Reason(Enum):
    """Why a message is sent."""

    FIRE = "fire"
    ESCALATE = "escalate"
    REMIND = "remind"
    FLAPPING = "flapping"
    CLEAR = "clear"
    WAS_DOWN = "was_down"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What should be known of one key: its state, and its last incident, the `number`th."""

    key: str
    kind: Kind = Kind.OK
    number: int = 0
    severity: Severity = Severity.WARNING
    status: Status = Status.HEALTHY
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    since: datetime | None = None
    ended: datetime | None = None
    inhibited: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What one channel's reader believes of one key; `at` is when that was delivered."""

    kind: Kind = Kind.OK
    number: int = 0
    severity: Severity = Severity.INFO
    at: float = 0.0
    reminders: int = 0

    def after(self, wanted: Wanted, reason: Reason, now: float) -> Told:
        """What is believed once a message has been delivered."""
        reminded = self.reminders + 1 if reason is Reason.REMIND else 0
        worst = max(self.severity, wanted.severity) if reason is Reason.REMIND else wanted.severity
        return Told(wanted.kind, wanted.number, worst, now, reminded)


def decide(wanted: Wanted, told: Told, now: float, policy: Policy) -> Reason | None:
    """Why to speak now, or None where the reader knows what there is to know."""
    reason = _difference(wanted, told)
    if reason is None and wanted.kind is not Kind.OK:
        due = now - told.at >= policy.patience(told.reminders)
        reason = Reason.REMIND if due else None
    # While what it depends on burns, only an end is worth saying.
    return None if wanted.inhibited and reason is not Reason.CLEAR else reason


def _difference(wanted: Wanted, told: Told) -> Reason | None:
    if wanted.kind is Kind.OK:
        if told.kind is not Kind.OK:
            return Reason.CLEAR
        return Reason.WAS_DOWN if wanted.number > told.number else None
    if wanted.kind is not told.kind:
        return Reason.FLAPPING if wanted.kind is Kind.FLAPPING else Reason.FIRE
    if wanted.kind is Kind.FIRING and wanted.severity > told.severity:
        return Reason.ESCALATE
    return None


class Incidents:
    """What should be known of every key; `born` is when watching began, in monotonic seconds."""

    def __init__(self, policy: Policy, born: float) -> None:
        self.policy = policy
        self._born = born
        self._cases: dict[str, _Case] = {}

    def observe(self, observations: Iterable[Observation], *, now: float, time: datetime) -> None:
        """Take in what a round saw; what was skipped says nothing."""
        for observation in observations:
            if observation.status is Status.SKIPPED:
                continue
            case = self._cases.get(observation.key)
            if case is None:
                case = self._cases[observation.key] = _Case(observation.key, self.policy)
            case.step(observation, now=now, time=time, sheltered=self._sheltered(case, now))

    def wanted(self) -> list[Wanted]:
        """What should be known now, children marked while something they depend on burns."""
        return [
            replace(case.wanted(), inhibited=self._inhibited(case.depends_on))
            for case in self._cases.values()
        ]

    def _sheltered(self, case: _Case, now: float) -> bool:
        return not case.ever_well and now - self._born < self.policy.grace

    def _inhibited(self, parents: Sequence[str]) -> bool:
        cases = (self._cases.get(parent) for parent in parents)
        return any(case is not None and case.firing for case in cases)


class _Case:
    """One key's history, as long as the policy needs it."""

    def __init__(self, key: str, policy: Policy) -> None:
        self.key = key
        self.depends_on: tuple[str, ...] = ()
        self.ever_well = False
        self.firing = False
        self._policy = policy
        self._window: deque[bool] = deque(maxlen=policy.ratio[1])
        self._bad = self._good = 0
        self._by_ratio = False
        self._flapping = False
        self._opened: deque[float] = deque()
        self._changed = float("-inf")
        self._first_bad: datetime | None = None
        self._last = Wanted(key)

    def step(
        self, observation: Observation, *, now: float, time: datetime, sheltered: bool
    ) -> None:
        """Take in one observation."""
        self.depends_on = observation.depends_on
        self.ever_well = self.ever_well or not observation.bad
        self._count(bad=observation.bad, time=time)
        if not self.firing:
            if observation.bad and self._over() and not sheltered:
                self._open(observation, now)
        elif observation.bad:
            self._go_on(observation)
        elif self._good >= self._policy.successes and not self._held_by_ratio():
            self._close(now, time)
        self._mind_flapping(now)

    def wanted(self) -> Wanted:
        """What should be known of this key."""
        if self._flapping:
            return replace(self._last, kind=Kind.FLAPPING)
        return replace(self._last, kind=Kind.FIRING if self.firing else Kind.OK)

    def _count(self, *, bad: bool, time: datetime) -> None:
        if bad and not any(self._window):
            self._first_bad = time
        self._window.append(bad)
        self._bad = self._bad + 1 if bad else 0
        self._good = 0 if bad else self._good + 1

    def _over(self) -> bool:
        return self._bad >= self._policy.failures or sum(self._window) >= self._policy.ratio[0]

    def _held_by_ratio(self) -> bool:
        """Whether the rule that opened the incident still holds it open."""
        return self._by_ratio and sum(self._window) >= self._policy.ratio[0]

    def _open(self, observation: Observation, now: float) -> None:
        self.firing = True
        self._by_ratio = self._bad < self._policy.failures
        self._changed = now
        self._opened.append(now)
        self._last = Wanted(
            self.key,
            number=self._last.number + 1,
            severity=_SEVERITIES[observation.status],
            status=observation.status,
            summary=observation.summary,
            details=observation.details,
            since=self._first_bad,
        )

    def _go_on(self, observation: Observation) -> None:
        # The worst it has been: a mere step down is no news, and a step back up no new alarm.
        self._last = replace(
            self._last,
            severity=max(self._last.severity, _SEVERITIES[observation.status]),
            status=observation.status,
            summary=observation.summary,
            details=observation.details,
        )

    def _close(self, now: float, time: datetime) -> None:
        self.firing = False
        self._changed = now
        self._window.clear()
        self._last = replace(self._last, ended=time)

    def _mind_flapping(self, now: float) -> None:
        while self._opened and now - self._opened[0] > self._policy.flap_window:
            self._opened.popleft()
        if len(self._opened) >= self._policy.flap_incidents:
            self._flapping = True
        if self._flapping and now - self._changed >= self._policy.flap_quiet:
            self._flapping = False
            # Else the next incident alone would be flapping again.
            self._opened.clear()
