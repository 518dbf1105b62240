"""What every store knows of users: each module with a fixture `store` takes these tests over."""

import anyio
import pytest

from holistic_asgi_monitor.history import tiers
from holistic_asgi_monitor.history.postgres import users as in_postgres
from holistic_asgi_monitor.history.sqlite import users as in_sqlite
from holistic_asgi_monitor.history.store import UsersSeen
from tests.history.samples import MIDNIGHT, NOON, batch, lived

DAY, DAY_MINUTES = 86_400, 1440
TODAY = MIDNIGHT // DAY
THIS_MINUTE = NOON // 60


def seen(who, *, ago=0, feature=""):
    """Users of one letter each, who were seen so many minutes before noon."""
    minute = THIS_MINUTE - ago
    hashes = frozenset(letter.encode() for letter in who)
    return UsersSeen(minute // DAY_MINUTES, feature, hashes, minute)


def since(*days):
    return [THIS_MINUTE - days * DAY_MINUTES for days in days]


async def test_a_user_is_in_every_window_that_reaches_back_to_when_he_was_last_seen(store):
    ago = {"a": 0, "b": 1440, "c": 1441, "d": 7 * 1440, "e": 7 * 1440 + 1, "f": 30 * 1440 + 1}
    for number, (who, minutes) in enumerate(ago.items()):
        await store.write(batch(number=number, users=[seen(who, ago=minutes)]))

    assert await store.users_since(since(1, 7, 30)) == {"": (2, 4, 5)}


async def test_the_latest_time_counts_whatever_the_order_and_the_process(store):
    for run, ago in (("run-a", 5000), ("run-b", 10), ("run-a", 3000)):
        await store.write(batch(run=run, number=ago, users=[seen("ab", ago=ago)]))

    assert await store.users_since(since(1, 7)) == {"": (2, 2)}
    assert await store.users(TODAY - 10, TODAY + 1) == 2


async def test_those_who_are_not_written_yet_count_once(store):
    await store.write(batch(users=[seen("abc", ago=2000), seen("a", ago=2000, feature="search")]))
    also = [
        seen("cd", ago=1),
        seen("cde", ago=900),
        seen("b", ago=20_000),
        seen("ab", feature="search"),
        seen("z", feature="export"),
    ]

    assert await store.users_since(since(0, 1, 7), also) == {
        "": (0, 3, 5),
        "search": (2, 2, 2),
        "export": (1, 1, 1),
    }
    assert await store.users_since(since(1, 7)) == {"": (0, 3), "search": (0, 1)}


async def test_a_day_has_those_who_are_not_written_yet_once(store):
    await store.write(
        batch(users=[seen("abc"), seen("xyz", ago=1440), seen("a", feature="search")])
    )
    today, tomorrow = (UsersSeen(TODAY + day, "", frozenset({b"c", b"d"})) for day in (0, 1))

    assert await store.users_by_day(TODAY - 1, TODAY + 2, "", [today, tomorrow]) == {
        TODAY - 1: 3,
        TODAY: 4,
        TODAY + 1: 2,
    }
    assert await store.users_by_day(TODAY, TODAY + 1) == {TODAY: 3}


async def test_a_day_without_a_minute_counts_as_its_end(store):
    await store.write(batch(users=[UsersSeen(TODAY - 1, "", frozenset({b"a"}))]))
    midnight = TODAY * DAY_MINUTES

    assert await store.users_since([midnight - 1, midnight]) == {"": (1, 0)}


async def test_who_was_there_is_known_for_35_days(store):
    for day in range(3):
        minute = (TODAY + day) * DAY_MINUTES + 5
        hashes = frozenset({b"a", bytes([day])})
        await store.write(batch(number=day, users=[UsersSeen(TODAY + day, "", hashes, minute)]))

    await lived(store, MIDNIGHT + 35 * DAY + 3600)

    assert await store.users(TODAY, TODAY + 9) == 3
    assert await store.users_by_day(TODAY, TODAY + 9) == {TODAY + day: 2 for day in range(3)}
    assert await store.users_since([0]) == {"": (3,)}
    await lived(store, MIDNIGHT + 37 * DAY + 3600)
    assert await store.users(TODAY, TODAY + 9) == 0
    assert await store.users_by_day(TODAY, TODAY + 9) == {TODAY + day: 2 for day in range(3)}
    assert await store.users_since([0]) == {}


async def test_more_users_than_a_day_may_have_are_left_out_and_said(store, monkeypatch):
    for module in (in_sqlite, in_postgres):
        monkeypatch.setattr(module, "MOST_USERS_A_DAY", 5)
        monkeypatch.setattr(module, "FEW", 1)
    assert await store.write(batch(users=[seen("abcdefg", ago=30)])) == 0

    assert await store.write(batch(number=1, users=[seen("fgxyz")])) == 3
    assert await store.write(batch(number=1, users=[seen("fgxyz")])) == 0

    assert await store.users(TODAY, TODAY + 1) == 7
    assert await store.users_since([THIS_MINUTE, 0]) == {"": (2, 7)}
    assert tiers.MOST_USERS_A_DAY >= 1_000_000


async def test_of_those_who_settle_something_together_all_are_told_the_same(store):
    told = set()

    async def settle(number):
        told.add(await store.settle_state("key", f"text {number}", NOON))

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(settle, number)

    assert told == {await store.get_state("key")}
    await store.put_state("key", "another", NOON)
    assert await store.settle_state("key", "text", NOON) == "another"


@pytest.mark.parametrize("count", [2500])
async def test_many_users_at_once(store, count):
    """More than one statement may hold, some of them known and some not."""
    users = [number.to_bytes(8) for number in range(count)]
    half = UsersSeen(TODAY, "", frozenset(users[: count // 2]), THIS_MINUTE - 100)
    await store.write(batch(users=[half]))
    also = [UsersSeen(TODAY, "", frozenset(users[count // 4 :]), THIS_MINUTE)]

    assert await store.users_since([0, THIS_MINUTE], also) == {"": (count, count - count // 4)}
    assert await store.users_by_day(TODAY, TODAY + 1, "", also) == {TODAY: count}
