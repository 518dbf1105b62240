"""The outbox: has every channel told what it should know, and remembers what it was told.

A channel's slowness or failure is its own affair: each has a worker, its own account of what was
delivered, and its own waiting times. Nothing is queued: what is undelivered is worked out anew
from the incidents each time, so that the newest state wins and memory stays bounded.
"""

from __future__ import annotations

import logging
import math
import time as clocks
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio

from holistic_asgi_monitor.alerts.incidents import (
    Incidents,
    Kind,
    Observation,
    Policy,
    Reason,
    Told,
    Wanted,
    decide,
)
from holistic_asgi_monitor.model import Alert, AlertState, Notifier, Severity
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.settings import Settings

__all__ = ("Channel", "Outbox")

_logger = logging.getLogger("holistic_asgi_monitor")

SEND_SECONDS = 15.0
GAP_SECONDS = 1.0
FIRST_BACKOFF, LONGEST_BACKOFF, LONGEST_WAIT = 1.0, 60.0, 300.0
PERMANENT_SECONDS = 3600.0
NOTICES_KEPT = 50
RECENT_KEPT = 100
TITLES_KEPT = 1000

Outcome = Callable[[Severity, str], None]


@dataclass(frozen=True, slots=True)
class _Item:
    """One alert to be delivered, and what the reader knows once it is."""

    alert: Alert
    wanted: Wanted | None = None
    reason: Reason | None = None

    @property
    def identity(self) -> tuple[str, int, str]:
        """What makes it the same message when it is tried again."""
        if self.wanted is None:
            return self.alert.title, 0, "notice"
        return self.wanted.key, self.wanted.number, str(self.reason)


class Outbox:
    """Delivers alerts to all notifiers.

    `outcome` is told of every alert that was delivered, failed (each try) or suppressed. `clock`
    gives monotonic seconds.
    """

    def __init__(
        self,
        notifiers: Sequence[Notifier],
        settings: Settings,
        *,
        outcome: Outcome,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._settings = settings
        self._outcome = outcome
        self._clock = clock
        self._policy = Policy(
            failures=settings.failures_before_alert,
            successes=settings.successes_before_clear,
            cooldown=settings.alert_cooldown_minutes * 60,
            grace=settings.startup_grace_seconds,
        )
        self._incidents = Incidents(self._policy, clock())
        self._noticed: dict[str, float] = {}
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT_KEPT)
        self.channels = [Channel(notifier, self) for notifier in notifiers]

    @property
    def names(self) -> list[str]:
        """The names of the notifiers."""
        return [channel.name for channel in self.channels]

    def up(self, name: str) -> bool:
        """Whether the notifier's last delivery worked; true before the first."""
        return all(channel.up for channel in self.channels if channel.name == name)

    def post(self, observations: Sequence[Observation], *, now: float, time: datetime) -> None:
        """Take in what a round saw, and wake the channels; never waits."""
        before = {wanted.key: wanted.kind for wanted in self._incidents.wanted()}
        self._incidents.observe(observations, now=now, time=time)
        for wanted in self._incidents.wanted():
            if wanted.kind is Kind.OK and before.get(wanted.key, Kind.OK) is not Kind.OK:
                self._recent.append(_row(wanted))
        self._wake()

    def notice(
        self, severity: Severity, title: str, details: Mapping[str, Any], *, now: float
    ) -> None:
        """Have a message of the user's own delivered, each title once in a cooldown."""
        if now - self._noticed.get(title, -math.inf) < self._policy.cooldown:
            self._outcome(severity, "suppressed")
            return
        if len(self._noticed) >= TITLES_KEPT:
            del self._noticed[next(iter(self._noticed))]
        self._noticed.pop(title, None)
        self._noticed[title] = now
        alert = self._address(
            Alert(
                key=title,
                severity=severity,
                state=AlertState.NOTICE,
                title=title,
                summary="",
                started_at=datetime.now(UTC),
                details=dict(details),
                reason="notice",
            )
        )
        for channel in self.channels:
            channel.note(alert)
        self._wake()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with anyio.create_task_group() as group:
            for channel in self.channels:
                group.start_soon(channel.run)

    def as_dict(self) -> dict[str, Any]:
        """Open and recent incidents as JSON values."""
        firing = [wanted for wanted in self._incidents.wanted() if wanted.kind is not Kind.OK]
        return {"open": [_row(wanted) for wanted in firing], "recent": list(self._recent)[::-1]}

    def wanted(self) -> list[Wanted]:
        """What every reader should know."""
        return self._incidents.wanted()

    def reason(self, wanted: Wanted, told: Told, now: float) -> Reason | None:
        """Why to speak of a key now."""
        return decide(wanted, told, now, self._policy)

    def alert(self, wanted: Wanted, reason: Reason) -> Alert:
        """The message for a reason."""
        over = reason in {Reason.CLEAR, Reason.WAS_DOWN}
        return self._address(
            Alert(
                key=wanted.key,
                severity=wanted.severity,
                state=AlertState.RESOLVED if over else AlertState.FIRING,
                title=_title(wanted, reason),
                summary=wanted.summary,
                started_at=wanted.since or datetime.now(UTC),
                ended_at=wanted.ended if over else None,
                details=wanted.details,
                reason=reason.value,
            )
        )

    def tell(self, severity: Severity, outcome: str) -> None:
        """Pass an outcome on."""
        self._outcome(severity, outcome)

    def time(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    def _address(self, alert: Alert) -> Alert:
        settings = self._settings
        return replace(
            alert,
            service=settings.service,
            environment=settings.environment,
            instance=settings.instance,
            dashboard_url=settings.public_url or None,
            runbook_url=settings.runbook_url or None,
        )

    def _wake(self) -> None:
        for channel in self.channels:
            channel.wake()


class Channel:
    """One notifier's worker: what its reader was told, what is due, when to try again."""

    def __init__(self, notifier: Notifier, outbox: Outbox) -> None:
        self.name = notifier.name
        self.up = True
        self._notifier = notifier
        self._outbox = outbox
        self._told: dict[str, Told] = {}
        self._notices: deque[Alert] = deque(maxlen=NOTICES_KEPT)
        self._suppressed: dict[str, int] = {}
        self._not_before = -math.inf
        self._failures = 0
        self._refused: frozenset[tuple[str, int, str]] = frozenset()
        self._doubtful: frozenset[tuple[str, int, str]] = frozenset()
        self._woken: anyio.Event | None = None

    def note(self, alert: Alert) -> None:
        """Have a message of the user's own delivered with the next ones."""
        self._notices.append(alert)

    def wake(self) -> None:
        """Look again at what is due."""
        if self._woken is not None:
            self._woken.set()

    async def run(self) -> None:
        """Deliver what is due, until cancelled."""
        while True:
            self._woken = anyio.Event()
            now = self._outbox.time()
            items = self.due(now)
            if items:
                await self._deliver(items)
                await anyio.sleep(GAP_SECONDS)
                continue
            with anyio.move_on_after(max(0.0, self._not_before - now) or math.inf):
                await self._woken.wait()

    def due(self, now: float) -> list[_Item]:
        """What to deliver now: nothing while the channel asks for patience."""
        items = [*self._incidents_due(now), *(_Item(alert) for alert in self._notices)]
        identities = frozenset(item.identity for item in items)
        if now < self._not_before and not (self._refused and identities != self._refused):
            return []
        return items

    def delivered(self, items: Sequence[_Item], now: float) -> None:
        """Note that the reader knows."""
        self.up = True
        self._failures = 0
        self._not_before = -math.inf
        self._refused = self._doubtful = frozenset()
        for item in items:
            self._outbox.tell(item.alert.severity, "delivered")
            if item.wanted is None or item.reason is None:
                self._notices.remove(item.alert)
                continue
            before = self._told.get(item.wanted.key, Told())
            self._told[item.wanted.key] = before.after(item.wanted, item.reason, now)

    def failed(self, error: Exception, items: Sequence[_Item], now: float) -> None:
        """Note that a delivery failed, and when to try again."""
        identities = frozenset(item.identity for item in items)
        if getattr(error, "ambiguous", False):
            if identities == self._doubtful:
                # It may have arrived twice by now; a third time would be noise.
                self.delivered(items, now)
                return
            self._doubtful = identities
        self._report(error)
        self.up = False
        self._failures += 1
        permanent = bool(getattr(error, "permanent", False))
        self._refused = identities if permanent else frozenset()
        self._not_before = now + self._wait(error, permanent=permanent)
        for item in items:
            self._outbox.tell(item.alert.severity, "failed")

    async def _deliver(self, items: Sequence[_Item]) -> None:
        try:
            with anyio.fail_after(SEND_SECONDS):
                await self._notifier.send([item.alert for item in items])
        except Exception as error:
            # Whatever a notifier raises, its alerts stay wanted.
            self.failed(error, items, self._outbox.time())
        else:
            self.delivered(items, self._outbox.time())

    def _incidents_due(self, now: float) -> Iterator[_Item]:
        for wanted in self._outbox.wanted():
            told = self._told.get(wanted.key, Told())
            reason = self._outbox.reason(wanted, told, now)
            if reason is not None:
                yield _Item(self._outbox.alert(wanted, reason), wanted, reason)
            elif wanted.inhibited:
                self._suppress(wanted, told)

    def _suppress(self, wanted: Wanted, told: Told) -> None:
        """Count, once for each incident, that a child stays silent."""
        silenced = wanted.kind is not Kind.OK and told.kind is Kind.OK
        if silenced and self._suppressed.get(wanted.key) != wanted.number:
            self._suppressed[wanted.key] = wanted.number
            self._outbox.tell(wanted.severity, "suppressed")

    def _wait(self, error: Exception, *, permanent: bool) -> float:
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            return float(min(max(asked, 0.0), LONGEST_WAIT))
        if permanent:
            return PERMANENT_SECONDS
        return float(min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(self._failures - 1, 10)))

    def _report(self, error: Exception) -> None:
        if not self.up:
            return
        # Only our own errors have a text that is known to hold no secret.
        text = str(error) if isinstance(error, DeliveryError) else type(error).__name__
        _logger.error(
            "The notifier %s could not deliver (%s); its alerts stay wanted and are tried again",
            self.name,
            text,
        )


def _title(wanted: Wanted, reason: Reason) -> str:
    if reason is Reason.FLAPPING:
        return f"{wanted.key} keeps failing and recovering"
    if reason is Reason.CLEAR:
        return f"{wanted.key} is healthy again"
    if reason is Reason.WAS_DOWN:
        return f"{wanted.key} was {wanted.status.value}, and is healthy again"
    still = "still " if reason is Reason.REMIND else ""
    return f"{wanted.key} is {still}{wanted.status.value}"


def _row(wanted: Wanted) -> dict[str, Any]:
    return {
        "key": wanted.key,
        "state": wanted.kind.value,
        "severity": wanted.severity.value,
        "status": wanted.status.value,
        "summary": wanted.summary,
        "started_at": None if wanted.since is None else wanted.since.isoformat(),
        "ended_at": None if wanted.ended is None else wanted.ended.isoformat(),
    }
