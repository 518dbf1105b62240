"""The two ways to a Redis server: one connection of our own, or a client of the app's."""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.checks.keyspace import parse
from holistic_asgi_monitor.checks.network import joined
from holistic_asgi_monitor.model import ConfigurationError, MissingExtraError
from holistic_asgi_monitor.redaction import passwords

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client
    from redis.asyncio import RedisCluster as Cluster
    from redis.asyncio.connection import AbstractConnection

__all__ = ("Access", "Answer", "access")

CLIENT_NAME = "holistic-asgi-monitor"

_ALLOWED = "allowed are redis://, rediss:// and unix:// URLs"
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+]{0,19})(?=://)", re.IGNORECASE)
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
# Of a URL that was written for the app we take the way to the server; limits are our own.
_TAKEN = re.compile(r"connection_class|host|port|path|db|username|password|ssl_.*")
_OURS = {
    "decode_responses": True,
    "encoding_errors": "replace",
    "protocol": 2,
    "socket_connect_timeout": None,
    "socket_timeout": None,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How long the ping took, and what the server says of itself; nothing if it may not."""

    milliseconds: float
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and who we are there; `where`, `user` and `database` may be shown."""

    where: str
    database: str = "0"
    user: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


class Access(ABC):
    """A way to ask a server."""

    place: Place

    @abstractmethod
    async def ask(self) -> Answer:
        """Ask once; raises what the driver does.

        May be cancelled at any await: nobody is then left with half an answer.
        """

    @property
    def full(self) -> int | None:
        """How many connections are all in use; None where there is a free one."""
        return None

    async def aclose(self) -> None:  # noqa: B027 - what is not our own is not ours to close
        """Let go of what is our own."""


def access(server: object, name: str) -> Access:
    """The way to `server`, a URL or a client, for the check `name`."""
    try:
        from redis.asyncio import Redis, RedisCluster
    except ImportError:
        raise MissingExtraError("checks.Redis", "redis") from None
    if isinstance(server, str):
        return OwnConnection(server, name)
    if isinstance(server, Redis):
        return OfApp(server, _pool_place(server), server.connection_pool)
    if isinstance(server, RedisCluster):
        return OfApp(server, _cluster_place(server), None)
    raise ConfigurationError(
        f"The check {name} is given a {type(server).__name__}; "
        "allowed are a URL and a client of redis.asyncio"
    )


class OwnConnection(Access):
    """One connection that is kept from round to round, and made anew where it was cut."""

    def __init__(self, url: str, name: str) -> None:
        options = _options(url, name)
        self.place = _place(options, url)
        self._connection = _connection(options, name)
        self._transport: asyncio.WriteTransport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    async def ask(self) -> Answer:
        """Ask, a second time where the connection was cut since it was last used."""
        from redis.exceptions import ConnectionError as NoConnection

        await self._enter()
        async with self._lock:
            if self._connection.is_connected:
                with suppress(NoConnection):
                    return await self._ask()
            return await self._ask()

    async def aclose(self) -> None:
        """Close the connection, without waiting for the server."""
        await self._drop()

    async def _enter(self) -> None:
        """Leave behind what belongs to an event loop that is not this one."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            await self._drop()
            self._loop, self._lock = loop, asyncio.Lock()

    async def _ask(self) -> Answer:
        try:
            fresh = await self._connect()
            began = time.perf_counter()
            await self._say("PING")
            milliseconds = round((time.perf_counter() - began) * 1000, 3)
            if fresh:
                await self._say_if_allowed("CLIENT", "SETNAME", CLIENT_NAME)
            return Answer(milliseconds, parse(await self._say_if_allowed("INFO") or ""))
        except BaseException:
            # A cancellation too: what the server says later must not answer the next question.
            await self._drop()
            raise

    async def _connect(self) -> bool:
        """Connect where that is needed, and tell whether it was."""
        if self._connection.is_connected:
            return False
        await self._connection.connect()  # type: ignore[no-untyped-call]  # redis says no types
        writer = self._connection._writer  # noqa: SLF001 - to be closed without TLS's farewell
        self._transport = None if writer is None else writer.transport
        return True

    async def _say(self, *command: str) -> Any:
        await self._connection.send_command(*command)
        return await self._connection.read_response()

    async def _say_if_allowed(self, *command: str) -> str | None:
        """The server's answer; None where a user like ours, or nobody, may have it."""
        from redis.exceptions import ResponseError

        try:
            return str(await self._say(*command))
        except ResponseError:
            return None

    async def _drop(self) -> None:
        """Close the connection at once: no farewell, and no waiting for one."""
        transport, self._transport = self._transport, None
        # The event loop that it belongs to may be closed.
        with suppress(RuntimeError):
            if transport is not None:
                transport.abort()
        with suppress(RuntimeError):
            await self._connection.disconnect(nowait=True)


class OfApp(Access):
    """A client that the app uses too; its limits and its retries are its own."""

    def __init__(self, client: Client | Cluster, place: Place, pool: Any) -> None:
        self.place = place
        self._client = client
        self._pool = pool

    @property
    def full(self) -> int | None:
        """How many connections the pool has, where all are in use."""
        free = getattr(self._pool, "can_get_connection", None)
        return self._pool.max_connections if free is not None and not free() else None

    async def ask(self) -> Answer:
        """Ask by the client's own methods, which give a connection up that is cancelled."""
        from redis.exceptions import ResponseError

        began = time.perf_counter()
        await self._client.ping()
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        try:
            info = await self._client.info()
        except ResponseError:
            info = {}
        return Answer(milliseconds, info)


def _options(url: str, name: str) -> dict[str, Any]:
    """What a connection is made with; nothing of a wrong URL is told but its scheme."""
    from redis.asyncio.connection import Connection, parse_url

    found = _SCHEME.match(url.strip())
    if found is None:
        raise ConfigurationError(f"The URL of the check {name} cannot be read; {_ALLOWED}")
    scheme = found["scheme"].lower()
    if scheme not in _SCHEMES:
        raise ConfigurationError(f"The URL of the check {name} begins with {scheme}://; {_ALLOWED}")
    try:
        read = parse_url(_SCHEME.sub(_SCHEMES[scheme], url.strip(), count=1))
    except ValueError:
        # Its text may be a piece of the password.
        raise ConfigurationError(
            f"The URL of the check {name} cannot be read; {_ALLOWED}, "
            "where the signs : / ? # @ in a password are written as %3A %2F %3F %23 %40"
        ) from None
    taken = {option: value for option, value in read.items() if _TAKEN.fullmatch(option)}
    return {"connection_class": Connection, **taken, **_OURS}


def _connection(options: dict[str, Any], name: str) -> AbstractConnection:
    from redis.exceptions import RedisError

    make = options.pop("connection_class")
    try:
        connection: AbstractConnection = make(**options, **_unintroduced())
        context = getattr(connection, "ssl_context", None)
        if context is not None:
            # Reads the files of the certificates, which the first round must not wait for.
            context.get()
    except (OSError, RedisError, TypeError, ValueError):
        raise ConfigurationError(
            f"The URL of the check {name} has parameters that cannot be used"
        ) from None
    return connection


def _unintroduced() -> dict[str, None]:
    """What keeps the driver from introducing itself, which hides what a server says first."""
    from redis.asyncio.connection import AbstractConnection

    known = signature(AbstractConnection.__init__).parameters
    return (
        {"driver_info": None} if "driver_info" in known else {"lib_name": None, "lib_version": None}
    )


def _place(options: Mapping[str, Any], url: str = "") -> Place:
    """Where a connection with these options leads."""
    where = options.get("path") or joined(
        str(options.get("host", "localhost")), int(options.get("port", 6379))
    )
    known = {url, str(options.get("password") or ""), *passwords(url)}
    return Place(
        where=where,
        database=str(options.get("db") or 0),
        user=str(options.get("username") or ""),
        secrets=tuple(sorted(known - {""})),
    )


def _pool_place(client: Client) -> Place:
    """Where a client leads, which is Sentinel's to say where there is one."""
    pool = client.connection_pool
    place = _place(pool.connection_kwargs)
    service = getattr(pool, "service_name", None)
    return place if service is None else replace(place, where=str(service))


def _cluster_place(client: Cluster) -> Place:
    """The first node of a cluster that we were told of."""
    return Place(next(iter(client.nodes_manager.startup_nodes), "its cluster"))
