"""No user is recognised in anything that comes out of the monitor, nor in what it keeps."""

from __future__ import annotations

import logging

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import Monitor, Settings, set_user, track_feature
from holistic_asgi_monitor.history.store import Batch, UsersSeen
from holistic_asgi_monitor.usage.activity import Activity
from tests.web.exchanges import get

USER, KEY = "ada.lovelace@example.org", "a key that nobody may read"
PAGES = (
    "/metrics",
    "/api/health",
    *(f"/api/monitoring/{page}" for page in ("stats", "alerts", "dashboard")),
    *(
        f"/api/monitoring/history?from=-1h&metric={metric}"
        for metric in ("users", "feature_uses", "users&feature=export")
    ),
)


async def endpoint(request):
    set_user(USER)
    track_feature("export")
    return PlainTextResponse("ok")


class Failing:
    def __str__(self):
        raise RuntimeError(USER)


async def test_what_is_wrong_with_an_id_does_not_say_it(caplog):
    settings = Settings(service="shop", history_url="off", access="open")
    monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[])
    for _ in range(2):
        monitor.set_user(Failing())
    monitor.set_user(object())

    assert monitor._parts.catalogue.faults.values == {("tracking",): 3.0}
    assert sum("failed in its part 'tracking'" in each.getMessage() for each in caplog.records) == 1
    assert USER not in caplog.text


def test_a_batch_does_not_show_who_is_in_it():
    seen = UsersSeen(20_000, "export", frozenset({b"12345678"}), 28_800_000)

    assert "12345678" not in repr(Batch("run", 0, "web-1", (), (seen,)))


@pytest.mark.parametrize("key", [None, KEY], ids=["key in the store", "key in the settings"])
async def test_neither_ids_nor_hashes_come_out(tmp_path, key, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "history.sqlite"
    settings = Settings(
        service="shop", history_url=f"sqlite:///{path}", access="open", user_hash_key=key
    )
    monitor = Monitor(
        Starlette(routes=[Route("/", endpoint)]), settings=settings, checks=[], notifiers=[]
    )
    recorder = monitor._parts.recorder
    async with monitor:
        await get(monitor, "/")
        await recorder._open()
        await recorder._close_minute(recorder.now)
        await recorder._write_all()
        await get(monitor, "/")
        pages = [(await get(monitor, page)).body for page in PAGES]
    kept = b"".join([await anyio.Path(each).read_bytes() for each in tmp_path.glob("history*")])
    (waiting,) = {Activity(key or "").hashed(USER)}
    assert waiting is not None
    seen = await recorder._attendance.hashed(recorder.users_waiting())
    hashes = {waiting, *(user for each in seen for user in each.hashes)}
    shown = b"".join([*pages, caplog.text.encode(), repr(settings).encode()])

    assert b'active_users{window="day"} 1.0' in pages[0]
    assert USER.encode() not in kept + shown
    assert KEY.encode() not in kept + shown
    for found in hashes:
        assert found not in shown
        assert found.hex().encode() not in shown
