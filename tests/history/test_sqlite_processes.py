"""Several processes on one file, and processes that are killed while they write."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.sqlite.schema import VERSION
from tests.history.samples import NOON, counts, of_requests

SERIES = 20

WRITER = """
import sys
import anyio
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.values import Kind, Series
from pathlib import Path
from tests.history.samples import NOON, batch, row, timed

async def main(path, run, batches, series, tend):
    store = SQLite(Path(path), max_mb=50)
    await store.open()
    print("open", flush=True)
    value = timed(3)
    for number in range(batches):
        rows = [
            row(NOON + 60 * number, value, Series(Kind.REQUESTS, ("GET", f"/{each}")))
            for each in range(series)
        ]
        await store.write(batch(*rows, run=run, number=number, instance=run))
        print(number, flush=True)
        if tend and number % 7 == 0:
            await store.maintain(NOON + 60 * number)
    await store.close()

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
"""


def start(path: Path, run: str, batches: int, *, tend: bool = True) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), run, str(batches), str(SERIES)]
    return subprocess.Popen(
        [*command, str(int(tend))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, error = process.communicate(timeout=100)
    assert (process.returncode, error) == (0, "")
    return out


def asked(path, step=60, minutes=400):
    """What the file says of each minute."""

    async def ask():
        store = SQLite(path, max_mb=50)
        answer = await store.read(of_requests(NOON, NOON + 60 * minutes, step), NOON + 60 * minutes)
        await store.close()
        return counts(answer)

    return anyio.run(ask)


@pytest.mark.timeout(150)
def test_four_processes_write_one_file(tmp_path):
    """Every number is there, none twice, in every tier; nobody sees an error."""
    path, batches = tmp_path / "history.sqlite", 60
    for process in [start(path, f"run-{number}", batches) for number in range(4)]:
        finish(process)

    assert asked(path, minutes=batches) == {
        NOON + 60 * minute: 4 * 3 * SERIES for minute in range(batches)
    }
    assert sum(asked(path, step=3600, minutes=batches).values()) == 4 * 3 * SERIES * batches


@pytest.mark.timeout(150)
def test_of_eight_that_start_at_once_one_makes_the_tables(tmp_path):
    path = tmp_path / "new" / "history.sqlite"
    for process in [start(path, f"run-{number}", 1) for number in range(8)]:
        finish(process)

    assert asked(path, minutes=1) == {NOON: 8 * 3 * SERIES}
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert connection.execute("SELECT count(*) FROM series").fetchone() == (SERIES,)
    connection.close()


@pytest.mark.timeout(200)
def test_killed_while_it_writes_the_file_is_whole_and_nothing_written_is_lost(tmp_path):
    """Twenty rounds: no damage, no minute in part, nothing of what was said to be written gone."""
    path, said = tmp_path / "history.sqlite", {}
    for number in range(20):
        process = start(path, f"run-{number}", 10_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(0.02 + 0.013 * number)
        process.kill()
        lines = process.communicate(timeout=30)[0].split()
        said[number] = int(lines[-1]) + 1 if lines else 0
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        connection.close()

    written = asked(path, minutes=max(said.values()) + 2)
    assert all(count % (3 * SERIES) == 0 for count in written.values()), "a minute in part"
    for minute in range(max(said.values()) + 2):
        least = sum(minute < count for count in said.values())
        most = sum(minute <= count for count in said.values())
        assert least <= written.get(NOON + 60 * minute, 0) / (3 * SERIES) <= most
