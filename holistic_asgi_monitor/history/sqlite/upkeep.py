"""Upkeep of the file: values on their way into coarser tiers, and out of the file.

Every function does one small piece in a transaction of its own, so that no other process waits
long.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.gathering import Stored, Unreadable, rolled
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.retention import AGEING, Retention
from holistic_asgi_monitor.history.sqlite.file import Session, put_rows, transaction
from holistic_asgi_monitor.history.sqlite.schema import table
from holistic_asgi_monitor.history.sqlite.users import drop_user_days
from holistic_asgi_monitor.history.tiers import (
    DAY,
    FINEST,
    TIERS,
    USER_DAYS,
    WINDOW,
    Tier,
    expired_before,
    ripe_before,
)
from holistic_asgi_monitor.history.values import Sum

__all__ = (
    "delete_expired",
    "delete_points",
    "drop_empty_series",
    "fresh_numbers",
    "retention",
    "roll_next",
)

ROWS_AT_ONCE = 5_000
_DROPPED = ("", "")
"""Where among the numbers of the series stands how often some were dropped; no series is it."""


def roll_next(session: Session, now: float, unreadable: Unreadable) -> bool:
    """Add one window to the coarser tiers; whether there was one.

    What cannot be read is left out, and counted in `unreadable`.

    A window in which rows come late is rolled again: only what has not been added yet is added.
    """
    connection = session.connection
    with transaction(connection):
        (window,) = connection.execute(
            "SELECT min(time) FROM due WHERE time < ?", (ripe_before(now),)
        ).fetchone()
        if window is None:
            return False
        for tier, sums in rolled(_due(connection, window), unreadable).items():
            _add(connection, tier, sums, unreadable)
        connection.execute("DELETE FROM due WHERE time = ?", (window,))
    return True


def delete_expired(session: Session, now: float) -> int:
    """Delete what is too old for its place; how many values that were."""
    connection = session.connection
    if not _believed(connection, int(now)):
        return 0
    deleted = sum(delete_points(session, tier, expired_before(tier, now)) for tier in TIERS)
    drop_user_days(session, int(now // DAY) - USER_DAYS + 1)
    drop_empty_series(session)
    with transaction(connection):
        for name, column, days in AGEING:
            before = now - days * DAY
            connection.execute(f"DELETE FROM {name} WHERE {column} < ?", (before,))  # noqa: S608 - our names
    return deleted


def drop_empty_series(session: Session) -> None:
    """Forget the names of which no values are left."""
    connection = session.connection
    kept = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {table(tier)} AS p WHERE p.series = series.id)"  # noqa: S608 - our names
        for tier in TIERS
    )
    with transaction(connection):
        gone = connection.execute(f"DELETE FROM series WHERE {kept}").rowcount  # noqa: S608 - our names
        if gone:
            # Their numbers will be given to others: see `fresh_numbers`.
            connection.execute(
                "INSERT INTO meta (key, value) VALUES ('series dropped', 1) "
                "ON CONFLICT (key) DO UPDATE SET value = value + 1"
            )


def fresh_numbers(session: Session) -> None:
    """Forget the numbers of the series that are known, where any process has dropped some."""
    found = session.connection.execute("SELECT value FROM meta WHERE key = 'series dropped'")
    (times,) = found.fetchone() or (0,)
    if session.numbers.get(_DROPPED, 0) != times:
        session.numbers.clear()
        session.numbers[_DROPPED] = times


def retention(connection: sqlite3.Connection) -> Retention | None:
    """What is known of the clocks; None before the first step of upkeep."""
    found = connection.execute("SELECT value FROM meta WHERE key = 'retention'").fetchone()
    return None if found is None else Retention(*map(int, found[0].split()))


def _believed(connection: sqlite3.Connection, now: int) -> bool:
    """Whether deleting may go by the time `now`, after what is known of the clocks."""
    with transaction(connection):
        known = retention(connection)
        if known is None:
            (newest,) = connection.execute("SELECT max(written) FROM batches").fetchone()
            known = Retention(now if newest is None else int(newest))
        known = known.after(now)
        text = f"{known.sure} {known.doubted} {known.passed}"
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('retention', ?)", (text,))
    return known.believed


def delete_points(session: Session, tier: Tier, before: int) -> int:
    """Delete a tier's values from before a time; what is still to be rolled up stays."""
    connection = session.connection
    if tier is FINEST:
        (due,) = connection.execute("SELECT min(time) FROM due").fetchone()
        before = before if due is None else min(before, due)
    deleted = 0
    series = deque(number for (number,) in connection.execute("SELECT id FROM series"))
    while series:
        with transaction(connection):
            gone = 0
            for number in giving_way(_taken(series)):
                gone += connection.execute(
                    f"DELETE FROM {table(tier)} WHERE series = ? AND time < ?",  # noqa: S608 - ours
                    (number, before),
                ).rowcount
                if gone >= ROWS_AT_ONCE:
                    break
        deleted += gone
    return deleted


def _taken(series: deque[int]) -> Iterator[int]:
    """One after the other, each taken away."""
    while series:
        yield series.pop()


def _due(connection: sqlite3.Connection, window: int) -> Iterable[Stored]:
    found = connection.execute(
        "SELECT p.series, p.time, p.count, p.errors, p.total, p.peak, p.body "  # noqa: S608 - ours
        f"FROM {table(FINEST)} AS p WHERE p.series IN (SELECT id FROM series) "
        "AND p.time >= :start AND p.time < :end "
        "AND p.batch IN (SELECT batch FROM due WHERE time = :start)",
        {"start": window, "end": window + WINDOW},
    )
    return map(Stored._make, found)


def _add(
    connection: sqlite3.Connection,
    tier: Tier,
    sums: Mapping[tuple[int, int], Sum],
    unreadable: Unreadable,
) -> None:
    name = table(tier)
    points: list[tuple[int | bytes, ...]] = []
    for (series, time), sum_ in giving_way(sorted(sums.items(), key=_place)):
        row = connection.execute(
            "SELECT series, time, count, errors, total, peak, body "  # noqa: S608 - our name
            f"FROM {name} WHERE series = ? AND time = ?",
            (series, time),
        ).fetchone()
        if row is not None:
            unreadable.add(Stored(*row), sum_)
        it = pack(sum_)
        points.append((series, time, it.count, it.errors, it.total, it.peak, it.body))
    put_rows(connection, f"INSERT OR REPLACE INTO {name}", points)


def _place(item: tuple[tuple[int, int], Sum]) -> tuple[int, int]:
    return item[0]
