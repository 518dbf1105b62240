"""What is written into the file, each call one transaction."""

from __future__ import annotations

import sqlite3

from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.sqlite.file import Session, put_rows, transaction
from holistic_asgi_monitor.history.sqlite.schema import table
from holistic_asgi_monitor.history.sqlite.upkeep import fresh_numbers
from holistic_asgi_monitor.history.sqlite.users import write_users
from holistic_asgi_monitor.history.store import Batch, Event
from holistic_asgi_monitor.history.tiers import FINEST, WINDOW
from holistic_asgi_monitor.history.values import Row, Series, labels_text, plain

__all__ = ("add_event", "claim", "put_state", "settle_state", "write")


def write(session: Session, batch: Batch, now: float) -> int:
    """Write a batch, unless it is there; how many users were left out."""
    connection = session.connection
    numbers_before = dict(session.numbers)
    left_out = 0
    try:
        with transaction(connection):
            number = _begun(connection, batch, now)
            if number is not None:
                fresh_numbers(session)
                _write_points(session, batch, number)
                left_out = write_users(session, batch.users)
    except BaseException:
        session.numbers = numbers_before
        raise
    return left_out


def put_state(session: Session, key: str, text: str, now: float) -> None:
    """Keep a text under a key."""
    session.connection.execute(
        "INSERT OR REPLACE INTO state (service, key, text, written) VALUES (?, ?, ?, ?)",
        (session.service, plain(key), plain(text), now),
    )


def settle_state(session: Session, key: str, text: str, now: float) -> str:
    """Keep a text under a key unless there is one; the text that is kept."""
    connection = session.connection
    place = session.service, plain(key)
    connection.execute(
        "INSERT OR IGNORE INTO state (service, key, text, written) VALUES (?, ?, ?, ?)",
        (*place, plain(text), now),
    )
    (kept,) = connection.execute(
        "SELECT text FROM state WHERE service = ? AND key = ?", place
    ).fetchone()
    return str(kept)


def claim(session: Session, key: str, now: float) -> bool:
    """Whether the key was still free."""
    inserted = session.connection.execute(
        "INSERT OR IGNORE INTO claims (service, key, written) VALUES (?, ?, ?)",
        (session.service, plain(key), now),
    )
    return inserted.rowcount == 1


def add_event(session: Session, event: Event) -> None:
    """Add to the log, unless it is there."""
    session.connection.execute(
        "INSERT OR IGNORE INTO events (id, time, topic, key, text, service) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            plain(event.id),
            event.time,
            plain(event.topic),
            plain(event.key),
            plain(event.text),
            session.service,
        ),
    )


def _begun(connection: sqlite3.Connection, batch: Batch, now: float) -> int | None:
    """The number of a batch, None where it has been written before."""
    connection.execute(
        "INSERT INTO runs (run, instance, written) VALUES (?, ?, ?) "
        "ON CONFLICT (run) DO UPDATE SET written = excluded.written",
        (batch.run, plain(batch.instance), int(now)),
    )
    inserted = connection.execute(
        "INSERT OR IGNORE INTO batches (run, number, written) "
        "SELECT id, ?, ? FROM runs WHERE run = ?",
        (batch.number, int(now), batch.run),
    )
    return inserted.lastrowid if inserted.rowcount == 1 else None


def _write_points(session: Session, batch: Batch, number: int) -> None:
    points = sorted(_point(session, row, number) for row in giving_way(batch.rows))
    put_rows(session.connection, f"INSERT INTO {table(FINEST)}", points)
    windows = sorted({row.time // WINDOW * WINDOW for row in batch.rows})
    session.connection.executemany(
        "INSERT INTO due (time, batch) VALUES (?, ?)", [(time, number) for time in windows]
    )


def _point(session: Session, row: Row, number: int) -> tuple[int | bytes, ...]:
    it = row.packed
    counted = (it.count, it.errors, it.total, it.peak, it.body)
    return _number(session, row.series), row.time, number, *counted


def _number(session: Session, series: Series) -> int:
    key = (series.kind.value, labels_text(series))
    known = session.numbers.get(key)
    if known is None:
        connection = session.connection
        connection.execute(
            "INSERT OR IGNORE INTO series (service, kind, labels) VALUES (?, ?, ?)",
            (session.service, *key),
        )
        (known,) = connection.execute(
            "SELECT id FROM series WHERE service = ? AND kind = ? AND labels = ?",
            (session.service, *key),
        ).fetchone()
        session.numbers[key] = known
    return known
