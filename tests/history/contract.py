"""What every store does: each module with a fixture `store` takes these tests over."""

import random

import pytest

from holistic_asgi_monitor.history import bounds
from holistic_asgi_monitor.history.store import Event, Ours, Query, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Series, Sum, Value
from tests.history.samples import (
    ITEMS,
    MIDNIGHT,
    NOON,
    ORDERS,
    batch,
    counts,
    lived,
    of_requests,
    row,
    spread,
    timed,
)

DAY = 86_400
TODAY = MIDNIGHT // DAY


async def rolled(store, now):
    """Everything that is due at `now` is in the coarser tiers."""
    while (await store.maintain(now)).rolled:
        pass


async def test_what_was_written_is_read(store):
    value = spread(300)
    await store.write(batch(row(NOON, value), row(NOON + 60, timed(2))))

    answer = await store.read(of_requests(NOON, NOON + 180), NOON + 180)

    assert answer.points() == [(NOON, value), (NOON + 60, timed(2)), (NOON + 120, None)]


async def test_the_same_batch_again_changes_nothing(store):
    once = batch(row(NOON, timed(5)), users=[UsersSeen(TODAY, "", frozenset({b"a"}))])
    for _ in range(3):
        await store.write(once)

    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 5}
    assert await store.users(TODAY, TODAY + 1) == 1


async def test_batches_of_one_minute_and_of_many_processes_add_up(store):
    for number in range(3):
        for process in ("run-a", "run-b"):
            await store.write(batch(row(NOON, timed(5, errors=1)), run=process, number=number))

    answer = await store.read(of_requests(NOON, NOON + 60), NOON)

    ((_, value),) = answer.points()
    assert (value.count, value.errors, value.extra) == (30, 6, {"500": 6})


@pytest.mark.parametrize("name", ["web-2", "web\udcff"])
async def test_one_instance_can_be_asked_for(store, name):
    await store.write(batch(row(NOON, timed(5))))
    await store.write(batch(row(NOON, timed(7)), run="run-b", instance=name))

    answer = await store.read(of_requests(NOON, NOON + 60, instance=name), NOON)

    assert counts(answer) == {NOON: 7}


async def test_an_answer_says_which_batches_of_a_run_are_in_it(store):
    for number in range(4):
        await store.write(batch(row(NOON, timed(1)), number=number))
    await store.write(batch(row(NOON, timed(1)), run="run-b", number=9))

    answer = await store.read(of_requests(NOON, NOON + 60, ours=Ours("run-a", 2)), NOON)

    assert counts(answer) == {NOON: 5}
    assert answer.written == {2, 3}


async def test_labels_filter_and_keep_apart(store):
    await store.write(
        batch(
            row(NOON, timed(1)),
            row(NOON, timed(2), ORDERS),
            row(NOON, timed(4), Series(Kind.REQUESTS, ("DELETE", "/items/{id}"))),
            row(NOON, timed(8), Series(Kind.TRAFFIC)),
        )
    )

    async def asked(**options):
        return await store.read(of_requests(NOON, NOON + 60, **options), NOON)

    assert counts(await asked()) == {NOON: 7}
    assert counts(await asked(where={"endpoint": "/items/{id}"})) == {NOON: 5}
    assert counts(await asked(where={"endpoint": "/items/{id}", "method": "GET"})) == {NOON: 1}
    assert counts(await asked(where={"endpoint": "/never"})) == {}
    apart = await asked(by=("endpoint",))
    assert counts(apart, ("/items/{id}",)) == {NOON: 5}
    assert counts(apart, ("/orders",)) == {NOON: 2}


async def test_without_cells_the_numbers_are_the_same(store):
    await store.write(batch(row(NOON, timed(5, errors=2))))

    ((_, value),) = (await store.read(of_requests(NOON, NOON + 60, cells=False), NOON)).points()

    assert value == Value(5, 2, 5 * 10**8)


async def test_every_tier_gives_the_same_sums_and_quantiles(store):
    """A day and a half across midnight, in four processes; asked in steps of each tier."""
    start = MIDNIGHT - DAY
    draw, truth = random.Random(3), Sum()
    for minute in range(0, 36 * 60, 20):
        for process in range(4):
            value = spread(draw.randint(1, 9), seed=minute * 10 + process)
            truth.add(value)
            time = start + minute * 60
            await store.write(batch(row(time, value), run=f"run-{process}", number=minute))
        if minute % 60 == 0:
            await rolled(store, start + minute * 60)
    now = start + 36 * 3600

    for step in (None, 60, 300, 3600, DAY):
        answer = await store.read(of_requests(start, now, step), now)
        found = Sum.of(value for _, value in answer.points() if value is not None).value()
        assert found == truth.value(), step
        assert found.quantile(0.95) == truth.value().quantile(0.95)


async def test_at_no_moment_is_anything_missing_or_counted_twice(store):
    """Values move to the coarser tiers while they are asked for."""
    for minute in range(30):
        time = NOON + minute * 60
        await store.write(batch(row(time, timed(1)), number=minute))
        for step in (60, 300, 3600, DAY):
            answer = await store.read(of_requests(NOON, NOON + 3600, step), time)
            assert sum(counts(answer).values()) == minute + 1, step
        await store.maintain(time)


async def test_a_late_row_is_added_to_every_tier(store):
    await store.write(batch(row(NOON, timed(5))))
    await rolled(store, NOON + 1000)
    await store.write(batch(row(NOON, timed(2)), row(NOON + 60, timed(1)), number=1))
    before = await store.read(of_requests(NOON, NOON + 300, 300), NOON + 1000)
    await rolled(store, NOON + 1000)
    await rolled(store, NOON + 1000)

    assert counts(before) == {NOON: 8}
    for step in (300, 3600, DAY):
        answer = await store.read(of_requests(NOON, NOON + 300, step), NOON + 1000)
        assert sum(counts(answer).values()) == 8


async def test_what_is_too_old_for_a_tier_is_kept_in_the_next(store):
    await store.write(batch(row(NOON, timed(5))))
    await rolled(store, NOON + 1000)
    for days, step in ((1, 60), (3, 300), (20, 3600), (100, DAY)):
        now = NOON + days * DAY
        await lived(store, now)
        answer = await store.read(of_requests(NOON, NOON + 60), now)
        assert answer.step == step
        assert sum(counts(answer).values()) == 5
    await lived(store, NOON + 735 * DAY)

    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON + 735 * DAY)) == {}


async def test_what_is_not_rolled_up_yet_is_not_deleted(store):
    """A batch that waited for days, for example while a server was down."""
    now = NOON + 5 * DAY
    await store.write(batch(row(NOON, timed(5))))
    while (await store.maintain(now)).rolled:
        pass

    assert counts(await store.read(of_requests(NOON, NOON + 300, 300), now)) == {NOON: 5}


@pytest.mark.parametrize("start", [1_583_020_000, 1_774_745_000])  # leap day 2020, DST 2026
async def test_days_are_utc_days_whatever_the_calendar_does(store, start):
    first = start // DAY * DAY
    hours = [first + hour * 3600 for hour in range(72)]
    await store.write(batch(*(row(time, timed(1)) for time in hours)))
    await rolled(store, first + 3 * DAY + 1000)

    answer = await store.read(of_requests(first, first + 3 * DAY, DAY), first + 3 * DAY + 1000)

    assert counts(answer) == {first: 24, first + DAY: 24, first + 2 * DAY: 24}


async def test_the_peak_is_the_greatest_of_all(store):
    health = Series(Kind.HEALTH, ("database",))
    for number, gravity in enumerate((1, 5, 2)):
        value = Value(1, int(gravity > 1), 0, gravity)
        await store.write(batch(row(NOON + 60 * number, value, health), number=number))
    await rolled(store, NOON + 1000)

    query = Query(Kind.HEALTH, NOON, NOON + 300, 300, where={"check": "database"})
    ((_, value),) = (await store.read(query, NOON + 1000)).points()
    assert (value.peak, value.count, value.errors) == (5, 3, 2)


async def test_counts_are_64_bit(store):
    huge = Value(count=2**62, total=2**63 - 1, cells={0: 2**62})
    await store.write(batch(row(NOON, huge)))
    await rolled(store, NOON + 1000)

    ((_, value),) = (await store.read(of_requests(NOON, NOON + 300, 300), NOON + 1000)).points()
    assert value == huge


async def test_names_of_any_letters_are_kept(store):
    odd = Series(Kind.REQUESTS, ("GET", "/naïve/\ud800\x00'\"/{id}"))
    seen = UsersSeen(TODAY, "\ud800\x00", frozenset({b"\x00"}))
    await store.write(batch(row(NOON, timed(3), odd), users=[seen]))

    answer = await store.read(of_requests(NOON, NOON + 60, by=("endpoint",)), NOON)

    assert counts(answer, (odd.labels[1],)) == {NOON: 3}
    assert await store.users_by_feature(TODAY, TODAY + 1) == {"\\ud800\\x00": 1}


async def test_users_are_counted_once_over_days_and_processes(store):
    for number, (day, feature, who) in enumerate(
        [(0, "", "ab"), (0, "", "bc"), (1, "", "cd"), (1, "search", "c"), (5, "search", "cd")]
    ):
        seen = UsersSeen(TODAY + day, feature, frozenset(letter.encode() for letter in who))
        await store.write(batch(run=f"run-{number}", users=[seen]))

    assert await store.users(TODAY, TODAY + 1) == 3
    assert await store.users(TODAY, TODAY + 30) == 4
    assert await store.users(TODAY, TODAY + 30, "search") == 2
    assert await store.users_by_day(TODAY, TODAY + 30) == {TODAY: 3, TODAY + 1: 2}
    assert await store.users_by_feature(TODAY, TODAY + 2) == {"search": 1}


async def test_of_old_days_it_is_known_how_many_users_there_were(store):
    seen = UsersSeen(TODAY, "", frozenset({b"a", b"b"}))
    await store.write(batch(users=[seen]))
    await lived(store, NOON + 100 * DAY)

    assert await store.users_by_day(TODAY, TODAY + 1) == {TODAY: 2}
    assert await store.users(TODAY, TODAY + 1) == 0


async def test_spend_is_whole_nano_dollars(store):
    calls = Series(Kind.SPEND, ("gpt", "/ask", "chat"))
    value = Value(2, 1, 1_234_567_891, extra={"input": 100, "output": 5, "status:success": 1})
    for number in range(1000):
        await store.write(batch(row(NOON, value, calls), number=number))

    query = Query(Kind.SPEND, NOON, NOON + 60, where={"model": "gpt"})
    ((_, found),) = (await store.read(query, NOON)).points()
    assert (found.count, found.total, found.extra["input"]) == (2000, 1_234_567_891_000, 100_000)


async def test_state_is_kept_under_its_key(store):
    assert await store.get_state("incidents") is None
    await store.put_state("incidents", '{"a": 1}', NOON)
    await store.put_state("incidents", '{"a": 2}', NOON)

    assert await store.get_state("incidents") == '{"a": 2}'


async def test_one_caller_alone_is_the_first(store):
    assert [await store.claim("spend 2026-11-26", NOON) for _ in range(3)] == [True, False, False]
    await lived(store, NOON + 91 * DAY)
    assert await store.claim("spend 2026-11-26", NOON)


async def test_the_log_is_only_added_to(store):
    entries = [Event(f"id-{number}", NOON + number, "incident", "db", "{}") for number in range(5)]
    for entry in [*entries, *entries]:
        await store.add_event(entry)
    await store.add_event(Event("other", NOON, "round", "db", "{}"))

    found = await store.events("incident", NOON + 1, NOON + 4, limit=2)

    assert list(found) == [entries[3], entries[2]]


async def test_a_single_stretch_is_the_sum_of_all(store):
    await store.write(batch(*(row(NOON + 60 * minute, timed(1)) for minute in range(90))))

    answer = await store.read(of_requests(NOON, NOON + 5400, None, by=("endpoint",)), NOON + 5400)

    assert counts(answer, (ITEMS.labels[1],)) == {answer.start: 90}


@pytest.mark.parametrize("step", [60, 300])
@pytest.mark.parametrize("instance", [None, "web-1"])
async def test_a_question_that_is_made_of_too_much_is_refused(store, step, instance, monkeypatch):
    monkeypatch.setattr(bounds, "MOST_VALUES", 10)
    await store.write(batch(*(row(NOON + 60 * minute, timed(1)) for minute in range(11))))

    async def asked(minutes):
        query = of_requests(NOON, NOON + 60 * minutes, step, instance=instance)
        return sum(counts(await store.read(query, NOON + 700)).values())

    with pytest.raises(
        bounds.TooMuchError, match="takes more than 10 stored values; allowed: a sh"
    ):
        await asked(15)
    assert await asked(10) == 10


async def test_a_closed_store_opens_again(store):
    await store.close()
    await store.close()
    await store.open()
    await store.write(batch(row(NOON)))

    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 1}
