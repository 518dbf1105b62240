"""A disk that is full: the app goes on, it is said once, and nothing is lost."""

import json
import logging
import shutil
import subprocess
from contextlib import suppress

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.history import trouble
from tests.web.exchanges import get

DISK_BYTES = 1 << 20
ENDPOINTS = 150


class SmallDisk:
    """A file system of a megabyte, which a file of ours fills."""

    def __init__(self, folder):
        self.folder = folder
        self._filler = folder / "filler"

    async def fill(self, store):
        await anyio.to_thread.run_sync(self._fill)

    def _fill(self):
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    async def make_room(self, store):
        await anyio.to_thread.run_sync(self._filler.unlink)


class FewPages:
    """Where nothing may be mounted: the database may not grow, as if the disk were full."""

    def __init__(self, folder):
        self.folder = folder

    async def fill(self, store):
        await self._allow(store, 1)

    async def make_room(self, store):
        await self._allow(store, 100_000)

    async def _allow(self, store, pages):
        statement = f"PRAGMA max_page_count = {pages}"
        await store._write(lambda session: session.connection.execute(statement).fetchall())


def mounted(folder):
    """Whether a small file system could be mounted at the folder, which takes a privilege."""
    program = shutil.which("mount")
    if program is None:
        return False
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run([program, *options], capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["small file system", "few pages"])
def disk(request, tmp_path):
    if request.param == "few pages" or not mounted(tmp_path):
        yield FewPages(tmp_path)
        return
    yield SmallDisk(tmp_path)
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def greet(request):
    return PlainTextResponse("hello")


async def until(condition):
    with anyio.fail_after(30):
        while not await condition():
            await anyio.sleep(0.02)


class Service:
    def __init__(self, folder):
        self.monitor = Monitor(
            Starlette(routes=[Route("/greet", greet)]),
            settings=Settings(
                service="shop",
                history_url=f"sqlite:///{folder}/history.sqlite",
                history_max_mb=5,
                access="open",
                flush_seconds=1,
            ),
            checks=[],
        )

    @property
    def store(self):
        return self.monitor._parts.recorder.store

    async def metric(self, name):
        page = (await get(self.monitor, "/metrics")).body.decode()
        (line,) = [line for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(line.rpartition(" ")[2])

    async def requests(self):
        page = await get(
            self.monitor, "/api/monitoring/history?metric=requests&from=-1h&step=86400"
        )
        return sum(value or 0 for _, value in json.loads(page.body)["points"])


def said(caplog, words):
    return [each for each in caplog.records if words in each.getMessage()]


async def test_a_full_disk_disturbs_nobody_and_loses_nothing(disk, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    monkeypatch.setattr(trouble, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(trouble, "LONGEST_PAUSE", 0.1)
    service = Service(disk.folder)

    async def failed_twice():
        return await service.metric("holisticos_monitor_history_failures_total") >= 2

    async def nothing_waits():
        return await service.metric("holisticos_monitor_history_pending") == 0

    async with service.monitor:
        await service.store.open()
        await disk.fill(service.store)
        for number in range(ENDPOINTS):
            for each in range(20):
                service.monitor.track_request("GET", f"/{number}", 200, 0.001 * 1.3**each)
        await until(failed_twice)

        assert (await get(service.monitor, "/greet")).status == 200
        assert await service.metric("holisticos_monitor_history_pending") >= 1
        assert await service.metric("holisticos_monitor_history_dropped_total") == 0
        assert await service.requests() == ENDPOINTS * 20 + 1, "what waits is in the answers"
        (warning,) = said(caplog, "History cannot be written now")
        assert warning.getMessage().endswith("history.sqlite cannot grow: the disk is full")

        await disk.make_room(service.store)
        await until(nothing_waits)
        assert len(said(caplog, "History is written again")) == 1
        assert await service.requests() == ENDPOINTS * 20 + 1

    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(warnings) == len(set(warnings)), "each trouble is said once"
    assert all("cannot grow: the disk is full" in each for each in warnings)
    after = Service(disk.folder)
    async with after.monitor:
        assert await after.requests() == ENDPOINTS * 20 + 1


def test_what_is_mounted_is_as_small_as_it_says(tmp_path):
    """Else the test above would show nothing."""
    if mounted(tmp_path):
        size = shutil.disk_usage(tmp_path).total
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)
        assert size == DISK_BYTES
