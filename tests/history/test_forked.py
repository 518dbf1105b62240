"""Processes that are forked from one that has the app already, as servers do that load it once."""

import subprocess
import sys
from pathlib import Path

import pytest

FORKED = """
import os, sys
import anyio
from pathlib import Path
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Query
from holistic_asgi_monitor.history.values import Kind
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries

path, lived = Path(sys.argv[1]), sys.argv[2] == "lived"
requests = RequestSeries(Bounds((0.1,)), max_endpoints=10)
store = SQLite(path, max_mb=50)
recorder = Recorder(
    store, requests=requests, instance="web-1", flush_seconds=60, spare=lambda: SQLite(None, max_mb=1)
)

def serve(count):
    for _ in range(count):
        requests.observe(requests.find("GET", "/"), 200, 1000, streamed=False)

async def live(count):
    await recorder.step()
    serve(count)
    await recorder.read(Query(Kind.TRAFFIC, 0, 60))
    await recorder.close()

async def begin():
    serve(1000)
    await recorder.step()
    await recorder.read(Query(Kind.TRAFFIC, 0, 60))
    serve(1000)

if lived:
    anyio.run(begin)
children = []
for count in (10, 20, 30, 40):
    if (child := os.fork()) == 0:
        anyio.run(live, count)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
anyio.run(recorder.close)

async def ask():
    reader = SQLite(path, max_mb=50)
    answer = await reader.read(Query(Kind.TRAFFIC, 0, int(recorder.now) + 60), recorder.now)
    ((_, value),) = answer.points()
    print(value.count)
    await reader.close()

anyio.run(ask)
"""


ALIVE = """
import asyncio, os, sys
from pathlib import Path
from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Batch
from tests.history.samples import NOON, batch, counts, of_requests, row, timed

place = sys.argv[1]
store = PostgreSQL(place) if "://" in place else SQLite(Path(place), max_mb=50)

async def found():
    return counts(await store.read(of_requests(NOON, NOON + 60), NOON))[NOON]

async def live(child):
    for number in range(5):
        await store.write(batch(row(NOON, timed(1)), run=f"child-{child}", number=number))
        assert await found() >= number + 1
    await store.close()

async def main():
    await store.open()
    await store.write(batch(row(NOON, timed(100)), run="parent"))
    await found()
    # The parent is in the middle of a question and of a write, and waits for them in its loop.
    asking = asyncio.ensure_future(found())
    writing = asyncio.ensure_future(
        store.write(batch(row(NOON, timed(1000)), run="parent", number=1))
    )
    await asyncio.sleep(0)
    children = []
    for child in range(4):
        if (process := os.fork()) == 0:
            try:
                asyncio.run(live(child))
            except BaseException as error:
                sys.stderr.write(repr(error))
            finally:
                os._exit(0)
        children.append(process)
    await asyncio.gather(asking, writing)
    for child in children:
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            await asyncio.sleep(0.01)
    await store.write(batch(row(NOON, timed(10_000)), run="parent", number=2))
    print(await found())
    await store.close()

asyncio.run(main())
"""


def run(script, *arguments):
    return subprocess.run(
        # From 3.12 on Python warns whoever forks with threads, which is what is tried here.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_child_forked_in_the_middle_of_everything_disturbs_nobody(kind, request, tmp_path):
    """It neither speaks on its parent's connection nor ends it, nor waits for its parent's turn."""
    if kind == "sqlite":
        place = str(tmp_path / "history.sqlite")
    else:
        server = request.getfixturevalue("postgres")
        place = server.url(database=server.new_database())

    done = run(ALIVE, place)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "11120\n"


@pytest.mark.parametrize(("before", "total"), [("new", 100), ("lived", 2100)])
def test_every_forked_process_writes_what_it_counted_itself(tmp_path, before, total):
    """A parent that was already at work writes its own; its threads and files stay behind."""
    done = run(FORKED, str(tmp_path / "history.sqlite"), before)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{total}\n"
