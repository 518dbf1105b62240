"""The tables, and the steps from each released version of them to the next."""

from __future__ import annotations

from holistic_asgi_monitor.history.tiers import FINEST, ROLLED, Tier

__all__ = ("MIGRATIONS", "VERSION", "table")


def table(tier: Tier) -> str:
    """The table of a tier."""
    return f"points_{tier.step}"


_NUMBERS = """count INTEGER NOT NULL, errors INTEGER NOT NULL, total INTEGER NOT NULL,
  peak INTEGER NOT NULL, body BLOB NOT NULL"""

_FIRST = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE series (id INTEGER PRIMARY KEY, service TEXT NOT NULL, kind TEXT NOT NULL,
  labels TEXT NOT NULL, UNIQUE (service, kind, labels))""",
    """CREATE TABLE runs (id INTEGER PRIMARY KEY, run TEXT NOT NULL UNIQUE,
  instance TEXT NOT NULL, written INTEGER NOT NULL)""",
    """CREATE TABLE batches (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, number INTEGER NOT NULL,
  written INTEGER NOT NULL, UNIQUE (run, number))""",
    f"""CREATE TABLE {table(FINEST)} (series INTEGER, time INTEGER, batch INTEGER, {_NUMBERS},
  PRIMARY KEY (series, time, batch)) WITHOUT ROWID""",
    *(
        f"""CREATE TABLE {table(tier)} (series INTEGER, time INTEGER, {_NUMBERS},
  PRIMARY KEY (series, time)) WITHOUT ROWID"""
        for tier in ROLLED
    ),
    # Windows of a batch that have not been added to the coarser tiers yet.
    "CREATE TABLE due (time INTEGER, batch INTEGER, PRIMARY KEY (time, batch)) WITHOUT ROWID",
    """CREATE TABLE users (service TEXT, day INTEGER, feature TEXT, hash BLOB,
  PRIMARY KEY (service, day, feature, hash)) WITHOUT ROWID""",
    """CREATE TABLE user_days (service TEXT, day INTEGER, feature TEXT, users INTEGER NOT NULL,
  PRIMARY KEY (service, day, feature)) WITHOUT ROWID""",
    """CREATE TABLE state (service TEXT, key TEXT, text TEXT NOT NULL, written REAL NOT NULL,
  PRIMARY KEY (service, key))""",
    """CREATE TABLE claims (service TEXT, key TEXT, written REAL NOT NULL,
  PRIMARY KEY (service, key)) WITHOUT ROWID""",
    """CREATE TABLE events (id TEXT PRIMARY KEY, service TEXT NOT NULL, time REAL NOT NULL,
  topic TEXT NOT NULL, key TEXT NOT NULL, text TEXT NOT NULL)""",
    "CREATE INDEX events_by_time ON events (service, topic, time)",
)

_LAST_SEEN = (
    # When each user was last seen, so that rolling windows are counted without their days.
    """CREATE TABLE last_seen (service TEXT, feature TEXT, hash BLOB, last INTEGER NOT NULL,
  PRIMARY KEY (service, feature, hash)) WITHOUT ROWID""",
    # Of days that have been there nothing finer is known: they count as their last minute.
    """INSERT INTO last_seen SELECT service, feature, hash, (max(day) + 1) * 1440 - 1
  FROM users GROUP BY service, feature, hash""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _LAST_SEEN)
"""Step number N (from 0) leads from version N to N + 1; steps that were released stay."""

VERSION = len(MIGRATIONS)
