"""How the file is kept below its cap, and how it really becomes smaller.

Each tier has a share of the cap. Where the whole is over it, the tiers that are over their own
share lose their oldest values, each in proportion; a tier within its share loses none. So do the
hashes of users and the log of events. Names without values go; what must stay counts all the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from holistic_asgi_monitor.history.sqlite.file import File, Session, transaction
from holistic_asgi_monitor.history.sqlite.schema import table
from holistic_asgi_monitor.history.sqlite.upkeep import (
    delete_points,
    drop_empty_series,
    retention,
)
from holistic_asgi_monitor.history.sqlite.users import drop_user_days
from holistic_asgi_monitor.history.tiers import DAY, TIERS, Tier

__all__ = ("checkpoint", "keep_below", "lean", "used_bytes")

SHARES = dict(zip(TIERS, (0.53, 0.16, 0.13, 0.11), strict=True))
USERS_SHARE, EVENTS_SHARE = 0.05, 0.02
FULL, ENOUGH = 0.97, 0.9
"""Above the first part of the cap something is deleted, until the second is reached."""
PASSES = 4
ROW_BYTES, USER_BYTES, TEXT_BYTES = 36, 40, 24
"""What a row takes besides its body, a hash, a text besides itself: to see what is how large."""
PAGES_AT_ONCE = 500
CHECKPOINT_PATIENCE_MS = 100


@dataclass(frozen=True, slots=True)
class _Part:
    """A tier, `users` or `events`: its share of the cap, its bytes, and the times it spans."""

    what: Tier | str
    share: float
    bytes: float
    oldest: int
    newest: int


def used_bytes(connection: sqlite3.Connection) -> int:
    """What the file's pages in use take."""
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(size * (pages - free))


def keep_below(file: File, session: Session, cap: int) -> int:
    """Delete the oldest values until the file is below its cap; how many that were."""
    deleted = 0
    if used_bytes(session.connection) > FULL * cap:
        drop_empty_series(session)
        for _ in range(PASSES):
            used = used_bytes(session.connection)
            if used <= ENOUGH * cap:
                break
            deleted += _cut(file, session, used, ENOUGH * cap)
            drop_empty_series(session)
    _give_back(file, session)
    return deleted


def checkpoint(file: File, session: Session, *, above: int | None = None) -> None:
    """Bring a long write-ahead log home, and empty it; under the lock only."""
    if file.log_bytes() <= (file.longest_log if above is None else above):
        return
    connection = session.connection
    # A reader that does not end soon must not hold us up: the next time will do.
    (before,) = connection.execute("PRAGMA busy_timeout").fetchone()
    connection.execute(f"PRAGMA busy_timeout = {CHECKPOINT_PATIENCE_MS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {before}")


@contextmanager
def lean(file: File, session: Session) -> Iterator[None]:
    """Bring the log home where the disk is full: it may be what fills it."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            with suppress(sqlite3.Error):
                checkpoint(file, session, above=0)
        raise


def _give_back(file: File, session: Session) -> None:
    """Cut free pages off the end of the file, in small pieces."""
    connection = session.connection
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    if free < PAGES_AT_ONCE:
        return
    for _ in range(free // PAGES_AT_ONCE + 1):
        # By a script: a single statement gives back one page for each row that is fetched.
        connection.executescript(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE});")
        checkpoint(file, session)
    checkpoint(file, session, above=0)


def _cut(file: File, session: Session, used: int, wanted: float) -> int:
    """Shorten what is over its share, so that about `wanted` bytes are left."""
    connection = session.connection
    parts = [_part(connection, tier) for tier in TIERS]
    parts += [_users(connection), _events(connection)]
    fixed = _fixed(connection)
    counted = sum(part.bytes for part in parts)
    if not counted:
        return 0
    # Pages are not full: everything really takes this much more.
    scale = used / (counted + fixed)
    free = max(0.0, wanted - fixed * scale)
    over = [max(0.0, part.bytes * scale - part.share * free) for part in parts]
    deleted = 0
    for part, bytes_over in zip(parts, over, strict=True):
        if bytes_over:
            gone = (used - wanted) * bytes_over / sum(over) / (part.bytes * scale)
            deleted += _shorten(file, session, part, min(gone, 1.0))
            checkpoint(file, session)
    return deleted


def _shorten(file: File, session: Session, part: _Part, gone: float) -> int:
    """Delete the oldest of a part: `gone` is which share of it."""
    connection = session.connection
    before = part.oldest + max(1, round((part.newest - part.oldest) * gone))
    if part.what == "users":
        drop_user_days(session, before)
        file.warn_of_users(before)
        return 0
    if not isinstance(part.what, Tier):
        connection.execute("DELETE FROM events WHERE time < ?", (before,))
        return 0
    before = part.what.floor(before) + part.what.step
    deleted = delete_points(session, part.what, before)
    with transaction(connection):
        connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
            (f"floor:{part.what.step}", before),
        )
    return deleted


def _part(connection: sqlite3.Connection, tier: Tier) -> _Part:
    rows, bodies, oldest, newest = connection.execute(
        f"SELECT count(*), coalesce(sum(length(body)), 0), min(time), max(time) FROM {table(tier)}"  # noqa: S608 - our name
    ).fetchone()
    newest = _believed(connection, oldest or 0, newest or 0, 1)
    return _Part(tier, SHARES[tier], rows * ROW_BYTES + bodies, oldest or 0, newest)


def _believed(connection: sqlite3.Connection, oldest: int, newest: int, unit: int) -> int:
    """The newest time, in units of so many seconds, by what is known of the clocks.

    What a clock far ahead has written must not make the rest look old.
    """
    known = retention(connection)
    return newest if known is None else max(oldest, min(newest, known.sure // unit))


def _users(connection: sqlite3.Connection) -> _Part:
    rows, oldest, newest = connection.execute(
        "SELECT count(*) + (SELECT count(*) FROM last_seen), min(day), max(day) FROM users"
    ).fetchone()
    newest = _believed(connection, oldest or 0, newest or 0, DAY)
    return _Part("users", USERS_SHARE, rows * USER_BYTES, oldest or 0, newest)


def _events(connection: sqlite3.Connection) -> _Part:
    size, oldest, newest = connection.execute(
        "SELECT coalesce(sum(? + length(text) + 2 * length(id) + 2 * length(topic) + length(key)),"
        " 0), min(time), max(time) FROM events",
        (2 * TEXT_BYTES,),
    ).fetchone()
    return _Part("events", EVENTS_SHARE, size, int(oldest or 0), int(newest or 0))


def _fixed(connection: sqlite3.Connection) -> int:
    """About how many bytes take what is not shortened: names, and the state of alerts."""
    (names,) = connection.execute(
        "SELECT coalesce(sum(? + 2 * length(labels)), 0) FROM series", (2 * TEXT_BYTES,)
    ).fetchone()
    (states,) = connection.execute(
        "SELECT coalesce(sum(? + length(text)), 0) FROM state", (2 * TEXT_BYTES,)
    ).fetchone()
    return int(names + states)
