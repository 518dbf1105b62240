"""Real processes, killed at the worst moments, with a history file and Slack on this machine."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.notifiers.slack_stub import Answer, SlackStub

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
SHOP = """
import sys
from pathlib import Path

import anyio

from holistic_asgi_monitor import Monitor

folder = Path(sys.argv[1])


async def app(scope, receive, send):
    raise AssertionError


monitor = Monitor(app, checks=[])


@monitor.check("database", required=True)
def database():
    with (folder / "rounds").open("a") as rounds:
        rounds.write("x")
    return (folder / "state").read_text() == "up"


async def main():
    async with monitor:
        await anyio.sleep_forever()


anyio.run(main, backend=sys.argv[2])
"""


class Shop:
    """A process with a monitor, its database as a file says, and what Slack got of it."""

    def __init__(self, folder: Path, slack: SlackStub, backend: str) -> None:
        self.slack = slack
        self._folder = folder
        self._backend = backend
        (folder / "shop.py").write_text(SHOP)
        (folder / "rounds").write_text("")
        self.is_up(True)

    def is_up(self, up: bool) -> None:
        new = self._folder / "new"
        new.write_text("up" if up else "down")
        new.replace(self._folder / "state")

    @contextmanager
    def running(self) -> Iterator[None]:
        """A process, which is killed at the end, without a moment to say anything."""
        settings = {
            "MONITOR_HISTORY_URL": f"sqlite:///{self._folder}/shop.sqlite",
            "MONITOR_INSTANCE": "web-1",
            "MONITOR_CHECK_INTERVAL_SECONDS": "0.2",
            "MONITOR_RECHECK_SECONDS": "0.1",
            "MONITOR_STARTUP_GRACE_SECONDS": "0",
            "SLACK_WEBHOOK_URL": self.slack.url,
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, str(self._folder / "shop.py"), str(self._folder), self._backend]
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env={**os.environ, **settings}, stdout=log, stderr=log
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)

    def rounds(self, number: int) -> None:
        """Wait for so many more rounds."""
        before = self._rounds()
        self.until(lambda: self._rounds() >= before + number)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.01)

    def saved(self, *words: str) -> Callable[[], bool]:
        """Whether all these words are in what was kept of the alerts."""

        def is_saved() -> bool:
            text = self._kept()
            return all(word in text for word in words)

        return is_saved

    def said(self) -> list[str]:
        """The words of all messages that Slack took, each up to its first end of a line."""
        return [_first_line(payload) for payload in self.slack.payloads]

    def _kept(self) -> str:
        file = self._folder / "shop.sqlite"
        if not file.exists():
            return ""
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            try:
                rows = connection.execute("SELECT text FROM state").fetchall()
            except sqlite3.OperationalError:
                # It is not made yet, or locked for a moment.
                return ""
        return "".join(text for (text,) in rows)

    def _rounds(self) -> int:
        return (self._folder / "rounds").stat().st_size


def _first_line(payload: Any) -> str:
    return str(payload["text"]).splitlines()[0]


@pytest.fixture(params=["asyncio", "trio"])
def shop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shop]:
    with SlackStub() as slack:
        yield Shop(tmp_path, slack, request.param)


@pytest.mark.timeout(180)
def test_killed_during_an_incident_there_is_no_second_alarm_and_the_all_clear_comes(
    shop: Shop,
) -> None:
    with shop.running():
        shop.rounds(1)
        shop.is_up(False)
        shop.until(shop.saved('"belief":"firing"'))
    with shop.running():
        shop.rounds(8)
        assert len(shop.said()) == 1
    # It recovers while nobody looks.
    shop.is_up(True)
    with shop.running():
        shop.until(lambda: len(shop.said()) == 2)
        shop.until(shop.saved('"belief":"calm"'))
    with shop.running():
        shop.rounds(8)

    alarm, all_clear = shop.said()
    assert "database is critical" in alarm
    assert "database is healthy again" in all_clear


@pytest.mark.timeout(180)
@pytest.mark.parametrize("recovers", [False, True])
def test_killed_between_decision_and_delivery_the_message_comes_once(
    shop: Shop, recovers: bool
) -> None:
    shop.slack.script.append(Answer(act="hang"))
    with shop.running():
        shop.rounds(1)
        shop.is_up(False)
        shop.until(lambda: shop.slack.received)
        shop.until(shop.saved('"open":{"serial":1'))
    shop.slack.received.clear()
    shop.is_up(recovers)
    with shop.running():
        shop.until(shop.said)
        shop.rounds(8)
    with shop.running():
        shop.rounds(8)

    (message,) = shop.said()
    assert ("database was down" if recovers else "database is critical") in message
