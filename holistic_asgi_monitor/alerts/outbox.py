"""The outbox: has every notifier told what it should know, whatever the others do.

Each notifier has a courier, a task of its own with its own patience. What could not be delivered
is not queued: it stays wanted, and is worked out anew for each try, so that the newest state wins.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time as clocks
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count
from types import MappingProxyType
from typing import Any

import anyio

from holistic_asgi_monitor.alerts.channel import MOST_NOTICES, Channel, Failure, Letter
from holistic_asgi_monitor.alerts.condition import Incident, Observation, Policy
from holistic_asgi_monitor.alerts.incidents import Incidents
from holistic_asgi_monitor.checks.loops import spawn
from holistic_asgi_monitor.model import (
    Alert,
    AlertState,
    ConfigurationError,
    Notifier,
    Severity,
)
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.threads import waker
from holistic_asgi_monitor.settings import Settings

__all__ = ("Outbox",)

_logger = logging.getLogger("holistic_asgi_monitor")

SEND_SECONDS = 10.0
GRACE_SECONDS = 1.0
FAREWELL_SECONDS = 0.1
FAULT_SECONDS = 60.0
MOST_TITLES = 1000

_Sleep = Callable[[float], Awaitable[None]]


class Outbox:
    """Delivers what is to be told to all `notifiers`.

    `outcome` is called for each alert with its severity and what became of it: "delivered",
    "failed" (once for each try) or "suppressed". `clock` gives monotonic seconds, `sleep` waits
    so many of them.
    """

    def __init__(
        self,
        notifiers: Sequence[Notifier],
        settings: Settings,
        *,
        outcome: Callable[[Severity, str], None],
        clock: Callable[[], float] = clocks.monotonic,
        sleep: _Sleep = anyio.sleep,
    ) -> None:
        policy = _policy(settings)
        names = _names(notifiers)
        self._incidents = Incidents(policy, names)
        self._origin = _origin(settings)
        self._outcome = outcome
        self._inbox = _Inbox(policy.cooldown)
        self._overflowed = False
        self._couriers = {
            name: _Courier(notifier, Channel(name, self._incidents), self, clock, sleep)
            for name, notifier in zip(names, notifiers, strict=True)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the notifiers; of two with the same name the second one gets a number."""
        return tuple(self._couriers)

    def up(self, name: str) -> bool:
        """Whether the last delivery of a notifier worked; true before the first."""
        return self._couriers[name].channel.up

    def post(self, observations: Sequence[Observation], *, now: float, time: datetime) -> None:
        """Take in what a round saw; never waits. `now` in monotonic seconds, `time` in UTC."""
        for severity in self._incidents.observe(observations, now, time):
            self._outcome(severity, "suppressed")
        if self._incidents.refused and not self._overflowed:
            self._overflowed = True
            _logger.warning("Too many checks are in trouble at once: some give no alarm")
        self._ring()

    def notice(
        self, severity: Severity, title: str, details: Mapping[str, Any], *, now: float
    ) -> None:
        """Have a message of the user's own delivered, a title once in a cooldown.

        May be called from any thread; never waits, and never raises because of what it is given.
        """
        alert = _notice(severity, title, details)
        if self._inbox.admit(alert, now):
            self._ring()
        else:
            self._outcome(alert.severity, "suppressed")

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with anyio.create_task_group() as group:
            for courier in self._couriers.values():
                group.start_soon(courier.run)

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The open and the recent incidents as JSON values, the newest first."""
        standing = [
            _row(key, incident, flapping=flapping)
            for key, incident, flapping in self._incidents.standing()
        ]
        recent = [_row(key, incident) for key, incident in reversed(self._incidents.recent)]
        standing.sort(key=lambda row: str(row["started_at"]), reverse=True)
        return {"open": standing, "recent": recent}

    def hand_out(self) -> None:
        """Give the messages of the user's own that came in to every channel."""
        for alert in self._inbox.take():
            for courier in self._couriers.values():
                dropped = courier.channel.notice(alert)
                if dropped is not None:
                    self._outcome(dropped.severity, "failed")

    def addressed(self, alert: Alert) -> Alert:
        """The alert with where it comes from."""
        return replace(alert, **self._origin)

    def note(self, letters: Sequence[Letter], outcome: str) -> None:
        """Pass on what became of some letters."""
        for letter in letters:
            self._outcome(letter.alert.severity, outcome)

    def _ring(self) -> None:
        for courier in self._couriers.values():
            courier.bell.ring()


class _Courier:
    """Brings one notifier what its channel wants sent, one message at a time."""

    def __init__(
        self,
        notifier: Notifier,
        channel: Channel,
        outbox: Outbox,
        clock: Callable[[], float],
        sleep: _Sleep,
    ) -> None:
        self.channel = channel
        self.bell = _Bell(sleep)
        self._notifier = notifier
        self._outbox = outbox
        self._clock = clock
        self._sleep = sleep
        self._patience = _patience(notifier)
        self._sending: _Sending | None = None

    async def run(self) -> None:
        """Deliver until cancelled; a message on its way is then given up."""
        try:
            while True:
                await self._go_on()
        finally:
            if self._sending is not None:
                await self._sending.abandon()

    async def _go_on(self) -> None:
        try:
            await self._next()
        except Exception as error:
            # Protects the watch and the other notifiers from a fault of our own.
            kind = type(error).__name__
            _logger.error("The delivery to %s failed with %s; it goes on", self.channel.name, kind)
            await self._sleep(FAULT_SECONDS)

    async def _next(self) -> None:
        self._outbox.hand_out()
        now = self._clock()
        due = self.channel.due(now)
        if due > now:
            await self.bell.heard(due - now)
            return
        letters = self.channel.letters(now)
        alerts = [self._outbox.addressed(letter.alert) for letter in letters]
        sending = self._sending = _Sending(self._notifier, alerts)
        await _either(sending.finished, self._sleep, self._patience)
        if not sending.finished.is_set():
            await sending.cut()
        self._note(letters, sending.failure(self._patience))
        if sending.finished.is_set():
            self._sending = None
        else:
            await self._outlast(sending, letters)

    async def _outlast(self, sending: _Sending, letters: Sequence[Letter]) -> None:
        """Wait for what cannot be cut off: two at once would be worse than none."""
        await sending.finished.wait()
        self._sending = None
        if sending.failure(self._patience) is None:
            self._note(letters, None)

    def _note(self, letters: Sequence[Letter], failure: Failure | None) -> None:
        now = self._clock()
        if failure is None:
            self._log_return()
            self.channel.delivered(letters, now)
        else:
            self._log_failure(failure, len(letters))
            self.channel.failed(letters, failure, now)
        self._outbox.note(letters, "failed" if failure else "delivered")

    def _log_failure(self, failure: Failure, count: int) -> None:
        channel = self.channel
        if failure.permanent and not channel.refused:
            _logger.error(
                "The notifier %s refuses alerts: %s. They are kept; it is tried again when "
                "something changes, and every hour",
                *(channel.name, failure.sentence),
            )
        elif channel.up:
            _logger.warning(
                "The notifier %s failed: %s. Alerts not delivered: %d; they are kept and tried "
                "again",
                *(channel.name, failure.sentence, count),
            )

    def _log_return(self) -> None:
        if not self.channel.up:
            _logger.info("The notifier %s delivers again", self.channel.name)


class _Sending:
    """One call of a notifier, in a task of its own, which may outlive everyone's patience."""

    def __init__(self, notifier: Notifier, alerts: Sequence[Alert]) -> None:
        self.finished = anyio.Event()
        self._notifier = notifier
        self._alerts = alerts
        self._arrived = False
        self._error: BaseException | None = None
        self._scope = anyio.CancelScope()
        self._task = spawn(self._live, "notifier")

    async def cut(self) -> None:
        """Ask it to end now, and give it a moment for that."""
        self._scope.cancel()
        with anyio.CancelScope(deadline=anyio.current_time() + FAREWELL_SECONDS, shield=True):
            await self.finished.wait()

    async def abandon(self) -> None:
        """Ask it to end now, unless it was asked before."""
        if not self._scope.cancel_called:
            await self.cut()

    def failure(self, patience: float) -> Failure | None:
        """Why it failed, None if it did not; for a call that was cut off, that it took too long."""
        if self._arrived:
            return None
        if self._error is None or self._scope.cancel_called:
            return Failure(f"it took longer than {patience:g} s", ambiguous=True)
        return _failure(self._error)

    async def _live(self) -> None:
        try:
            with self._scope:
                await self._notifier.send(self._alerts)
                self._arrived = True
        except BaseException as error:
            # Protects the loop: whatever a notifier throws, its alerts stay wanted.
            self._error = error
        finally:
            self.finished.set()


class _Bell:
    """Something that any thread can ring and one task hears, even if it listens later only."""

    def __init__(self, sleep: _Sleep) -> None:
        self._sleep = sleep
        self._rung = False
        self._wake: Callable[[], object] | None = None

    def ring(self) -> None:
        """Let the listener go on."""
        self._rung = True
        wake = self._wake
        if wake is None:
            return
        try:
            wake()
        except RuntimeError:
            # The listener's loop has ended; whoever listens next will hear it.
            self._wake = None

    async def heard(self, seconds: float) -> None:
        """Wait until it is rung, or has been since the last time, at most `seconds`."""
        event = anyio.Event()
        self._wake = waker(event.set)
        try:
            if not self._rung:
                await _either(event, self._sleep, seconds)
        finally:
            self._wake = None
            self._rung = False


class _Inbox:
    """The messages of the user's own, from any thread, until the loop takes them.

    It lets each pass once in `cooldown` seconds, and keeps the newest ones.
    """

    def __init__(self, cooldown: float) -> None:
        self._cooldown = cooldown
        self._lock = threading.Lock()
        self._admitted: dict[str, float] = {}
        self._waiting: deque[Alert] = deque(maxlen=MOST_NOTICES)

    def admit(self, alert: Alert, now: float) -> bool:
        """Whether the message may pass now; then it waits to be taken."""
        with self._lock:
            if now - self._admitted.get(alert.key, -math.inf) < self._cooldown:
                return False
            self._admitted.pop(alert.key, None)
            self._admitted[alert.key] = now
            if len(self._admitted) > MOST_TITLES:
                del self._admitted[next(iter(self._admitted))]
            self._waiting.append(alert)
            return True

    def take(self) -> list[Alert]:
        """The messages that wait, the oldest first."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken


async def _either(event: anyio.Event, sleep: _Sleep, seconds: float) -> None:
    """Wait for `event`, at most `seconds`."""
    if math.isinf(seconds):
        await event.wait()
        return
    async with anyio.create_task_group() as group:

        async def expire() -> None:
            await sleep(seconds)
            group.cancel_scope.cancel()

        group.start_soon(expire)
        await event.wait()
        group.cancel_scope.cancel()


def _failure(error: BaseException) -> Failure:
    """What an exception of a notifier says; only of our own ones the text is known to be safe."""
    sentence = str(error) if isinstance(error, DeliveryError) else f"it raised {_kind(error)}"
    return Failure(
        sentence,
        retry_after=_seconds(getattr(error, "retry_after", None)),
        permanent=getattr(error, "permanent", False) is True,
        ambiguous=getattr(error, "ambiguous", False) is True,
    )


def _kind(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return type(error).__name__


def _seconds(value: object) -> float | None:
    """A wait that can be kept, None where `value` is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return max(0.0, float(value)) if value == value else None  # noqa: PLR0124 - NaN is no wait


def _patience(notifier: Notifier) -> float:
    """How long a send may take: ours, or a moment more than the notifier's own `timeout`."""
    own = _seconds(getattr(notifier, "timeout", None))
    return SEND_SECONDS if not own or math.isinf(own) else own + GRACE_SECONDS


def _policy(settings: Settings) -> Policy:
    """When to speak, by the settings."""
    cooldown = settings.alert_cooldown_minutes * 60
    failures = settings.failures_before_alert
    # Who wants more bad rounds in a row is not to be called by fewer of them.
    most_bad = max(5, failures)
    return Policy(
        failures=failures,
        successes=settings.successes_before_clear,
        ratio=(most_bad, 2 * most_bad),
        reminders=(cooldown, 4 * cooldown, 16 * cooldown),
        grace=settings.startup_grace_seconds,
    )


def _origin(settings: Settings) -> dict[str, Any]:
    dashboard = None
    if settings.public_url and settings.prefix:
        dashboard = f"{settings.public_url}{settings.prefix}/alerts"
    return {
        "service": settings.service,
        "environment": settings.environment,
        "instance": settings.instance,
        "dashboard_url": dashboard,
        "runbook_url": settings.runbook_url,
    }


def _notice(severity: object, title: object, details: Mapping[str, Any]) -> Alert:
    if not isinstance(severity, Severity):
        _logger.warning("An alert of your own needs a Severity; warning is taken")
        severity = Severity.WARNING
    return Alert(
        key=f"notice: {title}",
        severity=severity,
        state=AlertState.NOTICE,
        title=str(title),
        summary="",
        started_at=datetime.now(UTC),
        details=MappingProxyType(_json_values(details)),
        reason="notice",
    )


def _json_values(details: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(json.dumps(dict(details), default=str, skipkeys=True))
    except Exception:
        # Protects all other alerts: these are the user's objects, and may not like to be read.
        return {"details": "could not be read"}
    return values


def _names(notifiers: Sequence[object]) -> list[str]:
    names: list[str] = []
    for notifier in notifiers:
        if not isinstance(notifier, Notifier):
            kind = type(notifier).__name__
            raise ConfigurationError(
                f"A {kind} was given as a notifier; allowed is what has a name and an async send"
            )
        spare = (f"{notifier.name} {number}" for number in count(2))
        names.append(next(name for name in chain([notifier.name], spare) if name not in names))
    return names


def _row(key: str, incident: Incident, *, flapping: bool = False) -> dict[str, Any]:
    ended = incident.ended_at
    return {
        "key": key,
        "severity": incident.severity.value,
        "status": incident.status.value,
        "summary": incident.summary,
        "started_at": incident.started_at.isoformat(timespec="microseconds"),
        "ended_at": None if ended is None else ended.isoformat(timespec="microseconds"),
        "flapping": flapping,
        "silent": incident.silent,
    }
