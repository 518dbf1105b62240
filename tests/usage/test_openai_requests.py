"""A call is told which request made it: its monitor, its endpoint, its feature."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextvars import Context, copy_context
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import openai
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute

import holistic_asgi_monitor as package
from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.openai import Hook
from holistic_asgi_monitor.usage.openai_call import Call
from holistic_asgi_monitor.usage.openai_span import Lost, Span
from holistic_asgi_monitor.usage.spending import spent
from holistic_asgi_monitor.usage.tracking import Current
from holistic_asgi_monitor.web.requests import Exchange as Served
from tests.apps.openai_scenarios import async_client_of, chat, client_of, listen, nothing
from tests.servers.openai_stub import OK, OpenAIStub
from tests.web.exchanges import Exchange, get, http_scope

# With and without us: openai leaves its own generators unread, of which trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator .* was garbage:ResourceWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def sync(server: OpenAIStub) -> Iterator[openai.OpenAI]:
    server.reset(OK)
    with client_of(server) as client:
        yield client


@pytest.fixture
async def client(server: OpenAIStub) -> AsyncIterator[openai.AsyncOpenAI]:
    server.reset(OK)
    async with async_client_of(server) as made:
        yield made


@pytest.fixture(autouse=True)
def _company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has asked yet whose request he is in."""
    company = Current.company
    for flag, value in {
        "several": False,
        "asked": False,
        "early": 2,
        "missed": False,
        "named": False,
        "noting": True,
    }.items():
        monkeypatch.setattr(company, flag, value)


def watched(app: Any, *, track: bool = True, **options: Any) -> tuple[Monitor, list[Call]]:
    settings = Settings(service="test", history_url="off", track_openai=track)
    monitor = Monitor(app, settings=settings, checks=[], **options)
    return monitor, listen(monitor._parts.tracker)


def places(calls: list[Call]) -> list[tuple[str, str]]:
    return [(call.endpoint, call.feature) for call in calls]


@pytest.fixture
def shop(client: openai.AsyncOpenAI, sync: openai.OpenAI) -> Starlette:
    """An app that calls from everywhere."""

    async def direct(request: Any) -> PlainTextResponse:
        await chat()(client)
        return PlainTextResponse("ok")

    def threaded(request: Any) -> PlainTextResponse:
        chat()(sync)
        return PlainTextResponse("ok")

    async def child(request: Any) -> PlainTextResponse:
        async with anyio.create_task_group() as group:
            group.start_soon(chat(), client)
        return PlainTextResponse("ok")

    async def named(request: Any) -> PlainTextResponse:
        package.track_feature("search")
        await chat()(client)
        await run_in_threadpool(chat(), sync)
        return PlainTextResponse("ok")

    async def streamed(request: Any) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            async for part in await chat(stream=True)(client):
                yield part.choices[0].delta.content or ""

        return StreamingResponse(parts())

    async def later(request: Any) -> PlainTextResponse:
        async def ask() -> None:
            await chat()(client)

        return PlainTextResponse("ok", background=BackgroundTask(ask))

    async def socket(websocket: Any) -> None:
        await websocket.accept()
        await chat()(client)
        await websocket.close()

    return Starlette(
        routes=[
            Route("/direct/{item_id:int}", direct),
            Route("/threaded/{item_id}", threaded),
            Route("/child/{item_id}", child),
            Route("/named/{item_id}", named),
            Route("/streamed/{item_id}", streamed),
            Route("/later/{item_id}", later),
            Mount("/sub", routes=[Route("/direct/{item_id}", direct)]),
            WebSocketRoute("/chat/{room}", socket),
        ]
    )


CASES = {
    "/direct/5": [("/direct/{item_id}", "")],
    "/threaded/5": [("/threaded/{item_id}", "")],
    "/child/5": [("/child/{item_id}", "")],
    "/named/5": [("/named/{item_id}", "search")] * 2,
    "/streamed/5": [("/streamed/{item_id}", "")],
    "/later/5": [("/later/{item_id}", "")],
    "/sub/direct/5": [("/sub/direct/{item_id}", "")],
}


@pytest.mark.parametrize("path", CASES)
async def test_a_call_has_the_endpoint_of_its_request(shop: Starlette, path: str) -> None:
    monitor, calls = watched(shop)
    # The first call of the process makes requests carry themselves from then on.
    await get(monitor, "/direct/1")
    calls.clear()
    await get(monitor, path)

    assert places(calls) == CASES[path]
    assert not monitor._parts.catalogue.faults.values


@pytest.mark.parametrize("path", ["/direct/5", "/named/5", "/sub/direct/5"])
async def test_the_very_first_call_finds_its_request_on_the_stack(
    shop: Starlette, path: str
) -> None:
    monitor, calls = watched(shop)
    for flag, value in {"asked": False, "early": 0, "noting": False}.items():
        setattr(Current.company, flag, value)
    await get(monitor, path)

    assert places(calls)[0] == CASES[path][0]


@pytest.mark.parametrize("path", ["/direct/5", "/threaded/5", "/named/5", "/streamed/5"])
async def test_behind_a_middleware_with_a_task_of_its_own_it_is_the_same(
    shop: Starlette, path: str
) -> None:
    class Aside(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    shop.user_middleware.append(Middleware(Aside))
    monitor, calls = watched(shop)
    await get(monitor, "/direct/1")
    calls.clear()
    await get(monitor, path)

    assert places(calls) == CASES[path]


async def test_a_websocket_has_its_endpoint(shop: Starlette) -> None:
    monitor, calls = watched(shop)
    scope = {**http_scope("/chat/blue"), "type": "websocket", "subprotocols": []}
    scope.pop("method")
    await Exchange(incoming=[{"type": "websocket.connect"}]).run(monitor, scope)

    assert places(calls) == [("/chat/{room}", "")]


async def test_outside_of_requests_there_is_no_endpoint(
    shop: Starlette, client: openai.AsyncOpenAI, sync: openai.OpenAI
) -> None:
    monitor, calls = watched(shop)
    Current.started(monitor._parts.tracker)
    await get(monitor, "/named/1")
    calls.clear()
    await chat()(client)
    thread = threading.Thread(target=chat(), args=[sync])
    thread.start()
    await anyio.to_thread.run_sync(thread.join)

    assert places(calls) == [("", "")] * 2


async def test_of_several_monitors_the_requests_own_counts_what_runs_in_a_context_of_its_own(
    shop: Starlette,
) -> None:
    async def alone(request: Any) -> PlainTextResponse:
        Context().run(package.track_openai_call, "claude", cost=0.25)
        return PlainTextResponse("ok")

    shop.router.routes.append(Route("/alone/{item_id}", alone))
    monitor, calls = watched(shop)
    other, of_other = watched(shop)
    Current.started(other._parts.tracker)
    await get(monitor, "/alone/1")

    assert places(calls) == [("/alone/{item_id}", "")]
    assert of_other == []


async def test_a_request_underway_is_found_where_a_later_monitor_asks_for_users() -> None:
    found: list[Any] = []

    async def build(request: Any) -> PlainTextResponse:
        Monitor(nothing, settings=settings, checks=[], user_id=lambda scope: None)
        found.append(Current.underway())
        return PlainTextResponse("ok")

    settings = Settings(service="later", history_url="off", track_openai=False)
    monitor, _ = watched(Starlette(routes=[Route("/build", build)]), track=False)
    for flag, value in {"asked": False, "early": 0, "noting": False}.items():
        setattr(Current.company, flag, value)
    await get(monitor, "/build")

    assert [request.path for request in found] == ["/build"]


async def test_a_feature_ends_with_its_request(shop: Starlette) -> None:
    monitor, calls = watched(shop)
    await get(monitor, "/named/1")
    calls.clear()
    await get(monitor, "/direct/1")

    assert places(calls) == [("/direct/{item_id}", "")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_outlives_its_request_keeps_its_endpoint(
    shop: Starlette, client: openai.AsyncOpenAI
) -> None:
    tasks = []

    async def begin(request: Any) -> PlainTextResponse:
        tasks.append(asyncio.create_task(chat()(client)))
        return PlainTextResponse("ok")

    shop.router.routes.append(Route("/begin/{item_id}", begin))
    monitor, calls = watched(shop)
    await get(monitor, "/direct/1")
    calls.clear()
    await get(monitor, "/begin/1")
    await asyncio.gather(*tasks)

    assert places(calls) == [("/begin/{item_id}", "")]


async def test_each_monitor_is_told_of_its_own_requests(shop: Starlette) -> None:
    first, of_first = watched(shop)
    second, of_second = watched(shop)
    for _ in range(2):
        await get(first, "/direct/1")
    await get(second, "/threaded/1")

    assert places(of_first) == [("/direct/{item_id}", "")] * 2
    assert places(of_second) == [("/threaded/{item_id}", "")]


async def test_a_monitor_in_a_monitor_counts_a_call_once(shop: Starlette) -> None:
    inner, of_inner = watched(shop)
    outer, of_outer = watched(inner)
    await get(outer, "/direct/1")

    assert (len(of_inner), len(of_outer)) == (0, 1)


async def test_calls_that_the_app_reports_itself_are_placed_alike() -> None:
    async def ask(request: Any) -> PlainTextResponse:
        package.track_openai_call("claude", cost=0.25, usage={"input": 5})
        return PlainTextResponse("ok")

    monitor, calls = watched(Starlette(routes=[Route("/ask/{item_id}", ask)]))
    await get(monitor, "/ask/5")

    (call,) = calls
    assert (call.model, str(call.cost), call.seconds) == ("claude", "0.25", None)
    assert places(calls) == [("/ask/{item_id}", "")]


async def test_a_call_that_waits_to_be_counted_keeps_no_request(shop: Starlette) -> None:
    monitor, calls = watched(shop)
    await get(monitor, "/direct/5")
    waiting: Any = monitor._parts.tracker.tally._waiting[0]
    held = {type(each) for each in gc.get_referents(waiting.__self__)}

    assert places(calls) == [("/direct/{item_id}", "")]
    assert isinstance(waiting.__self__, Span)
    assert held.isdisjoint({Served, dict})


async def test_the_name_that_the_user_gives_a_route_is_its_endpoint(shop: Starlette) -> None:
    monitor, calls = watched(shop, route=lambda scope: "/all")
    await get(monitor, "/direct/1")

    assert places(calls) == [("/all", "")]


async def test_after_the_first_ones_requests_carry_nothing_until_somebody_asks() -> None:
    seen: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        seen.append(Current.request.get())
        await PlainTextResponse("ok")(scope, receive, send)

    monitor, _ = watched(look, track=False)
    for _ in range(4):
        await get(monitor, "/")
    Current.underway()
    await get(monitor, "/")
    assert Current.request.get() is None

    assert [each is None for each in seen] == [False, False, True, True, False]
    assert seen[-1].paths.tracker is monitor._parts.tracker


async def test_where_openai_is_imported_they_carry_themselves_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        seen.append(Current.request.get())
        await PlainTextResponse("ok")(scope, receive, send)

    monkeypatch.setattr(Current.company, "early", 0)
    monkeypatch.setattr(Hook, "_attached", False)
    monitor, _ = watched(look)
    await get(monitor, "/")

    assert seen != [None]


async def test_who_asks_early_is_heard_for_good() -> None:
    seen = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        await run_in_threadpool(lambda: seen.append(Current.underway()))
        await PlainTextResponse("ok")(scope, receive, send)

    monitor, _ = watched(look, track=False)
    for _ in range(4):
        await get(monitor, "/")

    assert None not in seen
    assert len(set(map(id, seen))) == 4


async def test_a_request_that_goes_on_in_another_context_is_served_all_the_same() -> None:
    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await Pause()
        await PlainTextResponse("ok")(scope, receive, send)

    monitor, _ = watched(slow)
    exchange = Exchange()
    serving: Any = monitor(http_scope("/"), exchange.receive, exchange.send)
    copy_context().run(serving.send, None)
    with pytest.raises(StopIteration):
        copy_context().run(serving.send, None)

    assert exchange.status == 200


async def test_what_was_left_is_counted_before_history_is_closed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'history.sqlite'}"
    settings = Settings(service="test", history_url=url)
    monitor = Monitor(PlainTextResponse("ok"), settings=settings, checks=[])
    recorder = monitor._parts.recorder
    async with monitor:
        while not monitor._parts.watch.running:
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()
        Lost.note(lambda: monitor.track_openai_call("gpt", cost=0.25))
    assert len(recorder.ledger) == 0
    minute = int(recorder.now // 60) * 60
    found = await spent(recorder.read, minute - 3600, minute + 60, grain=60)

    assert [figures.calls for figures in found.values()] == [1]


async def test_a_request_among_the_first_ends_after_the_last_of_them() -> None:
    """It was carried, and must not be any longer where it was served."""
    came, go = anyio.Event(), anyio.Event()

    async def look(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            came.set()
            await go.wait()
        await PlainTextResponse("ok")(scope, receive, send)

    monitor, _ = watched(look, track=False)

    async def slow() -> None:
        await get(monitor, "/slow")
        assert Current.request.get() is None

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await came.wait()
        for _ in range(3):
            await get(monitor, "/")
        go.set()


async def test_a_feature_named_in_another_thread_of_the_request_is_its_feature(
    sync: openai.OpenAI,
) -> None:
    """As in a dependency, and then in what the endpoint leaves to a background task."""

    def name(request: Any) -> PlainTextResponse:
        package.track_feature("chat")
        return PlainTextResponse("ok", background=BackgroundTask(chat(), sync))

    monitor, calls = watched(Starlette(routes=[Route("/{item_id}", name)]))
    await get(monitor, "/1")

    assert places(calls) == [("/{item_id}", "chat")]
