"""Users in the file: on which days they were there, and when each was last seen."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence

from holistic_asgi_monitor.history.attendance import latest
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.sqlite.file import Session, one_state, put_rows, transaction
from holistic_asgi_monitor.history.store import DAY_MINUTES, UsersSeen
from holistic_asgi_monitor.history.tiers import EVENT_DAYS, MOST_USERS_A_DAY
from holistic_asgi_monitor.history.values import key_of

__all__ = (
    "drop_user_days",
    "users",
    "users_by_day",
    "users_by_feature",
    "users_since",
    "write_users",
)

Place = tuple[str, int, str]
"""Service, day and feature, as they stand in the rows."""

FEW = 100
"""So many in a batch do not overfill a day, even where batches come often."""
HASHES_AT_ONCE = 500
_LATER = (
    "ON CONFLICT (service, feature, hash) DO UPDATE SET last = excluded.last "
    "WHERE excluded.last > last_seen.last"
)
_SERVICES = """WITH RECURSIVE known (service) AS (
  SELECT min(service) FROM users UNION ALL
  SELECT (SELECT min(u.service) FROM users AS u WHERE u.service > known.service)
  FROM known WHERE known.service IS NOT NULL)
SELECT service FROM known WHERE service IS NOT NULL"""
"""Whose users there are, without reading all of them."""


def write_users(session: Session, seen: Iterable[UsersSeen]) -> int:
    """Note who was there, inside a transaction; how many were left out of days that are full."""
    connection, left_out = session.connection, 0
    for each in seen:
        place = session.service, each.day, key_of(each.feature)
        users = sorted(each.hashes)
        if len(users) > FEW and _is_full(connection, place):
            users = [user for part in _parts(users) for user in _known(connection, place, part)]
            left_out += len(each.hashes) - len(users)
        put_rows(connection, "INSERT OR IGNORE INTO users", [(*place, user) for user in users])
        service, _, feature = place
        rows = [(service, feature, user, each.last) for user in users]
        put_rows(connection, "INSERT INTO last_seen", rows, _LATER)
    return left_out


def users(session: Session, start: int, end: int, feature: str) -> int:
    """How many different users there were."""
    (count,) = session.connection.execute(
        "SELECT count(DISTINCT hash) FROM users "
        "WHERE service = ? AND day >= ? AND day < ? AND feature = ?",
        (session.service, start, end, key_of(feature)),
    ).fetchone()
    return int(count)


def users_by_day(
    session: Session, start: int, end: int, feature: str, also: Sequence[UsersSeen]
) -> Mapping[int, int]:
    """How many different users there were on each day, those of `also` among them.

    Of old days only that is known.
    """
    connection = session.connection
    # Between the questions nobody may be written.
    with one_state(connection):
        found = _users_by_day(session, start, end, feature)
        for each in giving_way(also):
            place = session.service, each.day, key_of(feature)
            parts = _parts(list(each.hashes))
            known = sum(len(_known(connection, place, part)) for part in parts)
            found[each.day] = found.get(each.day, 0) + len(each.hashes) - known
    return found


def _users_by_day(session: Session, start: int, end: int, feature: str) -> dict[int, int]:
    found = session.connection.execute(
        "SELECT day, max(users) FROM ("
        " SELECT day, count(*) AS users FROM users"
        " WHERE service = :service AND day >= :start AND day < :end AND feature = :feature"
        " GROUP BY day"
        " UNION ALL SELECT day, users FROM user_days"
        " WHERE service = :service AND day >= :start AND day < :end AND feature = :feature)"
        " GROUP BY day ORDER BY day",
        {"service": session.service, "start": start, "end": end, "feature": key_of(feature)},
    )
    return dict(found.fetchall())


def users_by_feature(session: Session, start: int, end: int) -> Mapping[str, int]:
    """How many different users each feature had."""
    found = session.connection.execute(
        "SELECT feature, count(DISTINCT hash) FROM users "
        "WHERE service = ? AND day >= ? AND day < ? AND feature <> '' "
        "GROUP BY feature ORDER BY feature",
        (session.service, start, end),
    )
    return dict(found.fetchall())


def users_since(
    session: Session, minutes: Sequence[int], also: Sequence[UsersSeen]
) -> Mapping[str, tuple[int, ...]]:
    """How many different users were seen in or after each minute, those of `also` among them."""
    # Between the two questions nobody may be written.
    with one_state(session.connection):
        counts = _counted(session, minutes)
        for feature, seen in latest(also).items():
            found = counts.setdefault(feature, [0] * len(minutes))
            for user, before in giving_way(_seen_before(session, feature, list(seen))):
                for number, minute in enumerate(minutes):
                    found[number] += before < minute <= seen[user]
    return {feature: tuple(found) for feature, found in counts.items() if any(found)}


def drop_user_days(session: Session, before: int) -> None:
    """Keep of the days before a day only how many users there were."""
    connection = session.connection
    services = [service for (service,) in connection.execute(_SERVICES)]
    for service in services:
        with transaction(connection):
            connection.execute(
                "INSERT INTO user_days SELECT service, day, feature, count(*) FROM users "
                "WHERE service = ? AND day < ? GROUP BY service, day, feature "
                "ON CONFLICT (service, day, feature) "
                "DO UPDATE SET users = max(users, excluded.users)",
                (service, before),
            )
            gone = connection.execute(
                "DELETE FROM users WHERE service = ? AND day < ?", (service, before)
            ).rowcount
            if gone:
                connection.execute(
                    "DELETE FROM last_seen WHERE service = ? AND last < ?",
                    (service, before * DAY_MINUTES),
                )
    with transaction(connection):
        connection.execute("DELETE FROM user_days WHERE day < ?", (before - EVENT_DAYS,))


def _is_full(connection: sqlite3.Connection, place: Place) -> bool:
    (count,) = connection.execute(
        "SELECT count(*) FROM users WHERE service = ? AND day = ? AND feature = ?", place
    ).fetchone()
    return int(count) >= MOST_USERS_A_DAY


def _known(connection: sqlite3.Connection, place: Place, users: Sequence[bytes]) -> list[bytes]:
    """Those of the users who are there already."""
    marks = ", ".join("?" * len(users))
    found = connection.execute(
        "SELECT hash FROM users WHERE service = ? AND day = ? AND feature = ? "  # noqa: S608 - marks
        f"AND hash IN ({marks})",
        (*place, *users),
    )
    return [user for (user,) in found]


def _counted(session: Session, minutes: Sequence[int]) -> dict[str, list[int]]:
    """What is in the file, by feature."""
    sums = ", ".join("sum(last >= ?)" for _ in minutes)
    found = session.connection.execute(
        f"SELECT feature, {sums} FROM last_seen WHERE service = ? AND last >= ? GROUP BY feature",  # noqa: S608 - marks
        (*minutes, session.service, min(minutes)),
    )
    return {feature: counts for feature, *counts in found}


def _seen_before(session: Session, feature: str, users: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """The minute in which the file saw each of the users last, -1 where it did not."""
    for part in _parts(users):
        marks = ", ".join("?" * len(part))
        found = session.connection.execute(
            "SELECT hash, last FROM last_seen WHERE service = ? AND feature = ? "  # noqa: S608 - marks
            f"AND hash IN ({marks})",
            (session.service, feature, *part),
        )
        known: dict[bytes, int] = dict(found.fetchall())
        for user in part:
            yield user, known.get(user, -1)


def _parts(users: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(users), HASHES_AT_ONCE):
        yield users[start : start + HASHES_AT_ONCE]
