"""The lease of a service in PostgreSQL: a row with its holder, and until when it is his."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ("PostgresLease",)

Ask = Callable[[Callable[[Any], Awaitable[Any]]], Awaitable[Any]]
"""Has something done with a connection of asyncpg."""


class PostgresLease:
    """The row that `key` names of the service in `table`, which has service, key, text and written.

    `written` is when the lease ends, by the clock of the database alone. What fails raises what
    `ask` raises; `end` closes the connection.
    """

    def __init__(
        self,
        ask: Ask,
        end: Callable[[], Awaitable[None]],
        *,
        table: str,
        service: str,
        key: Callable[[], str],
        seconds: float,
    ) -> None:
        self._ask = ask
        self._end = end
        self._table = table
        self._service, self._key = service, key
        self._seconds = seconds

    async def hold(self, holder: str) -> bool:
        """Take it where it is free, or go on holding it; whether it is the holder's."""
        statement = f"""INSERT INTO {self._table} AS known
            VALUES ($1, $2, $3, extract(epoch FROM clock_timestamp()) + $4::float8)
            ON CONFLICT (service, key) DO UPDATE
            SET text = excluded.text, written = excluded.written
            WHERE known.text = excluded.text
               OR known.written < extract(epoch FROM clock_timestamp())
            RETURNING true"""  # noqa: S608 - the table is ours
        row = self._service, self._key()
        return bool(
            await self._ask(lambda line: line.fetchval(statement, *row, holder, self._seconds))
        )

    async def release(self, holder: str) -> None:
        """Free it, where it is the holder's, and end the connection."""
        statement = f"DELETE FROM {self._table} WHERE service = $1 AND key = $2 AND text = $3"  # noqa: S608 - the table is ours
        row = self._service, self._key()
        try:
            await self._ask(lambda line: line.execute(statement, *row, holder))
        finally:
            await self._end()
