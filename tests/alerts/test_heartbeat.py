"""The heartbeat: a sign of life after the rounds, and none without them."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import ConfigurationError, Monitor, Settings, notifiers
from holistic_asgi_monitor.alerts.heartbeat import Heartbeat
from holistic_asgi_monitor.cli import main
from tests.alerts.virtual_time import VirtualTime, eventually
from tests.servers.process import free_port

SECRET = "S3cret-uuid"
INTERVAL = 30.0


class Nurse:
    """Where heartbeats arrive; `script` holds the statuses of its answers, 0 for none at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.script: list[int] = []
        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.nurse = self  # type: ignore[attr-defined]  # for its handlers
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/ping/{SECRET}?a=1"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        nurse: Nurse = self.server.nurse  # type: ignore[attr-defined]  # set by the nurse
        nurse.asked.append(
            (self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        )
        status = nurse.script.pop(0) if nurse.script else 200
        if not status:
            nurse.released.wait(60)
            return
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def nurse() -> Iterator[Nurse]:
    nurse = Nurse()
    thread = threading.Thread(target=nurse.server.serve_forever, args=(0.01,))
    thread.start()
    yield nurse
    nurse.released.set()
    nurse.server.shutdown()
    thread.join()
    nurse.server.server_close()


class Patient:
    """A heartbeat on a virtual clock."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        self.time = VirtualTime()
        self.heartbeat = Heartbeat(
            url, INTERVAL, clock=self.time.clock, sleep=self.time.sleep, timeout=timeout
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.heartbeat.run)
            yield
            group.cancel_scope.cancel()

    async def beats(self) -> None:
        """One beat, until it has been answered or has failed, and the interval after it."""
        self.heartbeat.beat()
        await eventually(lambda: self.time._sleepers)
        await self.time.pass_by(INTERVAL)


async def test_a_beat_is_one_get_of_the_address(nurse: Nurse) -> None:
    patient = Patient(nurse.url)
    async with patient.alive():
        await patient.beats()
    assert nurse.asked == [(f"/ping/{SECRET}?a=1", "")]


async def test_without_a_beat_there_is_none(nurse: Nurse) -> None:
    patient = Patient(nurse.url)
    async with patient.alive():
        await patient.beats()
        await patient.time.pass_by(10 * INTERVAL)
    assert len(nurse.asked) == 1


async def test_there_is_at_most_one_in_an_interval_and_none_is_forgotten(nurse: Nurse) -> None:
    patient = Patient(nurse.url)
    async with patient.alive():
        patient.heartbeat.beat()
        await eventually(lambda: patient.time._sleepers)
        for _ in range(5):
            patient.heartbeat.beat()
            await patient.time.pass_by(INTERVAL / 6)
        assert len(nurse.asked) == 1
        await patient.time.pass_by(INTERVAL / 6)
        await eventually(lambda: len(nurse.asked) == 2)


async def test_while_the_last_round_is_too_old_there_is_none(nurse: Nurse) -> None:
    patient = Patient(nurse.url)
    patient.heartbeat.fresh = lambda: False
    async with patient.alive():
        await patient.beats()
        assert nurse.asked == []
        patient.heartbeat.fresh = lambda: True
        await patient.beats()
    assert len(nurse.asked) == 1


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_a_failure_is_logged_once_until_it_works_again(
    nurse: Nurse, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    nurse.script = [status, status, 200, 200, status]
    patient = Patient(nurse.url)
    async with patient.alive():
        for _ in range(5):
            await patient.beats()

    failed = f"The heartbeat of MONITOR_HEARTBEAT_URL failed: it answered {status}"
    again = "The heartbeat of MONITOR_HEARTBEAT_URL arrives again"
    first, second, third = caplog.messages
    assert first.startswith(failed)
    assert second == again
    assert third.startswith(failed)
    assert {path for path, _ in nurse.asked} == {f"/ping/{SECRET}?a=1"}
    assert SECRET not in caplog.text


async def test_what_never_answers_is_given_up_and_delays_nobody(
    nurse: Nurse, caplog: pytest.LogCaptureFixture
) -> None:
    nurse.script = [0]
    patient = Patient(nurse.url, timeout=0.2)
    async with patient.alive():
        await patient.beats()
        await patient.beats()
    assert len(nurse.asked) == 2
    assert "failed: it did not answer within 0.2 s" in caplog.text


async def test_what_cannot_be_reached_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    patient = Patient(f"http://127.0.0.1:{free_port()}/{SECRET}")
    async with patient.alive():
        await patient.beats()
        await patient.beats()
    assert caplog.text.count("failed: it could not be reached (ConnectionRefusedError)") == 1
    assert SECRET not in caplog.text


def test_a_wrong_address_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError, match="MONITOR_HEARTBEAT_URL is not shown") as caught:
        Heartbeat(f"ftp://{SECRET}", INTERVAL)
    assert SECRET not in str(caught.value)


async def app(scope, receive, send):
    raise AssertionError


def monitored(nurse: Nurse, **more: Any) -> Monitor:
    settings = Settings(service="shop", heartbeat_url=nurse.url, history_url="off", **more)
    return Monitor(app, settings=settings, checks=[], notifiers=[notifiers.Memory()])


async def test_a_monitor_sends_one_after_its_first_round(nurse: Nurse) -> None:
    async with monitored(nurse):
        await eventually(lambda: nurse.asked)
    assert len(nurse.asked) == 1


async def test_a_round_is_fresh_for_three_intervals(nurse: Nurse) -> None:
    monitor = monitored(nurse)
    watch = monitor._parts.watch
    assert not watch.is_fresh()
    await monitor.report(fresh=True)
    assert watch.is_fresh()
    watch._taken -= 4 * INTERVAL
    assert not watch.is_fresh()
    assert watch._heartbeat is not None
    assert watch._heartbeat.fresh == watch.is_fresh


async def test_who_only_asks_for_a_report_sends_none(nurse: Nurse) -> None:
    monitor = monitored(nurse)
    await monitor.report(fresh=True)
    await anyio.sleep(0.05)
    assert nurse.asked == []


async def test_one_that_is_switched_off_sends_none(nurse: Nurse) -> None:
    async with monitored(nurse, enabled=False):
        await anyio.sleep(0.05)
    assert nurse.asked == []


def test_the_command_check_sends_none(
    nurse: Nurse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beating_app.py").write_text(
        "async def app(scope, receive, send):\n    raise AssertionError\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MONITOR_HEARTBEAT_URL", nurse.url)
    assert main(["check", "beating_app:app"]) == 0
    assert nurse.asked == []
