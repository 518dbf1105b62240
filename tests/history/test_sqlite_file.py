"""The history file: made, brought up to date, damaged, newer, full, kept small."""

import logging
import os
import sqlite3
import stat
from pathlib import Path

import anyio
import pytest

from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.sqlite.schema import VERSION
from holistic_asgi_monitor.history.store import Event, StoreError, UnusableStoreError, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Series
from tests.history.samples import NOON, batch, counts, of_requests, row, spread, timed

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
    assert "newer version (format 2, known is 1)" in warnings(caplog)[0]


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


async def test_a_file_that_was_removed_is_made_again(stores, path):
    store = stores(path)
    await store.write(batch(row(NOON, timed(3))))
    assert await found(store) == {NOON: 3}
    for each in path.parent.iterdir():
        each.unlink()

    await store.write(batch(row(NOON, timed(5)), number=1))

    assert await found(store) == {NOON: 5}


async def test_the_log_of_the_file_stays_short(stores, path):
    store = stores(path)
    value = spread(500)
    for number in range(60):
        rows = (row(NOON + 60 * minute, value) for minute in range(300))
        await store.write(batch(*rows, number=number))
        assert path.with_name("history.sqlite-wal").stat().st_size < 6 << 20


async def test_what_is_deleted_is_given_back_to_the_disk(stores, path):
    store = stores(path)
    value = spread(300)
    for number in range(120):
        rows = (row(NOON + 60 * minute, value) for minute in range(300))
        await store.write(batch(*rows, number=number))
    while (await store.maintain(NOON + 5 * 3600)).rolled:
        pass
    before = path.stat().st_size

    after = await store.maintain(NOON + 800 * DAY)

    assert after.deleted > 36_000
    assert after.bytes < 0.1 * before


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
