"""/api/monitoring/history: what has been recorded, exactly, and gaps where nothing was."""

from __future__ import annotations

import csv
import io
import json
import random
import time
from datetime import datetime
from urllib.parse import urlencode

import anyio
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import CheckResult, Monitor, Settings, Status, notifiers
from holistic_asgi_monitor.cli import main
from holistic_asgi_monitor.history.bounds import TooMuchError
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import StoreError, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.web.history.asking import MOST_POINTS, asked
from holistic_asgi_monitor.web.history.curve import as_csv, as_json, curve
from holistic_asgi_monitor.web.history.source import Stored
from tests.alerts.virtual_time import eventually
from tests.web.exchanges import counted, get
from tests.web.past import ran, requests, row, value, write

NOW = 1_795_700_430.0
"""Half a minute after a whole five minutes."""
MINUTE = 1_795_700_400
PATH = "/api/monitoring/history"
STRANGER = ("203.0.113.9", 1)


async def item(request):
    return PlainTextResponse("an item")


async def broken(request):
    raise ValueError("secret")


async def unavailable(request):
    return PlainTextResponse("not now", 503)


def monitored(url="memory:", **settings):
    routes = [
        Route("/items/{id}", item, methods=["GET", "PUT"]),
        Route("/broken", broken),
        Route("/unavailable", unavailable),
    ]
    return Monitor(
        Starlette(routes=routes),
        settings=Settings(service="shop", history_url=url, access="open", **settings),
        checks=[],
        notifiers=[notifiers.Memory()],
    )


async def answer(monitor, **parameters):
    exchange = await get(monitor, f"{PATH}?{urlencode(parameters)}")
    assert exchange.status == 200, exchange.body
    return json.loads(exchange.body)


async def values(monitor, **parameters):
    """The values of the last ten minutes, without gaps."""
    found = await answer(monitor, **{"from": "-10m", "step": 60, **parameters})
    return [point for _, point in found["points"] if point is not None]


@pytest.fixture
def file(tmp_path):
    return f"sqlite:///{tmp_path}/history.sqlite"


async def traffic(monitor):
    """Six requests of which two fail, and five hundred of known durations."""
    for number in range(3):
        await get(monitor, f"/items/{number}")
    await get(monitor, "/items/3", "PUT")
    await get(monitor, "/unavailable")
    with pytest.raises(ValueError, match="secret"):
        await get(monitor, "/broken")
    dice = random.Random(4)
    durations = [dice.lognormvariate(-3, 1) for _ in range(500)]
    for duration in durations:
        monitor.track_request("GET", "/timed", 200, duration)
    return sorted(durations)


async def check_traffic(monitor, durations):
    assert sum(await values(monitor, metric="requests")) == 506
    assert sum(await values(monitor, metric="errors")) == 2
    assert sum(await values(monitor, metric="requests", endpoint="/items/{id}")) == 4
    assert sum(await values(monitor, metric="requests", endpoint="/items/{id}", method="PUT")) == 1
    assert sum(await values(monitor, metric="requests", method="PUT")) == 1
    assert sum(await values(monitor, metric="requests", endpoint="/nowhere")) == 0
    for quantile in (0.5, 0.95, 0.99):
        # One step over all of it, however the minutes fell.
        found = await values(
            monitor, metric="latency", endpoint="/timed", quantile=quantile, step=86_400
        )
        exact = durations[int(quantile * (len(durations) - 1))]
        assert found == [pytest.approx(exact, rel=0.011)]
    rates = await values(monitor, metric="error_rate", endpoint="/broken")
    assert rates == [100.0]


async def test_what_was_just_served_is_there_at_once_and_after_a_restart(file):
    monitor = monitored(file)
    async with monitor:
        durations = await traffic(monitor)
        await check_traffic(monitor, durations)
    again = monitored(file)
    async with again:
        await check_traffic(again, durations)
        await get(again, "/items/9")
        assert sum(await values(again, metric="requests")) == 507


async def test_history_in_memory_is_read_alike():
    monitor = monitored("memory:")
    async with monitor:
        await check_traffic(monitor, await traffic(monitor))


async def test_where_history_is_off_every_point_is_null_and_a_note_says_so():
    monitor = monitored("off")
    async with monitor:
        await get(monitor, "/items/1")
        found = await answer(monitor, metric="requests")

    assert found["note"] == "History is off: MONITOR_HISTORY_URL says so."
    assert {point for _, point in found["points"]} == {None}
    assert len(found["points"]) in {288, 289}


async def test_health_and_response_time_of_a_check():
    monitor = monitored()

    @monitor.check("database")
    async def database():
        return CheckResult(Status.UNHEALTHY, "down", response_time_ms=40.0)

    async with monitor:
        await monitor.report(fresh=True)
        assert set(await values(monitor, metric="health", service="database")) == {2}
        assert set(await values(monitor, metric="health")) == {2}
        assert set(await values(monitor, metric="health", service="traffic")) <= {0}
        times = await values(monitor, metric="response_time", service="database")
        assert times == [pytest.approx(0.04, rel=0.011)] * len(times)


async def test_csv_has_a_head_both_times_and_empty_gaps():
    monitor = monitored()
    async with monitor:
        await get(monitor, "/items/1")
        query = urlencode({"metric": "requests", "from": "-10m", "step": 60, "format": "csv"})
        exchange = await get(monitor, f"{PATH}?{query}")
    rows = list(csv.reader(io.StringIO(exchange.body.decode())))

    assert exchange.headers["content-type"] == "text/csv; charset=utf-8"
    assert "requests.csv" in exchange.headers["content-disposition"]
    assert rows[0] == ["time", "epoch_seconds", "value"]
    assert [datetime.fromisoformat(row[0]).timestamp() for row in rows[1:]] == [
        int(row[1]) for row in rows[1:]
    ]
    assert rows[1][2] == ""
    assert sum(int(row[2] or 0) for row in rows[1:]) == 1


@pytest.mark.parametrize("query", ["", "?metric=speed", "?metric=latency&quantile=2&from=x"])
async def test_a_wrong_parameter_is_400_and_opens_nothing(query, tmp_path):
    monitor = monitored(f"sqlite:///{tmp_path}/history.sqlite")
    exchange = await get(monitor, f"{PATH}{query}")

    assert exchange.status == 400
    assert "allowed" in json.loads(exchange.body)["error"]
    assert list(tmp_path.iterdir()) == []


async def test_head_tells_the_length_and_other_methods_are_refused():
    monitor = monitored()
    async with monitor:
        head = await get(monitor, f"{PATH}?metric=cpu", "HEAD")
        post = await get(monitor, f"{PATH}?metric=cpu", "POST")

    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 1000
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_it_answers_at_its_path_however_that_is_written(root_path, slash):
    monitor = monitored()
    async with monitor:
        target = f"{root_path}{PATH}{slash}?metric=requests&from=-10m"
        exchange = await get(monitor, target, root_path=root_path)

    assert exchange.status == 200
    assert exchange.headers["cache-control"] == "no-store"
    assert {point for _, point in json.loads(exchange.body)["points"]} <= {None, 0}
    assert counted(monitor) == {}, "our own paths are not counted"


async def test_with_a_token_only_the_token_opens():
    settings = Settings(service="x", token="correct horse", history_url="memory:")
    monitor = Monitor(Starlette(), settings=settings, checks=[])
    bearer = [(b"authorization", b"Bearer correct horse")]
    async with monitor:
        refused = await get(monitor, f"{PATH}?metric=cpu")
        granted = await get(monitor, f"{PATH}?metric=cpu", headers=bearer)

    assert (refused.status, granted.status) == (401, 200)
    assert "www-authenticate" in refused.headers


@pytest.mark.parametrize(("access", "status"), [("closed", 403), ("open", 400)])
async def test_strangers_are_refused_before_anything_is_read(access, status):
    monitor = Monitor(Starlette(), settings=Settings(service="x", access=access), checks=[])

    assert (await get(monitor, f"{PATH}?metric=speed", client=STRANGER)).status == status


async def test_trouble_with_the_store_is_503_with_its_sentence(monkeypatch):
    monitor = monitored()

    async def failing(*_):
        raise StoreError("the history file /var/x is locked by another process")

    async with monitor:
        monkeypatch.setattr(type(monitor._parts.recorder.store), "read", failing)
        exchange = await get(monitor, f"{PATH}?metric=cpu")

    assert exchange.status == 503
    assert json.loads(exchange.body)["error"] == (
        "History cannot be read now: the history file /var/x is locked by another process."
    )


async def test_a_question_that_is_made_of_too_much_is_400_with_a_sentence(monkeypatch):
    monitor = monitored()

    async def failing(*_):
        raise TooMuchError

    async with monitor:
        monkeypatch.setattr(type(monitor._parts.recorder.store), "read", failing)
        exchange = await get(monitor, f"{PATH}?metric=cpu")

    assert exchange.status == 400
    assert json.loads(exchange.body)["error"] == (
        "History cannot answer this: the question takes more than 200000 stored values; "
        "allowed: a shorter range, a longer step, or one endpoint or name alone."
    )


async def test_a_clock_that_is_set_back_takes_nothing_out_of_answers():
    monitor = monitored()
    recorder = monitor._parts.recorder
    recorder._time._wall = lambda: time.time() - 300
    async with monitor:
        await get(monitor, "/items/1")
        found = await answer(monitor, metric="requests", step=60, **{"from": "-3m"})

    assert sum(point or 0 for _, point in found["points"]) == 1
    assert found["points"][-1][0] > time.time() - 120


async def test_switched_off_the_monitor_opens_nothing_and_the_app_answers(tmp_path):
    monitor = monitored(f"sqlite:///{tmp_path}/history.sqlite", enabled=False)
    async with monitor:
        assert (await get(monitor, PATH)).status == 404

    assert list(tmp_path.iterdir()) == []


class TestCurve:
    """The points of a history that is known in every minute."""

    @pytest.fixture
    async def store(self):
        store = SQLite(None, max_mb=8, clock=lambda: NOW)
        await store.open()
        yield store
        await store.close()

    async def of(self, store, **parameters):
        pairs = {"from": "-4m", "step": "60", **parameters}.items()
        return await curve(asked(pairs, NOW), Stored(store, lambda: NOW))

    async def points(self, store, **parameters):
        return list((await self.of(store, **parameters)).points)

    async def test_gaps_are_null_and_a_quiet_minute_of_a_running_service_is_0(self, store):
        await write(
            store,
            *requests(MINUTE - 180, "/a", value([0.1, 0.2])),
            ran(MINUTE - 180),
            ran(MINUTE - 120),
            ran(MINUTE),
        )
        times = range(MINUTE - 240, MINUTE + 60, 60)

        counts = await self.points(store, metric="requests")
        assert counts == list(zip(times, [None, 2, 0, None, 0], strict=True))
        rates = await self.points(store, metric="error_rate")
        assert rates == list(zip(times, [None, 0.0, None, None, None], strict=True))

    async def test_the_quiet_minutes_of_another_instance_are_no_zeros(self, store):
        await write(store, *requests(MINUTE, "/a", value([0.1])), ran(MINUTE), instance="web-1")
        await write(store, ran(MINUTE - 60, "web-2"), instance="web-2")

        one, two = [
            [point for _, point in await self.points(store, metric="requests", instance=name)]
            for name in ("web-1", "web-2")
        ]
        assert one == [None, None, None, None, 1]
        assert two == [None, None, None, 0, None]

    @pytest.mark.parametrize(
        ("parameters", "kind", "labels", "stored", "expected"),
        [
            ({"metric": "cpu"}, Kind.SYSTEM, ("a", "cpu"), Value(2, total=50_500), 25.25),
            ({"metric": "memory"}, Kind.SYSTEM, ("a", "memory"), Value(2, total=2001), 1000),
            (
                {"metric": "cpu", "instance": "a"},
                Kind.SYSTEM,
                ("a", "cpu"),
                Value(4, total=400),
                0.1,
            ),
            ({"metric": "cost"}, Kind.SPEND, ("m", "", ""), Value(1, total=1_500_000_000), 1.5),
            (
                {"metric": "tokens", "model": "m"},
                Kind.SPEND,
                ("m", "/a", "f"),
                Value(1, extra={"input": 10, "output": 5, "cached": 4}),
                15,
            ),
            ({"metric": "feature_uses"}, Kind.FEATURES, ("export",), Value(7), 7),
            ({"metric": "health"}, Kind.HEALTH, ("db",), Value(3, peak=1), 0),
            ({"metric": "health"}, Kind.HEALTH, ("db",), Value(3, peak=2), 1),
            ({"metric": "health"}, Kind.HEALTH, ("db",), Value(3, peak=5), 3),
            ({"metric": "health"}, Kind.HEALTH, ("db",), Value(3, peak=0), None),
            (
                {"metric": "event_loop_lag", "quantile": "1"},
                Kind.LAG,
                ("a",),
                value([0.001, 0.5]),
                0.5,
            ),
        ],
    )
    async def test_what_is_stored_becomes_the_metrics_number(
        self, store, parameters, kind, labels, stored, expected
    ):
        await write(store, row(kind, labels, MINUTE, stored))
        points = await self.points(store, **parameters)

        assert points[-1][0] == MINUTE
        assert points[-1][1] == (expected and pytest.approx(expected, rel=0.011))
        assert points[-2][1] is None

    async def test_users_are_those_of_each_day(self, store):
        day = MINUTE // 86_400
        seen = [
            UsersSeen(day - 2, "", frozenset((b"1", b"2"))),
            UsersSeen(day, "", frozenset((b"1", b"2", b"3"))),
            UsersSeen(day, "export", frozenset((b"3",))),
        ]
        await write(store, users=tuple(seen))
        parameters = {"metric": "users", "from": "-2d"}

        found = await self.of(store, **parameters)
        assert found.step == 86_400
        assert [point for _, point in found.points] == [2, None, 3]
        of_feature = await self.points(store, **parameters, feature="export")
        assert [point for _, point in of_feature] == [None, None, 1]

    async def test_an_old_range_has_the_steps_in_which_it_is_kept(self, store):
        found = await self.of(store, **{"metric": "requests", "from": "-30d", "step": "300"})

        assert found.step == 3600
        assert {time % 3600 for time, _ in found.points} == {0}

    async def test_never_more_than_eleven_thousand_points(self, store):
        found = await self.of(
            store, **{"metric": "requests", "from": f"-{MOST_POINTS}m", "step": "60"}
        )
        oldest = await self.of(
            store,
            **{"metric": "requests", "from": str(NOW - MOST_POINTS * 300), "step": "300"},
        )

        assert len(found.points) <= MOST_POINTS
        assert len(oldest.points) <= MOST_POINTS
        assert oldest.points[-1][0] + oldest.step >= NOW

    async def test_a_long_series_is_one_document_in_several_pieces(self, store):
        await write(store, *requests(MINUTE, "/a", value([0.1])), ran(MINUTE))
        found = await self.of(store, **{"metric": "requests", "from": "-40h"})
        as_one = [piece async for piece in as_json(found)]
        lines = b"".join([piece async for piece in as_csv(found)]).decode().splitlines()

        assert len(as_one) > 3
        assert json.loads(b"".join(as_one)) == {
            "metric": "requests",
            "unit": "requests",
            "step_seconds": 60,
            "points": [list(point) for point in found.points],
        }
        assert len(lines) == len(found.points) + 1
        assert lines[-1].endswith(f",{MINUTE},1")


async def test_a_long_series_lets_others_go_on_in_between():
    monitor = monitored()
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with monitor:
        await answer(monitor, metric="latency")
        async with anyio.create_task_group() as group:
            group.start_soon(others)
            found = await answer(monitor, **{"metric": "latency", "from": "-47h", "step": 60})
            group.cancel_scope.cancel()

    assert len(found["points"]) > 2800
    assert turns > 28, "one for each hundred points"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_where_lifespan_never_comes_the_end_of_the_loop_writes(tmp_path, backend):
    monitor = monitored(f"sqlite:///{tmp_path}/history.sqlite")

    async def serve():
        await get(monitor, "/items/1")
        # Its tasks have all begun by then: asyncio warns of one that ends before its first step.
        await eventually(lambda: monitor._parts.watch.last_report() is not None)
        await get(monitor, "/items/2")

    async def read():
        store = SQLite(tmp_path / "history.sqlite", max_mb=8, service="shop")
        pairs = {"metric": "requests", "from": "-10m", "step": "60"}.items()
        found = await curve(asked(pairs, time.time()), Stored(store, time.time))
        await store.close()
        return sum(value or 0 for _, value in found.points)

    anyio.run(serve, backend=backend)
    assert anyio.run(read) == 2


def test_the_command_check_neither_opens_nor_writes_history(tmp_path, monkeypatch, capsys):
    (tmp_path / "checked.py").write_text(
        "from starlette.applications import Starlette\n"
        "from holistic_asgi_monitor import Monitor\n"
        "app = Monitor(Starlette())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MONITOR_HISTORY_URL", f"sqlite:///{tmp_path}/kept/history.sqlite")

    assert main(["check", "checked:app"]) == 0
    assert "overall: healthy" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()
