"""Upkeep of the database, by one process at a time, each call one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import starmap
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.gathering import Stored, Unreadable, rolled
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.postgres.schema import (
    NAMES_LOCK,
    PARTITIONED,
    ROLLER_LOCK,
    SCHEMA,
    NotOwnerError,
    add_partitions,
    drop_partitions,
    refused,
    table,
)
from holistic_asgi_monitor.history.postgres.users import drop_user_days
from holistic_asgi_monitor.history.retention import AGEING
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
from holistic_asgi_monitor.history.turns import beside
from holistic_asgi_monitor.history.values import Sum

if TYPE_CHECKING:
    import asyncpg

__all__ = ("delete_old", "forget_names", "roll_next", "turn_days")

DAYS_PATIENCE = "100ms"
_EMPTY = " AND ".join(
    (
        f"SELECT s.id FROM {SCHEMA}.series AS s WHERE true",  # noqa: S608 - our name
        *(f"NOT EXISTS (SELECT 1 FROM {table(t)} AS p WHERE p.series = s.id)" for t in TIERS),  # noqa: S608 - our names
    )
)


async def roll_next(
    connection: asyncpg.Connection[Any], now: float, unreadable: Unreadable
) -> bool:
    """Add one window to the coarser tiers; whether there was one, and nobody else at it.

    What cannot be read is left out, and counted in `unreadable`.
    """
    left_out = Unreadable()
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
        await _roll(connection, window, batches, left_out)
        await connection.execute(
            f"DELETE FROM {SCHEMA}.due WHERE time = $1 AND batch = ANY($2::bigint[])",  # noqa: S608 - our name
            window,
            batches,
        )
    # Not before it is certain: it may be done again.
    unreadable.count += left_out.count
    return True


async def delete_old(connection: asyncpg.Connection[Any], now: float) -> int:
    """Delete what is too old, row by row; how many values."""
    async with connection.transaction():
        if not await _elected(connection):
            return 0
        now = await _agreed(connection, now)
        deleted = await _delete_old_points(connection, now)
        await drop_user_days(connection, int(now // DAY) - USER_DAYS + 1)
        for name, column, days in AGEING:
            await connection.execute(
                f"DELETE FROM {SCHEMA}.{name} WHERE {column} < $1",  # noqa: S608 - our names
                int(now) - days * DAY,
            )
    return deleted


async def turn_days(connection: asyncpg.Connection[Any], now: float) -> int:
    """Make the partitions of the days ahead, drop those that are too old; how many these were.

    By itself, and without waiting: who changes tables waits for every reader of them, and
    everybody else waits behind.
    """
    async with connection.transaction():
        if not await _elected(connection, patience=DAYS_PATIENCE):
            return 0
        now = await _agreed(connection, now)
        with refused(NotOwnerError):
            await add_partitions(connection, now)
            deleted = 0
            for tier in PARTITIONED:
                before = await _too_old(connection, tier, now)
                deleted += await drop_partitions(connection, tier, before)
    return deleted


async def forget_names(connection: asyncpg.Connection[Any]) -> int:
    """Forget the series of which no values are left; how many.

    They are looked for while others write, and looked at once more while nobody does: every
    writer sees by the number in `meta` that what he knows may be gone.
    """
    async with connection.transaction():
        if not await _elected(connection):
            return 0
        found = await connection.fetch(_EMPTY)
        numbers = [number for (number,) in found]
        alone = "SELECT pg_try_advisory_xact_lock($1)"
        if not numbers or not await connection.fetchval(alone, NAMES_LOCK):
            return 0
        done = await connection.execute(
            f"DELETE FROM {SCHEMA}.series WHERE id IN ({_EMPTY} AND s.id = ANY($1::int[]))",  # noqa: S608 - our names
            numbers,
        )
        await connection.execute(
            f"INSERT INTO {SCHEMA}.meta AS m VALUES ('names forgotten', 1) "  # noqa: S608 - our name
            "ON CONFLICT (key) DO UPDATE SET value = m.value + 1"
        )
    return int(done.split()[-1])


async def _delete_old_points(connection: asyncpg.Connection[Any], now: float) -> int:
    deleted = 0
    for tier in TIERS:
        name = f"{table(tier)}_rest" if tier in PARTITIONED else table(tier)
        before = await _too_old(connection, tier, now)
        done = await connection.execute(f"DELETE FROM {name} WHERE time < $1", before)  # noqa: S608 - our name
        deleted += int(done.split()[-1])
    return deleted


async def _too_old(connection: asyncpg.Connection[Any], tier: Tier, now: float) -> int:
    """Before which time a tier's values go; what is still to be rolled up stays."""
    before = expired_before(tier, now)
    if tier is not FINEST:
        return before
    due = await connection.fetchval(f"SELECT min(time) FROM {SCHEMA}.due")  # noqa: S608 - our name
    return before if due is None else min(before, due)


async def _agreed(connection: asyncpg.Connection[Any], now: float) -> float:
    """The time, by the server where our own clock is ahead of it: it must not delete too much."""
    return min(now, float(await connection.fetchval("SELECT extract(epoch FROM now())")))


async def _elected(connection: asyncpg.Connection[Any], *, patience: str = "5s") -> bool:
    """Whether this process alone does the upkeep now; until the transaction ends."""
    await connection.execute(f"SET LOCAL lock_timeout = '{patience}'")
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", ROLLER_LOCK))


async def _roll(
    connection: asyncpg.Connection[Any], window: int, batches: list[int], unreadable: Unreadable
) -> None:
    found = await connection.fetch(
        "SELECT series, time, count, errors, total, peak, body "  # noqa: S608 - our name
        f"FROM {table(FINEST)} WHERE time >= $1 AND time < $2 AND batch = ANY($3::bigint[])",
        window,
        window + WINDOW,
        batches,
    )
    # Decoding and encoding take long, and the event loop has other things to do.
    work = partial(rolled, starmap(Stored, found), unreadable)
    for tier, sums in (await beside(work)).items():
        await _add(connection, tier, sums, unreadable)


async def _add(
    connection: asyncpg.Connection[Any],
    tier: Tier,
    sums: Mapping[tuple[int, int], Sum],
    unreadable: Unreadable,
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
    work = partial(_added, sums, starmap(Stored, there), unreadable)
    rows = await beside(work)
    await connection.executemany(
        f"INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6, $7) "  # noqa: S608 - our name
        "ON CONFLICT (series, time) DO UPDATE SET count = excluded.count, "
        "errors = excluded.errors, total = excluded.total, peak = excluded.peak, "
        "body = excluded.body",
        rows,
    )


def _added(
    sums: Mapping[tuple[int, int], Sum], there: Iterable[Stored], unreadable: Unreadable
) -> list[tuple[int | bytes, ...]]:
    """The sums with what is there already, as rows."""
    for stored in giving_way(there):
        unreadable.add(stored, sums[stored.series, stored.time])
    rows: list[tuple[int | bytes, ...]] = []
    ordered = sorted(sums.items(), key=lambda item: item[0])
    for (series, time), sum_ in giving_way(ordered):
        it = pack(sum_)
        rows.append((series, time, it.count, it.errors, it.total, it.peak, it.body))
    return rows
