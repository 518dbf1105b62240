"""The check of a PostgreSQL database, by its address or through a pool of the app's."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.loops import running_loop
from holistic_asgi_monitor.checks.pools import (
    COUNTING,
    QUESTION,
    Answer,
    Connections,
    Load,
    Source,
    settled,
    timed,
    to_pool,
)
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.sqlstates import sqlstate, told, was_cut
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, MissingExtraError, Status
from holistic_asgi_monitor.settings import Settings

if TYPE_CHECKING:
    import asyncpg

__all__ = ("Connections", "Postgres")

APPLICATION_NAME = "holistic-asgi-monitor"
SLOW_MS = 3000.0

_EXHAUSTED = "53300"
_NOT_ALLOWED = "42"
"""The class of the SQLSTATE where a server does not know, or does not show, what was asked for."""
_PATIENCE_OF_POOLS = frozenset({"PoolTimeout", "TimeoutError", "TooManyRequests"})


class Postgres(Probe):
    """Asks a PostgreSQL server something, and says how many connections are in use.

    It is given an address, for a connection of its own, or a pool of the app's: asyncpg's,
    psycopg's or the AsyncEngine of SQLAlchemy. No answer is critical where `required`, else
    degraded. Slow (above `slow_ms`, else MONITOR_DATABASE_SLOW_MS) is degraded, and so is a
    pool with all its connections in use. By an address the app's pool is not seen: then
    `connections`, else MONITOR_DATABASE_CONNECTIONS, is how many may be in use at most, and
    without it only the server's own limit counts.

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
        self.secrets = self._source.address.secrets

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
        where = self._source.address.where
        sentence = f"PostgreSQL at {where} gave no answer {how_long}"
        return UnwellError(sentence, details=self._details())

    def _unwell(self, error: BaseException) -> UnwellError:
        """What `error` means; nothing of its text is in it."""
        if not sqlstate(error) and type(error).__name__ in _PATIENCE_OF_POOLS:
            return self._silence("in the time that its driver allows")
        # The server is there, and those who have a connection are served: it is full.
        status = Status.DEGRADED if sqlstate(error) == _EXHAUSTED else None
        sentence = told(error, self._source.address)
        return UnwellError(sentence, status=status, details=self._details())


class _Own(Source):
    """A connection of the monitor's own, kept from one question to the next."""

    def __init__(self, address: Address) -> None:
        try:
            import asyncpg
        except ImportError:
            raise MissingExtraError("checks.Postgres", "postgres") from None
        self.address = address
        self.whose = f"{f'of user {address.user} ' if address.user else ''}to {address.shown}"
        self._connect = asyncpg.connect
        self._question = COUNTING
        self._kept: tuple[asyncio.AbstractEventLoop, asyncpg.Connection[Any]] | None = None

    async def ask(self) -> Answer:
        self.asking = True
        connection = self._taken() or await self._opened()
        try:
            answer = await self._asked(connection)
        except BaseException:
            connection.terminate()
            await settled()
            raise
        if self._kept is None:
            self._kept = asyncio.get_running_loop(), connection
        else:
            # Somebody asked at the same time.
            connection.terminate()
        return answer

    async def aclose(self) -> None:
        """End the connection, if there is one; the next question opens another."""
        connection = self._taken()
        if connection is not None:
            connection.terminate()
            await settled()

    async def _opened(self) -> asyncpg.Connection[Any]:
        named = {} if self.address.application_name else {"application_name": APPLICATION_NAME}
        connection: asyncpg.Connection[Any] = await self._connect(
            self.address.dsn,
            timeout=None,
            # Without a cache no statement has a name, which PgBouncer would not know again.
            statement_cache_size=0,
            server_settings=named,
            loop=_QuietLoop(asyncio.get_running_loop()),
        )
        return connection

    async def _asked(self, connection: asyncpg.Connection[Any]) -> Answer:
        try:
            return await timed(connection.fetchrow(self._question))
        except Exception as error:
            if self._question is QUESTION or not sqlstate(error).startswith(_NOT_ALLOWED):
                raise
        # Numbers are not to be had from this server, or by this user.
        self._question = QUESTION
        return await timed(connection.fetchrow(QUESTION))

    def _taken(self) -> asyncpg.Connection[Any] | None:
        """The connection that was kept, if it is open and of this event loop."""
        if self._kept is None:
            return None
        (loop, connection), self._kept = self._kept, None
        if loop is running_loop():
            return None if connection.is_closed() else connection
        try:
            loop.call_soon_threadsafe(connection.terminate)
        except RuntimeError:
            # That loop has ended: it lets us take leave of the server, and no more.
            with contextlib.suppress(RuntimeError):
                connection.terminate()
        return None


class _QuietLoop:
    """An event loop, for asyncpg to connect by.

    Where asyncpg is cancelled between the connection and its first word about TLS, it forgets a
    future that is then told of the connection's end: asyncio would log an error that nobody saw.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], *place: Any, **options: Any
    ) -> Any:
        """Connect as the loop does, and have nothing wait for what is given up."""
        made: list[asyncio.Protocol] = []

        def remembered() -> asyncio.Protocol:
            made.append(factory())
            return made[-1]

        try:
            return await self._loop.create_connection(remembered, *place, **options)
        except BaseException:
            for future in (getattr(protocol, "on_data", None) for protocol in made):
                if isinstance(future, asyncio.Future):
                    future.cancel()
            raise


def _source(target: object) -> Source:
    return _Own(Address.parse(target)) if isinstance(target, str) else to_pool(target)


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
