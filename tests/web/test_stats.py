"""/api/monitoring/stats: errors with their place, slow requests, and nothing held up by many."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from holistic_asgi_monitor import Monitor, Settings, notifiers
from tests.web.exchanges import get

FIELDS = {
    "service", "environment", "version", "monitor_version", "instance", "started_at",
    "uptime_seconds", "health", "requests", "trend", "system", "database", "openai", "users",
    "features",
    "errors", "slow_requests", "alerts", "summary",
}  # fmt: skip


async def broken(request):
    raise ValueError("postgresql://user:secret@host")


async def nested(request):
    return helper(request)


def helper(request):
    return json.loads("{secret")


async def page(request):
    await anyio.sleep(0.01)
    return PlainTextResponse("a page", int(request.query_params.get("status", "200")))


async def stream(request):
    async def lines():
        for _ in range(3):
            await anyio.sleep(0.02)
            yield b"line"

    return StreamingResponse(lines())


async def socket(websocket):
    raise KeyError("secret")


def monitored(**settings):
    routes = [
        Route("/broken", broken),
        Route("/nested", nested),
        Route("/stream", stream),
        WebSocketRoute("/socket", socket),
        Route("/pages/{name}", page),
    ]
    return Monitor(
        Starlette(routes=routes),
        settings=Settings(service="shop", history_url="memory:", access="open", **settings),
        checks=[],
        notifiers=[notifiers.Memory()],
    )


async def stats(monitor):
    exchange = await get(monitor, "/api/monitoring/stats")
    assert exchange.status == 200
    assert b"secret" not in exchange.body
    return json.loads(exchange.body)


async def fail(monitor, path, error=ValueError):
    with pytest.raises(error, match="secret"):
        await get(monitor, path)


async def test_every_field_is_there_from_the_start():
    found = await stats(monitored())

    assert set(found) == FIELDS
    assert found["errors"] == found["slow_requests"] == found["features"] == []
    assert found["health"] is found["trend"] is found["database"] is None
    assert found["system"]["event_loop_lag_ms"] is None
    assert set(found["requests"]) == {"total", "in_progress", "windows", "endpoints"}


async def test_an_error_names_its_type_and_the_last_place_in_the_apps_code():
    monitor = monitored()
    await fail(monitor, "/broken")
    with pytest.raises(json.JSONDecodeError):
        await get(monitor, "/nested")
    newest, oldest = (await stats(monitor))["errors"]

    assert set(newest) == {"time", "method", "endpoint", "type", "message"}
    assert (newest["type"], newest["method"], newest["endpoint"]) == (
        "JSONDecodeError", "GET", "/nested",
    )  # fmt: skip
    line = helper.__code__.co_firstlineno + 1
    assert newest["message"] == f"JSONDecodeError at test_stats.py:{line} in helper"
    line = broken.__code__.co_firstlineno + 1
    assert oldest["message"] == f"ValueError at test_stats.py:{line} in broken"
    assert datetime.fromisoformat(oldest["time"]) <= datetime.fromisoformat(newest["time"])


async def test_the_last_hundred_errors_are_kept():
    monitor = monitored()
    for number in range(120):
        monitor._parts.paths.failed(ValueError("secret"), "GET", f"/{number}")
    found = (await stats(monitor))["errors"]

    assert [error["endpoint"] for error in found] == [f"/{number}" for number in range(119, 19, -1)]
    assert {error["message"] for error in found} == {"ValueError"}


async def test_a_slow_request_says_what_it_was_and_when():
    monitor = monitored()
    before = datetime.now(UTC)
    await get(monitor, "/pages/1?status=404")
    await get(monitor, "/stream")
    slowest, slow = (await stats(monitor))["slow_requests"]
    after = datetime.now(UTC)

    assert set(slow) == {"time", "method", "endpoint", "status", "duration_ms", "streamed"}
    assert (slow["method"], slow["endpoint"], slow["status"]) == ("GET", "/pages/{name}", 404)
    assert (slow["streamed"], slowest["streamed"]) == (False, True)
    assert slowest["endpoint"] == "/stream"
    assert slowest["duration_ms"] > slow["duration_ms"] >= 9
    spare = timedelta(milliseconds=20)  # two clocks
    assert before - spare <= datetime.fromisoformat(slow["time"]) <= after + spare


async def test_streams_do_not_push_out_what_is_slow():
    monitor = monitored()
    series = monitor._parts.catalogue.series
    for number in range(150):
        series.observe(series.find("GET", "/events"), 200, 10**11 + number, streamed=True)
    for number in range(60):
        monitor.track_request("GET", "/page", 200, 0.5 + number / 1000)
    found = (await stats(monitor))["slow_requests"]

    assert len(found) == 100
    assert [slow["streamed"] for slow in found] == [True] * 40 + [False] * 60
    durations = [slow["duration_ms"] for slow in found]
    assert durations == sorted(durations, reverse=True)
    assert durations[60] == 539.0


async def test_excluded_endpoints_are_not_among_the_slow():
    monitor = monitored(exclude="^/pages")
    await get(monitor, "/pages/1")

    assert (await stats(monitor))["slow_requests"] == []


async def test_a_thousand_endpoints_let_others_go_on_in_between():
    monitor = monitored(max_endpoints=2000)
    for number in range(1000):
        monitor.track_request("GET", f"/{number}", 200, 0.01)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        found = await stats(monitor)
        group.cancel_scope.cancel()

    assert len(found["requests"]["endpoints"]) == 1000
    assert turns > 1000


async def test_a_request_is_not_slower_for_it():
    """What is looked at in a request is the same list; the slowest are found when it is folded."""
    monitor = monitored()
    await get(monitor, "/pages/1")
    slowest = monitor._parts.catalogue.series.slowest
    seen = []

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.endswith("slowest.py"):
            seen.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        await get(monitor, "/pages/2")
    finally:
        sys.setprofile(None)

    assert seen == []
    await stats(monitor)
    assert len(slowest.of_last_day()) == 2


@pytest.mark.parametrize("version", ["1.2.3", None])
async def test_a_version_that_is_not_known_is_null(version):
    settings = Settings(service="x", access="open", history_url="off", app_version=version)
    exchange = await get(Monitor(Starlette(), settings=settings), "/api/monitoring/stats")

    assert json.loads(exchange.body)["version"] == version
