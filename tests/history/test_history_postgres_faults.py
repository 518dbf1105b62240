"""History in PostgreSQL: many replicas, servers that go away, rights that are missing."""

import asyncio
import gc
import logging
import socket
import time
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import asyncpg
import pytest

from holistic_asgi_monitor.connecting import ConnectingLoop
from holistic_asgi_monitor.history.pending import Pending
from holistic_asgi_monitor.history.postgres import PostgreSQL, upkeep, writing
from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.postgres.line import _said
from holistic_asgi_monitor.history.postgres.schema import NAMES_LOCK, VERSION
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Query, StoreError, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Series
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import ConfigurationError
from tests.history.postgres_stores import Stores
from tests.history.samples import (
    NOON,
    batch,
    counts,
    of_requests,
    row,
    spread,
    stretches,
    timed,
)

DAY = 86_400
TODAY = NOON // DAY
SERIES = [Series(Kind.REQUESTS, ("GET", f"/{number}")) for number in range(30)]


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def stores(postgres, anyio_backend):
    made = Stores(postgres)
    yield made
    await made.close()


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("steps", range(12))
async def test_who_gives_up_while_it_connects_leaves_nothing_behind(steps):
    """However far it has come: no future of the driver's that nobody asks what became of it."""
    lost = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = PostgreSQL(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/history")
        opening = asyncio.create_task(store.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await store.close()
        del opening
        await asyncio.sleep(0)
        gc.collect()

    assert lost == []


async def test_tasks_are_found_by_the_loop_that_a_connection_is_made_by():
    loop: Any = ConnectingLoop(asyncio.get_running_loop())

    assert asyncio.current_task(loop) is asyncio.current_task()


async def test_four_replicas_write_the_same_minutes(stores):
    """New series, the same users, upkeep in between: sums exact, and nobody deadlocks."""
    replicas = [stores.make() for _ in range(4)]
    value, minutes = spread(20), 12

    async def live(number, store):
        await store.open()
        series = SERIES if number % 2 else SERIES[::-1]
        for minute in range(minutes):
            rows = [row(NOON + 60 * minute, value, each) for each in series]
            users = [UsersSeen(TODAY, "", frozenset(bytes([user]) for user in range(50)))]
            await store.write(batch(*rows, run=f"run-{number}", number=minute, users=users))
            await store.maintain(NOON + 60 * minute)

    async with anyio.create_task_group() as group:
        for number, store in enumerate(replicas):
            group.start_soon(live, number, store)

    for step in (60, 300, 3600):
        answer = await replicas[0].read(of_requests(NOON, NOON + 60 * minutes, step), NOON + 720)
        assert sum(counts(answer).values()) == 4 * 20 * len(SERIES) * minutes
        ((_, first), *_) = answer.points()
        assert first.quantile(0.95) == value.quantile(0.95)
    assert await replicas[0].users(TODAY, TODAY + 1) == 50
    assert stores.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]


async def test_a_batch_of_many_series_lets_others_in(stores, monkeypatch):
    """Here each series takes too long, whether its number is known or not."""
    store = stores.make()
    await store.open()
    many = [Series(Kind.REQUESTS, ("GET", f"/{number}")) for number in range(200)]
    rows = [row(NOON, timed(1), each) for each in many]
    turns = stretches(monkeypatch)
    await store.write(batch(*rows))
    first = len(turns)
    await store.write(batch(*rows, number=1))

    assert first >= 3 * len(many)
    assert len(turns) - first >= 2 * len(many)
    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 400}


async def test_of_eight_that_start_at_once_one_makes_the_tables(stores):
    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(stores.make().open)

    found = stores.query("SELECT value FROM holistic_monitor.meta WHERE key = 'version'")
    assert found == [(VERSION,)]


async def test_names_of_which_nothing_is_left_are_forgotten_by_every_process(stores):
    """Nobody writes to a number that he remembers, and that is nobody's any longer."""
    one, other = stores.make(), stores.make()
    await one.open()
    shop, till, cart = SERIES[:3]
    await one.write(batch(row(NOON, timed(1), shop), row(NOON, timed(2), till)))
    await other.write(batch(row(NOON, timed(4), till), run="other"))
    stores.now = later = NOON + 900 * DAY
    await one.maintain(later)
    await one.maintain(later + 3600)
    assert stores.query("SELECT count(*) FROM holistic_monitor.series") == [(0,)]

    await one.write(batch(row(later, timed(8), cart), number=1))
    await other.write(batch(row(later, timed(16), till), run="other", number=1))
    await one.write(batch(row(later, timed(32), shop), number=2))

    for series, count in ((cart, 8), (till, 16), (shop, 32)):
        where = {"endpoint": series.labels[1]}
        answer = await one.read(of_requests(later, later + 60, where=where), later)
        assert counts(answer) == {later: count}


async def test_names_are_forgotten_while_four_write_and_no_value_is_lost(stores):
    """What one deletes, another has just looked up: the sums must be exact all the same."""
    replicas, upkeeper = [stores.make() for _ in range(4)], stores.make()
    await upkeeper.open()
    minutes, forgotten = 30, 0
    writing_on = len(replicas)

    async def live(number, store):
        nonlocal writing_on
        for minute in range(minutes):
            rows = [row(NOON + 60 * minute, timed(1), each) for each in SERIES[minute % 3 :: 3]]
            await store.write(batch(*rows, run=f"run-{number}", number=minute))
            if minute % 10 == 9:
                # As if all of it had become too old: what nobody has any longer, goes.
                await store._write(delete_points)
        writing_on -= 1

    async def delete_points(line):
        await line.execute("DELETE FROM holistic_monitor.points_60 WHERE count = 1")

    async def forget():
        nonlocal forgotten
        while writing_on:
            forgotten += await upkeeper._write(upkeep.forget_names)
        # Writers under load may have left no gap between them until now.
        forgotten += await upkeeper._write(upkeep.forget_names)

    async with anyio.create_task_group() as group:
        group.start_soon(forget)
        for number, store in enumerate(replicas):
            group.start_soon(live, number, store)
    later = NOON + DAY
    for number, store in enumerate(replicas):
        rows = [row(later, timed(7), each) for each in SERIES]
        await store.write(batch(*rows, run=f"run-{number}", number=minutes))
        await upkeeper._write(upkeep.forget_names)

    answer = await upkeeper.read(of_requests(later, later + 60, by=("endpoint",)), later)
    assert forgotten > 0
    assert [counts(answer, (each.labels[1],)) for each in SERIES] == [{later: 28}] * len(SERIES)
    orphans = (
        "SELECT count(*) FROM holistic_monitor.points_60 AS p WHERE NOT EXISTS "
        "(SELECT 1 FROM holistic_monitor.series AS s WHERE s.id = p.series)"
    )
    assert stores.query(orphans) == [(0,)]
    assert stores.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]


async def test_names_are_not_forgotten_while_a_batch_is_being_written(stores):
    store, upkeeper = stores.make(), stores.make()
    await store.open()
    await store.write(batch(row(NOON)))
    stores.query("DELETE FROM holistic_monitor.points_60")
    other = await asyncpg.connect(stores.server.url(database=stores.database))
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock_shared($1)", NAMES_LOCK)
        assert await upkeeper._write(upkeep.forget_names) == 0
    await other.close()

    assert await upkeeper._write(upkeep.forget_names) == 1


@pytest.mark.parametrize("body", ["02ff", "0105"], ids=["newer", "damaged"])
async def test_a_value_that_cannot_be_read_is_left_out_and_counted(stores, body):
    store = stores.make()
    await store.open()
    for number in range(10):
        await store.write(batch(row(NOON + 60 * number, spread(9)), number=number))
    stores.query(
        f"UPDATE holistic_monitor.points_60 SET body = decode('{body}', 'hex') WHERE time = {NOON}"
    )

    fine = await store.read(of_requests(NOON, NOON + 600), NOON + 600)
    done = await store.maintain(NOON + 1000)
    again = await store.maintain(NOON + 1000)
    coarse = await store.read(of_requests(NOON, NOON + 600, 300), NOON + 1000)

    assert counts(fine) == {NOON + 60 * number: 9 for number in range(1, 10)}
    assert (done.rolled, done.unreadable) == (2, 1)
    assert (again.rolled, again.unreadable) == (0, 0)
    assert counts(coarse) == {NOON: 36, NOON + 300: 45}


async def test_a_coarser_value_that_cannot_be_read_is_begun_anew_and_counted(stores):
    store = stores.make()
    await store.open()
    await store.write(batch(row(NOON, timed(1))))
    await store.maintain(NOON + 1000)
    stores.query("UPDATE holistic_monitor.points_3600 SET body = decode('02ff', 'hex')")
    await store.write(batch(row(NOON + 300, timed(2)), number=1))

    assert (await store.maintain(NOON + 1000)).unreadable == 1
    hours = await store.read(of_requests(NOON, NOON + 3600, 3600), NOON + 1000)
    assert counts(hours) == {NOON: 2}


async def write_once(one, line):
    return await writing.write(line, "", one, writing.Known(), NOON)


async def test_a_connection_that_breaks_anywhere_loses_and_doubles_nothing(stores, proxy):
    """Also after the commit, when nobody knows whether it was written."""
    front = proxy(stores.server)
    store = stores.make(port=front.port)
    await store.open()
    number = unbroken = 0
    committed: list[tuple[int, ...]] = []
    # A break before the question itself is mended; after the last piece of the answer there is none.
    while unbroken < 3 or not committed:
        number += 1
        one = batch(row(NOON, timed(5)), number=number)
        front.cut(after=1 + 8 * number)
        with suppress(StoreError):
            await store._writer.ask(partial(write_once, one), again=False)
            unbroken += 1
            continue
        unbroken = 0
        known = f"SELECT count(*) FROM holistic_monitor.batches WHERE number = {number}"
        committed += stores.query(known)
        front.restore()
        await store.write(one)

    front.restore()
    answer = await store.read(of_requests(NOON, NOON + 60), NOON)
    assert counts(answer) == {NOON: 5 * number}
    assert set(committed) == {(0,), (1,)}, "no break came before, or none after the commit"


async def test_a_connection_that_broke_while_it_was_idle_is_no_trouble(stores, proxy):
    front = proxy(stores.server)
    store = stores.make(port=front.port)
    await store.open()
    for number in range(3):
        await store.write(batch(row(NOON, timed(5)), number=number))
        await store.read(of_requests(NOON, NOON + 60), NOON)
        front.cut()

    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 15}


async def test_a_connection_that_the_network_forgot_is_no_trouble(stores, proxy):
    """A firewall drops what rested for long, tells neither end, and lets new ones through."""
    front = proxy(stores.server)
    store = stores.make(port=front.port)
    await store.open()
    query = of_requests(NOON, NOON + 60)
    await store.write(batch(row(NOON, timed(5))))
    await store.read(query, NOON)
    front.black_hole()
    for line in (store._writer, store._reader):
        line._kept[1]._transport.write(b"S\0\0\0\4")  # lost: it never speaks again
    await anyio.sleep(0.2)
    front.restore()

    await store.write(batch(row(NOON, timed(5)), number=1))
    assert counts(await store.read(query, NOON)) == {NOON: 10}
    assert await store.claim("summary", NOON)


class Clocks:
    def __init__(self):
        self.monotonic, self.wall = 0.0, float(NOON) + 0.5


def recording(store, clocks, **options):
    requests = RequestSeries(Bounds((0.1,)), max_endpoints=100)
    made = Recorder(
        store,
        requests=requests,
        instance="web-1",
        flush_seconds=60,
        spare=lambda: store,
        clock=lambda: clocks.monotonic,
        wall=lambda: clocks.wall,
        **options,
    )

    async def run(seconds):
        for _ in range(seconds // 5):
            clocks.monotonic += 5
            clocks.wall += 5
            await made.step()

    def serve(count):
        found = requests.find("GET", "/items")
        for _ in range(count):
            requests.observe(found, 200, 10**7, streamed=False)

    return made, run, serve


async def test_while_the_server_is_down_numbers_wait_and_then_are_all_there(stores, caplog):
    """Five minutes by a virtual clock, with a server that is really stopped and started."""
    store, clocks = stores.make(), Clocks()
    recorder, run, serve = recording(store, clocks)
    serve(1)
    await run(60)
    await anyio.to_thread.run_sync(stores.server.stop)
    for _ in range(5):
        serve(2)
        await run(60)
    assert recorder.tally.pending == 5
    await anyio.to_thread.run_sync(stores.server.start)
    serve(3)
    await run(120)

    answer = await store.read(Query(Kind.TRAFFIC, NOON, NOON + 600, 60), clocks.wall)
    assert counts(answer) == {NOON: 1, **{NOON + 60 * n: 2 for n in range(1, 6)}, NOON + 360: 3}
    assert recorder.tally.dropped == recorder.tally.pending == 0
    assert 1 <= len(warnings(caplog)) <= 3, "one for each kind of trouble, not for each time"
    assert any("numbers are kept in memory" in each for each in warnings(caplog))
    await recorder.close()


async def test_of_a_server_that_is_down_for_long_the_oldest_is_dropped(stores, proxy):
    front = proxy(stores.server)
    store, clocks = stores.make(port=front.port), Clocks()
    recorder, run, serve = recording(store, clocks, pending=Pending(most_bytes=5_000))
    await run(60)
    front.refuse()
    front.cut()
    for _ in range(60):
        serve(1)
        await run(60)
    pending, dropped = recorder.tally.pending, recorder.tally.dropped
    front.restore()
    await run(120)

    answer = await store.read(Query(Kind.TRAFFIC, NOON, NOON + 4000, 60), clocks.wall)
    assert 0 < pending < 30
    assert sum(counts(answer).values()) == pending
    assert dropped == 2 * (60 - pending)
    await recorder.close()


async def test_a_network_that_swallows_everything_is_given_up(stores, proxy):
    front = proxy(stores.server)
    store = stores.make(port=front.port)
    await store.open()
    store._writer._patience = 0.5
    front.black_hole()

    with anyio.fail_after(10):
        with pytest.raises(StoreError, match="gives no answer"):
            await store.write(batch(row(NOON)))
        await store.close()
    front.restore()
    await store.write(batch(row(NOON)))

    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 1}


async def test_all_who_wait_for_a_silent_server_are_told_so_once_it_is_given_up(stores, proxy):
    """One after the other they would wait for as many times as long."""
    front = proxy(stores.server)
    store = stores.make(port=front.port)
    await store.open()
    await store.write(batch(row(NOON, timed(3))))
    query = of_requests(NOON, NOON + 60)
    assert counts(await store.read(query, NOON)) == {NOON: 3}
    store._reader._silent = 1.0
    front.black_hole()
    told = []

    async def ask():
        with pytest.raises(StoreError, match="gives no answer"):
            await store.read(query, NOON)
        told.append(1)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(ask)
    front.restore()

    assert len(told) == 40
    assert counts(await store.read(query, NOON)) == {NOON: 3}


async def test_a_question_that_nobody_waits_for_any_longer_ends_on_the_server_too(stores):
    store = stores.make()
    await store.open()
    asked = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"

    async def sleeping(wanted):
        with anyio.fail_after(20):
            while await anyio.to_thread.run_sync(stores.query, asked) != [(wanted,)]:
                await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(store._read, lambda line: line.execute("SELECT pg_sleep(300)"))
        await sleeping(1)
        group.cancel_scope.cancel()
    await sleeping(0)


def partitions(stores, step):
    found = stores.query(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND "
        f"relname LIKE 'points\\_{step}\\_day\\_%' ORDER BY relname"
    )
    return [int(name.rpartition("_")[2]) for (name,) in found]


async def test_an_app_that_has_taken_all_its_threads_holds_up_nothing(stores):
    store, seen = stores.make(), UsersSeen(TODAY, "", frozenset({b"ada"}), NOON // 60)
    await store.open()
    await store.write(batch(row(NOON, timed(3)), users=[seen]))
    limiter = anyio.to_thread.current_default_thread_limiter()
    taken = [object() for _ in range(int(limiter.available_tokens))]
    for each in taken:
        limiter.acquire_on_behalf_of_nowait(each)

    with anyio.fail_after(10):
        await store.write(batch(row(NOON, timed(4)), number=1, users=[seen]))
        await store.maintain(NOON + 900)
        assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 7}
        assert await store.users_since([0], [seen]) == {"": (1,)}
    for each in taken:
        limiter.release_on_behalf_of(each)


async def test_partitions_are_made_ahead_and_dropped(stores):
    store = stores.make()
    await store.open()
    assert partitions(stores, 60) == partitions(stores, 300) == [*range(TODAY - 1, TODAY + 3)]
    for day in range(20):
        stores.now = NOON + day * DAY
        await store.write(batch(row(NOON + day * DAY, timed(1)), number=day))
        while (await store.maintain(NOON + day * DAY + 1000)).rolled:
            pass

    newest = TODAY + 19
    assert partitions(stores, 60) == [*range(newest - 2, newest + 3)]
    assert partitions(stores, 300) == [*range(newest - 14, newest + 3)]
    assert stores.query("SELECT count(*) FROM holistic_monitor.points_60_rest") == [(0,)]
    now = NOON + 19 * DAY + 1000
    days = await store.read(of_requests(NOON, now, DAY), now)
    assert sum(counts(days).values()) == 20


async def test_rows_of_a_day_without_a_partition_are_kept_all_the_same(stores):
    store = stores.make()
    await store.open()
    await store.write(batch(row(NOON - 9 * DAY, timed(2)), row(NOON + 9 * DAY, timed(3))))
    for day in range(10):
        while (await store.maintain(NOON + day * DAY + 1000)).rolled:
            pass

    now = NOON + 9 * DAY + 1000
    days = await store.read(of_requests(NOON - 9 * DAY, now, DAY), now)
    assert sum(counts(days).values()) == 5


async def test_a_role_that_may_not_create_is_told_what_it_needs(stores):
    stores.server.add_role("reader", "S3cret/word")
    role = {"user": "reader", "password": "S3cret/word"}

    with pytest.raises(StoreError) as caught:
        await stores.make(**role).open()

    assert str(caught.value) == (
        f"user reader may not make the schema holistic_monitor at 127.0.0.1:{stores.server.port}/"
        f"{stores.database}: GRANT CREATE ON DATABASE {stores.database} TO reader, "
        "or make the schema for this user"
    )
    stores.query("CREATE SCHEMA holistic_monitor AUTHORIZATION reader")
    store = stores.make(**role)
    await store.open()
    await store.write(batch(row(NOON)))
    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 1}


async def test_a_role_that_may_not_create_gets_one_warning_and_then_works(stores, caplog):
    stores.server.add_role("later", "S3cret/word")
    store, clocks = stores.make(user="later", password="S3cret/word"), Clocks()
    recorder, run, serve = recording(store, clocks)
    serve(2)
    await run(300)
    assert len(warnings(caplog)) == 1
    stores.query(f"GRANT CREATE ON DATABASE {stores.database} TO later")
    await run(120)

    answer = await store.read(Query(Kind.TRAFFIC, NOON, NOON + 60, 60), clocks.wall)
    assert counts(answer) == {NOON: 2}
    assert "S3cret" not in caplog.text
    await recorder.close()


async def of_another(stores, name):
    """A store as a user who finds the schema there, and has no rights in it."""
    await stores.make().open()
    stores.server.add_role(name, "S3cret/word")
    return stores.make(user=name, password="S3cret/word")


async def test_a_role_that_may_not_use_the_schema_that_is_there_is_told_what_it_needs(stores):
    store = await of_another(stores, "stranger")

    with pytest.raises(StoreError) as caught:
        await store.open()
    sentence = str(caught.value)
    assert sentence == (
        "user stranger may not use the schema holistic_monitor that is there at 127.0.0.1:"
        f"{stores.server.port}/{stores.database}: GRANT USAGE ON SCHEMA holistic_monitor TO "
        "stranger, and GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "
        "holistic_monitor TO stranger, or name its owner in the address"
    )
    granted = sentence.partition(": ")[2].replace(", or name its owner in the address", "")
    usage, tables = granted.split(", and ")
    stores.query(usage)
    with pytest.raises(StoreError, match="user stranger may not use the schema"):
        await store.open()
    stores.query(tables)
    await store.open()
    await store.write(batch(row(NOON)))
    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 1}


async def test_a_role_that_does_not_own_the_tables_writes_and_says_that_it_adds_no_days(
    stores, caplog
):
    store = await of_another(stores, "tenant")
    stores.query("GRANT USAGE ON SCHEMA holistic_monitor TO tenant")
    stores.query("GRANT ALL ON ALL TABLES IN SCHEMA holistic_monitor TO tenant")
    await store.open()
    await store.write(batch(row(NOON + 3 * DAY)))
    for minutes in (0, 5, 10):
        await store.maintain(NOON + 3 * DAY + 1000 + 60 * minutes)

    (warning,) = warnings(caplog)
    assert "adds and drops no days now: user tenant may not change the tables" in warning
    answer = await store.read(of_requests(NOON, NOON + 4 * DAY, DAY), NOON + 3 * DAY + 1000)
    assert sum(counts(answer).values()) == 1


async def test_a_role_that_may_not_make_tables_in_the_schema_is_told_what_it_needs(stores):
    stores.query("CREATE SCHEMA holistic_monitor")
    stores.server.add_role("maker", "S3cret/word")
    store = stores.make(user="maker", password="S3cret/word")

    with pytest.raises(StoreError, match="user maker may not make tables in the schema") as caught:
        await store.open()
    assert "GRANT USAGE, CREATE ON SCHEMA holistic_monitor TO maker" in str(caught.value)
    stores.query("GRANT USAGE, CREATE ON SCHEMA holistic_monitor TO maker")
    await store.open()


async def test_a_reader_that_stays_for_long_holds_up_days_alone(stores, caplog):
    """pg_dump holds every table for as long as it runs."""
    store, replica = stores.make(), stores.make()
    await store.open()
    await replica.open()
    await store.write(batch(row(NOON - DAY, timed(2))))
    reader = await asyncpg.connect(stores.server.url(database=stores.database))
    holding = reader.transaction()
    await holding.start()
    await reader.fetch("SELECT count(*) FROM holistic_monitor.points_60")
    now = NOON + 3 * DAY
    with anyio.fail_after(4):
        done = await store.maintain(now)
        await replica.write(batch(row(NOON, timed(3)), run="run-b"))
    await store.maintain(now + 60)
    await store.maintain(now + 300)
    before = partitions(stores, 60)

    assert done.rolled == 1
    assert before == [*range(TODAY - 1, TODAY + 3)]
    (warning,) = warnings(caplog)
    assert "adds and drops no days now: another session, such as pg_dump, holds" in warning
    await holding.rollback()
    await reader.close()
    await store.maintain(now + 400)
    assert partitions(stores, 60) == before, "it is tried again after minutes only"
    await store.maintain(now + 600)
    assert partitions(stores, 60) == [*range(TODAY + 1, TODAY + 6)]


async def test_a_clock_that_is_ahead_of_the_servers_deletes_by_the_servers(stores):
    store = stores.make()
    await store.open()
    real = int(time.time()) // 60 * 60
    await store.write(batch(row(real - 600, timed(3))))
    await store.claim("today", real)
    for _ in range(3):
        await store.maintain(real + 800 * DAY)

    for step in (60, DAY):
        answer = await store.read(of_requests(real - 600, real, step), real)
        assert sum(counts(answer).values()) == 3
    assert not await store.claim("today", real)


async def test_who_is_not_let_in_is_told_why_without_the_password(stores):
    stores.server.add_role("guest", "right")

    with pytest.raises(StoreError, match="rejects the password of user guest") as caught:
        await stores.make(user="guest", password="wrong-S3cret").open()

    assert "S3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_a_server_that_is_not_there_is_named(stores):
    with pytest.raises(StoreError, match=f"at 127.0.0.1:1/{stores.database} refuses connections"):
        await stores.make(port=1).open()


async def test_a_database_that_does_not_exist_is_named(stores):
    stores.database = "nowhere"

    with pytest.raises(StoreError, match=r"there is no such database as 127\.0\.0\.1:\d+/nowhere"):
        await stores.make().open()
    stores.database = "postgres"


async def test_services_that_share_a_database_see_their_own_numbers_only(stores):
    shops, others = stores.make(), stores.make()
    others._service = "other"
    for number, store in enumerate((shops, others)):
        await store.open()
        seen = UsersSeen(TODAY, "", frozenset(bytes([user]) for user in range(number + 1)))
        await store.write(batch(row(NOON, timed(3 + number)), run=f"run-{number}", users=[seen]))
        await store.put_state("alerts", str(number), NOON)
        assert await store.claim("summary", NOON)

    for number, store in enumerate((shops, others)):
        await store.maintain(NOON + 1000)
        for step in (60, 300):
            answer = await store.read(of_requests(NOON, NOON + 60, step), NOON)
            assert counts(answer) == {NOON: 3 + number}
        assert await store.users(TODAY, TODAY + 1) == number + 1
        assert await store.get_state("alerts") == str(number)


async def test_newer_tables_are_only_read(stores, caplog):
    first = stores.make()
    await first.open()
    await first.write(batch(row(NOON, timed(3))))
    stores.query(f"UPDATE holistic_monitor.meta SET value = {VERSION + 1} WHERE key = 'version'")
    store = stores.make()
    for _ in range(2):
        await store.open()

    assert not store.writable
    with pytest.raises(StoreError, match="was written by a newer version, and is only read"):
        await store.write(batch(row(NOON, timed(3)), number=1))
    assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 3}
    assert len(warnings(caplog)) == 1


async def test_newer_tables_that_come_meanwhile_are_noticed_with_the_next_write(stores, caplog):
    """Of a service whose processes are replaced one after the other, the old ones go on."""
    store, clocks = stores.make(), Clocks()
    recorder, run, serve = recording(store, clocks)
    serve(1)
    await run(60)
    stores.query(f"UPDATE holistic_monitor.meta SET value = {VERSION + 1} WHERE key = 'version'")
    for _ in range(3):
        serve(2)
        await run(60)

    assert not store.writable
    answer = await store.read(Query(Kind.TRAFFIC, NOON, NOON + 300, 60), clocks.wall)
    assert counts(answer) == {NOON: 1}
    assert (recorder.tally.pending, recorder.tally.dropped) == (0, 6)
    assert len(warnings(caplog)) == 1
    assert "was written by a newer version" in warnings(caplog)[0]
    await recorder.close()


async def test_tables_that_were_dropped_are_made_again_by_the_recorder(stores):
    store, clocks = stores.make(), Clocks()
    recorder, run, serve = recording(store, clocks)
    serve(1)
    await run(60)
    stores.query("DROP SCHEMA holistic_monitor CASCADE")
    serve(2)
    await run(120)

    answer = await store.read(Query(Kind.TRAFFIC, NOON, NOON + 300, 60), clocks.wall)
    assert counts(answer) == {NOON + 60: 2}
    await recorder.close()


def test_in_another_event_loop_it_connects_anew(postgres):
    stores = Stores(postgres)
    store = stores.make()

    async def live(number):
        await store.open()
        await store.write(batch(row(NOON), number=number))
        await store.close()

    async def ask():
        answer = await store.read(of_requests(NOON, NOON + 60), NOON)
        await store.close()
        return counts(answer)

    for number in range(2):
        anyio.run(live, number)
    assert anyio.run(ask) == {NOON: 2}


def test_an_event_loop_that_ended_in_the_middle_holds_up_no_other(postgres):
    """Whoever stops a loop with work in it leaves a question behind that never ends."""
    stores = Stores(postgres)
    store = stores.make()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.open())
    left = loop.create_task(store._write(lambda line: line.execute("SELECT pg_sleep(1)")))
    loop.run_until_complete(asyncio.sleep(0.2))

    async def live():
        with anyio.fail_after(20):
            await store.write(batch(row(NOON, timed(3))))
        assert counts(await store.read(of_requests(NOON, NOON + 60), NOON)) == {NOON: 3}
        await store.close()

    anyio.run(live)
    left.cancel()
    with suppress(asyncio.CancelledError, StoreError):
        loop.run_until_complete(left)
    loop.close()


def test_on_trio_it_says_that_it_cannot_be_reached():
    store = PostgreSQL("postgresql://localhost/shop")

    with pytest.raises(StoreError, match="asyncpg, which runs on asyncio only"):
        anyio.run(store.open, backend="trio")


@pytest.mark.parametrize(
    ("url", "shown", "dsn"),
    [
        ("postgresql://shop@db/orders", "db/orders", "postgresql://shop@db/orders"),
        ("postgres://db", "db", "postgresql://db/"),
        ("postgresql+asyncpg://a:b@db:1/c", "db:1/c", "postgresql://a:b@db:1/c"),
        ("postgresql://a:p@ss:w#rd/@db/c", "db/c", "postgresql://a:p%40ss%3Aw%23rd%2F@db/c"),
        ("postgresql://a:p%40@db/c?ssl=true", "db/c", "postgresql://a:p%40@db/c?sslmode=require"),
        ("postgresql://db/c?ssl=verify_full", "db/c", "postgresql://db/c?sslmode=verify-full"),
        (
            "postgresql+asyncpg://db/c?pgbouncer=true&connect_timeout=5&application_name=a%20b",
            "db/c",
            "postgresql://db/c?application_name=a%20b",
        ),
        ("postgresql://a@[::1]:5/c", "[::1]:5/c", "postgresql://a@[::1]:5/c"),
        ("postgresql://a@h1:1,h2:2/c", "h1:1,h2:2/c", "postgresql://a@h1:1,h2:2/c"),
        (
            "postgresql://u:p%40@/c?host=/run/postgresql",
            "/run/postgresql/c",
            "postgresql://u:p%40@/c?host=/run/postgresql",
        ),
        (
            "postgresql://u@%2Frun%2Fpostgresql/c",
            "/run/postgresql/c",
            "postgresql://u@%2Frun%2Fpostgresql/c",
        ),
        ("postgresql://", "localhost", "postgresql://localhost/"),
    ],
)
def test_an_address_is_read_and_shown_without_its_password(url, shown, dsn):
    found = Address.parse(url)

    assert (found.shown, found.dsn) == (shown, dsn)
    assert "p%40" not in repr(found)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("postgresql://a b:S3cret@@ /c", "it must be postgresql://user:password@host:port/data"),
        ("mysql://db", "it must be postgresql://user:password@host:port/database."),
        ("postgresql://u:S3cret@h:abc/c", "its port must be a whole number from 1 to 65535."),
        ("postgresql://u:S3cret@h:99999/c", "its port must be a whole number from 1 to 65535."),
        ("postgresql://u:S3cret@h:0/c", "its port must be a whole number from 1 to 65535."),
        ("postgresql://u:S3cret@h1:1,h2:x/c", "its port must be a whole number from 1 to 65535."),
        ("postgresql://u:S3cret@/c?host=/run&port=x", "its port must be a whole number from 1 to"),
        ("postgresql://u:S3cret@::1/c", "its port must be a whole number from 1 to 65535."),
        ("postgresql://u:S3cret@[::1/c", "its host must be a name, an IPv4 address, or an IPv6"),
        ("postgresql://u:S3cret@h/c?sslmode=bogus", "its sslmode must be one of disable, allow"),
        ("postgresql://u:S3cret@h/c?ssl=bogus", "its sslmode must be one of disable, allow"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once_without_repeating_it(url, wrong):
    with pytest.raises(ConfigurationError) as caught:
        PostgreSQL(url)

    assert wrong in str(caught.value)
    assert str(caught.value).startswith("MONITOR_HISTORY_URL (field history_url) begins with")
    assert "S3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_unix_socket_is_reached_where_the_address_names_its_folder(stores, tmp_path):
    """A server of our own listens there: what is asked of the driver is where it connects."""
    reached = anyio.Event()

    async def serve(stream):
        reached.set()
        await stream.aclose()

    listener = await anyio.create_unix_listener(tmp_path / ".s.PGSQL.5432")
    store = PostgreSQL(f"postgresql://u:S3cret@/shop?host={tmp_path}")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        with pytest.raises(StoreError, match=f"PostgreSQL at {tmp_path}/shop"):
            await store.open()
        group.cancel_scope.cancel()

    assert reached.is_set()


async def test_a_user_whom_the_address_does_not_name_is_spoken_of_as_such():
    said = [
        str(_said(error(""), Address.parse("postgresql://h/shop")))
        for error in (
            asyncpg.InvalidAuthorizationSpecificationError,
            asyncpg.InvalidPasswordError,
            asyncpg.InsufficientPrivilegeError,
        )
    ]

    assert all("the user, whom the address does not name," in each for each in said)
    assert "TO <user>" in said[2]
