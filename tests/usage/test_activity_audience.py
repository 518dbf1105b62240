"""How users and features are counted for the pages: fresh, cached, and without the store."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from holistic_asgi_monitor.history.store import Answer, StoreError, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.usage.activity import Activity, Remembered
from holistic_asgi_monitor.usage.audience import Audience, feature_uses

NOW = 20_000 * 86_400 + 45_000
DAY = 86_400


class People:
    """Stands for the recorder."""

    def __init__(self):
        self.now = float(NOW)
        self.counts = {"": (1, 2, 3), "export": (0, 1, 2)}
        self.uses = {"export": 5}
        self.waiting = []
        self.error = None
        self.held: anyio.Event | None = None
        self.asked = []
        self.reads = 0

    async def users_since(self, minutes):
        self.asked.append(minutes)
        if self.held:
            await self.held.wait()
        if self.error:
            raise self.error
        return self.counts

    def users_waiting(self):
        return self.waiting

    async def read(self, query):
        self.reads += 1
        groups: dict[tuple[str, ...], dict[int, Value]] = {}
        if query.step is None:
            groups = {(name,): {0: Value(count)} for name, count in self.uses.items()}
        return Answer(query.start, query.end, 60, groups)


def waiting(*letters, ago=0, feature=""):
    minute = NOW // 60 - ago
    return UsersSeen(minute // 1440, feature, frozenset(map(str.encode, letters)), minute)


class Desk:
    def __init__(self, **options):
        self.people, self.time = People(), 100.0
        options = {"watched": lambda: True, **options}
        self.audience = Audience(
            self.people, uses=lambda: {"export": 9}, clock=lambda: self.time, **options
        )

    async def users(self):
        return dict((await self.audience.now()).users)


def windows(day, week, month):
    return {"day": day, "week": week, "month": month}


async def test_the_windows_are_rolling_and_the_features_are_of_the_month():
    desk = Desk()
    crowd = await desk.audience.now()

    assert crowd.users == windows(1, 2, 3)
    assert [feature.as_dict() for feature in crowd.features] == [
        {"feature": "export", "uses": 5, "users": 2}
    ]
    assert desk.people.asked == [[NOW // 60 - days * 1440 for days in (1, 7, 30)]]


async def test_few_users_are_counted_each_time():
    desk = Desk()
    await desk.users()
    desk.people.counts = {"": (4, 4, 4)}

    assert await desk.users() == windows(4, 4, 4)


async def test_very_many_are_counted_once_a_minute():
    desk = Desk()
    desk.people.counts = {"": (10, 10, 10_001)}
    await desk.users()
    desk.people.counts = {"": (1, 1, 20_000)}
    desk.time += 59
    before = await desk.users()
    desk.time += 1

    assert before == windows(10, 10, 10_001)
    assert await desk.users() == windows(1, 1, 20_000)
    assert len(desk.people.asked) == 2


async def test_for_the_gauges_no_feature_is_read():
    desk = Desk()
    desk.people.counts = {"": (10, 10, 10_001), "export": (1, 1, 1)}
    for _ in range(2):
        await desk.audience.now(features=False)
    assert (len(desk.people.asked), desk.people.reads) == (1, 0)

    crowd = await desk.audience.now()

    assert [feature.as_dict() for feature in crowd.features] == [
        {"feature": "export", "uses": 5, "users": 1}
    ]
    before = desk.people.reads
    assert (await desk.audience.now(features=False)).features == crowd.features
    assert (await desk.audience.now()).features == crowd.features
    assert desk.people.reads == before


async def test_those_who_ask_together_share_the_count_of_very_many():
    desk = Desk()
    desk.people.counts = {"": (10, 10, 10_001)}
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(desk.users)

    assert len(desk.people.asked) == 1


async def test_nobody_waits_for_a_slow_store_and_a_count_in_the_background_helps():
    desk = Desk(patience=0.01)
    desk.people.held = anyio.Event()
    desk.people.waiting = [waiting("a", "b")]

    assert await desk.users() == windows(2, 2, 2)
    assert await desk.users() == windows(2, 2, 2)
    assert len(desk.people.asked) == 1
    async with anyio.create_task_group() as group:
        group.start_soon(desk.audience.refresh)
        await anyio.wait_all_tasks_blocked()
        desk.people.held.set()
    assert desk.audience.last.users == windows(1, 2, 3)


async def test_a_count_that_takes_long_is_not_made_each_minute(monkeypatch):
    desk = Desk()
    count = desk.people.users_since

    async def slowly(minutes):
        desk.time += 9
        return await count(minutes)

    monkeypatch.setattr(desk.people, "users_since", slowly)
    for _ in range(6):
        await desk.audience.refresh()
        desk.time += 60

    assert len(desk.people.asked) == 2


async def test_who_asks_does_not_begin_a_slow_count_again_and_again():
    """It goes on in its thread, though nobody waits for it any longer."""
    desk = Desk(patience=0.01)
    await desk.audience.refresh()
    desk.people.held = anyio.Event()
    for _ in range(5):
        assert await desk.users() == windows(1, 2, 3)
        desk.time += 11

    assert len(desk.people.asked) == 2


async def test_without_the_store_what_was_known_is_joined_with_memory():
    desk = Desk()
    await desk.users()
    desk.people.error = StoreError("gone")
    desk.people.waiting = [waiting("a", "b"), waiting("c", ago=2000), waiting("a", "c", ago=1)]

    desk.time += 119
    assert await desk.users() == windows(1, 2, 3)
    desk.time += 2
    assert await desk.users() == windows(3, 3, 3)
    desk.people.waiting = [waiting("c", ago=2000)]
    assert await desk.users() == windows(1, 2, 3)
    # Who was counted then cannot be in the day any longer.
    desk.time += DAY
    assert await desk.users() == windows(0, 2, 3)
    desk.people.error = None
    desk.time += 10
    assert await desk.users() == windows(1, 2, 3)


async def test_a_store_that_never_answered_leaves_what_memory_knows():
    desk = Desk()
    desk.people.error = StoreError("gone")
    desk.people.waiting = [waiting("a"), waiting("b", feature="export")]
    crowd = await desk.audience.now()

    assert crowd.users == windows(1, 1, 1)
    assert [feature.as_dict() for feature in crowd.features] == [
        {"feature": "export", "uses": 9, "users": 1}
    ]


async def test_where_nobody_watches_nothing_is_opened():
    desk = Desk(watched=lambda: False)
    desk.people.waiting = [waiting("a")]

    assert await desk.users() == windows(1, 1, 1)
    assert desk.people.asked == []


class TestRemembered:
    """Where no history is kept."""

    def make(self, **options):
        self.time = 1000.0
        self.dropped: list[int] = []
        return Remembered(lambda: self.time, lambda: self.dropped.append(1), **options)

    async def test_windows_roll_in_memory(self):
        remembered = self.make()
        desk = Desk(remembered=remembered)
        remembered.note(b"a")
        remembered.note(b"a", "export")
        self.time += DAY
        remembered.note(b"b")

        assert await desk.users() == windows(1, 2, 2)
        await desk.audience.refresh()
        assert desk.people.asked == []
        self.time += 30 * DAY
        assert await desk.users() == windows(0, 0, 0)

    async def test_it_is_bounded_and_those_who_came_in_time_are_known(self):
        remembered = self.make(most=2)
        for user in (b"a", b"b", b"c", b"a"):
            remembered.note(user)
        assert await remembered.counts() == {"": (2, 2, 2)}
        assert len(self.dropped) == 1
        self.time += 31 * DAY
        assert await remembered.counts() == {}
        remembered.note(b"d")

        assert await remembered.counts() == {"": (1, 1, 1)}
        assert len(self.dropped) == 1

    async def test_very_many_are_counted_once_a_minute_and_others_have_their_turn(self):
        remembered, turns = self.make(), 0
        desk = Desk(remembered=remembered)
        for number in range(20_000):
            remembered.note(number.to_bytes(8))

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(others)
            before = await desk.users()
            group.cancel_scope.cancel()
        remembered.note(b"one more")

        assert turns > 2
        assert await desk.users() == before == windows(20_000, 20_000, 20_000)
        desk.time += 60
        assert await desk.users() == windows(20_001, 20_001, 20_001)


@pytest.mark.parametrize("hours", range(0, 48, 5))
async def test_uses_of_a_feature_are_of_thirty_days_to_the_hour(hours):
    now = NOW + hours * 3600
    asked = []

    async def read(query):
        asked.append(query)
        return Answer(query.start, query.end, 60, {("a",): {query.start: Value(2)}})

    uses = await feature_uses(read, now)

    assert uses == {"a": 2 * len(asked)}
    assert all(query.kind is Kind.FEATURES for query in asked)
    assert asked[0].start == (now - 30 * DAY) // 3600 * 3600
    assert asked[-1].end > now
    assert [query.start for query in asked[1:]] == [query.end for query in asked[:-1]]
    assert asked[-1].start % DAY == 0


@pytest.mark.parametrize("user", ["ada", "\ud800", 7, "x" * 100_000])
def test_an_id_becomes_a_hash_of_the_same_length(user):
    plain, keyed = Activity(), Activity("secret")

    assert len(plain.hashed(user) or b"") == 16
    assert len(keyed.hashed(user) or b"") == 8
    assert keyed.hashed(user) == Activity("secret").hashed(user) != Activity("other").hashed(user)


class Thing:
    """Its text is its address in memory."""

    def method(self):
        return "ada"


async def a_coroutine():
    return "ada"


def test_what_is_another_with_each_request_is_no_id():
    coroutine = a_coroutine()
    for user in (Thing(), object(), coroutine, Thing().method, lambda: "ada"):
        with pytest.raises(TypeError, match="no id of a user"):
            Activity().hashed(user)
    coroutine.close()


def test_bytes_and_the_text_they_are_of_are_one_user():
    for same in (b"ada", bytearray(b"ada"), memoryview(b"ada")):
        assert Activity().hashed(same) == Activity().hashed("ada")
    assert Activity().hashed((1, "ada")) == Activity().hashed((1, "ada")) is not None


@pytest.mark.parametrize("user", [None, "", b"", False, True])
def test_nobody_is_no_user(user):
    assert Activity().hashed(user) is None
