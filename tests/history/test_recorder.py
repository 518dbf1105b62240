"""The recorder: minutes by an even clock, nothing lost, nothing twice, and no trouble for the app."""

import logging

import anyio
import pytest

from holistic_asgi_monitor.history import pace, recorder
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.pending import Pending
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import AwayError, Query, StoreError, UnusableStoreError
from holistic_asgi_monitor.history.values import Kind, statuses
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import CheckResult, Status
from tests.history.samples import NOON, counts, stretches

DAY = 86_400
LATELY = Query(Kind.TRAFFIC, NOON, NOON + 7200, 60)


class Clocks:
    """A monotonic clock and the machine's, moved by the test."""

    def __init__(self):
        self.monotonic, self.wall = 5_000.0, float(NOON) + 0.5

    def pass_by(self, seconds):
        self.monotonic += seconds
        self.wall += seconds


class Faulty(SQLite):
    """A store that can be told to fail; how often it was asked to write counts in `writes`.

    Where they are set, it waits for `held` after it has written, for `slow` after it has read.
    """

    def __init__(self, path=None):
        super().__init__(path, max_mb=50)
        self.error = None
        self.after = False
        self.upkeep: Exception | None = None
        self.held: anyio.Event | None = None
        self.slow: anyio.Event | None = None
        self.writes = 0

    async def maintain(self, now):
        if self.upkeep:
            raise self.upkeep
        return await super().maintain(now)

    async def read(self, query, now):
        answer = await super().read(query, now)
        if self.slow:
            await self.slow.wait()
        return answer

    async def write(self, batch):
        self.writes += 1
        if self.error and not self.after:
            raise self.error
        left_out = await super().write(batch)
        if self.held:
            await self.held.wait()
        if self.error:
            raise self.error
        return left_out


class Place:
    """A process: its requests, its clocks, its recorder."""

    def __init__(self, store=None, **options):
        self.clocks = Clocks()
        self.store = Faulty() if store is None else store
        self.requests = RequestSeries(Bounds((0.1, 1.0)), max_endpoints=100)
        self.recorder = Recorder(
            self.store,
            requests=self.requests,
            instance="web-1",
            flush_seconds=options.pop("flush_seconds", 60),
            spare=Faulty,
            clock=lambda: self.clocks.monotonic,
            wall=lambda: self.clocks.wall,
            **options,
        )

    def serve(self, count=1, status=200, endpoint="/items", seconds=0.05, streamed=False):
        found = self.requests.find("GET", endpoint)
        for _ in range(count):
            self.requests.observe(found, status, round(seconds * 1e9), streamed=streamed)

    async def run(self, seconds, every=1.0):
        for _ in range(round(seconds / every)):
            self.clocks.pass_by(every)
            await self.recorder.step()

    async def asked(self, kind=Kind.TRAFFIC, start=NOON - 600, end=NOON + 7200, step=60, **options):
        """What the store itself knows."""
        now = self.clocks.wall
        return await self.recorder.store.read(Query(kind, start, end, step, **options), now)

    async def counted(self, **options):
        return counts(await self.asked(**options))


@pytest.fixture
async def places(anyio_backend):
    made = []

    def make(*arguments, **options):
        made.append(Place(*arguments, **options))
        return made[-1]

    yield make
    for place in made:
        await place.recorder.close()


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_requests_are_written_to_the_minute_they_were_in(places):
    place = places()
    for count in (3, 0, 5):
        place.serve(count)
        await place.run(60)

    assert await place.counted() == {NOON: 3, NOON + 120: 5}


async def test_what_is_written_is_what_happened(places):
    place = places()
    place.serve(5)
    place.serve(2, status=404)
    place.serve(1, status=503, seconds=2.0, endpoint="/orders")
    place.serve(1, streamed=True, seconds=1.0, endpoint="/orders")
    await place.run(60)

    every = (await place.asked(step=60)).groups[()][NOON]
    orders = (await place.asked(Kind.REQUESTS, where={"endpoint": "/orders"})).groups[()][NOON]
    assert (every.count, every.errors, statuses(every)) == (9, 1, {"200": 6, "404": 2, "503": 1})
    assert (orders.count, orders.errors, orders.total) == (2, 1, 3 * 10**9)
    assert sum(every.cells.values()) == 9
    assert orders.quantile(1.0) == pytest.approx(2.0, rel=0.011)


async def test_exceptions_after_the_status_was_sent_are_errors(places):
    place = places()
    place.serve(1)
    place.requests.find("GET", "/items").broken += 1
    await place.run(60)
    place.requests.find("GET", "/items").broken += 1
    await place.run(60)

    found = (await place.asked()).groups[()]
    assert [(each.count, each.errors) for each in found.values()] == [(1, 1), (0, 1)]


async def test_an_idle_process_writes_nothing(places):
    place = places()
    await place.run(600)

    assert place.store.writes == 0


async def test_samples_become_means_peaks_and_quantiles(places):
    place = places()
    ledger = place.recorder.ledger
    for percent in (10.0, 30.0, 20.0):
        ledger.note_system("cpu", percent)
    ledger.note_system("memory", 5e9)
    ledger.note_system("memory", None)
    for seconds in (0.001, 0.002, 0.9):
        ledger.note_lag(seconds)
    ledger.note_health(
        {
            "database": CheckResult(Status.CRITICAL, response_time_ms=20.0),
            "redis": CheckResult(Status.SKIPPED),
        }
    )
    ledger.note_health({"database": CheckResult(Status.HEALTHY, response_time_ms=10.0)})
    ledger.note_spend("gpt", status="success", nano_usd=1500, tokens={"input": 7})
    ledger.note_spend("gpt", status="timeout", nano_usd=0, tokens={}, unpriced=1)
    ledger.note_feature("search", 3)
    await place.run(60)

    async def only(kind, **where):
        (value,) = (await place.asked(kind, where=where)).groups[()].values()
        return value

    cpu = await only(Kind.SYSTEM, instance="web-1", resource="cpu")
    assert (cpu.mean, cpu.peak) == (20_000, 30_000)
    assert (await only(Kind.SYSTEM, resource="memory")).mean == 5e9
    assert (await only(Kind.LAG)).quantile(1.0) == pytest.approx(0.9, rel=0.011)
    health = await only(Kind.HEALTH)
    assert list(Status)[health.peak] is Status.CRITICAL
    assert (health.count, health.errors, health.mean) == (2, 1, 15e6)
    assert health.extra == {"critical": 1, "healthy": 1}
    spend = await only(Kind.SPEND)
    assert (spend.count, spend.errors, spend.total) == (2, 1, 1500)
    assert spend.extra == {"input": 7, "status:success": 1, "status:timeout": 1, "unpriced": 1}
    assert (await only(Kind.FEATURES, feature="search")).count == 3


async def test_users_are_written_to_their_day(places):
    place = places()
    place.recorder.ledger.note_user(b"a")
    place.recorder.ledger.note_user(b"a", "search")
    await place.run(60)
    place.clocks.pass_by(DAY)
    await place.run(60)
    place.recorder.ledger.note_user(b"b")
    await place.run(60)

    today = NOON // DAY
    assert await place.recorder.store.users_by_day(today, today + 3) == {today: 1, today + 1: 1}
    assert await place.recorder.store.users_by_feature(today, today + 3) == {"search": 1}


@pytest.mark.parametrize(("flush", "writes"), [(10, 4), (60, 2), (300, 0)])
async def test_it_is_written_as_often_as_the_settings_say(places, tmp_path, flush, writes):
    """With a flush of five minutes each minute is still a minute."""
    place = places(Faulty(tmp_path / "history.sqlite"), flush_seconds=flush)
    for _ in range(2):
        place.serve(3)
        await place.run(59, every=0.5)
        place.serve(1)
        await place.run(1)
    assert place.store.writes == writes
    await place.recorder.close()

    assert await place.counted() == {NOON: 4, NOON + 60: 4}


async def test_what_was_counted_last_is_written_at_the_end(places, tmp_path):
    place = places(SQLite(tmp_path / "history.sqlite", max_mb=50))
    await place.run(60)
    place.serve(3)
    place.clocks.pass_by(2)
    await place.recorder.close()

    assert await place.counted() == {NOON + 60: 3}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after it was written"])
async def test_a_failed_write_is_repeated_and_nothing_is_lost_or_doubled(places, after, caplog):
    """A connection may be cut before the batch was written, or before we were told so."""
    place = places()
    place.store.error, place.store.after = StoreError("the database is away"), after
    for _ in range(5):
        place.serve(2)
        await place.run(60)
    assert place.recorder.tally.failures >= 5
    assert place.recorder.tally.pending == 5
    place.store.error = None
    await place.run(61)

    assert await place.counted() == {NOON + 60 * minute: 2 for minute in range(5)}
    assert place.recorder.tally.pending == 0
    assert place.recorder.tally.dropped == 0
    assert warnings(caplog) == [
        "History cannot be written now, and its numbers are kept in memory: the database is away"
    ]


async def test_one_outage_is_one_warning_whatever_the_ways_in_which_it_shows(places, caplog):
    place = places()
    for reason in ("the connection broke off", "it refuses connections", "it gives no answer"):
        place.store.error = AwayError(reason)
        place.serve(2)
        await place.run(60)
    place.store.error = StoreError("it rejects the password")
    await place.run(60)

    assert [each.rpartition(": ")[2] for each in warnings(caplog)] == [
        "the connection broke off",
        "it rejects the password",
    ]


async def test_it_says_when_it_works_again(places, caplog):
    caplog.set_level(logging.INFO)
    place = places()
    place.store.error = StoreError("the database is away")
    place.serve(2)
    await place.run(180)
    place.store.error = None
    await place.run(61)

    assert [each.getMessage() for each in caplog.records][-1] == "History is written again"


async def test_it_does_not_say_that_it_works_before_anything_was_written(places, caplog):
    caplog.set_level(logging.INFO)
    place = places()
    real = place.store.open

    async def away():
        raise StoreError("the database is away")

    place.store.open = away
    await place.run(120)
    place.store.open = real
    await place.run(180)
    before = [each.getMessage() for each in caplog.records]
    place.serve(1)
    await place.run(61)

    assert "History is written again" not in before
    assert [each.getMessage() for each in caplog.records] == [*before, "History is written again"]


async def test_a_failure_is_not_retried_at_every_step(places):
    place = places()
    place.store.error = StoreError("the database is away")
    place.serve(2)
    await place.run(600)

    assert place.store.writes <= 15


async def test_what_cannot_be_written_for_long_is_bounded_and_counted(places):
    place = places(pending=Pending(most_bytes=5_000))
    place.store.error = StoreError("the database is away")
    for _ in range(60):
        place.serve(1)
        await place.run(60, every=10)
    pending, dropped = place.recorder.tally.pending, place.recorder.tally.dropped
    place.store.error = None
    await place.run(61)

    assert 0 < pending < 30
    assert dropped == 2 * (60 - pending)
    assert await place.counted() == {NOON + 60 * minute: 1 for minute in range(60 - pending, 60)}


async def test_a_batch_that_the_store_cannot_even_judge_does_not_stand_in_the_way(places, caplog):
    place = places()
    place.store.error = RuntimeError("secret")
    place.serve(1)
    await place.run(60)
    place.store.error = None
    place.serve(1)
    await place.run(60)

    assert await place.counted() == {NOON + 60: 1}
    assert place.recorder.tally.dropped == 2
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_store_that_cannot_be_used_gives_place_to_memory(places, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    place = places(SQLite(tmp_path / "file" / "history.sqlite", max_mb=50))
    place.serve(3)
    await place.run(60)

    assert await place.counted() == {NOON: 3}
    assert place.store._desk._jobs is None
    (warning,) = warnings(caplog)
    assert warning == (
        f"History cannot be kept in {tmp_path}/file/history.sqlite: "
        f"the folder {tmp_path}/file does not exist and cannot be made"
    )


async def test_a_store_that_is_away_at_the_start_is_opened_later(places, caplog):
    place = places()
    real = place.store.open

    async def away():
        raise StoreError("the database is away")

    place.store.open = away
    place.serve(3)
    await place.run(120)
    place.store.open = real
    await place.run(61)

    assert await place.counted() == {NOON: 3}
    assert len(warnings(caplog)) == 1


async def test_a_question_does_not_wait_for_long_until_a_store_opens(places, monkeypatch):
    """What is kept besides goes on trying."""
    place = places()
    monkeypatch.setattr(recorder, "OPEN_SECONDS", 0.05)
    opened, query = anyio.Event(), Query(Kind.TRAFFIC, NOON, NOON + 60)
    monkeypatch.setattr(place.store, "open", opened.wait)

    async with anyio.create_task_group() as group:
        group.start_soon(place.run, 1)
        for _ in range(2):
            with pytest.raises(StoreError, match=r"the history in memory.* gives no answer"):
                await place.recorder.read(query)
        opened.set()

    assert counts(await place.recorder.read(query)) == {}


async def test_without_a_store_nothing_is_kept(places):
    place = places(Off())
    place.serve(3)
    await place.run(180)

    assert await place.counted() == {}
    assert place.recorder.tally.pending == 0


async def test_an_answer_holds_what_is_not_written_yet(places):
    place = places()
    place.serve(1)
    await place.run(60)
    place.store.error = StoreError("the database is away")
    place.serve(2)
    await place.run(60)
    place.serve(4)
    place.clocks.pass_by(10)

    query = Query(Kind.TRAFFIC, NOON, NOON + 180, 60)
    assert counts(await place.recorder.read(query)) == {NOON: 1, NOON + 60: 2, NOON + 120: 4}
    single = Query(Kind.REQUESTS, NOON, NOON + 180, where={"endpoint": "/items"})
    assert list(counts(await place.recorder.read(single)).values()) == [7]
    other = Query(Kind.TRAFFIC, NOON, NOON + 180, 60, instance="web-2")
    assert counts(await place.recorder.read(other)) == {}


async def test_while_a_minute_is_closed_and_written_no_answer_lacks_it(places):
    place = places()
    for endpoint in range(90):
        place.serve(2, endpoint=f"/{endpoint}")
    place.clocks.pass_by(60)
    seen = set()

    async def ask(group):
        for _ in range(40):
            query = Query(Kind.REQUESTS, NOON, NOON + 120, 60)
            seen.add(sum(counts(await place.recorder.read(query)).values()))
        group.cancel_scope.cancel()

    await place.recorder.read(Query(Kind.TRAFFIC, NOON, NOON + 60))
    async with anyio.create_task_group() as group:
        group.start_soon(ask, group)
        await place.recorder.step()
        await anyio.lowlevel.checkpoint()

    assert seen == {180}


async def test_what_is_written_but_not_yet_known_to_be_is_in_an_answer_once(places):
    """Between the end of the transaction and the moment that we hear of it."""
    place = places()
    place.serve(5)
    await place.run(1)
    place.clocks.pass_by(60)
    place.store.held = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(place.recorder.step)
        with anyio.fail_after(20):
            while sum((await place.counted()).values()) < 5:
                await anyio.sleep(0.01)
        assert place.recorder._pending.first() is not None
        assert sum(counts(await place.recorder.read(LATELY)).values()) == 5
        place.store.held.set()
    assert sum(counts(await place.recorder.read(LATELY)).values()) == 5


async def test_what_may_have_been_written_is_in_an_answer_once(places):
    place = places()
    place.store.error, place.store.after = StoreError("the line was cut"), True
    for minute in range(1, 6):
        place.serve(2)
        await place.run(60)
        answer = await place.recorder.read(LATELY)
        assert sum(counts(answer).values()) == 2 * minute
    assert place.recorder.tally.pending == 5


async def test_what_is_counted_and_written_while_the_store_answers_is_in_the_answer(places):
    place = places()
    place.serve(1)
    await place.run(60)
    place.store.slow = anyio.Event()
    found = []

    async def ask():
        found.append(sum(counts(await place.recorder.read(LATELY)).values()))

    place.serve(2)
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.1)
        for _ in range(5):
            place.serve(4)
            await place.run(60)
        place.store.slow.set()
    assert place.recorder.tally.pending == 0
    assert found == [23]


async def test_a_large_backlog_is_read_in_many_pieces(places, monkeypatch):
    """Other tasks run while the answer is put together, here where every row takes too long."""
    monkeypatch.setattr(pace, "STRETCH_SECONDS", 0.0)
    place = places()
    place.store.error = StoreError("the database is away")
    for _ in range(40):
        for endpoint in range(50):
            place.serve(1, endpoint=f"/{endpoint}")
        await place.run(60, every=30)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    rows = place.recorder._pending.rows
    async with anyio.create_task_group() as group:
        group.start_soon(count)
        query = Query(Kind.REQUESTS, NOON, NOON + 7200, 60, by=("endpoint",))
        answer = await place.recorder.read(query)
        group.cancel_scope.cancel()
    assert rows >= 40 * 50
    assert sum(value.count for group in answer.groups.values() for value in group.values()) == 2000
    assert turns >= rows


async def test_what_an_answer_does_not_need_lets_others_in_as_well(places, monkeypatch):
    """Where one endpoint of very many is asked for."""
    place = places()
    place.serve(1, endpoint="/one")
    for number in range(300):
        place.recorder.ledger.note_feature(f"feature-{number}")
    await place.run(5)
    turns = stretches(monkeypatch)

    query = Query(Kind.REQUESTS, NOON, NOON + 60, 60, where={"endpoint": "/one"})
    answer = await place.recorder.read(query)

    assert counts(answer) == {NOON: 1}
    assert len(turns) >= 300


async def test_after_a_long_outage_upkeep_goes_on_until_it_has_caught_up(places):
    place = places()
    place.store.error = StoreError("the database is away")
    for _ in range(200):
        place.serve(1)
        await place.run(60, every=20)
    place.store.error = None
    await place.run(310)

    (due,) = await place.store._read(
        lambda session: session.connection.execute("SELECT min(time) FROM due").fetchone()
    )
    assert due is None or due >= NOON + 200 * 60 - 600


async def test_upkeep_that_fails_says_so_itself_and_holds_up_no_writing(places, caplog):
    caplog.set_level(logging.INFO)
    place = places()
    await place.run(1)
    place.store.upkeep = StoreError("the disk reports an error")
    caplog.clear()
    for _ in range(60):
        place.serve(1)
        await place.run(60, every=2)
    assert len(await place.counted()) == 60
    place.store.upkeep = None
    await place.run(120)

    waits = "Older history cannot be summed up and cleared away now, and waits"
    assert [each.getMessage() for each in caplog.records] == [
        f"{waits}: the disk reports an error",
        "Older history is summed up and cleared away again",
    ]
    assert 50 < place.recorder.tally.failures < 70


async def test_values_that_cannot_be_read_are_said_once_and_counted(places, caplog):
    place = places()
    spoil = "UPDATE points_60 SET body = x'02ff'"
    for _ in range(20):
        place.serve(1)
        await place.run(60, every=5)
        await place.store._write(lambda session: session.connection.execute(spoil))

    (warning,) = warnings(caplog)
    assert warning == (
        "Some values cannot be read, and are left out of the history that is kept "
        "in memory only, and ends with the process"
    )
    assert place.recorder.tally.dropped >= 20
    assert place.recorder.tally.failures == 0


async def test_an_end_without_the_store_says_what_is_lost_and_not_that_it_works(places, caplog):
    caplog.set_level(logging.INFO)
    place = places()
    await place.run(1)
    place.store.error = StoreError("the database is away")
    caplog.clear()
    for _ in range(3):
        place.serve(1)
        await place.run(60)
    place.serve(1)
    await place.recorder.close()

    assert [each.getMessage() for each in caplog.records][1:] == [
        "The end came before all history was written: 8 values are lost with the process"
    ]


async def test_an_end_with_a_long_backlog_writes_all_of_it(places, tmp_path):
    place = places(Faulty(tmp_path / "history.sqlite"))
    place.store.error = StoreError("the database is away")
    for _ in range(120):
        place.serve(1)
        await place.run(60, every=20)
    place.store.error = None
    await place.recorder.close(seconds=20)

    assert sum((await place.counted()).values()) == 120


async def test_a_question_after_the_end_is_answered_and_leaves_nothing_open(places, tmp_path):
    place = places(Faulty(tmp_path / "history.sqlite"))
    place.serve(3)
    await place.run(60)
    await place.recorder.close()
    answers = []

    async def ask():
        answers.append(sum(counts(await place.recorder.read(LATELY)).values()))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert answers == [3, 3, 3]
    assert place.store._sessions == {}
    place.serve(2)
    await place.run(60)
    await place.recorder.put_state("key", "text")
    assert place.store._sessions != {}
    assert await place.recorder.get_state("key") == "text"


async def test_numbers_of_a_call_that_cannot_be_hold_nothing_up(places):
    place = places()
    place.recorder.ledger.note_spend("gpt", status="success", nano_usd=-5, tokens={"input": -5})
    place.recorder.ledger.note_feature("a\ud800")
    await place.run(60)

    ((_, value), *_) = (await place.asked(Kind.SPEND, start=NOON)).points()
    assert (value.count, value.total, value.extra) == (1, 0, {"status:success": 1})
    assert await place.counted(kind=Kind.FEATURES) == {NOON: 1}


async def test_asking_does_not_change_what_is_written(places):
    place = places()
    for _ in range(6):
        place.serve(1)
        place.clocks.pass_by(10)
        await place.recorder.read(Query(Kind.TRAFFIC, NOON, NOON + 60, 60))
        await place.recorder.step()

    assert await place.counted() == {NOON: 6}


@pytest.mark.parametrize("step", [-120, -3600, 3600, 86_400, -30])
async def test_a_clock_that_is_set_loses_and_doubles_nothing(places, tmp_path, step):
    place = places(Faulty(tmp_path / "history.sqlite"))
    for minute in range(10):
        place.serve(2)
        await place.run(30)
        if minute == 4:
            place.clocks.wall += step
        await place.run(30)
    await place.recorder.close()

    start, end = NOON - DAY, NOON + 2 * DAY
    found = await place.counted(start=start, end=end)
    assert sum(found.values()) == 20


async def test_a_clock_that_is_set_back_a_little_makes_no_minute_twice(places):
    """Ours goes on a little slower, so that at most two minutes of it are one."""
    place = places()
    for minute in range(10):
        place.serve(2)
        await place.run(60)
        if minute == 4:
            place.clocks.wall -= 120

    found = await place.counted()
    assert sum(found.values()) == 20
    assert list(found) == [NOON + 60 * minute for minute in range(len(found))]
    assert sorted(found.values()) in ([2] * 10, [2] * 8 + [4])


async def test_after_a_sleep_of_the_machine_the_time_is_right_again(places):
    place = places()
    place.serve(2)
    await place.run(60)
    place.clocks.wall += 3600
    await place.run(60)
    place.serve(2)
    await place.run(60)

    assert await place.counted() == {NOON: 2, NOON + 3720: 2}


async def test_upkeep_is_done_by_itself(places):
    place = places()
    for _ in range(12):
        place.serve(1)
        await place.run(60, every=5)

    (due,) = await place.store._read(
        lambda session: session.connection.execute("SELECT min(time) FROM due").fetchone()
    )
    assert due is None or due >= NOON + 300
    assert place.recorder.tally.bytes > 0


async def test_a_step_that_is_cancelled_loses_nothing(places, tmp_path):
    place = places(Faulty(tmp_path / "history.sqlite"))
    for endpoint in range(60):
        place.serve(1, endpoint=f"/{endpoint}")
    place.clocks.pass_by(60)
    for delay in range(8):
        with anyio.CancelScope() as scope:

            async def soon(scope=scope, delay=delay):
                for _ in range(delay):
                    await anyio.lowlevel.checkpoint()
                scope.cancel()

            async with anyio.create_task_group() as group:
                group.start_soon(soon)
                await place.recorder.step()
    await place.recorder.close()

    assert sum((await place.counted()).values()) == 60


async def test_the_end_comes_within_its_time_even_if_the_store_hangs(places):
    place = places()

    async def hang(batch):
        await anyio.sleep_forever()

    place.serve(1)
    await place.run(1)
    place.store.write = hang
    with anyio.fail_after(20):
        await place.recorder.close(seconds=0.2)
    del place.store.write


async def test_many_endpoints_hold_the_loop_up_for_a_few_milliseconds_at_most(places):
    """Closing a minute yields in between: other tasks run while it goes on."""
    place = places()
    for endpoint in range(100):
        place.serve(30, endpoint=f"/{endpoint}")
    place.clocks.pass_by(60)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await place.recorder.step()
        group.cancel_scope.cancel()
    assert turns >= 100 / 10


def test_an_unusable_store_is_a_store_error():
    assert issubclass(UnusableStoreError, StoreError)
