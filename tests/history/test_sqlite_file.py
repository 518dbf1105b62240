"""The history file: made, brought up to date, damaged, newer, full, kept small."""

import logging
import os
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.history import bounds
from holistic_asgi_monitor.history.sqlite import SQLite, file, room
from holistic_asgi_monitor.history.sqlite.schema import VERSION
from holistic_asgi_monitor.history.store import (
    Event,
    Query,
    StoreError,
    UnusableStoreError,
    UsersSeen,
)
from holistic_asgi_monitor.history.values import Kind, Series
from tests.history.samples import NOON, batch, counts, lived, of_requests, row, spread, timed

DAY = 86_400


@pytest.fixture
def path(tmp_path):
    return tmp_path / "made" / "here" / "history.sqlite"


@pytest.fixture
async def stores(anyio_backend):
    """Makes stores that are closed at the end."""
    made = []

    def make(path, max_mb=50):
        made.append(SQLite(path, max_mb=max_mb, clock=lambda: NOON))
        return made[-1]

    yield make
    for store in made:
        await store.close()


async def to_thread(function, *arguments):
    """What the test itself does to files must not block the loop either."""
    return await anyio.to_thread.run_sync(function, *arguments)


def pragma(path, name):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


def warnings(caplog):
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


async def found(store, now=NOON):
    return counts(await store.read(of_requests(NOON, NOON + 60), now))


async def test_a_new_file_can_shrink_and_is_its_owners_alone(stores, path):
    await stores(path).open()

    assert await to_thread(pragma, path, "auto_vacuum") == 2
    assert await to_thread(pragma, path, "journal_mode") == "wal"
    assert await to_thread(pragma, path, "user_version") == VERSION
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_was_written_is_there_after_a_restart(stores, path):
    first = stores(path)
    await first.write(batch(row(NOON, timed(3))))
    await first.close()

    assert await found(stores(path)) == {NOON: 3}
    assert sorted(each.name for each in path.parent.iterdir())[:1] == ["history.sqlite"]


async def test_services_that_share_a_file_see_their_own_numbers_only(path, anyio_backend):
    services = [SQLite(path, max_mb=50, service=name, clock=lambda: NOON) for name in "ab"]
    for number, store in enumerate(services):
        seen = UsersSeen(NOON // DAY, "", frozenset(bytes([user]) for user in range(number + 1)))
        await store.write(batch(row(NOON, timed(3 + number)), run=f"run-{number}", users=[seen]))
        await store.put_state("alerts", str(number), NOON)
        await store.add_event(Event(f"id-{number}", NOON, "incident", "db", "{}"))
        assert await store.claim("summary", NOON)

    for number, store in enumerate(services):
        assert await found(store) == {NOON: 3 + number}
        assert await store.users(NOON // DAY, NOON // DAY + 1) == number + 1
        assert await store.get_state("alerts") == str(number)
        assert [each.id for each in await store.events("incident", 0, NOON + 1)] == [f"id-{number}"]
        await store.close()


async def test_reading_does_not_wait_for_another_process_that_writes(stores, path):
    store = stores(path)
    await store.write(batch(row(NOON, timed(3))))
    other = await to_thread(lambda: sqlite3.connect(path, check_same_thread=False))
    await to_thread(other.execute, "BEGIN IMMEDIATE")

    assert await found(store) == {NOON: 3}
    await to_thread(other.close)


@pytest.mark.parametrize("damage", [b"this is no database at all" * 200, b"SQLite format 3\x00"])
async def test_a_damaged_file_is_kept_aside_and_history_begins_anew(stores, path, damage, caplog):
    path.parent.mkdir(parents=True)
    path.write_bytes(damage)
    store = stores(path)

    await store.open()
    await store.write(batch(row(NOON, timed(3))))

    assert await found(store) == {NOON: 3}
    (aside,) = path.parent.glob("history.sqlite.corrupt-*")
    assert aside.read_bytes() == damage
    assert len(warnings(caplog)) == 1
    assert f"{path} is damaged: it is kept as {aside.name}" in warnings(caplog)[0]


@pytest.mark.parametrize("name", ["passwd", "settings.toml"])
async def test_what_was_never_a_database_is_left_alone(stores, tmp_path, name):
    path = tmp_path / name
    path.write_text("[shop]\n" * 200)

    for _ in range(2):
        with pytest.raises(UnusableStoreError, match=f"{name} is no database"):
            await stores(path).open()
    assert path.read_text() == "[shop]\n" * 200
    assert list(tmp_path.iterdir()) == [path]


async def test_one_of_ours_that_is_overwritten_is_kept_aside_whatever_its_name(stores, tmp_path):
    path = tmp_path / "history"
    first = stores(path)
    await first.write(batch(row(NOON, timed(3))))
    await first.close()
    path.write_bytes(bytes(4096))

    await stores(path).write(batch(row(NOON, timed(4))))

    assert await found(stores(path)) == {NOON: 4}
    assert len(list(tmp_path.glob("history.corrupt-*"))) == 1


async def test_a_file_that_is_damaged_while_it_is_open_is_kept_aside_too(stores, path, caplog):
    store = stores(path)
    for number in range(50):
        await store.write(batch(row(NOON + 60 * number, spread(400)), number=number))
    await store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))

    with pytest.raises(StoreError, match="is damaged"):
        await store.write(batch(row(NOON, timed(3)), run="later"))
    await store.write(batch(row(NOON, timed(3)), run="later"))

    assert await found(store) == {NOON: 3}
    assert len(list(path.parent.glob("*.corrupt-*"))) == 1
    assert len(warnings(caplog)) == 1


async def test_a_newer_file_is_only_read(stores, path, caplog):
    first = stores(path)
    await first.write(batch(row(NOON, timed(3))))
    await first.close()

    def age():
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.close()

    await to_thread(age)
    store = stores(path)
    await store.open()

    assert not store.writable
    with pytest.raises(StoreError, match="was written by a newer version"):
        await store.write(batch(row(NOON, timed(3)), number=1))
    assert await found(store) == {NOON: 3}
    assert await to_thread(pragma, path, "user_version") == VERSION + 1
    assert len(warnings(caplog)) == 1
    assert f"newer version (format {VERSION + 1}, known is {VERSION})" in warnings(caplog)[0]


async def test_a_newer_version_that_comes_meanwhile_is_noticed_with_the_next_write(
    stores, path, caplog
):
    """Of a service whose processes are replaced one after the other, the old ones go on."""
    store = stores(path)
    await store.write(batch(row(NOON, timed(3))))

    def age():
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
        connection.close()

    await to_thread(age)
    for _ in range(2):
        with pytest.raises(StoreError, match="was written by a newer version, and is only read"):
            await store.write(batch(row(NOON, timed(3)), number=1))

    assert not store.writable
    assert await found(store) == {NOON: 3}
    assert len(warnings(caplog)) == 1
    assert f"newer version (format {VERSION + 1}, known is {VERSION})" in warnings(caplog)[0]


async def test_the_database_of_another_program_is_left_alone(stores, path):
    path.parent.mkdir(parents=True)

    def fill():
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (a)")
        connection.close()

    await to_thread(fill)
    before = path.read_bytes()

    with pytest.raises(UnusableStoreError, match="is the database of another program"):
        await stores(path).open()
    assert path.read_bytes() == before


async def test_a_folder_that_cannot_be_made_is_named(stores, tmp_path):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / "file" / "history.sqlite"

    with pytest.raises(UnusableStoreError, match=f"{path.parent} does not exist and cannot be"):
        await stores(path).open()


async def test_a_folder_that_may_not_be_written_is_named(stores, monkeypatch, path):
    """As root every folder may be written, so the system's answer is given in its place."""
    path.parent.mkdir(parents=True)
    real = os.open

    def refuse(name, *arguments, **options):
        if str(name).startswith(str(path)):
            raise PermissionError(13, "Permission denied")
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(UnusableStoreError, match=f"the folder {path.parent} may not be written"):
        await stores(path).open()


@pytest.mark.parametrize("trail", ["", "-wal", ".lock"])
async def test_a_file_that_may_not_be_written_is_named(stores, monkeypatch, path, trail):
    """As root every file may be written, so the system's answer is given in its place."""
    first = stores(path)
    await first.write(batch(row(NOON, timed(3))))
    refused = path.with_name(path.name + trail)
    monkeypatch.setattr(os, "access", lambda name, mode, **options: name != refused)

    with pytest.raises(UnusableStoreError, match=f"the file {refused} may not be written"):
        await stores(path).open()
    await first.write(batch(row(NOON, timed(3)), number=1))
    assert await found(first) == {NOON: 6}


@pytest.mark.parametrize("comes_back", [False, True])
@pytest.mark.parametrize("trail", ["-wal", "-shm"])
def test_a_file_that_is_taken_away_meanwhile_is_not_refused(
    tmp_path, monkeypatch, trail, comes_back
):
    """SQLite removes both where the last one closes the file, and the next one makes them again."""
    place = file.File(tmp_path / "history.sqlite")
    first, others, answers = place.open(), list[file.Session](), list[bool]()
    passing, access = Path(f"{place.path}{trail}"), os.access

    def once_it_is_gone(asked, mode, **options):
        if asked != passing or answers:
            return access(asked, mode, **options)
        first.connection.close()
        answers.append(access(asked, mode, **options))
        if comes_back:
            others.append(file.File(place.path).open())
        return answers[0]

    monkeypatch.setattr(os, "access", once_it_is_gone)
    monkeypatch.setattr(os, "supports_effective_ids", {once_it_is_gone})
    others.append(place.open())

    assert answers == [False]
    assert others[-1].writable
    for session in others:
        session.connection.close()


async def test_a_folder_in_the_place_of_the_file_is_named(stores, path):
    path.mkdir(parents=True)

    with pytest.raises(UnusableStoreError, match=f"{path} is a folder"):
        await stores(path).open()


async def test_a_name_that_is_too_long_is_said(stores, tmp_path):
    with pytest.raises(UnusableStoreError, match="the name of the file is too long"):
        await stores(tmp_path / f"{'a' * 300}.sqlite").open()


@pytest.mark.parametrize("body", [b"\x02\xff", b"\x01\x05"], ids=["newer", "damaged"])
async def test_a_value_that_cannot_be_read_is_left_out_and_stops_nothing(stores, path, body):
    store = stores(path)
    for number in range(10):
        await store.write(batch(row(NOON + 60 * number, spread(9)), number=number))
    spoil = "UPDATE points_60 SET body = ? WHERE time = ?"
    await store._write(lambda session: session.connection.execute(spoil, (body, NOON)))

    fine = await store.read(of_requests(NOON, NOON + 600), NOON + 600)
    done = await store.maintain(NOON + 1000)
    again = await store.maintain(NOON + 1000)
    coarse = await store.read(of_requests(NOON, NOON + 600, 300), NOON + 1000)

    assert counts(fine) == {NOON + 60 * number: 9 for number in range(1, 10)}
    assert (done.rolled, done.unreadable) == (2, 1)
    assert (again.rolled, again.unreadable) == (0, 0)
    assert counts(coarse) == {NOON: 36, NOON + 300: 45}


async def test_a_window_of_which_nothing_can_be_read_is_a_gap(stores, path):
    store = stores(path)
    await store.write(batch(row(NOON, spread(9))))
    spoil = "UPDATE points_60 SET body = x'02ff'"
    await store._write(lambda session: session.connection.execute(spoil))

    assert (await store.maintain(NOON + 1000)).unreadable == 1
    for step in (60, 300):
        assert counts(await store.read(of_requests(NOON, NOON + 300, step), NOON + 1000)) == {}


async def test_a_question_that_hangs_at_the_end_harms_neither_the_end_nor_the_next_beginning(
    stores, path, caplog
):
    store, release = stores(path), threading.Event()
    await store.write(batch(row(NOON, timed(3))))
    assert await found(store) == {NOON: 3}
    async with anyio.create_task_group() as group:
        group.start_soon(store._reading_desk.ask, lambda: release.wait(20))
        await anyio.sleep(0.05)
        with anyio.fail_after(10):
            await store.close()
        await store.write(batch(row(NOON, timed(4)), number=1))
        assert await found(store) == {NOON: 7}
        release.set()
    await store.close()

    assert await found(stores(path)) == {NOON: 7}
    assert warnings(caplog) == []


async def test_an_end_that_is_not_waited_for_comes_all_the_same(stores, path):
    store, release = stores(path), threading.Event()
    await store.write(batch(row(NOON, timed(3))))
    async with anyio.create_task_group() as group:
        group.start_soon(store._desk.ask, lambda: release.wait(20))
        await anyio.sleep(0.05)
        with anyio.move_on_after(0.05):
            await store.close()
        release.set()
    with anyio.fail_after(20):
        while store._sessions:
            await anyio.sleep(0.01)


async def test_a_full_disk_is_said_and_the_batch_can_be_written_later(stores, path):
    store = stores(path)
    await store.write(batch(row(NOON, timed(3))))
    limit = "PRAGMA max_page_count = 1"
    await store._write(lambda session: session.connection.execute(limit).fetchall())
    big = batch(*(row(NOON + 60 * minute, spread(500)) for minute in range(400)), number=1)

    with pytest.raises(StoreError, match=f"{path} cannot grow: the disk is full"):
        await store.write(big)
    assert await found(store) == {NOON: 3}

    limit = "PRAGMA max_page_count = 100000"
    await store._write(lambda session: session.connection.execute(limit).fetchall())
    await store.write(big)
    assert (await found(store)) == {NOON: 503}


async def test_a_disk_without_room_for_what_processes_share_is_said_to_be_full(
    stores, path, monkeypatch
):
    """SQLite calls it an error of reading and writing."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE

    def fail(place):
        raise error

    monkeypatch.setattr(file, "_connect", fail)

    with pytest.raises(StoreError, match=f"{path} cannot grow: the disk is full"):
        await stores(path).open()


async def test_a_full_disk_gets_back_what_the_log_takes(stores, path):
    """Where it is our log that fills a small disk, nothing could be written for ever."""
    store = stores(path)
    await store.write(batch(row(NOON, spread(500))))
    assert await to_thread(store._file.log_bytes) > 0
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(session):
        raise error

    with pytest.raises(StoreError, match="the disk is full"):
        await store._write(fail)

    assert await to_thread(store._file.log_bytes) == 0
    assert await found(store) == {NOON: 500}


def test_a_log_that_cannot_be_brought_home_leaves_the_patience_as_it_was(tmp_path):
    class Full:
        patience = 5000

        def execute(self, statement):
            if statement.startswith("PRAGMA wal_checkpoint"):
                raise sqlite3.OperationalError("database or disk is full")
            self.patience = int(statement.partition(" = ")[2] or self.patience)
            return self

        def fetchone(self):
            return (self.patience,)

    held = file.File(tmp_path / "file")
    (tmp_path / "file-wal").write_bytes(b"log")
    full: Any = Full()
    with pytest.raises(sqlite3.OperationalError):
        room.checkpoint(held, file.Session(full, None, ""), above=0)

    assert full.patience == 5000


def test_a_transaction_that_could_not_be_ended_does_not_stand_in_the_way(tmp_path):
    """Where there is no write-ahead log, whoever reads holds up the end of it."""
    one, other = (
        sqlite3.connect(tmp_path / "file", isolation_level=None, timeout=0) for _ in range(2)
    )
    one.execute("CREATE TABLE numbers (number)")
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM numbers").fetchone()
    with pytest.raises(sqlite3.OperationalError, match="locked"), file.transaction(one):
        one.execute("INSERT INTO numbers VALUES (1)")
    other.execute("COMMIT")

    with file.transaction(one):
        one.execute("INSERT INTO numbers VALUES (2)")

    assert other.execute("SELECT number FROM numbers").fetchall() == [(2,)]
    one.close()
    other.close()


async def test_a_question_that_was_refused_does_not_hold_on_to_what_there_was_then(
    stores, path, monkeypatch
):
    """Whoever keeps the refusal, and be it the garbage that is not collected yet."""
    store = stores(path)
    await store.write(batch(*(row(NOON + 60 * minute, timed(3)) for minute in range(300))))
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "MOST_VALUES", 20)
        with pytest.raises(bounds.TooMuchError) as refused:
            await store.read(of_requests(NOON, NOON + 300 * 60), NOON)

    await store.write(batch(row(NOON, timed(5)), number=1))

    assert await found(store) == {NOON: 8}
    assert refused.value is not None


async def test_a_file_that_was_removed_is_made_again(stores, path):
    store = stores(path)
    await store.write(batch(row(NOON, timed(3))))
    assert await found(store) == {NOON: 3}
    for each in path.parent.iterdir():
        each.unlink()

    await store.write(batch(row(NOON, timed(5)), number=1))

    assert await found(store) == {NOON: 5}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_log_of_the_file_stays_short(stores, path):
    store = stores(path)
    value = spread(500)
    for number in range(60):
        rows = (row(NOON + 60 * minute, value) for minute in range(300))
        await store.write(batch(*rows, number=number))
        assert path.with_name("history.sqlite-wal").stat().st_size < 6 << 20


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_deleted_is_given_back_to_the_disk(stores, path):
    store = stores(path)
    value = spread(300)
    for number in range(120):
        rows = (row(NOON + 60 * minute, value) for minute in range(300))
        await store.write(batch(*rows, number=number))
    while (await store.maintain(NOON + 5 * 3600)).rolled:
        pass
    before = path.stat().st_size

    await lived(store, NOON + 800 * DAY)

    assert path.stat().st_size < 0.1 * before


@pytest.mark.parametrize("real", [1, 3], ids=["alone", "beside a right one"])
async def test_a_clock_that_is_far_ahead_deletes_nothing(stores, path, real):
    """It looks after the file for half a day; a process with the right time may do so as well."""
    store = stores(path)
    seen = UsersSeen(NOON // DAY, "", frozenset({b"a"}))
    await store.write(batch(row(NOON, timed(3)), users=[seen]))
    await store.add_event(Event("id", NOON, "incident", "db", "{}"))
    assert await store.claim("once", NOON)
    for step in range(144):
        now = NOON + 900 + 300 * step
        if real == 3:
            await store.maintain(now)
        await store.maintain(now + 3 * 365 * DAY)

    later = NOON + DAY
    for length in (60, 300, 3600, DAY):
        whole = await store.read(of_requests(NOON, NOON + 60, length), later)
        assert sum(counts(whole).values()) == 3
    assert await store.users(NOON // DAY, NOON // DAY + 1) == 1
    assert len(await store.events("incident", NOON, NOON + 1)) == 1
    assert not await store.claim("once", NOON)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_rows_of_a_clock_that_is_far_ahead_do_not_make_all_others_old(stores, path):
    store = stores(path)
    store._cap = 1 << 20
    now, value = NOON, spread(5000)
    await store.write(batch(row(NOON + 3 * 365 * DAY, timed(1)), run="ahead"))
    for number in range(16):
        now = NOON + 3600 * number
        rows = (row(now + 60 * minute, value, each) for minute in range(60) for each in _series(6))
        await store.write(batch(*rows, number=number))
        await store.maintain(now + 3600)

    answer = await store.read(of_requests(now - 3600, now + 3600), now + 3600)
    assert answer.step == 60
    assert list(counts(answer).values()) == [30_000] * 120


async def test_names_of_which_nothing_is_left_are_forgotten_by_every_process(stores, path):
    """Their numbers go to others; nobody writes to a number that he remembers."""
    one, other = stores(path), stores(path)
    shop, till, cart = _series(3)
    await one.write(batch(row(NOON, timed(1), shop), row(NOON, timed(2), till)))
    await other.write(batch(row(NOON, timed(4), till), run="other"))
    later = NOON + 900 * DAY
    await lived(one, later)
    names = "SELECT count(*) FROM series"
    (left,) = await one._write(lambda session: session.connection.execute(names).fetchone())
    assert left == 0

    await one.write(batch(row(later, timed(8), cart), number=1))
    await other.write(batch(row(later, timed(16), till), run="other", number=1))
    await one.write(batch(row(later, timed(32), shop), number=2))

    for series, count in ((cart, 8), (till, 16), (shop, 32)):
        where = {"endpoint": series.labels[1]}
        answer = await one.read(of_requests(later, later + 60, where=where), later)
        assert counts(answer) == {later: count}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_names_and_the_log_of_events_count_in_the_cap(stores, path):
    """Features that are named anew every hundred days, and incidents without end."""
    store = stores(path, max_mb=5)
    await store.put_state("incidents", "x" * 200_000, NOON)
    for number in range(5):
        now = NOON + number * 100 * DAY
        many = [
            row(now, timed(1), Series(Kind.FEATURES, (f"feature-{number}-{each:08d}-of-a-kind",)))
            for each in range(8000)
        ]
        await store.write(batch(*many, number=number))
        for each in range(100):
            event = Event(f"{number}-{each}", now + each, "incident", "db", "x" * 8000)
            await store.add_event(event)
        for _ in range(2):
            await store.maintain(now + 1000)
        assert _on_disk(path) < 6.5 * (1 << 20)

    query = Query(Kind.FEATURES, now, now + 60, where={"feature": many[-1].series.labels[0]})
    assert sum(counts(await store.read(query, now + 1000)).values()) == 1
    assert (await store.events("incident", now, now + 100))[0].time == now + 99
    assert await store.get_state("incidents") == "x" * 200_000


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_file_stays_below_its_cap_and_keeps_the_newest(stores, path):
    """Where the cap is too small for everything, each tier keeps its newest values."""
    store = stores(path, max_mb=5)
    value = spread(400)
    for hour in range(48):
        start = NOON + hour * 3600
        for part in range(4):
            rows = (row(start + part * 900 + 60 * minute, value) for minute in range(15))
            await store.write(batch(*rows, number=4 * hour + part))
            many = [
                row(start + part * 900 + 60 * minute, value, series)
                for series in _series(8)
                for minute in range(15)
            ]
            await store.write(batch(*many, run="more", number=4 * hour + part))
            await store.maintain(start + (part + 1) * 900)
        assert _on_disk(path) < 6.5 * (1 << 20)
    now = NOON + 48 * 3600

    whole = await store.read(of_requests(now - 6 * 3600, now - 900), now)
    assert whole.step == 60
    assert None not in [value for _, value in whole.points()]
    days = await store.read(of_requests(NOON - DAY, now, DAY), now)
    assert sum(counts(days).values()) == 9 * 48 * 60 * 400


def _series(count):
    return [Series(Kind.REQUESTS, ("GET", f"/{number}")) for number in range(count)]


def _on_disk(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.iterdir())
