"""The request path: every request is counted once, with its right status, and never changed."""

import asyncio
import inspect
import re
from typing import Any
from weakref import WeakSet

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.tracking import Company, Current
from tests.web.exchanges import (
    Exchange,
    counted,
    error_count,
    errors,
    get,
    http_scope,
    in_progress,
    sample,
    timed,
)

START = {"type": "http.response.start", "status": 200, "headers": []}
LAST = {"type": "http.response.body", "body": b"ok"}
GONE = {"type": "http.disconnect"}


@pytest.fixture(autouse=True, params=["busy for long", "young", "one of several"])
def company(request, monkeypatch):
    """A process whose monitor has nothing to note of a request, or still has, or is not alone."""
    company = Company(early=0, noting=False) if request.param == "busy for long" else Company()
    monkeypatch.setattr(Current, "company", company)
    monkeypatch.setattr(Current, "_living", WeakSet())
    if request.param == "one of several":
        return [watched(saying(START, LAST)) for _ in range(2)]
    return []


def saying(*messages):
    """An app that sends these messages, whatever it is asked."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


def watched(app, **options):
    return Monitor(app, settings=Settings(service="test"), checks=[], **options)


async def item(request):
    return PlainTextResponse(request.path_params["item_id"])


def shop():
    return Starlette(routes=[Route("/items/{item_id}", item, methods=["GET", "DELETE"])])


async def test_two_ids_are_one_series():
    monitor = watched(shop())
    await get(monitor, "/items/1")
    await get(monitor, "/items/2")

    assert counted(monitor) == {("GET", "/items/{item_id}", "200"): 2}
    assert timed(monitor)["GET", "/items/{item_id}"][0] == 2


async def test_a_thousand_unknown_paths_are_one_series():
    monitor = watched(shop())
    for number in range(1_000):
        await get(monitor, f"/nothing/{number}")

    assert counted(monitor) == {("GET", "_unmatched", "404"): 1_000}


async def test_a_thousand_unknown_methods_are_one_series():
    monitor = watched(shop())
    for number in range(1_000):
        await get(monitor, "/items/1", f"FOOBAR{number}")

    assert counted(monitor) == {("_OTHER", "/items/{item_id}", "405"): 1_000}
    assert len(monitor._way.known) == 0


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "status"),
    [
        ("POST", "/items/1", "/items/{item_id}", "405"),
        ("HEAD", "/items/1", "/items/{item_id}", "200"),
        ("GET", "/items/1/", "/items/{item_id}", "307"),
    ],
)
async def test_answers_of_the_framework_itself_have_the_templates_label(
    method, path, endpoint, status
):
    monitor = watched(shop())
    await get(monitor, path, method)

    assert counted(monitor) == {(method, endpoint, status): 1}


@pytest.mark.parametrize(
    "ending",
    [
        [LAST],
        [{"type": "http.response.body", "body": b"a", "more_body": True}, LAST],
        [{"type": "http.response.pathsend", "path": "/tmp/file"}],
        [
            {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
            {"type": "http.response.zerocopysend", "file": 3},
        ],
        [LAST, LAST],
    ],
    ids=["one body", "streamed", "pathsend", "zerocopysend", "too many bodies"],
)
async def test_each_way_of_ending_a_response_counts_once(ending):
    monitor = watched(saying({"type": "http.response.early_hint", "links": []}, START, *ending))
    await get(monitor, "/file")

    assert counted(monitor) == {("GET", "/file", "200"): 1}
    assert timed(monitor)["GET", "/file"][0] == 1
    assert in_progress(monitor) == 0


async def test_a_response_with_trailers_ends_with_them():
    trailers = {"type": "http.response.trailers", "headers": [], "more_trailers": False}
    monitor = watched(saying({**START, "trailers": True}, LAST))
    seen = []

    async def on_send(message):
        seen.append(in_progress(monitor))

    app = saying({**START, "trailers": True}, LAST, trailers)
    monitor = watched(app)
    await Exchange(on_send=on_send).run(monitor, http_scope("/a"))

    assert seen == [1, 1, 0]
    assert counted(monitor) == {("GET", "/a", "200"): 1}


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_content_counts_once(status):
    async def empty(request):
        return Response(status_code=status)

    monitor = watched(Starlette(routes=[Route("/", empty)]))
    await get(monitor)

    assert counted(monitor) == {("GET", "/", str(status)): 1}


async def test_background_work_is_not_in_the_duration_nor_in_progress():
    released = anyio.Event()
    progress = []
    monitor: Any = None

    async def work():
        progress.append((in_progress(monitor), counted(monitor)))
        await anyio.sleep(0.06)
        released.set()

    async def endpoint(request):
        return PlainTextResponse("ok", background=BackgroundTask(work))

    monitor = watched(Starlette(routes=[Route("/", endpoint)]))
    await get(monitor)

    assert released.is_set()
    assert progress == [(0, {("GET", "/", "200"): 1})]
    assert timed(monitor)["GET", "/"][1] < 0.05


async def test_a_stream_is_timed_to_its_last_byte():
    async def chunks():
        for _ in range(3):
            await anyio.sleep(0.02)
            yield b"x"

    async def endpoint(request):
        return StreamingResponse(chunks())

    monitor = watched(Starlette(routes=[Route("/", endpoint)]))
    await get(monitor)

    assert timed(monitor)["GET", "/"][1] >= 0.06
    window = monitor._parts.windows.window(60.0, monitor._parts.started)
    assert window.bounds.count(window.plain) == 0
    assert window.count == 1


class Bug(Exception):
    pass


async def test_an_exception_counts_one_500_and_one_error_and_passes_unchanged():
    bug = Bug("secret text")

    async def endpoint(request):
        raise bug

    monitor = watched(Starlette(routes=[Route("/", endpoint)]))
    exchange = Exchange()
    with pytest.raises(Bug) as caught:
        await exchange.run(monitor, http_scope())

    assert caught.value is bug
    assert exchange.status == 500
    assert counted(monitor) == {("GET", "/", "500"): 1}
    assert errors(monitor) == {("app", "Bug"): 1}
    assert error_count(monitor) == 1
    assert in_progress(monitor) == 0


async def test_an_exception_that_reaches_us_without_a_response_is_a_500():
    async def app(scope, receive, send):
        raise Bug

    monitor = watched(app)
    with pytest.raises(Bug):
        await get(monitor, "/a")

    assert counted(monitor) == {("GET", "_unmatched", "500"): 1}
    assert errors(monitor) == {("app", "Bug"): 1}


@pytest.mark.parametrize("chunks", [0, 1, 2])
async def test_an_exception_after_the_start_keeps_the_status_and_counts_as_error(chunks):
    async def app(scope, receive, send):
        await send(START)
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise Bug

    monitor = watched(app)
    with pytest.raises(Bug):
        await get(monitor, "/a")

    assert counted(monitor) == {("GET", "/a", "200"): 1}
    assert errors(monitor) == {("app", "Bug"): 1}
    assert error_count(monitor) == 1


async def test_an_exception_in_background_work_counts_as_error_once():
    async def work():
        raise Bug

    async def endpoint(request):
        return PlainTextResponse("ok", background=BackgroundTask(work))

    monitor = watched(Starlette(routes=[Route("/", endpoint)]))
    with pytest.raises(Bug):
        await get(monitor)

    assert counted(monitor) == {("GET", "/", "200"): 1}
    assert errors(monitor) == {("app", "Bug"): 1}
    assert error_count(monitor) == 1


async def test_returning_without_a_response_after_the_client_left_is_499():
    async def app(scope, receive, send):
        while (await receive())["type"] != "http.disconnect":
            pass

    monitor = watched(app)
    await Exchange(incoming=[{"type": "http.request"}, GONE]).run(monitor, http_scope("/a"))

    assert counted(monitor) == {("GET", "_unmatched", "499"): 1}
    assert error_count(monitor) == 0


async def test_returning_without_a_response_to_a_waiting_client_is_500():
    """The server answers 500 in the application's place."""
    monitor = watched(saying())
    await get(monitor, "/a")

    assert counted(monitor) == {("GET", "_unmatched", "500"): 1}


async def test_what_is_sent_after_the_client_left_is_499_whatever_it_is():
    """Starlette turns the disconnect into an exception, and that into a 500 that nobody reads."""

    async def endpoint(request):
        await request.body()
        return PlainTextResponse("never")

    monitor = watched(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    with pytest.raises(ClientDisconnect):
        await Exchange(incoming=[GONE]).run(monitor, http_scope(method="POST"))

    assert counted(monitor) == {("POST", "/", "499"): 1}
    assert errors(monitor) == {}
    assert error_count(monitor) == 0


async def test_a_disconnect_seen_after_the_answer_changes_nothing():
    async def app(scope, receive, send):
        await send(START)
        await send(LAST)
        await receive()
        raise Bug

    monitor = watched(app)
    with pytest.raises(Bug):
        await Exchange(incoming=[GONE]).run(monitor, http_scope("/a"))

    assert counted(monitor) == {("GET", "/a", "200"): 1}
    assert errors(monitor) == {("app", "Bug"): 1}


@pytest.mark.parametrize(
    ("failing", "status"),
    [("http.response.start", "499"), ("http.response.body", "200")],
)
async def test_a_send_that_fails_because_the_client_left_is_no_error(failing, status):
    """Without a start the client had no answer; with one its status stays."""

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send(LAST)

    async def on_send(message):
        if message["type"] == failing:
            raise BrokenPipeError

    monitor = watched(app)
    with pytest.raises(BrokenPipeError):
        await Exchange(on_send=on_send).run(monitor, http_scope("/a"))

    assert list(counted(monitor).values()) == [1]
    assert next(iter(counted(monitor)))[2] == status
    assert errors(monitor) == {}
    assert error_count(monitor) == 0
    assert in_progress(monitor) == 0


async def test_a_client_that_leaves_a_stream_of_starlette_is_no_error():
    """From ASGI 2.4 on Starlette raises its own exception from the server's."""

    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            await anyio.lowlevel.checkpoint()
            return b"x"

    async def endpoint(request):
        return StreamingResponse(Endless())

    async def on_send(message):
        if message["type"] == "http.response.body":
            raise OSError

    monitor = watched(Starlette(routes=[Route("/", endpoint)]))
    scope = http_scope(asgi={"version": "3.0", "spec_version": "2.4"})
    with pytest.raises(ClientDisconnect):
        await Exchange(on_send=on_send).run(monitor, scope)

    assert counted(monitor) == {("GET", "/", "200"): 1}
    assert errors(monitor) == {}


async def test_the_applications_own_broken_connection_is_an_error():
    """Only what comes out of the server's send says that the client left."""

    async def app(scope, receive, send):
        await send(START)
        raise ConnectionRefusedError("the database")

    monitor = watched(app)
    with pytest.raises(ConnectionRefusedError):
        await get(monitor, "/a")

    assert errors(monitor) == {("app", "ConnectionRefusedError"): 1}
    assert error_count(monitor) == 1


async def test_the_applications_broken_connection_is_an_error_behind_any_middleware():
    """CORSMiddleware hands on a partial: it is looked through."""

    async def endpoint(request):
        raise ConnectionRefusedError("the database")

    app = Starlette(routes=[Route("/", endpoint)])
    monitor = Monitor.attach(app, settings=Settings(service="x"), checks=[])
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    headers = [(b"host", b"testserver"), (b"origin", b"http://a")]
    with pytest.raises(ConnectionRefusedError):
        await get(app, "/", headers=headers)

    assert counted(monitor) == {("GET", "/", "500"): 1}
    assert errors(monitor) == {("app", "ConnectionRefusedError"): 1}


async def test_a_client_that_leaves_a_task_group_is_no_error():
    async def app(scope, receive, send):
        await send(START)
        async with anyio.create_task_group() as group:
            group.start_soon(send, {"type": "http.response.body", "body": b"", "more_body": True})

    async def on_send(message):
        if message["type"] == "http.response.body":
            raise BrokenPipeError

    monitor = watched(app)
    with pytest.raises(ExceptionGroup):
        await Exchange(on_send=on_send).run(monitor, http_scope("/a"))

    assert errors(monitor) == {}
    assert error_count(monitor) == 0


async def test_an_exception_that_is_its_own_context_is_counted():
    """Python ties such knots where an exception is taken out of a group and raised again."""

    async def app(scope, receive, send):
        bug = Bug()
        group = ExceptionGroup("knot", [bug])
        bug.__context__ = group
        group.__context__ = bug
        raise bug

    monitor = watched(app)
    with pytest.raises(Bug):
        await get(monitor, "/a")

    assert errors(monitor) == {("app", "Bug"): 1}
    assert monitor._parts.catalogue.faults.values == {}


async def test_a_failure_beside_a_cancellation_is_a_failure():
    async def app(scope, receive, send):
        raise BaseExceptionGroup("both", [asyncio.CancelledError(), ValueError()])

    monitor = watched(app)
    with pytest.raises(BaseExceptionGroup):
        await get(monitor, "/a")

    assert counted(monitor) == {("GET", "_unmatched", "500"): 1}


async def test_a_scope_that_the_app_empties_leaves_nothing_in_progress():
    async def app(scope, receive, send):
        scope.clear()
        await send(START)
        await send(LAST)

    monitor = watched(app)
    await get(monitor, "/a")

    assert in_progress(monitor) == 0


async def test_a_scope_without_a_path_is_the_applications_affair():
    monitor = watched(saying(START, LAST))
    scope = http_scope("/a")
    del scope["path"]
    exchange = await Exchange().run(monitor, scope)

    assert len(exchange.sent) == 2


async def test_odd_statuses_are_one_series():
    statuses = iter([1000, 1001, -7])

    async def app(scope, receive, send):
        await send({**START, "status": next(statuses)})
        await send(LAST)

    monitor = watched(app, route=lambda scope: "/odd")
    for _ in range(3):
        await get(monitor, "/a")

    assert counted(monitor) == {("GET", "/odd", "_OTHER"): 3}


async def test_excluded_endpoints_fail_in_silence():
    async def endpoint(request):
        raise Bug

    settings = Settings(service="test", exclude=re.compile("^/internal"))
    app = Starlette(routes=[Route("/internal", endpoint)])
    monitor = Monitor(app, settings=settings, checks=[])
    with pytest.raises(Bug):
        await get(monitor, "/internal")

    assert errors(monitor) == {}


async def test_a_monitor_below_another_still_answers_its_own_paths():
    inner = watched(shop())
    outer = watched(Starlette(routes=[Mount("/shop", inner)]))

    assert (await get(outer, "/shop/api/health/live")).status == 200
    assert (await get(outer, "/shop/items/1")).body == b"1"
    assert counted(inner) == {}


async def test_a_protocol_error_raised_by_send_is_the_applications():
    async def on_send(message):
        raise RuntimeError("Unexpected ASGI message")

    monitor = watched(saying(START, LAST))
    with pytest.raises(RuntimeError):
        await Exchange(on_send=on_send).run(monitor, http_scope("/a"))

    assert errors(monitor) == {("app", "RuntimeError"): 1}


async def test_a_cancelled_request_counts_once_as_499_and_the_cancellation_goes_on():
    entered = anyio.Event()
    cancelled = False

    async def app(scope, receive, send):
        nonlocal cancelled
        entered.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise

    monitor = watched(app)
    async with anyio.create_task_group() as group:
        group.start_soon(get, monitor, "/a")
        await entered.wait()
        assert in_progress(monitor) == 1
        group.cancel_scope.cancel()

    assert cancelled
    assert counted(monitor) == {("GET", "_unmatched", "499"): 1}
    assert in_progress(monitor) == 0
    assert errors(monitor) == {}


async def test_a_cancelled_stream_keeps_its_status():
    entered = anyio.Event()

    async def app(scope, receive, send):
        await send(START)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        entered.set()
        await anyio.sleep_forever()

    monitor = watched(app)
    async with anyio.create_task_group() as group:
        group.start_soon(get, monitor, "/a")
        await entered.wait()
        group.cancel_scope.cancel()

    assert counted(monitor) == {("GET", "/a", "200"): 1}
    assert error_count(monitor) == 0


async def test_ten_thousand_concurrent_requests_leave_nothing_in_progress():
    gate = anyio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await send(START)
        await send(LAST)

    monitor = watched(app)
    async with anyio.create_task_group() as group:
        for _ in range(10_000):
            group.start_soon(get, monitor, "/a")
        while in_progress(monitor) < 10_000:
            await anyio.lowlevel.checkpoint()
        gate.set()

    assert in_progress(monitor) == 0
    assert counted(monitor) == {("GET", "/a", "200"): 10_000}


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"abc")],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1"), (b"content-length", b"2")],
        [(b"host", b"\xff\xfe garbage")],
        [(b"\xff", b"\xff")],
    ],
)
async def test_garbage_in_headers_changes_nothing(headers):
    monitor = watched(saying({**START, "headers": headers}, LAST))
    exchange = await get(monitor, "/a", headers=headers)

    assert exchange.sent == [{**START, "headers": headers}, LAST]
    assert counted(monitor) == {("GET", "/a", "200"): 1}


async def test_a_path_that_cannot_be_encoded_leaves_the_page_readable():
    monitor = watched(saying(START, LAST))
    await get(monitor, "/odd\udcff\x00path")
    page = await get(monitor, "/metrics")

    assert page.status == 200
    assert sample(page.body.decode(), "holisticos_requests_total", ['status="200"']) == ["1.0"]


@pytest.mark.parametrize("status", [0, 99, 1000, -5])
async def test_statuses_that_are_none_have_one_label(status):
    monitor = watched(saying({**START, "status": status}, LAST))
    await get(monitor, "/a")

    assert sum(counted(monitor).values()) == 1
    assert {key[2] for key in counted(monitor)} <= {"_OTHER", "500"}


async def test_messages_and_scope_pass_as_they_are():
    extra = {"type": "http.response.body", "body": b"x", "more_body": False, "odd": object()}
    seen = {}

    async def app(scope, receive, send):
        seen["scope"] = scope
        seen["keys"] = set(scope)
        seen["message"] = await receive()
        await send(START)
        await send(extra)

    body = {"type": "http.request", "body": b"payload", "more_body": False}
    scope = http_scope("/a")
    keys = set(scope)
    exchange = await Exchange(incoming=[body]).run(watched(app), scope)

    assert seen["scope"] is scope
    assert seen["keys"] >= keys
    assert set(scope) == keys
    assert seen["message"] is body
    assert exchange.sent[1] is extra


async def test_send_and_receive_look_like_coroutine_functions():
    """asgiref warns an application that hands on a `send` which does not."""
    seen = []

    async def app(scope, receive, send):
        seen.extend([asyncio.iscoroutinefunction(send), asyncio.iscoroutinefunction(receive)])
        seen.append(inspect.isawaitable(awaitable := send(START)))
        await awaitable
        await send(LAST)

    await get(watched(app), "/a")

    assert seen == [True, True, True]


async def test_the_users_route_names_the_request_and_wins():
    monitor = watched(shop(), route=lambda scope: f"tenant {scope['path'][-1]}")
    await get(monitor, "/items/7")

    assert counted(monitor) == {("GET", "tenant 7", "200"): 1}


async def test_the_user_is_asked_after_the_app_and_only_counted(caplog):
    monitor = watched(shop(), user_id=lambda scope: scope["path_params"]["item_id"])
    for number in (1, 2, 2):
        await get(monitor, f"/items/{number}")
    await get(monitor, "/nothing")

    assert (await monitor._parts.business.audience.now()).users["day"] == 2
    assert sum("user_id" in record.getMessage() for record in caplog.records) == 1


async def test_excluded_endpoints_are_not_counted_but_served():
    settings = Settings(service="test", exclude=re.compile("^/items/"))
    monitor = Monitor(shop(), settings=settings, checks=[])
    exchange = await get(monitor, "/items/1")

    assert exchange.body == b"1"
    assert counted(monitor) == {}
    assert in_progress(monitor) == 0


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/api/health", "/api/health/live"])
async def test_our_own_paths_are_left_out_of_the_request_metrics(path):
    monitor = watched(shop())
    await get(monitor, path)

    assert counted(monitor) == {}
    assert monitor._parts.catalogue.series.started == 0


def nested(kind):
    app = shop()
    if kind == "twice around":
        return [outer := Monitor(Monitor(app))], outer
    if kind == "inside and outside":
        made = []

        def inside(inner):
            made.append(watched(inner))
            return made[-1]

        app.add_middleware(inside)
        outer = watched(app)
        made.append(outer)
        return made, outer
    inner = Monitor.attach(app, settings=Settings(service="test"), checks=[])
    outer = watched(app)
    return [inner, outer], outer


@pytest.mark.parametrize("kind", ["twice around", "inside and outside", "attached and around"])
@pytest.mark.parametrize("requests", [1, 3])
async def test_two_monitors_around_one_app_count_a_request_once(kind, requests):
    monitors, outer = nested(kind)
    for number in range(requests):
        exchange = await get(outer, f"/items/{number}")
        assert exchange.body == str(number).encode()

    total = sum(sum(counted(monitor).values()) for monitor in {id(m): m for m in monitors}.values())
    assert total == requests
    assert counted(outer) == {("GET", "/items/{item_id}", "200"): requests}


async def test_a_scope_that_is_used_twice_counts_twice():
    scope = http_scope("/a")
    monitors = [watched(saying(START, LAST)) for _ in range(2)]
    for _ in range(2):
        await Exchange().run(monitors[0], scope)

    assert counted(monitors[0]) == {("GET", "/a", "200"): 2}


async def test_a_monitor_that_is_made_during_a_request_leaves_no_mark_in_its_scope():
    """It signs the request, which was let in when there was nothing to be signed."""
    made: list[Monitor] = []

    async def app(scope, receive, send):
        if not made:
            made.append(watched(saying(START, LAST)))
        assert "holistic_asgi_monitor" in scope
        await saying(START, LAST)(scope, receive, send)

    scope, monitor = http_scope("/a"), watched(app)
    for count in (1, 2):
        await Exchange().run(monitor, scope)

        assert "holistic_asgi_monitor" not in scope
        assert counted(monitor) == {("GET", "/a", "200"): count}


async def test_a_middleware_that_copies_the_scope_costs_the_label_nothing():
    class Copying:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            await self.app(dict(scope), receive, send)

    monitor = watched(Copying(shop()))
    await get(monitor, "/items/1")

    assert counted(monitor) == {("GET", "/items/{item_id}", "200"): 1}


async def test_a_mounted_monitor_labels_relative_to_its_own_app():
    monitor = watched(shop())
    await get(Starlette(routes=[Mount("/shop", monitor)]), "/shop/items/1")

    assert counted(monitor) == {("GET", "/items/{item_id}", "200"): 1}


PARTS = {
    "faults": ("_parts.catalogue.faults", "inc"),
    "routes": ("_parts.routes", "locate"),
    "series": ("_parts.catalogue.series", "find"),
    "folding": ("_parts.catalogue.series", "fold_in"),
    "errors": ("_parts.paths", "failed"),
}


class Broken(Exception):
    pass


def break_part(monitor, monkeypatch, part):
    path, name = PARTS[part]
    owner = monitor
    for step in path.split("."):
        owner = getattr(owner, step)

    def raising(*arguments, **options):
        raise Broken

    monkeypatch.setattr(type(owner), name, raising)


@pytest.mark.parametrize("part", PARTS)
async def test_a_failure_of_the_monitor_changes_no_response(part, monkeypatch, caplog):
    monitor = watched(shop())
    break_part(monitor, monkeypatch, part)
    for number in range(300):
        exchange = await get(monitor, f"/items/{number}")
        assert (exchange.status, exchange.body) == (200, str(number).encode())

    assert sum("failed while it counted" in r.getMessage() for r in caplog.records) <= 1


@pytest.mark.parametrize("part", PARTS)
async def test_a_failure_of_the_monitor_hides_no_exception(part, monkeypatch):
    async def app(scope, receive, send):
        raise Bug

    monitor = watched(app)
    break_part(monitor, monkeypatch, part)
    for _ in range(300):
        with pytest.raises(Bug):
            await get(monitor, "/a")


async def test_switched_off_it_is_a_pure_pass_through():
    calls = []

    async def app(scope, receive, send):
        calls.append((scope, receive, send))

    monitor = Monitor(app, settings=Settings(service="test", enabled=False))
    exchange = Exchange()
    for scope in (http_scope("/metrics"), {"type": "lifespan"}, {"type": "websocket"}):
        await monitor(scope, exchange.receive, exchange.send)

    assert [call[0]["type"] for call in calls] == ["http", "lifespan", "websocket"]
    assert all(call[1:] == (exchange.receive, exchange.send) for call in calls)
    assert counted(monitor) == {}
