"""Which endpoints suffer: whose errors or latency rose most, in words for an alarm.

Pure: numbers of the last five minutes and of the hour before go in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ("MOST_NAMED", "Pain", "suffering")

MOST_NAMED = 5
FEWEST_REQUESTS = 5
RISEN_PERCENT = 1.0
RISEN_TIMES = 1.5
RISEN_MS = 10.0


@dataclass(frozen=True, slots=True)
class Pain:
    """One endpoint now and before: requests, errors per hundred of them, p95 in milliseconds.

    What was not seen has no requests and a p95 of None.
    """

    name: str
    count: int
    error_percent: float
    p95_ms: float | None
    count_before: int = 0
    error_percent_before: float = 0.0
    p95_ms_before: float | None = None

    @property
    def more_errors(self) -> float:
        """By how many points of a hundred the errors rose; 0 where that is not worth a word."""
        risen = self.error_percent - self.error_percent_before
        return risen if self.count >= FEWEST_REQUESTS and risen >= RISEN_PERCENT else 0.0

    @property
    def slower(self) -> float:
        """How many times as long the requests take; 0 where that is not worth a word."""
        now, before = self.p95_ms, self.p95_ms_before
        if not now or not before or min(self.count, self.count_before) < FEWEST_REQUESTS:
            return 0.0
        risen = now >= RISEN_TIMES * before and now - before >= RISEN_MS
        return now / before if risen else 0.0

    def __str__(self) -> str:
        said = [f"{self.name} {self._errors()}"] if self.more_errors else []
        if self.slower:
            said.append(f"{'' if said else self.name + ' '}{self._latency()}")
        return ", ".join(said) or self.name

    def _errors(self) -> str:
        return f"{self.error_percent:.3g} % failed (was {self.error_percent_before:.2g} %)"

    def _latency(self) -> str:
        return f"p95 {self.p95_ms:,.0f} ms (was {self.p95_ms_before:,.0f} ms)"


def suffering(pains: Iterable[Pain]) -> list[str]:
    """The endpoints that suffer most, at most five, the worst first, with their numbers."""
    risen = [pain for pain in pains if pain.more_errors or pain.slower]
    risen.sort(key=lambda pain: (-pain.more_errors, -pain.slower, -pain.count, pain.name))
    return [str(pain) for pain in risen[:MOST_NAMED]]
