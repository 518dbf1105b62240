"""A connection of the monitor's own to PostgreSQL: how it is made, and how long it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.loops import StillRunningError, running_loop
from holistic_asgi_monitor.checks.names import Resolver
from holistic_asgi_monitor.checks.pools import COUNTING, QUESTION, Answer, Source, settled, timed
from holistic_asgi_monitor.checks.probe import seconds_left
from holistic_asgi_monitor.checks.sqlstates import next_may_do, sqlstate
from holistic_asgi_monitor.connecting import ConnectingLoop
from holistic_asgi_monitor.model import MissingExtraError

if TYPE_CHECKING:
    import asyncpg

__all__ = ("KEPT_SECONDS", "Own")

APPLICATION_NAME = "holistic-asgi-monitor"
KEPT_SECONDS = 60.0
MOMENT_SECONDS = 0.02

_NOT_ALLOWED = "42"
"""The class of the SQLSTATE where a server does not know, or does not show, what was asked for."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Kept:
    """An open connection, the event loop it belongs to, and until when it will do."""

    connection: asyncpg.Connection[Any]
    loop: asyncio.AbstractEventLoop
    until: float


class Own(Source):
    """A connection of the monitor's own, kept from one question to the next for a minute.

    Then another one is made before it is ended: who is let in already does not see that nobody
    else is, for want of connections, or of a password that was changed. `clock` gives monotonic
    seconds.
    """

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        try:
            import asyncpg
        except ImportError:
            raise MissingExtraError("checks.Postgres", "postgres") from None
        self.address = address
        self.whose = f"{f'of user {address.user} ' if address.user else ''}to {address.shown}"
        self._connect = asyncpg.connect
        self._clock = clock
        self._question = COUNTING
        self._kept: _Kept | None = None
        self._names = _Names()
        # Made here: to read the authorities takes time, and holds everybody up.
        self._options = {"ssl": _system_context()} if address.system_authorities else {}

    async def ask(self) -> Answer:
        """Ask on the connection that is kept, or on a new one."""
        self.asking, self.naming = True, False
        kept = self._taken()
        if kept is None or self._clock() >= kept.until:
            kept = await self._renewed(kept)
        try:
            answer = await self._asked(kept.connection)
        except BaseException:
            kept.connection.terminate()
            await settled()
            raise
        if self._kept is None:
            self._kept = kept
        else:
            # Somebody asked at the same time.
            kept.connection.terminate()
        return answer

    async def aclose(self) -> None:
        """End the connection, if there is one; the next question opens another."""
        kept = self._taken()
        if kept is not None:
            kept.connection.terminate()
            await settled()

    async def _renewed(self, before: _Kept | None) -> _Kept:
        """A new connection in place of `before`, which is ended whatever comes."""
        try:
            connection = await _in_turn(list(self._ways()), next_may_do)
        finally:
            if before is not None:
                before.connection.terminate()
                await settled()
        return _Kept(connection, asyncio.get_running_loop(), self._clock() + KEPT_SECONDS)

    def _ways(self) -> Iterator[Callable[[], Awaitable[asyncpg.Connection[Any]]]]:
        """How to connect to each of the servers, in the order in which they are tried."""
        places, target = self.address.places, self.address.target
        if not places:
            yield self._opened
        elif target == "prefer-standby" and len(places) > 1:
            for wanted in ("standby", "any"):
                for host, port in places:
                    options = {"host": host, "port": port, "target_session_attrs": wanted}
                    yield partial(self._opened, **options)
        else:
            for host, port in places:
                yield partial(self._opened, host=host, port=port)

    async def _opened(self, **place: Any) -> asyncpg.Connection[Any]:
        named = {} if self.address.application_name else {"application_name": APPLICATION_NAME}
        loop = _OwnLoop(asyncio.get_running_loop(), self._address_of)
        try:
            connection: asyncpg.Connection[Any] = await self._connect(
                self.address.dsn,
                timeout=None,
                # Without a cache no statement has a name, which PgBouncer would not know again.
                statement_cache_size=0,
                server_settings=named,
                loop=loop,
                **self._options,
                **place,
            )
        except Exception as error:
            if loop.left_for_the_server:
                raise
            raise UnwellError(self._unusable(error)) from error
        return connection

    async def _address_of(self, host: str) -> list[str]:
        self.naming = True
        try:
            addresses = await self._names.addresses(host)
        except Exception:
            self.naming = False
            raise
        # Not where it is cancelled: then this is what took so long.
        self.naming = False
        return addresses

    def _unusable(self, error: Exception) -> str:
        """What is wrong where the driver does not even begin to connect."""
        files = self.address.files if isinstance(error, OSError) else ()
        if not self.address.files and "sslmode=verify" in self.address.dsn:
            files = ("sslrootcert",)
        if files:
            fault = "cannot be read" if isinstance(error, PermissionError) else "is missing"
            if isinstance(error, ssl.SSLError):
                fault = "holds no certificate or key that can be used"
            what = f"the file of {' or '.join(files)} {fault}"
        else:
            what = f"its driver cannot use the address or a variable PG... ({type(error).__name__})"
        return f"PostgreSQL at {self.address.where} was not asked: {what}"

    async def _asked(self, connection: asyncpg.Connection[Any]) -> Answer:
        try:
            return await timed(connection.fetchrow(self._question))
        except Exception as error:
            if self._question is QUESTION or not sqlstate(error).startswith(_NOT_ALLOWED):
                raise
        # Numbers are not to be had from this server, or by this user.
        self._question = QUESTION
        return await timed(connection.fetchrow(QUESTION))

    def _taken(self) -> _Kept | None:
        """The connection that was kept, if it is open and of this event loop."""
        kept, self._kept = self._kept, None
        if kept is None:
            return None
        if kept.loop is running_loop():
            return None if kept.connection.is_closed() else kept
        try:
            kept.loop.call_soon_threadsafe(kept.connection.terminate)
        except RuntimeError:
            # That loop has ended: it lets us take leave of the server, and no more.
            with contextlib.suppress(RuntimeError):
                kept.connection.terminate()
        return None


class _Names:
    """The addresses of hosts, each looked up in a thread of ours."""

    def __init__(self) -> None:
        self._resolvers: dict[str, Resolver] = {}

    async def addresses(self, host: str) -> list[str]:
        """Addresses as texts; raises what the socket module does."""
        if host not in self._resolvers:
            self._resolvers[host] = Resolver(host, f"PostgreSQL at {host}")
        while True:
            try:
                return await self._resolvers[host].addresses()
            except StillRunningError:
                # Of a round before: once it ends, the name service answers again, or not.
                await anyio.sleep(MOMENT_SECONDS)
            except RuntimeError as error:
                raise UnwellError("this process cannot start another thread") from error


class _OwnLoop(ConnectingLoop):
    """It has names looked up by `addresses_of`, and gives each of several addresses its share.

    Of the time that is left, that is. The names themselves go on to TLS. `left_for_the_server`
    says whether a connection was tried at all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        addresses_of: Callable[[str], Awaitable[list[str]]],
    ) -> None:
        super().__init__(loop)
        self.left_for_the_server = False
        self._addresses_of = addresses_of

    async def create_unix_connection(
        self, factory: Callable[[], asyncio.Protocol], path: str, **options: Any
    ) -> Any:
        """Connect as the loop does."""
        self.left_for_the_server = True
        return await self._loop.create_unix_connection(factory, path, **options)

    async def create_connection(
        self,
        factory: Callable[[], asyncio.Protocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> Any:
        """Connect to the first address of `host` that lets us in."""
        self.left_for_the_server = True
        connect = super().create_connection
        if host is None:
            return await connect(factory, **options)
        if options.get("ssl"):
            options.setdefault("server_hostname", host)
        ways = [
            partial(connect, factory, address, port, **options)
            for address in await self._addresses_of(host)
        ]
        return await _in_turn(ways, lambda error: isinstance(error, OSError))


async def _in_turn(
    ways: Sequence[Callable[[], Awaitable[_T]]], goes_on: Callable[[Exception], bool]
) -> _T:
    """What the first way leads to that leads anywhere.

    Each is given its share of the time that is left, and the last one all of it. What it raises
    is raised, as is at once whatever `goes_on` says no to.
    """
    for tried, way in enumerate(ways[:-1]):
        with anyio.move_on_after(seconds_left() / (len(ways) - tried)):
            try:
                return await way()
            except Exception as error:
                if not goes_on(error):
                    raise
    return await ways[-1]()


def _system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["postgresql"])
    return context
