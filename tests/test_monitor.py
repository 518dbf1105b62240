"""Monitor as a user meets it: construction, attributes, attach, tracking, reports, alerts."""

import gc
import logging
import sys
import weakref
from typing import Any, Literal, cast

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import holistic_asgi_monitor as package
from holistic_asgi_monitor import (
    CheckResult,
    ConfigurationError,
    Monitor,
    Settings,
    Severity,
    Status,
    checks,
    notifiers,
)
from tests.web.exchanges import Exchange, counted, get, http_scope, sample


async def item(request):
    return PlainTextResponse(request.path_params["item_id"])


def shop():
    return Starlette(routes=[Route("/items/{item_id}", item)])


def watched(app=None, **options):
    options.setdefault("settings", Settings(service="test"))
    options.setdefault("checks", [])
    options.setdefault("notifiers", [notifiers.Memory()])
    return Monitor(shop() if app is None else app, **options)


async def until(condition):
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)


def fastapi_app():
    app = FastAPI(version="3.4.5")
    router = APIRouter()

    @router.get("/items/{item_id}")
    async def read(item_id: int) -> dict[str, int]:
        return {"item": item_id}

    app.include_router(router, prefix="/api")
    return app


async def test_one_line_on_fastapi_is_enough():
    app = Monitor(fastapi_app())
    for number in (1, 2):
        assert (await get(app, f"/api/items/{number}")).body == b'{"item":%d}' % number
    page = (await get(app, "/metrics")).body.decode()

    series = 'holisticos_requests_total{endpoint="/api/items/{item_id}",method="GET",status="200"}'
    assert f"{series} 2.0\n" in page


@pytest.mark.parametrize("way", ["attach", "add_middleware"])
async def test_as_middleware_the_app_stays_what_it_was(way):
    app = fastapi_app()
    if way == "attach":
        assert isinstance(Monitor.attach(app, settings=Settings(service="x")), Monitor)
    else:
        app.add_middleware(Monitor, settings=Settings(service="x"))
    assert (await get(app, "/api/items/7")).status == 200
    page = (await get(app, "/metrics")).body.decode()

    assert isinstance(app, FastAPI)
    labels = ['endpoint="/api/items/{item_id}"', 'status="200"']
    assert sample(page, "holisticos_requests_total", labels) == ["1.0"]


async def test_an_exception_counts_the_same_inside_and_outside():
    async def broken(request):
        raise ValueError

    for attached in (True, False):
        app = Starlette(routes=[Route("/broken", broken)])
        make = Monitor.attach if attached else Monitor
        monitor = make(app, settings=Settings(service="x"), checks=[])
        with pytest.raises(ValueError, match=r"^$"):
            await get(app if attached else monitor, "/broken")
        assert counted(monitor) == {("GET", "/broken", "500"): 1}


def test_attributes_that_monitor_lacks_are_the_apps():
    app: Any = FastAPI()
    monitor: Any = watched(app)
    monitor.dependency_overrides = {"a": "b"}
    monitor.state.ready = True

    assert app.dependency_overrides == {"a": "b"}
    assert app.state.ready is True
    assert monitor.openapi()["info"]["title"] == "FastAPI"
    assert monitor.title == app.title
    del monitor.dependency_overrides
    assert "dependency_overrides" not in vars(app)


def test_an_attribute_that_neither_has_is_an_attribute_error():
    with pytest.raises(AttributeError):
        watched().no_such_thing  # noqa: B018 - the access is the test


def test_the_apps_version_is_taken_where_none_is_set():
    page = watched(fastapi_app())
    values = page._parts.catalogue.app_info.values

    assert next(iter(values))[1] == "3.4.5"


def test_a_clash_with_a_metric_of_the_user_is_one_clear_error():
    registry = CollectorRegistry()
    Gauge("holisticos_requests_in_progress", "Mine.", registry=registry)

    with pytest.raises(ConfigurationError, match="MONITOR_NAMESPACE"):
        watched(registry=registry)


async def test_two_apps_on_one_registry_are_both_counted():
    registry = CollectorRegistry()
    for _ in range(2):
        await get(watched(registry=registry), "/items/1")

    labels = ['endpoint="/items/{item_id}"', 'status="200"']
    page = generate_latest(registry).decode()
    assert sample(page, "holisticos_requests_total", labels) == ["2.0"]


async def test_apps_with_registries_of_their_own_are_apart():
    first, second = watched(), watched()
    await get(first, "/items/1")

    assert sum(counted(first).values()) == 1
    assert counted(second) == {}


async def test_a_rebuilt_middleware_stack_goes_on():
    app = fastapi_app()
    app.add_middleware(Monitor, settings=Settings(service="x"), checks=[])
    for _ in range(2):
        app.middleware_stack = None
        assert (await get(app, "/api/items/1")).status == 200


async def test_generate_latest_sees_the_live_numbers():
    monitor = watched()
    await get(monitor, "/items/1")
    page = generate_latest(monitor.registry).decode()

    assert sample(page, "holisticos_requests_total", ['status="200"']) == ["1.0"]
    assert float(sample(page, "holisticos_memory_usage_bytes")[0]) > 1_000_000


class TestChecks:
    async def test_the_environments_checks_are_system_and_traffic(self):
        report = await Monitor(shop(), settings=Settings(service="x")).report()

        assert list(report.services) == ["system", "traffic"]
        assert report.overall_status is Status.HEALTHY

    @pytest.mark.parametrize(
        ("returned", "required", "status"),
        [
            (None, False, Status.HEALTHY),
            (True, True, Status.HEALTHY),
            (False, True, Status.CRITICAL),
            (False, False, Status.DEGRADED),
            (Status.UNHEALTHY, False, Status.UNHEALTHY),
            (CheckResult(Status.DEGRADED, "slow"), True, Status.DEGRADED),
        ],
    )
    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_what_an_own_check_returns(self, returned, required, status, kind):
        monitor = watched()
        if kind == "sync":
            monitor.check("own", required=required)(lambda: returned)
        else:

            @monitor.check("own", required=required)
            async def own():
                return returned

        assert (await monitor.report()).services["own"].status is status

    async def test_a_check_that_raises_is_told_by_its_type_only(self):
        monitor = watched()

        @monitor.check("payments", required=True)
        async def payments():
            raise ConnectionError("postgresql://u:S3cret@host")

        result = (await monitor.report()).services["payments"]
        assert result.status is Status.CRITICAL
        assert "ConnectionError" in result.message
        assert "S3cret" not in result.message

    async def test_a_black_holed_check_cannot_hang_a_report(self):
        monitor = watched()

        @monitor.check("hole", timeout=0.05)
        async def hole():
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            report = await monitor.report()
        assert report.services["hole"].status is Status.DEGRADED
        assert "no answer within" in report.services["hole"].message

    def test_the_decorated_function_stays_callable(self):
        monitor = watched()

        @monitor.check("own")
        def own():
            return True

        assert own() is True

    @pytest.mark.parametrize("name", ["traffic", "own"])
    def test_a_name_that_is_taken_is_an_error(self, name):
        monitor = watched()
        monitor.check("own")(lambda: True)
        with pytest.raises(ConfigurationError, match=name):
            monitor.check(name)(lambda: True)

    async def test_a_report_is_kept_until_a_fresh_one_is_asked_for(self):
        monitor = watched()
        calls = []
        monitor.check("own")(lambda: calls.append(1))
        first = await monitor.report()
        second = await monitor.report()
        await monitor.report(fresh=True)

        assert len(calls) == 2
        assert first.timestamp == second.timestamp


class TestWatching:
    async def test_a_block_watches_without_a_server(self):
        monitor = watched()
        seen = anyio.Event()
        monitor.check("own")(lambda: None)

        @monitor.check("mine")
        async def mine():
            seen.set()

        async with monitor:
            with anyio.fail_after(5):
                await seen.wait()
            assert monitor._parts.watch.running
        assert not monitor._parts.watch.running

    async def test_a_check_added_while_watching_runs_at_once(self):
        monitor = watched()
        async with monitor:
            await monitor.report()
            seen = anyio.Event()

            @monitor.check("late")
            async def late():
                seen.set()

            with anyio.fail_after(5):
                await seen.wait()

    async def test_the_watch_starts_and_ends_with_the_lifespan(self):
        events = []

        async def app(scope, receive, send):
            await receive()
            events.append("app started")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            events.append("app stopped")
            await send({"type": "lifespan.shutdown.complete"})

        monitor = watched(app)
        exchange = Exchange(incoming=[{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        await exchange.run(monitor, {"type": "lifespan", "state": {}})

        assert events == ["app started", "app stopped"]
        assert [message["type"] for message in exchange.sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert not monitor._parts.watch.running

    async def test_the_log_says_at_start_who_may_see_what(self, caplog):
        caplog.set_level(logging.INFO, "holistic_asgi_monitor")
        async with watched():
            await anyio.sleep(0.01)

        assert "MONITOR_TOKEN" in caplog.text

    async def test_alarm_and_all_clear_reach_the_notifier(self):
        memory = notifiers.Memory()
        settings = Settings(
            service="test",
            check_interval_seconds=0.02,
            recheck_seconds=0.01,
            startup_grace_seconds=0,
        )
        monitor = watched(settings=settings, notifiers=[memory])
        broken = True

        @monitor.check("payments", required=True)
        async def payments():
            return not broken

        async with monitor:
            with anyio.fail_after(10):
                while not memory.alerts:
                    await anyio.sleep(0.01)
                broken = False
                while memory.alerts[-1].state.value != "resolved":
                    await anyio.sleep(0.01)

        fired, cleared = memory.alerts[0], memory.alerts[-1]
        assert (fired.key, fired.severity) == ("payments", Severity.CRITICAL)
        assert (cleared.key, cleared.service) == ("payments", "test")
        assert cleared.ended_at is not None
        assert len(memory.alerts) == 2

    async def test_a_message_of_ones_own_is_delivered_once_in_a_cooldown(self):
        memory = notifiers.Memory()
        monitor = watched(notifiers=[memory])
        async with monitor:
            monitor.alert(Severity.INFO, "Deployed", {"version": "2"})
            monitor.alert(Severity.INFO, "Deployed", {"version": "2"})
            with anyio.fail_after(5):
                while not memory.alerts:
                    await anyio.sleep(0.01)

        assert [alert.title for alert in memory.alerts] == ["Deployed"]

    async def test_a_notifier_that_never_returns_delays_no_round(self):
        class Stalled:
            name = "stalled"

            async def send(self, alerts):
                await anyio.sleep_forever()

        settings = Settings(
            service="test",
            check_interval_seconds=0.01,
            recheck_seconds=0.01,
            startup_grace_seconds=0,
        )
        monitor = watched(settings=settings, notifiers=[Stalled()])
        calls = []
        done = anyio.Event()

        @monitor.check("payments", required=True)
        async def payments():
            calls.append(1)
            if len(calls) > 20:
                done.set()
            return False

        async with monitor:
            with anyio.fail_after(5):
                await done.wait()

    @pytest.mark.parametrize("variable", ["required_checks", "ready_checks"])
    async def test_a_check_named_that_does_not_exist_is_one_warning(self, variable, caplog):
        """The watch must go on: own checks may be added at any time."""
        options: dict[str, Any] = {variable: ("databse",)}
        settings = Settings(service="test", **options)
        monitor = watched(settings=settings)
        async with monitor:
            await monitor.report(fresh=True)
            await until(lambda: monitor._parts.watch.running)

        assert "names databse" in caplog.text

    async def test_a_slow_check_does_not_hold_up_the_others(self):
        settings = Settings(service="test", check_interval_seconds=0.02, recheck_seconds=0.01)
        monitor = watched(settings=settings)
        slow_calls, fast_calls = [], []
        done = anyio.Event()

        @monitor.check("slow", timeout=30)
        async def slow():
            slow_calls.append(1)
            if len(slow_calls) == 1:
                return CheckResult(Status.HEALTHY, response_time_ms=5_000)
            await done.wait()
            return None

        @monitor.check("fast")
        async def fast():
            fast_calls.append(len(slow_calls))
            if fast_calls.count(2) > 5:
                done.set()

        async with monitor:
            with anyio.fail_after(5):
                await done.wait()

    async def test_switched_off_nothing_is_watched_in_a_block(self):
        memory = notifiers.Memory()
        settings = Settings(service="test", enabled=False)
        monitor = watched(settings=settings, notifiers=[memory])
        async with monitor:
            await anyio.sleep(0.01)
            assert not monitor._parts.watch.running
            monitor.alert(Severity.INFO, "Never sent")
        assert memory.alerts == []

    async def test_a_failing_step_of_the_watch_does_not_end_it(self, monkeypatch, caplog):
        settings = Settings(service="test", check_interval_seconds=0.01, recheck_seconds=0.01)
        monitor = watched(settings=settings)
        original = type(monitor._parts.runner).round
        rounds = []
        done = anyio.Event()

        async def flaky(self, names=None):
            rounds.append(names)
            if len(rounds) == 1:
                raise RuntimeError
            if len(rounds) > 3:
                done.set()
            return await original(self, names)

        monkeypatch.setattr(type(monitor._parts.runner), "round", flaky)
        async with monitor:
            with anyio.fail_after(5):
                await done.wait()
        assert "goes on" in caplog.text
        assert "RuntimeError" in caplog.text


class TestTracking:
    def families(self, monitor):
        monitor._parts.catalogue.gather()
        return monitor._parts.catalogue

    async def test_the_functions_act_on_the_requests_own_monitor(self):
        async def endpoint(request):
            package.track_feature(request.path_params["item_id"])
            package.track_error("mail", "Timeout")
            return PlainTextResponse("ok")

        monitors = [
            watched(Starlette(routes=[Route("/items/{item_id}", endpoint)])) for _ in range(2)
        ]
        await get(monitors[0], "/items/first")
        await get(monitors[1], "/items/second")

        assert set(self.families(monitors[0]).feature_uses.values) == {("first",)}
        assert set(self.families(monitors[1]).feature_uses.values) == {("second",)}
        assert self.families(monitors[0]).errors.values == {("mail", "Timeout"): 1}

    @pytest.mark.parametrize("fails", [True, False])
    @pytest.mark.parametrize("kind", ["sync", "async"])
    async def test_decorated_functions_are_counted_and_timed(self, fails, kind):
        monitor = watched()

        def work(value):
            if fails:
                raise KeyError(value)
            return value

        async def awaited(value):
            return work(value)

        decorated = monitor.track_endpoint_metrics("work")(work if kind == "sync" else awaited)
        try:
            result = decorated(5)
            assert (await result if kind == "async" else result) == 5
        except KeyError:
            assert fails

        outcome = "error" if fails else "success"
        assert self.families(monitor).calls.values == {("work", outcome): 1}
        assert decorated.__name__ == (work if kind == "sync" else awaited).__name__

    def test_openai_calls_are_counted_with_cost_and_tokens(self):
        monitor = watched()
        monitor.track_openai_call("gpt", cost=0.5, usage={"input": 10, "cached": 4, "output": 3})
        monitor.track_openai_call("gpt")
        monitor.track_openai_call("gpt", "rate_limited")
        families = self.families(monitor)

        assert families.openai_calls.values == {("gpt", "success"): 2, ("gpt", "rate_limited"): 1}
        assert families.openai_cost.values == {("gpt",): 0.5}
        assert families.openai_unpriced.values == {("gpt",): 1}
        assert families.openai_tokens.values == {("gpt", "input"): 10, ("gpt", "output"): 3}
        assert families.openai_cached.values == {("gpt",): 4}

    def test_wrong_arguments_break_nothing(self, caplog):
        monitor = watched()
        monitor.track_request("GET", "/a", "abc", "long")
        monitor.track_openai_call("gpt", ["list"], cost="much")
        monitor.set_user(object())
        monitor.track_error(None, None)

        assert "monitor_faults_total" in caplog.text

    async def test_labels_that_no_page_can_carry_are_made_safe(self):
        monitor = watched()
        monitor.track_request("GET", "/odd\ud800", 200, 0.1)
        monitor.track_request("GET", 5, 200, 0.1)
        page = await get(monitor, "/metrics")

        assert page.status == 200
        assert sample(page.body.decode(), "holisticos_requests_total", ['endpoint="5"', "200"])

    @pytest.mark.parametrize("usage", [{"input": float("nan")}, {"output": "many"}, object(), 7])
    def test_a_call_whose_tokens_cannot_be_read_counts_without_them(self, usage):
        monitor = watched()
        monitor.track_openai_call(cast("Any", None), cost=0.5, usage=usage)

        assert self.families(monitor).openai_calls.values == {("None", "success"): 1}
        assert self.families(monitor).openai_cost.values == {("None",): 0.5}
        assert self.families(monitor).openai_tokens.values == {}

    @pytest.mark.parametrize("name", [None, ""])
    def test_a_feature_without_a_name_is_none(self, name):
        monitor = watched()
        monitor.track_feature(name)

        assert self.families(monitor).feature_uses.values == {}

    def test_unknown_outcomes_of_openai_calls_are_one(self):
        monitor = watched()
        monitor.track_openai_call("gpt", "weird")

        assert set(self.families(monitor).openai_calls.values) == {("gpt", "_OTHER")}

    def test_requests_from_elsewhere_can_be_tracked(self):
        monitor = watched()
        monitor.track_request("GET", "/grpc/{method}", 200, 0.25)

        assert counted(monitor) == {("GET", "/grpc/{method}", "200"): 1}
        assert monitor._parts.catalogue.series.in_progress == 0

    def test_users_are_never_kept_by_name(self):
        monitor = watched()
        for user in ("alice", "bob", "alice", None, ""):
            monitor.set_user(user)
        users = monitor._parts.recorder.ledger.users()

        assert set(map(len, users[""])) == {16}
        assert len(users[""]) == 2
        assert not any(b"alice" in user for user in users[""])


async def test_a_scope_copy_of_another_apps_request_is_counted_by_both():
    """A request that an app makes of another app in process is a request of its own."""
    inner = watched()

    async def outer_app(scope, receive, send):
        await Exchange().run(inner, http_scope("/items/5"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    outer = watched(outer_app)
    await get(outer, "/front")

    assert counted(inner) == {("GET", "/items/{item_id}", "200"): 1}
    assert counted(outer) == {("GET", "/front", "200"): 1}


async def test_tracking_works_before_anything_was_started():
    script = (
        "import asyncio, holistic_asgi_monitor as m\n"
        "async def app(scope, receive, send): m.track_feature('early')\n"
        "monitor = m.Monitor(app, settings=m.Settings(service='x'), checks=[])\n"
        "scope = {'type': 'http', 'method': 'GET', 'path': '/', 'headers': []}\n"
        "asyncio.run(monitor(scope, None, None))\n"
        "print(dict(monitor._parts.catalogue.feature_uses.values))\n"
    )
    result = await anyio.run_process([sys.executable, "-c", script])

    assert result.stdout.decode().strip() == "{('early',): 1.0}"


def test_a_monitor_that_nobody_holds_is_freed():
    parts = [weakref.ref(watched()._parts) for _ in range(3)]
    passed = CollectorRegistry()
    registry = weakref.ref(passed)
    watched(registry=passed)
    del passed
    gc.collect()

    assert [part() for part in parts] == [None, None, None]
    assert registry() is None


async def test_blocks_may_be_nested():
    monitor = watched()
    async with monitor:
        async with monitor:
            await until(lambda: monitor._parts.watch.running)
        assert monitor._parts.watch.running
    assert not monitor._parts.watch.running


async def test_a_new_start_ends_the_draining():
    monitor = watched()
    monitor.drain()
    async with monitor:
        await anyio.sleep(0.01)
        assert (await get(monitor, "/api/health/ready")).status == 200


def test_attach_to_something_else_is_one_clear_error():
    async def app(scope, receive, send):
        raise AssertionError

    with pytest.raises(ConfigurationError, match="app = Monitor"):
        Monitor.attach(cast("Any", app))


async def _named(scope):
    raise AssertionError


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: watched(5), "app is given a int; allowed is an ASGI app"),
        (lambda: watched(settings={"service": "x"}), "settings is given a dict; allowed is Set"),
        (lambda: watched(notifiers=5), "notifiers is given a int; allowed is a list, or None"),
        (lambda: watched(registry="x"), "registry is given a str; allowed is a CollectorRegistry"),
        (lambda: watched(route="x"), "route is given a str; allowed is a plain function"),
        (lambda: watched(route=_named), "route is given a function; allowed is a plain function"),
        (lambda: Monitor.attach(cast("Any", FastAPI)), "not the class FastAPI"),
    ],
)
def test_a_wrong_argument_is_one_clear_error(wrong, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        wrong()


def test_a_decorator_without_a_name_is_one_clear_error():
    with pytest.raises(ConfigurationError, match="without a name; write @track_endpoint_metrics"):
        watched().track_endpoint_metrics(watched)


@pytest.mark.parametrize("thing", [None, 5])
def test_only_what_is_called_can_be_decorated(thing):
    with pytest.raises(ConfigurationError, match="decorates functions, not"):
        watched().track_endpoint_metrics("x")(thing)


def test_generators_cannot_be_decorated():
    def generate():
        yield 1

    with pytest.raises(ConfigurationError, match="generator"):
        watched().track_endpoint_metrics("x")(generate)


def test_an_app_that_shows_nothing_can_be_watched():
    class Proxy:
        async def __call__(self, scope, receive, send):
            raise AssertionError

        def __getattr__(self, name):
            raise RuntimeError("not set up yet")

    assert watched(Proxy()).settings.service == "test"


async def test_a_rebuilt_stack_keeps_one_watch():
    app = fastapi_app()
    monitor = Monitor.attach(app, settings=Settings(service="x"), checks=[])
    lifespan = monitor._way.lifespan
    for _ in range(2):
        app.middleware_stack = None
        await get(app, "/api/items/1")

    assert monitor._way.lifespan is lifespan


async def test_a_held_up_event_loop_degrades_the_system():
    monitor = Monitor(shop(), settings=Settings(service="x"), notifiers=[notifiers.Memory()])
    monitor._parts.lag.note(0.0, 0.75)
    system = (await monitor.report(fresh=True)).services["system"]
    assert system.status is Status.DEGRADED
    assert "held up for 750 ms (threshold 500 ms)" in system.message

    assert (await monitor.report(fresh=True)).services["system"].status is Status.HEALTHY


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda monitor: monitor.check(lambda: None), "without a name"),
        (lambda monitor: monitor.check("own", depends_on=None)(lambda: None), "depends_on=None"),
        (lambda monitor: monitor.check("own")(lambda request: None), "needs arguments"),
        (lambda monitor: watched(checks=checks.System()), "allowed is a list of checks"),
        (lambda monitor: watched(checks=[checks.System]), "The class System was given"),
        (lambda monitor: watched(checks=[checks.System(), checks.System()]), "two checks"),
    ],
)
def test_a_wrong_check_is_an_error_at_once(wrong, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        wrong(watched())


async def test_a_check_with_endless_words_costs_the_report_nothing():
    monitor = watched()
    endless = {"rows": list(range(100_000)), "text": "x" * 1_000_000}
    monitor.check("own")(lambda: CheckResult(Status.DEGRADED, "m" * 1_000_000, endless))
    report = await monitor.report(fresh=True)

    assert len(str(report.as_dict())) < 10_000


def test_a_name_that_nobody_has_is_warned_of(caplog):
    monitor = watched(settings=Settings(service="x", required_checks=("databse",)))
    monitor.check("own", depends_on=["stokc"])(lambda: None)
    monitor._parts.warn_of_unknown_checks()

    assert "MONITOR_REQUIRED_CHECKS names databse, and there is no such check now" in caplog.text
    assert "depends_on names stokc, and there is no such check now" in caplog.text


def test_one_monitor_serves_one_library_after_the_other(tmp_path, caplog):
    """As where one app is tested on asyncio and on trio: what it keeps between them is the same."""
    settings = Settings(service="x", access="open", history_url=f"sqlite:///{tmp_path}/x.sqlite")
    monitor = watched(settings=settings)
    backends: list[Literal["asyncio", "trio"]] = ["asyncio", "trio", "asyncio"]
    for count, backend in enumerate(backends, 1):
        with TestClient(monitor, backend=backend) as client:
            assert client.get("/items/1").status_code == 200
            points = client.get("/api/monitoring/history?metric=requests").json()["points"]
            assert sum(value or 0 for _, value in points) == count
            for path in ("/metrics", "/api/monitoring/stats"):
                assert client.get(path).status_code == 200

    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
