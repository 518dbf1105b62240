"""Upkeep of the database, by one process at a time, each call one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.gathering import Stored, give_way, rolled
from holistic_asgi_monitor.history.postgres.schema import (
    PARTITIONED,
    ROLLER_LOCK,
    SCHEMA,
    add_partitions,
    drop_partitions,
    table,
)
from holistic_asgi_monitor.history.tiers import (
    BATCH_DAYS,
    CLAIM_DAYS,
    DAY,
    EVENT_DAYS,
    FINEST,
    TIERS,
    USER_DAYS,
    WINDOW,
    Tier,
    expired_before,
    ripe_before,
)
from holistic_asgi_monitor.history.values import Sum

if TYPE_CHECKING:
    import asyncpg

__all__ = ("roll_next", "tidy_up")

ROWS_AT_A_TIME = 16


async def roll_next(connection: asyncpg.Connection[Any], now: float) -> bool:
    """Add one window to the coarser tiers; whether there was one, and nobody else at it."""
    async with connection.transaction():
        if not await _elected(connection):
            return False
        window = await connection.fetchval(
            f"SELECT min(time) FROM {SCHEMA}.due WHERE time < $1",  # noqa: S608 - our name
            ripe_before(now),
        )
        if window is None:
            return False
        rows = await connection.fetch(
            f"SELECT batch FROM {SCHEMA}.due WHERE time = $1",  # noqa: S608 - our name
            window,
        )
        # A batch that comes meanwhile has its own entry, which stays.
        batches = [batch for (batch,) in rows]
        await _roll(connection, window, batches)
        await connection.execute(
            f"DELETE FROM {SCHEMA}.due WHERE time = $1 AND batch = ANY($2::bigint[])",  # noqa: S608 - our name
            window,
            batches,
        )
    return True


async def tidy_up(connection: asyncpg.Connection[Any], now: float) -> int:
    """Make partitions ahead, delete what is too old; how many values or partitions that were."""
    deleted = 0
    # By itself: who changes tables holds everybody up, and must not wait for rows meanwhile.
    async with connection.transaction():
        if not await _elected(connection):
            return 0
        await add_partitions(connection, now)
        due = await connection.fetchval(f"SELECT min(time) FROM {SCHEMA}.due")  # noqa: S608 - our name
        for tier in PARTITIONED:
            before = expired_before(tier, now)
            if tier is FINEST and due is not None:
                before = min(before, due)
            deleted += await drop_partitions(connection, tier, before)
            deleted += await _delete_points(connection, f"{table(tier)}_rest", before)
    async with connection.transaction():
        if await _elected(connection):
            deleted += await _delete_rows(connection, now)
    return deleted


async def _delete_rows(connection: asyncpg.Connection[Any], now: float) -> int:
    """Delete what is too old where there are no partitions; how many values."""
    deleted = 0
    for tier in TIERS[len(PARTITIONED) :]:
        deleted += await _delete_points(connection, table(tier), expired_before(tier, now))
    await _drop_user_days(connection, int(now // DAY) - USER_DAYS)
    for name, column, days in (
        ("batches", "written", BATCH_DAYS),
        ("runs", "written", BATCH_DAYS),
        ("claims", "written", CLAIM_DAYS),
        ("events", "time", EVENT_DAYS),
    ):
        await connection.execute(
            f"DELETE FROM {SCHEMA}.{name} WHERE {column} < $1",  # noqa: S608 - our names
            int(now) - days * DAY,
        )
    return deleted


async def _elected(connection: asyncpg.Connection[Any]) -> bool:
    """Whether this process alone does the upkeep now; until the transaction ends."""
    await connection.execute("SET LOCAL lock_timeout = '5s'")
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLER_LOCK))


async def _roll(connection: asyncpg.Connection[Any], window: int, batches: list[int]) -> None:
    found = await connection.fetch(
        "SELECT series, time, count, errors, total, peak, body "  # noqa: S608 - our name
        f"FROM {table(FINEST)} WHERE time >= $1 AND time < $2 AND batch = ANY($3::bigint[])",
        window,
        window + WINDOW,
        batches,
    )
    # Decoding and encoding take long, and the event loop has other things to do.
    work = partial(rolled, [Stored(*row) for row in found])
    for tier, sums in (await anyio.to_thread.run_sync(work)).items():
        await _add(connection, tier, sums)


async def _add(
    connection: asyncpg.Connection[Any], tier: Tier, sums: Mapping[tuple[int, int], Sum]
) -> None:
    if not sums:
        return
    name = table(tier)
    series, times = zip(*sorted(sums), strict=True)
    there = await connection.fetch(
        "SELECT p.series, p.time, p.count, p.errors, p.total, p.peak, p.body "  # noqa: S608 - our name
        f"FROM {name} AS p JOIN unnest($1::int[], $2::bigint[]) AS w (series, time) "
        "ON p.series = w.series AND p.time = w.time",
        series,
        times,
    )
    rows = await anyio.to_thread.run_sync(_added, sums, [Stored(*row) for row in there])
    await connection.executemany(
        f"INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6, $7) "  # noqa: S608 - our name
        "ON CONFLICT (series, time) DO UPDATE SET count = excluded.count, "
        "errors = excluded.errors, total = excluded.total, peak = excluded.peak, "
        "body = excluded.body",
        rows,
    )


def _added(
    sums: Mapping[tuple[int, int], Sum], there: list[Stored]
) -> list[tuple[int | bytes, ...]]:
    """The sums with what is there already, as rows."""
    for stored in there:
        stored.add_to(sums[stored.series, stored.time])
    rows: list[tuple[int | bytes, ...]] = []
    ordered = sorted(sums.items(), key=lambda item: item[0])
    for number, ((series, time), sum_) in enumerate(ordered):
        if number % ROWS_AT_A_TIME == 0:
            give_way()
        it = pack(sum_)
        rows.append((series, time, it.count, it.errors, it.total, it.peak, it.body))
    return rows


async def _delete_points(connection: asyncpg.Connection[Any], name: str, before: int) -> int:
    done = await connection.execute(f"DELETE FROM {name} WHERE time < $1", before)  # noqa: S608 - our name
    return int(done.split()[-1])


async def _drop_user_days(connection: asyncpg.Connection[Any], before: int) -> None:
    await connection.execute(
        f"INSERT INTO {SCHEMA}.user_days AS known "  # noqa: S608 - our names
        f"SELECT service, day, feature, count(*) FROM {SCHEMA}.users WHERE day < $1 "
        "GROUP BY service, day, feature ON CONFLICT (service, day, feature) "
        "DO UPDATE SET users = greatest(known.users, excluded.users)",
        before,
    )
    await connection.execute(f"DELETE FROM {SCHEMA}.users WHERE day < $1", before)  # noqa: S608 - our name
    await connection.execute(
        f"DELETE FROM {SCHEMA}.user_days WHERE day < $1",  # noqa: S608 - our name
        before - EVENT_DAYS,
    )
