"""What is read from the database, each call on one state of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history import bounds
from holistic_asgi_monitor.history.gathering import Stored, gathered, matching
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.postgres.schema import SCHEMA, table
from holistic_asgi_monitor.history.store import Answer, Event, Query
from holistic_asgi_monitor.history.tiers import FINEST, WINDOW, Plan, plan
from holistic_asgi_monitor.history.turns import beside
from holistic_asgi_monitor.history.values import Series, key_of, plain, series_from

if TYPE_CHECKING:
    import asyncpg

__all__ = ("events", "read", "state")


async def read(
    connection: asyncpg.Connection[Any], service: str, query: Query, now: float
) -> Answer:
    """Answer a query."""
    chosen = plan(query, now)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        known = await _known(connection, service, query)
        found = await _found(connection, query, chosen, list(known))
        written = await _written(connection, query)
    # Decoding takes longer than asking, and the event loop has other things to do.
    with bounds.waited_for() as wanted:
        work = partial(_answer, query, chosen, known, bounds.bounded(found, wanted))
        answer = await beside(work, forsakable=True)
    return replace(answer, written=written)


async def state(connection: asyncpg.Connection[Any], service: str, key: str) -> str | None:
    """The text kept under a key."""
    found: str | None = await connection.fetchval(
        f"SELECT text FROM {SCHEMA}.state WHERE service = $1 AND key = $2",  # noqa: S608 - our name
        service,
        key_of(key),
    )
    return found


async def events(
    connection: asyncpg.Connection[Any],
    service: str,
    topic: str,
    span: tuple[float, float],
    limit: int,
) -> Sequence[Event]:
    """The newest entries of the log."""
    found = await connection.fetch(
        f"SELECT id, time, topic, key, text FROM {SCHEMA}.events "  # noqa: S608 - our name
        "WHERE service = $1 AND topic = $2 AND time >= $3 AND time < $4 "
        "ORDER BY time DESC, id DESC LIMIT $5",
        service,
        key_of(topic),
        *span,
        limit,
    )
    return [Event(*row) for row in found]


async def _known(
    connection: asyncpg.Connection[Any], service: str, query: Query
) -> dict[int, Series]:
    """The series that a query asks for, by number."""
    found = await connection.fetch(
        f"SELECT id, labels FROM {SCHEMA}.series WHERE service = $1 AND kind = $2",  # noqa: S608 - our name
        service,
        query.kind.value,
    )
    # There may be thousands, and the event loop has other things to do.
    return await beside(partial(_matching, query, found), forsakable=True)


async def _written(connection: asyncpg.Connection[Any], query: Query) -> frozenset[int]:
    """Which batches of the one who asks are in the database."""
    if query.ours is None:
        return frozenset()
    found = await connection.fetch(
        f"SELECT b.number FROM {SCHEMA}.batches AS b JOIN {SCHEMA}.runs AS r "  # noqa: S608 - our names
        "ON r.id = b.run WHERE r.run = $1 AND b.number >= $2",
        query.ours.run,
        query.ours.first,
    )
    return frozenset(number for (number,) in found)


async def _found(
    connection: asyncpg.Connection[Any], query: Query, chosen: Plan, known: list[int]
) -> list[Any]:
    body = "p.body" if query.cells else "NULL::bytea"
    columns = f"p.series, p.time, p.count, p.errors, p.total, p.peak, {body}"
    start = f"SELECT {columns} FROM {table(chosen.tier)} AS p"  # noqa: S608 - our names
    span = "p.series = ANY($1::int[]) AND p.time >= $2 AND p.time < $3"
    values: list[Any] = [known, chosen.start, chosen.end]
    if query.instance is not None:
        writer = f"JOIN {SCHEMA}.batches AS b ON b.id = p.batch JOIN {SCHEMA}.runs AS r"
        statement = f"{start} {writer} ON r.id = b.run WHERE {span} AND r.instance = $4"
        return await _fetched(connection, statement, *values, plain(query.instance))
    found = await _fetched(connection, f"{start} WHERE {span}", *values)
    if chosen.tier is not FINEST:
        # What has not been added to this tier yet.
        found += await _fetched(
            connection,
            f"SELECT {columns} FROM {SCHEMA}.due AS d JOIN {table(FINEST)} AS p "  # noqa: S608 - our names
            f"ON p.batch = d.batch AND p.time >= d.time AND p.time < d.time + {WINDOW} "
            f"WHERE {span} AND d.time > $2 - {WINDOW} AND d.time < $3",
            *values,
        )
    return found


async def _fetched(
    connection: asyncpg.Connection[Any], statement: str, *values: object
) -> list[Any]:
    """The rows; `TooMuchError` where there are too many."""
    found = await connection.fetch(f"{statement} LIMIT {bounds.MOST_VALUES + 1}", *values)
    if len(found) > bounds.MOST_VALUES:
        raise bounds.TooMuchError
    return list(found)


def _matching(query: Query, found: list[Any]) -> dict[int, Series]:
    every = ((number, series_from(query.kind, labels)) for number, labels in giving_way(found))
    return {number: series for number, series in every if matching(query, series)}


def _answer(
    query: Query, chosen: Plan, known: Mapping[int, Series], found: Iterable[Any]
) -> Answer:
    return gathered(query, chosen, known, starmap(Stored, found))
