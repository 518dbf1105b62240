"""One connection of our own, opened when it is needed, and again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.store import StoreError, UnusableStoreError
from holistic_asgi_monitor.model import MissingExtraError

if TYPE_CHECKING:
    import asyncpg

__all__ = ("HeldUpError", "Line")

T = TypeVar("T")
CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0


class HeldUpError(StoreError):
    """The tables cannot be changed now; everything else goes on."""


class Line:
    """Asks one after the other. `patience` is how many seconds an answer may take."""

    def __init__(self, address: Address, patience: float = 30.0) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise MissingExtraError("MONITOR_HISTORY_URL with PostgreSQL", "postgres") from error
        self._address = address
        self._patience = patience
        self._connect = asyncpg.connect
        self._broken = (
            OSError,
            asyncpg.AdminShutdownError,
            asyncpg.InterfaceError,
            asyncpg.PostgresConnectionError,
        )
        self._kept: tuple[object, asyncpg.Connection[Any]] | None = None

    async def ask(
        self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]], *, again: bool = True
    ) -> T:
        """What `work` returns; `StoreError` with a sentence of ours for whatever it raises.

        Where the connection that was kept turns out to be broken, it is asked once more on a new
        one, unless `again` says that this must not be.
        """
        if anyio.get_cancelled_exc_class() is not asyncio.CancelledError:
            raise UnusableStoreError("PostgreSQL is reached by asyncpg, which runs on asyncio only")
        try:
            async with asyncio.timeout(self._patience):
                kept = self._kept is not None
                try:
                    return await self._once(work)
                except self._broken:
                    if not (kept and again):
                        raise
                return await self._once(work)
        except Exception as error:
            raise _said(error, self._address) from None

    async def _once(self, work: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
        connection = await self._opened()
        try:
            return await work(connection)
        except BaseException:
            # Whatever state it is in, and however slow the network: not again.
            self._abort()
            raise

    async def close(self) -> None:
        """End the connection politely, else at once."""
        kept, self._kept = self._kept, None
        if kept is None or kept[0] is not asyncio.get_running_loop():
            return
        try:
            await kept[1].close(timeout=CLOSE_SECONDS)
        except Exception:
            # It is of no further use, whatever is wrong with it.
            kept[1].terminate()

    async def _opened(self) -> asyncpg.Connection[Any]:
        loop = asyncio.get_running_loop()
        if self._kept is not None and (self._kept[0] is not loop or self._kept[1].is_closed()):
            self._abort()
        if self._kept is None:
            connection: asyncpg.Connection[Any] = await self._connect(
                self._address.dsn,
                timeout=CONNECT_SECONDS,
                # Poolers in between know no prepared statements.
                statement_cache_size=0,
                server_settings={"application_name": "holistic-asgi-monitor history"},
            )
            self._kept = loop, connection
        return self._kept[1]

    def _abort(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(RuntimeError):  # its event loop may have ended
                kept[1].terminate()


def _said(error: Exception, address: Address) -> StoreError:
    """A sentence of ours for what the driver raised; its own text is never shown."""
    if isinstance(error, StoreError):
        return error
    names = [base.__name__ for base in type(error).__mro__]
    for name, sentence in _SENTENCES.items():
        if name in names:
            kind = HeldUpError if name in _HOLDING_UP else StoreError
            return kind(
                sentence.format(where=address.shown, database=address.database, **_user(address))
            )
    return StoreError(f"PostgreSQL at {address.shown} refuses ({type(error).__name__})")


def _user(address: Address) -> dict[str, str]:
    """Our user as the subject of a sentence, and in a statement."""
    if address.user:
        return {"user": f"user {address.user}", "name": address.user}
    return {"user": "the user, whom the address does not name,", "name": "<user>"}


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
