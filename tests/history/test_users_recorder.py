"""Users on their way into history: hashed with the key of the service, counted once, bounded."""

import hashlib
import logging
import os

import anyio
import pytest

from holistic_asgi_monitor.history import attendance, ledger
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import StoreError, UsersSeen
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from tests.history.samples import MIDNIGHT, NOON, batch

DAY_MINUTES = 1440
TODAY = MIDNIGHT // 86_400


def first(user):
    """An id as the ledger is told of it."""
    return hashlib.blake2b(user.encode(), digest_size=16).digest()


class Closed(SQLite):
    """A store that does not answer for as long as `error` says so.

    `silent` and `hanging` in settling only, `refusing` in writing only.
    """

    error: Exception | None = None
    silent = hanging = refusing = False

    async def write(self, batch):
        if self.refusing:
            raise StoreError("no answer")
        return await super().write(batch)

    async def get_state(self, key):
        if self.hanging:
            await anyio.sleep_forever()
        return await super().get_state(key)

    async def open(self):
        if self.error:
            raise self.error
        await super().open()

    async def settle_state(self, key, text, now):
        if self.silent:
            raise StoreError("no answer")
        return await super().settle_state(key, text, now)

    async def users_since(self, minutes, also=()):
        if self.error:
            raise self.error
        return await super().users_since(minutes, also)


class Lost(Closed):
    """A store of which nothing can be read until it is opened again, as of a removed file."""

    lost = False

    async def open(self):
        self.lost = False
        await super().open()

    async def get_state(self, key):
        if self.lost:
            raise StoreError("it cannot be opened")
        return await super().get_state(key)


class Process:
    """A process that runs from noon on, on a clock of its own."""

    def __init__(self, store, start=NOON, **options):
        self.wall = float(start)
        self.store = store
        self.recorder = Recorder(
            store,
            requests=RequestSeries(Bounds((0.1,)), max_endpoints=10),
            instance="web-1",
            flush_seconds=60,
            spare=lambda: SQLite(None, max_mb=50),
            clock=lambda: self.wall - MIDNIGHT,
            wall=lambda: self.wall,
            **options,
        )

    def see(self, *users, feature=""):
        for user in users:
            self.recorder.ledger.note_user(first(user), feature)

    async def run(self, minutes=1):
        for _ in range(minutes):
            await self.recorder.step()
            self.wall += 60
            await self.recorder.step()

    async def users(self, *days):
        found = await self.recorder.users_since([int(self.wall // 60) - d * 1440 for d in days])
        return found.get("", (0,) * len(days))


@pytest.fixture
async def processes(tmp_path, anyio_backend):
    made = []

    def make(store=None, **options):
        chosen = store or Closed(tmp_path / "history.sqlite", max_mb=50)
        made.append(Process(chosen, **options))
        return made[-1]

    yield make
    for process in made:
        await process.recorder.close()


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def test_who_is_not_written_yet_is_counted_with_the_rest(processes):
    process = processes()
    process.see("ada", "bob")
    before = await process.users(0, 1)
    await process.run()
    process.see("ada", "cid")

    assert before == (2, 2)
    assert await process.users(0, 1) == (2, 3)
    await process.run()
    assert await process.users(1) == (3,)


async def test_a_day_has_those_who_are_not_written_yet(processes):
    process = processes()
    process.see("ada", "bob")
    process.see("ada", feature="export")
    before = await process.recorder.users_by_day(TODAY - 1, TODAY + 2)
    await process.run()
    process.store.refusing = True
    process.see("ada", "cid")
    await process.run()
    process.wall = MIDNIGHT + 86_400.0
    await process.run()
    process.see("ada", "dan", "eve")

    assert before == {TODAY: 2}
    assert await process.recorder.users_by_day(TODAY - 1, TODAY + 2) == {TODAY: 3, TODAY + 1: 3}
    assert await process.recorder.users_by_day(TODAY, TODAY + 1) == {TODAY: 3}
    assert await process.recorder.users_by_day(TODAY, TODAY + 2, "export") == {TODAY: 1}


async def test_a_store_that_is_lost_to_readers_is_opened_again(processes, tmp_path, caplog):
    process = processes(Lost(tmp_path / "history.sqlite", max_mb=50))
    await process.recorder.step()
    process.store.lost = True
    for _ in range(3):
        process.see("ada")
        await process.run()

    assert (process.recorder.tally.pending, process.recorder.tally.failures) == (0, 1)
    assert await process.recorder.store.users(TODAY, TODAY + 1) == 1
    assert len(warnings(caplog)) == 1


async def test_users_who_wait_for_their_key_are_written_at_the_end(processes, tmp_path):
    process = processes(Lost(tmp_path / "history.sqlite", max_mb=50))
    await process.recorder.step()
    process.store.lost = True
    process.see("ada")
    process.wall += 60
    await process.recorder.step()
    await process.recorder.close()

    assert await process.recorder.store.users(TODAY, TODAY + 1) == 1
    await process.recorder.store.close()


async def test_a_window_rolls_by_the_minute(processes):
    process = processes()
    process.see("ada")
    await process.run()
    process.see("bob")
    await process.run()
    process.wall = NOON + 86_400.0
    found = [await process.users(1)]
    process.wall += 60
    found.append(await process.users(1))
    process.wall += 60
    found.append(await process.users(1))

    assert found == [(2,), (1,), (0,)]


async def test_two_processes_and_a_restart_count_the_same_user_once(processes):
    one, two = processes(), processes()
    for process in (one, two):
        process.see("ada", "bob" if process is one else "cid")
        process.see("ada", feature="export")
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        group.start_soon(two.run)
    await one.recorder.close()
    await two.recorder.close()
    later = processes(start=NOON + 3600)
    later.see("ada", "dan")

    assert await later.users(1) == (4,)
    await later.run()
    assert await later.users(1) == (4,)
    days = await later.recorder.users_by_day(TODAY, TODAY + 1)
    assert days == {TODAY: 4}
    assert (await later.recorder.users_since([0]))["export"] == (1,)


async def test_a_child_of_a_process_knows_the_same_users(processes, monkeypatch):
    process = processes()
    process.see("ada")
    await process.run()
    process.see("bob")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    await process.run()
    process.see("ada")
    await process.run()

    # Whom the parent has seen is its own to write.
    assert await process.users(1) == (1,)


async def test_users_wait_for_the_key_until_the_store_answers(processes):
    process = processes()
    process.store.error = StoreError("gone")
    process.see("ada", "bob")
    process.see("ada", feature="export")
    await process.run(3)
    process.see("ada")
    await process.run(2)
    with pytest.raises(StoreError):
        await process.users(1)
    process.store.error = None
    process.wall += 3600
    await process.run(2)

    assert await process.users(1) == (2,)
    minutes = [NOON // 60, NOON // 60 + 1, NOON // 60 + 3, NOON // 60 + 4]
    assert (await process.recorder.users_since(minutes))[""] == (2, 1, 1, 0)
    assert await process.recorder.store.users_by_feature(TODAY, TODAY + 1) == {"export": 1}


async def test_a_store_that_does_not_settle_the_key_loses_nobody(processes, caplog):
    process = processes()
    process.store.silent = True
    process.see("ada")
    await process.run(2)
    process.store.silent = False
    process.see("bob")
    await process.run()

    assert await process.users(1) == (2,)
    assert len(warnings(caplog)) == 1


async def test_numbers_do_not_wait_for_the_key(processes):
    """Where the store hangs while it is asked for the key, and the watch ends meanwhile."""
    process = processes()
    await process.run()
    process.see("ada")
    process.recorder.ledger.note_feature("export")

    process.store.hanging = True
    with anyio.move_on_after(0.05):
        await process.run()

    assert process.recorder._pending.rows == 1
    assert len(process.recorder._attendance) == 1
    process.store.hanging = False
    process.wall += 60
    await process.run()
    assert await process.users(1) == (1,)


async def test_a_short_life_before_the_store_was_opened_is_written(processes):
    process = processes()
    process.see("ada")
    await process.recorder.close()

    assert await processes().users(1) == (1,)


async def test_who_waits_for_the_key_is_bounded_and_counted(processes, caplog):
    process = processes()
    process.recorder._attendance._most = 2
    process.store.error = StoreError("gone")
    process.see("ada", "bob")
    await process.run()
    process.see("ada", "cid", "dan")
    await process.run()

    assert process.recorder.tally.dropped == 2
    process.store.error = None
    process.wall += 600
    await process.run()
    assert await process.users(1) == (2,)
    assert sum("more users than can be kept" in each for each in warnings(caplog)) == 1


async def test_an_id_with_each_request_is_bounded_in_a_minute(processes, monkeypatch):
    monkeypatch.setattr(ledger, "MOST_USERS", 3)
    process = processes()
    process.see(*map(str, range(10)))
    await process.run()
    process.see("0", "1")
    await process.run()

    assert process.recorder.tally.dropped == 7
    assert await process.users(1) == (3,)


async def test_a_key_of_the_settings_is_used_and_nothing_kept(processes):
    process = processes(keyed_users=True)
    process.recorder.ledger.note_user(b"8 bytes!")
    await process.run()
    known = await process.store.users_since(
        [0], [UsersSeen(TODAY, "", frozenset({b"8 bytes!"}), NOON // 60)]
    )

    assert known == {"": (1,)}
    assert await process.store.get_state(attendance.KEY_NAME) is None


async def test_who_waits_in_many_batches_is_hashed_once(processes, monkeypatch):
    """As with a MONITOR_FLUSH_SECONDS of an hour, or where the store does not answer."""
    asked = []

    class Counting(Closed):
        async def users_since(self, minutes, also=()):
            asked.append([(each.feature, len(each.hashes), each.last) for each in also])
            return await super().users_since(minutes, also)

    process = processes(Counting(None, max_mb=50))
    process.store.refusing = True
    for _ in range(5):
        process.see("ada", "bob")
        process.see("ada", feature="export")
        await process.run()
    process.see("ada")
    last = int(process.wall // 60)

    assert await process.users(1) == (2,)
    assert sorted(asked[0]) == [("", 1, last - 1), ("", 1, last), ("export", 1, last - 1)]


async def test_without_users_no_key_is_made(processes):
    process = processes()
    await process.run(7)

    assert await process.users(1) == (0,)
    assert await process.store.get_state(attendance.KEY_NAME) is None


async def test_each_service_of_a_file_has_its_own_key_and_its_own_users(tmp_path, processes):
    stores = [
        SQLite(tmp_path / "history.sqlite", max_mb=50, service=service) for service in ("a", "b")
    ]
    for store in stores:
        process = processes(store)
        process.see("ada")
        await process.run()
        assert await process.users(1) == (1,)

    keys = {await store.get_state(attendance.KEY_NAME) for store in stores}
    assert len(keys) == 2


async def test_what_is_kept_is_hashed_with_the_key(processes, tmp_path):
    process = processes()
    process.see("ada")
    await process.run()
    text = await process.store.get_state(attendance.KEY_NAME)
    await process.recorder.close()
    kept = await anyio.Path(tmp_path / "history.sqlite").read_bytes()

    key = hashlib.blake2b(text.encode(), digest_size=32).digest()
    assert hashlib.blake2b(first("ada"), digest_size=8, key=key).digest() in kept
    assert first("ada") not in kept
    assert first("ada")[:8] not in kept


async def test_a_store_that_is_only_read_has_its_key(processes, tmp_path):
    process = processes()
    process.see("ada")
    await process.run()

    class OnlyRead(SQLite):
        writable = False

    reader = processes(OnlyRead(tmp_path / "history.sqlite", max_mb=50))
    reader.see("ada", "bob")

    assert await reader.users(1) == (2,)
    await reader.run()
    assert await reader.users(1) == (1,)
    assert reader.recorder.tally.dropped == 2


async def test_where_nothing_is_kept_each_process_has_a_key_of_its_own():
    assert await attendance.settled_text(Off(), "own", 0) == "own"


async def test_a_file_that_was_removed_gets_the_key_of_those_who_live(processes, tmp_path):
    one = processes()
    one.see("ada")
    await one.run()
    for each in tmp_path.glob("history*"):
        await anyio.Path(each).unlink()
    one.see("ada")
    await one.run(10)
    one.see("ada")
    await one.run()
    two = processes(start=one.wall)
    two.see("ada", "bob")
    await two.run()

    assert await two.users(1) == (2,)
    assert await one.users(1) == (2,)


async def test_a_key_that_others_have_settled_meanwhile_is_taken_over(processes, tmp_path):
    one = processes()
    one.see("ada")
    await one.run()
    for each in tmp_path.glob("history*"):
        await anyio.Path(each).unlink()
    two = processes(start=one.wall)
    two.see("ada")
    await two.run()
    await one.run(10)
    one.see("ada")

    assert await one.users(1) == (1,)


async def replaced(processes, tmp_path, start):
    """Another file stands in the place of the one there was, with the key of another process."""
    for each in tmp_path.glob("history*"):
        await anyio.Path(each).unlink()
    other = processes(start=start)
    other.see("ada")
    await other.run()


async def test_what_waits_through_an_outage_is_hashed_with_the_key_that_the_store_has_then(
    processes, tmp_path
):
    one = processes()
    one.see("ada")
    await one.run()
    one.store.refusing = True
    one.see("ada", "bob")
    await one.run(3)
    assert one.recorder.tally.pending > 0

    await replaced(processes, tmp_path, one.wall)
    one.store.refusing = False
    one.wall += 600
    await one.run()

    assert await one.users(1) == (2,)


async def test_a_file_that_is_replaced_unnoticed_doubles_nobody(processes, tmp_path):
    one = processes()
    one.see("ada")
    await one.run()
    await replaced(processes, tmp_path, one.wall)
    one.see("ada", "bob")
    await one.run()

    assert await one.users(1) == (2,)


async def test_many_users_hold_up_the_event_loop_in_no_place(processes, monkeypatch):
    """The second hash gives way to others; what comes meanwhile is neither lost nor doubled."""
    monkeypatch.setattr("holistic_asgi_monitor.history.pace.STRETCH_SECONDS", 0.0)
    process, answers = processes(), []
    users = [f"user {number}" for number in range(300)]
    process.see(*users)
    await process.run()
    process.see(*users[200:], "more")

    async def ask():
        for _ in range(20):
            answers.append(await process.users(1))
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await process.run()

    assert set(answers) == {(301,)}


async def test_an_old_batch_does_not_move_a_user_back(processes):
    process = processes()
    process.see("ada")
    await process.run(5)
    early = NOON // 60 - 100
    told = [UsersSeen(TODAY, "", frozenset({first("ada")}))]
    (known,) = await process.recorder._attendance.hashed(told)
    late = batch(run="run-b", users=[UsersSeen(TODAY, "", known.hashes, early)])
    await process.store.write(late)

    assert (await process.recorder.users_since([NOON // 60]))[""] == (1,)
