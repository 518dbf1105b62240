"""The two ways to a Redis server: one connection of our own, or a client of the app's."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.checks.keyspace import parse
from holistic_asgi_monitor.checks.names import Resolver
from holistic_asgi_monitor.checks.network import failing, hideable, joined
from holistic_asgi_monitor.checks.per_loop import PerLoop
from holistic_asgi_monitor.checks.redis_address import Address
from holistic_asgi_monitor.model import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client
    from redis.asyncio import RedisCluster as Cluster
    from redis.asyncio.connection import AbstractConnection

__all__ = ("Access", "Answer", "access")

CLIENT_NAME = "holistic-asgi-monitor"

# What a sentence may say of any server, and what its address begins with.
_OF_EVERY_SERVER = frozenset({"redis", "rediss", "valkey", "valkeys", "unix"})
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
    """One connection in each event loop, kept from round to round, made anew where it was cut."""

    def __init__(self, url: str, name: str) -> None:
        address = Address.parse(url, name)
        self._options = {**address.options, **_OURS}
        self.place = _place(self._options, address.secrets, _OF_EVERY_SERVER | {name})
        self._like = _connection(self._options, name)
        host = self._options.get("host", "localhost")
        self._resolver = None if "path" in self._options else Resolver(host, name)
        self._wires = PerLoop(self._wire)

    async def ask(self) -> Answer:
        """Ask; who asks at the same time waits for the connection."""
        for wire in self._wires.orphans():
            await wire.drop()
        wire = self._wires.here()
        async with wire.lock:
            return await wire.ask()

    async def aclose(self) -> None:
        """Close the connection of this event loop, without waiting for the server."""
        wire = self._wires.known()
        if wire is not None:
            await wire.drop()

    def _wire(self) -> _Wire:
        connection: Any = _made(self._options)
        if hasattr(self._like, "ssl_context"):
            # It has read the files of the certificates, which no round must wait for.
            connection.ssl_context = self._like.ssl_context
        return _Wire(connection, self._resolver)


class _Wire:
    """A connection to one server in one event loop; `lock` is for those who ask by it."""

    def __init__(self, connection: Any, resolver: Resolver | None) -> None:
        self.lock = asyncio.Lock()
        self._connection = connection
        self._resolver = resolver
        self._transport: asyncio.WriteTransport | None = None
        if resolver is not None:
            _name(connection)

    async def ask(self) -> Answer:
        """Ask, a second time where the connection was cut since it was last used."""
        from redis.exceptions import ConnectionError as NoConnection

        if self._connection.is_connected:
            with suppress(NoConnection):
                return await self._ask()
        return await self._ask()

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
            await self.drop()
            raise

    async def _connect(self) -> bool:
        """Connect where that is needed, and tell whether it was."""
        if self._connection.is_connected:
            return False
        await self._connect_somewhere()
        writer = self._connection._writer  # noqa: SLF001 - to be closed without TLS's farewell
        self._transport = None if writer is None else writer.transport
        return True

    async def _connect_somewhere(self) -> None:
        """Connect to the first address that lets us in."""
        addresses = [None] if self._resolver is None else await self._resolver.addresses()
        for number, address in enumerate(addresses, 1):
            if address is not None:
                self._connection.host = address
            try:
                await self._connection.connect()
            except Exception as error:
                # What a server says of itself, for example of a password, is the answer.
                if failing(error) is None or number == len(addresses):
                    raise
            else:
                break

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

    async def drop(self) -> None:
        """Close the connection at once: no farewell, and no waiting for one."""
        transport, self._transport = self._transport, None
        # The event loop that it belongs to may be closed; and one that was closed with something
        # left to send, and has sent it, has forgotten its loop.
        with suppress(AttributeError, RuntimeError):
            if transport is not None:
                transport.abort()
        with suppress(RuntimeError):
            await self._connection.disconnect(nowait=True)


def _name(connection: Any) -> None:
    """Have the certificate be that of the host as it is now, whatever address is put in there."""
    arguments, host = connection._connection_arguments, connection.host  # noqa: SLF001 - no other way

    def named() -> dict[str, Any]:
        given = dict(arguments())
        return {**given, "server_hostname": host} if "ssl" in given else given

    connection._connection_arguments = named  # noqa: SLF001 - as above


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


def _connection(options: dict[str, Any], name: str) -> AbstractConnection:
    """A connection like those to come, which shows now whether they can be made."""
    from redis.exceptions import RedisError

    try:
        connection = _made(options)
        context = getattr(connection, "ssl_context", None)
        if context is not None:
            context.get()
    except (OSError, RedisError, TypeError, ValueError):
        raise ConfigurationError(
            f"The URL of the check {name} has parameters that cannot be used"
        ) from None
    return connection


def _made(options: dict[str, Any]) -> AbstractConnection:
    given = {name: value for name, value in options.items() if name != "connection_class"}
    connection: AbstractConnection = options["connection_class"](**given, **_unintroduced())
    return connection


def _unintroduced() -> dict[str, None]:
    """What keeps the driver from introducing itself, which hides what a server says first."""
    from redis.asyncio.connection import AbstractConnection

    known = signature(AbstractConnection.__init__).parameters
    return (
        {"driver_info": None} if "driver_info" in known else {"lib_name": None, "lib_version": None}
    )


def _place(
    options: Mapping[str, Any], secrets: Iterable[str] = (), words: Iterable[str] = _OF_EVERY_SERVER
) -> Place:
    """Where a connection with these options leads; `words` are shown with it."""
    host = str(options.get("host", "localhost"))
    where = options.get("path") or joined(host, int(options.get("port", 6379)))
    database, user = str(options.get("db") or 0), str(options.get("username") or "")
    known = {str(options.get("password") or ""), *secrets}
    return Place(where, database, user, hideable(known, where, host, database, user, *words))


def _pool_place(client: Client) -> Place:
    """Where a client leads, which is Sentinel's to say where there is one."""
    pool = client.connection_pool
    place = _place(pool.connection_kwargs)
    service = getattr(pool, "service_name", None)
    return place if service is None else replace(place, where=str(service))


def _cluster_place(client: Cluster) -> Place:
    """The first node of a cluster that we were told of."""
    return Place(next(iter(client.nodes_manager.startup_nodes), "its cluster"))
