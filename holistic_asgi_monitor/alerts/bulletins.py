"""Messages that the whole service says once, however many processes it has.

Who wants to say something takes out a lease on it in the store, and renews it until a notifier has
taken the message; from then on it is noted there as told, for good. So an outage of the notifier
delays it, and a process that dies before the delivery is followed by another one once its lease
has run out. The log of the store holds the text meanwhile, since what it was about may be over.

A lease is made of claims, which nobody can give back: there is one for each stretch of five
minutes. A stretch may be claimed by who can claim the one before it as well, which is then free
of an owner for sure; so a lease holds until the end of the stretch after the last one claimed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Any
from uuid import uuid4

import anyio

from holistic_asgi_monitor.alerts.channel import BULLETIN
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.checks.loops import spawn
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Event
from holistic_asgi_monitor.history.values import plain
from holistic_asgi_monitor.model import Alert, Severity
from holistic_asgi_monitor.notifiers.values import alert_from, as_json

__all__ = ("LEASE_SECONDS", "Bulletin", "Bulletins")

_logger = logging.getLogger("holistic_asgi_monitor")

LEASE_SECONDS = 300
STORE_SECONDS = 10.0
MARGIN_SECONDS = 90
LOOK_BACK_SECONDS = 3 * 86_400.0
LONGEST_KEY = 200
MOST_OPEN, MOST_TOLD = 100, 1_000
TOPIC = "bulletins"
TAKEN = 0
_PREFIX = "bulletin: "


@dataclass(frozen=True, slots=True)
class Bulletin:
    """What is said. A `summary` of several paragraphs says all that the details do."""

    severity: Severity
    title: str
    summary: str
    details: Mapping[str, Any]


@dataclass(slots=True)
class _Open:
    """A message on its way: the stretch that was claimed last, None where it is not in the store.

    `delivered`: some notifier has it, and only the note of that is missing.
    """

    alert: Alert
    claimed: int | None
    delivered: bool = False


class Bulletins:
    """Says each `key` once for the whole service, through `outbox`.

    `tend` is to be called about once a minute. Where the store is off, or can be neither reached
    nor written for five minutes, each process says it once. Nothing here raises.
    """

    def __init__(self, recorder: Recorder, outbox: Outbox) -> None:
        self._recorder = recorder
        self._outbox = outbox
        self._open: dict[str, _Open] = {}
        self._told: dict[str, None] = {}
        self._busy: set[str] = set()
        self._passes: dict[str, int] = {}
        self._unclear: dict[str, float] = {}
        self._notes: dict[str, object] = {}
        outbox.delivered.append(self._delivered)
        outbox.keeps = self._keeps

    def is_settled(self, key: str) -> bool:
        """Whether it is known here that `key` was said, or is on its way from here."""
        return self._is_known(_name(key))

    async def say(
        self, key: str, severity: Severity, title: str, summary: str, details: Mapping[str, Any]
    ) -> bool:
        """Have it delivered unless some process of the service has said `key`, or is about to.

        True when this call handed it to the outbox. A store that does not answer is not waited
        for.
        """

        async def bulletin() -> Bulletin:
            return Bulletin(severity, title, summary, details)

        return await self._say(key, bulletin, patience=0.0)

    async def say_what(self, key: str, compose: Callable[[], Awaitable[Bulletin]]) -> bool:
        """The same for what takes some work to `compose`: only whoever is to say it does so.

        To be called about once a minute as long as there is reason to. Where `compose` raises, it
        is for another process to try it, and a stretch later for this one.
        """
        return await self._say(key, compose, patience=LEASE_SECONDS)

    async def _say(
        self, key: str, compose: Callable[[], Awaitable[Bulletin]], patience: float
    ) -> bool:
        name = _name(key)
        if self._is_known(name) or self._stretch < self._passes.get(name, 0):
            return False
        try:
            with self._alone(name):
                claimed = await self._claimed_or_unknown(name, patience)
                if claimed == TAKEN:
                    return False
                self._pass(name)
                alert = self._alert(name, await compose())
                if claimed and self._stretch > claimed + 1:
                    # It took so long that the lease has run out.
                    return False
                self._passes.pop(name, None)
                await self._begin(name, alert, claimed)
                return True
        except Exception as error:
            # Whoever has something to say must not fail because it cannot be said.
            _logger.error("A message could not be sent: %s", described(error))
            return False

    async def tend(self) -> None:
        """Renew what is on its way, note what has arrived, take over what nobody looks after."""
        for name in [each for each in self._open if each not in self._busy]:
            with self._alone(name):
                await self._tend(name)
        try:
            with anyio.fail_after(STORE_SECONDS):
                await self._take_over()
        except Exception:
            # The store says by itself that it cannot be reached; the next minute comes.
            return

    async def _claimed_or_unknown(self, name: str, patience: float) -> int | None:
        try:
            with anyio.fail_after(STORE_SECONDS):
                claimed = await self._claimed(name)
        except Exception:
            # Most often the store is back soon, for all processes; where it is not, to say it
            # twice is better than to be silent.
            since = self._unclear.setdefault(name, self._recorder.now)
            if len(self._unclear) > MOST_OPEN:
                del self._unclear[next(iter(self._unclear))]
            return None if abs(self._recorder.now - since) >= patience else TAKEN
        self._unclear.pop(name, None)
        return claimed

    async def _claimed(self, name: str) -> int | None:
        """The stretch from which on it is ours to say; None where the store keeps nothing.

        TAKEN where another process says it, or one has.
        """
        if await self._recorder.get_state(_note(name)) is not None:
            self._remember(name)
            return TAKEN
        stretch = self._stretch
        free = await self._recorder.claim(f"{name} @{stretch - 1}")
        if free is None:
            return None
        return stretch if free and await self._recorder.claim(f"{name} @{stretch}") else TAKEN

    def _alert(self, name: str, said: Bulletin) -> Alert:
        time = datetime.fromtimestamp(self._recorder.now, UTC)
        text = said.title, said.summary
        return self._outbox.composed(
            f"{_PREFIX}{name}", said.severity, text, said.details, time=time
        )

    async def _begin(self, name: str, alert: Alert, claimed: int | None) -> None:
        """Hand it to the outbox; before that into the log, where somebody else finds it."""
        logged = claimed is not None and await self._logged(name, alert)
        self._hand_over(name, alert, claimed if logged else None)

    async def _logged(self, name: str, alert: Alert) -> bool:
        text = json.dumps(as_json(alert), separators=(",", ":"))
        try:
            with anyio.fail_after(STORE_SECONDS):
                await self._recorder.add_event(
                    Event(uuid4().hex, self._recorder.now, TOPIC, name, text)
                )
        except Exception:
            # It is said all the same, and by nobody else if this process should die.
            return False
        return True

    def _hand_over(self, name: str, alert: Alert, claimed: int | None) -> None:
        self._open[name] = _Open(alert, claimed)
        if len(self._open) > MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._outbox.announce(alert)
        if not self._outbox.names:
            # There is nobody who could take it, and so nothing to wait for.
            self._delivered(alert)

    async def _tend(self, name: str) -> None:
        each = self._open.get(name)
        if each is None:
            # It has been noted meanwhile.
            return
        if each.delivered:
            await self._note(name)
        elif self._recorder.now - each.alert.started_at.timestamp() > LOOK_BACK_SECONDS:
            # Nobody has taken it for days: nobody would take it over either, and no claim is left.
            self._let_go(name, each)
        elif each.claimed is not None and each.claimed < self._stretch:
            await self._renew(name, each, each.claimed)

    async def _renew(self, name: str, each: _Open, claimed: int) -> None:
        """Claim the next stretch; where that cannot be done in time, leave it to the others."""
        stretch, ours = self._stretch, None
        try:
            with anyio.fail_after(STORE_SECONDS):
                ours = stretch == claimed + 1 and await self._recorder.claim(f"{name} @{stretch}")
        except Exception:
            # The store says by itself that it cannot be reached.
            ends = (claimed + 2) * LEASE_SECONDS
            ours = None if self._recorder.now < ends - MARGIN_SECONDS else False
        if ours:
            each.claimed = stretch
        elif ours is False:
            self._let_go(name, each)

    def _let_go(self, name: str, each: _Open) -> None:
        """Take back what is not ours any more; it stands in the log, for us as for others."""
        if not each.delivered:
            self._open.pop(name, None)
            self._outbox.withdraw(each.alert.key)

    async def _take_over(self) -> None:
        """Say what was never delivered, and whose owner is gone."""
        now = self._recorder.now
        found = await self._recorder.events(TOPIC, now - LOOK_BACK_SECONDS, now + LEASE_SECONDS)
        for event in reversed(found):
            if self._is_known(event.key):
                continue
            with self._alone(event.key):
                claimed = await self._claimed(event.key)
                if claimed:
                    self._resume(event, claimed)

    def _resume(self, event: Event, claimed: int) -> None:
        try:
            alert = alert_from(json.loads(event.text))
        except (LookupError, RecursionError, TypeError, ValueError):
            # Of another version, maybe.
            self._remember(event.key)
            return
        self._hand_over(event.key, alert, claimed)

    def _delivered(self, alert: Alert) -> None:
        """Have it noted that some notifier has taken it; called by the outbox, in its loop."""
        name = alert.key.removeprefix(_PREFIX)
        if alert.reason != BULLETIN or name in self._told:
            return
        each = self._open.setdefault(name, _Open(alert, None))
        if not each.delivered:
            each.delivered = True
            self._notes[name] = spawn(partial(self._note_soon, name), "bulletin")

    async def _note_soon(self, name: str) -> None:
        try:
            await self._note(name)
        finally:
            self._notes.pop(name, None)

    async def _note(self, name: str) -> None:
        """Note for good that it was told; `tend` tries it again where it fails."""
        text = json.dumps({"told_at": round(self._recorder.now)})
        try:
            with anyio.fail_after(STORE_SECONDS):
                await self._recorder.put_state(_note(name), text)
        except Exception:
            # The store says by itself that it cannot be reached.
            return
        self._open.pop(name, None)
        self._remember(name)

    def _keeps(self, alert: Alert) -> bool:
        """Whether a restart brings it back; until somebody has it, the log and the lease do."""
        if alert.reason != BULLETIN:
            return True
        name = alert.key.removeprefix(_PREFIX)
        return name in self._told or (name in self._open and self._open[name].delivered)

    def _pass(self, name: str) -> None:
        """Let the others go first the next time, unless this time it succeeds."""
        self._passes[name] = self._stretch + 3
        if len(self._passes) > MOST_OPEN:
            del self._passes[next(iter(self._passes))]

    def _is_known(self, name: str) -> bool:
        return name in self._told or name in self._open or name in self._busy

    def _remember(self, name: str) -> None:
        self._told[name] = None
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]

    @property
    def _stretch(self) -> int:
        return int(self._recorder.now // LEASE_SECONDS)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        self._busy.add(name)
        try:
            yield
        finally:
            self._busy.discard(name)


def _name(key: str) -> str:
    """The key as the store takes it: two that are too long must not become the same."""
    text = plain(key)
    if len(text) <= LONGEST_KEY:
        return text
    digest = blake2b(text.encode(), digest_size=16).hexdigest()
    return f"{text[:LONGEST_KEY]} {digest}"


def _note(name: str) -> str:
    """The key of the state that says that it was told."""
    return f"told {name}"
