"""How the file is kept below its cap, and how it really becomes smaller.

Each tier has a share of the cap. Where the whole is over it, the tiers that are over their own
share lose their oldest values, each in proportion; a tier within its share loses none.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from holistic_asgi_monitor.history.sqlite.file import File, Session, transaction
from holistic_asgi_monitor.history.sqlite.schema import table
from holistic_asgi_monitor.history.sqlite.upkeep import delete_points, drop_user_days
from holistic_asgi_monitor.history.tiers import TIERS, Tier

__all__ = ("checkpoint", "keep_below", "used_bytes")

SHARES = dict(zip(TIERS, (0.54, 0.16, 0.13, 0.12), strict=True))
USERS_SHARE = 0.05
FULL, ENOUGH = 0.97, 0.9
"""Above the first part of the cap something is deleted, until the second is reached."""
PASSES = 4
ROW_BYTES, USER_BYTES = 36, 40
"""What a row takes besides its body, and a hash: estimates, to see what is how large."""
PAGES_AT_ONCE = 500
CHECKPOINT_PATIENCE_MS = 100


@dataclass(frozen=True, slots=True)
class _Part:
    """A tier, or None for users: its share of the cap, its bytes, and the times it spans."""

    tier: Tier | None
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
        for _ in range(PASSES):
            used = used_bytes(session.connection)
            if used <= ENOUGH * cap:
                break
            deleted += _cut(file, session, used, ENOUGH * cap)
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
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.execute(f"PRAGMA busy_timeout = {before}")


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
    parts = [_part(session.connection, tier) for tier in TIERS]
    parts.append(_users(session.connection))
    counted = sum(part.bytes for part in parts)
    if not counted:
        return 0
    # Pages are not full: everything really takes this much more.
    scale = used / counted
    over = [max(0.0, part.bytes * scale - part.share * wanted) for part in parts]
    deleted = 0
    for part, bytes_over in zip(parts, over, strict=True):
        if bytes_over:
            gone = (used - wanted) * bytes_over / sum(over) / (part.bytes * scale)
            deleted += _shorten(session, part, gone)
            checkpoint(file, session)
    return deleted


def _shorten(session: Session, part: _Part, gone: float) -> int:
    """Delete the oldest of a part: `gone` is which share of it."""
    before = part.oldest + max(1, round((part.newest - part.oldest) * gone))
    if part.tier is None:
        drop_user_days(session, before)
        return 0
    before = part.tier.floor(before) + part.tier.step
    deleted = delete_points(session, part.tier, before)
    with transaction(session.connection):
        session.connection.execute(
            "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
            (f"floor:{part.tier.step}", before),
        )
    return deleted


def _part(connection: sqlite3.Connection, tier: Tier) -> _Part:
    rows, bodies, oldest, newest = connection.execute(
        f"SELECT count(*), coalesce(sum(length(body)), 0), min(time), max(time) FROM {table(tier)}"  # noqa: S608 - our name
    ).fetchone()
    return _Part(tier, SHARES[tier], rows * ROW_BYTES + bodies, oldest or 0, newest or 0)


def _users(connection: sqlite3.Connection) -> _Part:
    rows, oldest, newest = connection.execute(
        "SELECT count(*), min(day), max(day) FROM users"
    ).fetchone()
    return _Part(None, USERS_SHARE, rows * USER_BYTES, oldest or 0, newest or 0)
