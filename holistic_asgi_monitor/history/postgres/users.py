"""Users in the database: on which days they were there, and when each was last seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.history.attendance import latest
from holistic_asgi_monitor.history.postgres.schema import SCHEMA
from holistic_asgi_monitor.history.store import DAY_MINUTES, UsersSeen
from holistic_asgi_monitor.history.tiers import EVENT_DAYS, MOST_USERS_A_DAY
from holistic_asgi_monitor.history.turns import beside
from holistic_asgi_monitor.history.values import key_of

if TYPE_CHECKING:
    import asyncpg

__all__ = (
    "drop_user_days",
    "users",
    "users_by_day",
    "users_by_feature",
    "users_since",
    "write_users",
)

FEW = 100
"""So many in a batch do not overfill a day, even where batches come often."""
HASHES_AT_ONCE = 1000
_SERVICES = f"""WITH RECURSIVE known (service) AS (
  SELECT min(service) FROM {SCHEMA}.users UNION ALL
  SELECT (SELECT min(u.service) FROM {SCHEMA}.users AS u WHERE u.service > known.service)
  FROM known WHERE known.service IS NOT NULL)
SELECT service FROM known WHERE service IS NOT NULL"""  # noqa: S608 - our name
"""Whose users there are, without reading all of them."""


async def write_users(
    connection: asyncpg.Connection[Any], service: str, seen: Iterable[UsersSeen]
) -> int:
    """Note who was there, inside a transaction; how many were left out of days that are full.

    All replicas insert in the same order, so that none waits for another in a circle.
    """
    left_out, admitted = 0, list[UsersSeen]()
    for each in seen:
        place = service, each.day, key_of(each.feature)
        hashes = each.hashes
        if len(hashes) > FEW and await _is_full(connection, *place):
            hashes = await _known(connection, *place, hashes)
        left_out += len(each.hashes) - len(hashes)
        admitted.append(replace(each, hashes=hashes))
    # Sorting very many takes long, and the event loop has other things to do.
    days, last = await beside(partial(_rows, admitted))
    for part in _parts(days):
        await _write_days(connection, service, part)
    for part in _parts(last):
        await _write_last(connection, service, part)
    return left_out


async def users(
    connection: asyncpg.Connection[Any], service: str, start: int, end: int, feature: str
) -> int:
    """How many different users there were."""
    return int(
        await connection.fetchval(
            f"SELECT count(DISTINCT hash) FROM {SCHEMA}.users "  # noqa: S608 - our name
            "WHERE service = $1 AND day >= $2 AND day < $3 AND feature = $4",
            service,
            start,
            end,
            key_of(feature),
        )
    )


async def users_by_day(
    connection: asyncpg.Connection[Any],
    service: str,
    start: int,
    end: int,
    feature: str,
    *,
    also: Sequence[UsersSeen],
) -> Mapping[int, int]:
    """How many different users there were on each day, those of `also` among them.

    Of old days only that is known.
    """
    # Between the questions nobody may be written.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await _users_by_day(connection, service, start, end, feature)
        for each in also:
            known = await _known(connection, service, each.day, key_of(feature), each.hashes)
            found[each.day] = found.get(each.day, 0) + len(each.hashes) - len(known)
    return found


async def _users_by_day(
    connection: asyncpg.Connection[Any], service: str, start: int, end: int, feature: str
) -> dict[int, int]:
    found = await connection.fetch(
        "SELECT day, max(users) FROM ("  # noqa: S608 - our names
        f" SELECT day, count(*) AS users FROM {SCHEMA}.users"
        "  WHERE service = $1 AND day >= $2 AND day < $3 AND feature = $4 GROUP BY day"
        f" UNION ALL SELECT day, users FROM {SCHEMA}.user_days"
        "  WHERE service = $1 AND day >= $2 AND day < $3 AND feature = $4) AS known "
        "GROUP BY day ORDER BY day",
        service,
        start,
        end,
        key_of(feature),
    )
    return {day: int(count) for day, count in found}


async def users_by_feature(
    connection: asyncpg.Connection[Any], service: str, start: int, end: int
) -> Mapping[str, int]:
    """How many different users each feature had."""
    found = await connection.fetch(
        f"SELECT feature, count(DISTINCT hash) FROM {SCHEMA}.users "  # noqa: S608 - our name
        "WHERE service = $1 AND day >= $2 AND day < $3 AND feature <> '' "
        "GROUP BY feature ORDER BY feature",
        service,
        start,
        end,
    )
    return {feature: int(count) for feature, count in found}


async def users_since(
    connection: asyncpg.Connection[Any],
    service: str,
    minutes: Sequence[int],
    also: Sequence[UsersSeen],
) -> Mapping[str, tuple[int, ...]]:
    """How many different users were seen in or after each minute, those of `also` among them."""
    # Between the questions nobody may be written.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        counts = await _counted(connection, service, minutes)
        more = await beside(partial(_latest_rows, also))
        for part in _parts(more):
            for feature, *added in await _not_counted(connection, service, minutes, part):
                found = counts.setdefault(feature, [0] * len(minutes))
                counts[feature] = [one + other for one, other in zip(found, added, strict=True)]
    return {feature: tuple(found) for feature, found in counts.items() if any(found)}


async def drop_user_days(connection: asyncpg.Connection[Any], before: int) -> None:
    """Keep of the days before a day only how many users there were.

    Of each service it is one day at a time, the oldest: all of them, after a pause, could take
    longer than an answer may.
    """
    for (service,) in await connection.fetch(_SERVICES):
        oldest = f"SELECT min(day) FROM {SCHEMA}.users WHERE service = $1"  # noqa: S608 - our name
        until = await connection.fetchval(oldest, service) + 1
        if until <= before:
            await _drop_user_days(connection, service, until)
    await connection.execute(
        f"DELETE FROM {SCHEMA}.user_days WHERE day < $1",  # noqa: S608 - our name
        before - EVENT_DAYS,
    )


async def _drop_user_days(connection: asyncpg.Connection[Any], service: str, before: int) -> None:
    await connection.execute(
        f"INSERT INTO {SCHEMA}.user_days AS known "  # noqa: S608 - our names
        f"SELECT service, day, feature, count(*) FROM {SCHEMA}.users "
        "WHERE service = $1 AND day < $2 "
        "GROUP BY service, day, feature ON CONFLICT (service, day, feature) "
        "DO UPDATE SET users = greatest(known.users, excluded.users)",
        service,
        before,
    )
    gone = await connection.execute(
        f"DELETE FROM {SCHEMA}.users WHERE service = $1 AND day < $2",  # noqa: S608 - our name
        service,
        before,
    )
    if not gone.endswith(" 0"):
        await connection.execute(
            f"DELETE FROM {SCHEMA}.last_seen WHERE service = $1 AND last < $2",  # noqa: S608 - our name
            service,
            before * DAY_MINUTES,
        )


async def _is_full(
    connection: asyncpg.Connection[Any], service: str, day: int, feature: str
) -> bool:
    count = await connection.fetchval(
        f"SELECT count(*) FROM {SCHEMA}.users "  # noqa: S608 - our name
        "WHERE service = $1 AND day = $2 AND feature = $3",
        service,
        day,
        feature,
    )
    return int(count) >= MOST_USERS_A_DAY


async def _known(
    connection: asyncpg.Connection[Any],
    service: str,
    day: int,
    feature: str,
    users: Iterable[bytes],
) -> frozenset[bytes]:
    """Those of the users who are there already."""
    found: set[bytes] = set()
    for part in _parts(list(users)):
        rows = await connection.fetch(
            f"SELECT hash FROM {SCHEMA}.users "  # noqa: S608 - our name
            "WHERE service = $1 AND day = $2 AND feature = $3 AND hash = ANY($4::bytea[])",
            service,
            day,
            feature,
            part,
        )
        found.update(user for (user,) in rows)
    return frozenset(found)


async def _write_days(
    connection: asyncpg.Connection[Any], service: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    days, features, users = zip(*rows, strict=True)
    await connection.execute(
        f"INSERT INTO {SCHEMA}.users "  # noqa: S608 - our name
        "SELECT $4, * FROM unnest($1::int[], $2::text[], $3::bytea[]) ON CONFLICT DO NOTHING",
        days,
        features,
        users,
        service,
    )


async def _write_last(
    connection: asyncpg.Connection[Any], service: str, rows: Sequence[tuple[Any, ...]]
) -> None:
    features, users, minutes = zip(*rows, strict=True)
    await connection.execute(
        f"INSERT INTO {SCHEMA}.last_seen AS known "  # noqa: S608 - our name
        "SELECT $4, * FROM unnest($1::text[], $2::bytea[], $3::int[]) "
        "ON CONFLICT (service, feature, hash) DO UPDATE SET last = excluded.last "
        "WHERE excluded.last > known.last",
        features,
        users,
        minutes,
        service,
    )


async def _counted(
    connection: asyncpg.Connection[Any], service: str, minutes: Sequence[int]
) -> dict[str, list[int]]:
    """What is in the database, by feature."""
    counts = ", ".join(
        f"count(*) FILTER (WHERE last >= ${number})" for number, _ in enumerate(minutes, 3)
    )
    found = await connection.fetch(
        f"SELECT feature, {counts} FROM {SCHEMA}.last_seen "  # noqa: S608 - our names
        "WHERE service = $1 AND last >= $2 GROUP BY feature",
        service,
        min(minutes),
        *minutes,
    )
    return {feature: list(counted) for feature, *counted in found}


async def _not_counted(
    connection: asyncpg.Connection[Any],
    service: str,
    minutes: Sequence[int],
    rows: Sequence[tuple[Any, ...]],
) -> list[Any]:
    """How many of the users the database does not have in each window, by feature."""
    counts = ", ".join(
        f"count(*) FILTER (WHERE more.last >= ${number} AND coalesce(known.last, -1) < ${number})"
        for number, _ in enumerate(minutes, 5)
    )
    found: list[Any] = await connection.fetch(
        f"SELECT more.feature, {counts} "  # noqa: S608 - our names
        "FROM unnest($2::text[], $3::bytea[], $4::int[]) AS more (feature, hash, last) "
        f"LEFT JOIN {SCHEMA}.last_seen AS known ON known.service = $1 "
        "AND known.feature = more.feature AND known.hash = more.hash GROUP BY more.feature",
        service,
        *zip(*rows, strict=True),
        *minutes,
    )
    return found


def _rows(seen: Sequence[UsersSeen]) -> tuple[list[Any], list[Any]]:
    """The rows of the days, and those of when each was last seen."""
    days = {(each.day, key_of(each.feature), user) for each in seen for user in each.hashes}
    return sorted(days), sorted(_latest_rows(seen))


def _latest_rows(seen: Sequence[UsersSeen]) -> list[Any]:
    return [(feature, *who) for feature, users in latest(seen).items() for who in users.items()]


def _parts(rows: list[Any]) -> Iterator[list[Any]]:
    """Few at a time: what is sent is encoded on the event loop."""
    for start in range(0, len(rows), HASHES_AT_ONCE):
        yield rows[start : start + HASHES_AT_ONCE]
