"""How PostgreSQL is asked through a pool that the app has: asyncpg's, psycopg's, SQLAlchemy's.

None of the drivers is imported here; a pool is known by the module that its class comes from.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.loops import running_loop
from holistic_asgi_monitor.model import ConfigurationError, Status

__all__ = (
    "COUNTING",
    "QUESTION",
    "Answer",
    "Connections",
    "Load",
    "Source",
    "settled",
    "timed",
    "to_pool",
)

QUESTION = (
    "SELECT current_setting('server_version'), pg_is_in_recovery(),"
    " current_setting('transaction_read_only') = 'on'"
)
# Of the sessions of this user in this database all but our own are counted, and of the server's
# all. Who is no superuser is not shown what sort of session others have, but that they have a
# user and a database: background workers of the server lack one of both.
_OURS = """backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND datname = current_database() AND usename = session_user"""
COUNTING = f"""{QUESTION},
  current_setting('max_connections')::int
    - current_setting('superuser_reserved_connections')::int
    - coalesce(current_setting('reserved_connections', true)::int, 0),
  (count(*) FILTER (WHERE {_OURS} AND state = 'idle'))::int,
  (count(*) FILTER (WHERE {_OURS}))::int,
  (count(*) FILTER (WHERE coalesce(backend_type, 'client backend') = 'client backend'))::int
FROM pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL"""
RELEASE_SECONDS = 1.0
_POOL = "the pool of database connections"


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections there are, and what they do."""

    in_use: int
    idle: int
    size: int


@dataclass(frozen=True, slots=True)
class Load:
    """How full a pool is: its connections, how many it may have, and how many callers wait.

    None stands for no limit, and for a number that the pool does not tell.
    """

    connections: Connections
    maximum: int | None = None
    waiters: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether a caller must wait until another one lets go."""
        return self.maximum is not None and self.connections.in_use >= self.maximum


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, and after how many milliseconds.

    `connections`, `server_maximum` and `server_size` are what the server tells of itself, where
    it was asked: the sessions of this user in this database, how many clients it may have, and how
    many it has.
    """

    version: str
    in_recovery: bool
    read_only: bool
    milliseconds: float
    connections: Connections | None = None
    server_maximum: int | None = None
    server_size: int | None = None

    @property
    def server_full(self) -> bool:
        """Whether the next client is refused."""
        if self.server_maximum is None or self.server_size is None:
            return False
        return self.server_size >= self.server_maximum


class Source(ABC):
    """A way to ask one PostgreSQL server.

    `asking` says whether the last question went on to the server, or waits in a pool's queue;
    `naming` whether it waits for the address of the server's name; `whose` is said of the
    connections that are counted.
    """

    address = Address("the address of the pool")
    whose = "of the pool"
    asking = False
    naming = False

    def load(self) -> Load | None:
        """How full the pool is, as far as that is known without asking the server.

        `UnwellError` where the pool cannot be asked at all.
        """
        return None

    @abstractmethod
    async def ask(self) -> Answer:
        """Ask the server; raises whatever the driver does.

        It has no time limit. Where it is cancelled or fails, the connection is ended.
        """

    async def aclose(self) -> None:  # noqa: B027 - a pool is its owner's to close
        """End what is kept from one question to the next."""


async def timed(row: Awaitable[Sequence[Any] | None]) -> Answer:
    """The answer in `row`: the columns of `QUESTION`, or those of `COUNTING`."""
    began = time.perf_counter()
    columns = await row
    elapsed = (time.perf_counter() - began) * 1000
    assert columns is not None
    # The version's first word: packagers add theirs behind it.
    version = str(columns[0]).partition(" ")[0]
    answer = Answer(version, bool(columns[1]), bool(columns[2]), round(elapsed, 3))
    if len(columns) == 3:
        return answer
    maximum, idle, size, all_of_server = columns[3:]
    return replace(
        answer,
        connections=Connections(size - idle, idle, size),
        server_maximum=maximum,
        server_size=all_of_server,
    )


async def settled() -> None:
    """Let the event loop end what was aborted: a socket is closed in its next turn."""
    await cancel_shielded_checkpoint()
    await cancel_shielded_checkpoint()


class _AsyncpgPool(Source):
    def __init__(self, pool: Any) -> None:
        self._pool = pool
        # Not public, and for show alone: without them the sentences name no host.
        arguments, options = (
            getattr(pool, "_connect_args", ()),
            getattr(pool, "_connect_kwargs", {}),
        )
        self.address = _address([*arguments, options.get("dsn")], options)

    def load(self) -> Load:
        pool = self._pool
        if getattr(pool, "_loop", None) is not running_loop():
            raise UnwellError(f"{_POOL} belongs to another event loop", status=Status.UNKNOWN)
        if pool.is_closing():
            raise UnwellError(f"{_POOL} is closed")
        if not getattr(pool, "_initialized", True):
            raise UnwellError(f"{_POOL} is not open yet")
        size, idle = pool.get_size(), pool.get_idle_size()
        waiting = getattr(getattr(pool, "_queue", None), "_getters", None)
        waiters = None if waiting is None else sum(not waiter.done() for waiter in waiting)
        return Load(Connections(size - idle, idle, size), pool.get_max_size(), waiters)

    async def ask(self) -> Answer:
        # Not public either: without it the question waits in the queue like everybody's.
        spare = getattr(self._pool, "_get_new_connection", None)
        if spare is not None and self.load().exhausted:
            return await self._ask_aside(spare)
        # Without the pool's own timeout, in whose task a connection can be lost.
        connection = await self._pool.acquire()
        self.asking = True
        try:
            answer = await timed(connection.fetchrow(QUESTION))
            await self._pool.release(connection, timeout=RELEASE_SECONDS)
        except BaseException:
            # Released already where the cancellation came with the end of the release.
            with contextlib.suppress(Exception):
                connection.terminate()
            await settled()
            raise
        return answer

    async def _ask_aside(self, spare: Callable[[], Awaitable[Any]]) -> Answer:
        """Ask beside a pool with all in use: those may all be waiting for a silent server."""
        self.asking = True
        connection = await spare()
        try:
            return await timed(connection.fetchrow(QUESTION))
        finally:
            connection.terminate()
            await settled()


class _PsycopgPool(Source):
    """Asked on a connection that is made as the pool makes its own, and ended at once.

    The pool counts those that it tries to make among its connections, and keeps a caller in its
    queue who has left: through it, silence of the server would look like a pool in use.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        with contextlib.suppress(Exception):  # for show alone, and it may be anything
            from psycopg.conninfo import conninfo_to_dict

            options = conninfo_to_dict(pool.conninfo, **(pool.kwargs or {}))
            self.address = _address([], options | {"database": options.get("dbname")})

    def load(self) -> Load:
        if self._pool.closed:
            raise UnwellError(f"{_POOL} is not open")
        known = self._pool.get_stats()
        size, idle = known.get("pool_size", 0), known.get("pool_available", 0)
        # A pool that keeps no connections has no size either, but may have a limit.
        maximum = known.get("pool_max") or None
        return Load(Connections(size - idle, idle, size), maximum, known.get("requests_waiting", 0))

    async def ask(self) -> Answer:
        self.asking = True
        pool = self._pool
        address, options = await _value(pool.conninfo), await _value(pool.kwargs)
        connection = await pool.connection_class.connect(address or "", **(options or {}))
        try:
            return await timed(_psycopg_row(connection))
        finally:
            connection.pgconn.finish()


async def _value(given: Any) -> Any:
    """What a pool was given: a value, or a function for it, async or not."""
    value = given() if callable(given) else given
    return await value if inspect.isawaitable(value) else value


async def _psycopg_row(connection: Any) -> Sequence[Any] | None:
    from psycopg.rows import tuple_row

    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(QUESTION)
        row: Sequence[Any] | None = await cursor.fetchone()
        return row


class _Engine(Source):
    def __init__(self, engine: Any) -> None:
        if engine.dialect.name != "postgresql":
            raise ConfigurationError(
                f"checks.Postgres is given an engine for {engine.dialect.name}; "
                "allowed is one for PostgreSQL"
            )
        self._engine = engine
        url = engine.url
        options = {"host": url.host, "port": url.port, "user": url.username}
        self.address = _address([], options | {"database": url.database, "password": url.password})

    def load(self) -> Load | None:
        pool = self._engine.pool
        if not hasattr(pool, "checkedin"):
            return None
        in_use, idle, more = pool.checkedout(), pool.checkedin(), getattr(pool, "_max_overflow", -1)
        maximum = None if more < 0 else pool.size() + more
        return Load(Connections(in_use, idle, in_use + idle), maximum)

    async def ask(self) -> Answer:
        connection = await self._engine.connect()
        self.asking = True
        try:
            answer = await timed(_engine_row(connection))
            await connection.close()
        except BaseException:
            with (
                anyio.move_on_after(RELEASE_SECONDS, shield=True),
                contextlib.suppress(Exception),
            ):
                await connection.invalidate()
                await connection.close()
            await settled()
            raise
        return answer


async def _engine_row(connection: Any) -> Sequence[Any]:
    row: Sequence[Any] = (await connection.exec_driver_sql(QUESTION)).one()
    return row


def to_pool(target: object) -> Source:
    """The way through `target`; a `ConfigurationError` where it is no pool that we know."""
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(target).__mro__}
    if ("asyncpg", "Pool") in bases:
        return _AsyncpgPool(target)
    if ("psycopg_pool", "AsyncConnectionPool") in bases:
        return _PsycopgPool(target)
    if ("sqlalchemy", "AsyncEngine") in bases:
        return _Engine(target)
    raise ConfigurationError(
        f"checks.Postgres is given {type(target).__name__}; allowed are a postgresql:// address, "
        "an asyncpg.Pool, a psycopg_pool.AsyncConnectionPool and an AsyncEngine of SQLAlchemy"
    )


def _address(addresses: Sequence[object], options: Mapping[str, Any]) -> Address:
    """What is known of where a pool leads to; it is for show alone."""
    for text in addresses:
        if isinstance(text, str):
            with contextlib.suppress(ConfigurationError):
                return Address.parse(text)
    host, password = options.get("host"), options.get("password")
    if not isinstance(host, str):
        return Source.address
    where = host if host.startswith("/") else f"{host}:{options.get('port') or 5432}"
    user, database = str(options.get("user") or ""), str(options.get("database") or "")
    secrets = (password,) if isinstance(password, str) and password else ()
    return Address(where, database, user, secrets=secrets)
