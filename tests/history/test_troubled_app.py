"""An app whose history is in trouble: it answers, and the reason is told once."""

import logging
import os
import sqlite3

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.history.sqlite.file import APPLICATION
from holistic_asgi_monitor.history.sqlite.schema import MIGRATIONS, VERSION
from tests.web.exchanges import get


def make_corrupt(path):
    path.write_bytes(b"this is no database at all" * 200)


def make_newer(path):
    connection = sqlite3.connect(path)
    for step in MIGRATIONS:
        connection.executescript(";".join(step))
    connection.executescript(
        f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION + 1};"
    )
    connection.close()


def make_read_only(path):
    """As root every folder may be written, so the test gives the system's answer in its place."""


async def greet(request):
    return PlainTextResponse("hello")


async def failures(monitor):
    page = (await get(monitor, "/metrics")).body.decode()
    name = "holisticos_monitor_history_failures_total "
    (line,) = [line for line in page.splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_corrupt, "is damaged: it is kept as history.sqlite.corrupt-"),
        (make_newer, f"was written by a newer version (format {VERSION + 1}, known is {VERSION})"),
        (make_read_only, "may not be written"),
    ],
)
async def test_the_app_answers_and_the_reason_is_told_once(
    anyio_backend, tmp_path, monkeypatch, caplog, make, reason
):
    caplog.set_level(logging.WARNING, "holistic_asgi_monitor")
    path = tmp_path / "history.sqlite"
    await anyio.to_thread.run_sync(make, path)
    if make is make_read_only:
        real = os.open

        def refuse(name, flags, *rest, **options):
            if str(name).startswith(str(tmp_path)) and flags & os.O_CREAT:
                raise PermissionError(13, "Permission denied", name)
            return real(name, flags, *rest, **options)

        monkeypatch.setattr(os, "open", refuse)
    monitor = Monitor(
        Starlette(routes=[Route("/greet", greet)]),
        settings=Settings(
            service="shop",
            history_url=f"sqlite:///{path}",
            history_max_mb=5,
            access="open",
            flush_seconds=1,
        ),
        checks=[],
    )

    async with monitor:
        with anyio.fail_after(10):
            while not await failures(monitor):
                await anyio.sleep(0.05)
        for _ in range(2):
            assert (await get(monitor, "/greet")).status == 200
            page = await get(monitor, "/api/monitoring/history?metric=requests&from=-1h")
            assert page.status == 200
            await anyio.sleep(0.55)
        assert await failures(monitor) == 1

    (warning,) = [each.getMessage() for each in caplog.records if "history" in each.getMessage()]
    assert reason in warning
