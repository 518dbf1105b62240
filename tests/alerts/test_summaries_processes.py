"""Real processes on one history, and one summary of the day; one that is killed before it said it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from blockbuster import BlockBuster
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.history.opening import to_store
from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.usage.spend import DOLLAR
from tests.notifiers.slack_stub import Answer, SlackStub
from tests.web.past import ran, row, write

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
LEASE_SECONDS = 4.0
WORKER = """
import sys

import anyio

from holistic_asgi_monitor import Monitor
from holistic_asgi_monitor.alerts import bulletins

bulletins.LEASE_SECONDS = float(sys.argv[1])


async def app(scope, receive, send):
    raise AssertionError


async def main():
    monitor = Monitor(app, checks=[])
    async with monitor:
        for _ in range(10_000):
            for errand in monitor._parts.errands:
                await errand()
            print("done", flush=True)
            await anyio.sleep(0.2)


anyio.run(main)
"""


def noon() -> tuple[str, datetime]:
    """A zone in which it is about noon, so that no test stands at midnight; and the time there."""
    now = datetime.now(UTC)
    hours = 12 - now.hour
    return f"Etc/GMT{-hours:+d}" if hours else "UTC", now + timedelta(hours=hours)


def environment(url: str, instance: str) -> dict[str, str]:
    return {
        "MONITOR_HISTORY_URL": url,
        "MONITOR_INSTANCE": instance,
        "MONITOR_SERVICE": "shop",
        "MONITOR_TIMEZONE": noon()[0],
        "MONITOR_SUMMARY_TIME": "06:00",
        "MONITOR_WEEKLY_SUMMARY": "false",
    }


async def spend_yesterday(url: str) -> None:
    """What a service has recorded until yesterday, in whatever store."""
    store = to_store(Settings(service="shop", history_url=url))
    await store.open()
    for hours in (24, 25, 48):
        moment = time.time() - hours * 3600
        what = Value(4, 0, 3 * DOLLAR, extra={"status:success": 4, "input": 10})
        labels = ("gpt-4o", "/chat", "")
        await write(store, row(Kind.SPEND, labels, moment, what), ran(moment))
    await store.close()


class Workers:
    """Workers of one service on one file, and what Slack got of them."""

    def __init__(self, folder: Path, slack: SlackStub) -> None:
        self.slack = slack
        self.file = folder / "shop.sqlite"
        self.url = f"sqlite:///{self.file}"
        self._folder = folder
        (folder / "worker.py").write_text(WORKER)

    @contextmanager
    def running(self, count: int, lease: float = 300) -> Iterator[None]:
        """So many processes, which are killed at the end."""
        with ExitStack() as stack:
            for number in range(count):
                stack.enter_context(self._running(f"web-{number}", lease))
            yield

    @contextmanager
    def _running(self, instance: str, lease: float) -> Iterator[None]:
        settings = {**environment(self.url, instance), "SLACK_WEBHOOK_URL": self.slack.url}
        command = [sys.executable, str(self._folder / "worker.py"), str(lease)]
        log = self._folder / f"{instance}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
                stdout=out,
                stderr=out,
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            logs = [each.read_text() for each in self._folder.glob("*.log")]
            assert time.monotonic() < deadline, logs
            time.sleep(0.01)

    def done(self, count: int, times: int = 3) -> None:
        """Wait until each has looked several times."""
        names = [self._folder / f"web-{number}.log" for number in range(count)]
        self.until(lambda: all(name.read_text().count("done") >= times for name in names))

    def noted(self) -> bool:
        """Whether it is noted as told."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT key FROM state WHERE key LIKE 'told %'").fetchall()
        return bool(rows)

    @property
    def said(self) -> list[str]:
        return [str(payload["text"]) for payload in self.slack.payloads]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    with SlackStub() as slack:
        found = Workers(tmp_path, slack)
        anyio.run(spend_yesterday, found.url)
        yield found


def title() -> str:
    yesterday = noon()[1] - timedelta(days=1)
    return f"{yesterday:%A}, {yesterday.day} {yesterday:%B} {yesterday.year}"


@pytest.mark.timeout(180)
def test_four_workers_on_one_file_send_one_summary_also_after_a_restart(workers: Workers) -> None:
    with workers.running(4):
        workers.until(lambda: workers.said)
        workers.until(workers.noted)
        workers.done(4)
    with workers.running(4):
        workers.done(4)

    (message,) = workers.said
    assert f"Summary of {title()}. OpenAI spend: $6.00" in message


@pytest.mark.timeout(180)
def test_killed_while_it_says_it_another_one_does(workers: Workers) -> None:
    workers.slack.script.append(Answer(act="hang"))
    with workers.running(1, lease=LEASE_SECONDS):
        workers.until(lambda: workers.slack.received)
    workers.slack.received.clear()
    with workers.running(2, lease=LEASE_SECONDS):
        workers.until(lambda: workers.said)
        workers.until(workers.noted)
    with workers.running(2, lease=LEASE_SECONDS):
        workers.done(2)

    assert len(workers.said) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asyncpg knows no other
async def test_four_replicas_on_one_postgresql_send_one_summary(
    postgres: Any, blockbuster: BlockBuster
) -> None:
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")
    url = postgres.url(database=await anyio.to_thread.run_sync(postgres.new_database))
    await spend_yesterday(url)
    channel = notifiers.Memory()
    asked: list[Monitor] = []

    async def serve(instance: str) -> None:
        # The zone is read from a file.
        settings = await anyio.to_thread.run_sync(Settings.from_env, environment(url, instance))
        monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[channel])
        async with monitor:
            for _ in range(3):
                for errand in monitor._parts.errands:
                    await errand()
            asked.append(monitor)
            while len(asked) < 4 or not channel.alerts:
                await anyio.sleep(0.01)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(serve, f"web-{number}")

    (alert,) = channel.alerts
    assert alert.title == f"Summary of {title()}"
    assert "$6.00" in alert.summary
