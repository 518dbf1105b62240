"""What is read from the file, each call on one state of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace

from holistic_asgi_monitor.history.bounds import bounded
from holistic_asgi_monitor.history.gathering import Stored, gathered, matching
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.sqlite.file import Session, one_state
from holistic_asgi_monitor.history.sqlite.schema import table
from holistic_asgi_monitor.history.store import Answer, Event, Query
from holistic_asgi_monitor.history.tiers import FINEST, WINDOW, Plan, plan
from holistic_asgi_monitor.history.values import Series, plain, series_from

__all__ = ("events", "floors", "read", "state")


def read(session: Session, query: Query, now: float, wanted: Callable[[], bool]) -> Answer:
    """Answer a query, as long as that is `wanted`."""
    connection = session.connection
    # Between two states a value may move to a coarser tier.
    with one_state(connection):
        known = _known(session, query)
        chosen = plan(query, now, floors(connection))
        # Closed before the end: a question that is left in the middle would hold on to this state.
        with closing(_found(connection, query, chosen, known)) as found:
            answer = gathered(query, chosen, known, bounded(found, wanted))
        return replace(answer, written=_written(connection, query))


def floors(connection: sqlite3.Connection) -> dict[int, int]:
    """From where on the tiers are whole that the cap on the size has cut, by their steps."""
    found = connection.execute("SELECT key, value FROM meta WHERE key LIKE 'floor:%'")
    return {int(key.partition(":")[2]): value for key, value in found}


def state(session: Session, key: str) -> str | None:
    """The text kept under a key."""
    found = session.connection.execute(
        "SELECT text FROM state WHERE service = ? AND key = ?", (session.service, plain(key))
    ).fetchone()
    return None if found is None else found[0]


def events(session: Session, topic: str, start: float, end: float, limit: int) -> Sequence[Event]:
    """The newest entries of the log."""
    found = session.connection.execute(
        "SELECT id, time, topic, key, text FROM events "
        "WHERE service = ? AND topic = ? AND time >= ? AND time < ? "
        "ORDER BY time DESC, id DESC LIMIT ?",
        (session.service, plain(topic), start, end, limit),
    )
    return [Event(*row) for row in found]


_NOT_ADDED_YET = f"""FROM due AS d CROSS JOIN {table(FINEST)} AS p
  WHERE d.time > :start - {WINDOW} AND d.time < :end
  AND p.time >= d.time AND p.time < d.time + {WINDOW} AND p.batch = d.batch"""


def _known(session: Session, query: Query) -> dict[int, Series]:
    """The series that a query asks for, by number."""
    found = session.connection.execute(
        "SELECT id, labels FROM series WHERE service = ? AND kind = ?",
        (session.service, query.kind.value),
    )
    every = {number: series_from(query.kind, labels) for number, labels in giving_way(found)}
    return {number: series for number, series in every.items() if matching(query, series)}


def _written(connection: sqlite3.Connection, query: Query) -> frozenset[int]:
    """Which batches of the one who asks are in the file."""
    if query.ours is None:
        return frozenset()
    found = connection.execute(
        "SELECT b.number FROM batches AS b JOIN runs AS r ON r.id = b.run "
        "WHERE r.run = ? AND b.number >= ?",
        (query.ours.run, query.ours.first),
    )
    return frozenset(number for (number,) in found)


def _found(
    connection: sqlite3.Connection, query: Query, chosen: Plan, known: Iterable[int]
) -> Generator[Stored]:
    body = "p.body" if query.cells else "NULL"
    columns = f"p.series, p.time, p.count, p.errors, p.total, p.peak, {body}"
    span = "p.series = :series AND p.time >= :start AND p.time < :end"
    name = table(chosen.tier)
    statement = f"SELECT {columns} FROM {name} AS p"  # noqa: S608 - names of ours
    statements = [f"{statement} WHERE {span}"]
    if query.instance is not None:
        writer = "JOIN batches AS b ON b.id = p.batch JOIN runs AS r ON r.id = b.run"
        statements = [f"{statement} {writer} WHERE {span} AND r.instance = :instance"]
    elif chosen.tier is not FINEST:
        statements.append(f"SELECT {columns} {_NOT_ADDED_YET} AND {span}")
    values = {"start": chosen.start, "end": chosen.end, "instance": plain(query.instance or "")}
    for series in known:
        for statement in statements:
            for row in connection.execute(statement, {**values, "series": series}):
                yield Stored(*row)
