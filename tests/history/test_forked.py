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


@pytest.mark.parametrize(("before", "total"), [("new", 100), ("lived", 2100)])
def test_every_forked_process_writes_what_it_counted_itself(tmp_path, before, total):
    """A parent that was already at work writes its own; its threads and files stay behind."""
    done = subprocess.run(
        # From 3.12 on Python warns whoever forks with threads, which is what is tried here.
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            FORKED,
            str(tmp_path / "history.sqlite"),
            before,
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[2],
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{total}\n"
