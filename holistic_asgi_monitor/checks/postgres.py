"""The check of a PostgreSQL database, by its address or through a pool of the app's."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Sequence
from typing import Any, Self

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.loops import running_loop
from holistic_asgi_monitor.checks.network import hideable
from holistic_asgi_monitor.checks.pools import Answer, Connections, Load, Source, to_pool
from holistic_asgi_monitor.checks.postgres_line import Own
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.sqlstates import sqlstate, told, was_cut
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.settings import Settings

__all__ = ("Connections", "Postgres")

SLOW_MS = 3000.0

_EXHAUSTED = "53300"
_PATIENCE_OF_POOLS = frozenset({"PoolTimeout", "TimeoutError", "TooManyRequests"})


class Postgres(Probe):
    """Asks a PostgreSQL server something, and says how many connections are in use.

    It is given an address, for a connection of its own, or a pool of the app's: asyncpg's,
    psycopg's or the AsyncEngine of SQLAlchemy. No answer is critical where `required`, else
    degraded. Slow (above `slow_ms`, else MONITOR_DATABASE_SLOW_MS) is degraded, and so is a
    pool with all its connections in use.

    By an address the app's pool is not seen: then `connections`, else
    MONITOR_DATABASE_CONNECTIONS, is how many may be in use at most. The server's own limit counts
    in any case: it is degraded while the server has no connection left to give. The connection of
    its own is kept, and made anew once a minute, so that a changed password, and whatever else
    keeps new connections out, is seen within that minute; it costs the server one connection a
    minute, beside the old one for a moment.

    The attribute `connections` is what the last round saw, None where that is not known.
    """

    connections: Connections | None = None

    def __init__(
        self,
        dsn_or_pool: object,
        *,
        name: str = "database",
        required: bool = True,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
        slow_ms: float | None = None,
        connections: int | None = None,
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        _validate(name, slow_ms, connections)
        self._slow_ms = slow_ms
        self._maximum = connections
        self._target = dsn_or_pool
        self._source = _source(dsn_or_pool)
        self._load: Load | None = None
        address = self._source.address
        shown = (address.where, address.database, address.user, name, "PostgreSQL")
        self.secrets = hideable(address.secrets, *shown)

    def configured(self, settings: Settings) -> Self:
        """The same check, with the thresholds of `settings` where it was given none."""
        check = copy.copy(self)
        check._configure(settings)  # noqa: SLF001 - it is one of our own
        return check

    def _configure(self, settings: Settings) -> None:
        # Two monitors may live in two event loops: each has a connection of its own.
        self._source = _source(self._target)
        if self._slow_ms is None:
            self._slow_ms = settings.database_slow_ms
        if self._maximum is None:
            self._maximum = settings.database_connections

    async def unjudged(self) -> CheckResult:
        """Ask once, and once more where the connection was cut; `UnwellError` without answer."""
        if not isinstance(running_loop(), asyncio.AbstractEventLoop):
            status = Status.SKIPPED if self.lenient else Status.UNKNOWN
            sentence = "not checked: the drivers of PostgreSQL need asyncio, and this is trio"
            return CheckResult(status, sentence)
        load = None
        try:
            load = self._load = self._source.load()
            answer = await self._asked()
        except UnwellError:
            self._see(load)
            raise
        if answer.connections is not None:
            load = Load(answer.connections, self._maximum)
        self._see(load)
        return self._result(answer)

    def unanswered(self, seconds: float) -> UnwellError:
        """Tell a server that is silent from a pool that has no connection to ask it on."""
        self._see(self._load)
        return self._silence(f"within {seconds:g} s")

    async def aclose(self) -> None:
        """End the connection of its own; a pool stays as it is."""
        await self._source.aclose()

    def _see(self, load: Load | None) -> None:
        self._load = load
        self.connections = None if load is None else load.connections

    async def _asked(self) -> Answer:
        try:
            return await self._once()
        except Exception as error:
            if not was_cut(error):
                raise self._unwell(error) from error
        try:
            return await self._once()
        except Exception as error:
            raise self._unwell(error) from error

    async def _once(self) -> Answer:
        self._source.asking = False
        return await self._source.ask()

    def _result(self, answer: Answer) -> CheckResult:
        where, slow = self._source.address.shown, self._slow_ms or SLOW_MS
        complaints = []
        if answer.server_full:
            numbers = f"{answer.server_size} of {answer.server_maximum} in use"
            complaints.append(f"PostgreSQL at {where} has no connection left to give ({numbers})")
        if self._load is not None and self._load.exhausted:
            complaints.append(self._all_in_use(self._load))
        if answer.milliseconds > slow:
            took = f"took {answer.milliseconds:.0f} ms to answer"
            complaints.append(f"PostgreSQL at {where} {took}; slow is above {slow:g} ms")
        return CheckResult(
            Status.DEGRADED if complaints else Status.HEALTHY,
            "; ".join(complaints) or f"PostgreSQL {answer.version} at {where} answers",
            self._details(answer),
            answer.milliseconds,
        )

    def _all_in_use(self, load: Load) -> str:
        waiting = f", and callers wait for one: {load.waiters}" if load.waiters else ""
        return f"all {load.maximum} connections {self._source.whose} are in use{waiting}"

    def _details(self, answer: Answer | None = None) -> dict[str, Any]:
        """What is known, in JSON values; without what is not."""
        known: dict[str, Any] = {"server": self._source.address.shown}
        if answer is not None:
            known |= {
                "server_version": answer.version,
                "in_recovery": answer.in_recovery,
                "read_only": answer.read_only,
                "server_connections": answer.server_size,
                "server_max_connections": answer.server_maximum,
            }
        if self._load is not None:
            now = self._load.connections
            known |= {"in_use": now.in_use, "idle": now.idle, "size": now.size}
            known |= {"max_size": self._load.maximum, "waiters": self._load.waiters}
        return {name: value for name, value in known.items() if value is not None}

    def _silence(self, how_long: str) -> UnwellError:
        if not self._source.asking:
            # What was free when the round began may have been taken since.
            with contextlib.suppress(UnwellError):
                self._see(self._source.load())
            if self._load is not None and self._load.exhausted:
                sentence = f"{self._all_in_use(self._load)}; none came free {how_long}"
                return UnwellError(sentence, status=Status.DEGRADED, details=self._details())
        what = "gave no answer"
        if self._source.naming:
            what = "cannot be reached: the name service gave no answer"
        sentence = f"PostgreSQL at {self._source.address.where} {what} {how_long}"
        return UnwellError(sentence, details=self._details())

    def _unwell(self, error: BaseException) -> UnwellError:
        """What `error` means; nothing of its text is in it."""
        if isinstance(error, UnwellError):
            return UnwellError(str(error), status=error.status, details=self._details())
        if not sqlstate(error) and type(error).__name__ in _PATIENCE_OF_POOLS:
            return self._silence("in the time that its driver allows")
        # The server is there, and those who have a connection are served: it is full.
        status = Status.DEGRADED if sqlstate(error) == _EXHAUSTED else None
        sentence = told(error, self._source.address)
        return UnwellError(sentence, status=status, details=self._details())


def _source(target: object) -> Source:
    return Own(Address.parse(target)) if isinstance(target, str) else to_pool(target)


def _validate(name: str, slow_ms: object, connections: object) -> None:
    for option, value, kinds in (
        ("slow_ms", slow_ms, int | float),
        ("connections", connections, int),
    ):
        if value is None:
            continue
        if not isinstance(value, kinds) or isinstance(value, bool) or not value > 0:
            raise ConfigurationError(
                f"The check {name} has {option}={value!r}; allowed is a number above 0, or None"
            )
