"""One connection of our own, opened when it is needed, and again after a failure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio

from holistic_asgi_monitor.connecting import ConnectingLoop
from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.store import AwayError, StoreError, UnusableStoreError
from holistic_asgi_monitor.model import MissingExtraError

if TYPE_CHECKING:
    import asyncpg

__all__ = ("HeldUpError", "Line")

T = TypeVar("T")
SILENT_SECONDS = 3.0
"""How long a server may take to let us in, or to give a sign of life before a question."""
CLOSE_SECONDS = 1.0


class HeldUpError(StoreError):
    """The tables cannot be changed now; everything else goes on."""


class Line:
    """Asks one after the other. `patience` is how many seconds an answer may take.

    Each event loop has a connection of its own, and so has a forked child: what its parent was
    doing with the one that is there goes on there. A server that is `silent` for that many seconds
    is given up, by all who wait for it at that time.
    """

    def __init__(
        self, address: Address, *, patience: float = 30.0, silent: float = SILENT_SECONDS
    ) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise MissingExtraError("MONITOR_HISTORY_URL with PostgreSQL", "postgres") from error
        self._address = address
        self._patience = patience
        self._silent = silent
        self._connect = asyncpg.connect
        self._broken = (
            OSError,
            asyncpg.AdminShutdownError,
            asyncpg.InterfaceError,
            asyncpg.PostgresConnectionError,
        )
        self._kept: tuple[object, asyncpg.Connection[Any]] | None = None
        self._turn: tuple[object, anyio.Lock] | None = None
        self._given_up = float("-inf")
        self._pid = os.getpid()
        self._of_parents: list[object] = []
        self._leaving: set[asyncio.Task[None]] = set()

    async def ask(
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], *, again: bool = True
    ) -> T:
        """What `work` returns; `StoreError` with a sentence of ours for whatever it raises.

        Where the connection that was kept turns out to be broken, it is asked once more on a new
        one, unless `again` says that this must not be.
        """
        if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
            raise UnusableStoreError("PostgreSQL is reached by asyncpg, which runs on asyncio only")
        self._leave_to_the_parent()
        asked = asyncio.get_running_loop().time()
        async with self._own_turn():
            if self._given_up > asked:
                raise _said(TimeoutError(), self._address)
            try:
                async with asyncio.timeout(self._patience):
                    return await self._asked(work, again=again)
            except Exception as error:
                raise _said(error, self._address) from None

    async def _asked(
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], *, again: bool
    ) -> T:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._silent
        kept = self._kept is not None
        try:
            return await self._once(work, until)
        except self._broken:
            if not (kept and again) or self._given_up >= until:
                raise
        return await self._once(work, loop.time() + self._silent)

    async def _once(
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], until: float
    ) -> T:
        connection = await self._alive(until)
        try:
            return await work(connection)
        except asyncio.CancelledError:
            self._leave()
            raise
        except BaseException:
            # Whatever state it is in, and however slow the network: not again.
            self._abort()
            raise

    async def close(self) -> None:
        """End the connection politely, else at once."""
        self._leave_to_the_parent()
        if self._kept is not None and self._kept[0] is asyncio.get_running_loop():
            self._leave()
        self._kept = None
        await self._left()

    def _leave(self) -> None:
        """End the connection beside everything else, and what the server does for it.

        The driver asks the server to stop where an answer is no longer waited for.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            task = asyncio.get_running_loop().create_task(_ended(kept[1]))
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _left(self) -> None:
        """Wait until the connections are ended that are on their way there, in this event loop."""
        if not self._leaving:
            return
        loop = asyncio.get_running_loop()
        if leaving := [task for task in self._leaving if task.get_loop() is loop]:
            await asyncio.wait(leaving)

    async def _alive(self, until: float) -> asyncpg.Connection[Any]:
        """The connection, of a server that has given a sign of life by then; `loop.time()`."""
        try:
            async with asyncio.timeout_at(until):
                if not await self._answers(until - self._silent / 2):
                    self._abort()
                return await self._opened()
        except TimeoutError:
            self._given_up = max(until, asyncio.get_running_loop().time())
            self._abort()
            raise
        except BaseException:
            self._abort()
            raise

    async def _answers(self, until: float) -> bool:
        """Whether the connection that was kept says anything by then; `loop.time()`.

        Networks forget connections that rest, and tell neither end.
        """
        if self._kept is None or self._kept[0] is not asyncio.get_running_loop():
            return False
        try:
            async with asyncio.timeout_at(until):
                await self._kept[1].execute("SELECT 1")
        except self._broken:
            return False
        return True

    async def _opened(self) -> asyncpg.Connection[Any]:
        loop = asyncio.get_running_loop()
        if self._kept is None:
            # Two at a time would be more than was promised.
            await self._left()
            connection: asyncpg.Connection[Any] = await self._connect(
                self._address.dsn,
                timeout=2 * self._silent,
                # Poolers in between know no prepared statements.
                statement_cache_size=0,
                server_settings={"application_name": "holistic-asgi-monitor history"},
                loop=cast("asyncio.AbstractEventLoop", ConnectingLoop(loop)),
            )
            self._kept = loop, connection
        return self._kept[1]

    def _own_turn(self) -> anyio.Lock:
        """The turns of this event loop: in one that has ended nobody ends his."""
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = loop, anyio.Lock()
        return self._turn[1]

    def _leave_to_the_parent(self) -> None:
        """Begin anew in a forked child, without a word on a connection that its parent uses.

        Even to forget it would end it: so it is kept.
        """
        if self._pid != os.getpid():
            self._of_parents.append(self._kept)
            self._kept, self._turn, self._pid = None, None, os.getpid()

    def _abort(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(RuntimeError):  # its event loop may have ended
                kept[1].terminate()


async def _ended(connection: asyncpg.Connection[Any]) -> None:
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except Exception:
        # It is of no further use, whatever is wrong with it.
        connection.terminate()


def _said(error: Exception, address: Address) -> StoreError:
    """A sentence of ours for what the driver raised; its own text is never shown."""
    if isinstance(error, StoreError):
        return error
    names = [base.__name__ for base in type(error).__mro__]
    for name, sentence in _SENTENCES.items():
        if name in names:
            return _kind(name)(
                sentence.format(where=address.shown, database=address.database, **_user(address))
            )
    return StoreError(f"PostgreSQL at {address.shown} refuses ({type(error).__name__})")


def _kind(name: str) -> type[StoreError]:
    if name in _AWAY:
        return AwayError
    return HeldUpError if name in _HOLDING_UP else StoreError


def _user(address: Address) -> dict[str, str]:
    """Our user as the subject of a sentence, and in a statement."""
    if address.user:
        return {"user": f"user {address.user}", "name": address.user}
    return {"user": "the user, whom the address does not name,", "name": "<user>"}


_AWAY = (
    *("TimeoutError", "OSError", "ConnectionRefusedError", "CannotConnectNowError"),
    *("PostgresConnectionError", "InterfaceError", "AdminShutdownError"),
)
_HOLDING_UP = ("LockNotAvailableError", "NotOwnerError")
_SENTENCES = {
    "TimeoutError": "PostgreSQL at {where} gives no answer",
    "InvalidPasswordError": "PostgreSQL at {where} rejects the password of {user}",
    "InvalidAuthorizationSpecificationError": "PostgreSQL at {where} does not let {user} in",
    "InvalidCatalogNameError": "there is no such database as {where}",
    "SchemaRefusedError": (
        "{user} may not make the schema holistic_monitor at {where}: "
        "GRANT CREATE ON DATABASE {database} TO {name}, or make the schema for this user"
    ),
    "TablesRefusedError": (
        "{user} may not make tables in the schema holistic_monitor that is there at {where}: "
        "GRANT USAGE, CREATE ON SCHEMA holistic_monitor TO {name}, or name its owner in the address"
    ),
    "NotOwnerError": (
        "{user} may not change the tables of the schema holistic_monitor at {where}, "
        "which only their owner may: let one process at least run as their owner"
    ),
    "InsufficientPrivilegeError": (
        "{user} may not use the schema holistic_monitor that is there at {where}: "
        "GRANT USAGE ON SCHEMA holistic_monitor TO {name}, and GRANT SELECT, INSERT, UPDATE, "
        "DELETE ON ALL TABLES IN SCHEMA holistic_monitor TO {name}, "
        "or name its owner in the address"
    ),
    "LockNotAvailableError": (
        "another session, such as pg_dump, holds the tables of the history at {where}"
    ),
    "ReadOnlySQLTransactionError": "PostgreSQL at {where} may only be read: it is a standby",
    "UndefinedTableError": "PostgreSQL at {where} holds no history",
    "DiskFullError": "the disk of PostgreSQL at {where} is full",
    "TooManyConnectionsError": "PostgreSQL at {where} has no connection left",
    "CannotConnectNowError": "PostgreSQL at {where} is starting or ending",
    "ConnectionRefusedError": "PostgreSQL at {where} refuses connections",
    "OSError": "PostgreSQL at {where} cannot be reached",
    "PostgresConnectionError": "the connection to PostgreSQL at {where} broke off",
    "ClientConfigurationError": "the address of PostgreSQL at {where} has a wrong parameter",
    "InterfaceError": "the connection to PostgreSQL at {where} broke off",
    "AdminShutdownError": "PostgreSQL at {where} is starting or ending",
}
