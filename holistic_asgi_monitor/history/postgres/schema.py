"""The tables, the steps from each released version of them to the next, and the partitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history.tiers import DAY, FINEST, ROLLED, TIERS, Tier

if TYPE_CHECKING:
    import asyncpg

__all__ = (
    "NAMES_LOCK",
    "PARTITIONED",
    "SCHEMA",
    "VERSION",
    "NotOwnerError",
    "SchemaRefusedError",
    "TablesRefusedError",
    "add_partitions",
    "drop_partitions",
    "found_version",
    "refused",
    "step_up",
    "table",
)

SCHEMA = "holistic_monitor"
MIGRATION_LOCK, ROLLER_LOCK = 0x48414D0000000001, 0x48414D0000000002
NAMES_LOCK = 0x48414D0000000003
"""Whoever writes shares it: who forgets names or changes tables needs it for himself."""
DAYS_AHEAD = 2
PARTITIONED = TIERS[:2]
"""Tiers whose values are deleted by dropping whole days."""

_NUMBERS = """count bigint NOT NULL, errors bigint NOT NULL, total bigint NOT NULL,
  peak bigint NOT NULL, body bytea NOT NULL"""


class SchemaRefusedError(Exception):
    """Our user may not make the schema."""


class TablesRefusedError(Exception):
    """Our user may not make tables in the schema that is there."""


class NotOwnerError(Exception):
    """Our user may not change the tables, which are another's."""


def table(tier: Tier) -> str:
    """The table of a tier, with its schema."""
    return f"{SCHEMA}.points_{tier.step}"


def _points(tier: Tier) -> list[str]:
    batch, key = ("batch bigint, ", ", batch") if tier is FINEST else ("", "")
    made = f"""CREATE TABLE {table(tier)} (series integer, time bigint, {batch}{_NUMBERS},
  PRIMARY KEY (series, time{key}))"""
    if tier not in PARTITIONED:
        return [made]
    rest = f"CREATE TABLE {table(tier)}_rest PARTITION OF {table(tier)} DEFAULT"
    return [f"{made} PARTITION BY RANGE (time)", rest]


_FIRST = (
    f"CREATE TABLE {SCHEMA}.meta (key text PRIMARY KEY, value bigint NOT NULL)",
    f"""CREATE TABLE {SCHEMA}.series (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  service text NOT NULL, kind text NOT NULL, labels text NOT NULL,
  digest bytea NOT NULL UNIQUE)""",
    f"""CREATE TABLE {SCHEMA}.runs (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run text NOT NULL UNIQUE, instance text NOT NULL, written bigint NOT NULL)""",
    f"""CREATE TABLE {SCHEMA}.batches (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run integer NOT NULL, number integer NOT NULL, written bigint NOT NULL, UNIQUE (run, number))""",
    *_points(FINEST),
    *(statement for tier in ROLLED for statement in _points(tier)),
    f"CREATE TABLE {SCHEMA}.due (time bigint, batch bigint, PRIMARY KEY (time, batch))",
    f"""CREATE TABLE {SCHEMA}.users (service text, day integer, feature text, hash bytea,
  PRIMARY KEY (service, day, feature, hash))""",
    f"""CREATE TABLE {SCHEMA}.user_days (service text, day integer, feature text,
  users bigint NOT NULL, PRIMARY KEY (service, day, feature))""",
    f"""CREATE TABLE {SCHEMA}.state (service text, key text, text text NOT NULL,
  written double precision NOT NULL, PRIMARY KEY (service, key))""",
    f"""CREATE TABLE {SCHEMA}.claims (service text, key text, written double precision NOT NULL,
  PRIMARY KEY (service, key))""",
    f"""CREATE TABLE {SCHEMA}.events (id text PRIMARY KEY, service text NOT NULL,
  time double precision NOT NULL, topic text NOT NULL, key text NOT NULL, text text NOT NULL)""",
    f"CREATE INDEX events_by_time ON {SCHEMA}.events (service, topic, time)",
)

_LAST_SEEN = (
    # When each user was last seen, so that rolling windows are counted without their days.
    f"""CREATE TABLE {SCHEMA}.last_seen (service text, feature text, hash bytea,
  last integer NOT NULL, PRIMARY KEY (service, feature, hash))""",
    # Of days that have been there nothing finer is known: they count as their last minute.
    f"""INSERT INTO {SCHEMA}.last_seen
  SELECT service, feature, hash, (max(day) + 1) * 1440 - 1
  FROM {SCHEMA}.users GROUP BY service, feature, hash""",  # noqa: S608 - our name
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _LAST_SEEN)
"""Step number N (from 0) leads from version N to N + 1; steps that were released stay."""

VERSION = len(MIGRATIONS)


async def found_version(connection: asyncpg.Connection[Any]) -> int:
    """The version of the tables there are, 0 where there are none."""
    # Not to_regclass, which may remember that there was none before another process made it.
    there = await connection.fetchval(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = $1 AND c.relname = 'meta'",
        SCHEMA,
    )
    if there is None:
        return 0
    found = await connection.fetchval(f"SELECT value FROM {SCHEMA}.meta WHERE key = 'version'")  # noqa: S608 - our name
    return int(found or 0)


async def step_up(connection: asyncpg.Connection[Any], now: float) -> int:
    """Bring the tables up to date, one process at a time; the version they had."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATION_LOCK)
        before = await found_version(connection)
        if before < VERSION:
            known = "SELECT 1 FROM pg_namespace WHERE nspname = $1"
            # Not IF NOT EXISTS, which needs the right to create even where it is there.
            if await connection.fetchval(known, SCHEMA) is None:
                with refused(SchemaRefusedError):
                    await connection.execute(f"CREATE SCHEMA {SCHEMA}")
            # Who is writing ends first; who comes later sees what has become of the tables.
            await connection.execute("SELECT pg_advisory_xact_lock($1)", NAMES_LOCK)
            with refused(NotOwnerError if before else TablesRefusedError):
                await _step_up(connection, before, now)
    return before


async def _step_up(connection: asyncpg.Connection[Any], before: int, now: float) -> None:
    for statement in (each for step in MIGRATIONS[before:] for each in step):
        await connection.execute(statement)
    await connection.execute(
        f"INSERT INTO {SCHEMA}.meta VALUES ('version', $1) "  # noqa: S608 - our name
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        VERSION,
    )
    await add_partitions(connection, now)


@contextmanager
def refused(kind: type[Exception]) -> Iterator[None]:
    """Say by the kind of error what it is that our user has no right to."""
    import asyncpg

    try:
        yield
    except asyncpg.InsufficientPrivilegeError:
        raise kind from None


async def partitions(connection: asyncpg.Connection[Any], tier: Tier) -> set[int]:
    """The days (since 1970) that a tier has partitions for."""
    start = f"points_{tier.step}_day_"
    found = await connection.fetch(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname, $2)",
        SCHEMA,
        start,
    )
    return {int(row[0].removeprefix(start)) for row in found}


async def add_partitions(connection: asyncpg.Connection[Any], now: float) -> None:
    """Make the partitions of today and of the days ahead."""
    today = int(now // DAY)
    for tier in PARTITIONED:
        there = await partitions(connection, tier)
        for day in range(today - 1, today + DAYS_AHEAD + 1):
            start, end = day * DAY, (day + 1) * DAY
            rest = f"SELECT 1 FROM {table(tier)}_rest WHERE time >= $1 AND time < $2 LIMIT 1"  # noqa: S608 - ours
            # Where rows have come before their partition, they stay with the rest.
            if day not in there and await connection.fetchval(rest, start, end) is None:
                await connection.execute(
                    f"CREATE TABLE {table(tier)}_day_{day} PARTITION OF {table(tier)} "
                    f"FOR VALUES FROM ({start}) TO ({end})"
                )


async def drop_partitions(connection: asyncpg.Connection[Any], tier: Tier, before: int) -> int:
    """Drop the partitions of days that end before a time; how many."""
    old = [day for day in await partitions(connection, tier) if (day + 1) * DAY <= before]
    for day in sorted(old):
        await connection.execute(f"DROP TABLE {table(tier)}_day_{day}")
    return len(old)
