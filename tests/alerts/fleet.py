"""Several processes of one service on one store, with a clock that only a test moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup

from holistic_asgi_monitor.alerts.bulletins import Bulletins
from holistic_asgi_monitor.alerts.chronicle import Chronicle
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.summaries import Summaries
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Store, StoreError
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import Alert
from holistic_asgi_monitor.settings import Settings
from tests.alerts.virtual_time import VirtualTime, eventually


class Channel:
    """Where all processes post to, as one channel of Slack; `down` while it takes nothing."""

    def __init__(self) -> None:
        self.down = False
        self.alerts: list[Alert] = []

    @property
    def titles(self) -> list[str]:
        return [alert.title for alert in self.alerts]


class Line:
    """A process's way to the channel, which may be broken by itself."""

    def __init__(self, channel: Channel, name: str = "slack") -> None:
        self.name = name
        self.cut = False
        self._channel = channel

    async def send(self, alerts: Sequence[Alert]) -> None:
        if self.cut or self._channel.down:
            raise OSError
        self._channel.alerts.extend(alerts)


class Member:
    """One process: what it says things with. A `lost` store is one it cannot reach."""

    def __init__(self, fleet: Fleet, name: str, *lines: Line, **settings: Any) -> None:
        self.name = name
        self.lines = lines or (Line(fleet.channel),)
        self.settings = Settings(service="shop", instance=name, **settings)
        self.store = Way(fleet.store)
        self.recorder = Recorder(
            self.store,
            requests=RequestSeries(Bounds((0.1, 1.0)), max_endpoints=100),
            instance=name,
            flush_seconds=60,
            spare=lambda: fleet.store,
            clock=fleet.time.clock,
            wall=lambda: fleet.now,
        )
        self.outcomes: Counter[str] = Counter()
        self.outbox = Outbox(
            self.lines,
            self.settings,
            outcome=lambda _, outcome: self.outcomes.update([outcome]),
            clock=fleet.time.clock,
            sleep=fleet.time.sleep,
        )
        self.bulletins = Bulletins(self.recorder, self.outbox)
        self.chronicle = Chronicle(
            self.recorder, self.outbox, reminders=self.outbox.longest_reminder
        )
        self.summaries = Summaries(
            self.settings,
            self.recorder,
            self.bulletins,
            self.chronicle,
            attached=lambda: fleet.attached,
        )
        self.alive = True
        self._scope = anyio.CancelScope()

    @property
    def cut(self) -> bool:
        return self.lines[0].cut

    @cut.setter
    def cut(self, cut: bool) -> None:
        self.lines[0].cut = cut

    async def run(self) -> None:
        with self._scope:
            await self.outbox.run()

    def kill(self) -> None:
        """End it where it stands."""
        self.alive = False
        self._scope.cancel()

    async def has_noted(self) -> None:
        """Wait until it has written down what was delivered."""
        await eventually(lambda: not any(each.delivered for each in self.bulletins._open.values()))


class Way:
    """A store behind a network that a test can cut; a `stuck` one can be read alone."""

    def __init__(self, store: Store) -> None:
        self.lost = self.stuck = False
        self._store = store

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if self.stuck and name in {"claim", "put_state", "add_event", "write"}:
            return _unreachable
        if not self.lost or name in {"writable", "describe", "close"}:
            return found
        return _unreachable


async def _unreachable(*_: object, **__: object) -> Any:
    raise StoreError("the store cannot be reached")


class Fleet:
    """The service: its store, its channel, and the processes that run. It begins at `start`."""

    def __init__(self, start: datetime, store: Store | None = None) -> None:
        self.time = VirtualTime()
        self.store: Store = SQLite(None, max_mb=50) if store is None else store
        self.channel = Channel()
        self.members: list[Member] = []
        self.attached: bool | None = None
        self._began = start.timestamp() - self.time.now
        self._group: TaskGroup

    @property
    def now(self) -> float:
        """UTC epoch seconds."""
        return self._began + self.time.now

    @property
    def said(self) -> list[str]:
        """The titles of all that arrived."""
        return self.channel.titles

    def member(self, *lines: Line, **settings: Any) -> Member:
        """Another process, which runs from now on."""
        member = Member(self, f"web-{len(self.members) + 1}", *lines, **settings)
        self.members.append(member)
        self._group.start_soon(member.run)
        return member

    def turn_clock(self, hours: float) -> None:
        """Set the time of day, and not the time that passes, so much ahead or back."""
        self._began += hours * 3600

    async def pass_by(self, minutes: float) -> None:
        """Let time pass; each process looks after its messages every minute."""
        whole = int(minutes)
        for _ in range(whole):
            await self.time.pass_by(60)
            await self.tend()
        await self.time.pass_by(60 * (minutes - whole))

    async def tend(self) -> None:
        for member in self.members:
            if member.alive:
                await member.bulletins.tend()
                await member.chronicle.write()
        await self.settle()

    async def settle(self) -> None:
        """Let everything go on until all that was delivered is noted."""
        await self.time.settle()
        for member in self.members:
            if member.alive and not (member.store.lost or member.store.stuck):
                await member.has_noted()

    def until(self, moment: datetime) -> float:
        """The minutes until then."""
        return (moment.timestamp() - self.now) / 60

    def local(self, zone: Any = UTC) -> datetime:
        return datetime.fromtimestamp(self.now, zone)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Fleet]:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                yield self
                group.cancel_scope.cancel()
        finally:
            await self.store.close()
