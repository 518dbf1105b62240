"""Four real processes that spend, on one history file, with one Slack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from tests.notifiers.slack_stub import SlackStub
from tests.web.exchanges import get

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
PROCESSES, CALLS, CENTS = 4, 50, 3
# Where it is about noon now: no test runs over midnight there.
ZONE = f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"
WORKER = """
import sys
from pathlib import Path

import anyio

from holistic_asgi_monitor import Monitor, watch

folder, backend = Path(sys.argv[1]), sys.argv[2]
watch.ERRAND_SECONDS = 0.2


async def app(scope, receive, send):
    raise AssertionError


async def main():
    monitor = Monitor(app, checks=[])
    async with monitor:
        for _ in range({calls}):
            monitor.track_openai_call("gpt", cost={cents} / 100, usage={{"input": 10, "output": 5}})
        monitor.track_openai_call("gpt", "timeout")
        while not await anyio.Path(folder / "enough").exists():
            await anyio.sleep(0.05)


anyio.run(main, backend=backend)
"""


@pytest.fixture
def slack() -> Iterator[SlackStub]:
    with SlackStub() as stub:
        yield stub


def start(folder: Path, slack: SlackStub, number: int) -> subprocess.Popen[bytes]:
    settings = {
        "MONITOR_SERVICE": "shop",
        "MONITOR_HISTORY_URL": f"sqlite:///{folder}/shop.sqlite",
        "MONITOR_INSTANCE": f"web-{number}",
        "MONITOR_TIMEZONE": ZONE,
        "MONITOR_FLUSH_SECONDS": "1",
        # What four spend reaches this budget's half, and what three do does not.
        "MONITOR_OPENAI_DAILY_BUDGET_USD": str(PROCESSES * CALLS * CENTS / 100 / 0.55),
        "SLACK_WEBHOOK_URL": slack.url,
        "PYTHONPATH": str(ROOT),
    }
    backend = ("asyncio", "trio")[number % 2]
    command = [sys.executable, str(folder / "worker.py"), str(folder), backend]
    with (folder / "log").open("a") as log:
        return subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)


def until(condition: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def reader(folder: Path) -> Monitor:
    """A process that starts afterwards."""
    url = f"sqlite:///{folder}/shop.sqlite"
    settings = Settings(service="shop", history_url=url, access="open", timezone=ZONE)
    return Monitor(Starlette(), settings=settings, checks=[], notifiers=[])


async def figures(monitor: Monitor) -> Any:
    async with monitor:
        return json.loads((await get(monitor, "/api/monitoring/stats")).body)["openai"]


@pytest.mark.timeout(180)
def test_four_workers_on_one_file_say_it_once_and_count_exactly(
    tmp_path: Path, slack: SlackStub
) -> None:
    (tmp_path / "worker.py").write_text(WORKER.format(calls=CALLS, cents=CENTS))
    processes = [start(tmp_path, slack, number) for number in range(PROCESSES)]
    try:
        until(lambda: slack.payloads, tmp_path / "log")
        # The others have looked many times by then.
        time.sleep(1.0)
    finally:
        (tmp_path / "enough").touch()
        for process in processes:
            process.wait(PATIENCE)

    (payload,) = slack.payloads
    assert "OpenAI spend has reached 50 % of the daily budget" in payload["text"]
    assert "gpt, $6.00" in json.dumps(payload)
    found = anyio.run(figures, reader(tmp_path))
    assert found["calls"] == PROCESSES * (CALLS + 1)
    assert found["errors"] == PROCESSES
    assert found["tokens"]["input"] == PROCESSES * CALLS * 10
    assert (
        found["cost_usd"]["today"] == found["cost_usd"]["month"] == PROCESSES * CALLS * CENTS / 100
    )
