"""The last hour against a day and a week before: from history, exactly, and seldom read."""

from __future__ import annotations

import json

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.web import trend as trend_module
from holistic_asgi_monitor.web.history.source import Stored
from holistic_asgi_monitor.web.trend import DAY, HOUR, Trends, read_trend
from tests.web.exchanges import get
from tests.web.past import ran, requests, value, write

NOW = 1_795_700_430.0
UNTIL = 1_795_700_400
WEEK = 7 * DAY


@pytest.fixture
async def store():
    store = SQLite(None, max_mb=8, clock=lambda: NOW)
    await store.open()
    yield store
    await store.close()


def source(store, now=NOW):
    return Stored(store, lambda: now)


async def test_each_hour_has_its_count_error_rate_and_p95(store):
    slow = [0.1] * 90 + [0.5] * 10
    await write(store, *requests(UNTIL - 60, "/a", value([0.1] * 100, errors=2)))
    await write(store, *requests(UNTIL - 1800, "/b", value([0.2] * 100)))
    await write(store, *requests(UNTIL - DAY - 60, "/a", value(slow, errors=50)))
    await write(store, *requests(UNTIL - WEEK - 3540, "/a", value([0.3])))
    found = await read_trend(source(store).read, NOW)

    assert found.as_dict() == {
        "until": "2026-11-26T13:40:00+00:00",
        "window_seconds": 3600,
        "now": {
            "count": 200,
            "error_rate_percent": 1.0,
            "p95_ms": pytest.approx(200, rel=0.011),
        },
        "day_ago": {
            "count": 100,
            "error_rate_percent": 50.0,
            "p95_ms": pytest.approx(500, rel=0.011),
        },
        "week_ago": {
            "count": 1,
            "error_rate_percent": 0.0,
            "p95_ms": pytest.approx(300, rel=0.011),
        },
    }
    nothing = {"count": 0, "error_rate_percent": 0.0, "p95_ms": None}
    assert found.rows("GET", "/a")["now"]["error_rate_percent"] == 2.0
    assert found.rows("GET", "/b")["now"]["count"] == 100
    assert found.rows("GET", "/b")["day_ago"] == nothing
    assert found.wheres() == [(), ("GET", "/a"), ("GET", "/b")]


@pytest.mark.parametrize("ago", [0, DAY, WEEK])
async def test_an_hour_ends_with_the_last_whole_five_minutes(store, ago):
    inside = [UNTIL - HOUR, UNTIL - 60]
    outside = [UNTIL - HOUR - 60, UNTIL]
    for time in (*inside, *outside):
        await write(store, *requests(time - ago, "/a", value([0.1])))
    found = await read_trend(source(store).read, NOW)

    hour = {0: "now", DAY: "day_ago", WEEK: "week_ago"}[ago]
    assert found.as_dict()[hour]["count"] == 2


async def test_an_hour_in_which_the_service_ran_and_nobody_asked_is_no_gap(store):
    await write(store, ran(UNTIL - 600))
    found = (await read_trend(source(store).read, NOW)).as_dict()

    assert found["now"] == {"count": 0, "error_rate_percent": 0.0, "p95_ms": None}
    assert found["day_ago"] is None


class Counting:
    """Counts what is read of a store."""

    def __init__(self, store):
        self.ends = []
        self._read = source(store).read

    async def __call__(self, query):
        self.ends.append(query.end)
        return await self._read(query)


async def test_it_is_read_once_in_a_minute_however_many_ask(store):
    clock = [NOW]
    read = Counting(store)
    trends = Trends(read, lambda: clock[0])
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(trends.now)
    first = len(read.ends)
    clock[0] += 59
    await trends.now()

    assert first == len(read.ends) == 9
    clock[0] += 2
    await trends.now()
    assert read.ends[first:] == [UNTIL] * 3, "the past is the same as a minute ago"
    clock[0] += 300
    await trends.now()
    assert len(read.ends) == first + 3 + 9


async def test_a_clock_that_is_set_back_does_not_keep_it_from_being_read(store):
    clock = [NOW]
    read = Counting(store)
    trends = Trends(read, lambda: clock[0])
    await trends.now()
    clock[0] -= 7200
    found = await trends.now()

    assert found is not None
    assert found.until == UNTIL - 7200


async def test_without_history_there_is_no_trend_and_it_is_asked_again_later():
    calls = 0

    async def failing(query):
        nonlocal calls
        calls += 1
        raise StoreError("locked")

    clock = [NOW]
    trends = Trends(failing, lambda: clock[0])
    assert await trends.now() is None
    assert await trends.now() is None
    assert calls == 1
    clock[0] += 61
    assert await trends.now() is None
    assert calls == 2


class Slow:
    """A history that is silent while it is told to be."""

    def __init__(self, store):
        self.silent = False
        self._read = source(store).read

    async def __call__(self, query):
        if self.silent:
            await anyio.sleep_forever()
        return await self._read(query)


async def test_nobody_waits_long_for_a_history_that_is_silent(store):
    """Twenty ask at once, and each is told within its patience; an hour later there is another."""
    await write(store, *requests(UNTIL - 60, "/a", value([0.1])))
    clock = [NOW]
    read = Slow(store)
    read.silent = True
    trends = Trends(read, lambda: clock[0], patience=0.2)
    found = []

    async def ask():
        found.append(await trends.now())

    with anyio.fail_after(3):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
    assert found == [None] * 20

    read.silent = False
    clock[0] += 61
    known = await trends.now()
    assert known is not None
    read.silent = True
    clock[0] += 61
    assert await trends.now() is known, "the last one that is known"


async def test_what_was_read_before_patience_ended_is_not_read_again(store):
    clock = [NOW]
    ends = []

    async def read(query):
        ends.append(query.end)
        if len(ends) == 4:
            await anyio.sleep_forever()
        return await source(store).read(query)

    trends = Trends(read, lambda: clock[0], patience=0.2)
    assert await trends.now() is None
    clock[0] += 61

    assert await trends.now() is not None
    assert ends[4:] == [UNTIL - WEEK] * 3 + [UNTIL] * 3


async def stats(monitor):
    return json.loads((await get(monitor, "/api/monitoring/stats")).body)


async def test_the_statistics_have_it_for_the_whole_and_each_endpoint(monkeypatch):
    monitor = Monitor(
        Starlette(),
        settings=Settings(service="x", access="open", history_url="memory:"),
        checks=[],
    )
    # So that the five minutes that are not over yet count.
    monkeypatch.setattr(trend_module, "GRAIN_SECONDS", -300)
    async with monitor:
        monitor.track_request("GET", "/a", 200, 0.1)
        monitor.track_request("GET", "/a", 500, 0.1)
        monitor.track_request("GET", "/b", 200, 0.2)
        found = await stats(monitor)
        rows = {row["endpoint"]: row["trend"] for row in found["requests"]["endpoints"]}

        assert found["trend"]["now"]["count"] == 3
        assert found["trend"]["day_ago"] is None
        assert rows["/a"]["now"]["error_rate_percent"] == 50.0
        assert rows["/b"]["now"]["p95_ms"] == pytest.approx(200, rel=0.011)


@pytest.mark.parametrize("url", ["off", "memory:"])
async def test_where_nothing_is_kept_the_hours_are_null(url):
    monitor = Monitor(
        Starlette(), settings=Settings(service="x", access="open", history_url=url), checks=[]
    )
    assert (await stats(monitor))["trend"] is None
    async with monitor:
        found = (await stats(monitor))["trend"]

    assert [found[hour] for hour in ("now", "day_ago", "week_ago")] == [None, None, None]
