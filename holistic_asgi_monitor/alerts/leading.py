"""Has one process of a service tell of alerts: by a lease on its host, and one among the hosts."""

from __future__ import annotations

import logging
import math
import time as clocks
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import anyio

from holistic_asgi_monitor.alerts.keeping import Keeper
from holistic_asgi_monitor.alerts.ordering import SharedOrders
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.voice import Answer, Claim, Scope
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.threads import Desk
from holistic_asgi_monitor.workers.lease import STALE_SECONDS, FileLease
from holistic_asgi_monitor.workers.redis_lease import RedisLease

__all__ = ("HostLease", "Leader", "Lease", "RedisPlace", "RedisShelf", "lease_seconds")

_logger = logging.getLogger("holistic_asgi_monitor")

ASK_SECONDS = 2.5
BEGIN_SECONDS = 3.5
FAREWELL_SECONDS = 1.5
HOST_SECONDS = 5.0
"""How long a process that cannot ask for the lock leaves the voice to the last one that had it."""

INTERVALS = 3
SHORTEST_SECONDS, LONGEST_SECONDS = 3.0, 30.0
STANDBY_SECONDS = 5.0
"""How often at least a host that stands by asks whether the lease has ended."""


def lease_seconds(interval: float) -> float:
    """How long the lease among hosts holds, which is refreshed three times meanwhile."""
    return min(LONGEST_SECONDS, max(SHORTEST_SECONDS, INTERVALS * interval))


class Lease(Protocol):
    """Something that one holder has at a time; what fails raises any exception."""

    async def hold(self, holder: str) -> bool:
        """Take it where it is free, or go on holding it; whether it is the holder's."""
        ...

    async def release(self, holder: str) -> None:
        """Free it, where it is the holder's."""
        ...


class HostLease:
    """The lock on one of the files `paths` of this host, asked for in a thread.

    All of a process have it once one of them has: they are as they would be alone.
    """

    _living: ClassVar[list[weakref.ref[FileLease]]] = []

    def __init__(self, paths: Callable[[], Sequence[Path]]) -> None:
        self._lease = FileLease(paths, kin=self._kin)
        gone = [each for each in self._living if each() is None]
        for each in gone:
            self._living.remove(each)
        self._living.append(weakref.ref(self._lease))
        self._desk = Desk("holistic-asgi-monitor voice")

    @classmethod
    def _kin(cls) -> list[FileLease]:
        found = [each() for each in cls._living.copy()]
        return [lease for lease in found if lease is not None]

    @property
    def name(self) -> str:
        """What the host is known by among others; the same for whichever process leads it."""
        return self._lease.name

    async def hold(self, _: str = "") -> bool:
        """Take it where it is free, or go on holding it; `LeaseError` where no lock works."""
        return await self._desk.ask(self._lease.hold, forsakable=True)

    async def release(self, _: str = "") -> None:
        """Let go of it, and end the thread."""
        await self._desk.finish(self._lease.release)


class RedisPlace:
    """The lease of the service in Redis, and texts for all hosts, asked for in a thread."""

    def __init__(self, lease: RedisLease) -> None:
        self._lease = lease
        self._desk = Desk("holistic-asgi-monitor lease")

    async def hold(self, holder: str) -> bool:
        """Take it where it is free, or go on holding it."""
        return await self._desk.ask(lambda: self._lease.hold(holder), forsakable=True)

    async def release(self, holder: str) -> None:
        """Free it, where it is the holder's, and end the thread."""
        await self._desk.finish(lambda: self._lease.release(holder))

    def shelf(self, name: str) -> RedisShelf:
        """The place of one text."""
        return RedisShelf(self._lease, self._desk, name)


class RedisShelf:
    """The place of one text in Redis."""

    def __init__(self, lease: RedisLease, desk: Desk, name: str) -> None:
        self._lease = lease
        self._desk = desk
        self._name = name

    async def load(self) -> str | None:
        """The text that was saved last."""
        return await self._desk.ask(lambda: self._lease.load(self._name), forsakable=True)

    async def save(self, text: str) -> None:
        """Keep the text, in the place of the last one."""
        await self._desk.ask(lambda: self._lease.save(self._name, text))


class Leader:
    """Gives `outbox` its voice, and takes it away, by the leases of `host` and of `service`.

    `begin` is to be called before the first round, `step` about once a second, `close` when all
    is saved. The lease of the service is asked for by who leads its host, three times while it
    holds, which goes by `interval`, the seconds between rounds; without one each host has a
    voice of its own. `orders` are looked after besides. Nothing here raises. `clock` gives
    monotonic seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        keeper: Keeper,
        host: HostLease,
        service: Lease | None = None,
        *,
        orders: SharedOrders | None = None,
        interval: float,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._outbox = outbox
        self._voice = outbox.voice
        self._keeper = keeper
        self._host = host
        self._service = service
        self._orders = orders
        lease = lease_seconds(interval)
        self._pause = lease / INTERVALS
        self._clock = clock
        self._claims = {Scope.HOST: Claim(HOST_SECONDS), Scope.SERVICE: Claim(lease)}
        self._asked = self._followed = -math.inf
        self._has_asked = False
        self._unsure: set[Scope] = set()
        self._said = "all"
        self._voice.linger = HOST_SECONDS if service is None else lease
        self._rest()

    async def begin(self) -> None:
        """Take what is free, and go on from what is remembered; within moments."""
        self._asked = -math.inf
        with anyio.move_on_after(BEGIN_SECONDS):
            await self.step()

    async def step(self) -> None:
        """Ask whose the leases are, and speak, or fall silent."""
        await self._step()
        self._say()
        if self._orders is not None:
            await self._orders.step()

    async def _step(self) -> None:
        began = self._clock()
        until = await self._until(Scope.HOST, self._host)
        if until == -math.inf:
            self._leave(Scope.HOST, Scope.HOST, Scope.SERVICE)
            self._asked = -math.inf
            return
        until = began + STALE_SECONDS
        await self._speak(Scope.HOST, until)
        if self._service is None:
            await self._speak(Scope.SERVICE, until)
        elif self._clock() - self._asked >= self._patience():
            began = self._clock()
            await self._step_service(self._service)
            self._asked = began

    async def close(self) -> None:
        """Fall silent, and let others take what is ours, at once."""
        self._rest()
        with anyio.move_on_after(FAREWELL_SECONDS, shield=True):
            if self._service is not None and self._has_asked:
                # The lease is the host's: who no longer leads that has nothing to give back.
                leads = self._claims[Scope.HOST].ours
                await self._release(self._service, self._host.name if leads else "")
        with anyio.move_on_after(FAREWELL_SECONDS, shield=True):
            await self._release(self._host, "")

    async def _step_service(self, service: Lease) -> None:
        self._has_asked = True
        until = await self._until(Scope.SERVICE, service)
        if until == -math.inf:
            self._leave(Scope.SERVICE, Scope.SERVICE)
            await self._follow()
        else:
            await self._speak(Scope.SERVICE, until)

    async def _follow(self) -> None:
        now = self._clock()
        if now - self._followed >= self._pause:
            self._followed = now
            await self._keeper.follow(Scope.SERVICE)

    def _patience(self) -> float:
        """How long not to ask again whose the lease of the service is."""
        leads = self._claims[Scope.SERVICE].ours
        return self._pause if leads else min(self._pause, STANDBY_SECONDS)

    async def _until(self, scope: Scope, lease: HostLease | Lease) -> float:
        began = self._clock()
        claim = self._claims[scope]
        claim.note(await self._answer(scope, lease), began)
        return claim.until(self._clock())

    async def _answer(self, scope: Scope, lease: HostLease | Lease) -> Answer:
        why = f"there was no answer within {ASK_SECONDS:g} s"
        try:
            with anyio.move_on_after(ASK_SECONDS):
                ours = await lease.hold(self._host.name)
                self._unsure.discard(scope)
                return Answer.OURS if ours else Answer.ANOTHERS
        except Exception as error:
            # Two voices are better than none.
            why = described(error)
        if scope not in self._unsure:
            self._unsure.add(scope)
            _logger.warning("%s: %s", _UNSURE[scope], why)
        return Answer.UNKNOWN

    async def _speak(self, scope: Scope, until: float) -> None:
        if self._voice.has(scope, self._clock()):
            self._voice.give(scope, until)
            return
        await self._keeper.take(scope)
        self._voice.give(scope, until)
        self._outbox.go_on()

    def _leave(self, asked: Scope, *scopes: Scope) -> None:
        """Fall silent, unless the answer was only too late to say that the lease is still ours."""
        if not self._claims[asked].ours:
            self._fall_silent(*scopes)

    def _rest(self) -> None:
        """Say nothing until the leases have been asked for; nobody else is known to tell."""
        for scope in Scope:
            self._voice.give(scope, self._clock())

    def _fall_silent(self, *scopes: Scope) -> None:
        for scope in scopes:
            self._voice.give(scope, -math.inf)

    def _say(self) -> None:
        """Log who tells, where that is not as it was."""
        extent = self._voice.extent(self._clock())
        if extent != self._said:
            self._said = extent
            _logger.info("%s", _WHO_TELLS[extent])

    async def _release(self, lease: HostLease | Lease, holder: str) -> None:
        try:
            await lease.release(holder)
        except Exception as error:
            # It ends by itself.
            _logger.debug("A lease could not be given back: %s", described(error))


_WHO_TELLS = {
    "all": "This process tells of alerts now",
    "host": "This process tells of its host's alerts, and another host of what all hosts share",
    "none": "Another process of this host tells of alerts; this one stands by",
}
_UNSURE = {
    Scope.HOST: "Which process of this host tells of alerts cannot be settled, so this one does",
    Scope.SERVICE: "Which host tells of alerts cannot be settled, so this one does before long",
}
