"""Which numbers are kept how long, and which of them answer a question.

Every number is written into the finest tier and a little later added to all the others, once. So
each tier by itself holds everything within its time, and one tier answers a question: there is no
seam inside an answer at which something could be missing or counted twice. Days are UTC days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from holistic_asgi_monitor.history.store import Query

__all__ = (
    "FINEST",
    "ROLLED",
    "TIERS",
    "WINDOW",
    "WINDOWS_AT_ONCE",
    "Plan",
    "Tier",
    "expired_before",
    "plan",
    "ripe_before",
)

MINUTE, HOUR, DAY = 60, 3600, 86_400
GRACE_SECONDS = 90
"""How long after its end a window is left alone, so that few rows come late."""
SLACK_SECONDS = HOUR
"""How much longer everything is kept, so that a question for just that long is answered."""
USER_DAYS = 35
"""How long it is known who was there, today included; later only how many."""
MOST_USERS_A_DAY = 1_000_000
"""Of a service or a feature; those who come later on such a day are left out."""
BATCH_DAYS = 14
CLAIM_DAYS = 90
EVENT_DAYS = 730


@dataclass(frozen=True, slots=True)
class Tier:
    """Values of `step` seconds each, kept for `kept` seconds."""

    step: int
    kept: int

    def floor(self, time: float) -> int:
        """The start of the window that `time` is in."""
        return int(time // self.step) * self.step


TIERS = (
    Tier(MINUTE, 48 * HOUR),
    Tier(5 * MINUTE, 14 * DAY),
    Tier(HOUR, 90 * DAY),
    Tier(DAY, 730 * DAY),
)
FINEST, *_ROLLED = TIERS
ROLLED = tuple(_ROLLED)
WINDOW = ROLLED[0].step
"""The windows in which the finest tier is rolled up."""
WINDOWS_AT_ONCE = 24
"""How many windows one step of upkeep rolls up at most; the next step goes on."""
STRETCHES = 12
"""A single stretch is made of at least that many values, where they are kept that long."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The tier that answers, and the range and step in force, all whole windows of it."""

    tier: Tier
    start: int
    end: int
    step: int

    def stretch(self, time: int) -> int:
        """The start of the stretch of the answer that a value belongs to."""
        if self.step >= self.end - self.start:
            return self.start
        return time // self.step * self.step


def plan(query: Query, now: float, floors: Mapping[int, int] | None = None) -> Plan:
    """How a query is answered at the time `now`.

    The coarsest tier that is fine enough, or else the finest that still goes back far enough.
    `floors` tell for the steps of tiers from where on they are whole, where the cap on the size
    has taken more than the time.
    """
    laid_out = [_laid_out(query, tier) for tier in TIERS]
    if query.instance is not None:
        # Only the finest tier knows who wrote what.
        return laid_out[0]
    reaching = [
        each for each in laid_out if _whole_from(each.tier, now, floors or {}) <= each.start
    ]
    return _coarsest_fine_enough(query, reaching) if reaching else laid_out[-1]


def _whole_from(tier: Tier, now: float, floors: Mapping[int, int]) -> float:
    return max(now - tier.kept - SLACK_SECONDS, floors.get(tier.step, 0))


def _coarsest_fine_enough(query: Query, plans: list[Plan]) -> Plan:
    """The last of the plans, finest first, that is fine enough; else the first."""
    if query.step is None:
        longest = (query.end - query.start) // STRETCHES
        enough = [each for each in plans if each.tier.step <= longest]
    else:
        enough = [each for each in plans if query.step % each.tier.step == 0]
    return enough[-1] if enough else plans[0]


def _laid_out(query: Query, tier: Tier) -> Plan:
    step = query.step or tier.step
    step = -(-step // tier.step) * tier.step
    start = query.start // step * step
    end = max(start + step, -(-query.end // step) * step)
    return Plan(tier, start, end, step if query.step is not None else end - start)


def ripe_before(now: float) -> int:
    """The windows that begin before this are over and may be rolled up."""
    return ROLLED[0].floor(now - GRACE_SECONDS)


def expired_before(tier: Tier, now: float) -> int:
    """Values before this are too old for the tier."""
    return tier.floor(now - tier.kept - SLACK_SECONDS)
