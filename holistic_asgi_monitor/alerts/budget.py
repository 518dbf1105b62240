"""Objectives, and how fast their error budget burns, over two windows at a time.

Pure: the counts of windows go in. The long window says that it matters, the short one that it still
goes on. What a process has not seen of a long window is taken for good, at the pace of what it has
seen: a deployment forgets what was before, and must not be judged by its first minutes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.model import Status

__all__ = ("MINIMUM_BAD", "RULES", "Burn", "Objective", "Rule", "Spent", "burning", "judged")

MINIMUM_BAD = 5
"""Fewer bad requests than this in the long window are no alarm, whatever their share."""

HALF = 0.5
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Rule:
    """Two windows in seconds, how many times too fast the budget must burn in both, and how bad."""

    long: float
    short: float
    factor: float
    status: Status


RULES = (
    Rule(HOUR, HOUR / 12, 14.4, Status.CRITICAL),
    Rule(6 * HOUR, HOUR / 2, 6.0, Status.UNHEALTHY),
    Rule(24 * HOUR, 2 * HOUR, 3.0, Status.DEGRADED),
)
"""The gravest first: 2 %, 5 % and 10 % of a month's budget."""

_NOW = min(rule.short for rule in RULES)


@dataclass(frozen=True, slots=True)
class Spent:
    """A window: `bad` of `count` requests, of the `seconds` that were really seen."""

    seconds: float
    count: int
    bad: int

    @property
    def share(self) -> float:
        """The bad ones among the requests, 0 to 1."""
        return self.bad / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Objective:
    """What is promised: `percent` of the requests are good.

    `key` names its incident, `budget` what it is a budget of; a bad request `failed`, in words.
    """

    key: str
    percent: float
    budget: str
    failed: str

    @property
    def allowed(self) -> float:
        """The share of requests that may be bad, 0 to 1."""
        return 1 - self.percent / 100


@dataclass(frozen=True, slots=True)
class Burn:
    """A rule that fires, and the long window that it fires for.

    Where that has not been seen long enough to be `sure` of it, the rule does not fire, but the
    short window looks as if it should.
    """

    rule: Rule
    spent: Spent
    sure: bool


Read = Callable[[float], Spent]
"""The window of so many seconds."""


def burning(objective: Objective, read: Read, *, known: bool = False) -> Burn | None:
    """The gravest rule that fires, else one that may, or None.

    Of one that is `known` to burn each rule may, as long as its long window has not been seen.
    """
    found = [
        burn for rule in RULES if (burn := _burn(rule, objective, read, known=known)) is not None
    ]
    return next((burn for burn in found if burn.sure), found[0] if found else None)


def _threshold(rule: Rule, objective: Objective) -> float:
    # Where much may fail, no factor of it can be reached: half is too much for any promise.
    return min(rule.factor * objective.allowed, HALF)


def _burn(rule: Rule, objective: Objective, read: Read, *, known: bool) -> Burn | None:
    long, short = read(rule.long), read(rule.short)
    threshold = _threshold(rule, objective)
    if long.bad < MINIMUM_BAD or short.share <= threshold:
        return None
    if _share_of_all(long, rule.long) > threshold:
        return Burn(rule, long, sure=True)
    # Of the slow rules nobody need know for hours, which an all-clear cannot wait for, unless it
    # would be a false one.
    matters = rule.status > Status.DEGRADED or (known and read(_NOW).share > threshold)
    unseen = long.seconds < rule.long and matters
    return Burn(rule, long, sure=False) if unseen else None


def judged(objective: Objective, read: Read, *, known: bool = False) -> Observation | None:
    """What is so with an objective now; None where too little has been seen to tell.

    One of which something is `known` from before is kept as it is instead, and so it is when
    the last minutes are well while the longer windows still have in them what was.
    """
    burn = burning(objective, read, known=known)
    if burn is None and _is_settled(read):
        summary = f"{_of(objective, read(HOUR), HOUR)}: {objective.budget} lasts"
        return Observation(objective.key, Status.HEALTHY, summary, details=_details(objective))
    if burn is None or not burn.sure:
        return _kept(objective) if known else None
    if known and read(_NOW).share <= _threshold(burn.rule, objective):
        return _kept(objective)
    return _alarm(objective, burn)


def _kept(objective: Objective) -> Observation:
    return Observation(objective.key, Status.SKIPPED, kept=True)


def _alarm(objective: Objective, burn: Burn) -> Observation:
    pace = burn.spent.share / objective.allowed
    return Observation(
        objective.key,
        burn.rule.status,
        f"{objective.budget} is burning {_times(pace)} too fast: "
        f"{_of(objective, burn.spent, burn.rule.long)}",
        details=_details(objective, burn),
    )


def _is_settled(read: Read) -> bool:
    """Whether the shortest window has been seen: before, silence is no good news."""
    return read(_NOW).seconds >= _NOW


def _share_of_all(spent: Spent, seconds: float) -> float:
    """The bad share of the whole window, if what was not seen of it was as busy, and well."""
    return spent.share * min(1.0, spent.seconds / seconds)


def _details(objective: Objective, burn: Burn | None = None) -> dict[str, float]:
    details = {"objective_percent": objective.percent}
    if burn is not None:
        details |= {
            "count": burn.spent.count,
            "bad": burn.spent.bad,
            "bad_percent": round(100 * burn.spent.share, 3),
            "burn_rate": round(burn.spent.share / objective.allowed, 1),
        }
    return details


def _of(objective: Objective, spent: Spent, seconds: float) -> str:
    share = f"{100 * spent.share:.3g} % of {spent.count:,} requests"
    return f"{share} {objective.failed} in the last {_lasting(min(spent.seconds, seconds))}"


def _times(pace: float) -> str:
    return f"{pace:,.0f} times" if pace >= 10 else f"{pace:.2g} times"


def _lasting(seconds: float) -> str:
    """A length of time as one says it."""
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{max(1, minutes)} min"
    hours = round(minutes / 60)
    return "hour" if hours == 1 else f"{hours} h"
