"""Real workers of one service: one outage is told once, whoever of them dies meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.notifiers.slack_stub import SlackStub
from tests.servers.postgres import Postgres
from tests.servers.redis_server import Redis

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0
INTERVAL = 0.5
SHOP = """
import os
from pathlib import Path

from holistic_asgi_monitor import Monitor

folder = Path(os.environ["SHOP"])


async def shop(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})


app = Monitor(shop, checks=None if "REDIS_URL" in os.environ else [])


@app.check("payments", required=True)
async def payments():
    (folder / f"worker-{os.getpid()}").touch()
    shown = app._parts.outbox.as_dict()
    new = folder / f"new-{os.getpid()}"
    new.write_text(shown["voice"])
    new.replace(folder / f"voice-{os.getpid()}")
    if shown["maintenance"]:
        (folder / f"quiet-{os.getpid()}").touch()
    return (folder / "state").read_text() == "up"
"""
ALONE = """
import anyio

from shop import app


async def main():
    async with app:
        await anyio.sleep_forever()


anyio.run(main)
"""


class Town:
    """The hosts of one service, each with its workers, and what Slack got from all of them."""

    def __init__(self, folder: Path, slack: SlackStub, **settings: str) -> None:
        self.slack = slack
        self._folder = folder
        self._settings = settings
        (folder / "shop.py").write_text(SHOP)
        (folder / "alone.py").write_text(ALONE)
        self.is_up(True)

    def is_up(self, up: bool) -> None:
        new = self._folder / "new"
        new.write_text("up" if up else "down")
        new.replace(self._folder / "state")

    @contextmanager
    def host(self, name: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """What runs on one host: a single process, or `command`; killed at the end."""
        state = self._folder / name
        state.mkdir(exist_ok=True)
        settings = {
            "MONITOR_CHECK_INTERVAL_SECONDS": str(INTERVAL),
            "MONITOR_RECHECK_SECONDS": "0.1",
            "MONITOR_STARTUP_GRACE_SECONDS": "0",
            "MONITOR_SERVICE": "shop",
            "MONITOR_INSTANCE": name,
            "SLACK_WEBHOOK_URL": self.slack.url,
            "XDG_STATE_HOME": str(state),
            "TMPDIR": str(state),
            "SHOP": str(self._folder),
            "PYTHONPATH": f"{ROOT}:{self._folder}",
            **self._settings,
        }
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *(command or (str(self._folder / "alone.py"),))],
                cwd=self._folder,
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)

    def voices(self) -> dict[int, str]:
        """What each worker that lives may tell: `all`, `host` or `none`."""
        files = self._folder.glob("voice-*")
        said = {int(file.name.removeprefix("voice-")): file.read_text() for file in files}
        return {pid: voice for pid, voice in said.items() if Path(f"/proc/{pid}").exists()}

    def leader(self) -> int:
        self.until(lambda: list(self.voices().values()).count("all") == 1)
        return next(pid for pid, voice in self.voices().items() if voice == "all")

    def kill_leader(self) -> None:
        self.kill(self.leader())

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: _is_gone(pid))
        (self._folder / f"voice-{pid}").unlink()

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, (self.said(), self.log())
            time.sleep(0.01)

    def rounds(self, number: int) -> None:
        """Wait until every worker that lives has had so many rounds more."""
        for _ in range(number):
            for pid in self.voices():
                (self._folder / f"worker-{pid}").unlink(missing_ok=True)
            self.until(
                lambda: all((self._folder / f"worker-{pid}").exists() for pid in self.voices())
            )

    def settled(self, workers: int, *voices: str) -> None:
        """Wait until so many workers live, of whom these are not silent."""
        self.until(
            lambda: (
                sorted(self.voices().values())
                == sorted([*voices, *["none"] * (workers - len(voices))])
            )
        )

    def said(self, about: str = "payments") -> list[str]:
        lines = [str(payload["text"]).splitlines()[0] for payload in self.slack.payloads]
        return [line for line in lines if about in line]

    def log(self) -> str:
        return (self._folder / "log").read_text()


@pytest.fixture
def slack() -> Iterator[SlackStub]:
    with SlackStub() as stub:
        yield stub


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, though its parent may not have asked for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] in "ZX"
    except OSError:
        return True


def _port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def uvicorn(workers: int) -> tuple[str, ...]:
    return ("-m", "uvicorn", "shop:app", "--workers", str(workers), "--port", _port())


@pytest.mark.timeout(180)
def test_four_workers_tell_of_one_outage_once_though_the_leader_is_killed_in_it(
    tmp_path: Path, slack: SlackStub
) -> None:
    town = Town(tmp_path, slack)
    with town.host("web-1", *uvicorn(4)):
        town.settled(4, "all")
        town.is_up(False)
        town.until(town.said)
        town.rounds(4)
        assert len(town.said()) == 1

        town.kill_leader()
        # The server starts another worker in its place.
        town.settled(4, "all")
        town.rounds(4)
        assert len(town.said()) == 1

        town.is_up(True)
        town.until(lambda: len(town.said()) == 2)
        town.rounds(4)

    alarm, all_clear = town.said()
    assert "payments is critical" in alarm
    assert "payments is healthy again" in all_clear


@pytest.mark.timeout(180)
def test_the_all_clear_comes_where_it_ends_while_the_leader_hangs_and_is_then_killed(
    tmp_path: Path, slack: SlackStub
) -> None:
    town = Town(tmp_path, slack)
    with town.host("web-1", *uvicorn(2)):
        town.settled(2, "all")
        town.is_up(False)
        town.until(town.said)
        # What was delivered is remembered by then.
        town.rounds(2)
        leader = town.leader()
        os.kill(leader, signal.SIGSTOP)
        town.is_up(True)
        town.kill(leader)
        town.until(lambda: len(town.said()) == 2)
        town.settled(2, "all")
        town.rounds(4)
    assert len(town.said()) == 2
    assert "healthy again" in town.said()[1]


@pytest.mark.timeout(180)
def test_maintenance_that_one_worker_was_told_of_holds_for_the_one_that_tells(
    tmp_path: Path, slack: SlackStub
) -> None:
    town = Town(tmp_path, slack, MONITOR_TOKEN="of this test")
    command = uvicorn(3)
    with town.host("web-1", *command):
        town.settled(3, "all")
        order = Request(
            f"http://127.0.0.1:{command[-1]}/api/monitoring/maintenance",
            data=b'{"reason": "deploy", "minutes": 30}',
            headers={"Authorization": "Bearer of this test", "Content-Type": "application/json"},
        )
        with urlopen(order, timeout=PATIENCE) as answer:
            assert b"deploy" in answer.read()
        town.until(lambda: len(list(tmp_path.glob("quiet-*"))) == 3)
        town.is_up(False)
        town.rounds(6)
    assert town.said() == []


def elsewhere(kind: str, redis: Redis, postgres: Postgres) -> Mapping[str, str]:
    """The settings by which hosts have one voice."""
    if kind == "redis":
        return {"REDIS_URL": redis.url()}
    return {"MONITOR_HISTORY_URL": postgres.url(database=postgres.new_database())}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["redis", "postgres"])
@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)
def test_of_three_hosts_one_tells_and_another_goes_on_where_it_is_gone(
    kind: str, tmp_path: Path, slack: SlackStub, redis: Redis, postgres: Postgres
) -> None:
    town = Town(tmp_path, slack, **elsewhere(kind, redis, postgres))
    with ExitStack() as hosts:
        for name in ("web-1", "web-2", "web-3"):
            hosts.enter_context(town.host(name))
        town.settled(3, "all", "host", "host")
        town.is_up(False)
        town.until(town.said)
        town.rounds(4)
        assert len(town.said()) == 1

        town.kill_leader()
        town.until(lambda: sorted(town.voices().values()) == ["all", "host"])
        town.rounds(4)
        assert len(town.said()) == 1

        town.is_up(True)
        town.until(lambda: len(town.said()) == 2)
        town.rounds(4)
    assert ["is critical" in each for each in town.said()] == [True, False]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)
def test_where_the_place_of_the_lease_is_the_outage_at_least_one_host_tells_and_each_once(
    tmp_path: Path, slack: SlackStub, redis: Redis
) -> None:
    town = Town(tmp_path, slack, REDIS_URL=redis.url())
    with ExitStack() as hosts:
        for name in ("web-1", "web-2"):
            hosts.enter_context(town.host(name))
        town.settled(2, "all", "host")
        redis.kill()
        town.until(lambda: sorted(town.voices().values()) == ["all", "all"])
        town.until(lambda: town.said("redis"))
        town.rounds(8)
        assert 1 <= len(town.said("redis")) <= 2
        alarms = len(town.said("redis"))

        redis.start()
        town.until(lambda: sorted(town.voices().values()) == ["all", "host"])
        town.until(lambda: len(town.said("redis")) > alarms)
        town.rounds(8)
    assert all("degraded" in each for each in town.said("redis")[:alarms])
    assert 1 <= len(town.said("redis")[alarms:]) <= alarms
