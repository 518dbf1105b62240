"""Users in a file and in memory: what every store knows of them, and files of the first version."""

import sqlite3

import pytest
from anyio.to_thread import run_sync as to_thread

from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.sqlite.file import APPLICATION
from holistic_asgi_monitor.history.sqlite.room import used_bytes
from holistic_asgi_monitor.history.sqlite.schema import MIGRATIONS, VERSION
from holistic_asgi_monitor.history.store import UsersSeen
from tests.history.samples import NOON, batch
from tests.history.users_contract import *  # noqa: F403 - every test of it is one of this module
from tests.history.users_contract import DAY_MINUTES, TODAY, seen, since


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, anyio_backend):
    path = tmp_path / "history.sqlite" if request.param == "file" else None
    opened = SQLite(path, max_mb=50, clock=lambda: NOON)
    await opened.open()
    yield opened
    await opened.close()


def first_version(path):
    """A file as the first version wrote it."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute("PRAGMA user_version = 1")
    rows = [
        *(("", TODAY - 1, "", b"a"), ("", TODAY, "", b"a"), ("", TODAY - 9, "", b"b")),
        *(("", TODAY - 9, "search", b"a"), ("other", TODAY, "", b"c")),
    ]
    connection.executemany("INSERT INTO users VALUES (?, ?, ?, ?)", rows)
    connection.execute("INSERT INTO state VALUES ('', 'kept', '{}', 0)")
    connection.commit()
    connection.close()


async def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path):
    path = tmp_path / "history.sqlite"
    await to_thread(first_version, path)
    store = SQLite(path, max_mb=50, clock=lambda: NOON)
    await store.open()
    await store.write(batch(users=[seen("a", feature="search")]))

    found = await store.users_since([*since(1, 30), TODAY * DAY_MINUTES + DAY_MINUTES - 1])
    days = await store.users_by_day(TODAY - 9, TODAY + 1)
    kept = await store.get_state("kept")
    await store.close()

    assert found == {"": (1, 2, 1), "search": (1, 1, 0)}
    assert days == {TODAY - 9: 1, TODAY - 1: 1, TODAY: 1}
    assert kept == "{}"

    def version():
        connection = sqlite3.connect(path)
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        connection.close()
        return found

    assert await to_thread(version) == VERSION == 2


@pytest.mark.parametrize("ahead", [False, True], ids=["", "clock far ahead"])
async def test_a_full_file_loses_the_oldest_users_and_says_so(tmp_path, caplog, ahead):
    """How many there were is kept all the same; and what a clock far ahead wrote ages nobody."""
    store = SQLite(tmp_path / "history.sqlite", max_mb=1, clock=lambda: NOON)
    await store.open()
    if ahead:
        later = UsersSeen(TODAY + 900, "", frozenset({b"a"}), (TODAY + 900) * DAY_MINUTES)
        await store.write(batch(run="run-b", users=[later]))
    for day in range(12):
        users = frozenset((day * 2000 + number).to_bytes(8) for number in range(2000))
        today = UsersSeen(TODAY + day, "", users, (TODAY + day) * DAY_MINUTES)
        await store.write(batch(number=day, users=[today]))
    now = NOON + 11 * 86_400
    for _ in range(2):
        await store.maintain(now)

    days = await store.users_by_day(TODAY, TODAY + 12)
    (month,) = (await store.users_since([0]))[""]
    month -= ahead
    used = await store._write(lambda session: used_bytes(session.connection))
    await store.close()

    assert days == {TODAY + day: 2000 for day in range(12)}
    assert 2000 <= month < 24_000
    assert month % 2000 == 0
    assert used < 1 << 20
    assert sum("of users only the days from" in each.message for each in caplog.records) == 1
