"""The outbox: has every notifier told what it should know, whatever the others do.

Each notifier has a courier, a task of its own with its own patience. What could not be delivered
is not queued: it stays wanted, and is worked out anew for each try, so that the newest state wins.
"""

from __future__ import annotations

import inspect
import logging
import math
import time as clocks
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain, count
from typing import Any

import anyio

from holistic_asgi_monitor.alerts.bell import Bell, Sleep, either
from holistic_asgi_monitor.alerts.channel import Channel, Failure, Letter
from holistic_asgi_monitor.alerts.condition import Incident, Observation, Policy
from holistic_asgi_monitor.alerts.incidents import Incidents
from holistic_asgi_monitor.alerts.maintenance import QuietTimes
from holistic_asgi_monitor.alerts.memory import ChannelMemory, Memory
from holistic_asgi_monitor.alerts.notices import Inbox, bulletin_of, notice_of
from holistic_asgi_monitor.alerts.quiet import Quiet
from holistic_asgi_monitor.alerts.voice import Voice
from holistic_asgi_monitor.checks.loops import spawn
from holistic_asgi_monitor.model import Alert, ConfigurationError, Notifier, Severity
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.redaction import Redaction
from holistic_asgi_monitor.settings import Settings

__all__ = ("Outbox", "hand_over")

_logger = logging.getLogger("holistic_asgi_monitor")

SEND_SECONDS = 10.0
GRACE_SECONDS = 1.0
FAREWELL_SECONDS = 0.1
FAULT_SECONDS = 60.0


class Outbox:
    """Delivers what is to be told to all `notifiers`.

    `secrets` are hidden in messages of the user's own, as those of the settings are. `outcome` is
    called for each alert with its severity and what became of it: "delivered", "failed" (once for
    each try) or "suppressed". `clock` gives monotonic seconds, `sleep` waits so many of them.
    `changed` rings and `changes` grows when there is something that a restart should not lose, and
    `look` is called when things should be looked at anew, since maintenance has ended. Each of
    `delivered` is told of each alert that a notifier has taken; messages that `keeps` denies are
    not remembered over a restart. Incidents of which `voice` says that another process tells are
    followed, and not delivered.
    """

    def __init__(
        self,
        notifiers: Sequence[Notifier],
        settings: Settings,
        *,
        secrets: Iterable[str] = (),
        outcome: Callable[[Severity, str], None],
        voice: Voice | None = None,
        clock: Callable[[], float] = clocks.monotonic,
        sleep: Sleep = anyio.sleep,
    ) -> None:
        policy = _policy(settings)
        self.voice = Voice() if voice is None else voice
        names = _names(notifiers)
        self._quiet = Quiet()
        self._incidents = Incidents(policy, names, self._quiet, self.voice)
        self._origin = _origin(settings)
        self._redaction = Redaction((*settings.secrets, *secrets))
        self._outcome = outcome
        self._inbox = Inbox(policy.cooldown)
        self._tellers: dict[str, str] = {}
        self._overflowed = False
        self._clock = clock
        self._window_ends = Bell(sleep)
        self._look_due = False
        self._revision = 0
        self.changes = 0
        self.changed = Bell(sleep)
        self.look: Callable[[], object] = _nobody
        self.shares_orders = False
        """Whether what people order to be quiet is known from a place that is newer than memory."""
        self.delivered: list[Callable[[Alert], object]] = []
        self.keeps: Callable[[Alert], bool] = _always
        self.quiet_times = QuietTimes(
            self._quiet, changed=self._quiet_changed, redacted=self._redaction.text, clock=clock
        )
        self._couriers = {
            name: _Courier(notifier, Channel(name, self._incidents), self, clock, sleep)
            for name, notifier in zip(names, notifiers, strict=True)
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the notifiers; of two with the same name the second one gets a number."""
        return tuple(self._couriers)

    @property
    def remembered(self) -> tuple[str, ...]:
        """The keys of which something is open, or not long enough over to be forgotten."""
        return self._incidents.remembered

    def note_elsewhere(self, keys: Iterable[str]) -> None:
        """Note which keys are in trouble as another process sees it, which tells of them."""
        self._incidents.elsewhere = frozenset(keys)

    @property
    def has_let_go(self) -> bool:
        """Whether this process no longer knows what it told, since another one tells."""
        return self._incidents.has_let_go

    @property
    def longest_reminder(self) -> float:
        """After how many seconds at the latest there is a reminder of what goes on."""
        return self._incidents.policy.reminders[-1]

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
        self.quiet_times.expire()
        if self._tellers:
            known = self._incidents.believed
            self._tellers = {key: each for key, each in self._tellers.items() if key in known}
        if self._incidents.revision != self._revision:
            self.note_change()
        self._ring()

    def notice(
        self, severity: Severity, title: str, details: Mapping[str, Any], *, now: float
    ) -> None:
        """Have a message of the user's own delivered, a title once in a cooldown.

        May be called from any thread; never waits, and never raises because of what it is given.
        Secrets in it are hidden.
        """
        alert = notice_of(severity, title, details, self._redaction)
        if self._inbox.admit(alert, now):
            self._ring()
            self.note_change()
        else:
            self._outcome(alert.severity, "suppressed")

    def composed(
        self,
        key: str,
        severity: Severity,
        text: tuple[str, str],
        details: Mapping[str, Any],
        *,
        time: datetime,
    ) -> Alert:
        """A message for `announce`, without secrets; `text` is its title and its summary."""
        return bulletin_of(key, severity, text, details, time=time, redaction=self._redaction)

    def announce(self, alert: Alert) -> None:
        """Have a message delivered, whatever was delivered before; from the watch's loop only."""
        for courier in self._couriers.values():
            self._give(courier, alert)
        self._ring()
        self.note_change()

    def withdraw(self, key: str) -> None:
        """Take back a message where it has not been delivered."""
        for courier in self._couriers.values():
            courier.channel.withdraw(key)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._end_windows)
            for courier in self._couriers.values():
                group.start_soon(courier.run)

    def silence(self, key: str, minutes: float) -> None:
        """Tell nothing of `key` for so long, but for its all-clear and what is worse than now.

        Where it is well now, nothing counts as worse. ConfigurationError for wrong minutes.
        """
        self.quiet_times.silence(key, minutes, self._incidents.severity(key))

    def memory(self) -> Memory:
        """What a restart must not lose."""
        self.hand_out()
        now = self._clock()
        return Memory(
            snapshot=self._incidents.snapshot(),
            channels={name: courier.memory() for name, courier in self._couriers.items()},
            titles=self._inbox.titles,
            windows=tuple(self._quiet.windows(now)),
            silences=self._quiet.silenced(now),
            tellers={key: self._teller(key) for key in self._incidents.believed},
        )

    def restore(
        self, memory: Memory, *, now: float, mine: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Go on from the `memory` of before a restart, or of who told of the keys until now.

        Only keys that are `mine` are taken over; `now` in monotonic seconds.
        """
        if not self.shares_orders:
            self._restore_quiet(memory, now)
        self._incidents.restore(memory.snapshot, now, mine)
        self._tellers.update({key: each for key, each in memory.tellers.items() if mine(key)})
        self._inbox.restore(memory.titles)
        for name, courier in self._couriers.items():
            if name in memory.channels:
                courier.restore(memory.channels[name])
        self.quiet_times.expire()
        self._window_ends.ring()
        self._ring()

    def _restore_quiet(self, memory: Memory, now: float) -> None:
        known = self._quiet.windows(now)
        for window in memory.windows:
            if not any(window.is_like(each) for each in known):
                self._quiet.begin(window)
        for key, silence in memory.silences.items():
            self._quiet.silence(key, silence)

    def go_on(self) -> None:
        """Have everybody look what there is to tell: it may be more than it was, or less."""
        self.note_change()
        self._ring()

    def as_dict(self) -> dict[str, Any]:
        """The open and the recent incidents as JSON values, the newest first; what is quiet."""
        standing = [
            _row(key, incident, flapping=flapping)
            for key, incident, flapping in self._incidents.standing()
        ]
        recent = [_row(key, incident) for key, incident in reversed(self._incidents.recent)]
        standing.sort(key=lambda row: str(row["started_at"]), reverse=True)
        voice = self.voice.extent(self._clock())
        return {"open": standing, "recent": recent, "voice": voice, **self.quiet_times.as_dict()}

    def hand_out(self) -> None:
        """Give the messages of the user's own that came in to every channel."""
        for alert in self._inbox.take():
            for courier in self._couriers.values():
                self._give(courier, alert)

    def _give(self, courier: _Courier, alert: Alert) -> None:
        dropped = courier.channel.notice(alert)
        if dropped is not None:
            self._outcome(dropped.severity, "failed")

    def addressed(self, alert: Alert) -> Alert:
        """The alert with where it comes from: what goes on or ends, from where its alarm came."""
        instance = self._origin["instance"] if alert.reason == "fire" else self._teller(alert.key)
        return replace(alert, **{**self._origin, "instance": instance})

    def _teller(self, key: str) -> str:
        return self._tellers.get(key) or str(self._origin["instance"])

    def note(self, letters: Sequence[Letter], outcome: str) -> None:
        """Pass on what became of some letters."""
        for letter in letters:
            self._outcome(letter.alert.severity, outcome)
            for told in self.delivered if outcome == "delivered" else ():
                told(letter.alert)
        self.note_change()

    def note_change(self) -> None:
        """Note that there is something new that a restart should not lose; from any thread."""
        self._revision = self._incidents.revision
        self.changes += 1
        self.changed.ring()

    async def _end_windows(self) -> None:
        """End each window of maintenance at its time, and have things looked at after each."""
        while True:
            await self._window_ends.heard(max(0.0, self._quiet.next_end() - self._clock()))
            self.quiet_times.expire()
            if self._look_due:
                self._look_due = False
                self.look()

    def _quiet_changed(self, ended: bool) -> None:  # noqa: FBT001 - the one argument of a callback
        """Note that something became quiet or no longer is; called from any thread."""
        self._look_due = self._look_due or ended
        self._window_ends.ring()
        self.note_change()
        self._ring()

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
        sleep: Sleep,
    ) -> None:
        self.channel = channel
        self.bell = Bell(sleep)
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
                self._note_end(self._sending)

    def memory(self) -> ChannelMemory:
        """What a restart must not lose of this channel."""
        notices = tuple(filter(self._outbox.keeps, self.channel.notices))
        return ChannelMemory(notices, self.channel.doubts, self._notifiers_state())

    def restore(self, memory: ChannelMemory) -> None:
        """Go on from the `memory` of before a restart."""
        self.channel.restore(memory.notices, memory.doubts)
        restore = getattr(self._notifier, "restore", None)
        if not callable(restore) or memory.notifier is None:
            return
        try:
            restore(memory.notifier)
        except Exception as error:
            # A notifier may be the user's own: without its memory it still delivers.
            kind = type(error).__name__
            _logger.warning("The notifier %s could not be restored (%s)", self.channel.name, kind)

    def _notifiers_state(self) -> Any:
        state = getattr(self._notifier, "state", None)
        if not callable(state):
            return None
        try:
            return state()
        except Exception:
            # Protects what else there is to remember; a notifier may be the user's own.
            return None

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
        sending = self._sending = _Sending(self._notifier, letters, alerts)
        await either(sending.finished, self._sleep, self._patience)
        if not sending.finished.is_set():
            await sending.cut()
        sending.noted = True
        self._note(letters, sending.failure(self._patience))
        if sending.finished.is_set():
            self._sending = None
        else:
            await self._outlast(sending)

    async def _outlast(self, sending: _Sending) -> None:
        """Wait for what cannot be cut off: two at once would be worse than none."""
        await sending.finished.wait()
        self._sending = None
        if sending.failure(self._patience) is None:
            self._note(sending.letters, None)

    def _note_end(self, sending: _Sending) -> None:
        """Note what is known of a call that is given up, for whoever goes on from here."""
        if sending.failure(self._patience) is None:
            self._note(sending.letters, None)
        elif not sending.noted:
            self.channel.doubt(sending.letters, self._clock())
            self._outbox.note_change()

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

    def __init__(
        self, notifier: Notifier, letters: Sequence[Letter], alerts: Sequence[Alert]
    ) -> None:
        self.finished = anyio.Event()
        self.letters = letters
        self.noted = False
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
                await hand_over(self._notifier, self._alerts)
                self._arrived = True
        except BaseException as error:
            # Protects the loop: whatever a notifier throws, its alerts stay wanted.
            self._error = error
        finally:
            self.finished.set()


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


def _nobody() -> None:
    """Nobody looks."""


def _always(_: Alert) -> bool:
    """Everything is kept."""
    return True


async def hand_over(notifier: Notifier, alerts: Sequence[Alert]) -> None:
    """Have `notifier` send `alerts`; raises what it raises."""
    sent: object = notifier.send(alerts)
    # One that is not async, against the protocol, has sent them by now: not again and again.
    if inspect.isawaitable(sent):
        await sent


def _kind_of(thing: object) -> str:
    return f"The class {thing.__name__}" if isinstance(thing, type) else f"A {type(thing).__name__}"


def _names(notifiers: Sequence[object]) -> list[str]:
    names: list[str] = []
    for notifier in notifiers:
        if isinstance(notifier, type) or not isinstance(notifier, Notifier):
            raise ConfigurationError(
                f"{_kind_of(notifier)} was given as a notifier; allowed is what has a name and an "
                "async send"
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
