"""Which checks may be why traffic fails, of an endpoint or the whole: one cause, one message.

Pure: results and observations go in, with the time in monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.model import CheckResult, Status

__all__ = ("Causes",)

CAUSE_SECONDS = 300.0


class Causes:
    """Remembers which checks failed when an endpoint, or the whole, began to fail.

    One that began at most five minutes before it is a cause. While it is in trouble and at least
    as grave, that gives no alarm of its own.
    """

    def __init__(self) -> None:
        self._troubled: dict[str, tuple[float, Status]] = {}
        self._of: dict[str, frozenset[str]] = {}
        self._bad: frozenset[str] = frozenset()

    def note(self, results: Mapping[str, CheckResult], now: float) -> None:
        """Take in what checks saw."""
        for name, result in results.items():
            since, _ = self._troubled.pop(name, (now, result.status))
            if result.status > Status.HEALTHY:
                self._troubled[name] = (since, result.status)

    def are_over(self, key: str) -> bool:
        """Whether there were causes, and all of them are well again."""
        causes = self._of.get(key)
        return bool(causes) and not any(name in self._troubled for name in causes or ())

    def given(self, observations: Sequence[Observation], now: float) -> list[Observation]:
        """The observations of the traffic, each with what it depends on by its causes."""
        self._of = {each.key: self._causes(each, now) for each in observations}
        self._bad = frozenset(each.key for each in observations if each.severity is not None)
        return [
            replace(each, depends_on=(*each.depends_on, *self._above(each)))
            for each in observations
        ]

    def _causes(self, observation: Observation, now: float) -> frozenset[str]:
        known = self._of.get(observation.key, frozenset())
        if observation.severity is None or observation.key in self._bad:
            return known
        fresh = {
            name for name, (since, _) in self._troubled.items() if now - since <= CAUSE_SECONDS
        }
        return frozenset(fresh | (known & self._troubled.keys()))

    def _above(self, observation: Observation) -> list[str]:
        """The causes that may speak for it: what is milder must not hide what is worse."""
        # One that is well again is kept, since what depends on it may take a moment longer.
        return [
            name
            for name in sorted(self._of[observation.key])
            if name not in self._troubled or self._troubled[name][1] >= observation.status
        ]
