"""Rounds of checks on a virtual clock: what was seen goes in, what a reader gets comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from holistic_asgi_monitor.alerts.incidents import Incidents, Observation, Policy
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import Alert, Status

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ROUND = 30.0
CHANNEL = "slack"

STATUSES = {
    ".": Status.HEALTHY,
    "d": Status.DEGRADED,
    "u": Status.UNHEALTHY,
    "c": Status.CRITICAL,
    "?": Status.UNKNOWN,
    "s": Status.SKIPPED,
}


def seen(key: str, mark: str, **more: object) -> Observation:
    """What one round saw of `key`: a letter of `STATUSES`."""
    status = STATUSES[mark]
    summary = "fine" if mark == "." else f"{key} shows {status.value}"
    return Observation(key, status, summary, **more)  # type: ignore[arg-type]  # as in Observation


class Reader:
    """Somebody who gets what one channel delivers, and what the reader then knows."""

    def __init__(
        self, policy: Policy | None = None, *, up: Callable[[float], bool] = lambda _: True
    ) -> None:
        self.incidents = Incidents(policy or Policy(), [CHANNEL])
        self.messages: list[tuple[float, list[Alert]]] = []
        self._up = up

    def round(self, now: float, observations: Iterable[Observation]) -> None:
        """One round, and one try to deliver where something is wanted."""
        self.incidents.observe(observations, now, NOON + timedelta(seconds=now))
        drafts = self.incidents.wanted(CHANNEL, now)
        if drafts and self._up(now):
            self.messages.append((now, [alert_of(draft) for draft in drafts]))
            self.incidents.delivered(CHANNEL, drafts, now)

    def rounds(self, marks: str | Mapping[str, str], start: float = 0.0) -> None:
        """Many rounds, one letter for each, for one key `db` or for several."""
        by_key = {"db": marks} if isinstance(marks, str) else marks
        for number in range(max(map(len, by_key.values()))):
            letters = {key: row[number : number + 1] for key, row in by_key.items()}
            observations = [seen(key, letter) for key, letter in letters.items() if letter.strip()]
            self.round(start + number * ROUND, observations)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts in the order in which they came."""
        return [alert for _, alerts in self.messages for alert in alerts]

    @property
    def reasons(self) -> list[str]:
        """Why each alert was sent."""
        return [alert.reason for alert in self.alerts]
