"""What is deleted by its age, and by which clock: one that is far ahead must not delete it all."""

from __future__ import annotations

from dataclasses import dataclass

from holistic_asgi_monitor.history.tiers import BATCH_DAYS, CLAIM_DAYS, DAY, EVENT_DAYS, HOUR

__all__ = ("AGEING", "Retention")

AGEING = (
    ("batches", "written", BATCH_DAYS),
    ("runs", "written", BATCH_DAYS),
    ("claims", "written", CLAIM_DAYS),
    ("events", "time", EVENT_DAYS),
)
"""Tables whose rows go by their age alone: the column of their time, and the days they stay."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is known of the clocks: UTC epoch seconds.

    `sure` is the last time that was believed. A time that is more than an hour later is not,
    until the steps after it have gone on from there for a day: `doubted` is the last of them (0:
    none), `passed` how many seconds went by in them. A gap between two steps counts as an hour.
    """

    sure: int
    doubted: int = 0
    passed: int = 0

    def after(self, now: int) -> Retention:
        """What is known after a step of upkeep at the time `now`."""
        if now <= self.sure + HOUR:
            return Retention(now)
        if not self.doubted - HOUR <= now:
            return Retention(self.sure, now)
        step = min(max(0, now - self.doubted), HOUR) if self.doubted else 0
        passed = self.passed + step
        return Retention(now) if passed >= DAY else Retention(self.sure, now, passed)

    @property
    def believed(self) -> bool:
        """Whether the time of the last step may be gone by."""
        return not self.doubted
