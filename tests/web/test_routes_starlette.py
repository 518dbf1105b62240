"""Labels of Starlette apps: whatever the scope says, it is the full template, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from holistic_asgi_monitor.web.routes import Routes
from holistic_asgi_monitor.web.routes.family import Arrival
from holistic_asgi_monitor.web.routes.starlette import Tree
from holistic_asgi_monitor.web.routes.tree import Level
from tests.web.visits import Copying, Refusing, Visitor, answer, http_scope, ok, status_of

PREFLIGHT = ((b"origin", b"http://shop.test"), (b"access-control-request-method", b"GET"))


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


async def missing(request: Request) -> Response:
    raise HTTPException(404)


async def broken(request: Request) -> NoReturn:
    raise RuntimeError


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def refusing_chat(websocket: WebSocket) -> None:
    await websocket.close()


class Thing(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("a thing")


def things() -> Starlette:
    return Starlette(
        routes=[
            Route("/", page),
            Route("/things/{id:int}", page),
            Route("/missing/{id}", missing),
            WebSocketRoute("/chat/{room}", chat),
        ]
    )


def shop(folder: Path) -> Starlette:
    return Starlette(
        routes=[
            Route("/", page),
            Route("/items/{id:int}", page, methods=["GET"]),
            Route("/items/{id:int}", page, methods=["PUT"]),
            Route("/files/{name:path}", page),
            Route("/broken", broken),
            Route("/missing/{id}", missing),
            Route("/class/{id}", Thing),
            Route("/slash/{id}/", page),
            WebSocketRoute("/chat/{room}", chat),
            WebSocketRoute("/refused/{room}", refusing_chat),
            Mount("/sub", things()),
            Mount("/deep", routes=[Mount("/er", routes=[Route("/{x}", page)])]),
            Mount("/t/{tenant}", things()),
            Mount("/static", StaticFiles(directory=folder)),
            Mount("/raw", ok),
        ]
    )


@pytest.fixture
def visit(tmp_path: Path) -> Visitor:
    (tmp_path / "style.css").write_text("body {}")
    return Visitor(shop(tmp_path))


@pytest.mark.parametrize(
    ("method", "path", "status", "endpoint"),
    [
        ("GET", "/", 200, "/"),
        ("GET", "/items/42", 200, "/items/{id}"),
        ("GET", "/items/43", 200, "/items/{id}"),
        ("PUT", "/items/42", 200, "/items/{id}"),
        ("HEAD", "/items/42", 200, "/items/{id}"),
        ("POST", "/items/42", 405, "/items/{id}"),
        ("OPTIONS", "/items/42", 405, "/items/{id}"),
        ("WEIRD", "/items/42", 405, "/items/{id}"),
        ("GET", "/items/x", 404, None),
        ("GET", "/files/a/b/c.txt", 200, "/files/{name}"),
        ("GET", "/broken", 500, "/broken"),
        ("GET", "/missing/7", 404, "/missing/{id}"),
        ("GET", "/class/7", 200, "/class/{id}"),
        ("POST", "/class/7", 405, "/class/{id}"),
        ("GET", "/nowhere", 404, None),
        ("GET", "/items/42/", 307, "/items/{id}"),
        ("GET", "/slash/42", 307, "/slash/{id}/"),
        ("GET", "/sub/things/7", 200, "/sub/things/{id}"),
        ("POST", "/sub/things/7", 405, "/sub/things/{id}"),
        ("GET", "/sub/things/7/", 307, "/sub/things/{id}"),
        ("GET", "/sub/", 200, "/sub/"),
        ("GET", "/sub", 307, "/sub/"),
        ("GET", "/sub/missing/7", 404, "/sub/missing/{id}"),
        ("GET", "/sub/nope", 404, None),
        ("GET", "/deep/er/7", 200, "/deep/er/{x}"),
        ("GET", "/deep/er/7/8", 404, None),
        ("GET", "/deep/nope", 404, None),
        ("GET", "/t/acme/things/1", 200, "/t/{tenant}/things/{id}"),
        ("GET", "/t/beta/things/1", 200, "/t/{tenant}/things/{id}"),
        ("GET", "/t/beta/nope", 404, None),
        ("GET", "/static/style.css", 200, "/static/{path}"),
        ("GET", "/static/no/such.css", 404, "/static/{path}"),
        ("GET", "/raw/any/thing", 200, "/raw/{path}"),
    ],
)
async def test_the_label_is_the_full_template(
    visit: Visitor, method: str, path: str, status: int, endpoint: str | None
) -> None:
    found = await visit(path, method)
    assert (found.status, found.endpoint) == (status, endpoint)


@pytest.mark.parametrize(
    ("path", "cacheable"),
    [
        ("/items/42", True),
        ("/sub/things/7", True),
        ("/t/acme/things/7", True),
        ("/static/style.css", False),
        ("/raw/thing", False),
        ("/sub/nope", False),
        ("/nowhere", False),
    ],
)
async def test_only_a_route_that_stands_once_decides_its_label(
    visit: Visitor, path: str, cacheable: bool
) -> None:
    assert (await visit(path)).cacheable is cacheable


@pytest.mark.parametrize(
    ("path", "status", "endpoint"),
    [
        ("/chat/lobby", 101, "/chat/{room}"),
        ("/refused/lobby", 403, "/refused/{room}"),
        ("/sub/chat/lobby", 101, "/sub/chat/{room}"),
        ("/t/acme/chat/lobby", 101, "/t/{tenant}/chat/{room}"),
        ("/raw/chat", 101, "/raw/{path}"),
        ("/items/42", 403, None),
        ("/nowhere", 403, None),
    ],
)
async def test_a_websocket_has_the_template_too(
    visit: Visitor, path: str, status: int, endpoint: str | None
) -> None:
    found = await visit.websocket(path)
    assert (found.status, found.endpoint) == (status, endpoint)


async def test_unknown_paths_have_no_label_however_many_there_are(visit: Visitor) -> None:
    paths = [f"{prefix}/x{number}" for number in range(100) for prefix in ("", "/sub", "/t/acme")]
    assert {await visit.endpoint(path) for path in paths} == {None}


async def test_what_the_router_did_not_find_is_not_looked_for_again(
    visit: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[Arrival] = []
    monkeypatch.setattr(Tree, "template", lambda _, arrival: looked_for.append(arrival))
    for path in ("/nowhere", "/items/x", "/t"):
        await visit(path)
    assert not looked_for
    await visit("/sub/nope")
    assert len(looked_for) == 1


async def test_of_an_app_mounted_twice_only_its_own_places_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sub = things()
    visit = Visitor(Starlette(routes=[Mount("/a", sub), Mount("/{b}", sub)]))
    assert await visit.endpoint("/a/things/1") == "/a/things/{id}"
    monkeypatch.setattr(Level, "find", lambda *_: pytest.fail("looked at every route"))
    assert await visit.endpoint("/c/things/1") == "/{b}/things/{id}"


async def test_an_app_mounted_twice_has_two_labels_that_no_route_decides() -> None:
    sub = things()
    visit = Visitor(Starlette(routes=[Mount("/a", sub), Mount("/{b}", sub)]))
    found = [await visit(path) for path in ("/a/things/1", "/x/things/1", "/y/things/1", "/a/none")]
    assert [one.endpoint for one in found] == ["/a/things/{id}", *["/{b}/things/{id}"] * 2, None]
    assert not any(one.cacheable for one in found)


async def test_the_first_of_two_mounts_that_fit_takes_all() -> None:
    sub = things()
    visit = Visitor(Starlette(routes=[Mount("/{b}", sub), Mount("/a", sub)]))
    assert await visit.endpoint("/a/things/1") == "/{b}/things/{id}"


async def test_a_route_object_that_stands_twice_decides_nothing() -> None:
    route = Route("/x/{y}", page)
    visit = Visitor(Starlette(routes=[Mount("/m", routes=[route]), route]))
    found = [await visit("/x/1"), await visit("/m/x/1")]
    assert [(one.endpoint, one.cacheable) for one in found] == [
        ("/x/{y}", False),
        ("/m/x/{y}", False),
    ]


async def test_one_function_on_two_routes_has_two_labels(visit: Visitor) -> None:
    visit = Visitor(Starlette(routes=[Route("/one/{x}", page), Route("/two/{x}", page)]))
    assert [await visit.endpoint(path) for path in ("/one/1", "/two/1")] == ["/one/{x}", "/two/{x}"]


@pytest.mark.parametrize("root_path", ["/proxy", "/proxy/"])
@pytest.mark.parametrize("prefix", ["/proxy", ""])
async def test_a_root_path_changes_no_label(visit: Visitor, prefix: str, root_path: str) -> None:
    more = {"root_path": root_path.rstrip("/") if prefix else root_path}
    assert await visit.endpoint(prefix + "/items/42", **more) == "/items/{id}"
    assert await visit.endpoint(prefix + "/nowhere", **more) is None
    assert await visit.endpoint(prefix + "/items/42/", **more) == "/items/{id}"


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/proxy/sub/things/1", "/sub/things/{id}"),
        ("/proxy/t/acme/things/1", "/t/{tenant}/things/{id}"),
        ("/proxy/static/style.css", "/static/{path}"),
        ("/proxy/sub/nope", None),
    ],
)
async def test_a_root_path_changes_no_label_below_a_mount(
    visit: Visitor, path: str, endpoint: str | None
) -> None:
    assert await visit.endpoint(path, root_path="/proxy") == endpoint


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("GET", "/items/42", "/items/{id}"),
        ("PUT", "/items/42", "/items/{id}"),
        ("POST", "/items/42", "/items/{id}"),
        ("GET", "/t/acme/things/7", "/t/{tenant}/things/{id}"),
        ("GET", "/items/42/", "/items/{id}"),
        ("GET", "/static/style.css", "/static/{path}"),
        ("GET", "/nowhere", None),
        ("GET", "/sub/nope", None),
    ],
)
async def test_a_middleware_that_copies_the_scope_costs_no_label(
    tmp_path: Path, method: str, path: str, endpoint: str | None, copies: int
) -> None:
    (tmp_path / "style.css").write_text("body {}")
    app: ASGIApp = shop(tmp_path)
    for _ in range(copies):
        app = Copying(app)
    visit = Visitor(app)
    # The second answer comes from memory.
    assert [await visit.endpoint(path, method) for _ in range(2)] == [endpoint, endpoint]


@pytest.mark.parametrize("status", [401, 404, 503])
@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/items/42", "/items/{id}"), ("/sub/things/1", "/sub/things/{id}"), ("/nowhere", None)],
)
async def test_what_a_middleware_answers_is_labelled_by_its_path(
    tmp_path: Path, path: str, endpoint: str | None, status: int
) -> None:
    app = shop(tmp_path)
    app.add_middleware(Refusing, status=status)
    found = await Visitor(app)(path)
    assert (found.status, found.endpoint) == (status, endpoint)


async def test_a_preflight_request_is_labelled_by_its_path(tmp_path: Path) -> None:
    app = shop(tmp_path)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    found = await Visitor(app)("/items/42", "OPTIONS", headers=PREFLIGHT)
    assert (found.status, found.endpoint) == (200, "/items/{id}")


async def test_middlewares_that_share_the_scope_leave_the_route_to_decide(tmp_path: Path) -> None:
    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    app = shop(tmp_path)
    app.add_middleware(GZipMiddleware)
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    assert (await Visitor(app)("/t/acme/things/7")).cacheable


async def test_by_path_alone_the_method_decides_as_it_does_for_the_router() -> None:
    visit = Visitor(
        Copying(
            Starlette(
                routes=[
                    Route("/x/{get}", page, methods=["GET"]),
                    Route("/x/{put}", page, methods=["PUT"]),
                ]
            )
        )
    )
    asked = ["GET", "PUT", "POST", "GET"]
    labels = ["/x/{get}", "/x/{put}", "/x/{get}", "/x/{get}"]
    assert [await visit.endpoint("/x/1", method) for method in asked] == labels


async def test_what_is_remembered_of_a_path_holds_for_answers_of_one_kind() -> None:
    routes = Routes(Copying(things()))
    http, websocket = http_scope("/chat/1"), http_scope("/chat/1") | {"type": "websocket"}
    assert routes.locate(http, "/chat/1", "", 404).endpoint is None
    assert routes.locate(websocket, "/chat/1", "", 101).endpoint == "/chat/{room}"
    slash = http_scope("/things/1/")
    assert routes.locate(slash, "/things/1/", "", 404).endpoint is None
    assert routes.locate(slash, "/things/1/", "", 307).endpoint == "/things/{id}"


async def test_a_rewritten_path_is_labelled_with_where_it_led(tmp_path: Path) -> None:
    class Localised:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["path"] = scope["path"].removeprefix("/en")
            await self.app(scope, receive, send)

    visit = Visitor(Localised(shop(tmp_path)))
    paths = ("/en/items/1", "/en/items/1/", "/en/static/a.css", "/en/nowhere")
    labels = ["/items/{id}", "/items/{id}", "/static/{path}", None]
    assert [await visit.endpoint(path) for path in paths] == labels


class Inner:
    """Asks about the app it wraps, from where a middleware of the app stands."""

    def __init__(self, app: ASGIApp, found: list[str | None]) -> None:
        self.app = app
        self.found = found
        self.routes = Routes(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, root_path = scope["path"], scope["root_path"]
        await self.app(scope, receive, send)
        self.found.append(self.routes.locate(scope, path, root_path, 200).endpoint)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [("/items/42", "/items/{id}"), ("/t/acme/things/7", "/t/{tenant}/things/{id}")],
)
async def test_inside_the_app_the_label_is_the_same(
    tmp_path: Path, path: str, endpoint: str
) -> None:
    found: list[str | None] = []
    app = shop(tmp_path)
    app.add_middleware(Inner, found=found)
    assert await Visitor(app).endpoint(path) == endpoint
    assert found == [endpoint]


async def test_around_a_mounted_app_the_label_begins_at_the_mount(tmp_path: Path) -> None:
    found: list[str | None] = []
    inner = Inner(things(), found)
    app = Starlette(routes=[Mount("/m/{x}", inner), Mount("/n", inner)])
    outer = Visitor(app)
    for path in ("/m/1/things/7", "/n/things/7", "/n/nope"):
        await outer.endpoint(path)
    assert found == ["/things/{id}", "/things/{id}", None]


async def test_hosts_have_routes_of_their_own() -> None:
    app = Starlette(
        routes=[
            Host("api.{domain}", Router([Route("/v/{x}", page), Mount("/raw", ok)])),
            Host("www.test", ok),
            Route("/{slug}", page),
        ]
    )
    visit = Visitor(app)
    asked = [
        ("api.test:80", "/v/1", "/v/{x}"),
        ("api.test", "/raw/1", "/raw/{path}"),
        ("api.test", "/nope", None),
        ("www.test", "/any/thing", "/{path}"),
        ("other.test", "/v", "/{slug}"),
        ("other.test", "/v/1", None),
    ]
    for host, path, endpoint in asked:
        assert await visit.endpoint(path, host=host) == endpoint, (host, path)
    visit = Visitor(Copying(app))
    for host, path, endpoint in asked:
        assert await visit.endpoint(path, host=host) == endpoint, (host, path)


async def test_a_mount_at_the_root_adds_nothing_to_the_label() -> None:
    visit = Visitor(Starlette(routes=[Route("/first", page), Mount("/", things())]))
    paths = ("/first", "/things/7", "/", "/nope")
    assert [await visit.endpoint(path) for path in paths] == ["/first", "/things/{id}", "/", None]


async def test_a_mount_shows_its_routes_through_middlewares() -> None:
    wrapped = Copying(CORSMiddleware(things()))
    visit = Visitor(Starlette(routes=[Mount("/m", wrapped, middleware=[Middleware(Copying)])]))
    assert await visit.endpoint("/m/things/7") == "/m/things/{id}"
    assert await visit.endpoint("/m/nope") is None


async def test_a_router_mounted_in_itself_ends_somewhere() -> None:
    router = Router([Route("/x", page)])
    router.mount("/again", router)
    visit = Visitor(router)
    assert await visit.endpoint("/x") == "/x"
    assert await visit.endpoint("/again/nope") == "/again/{path}"


async def test_a_router_hidden_in_a_function_is_found_in_the_scope() -> None:
    app, admin = things(), Starlette(routes=[Route("/admin/{id}", page)])

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/own"):
            await ok(scope, receive, send)
        else:
            await (admin if scope["path"].startswith("/admin") else app)(scope, receive, send)

    visit = Visitor(choose)
    found = [await visit(path) for path in ("/things/7", "/admin/7", "/admin/7/8", "/own/7")]
    assert [one.endpoint for one in found] == ["/things/{id}", "/admin/{id}", None, "/own/{id}"]


async def test_a_second_app_beside_the_one_that_shows_is_found_too() -> None:
    class Both:
        def __init__(self) -> None:
            self.app = things()
            self.admin = Starlette(routes=[Mount("/admin", routes=[Route("/{id}", page)])])

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            chosen = self.admin if scope["path"].startswith("/admin") else self.app
            await chosen(scope, receive, send)

    visit = Visitor(Both())
    paths = ("/things/7", "/admin/7", "/things/7")
    assert [await visit.endpoint(path) for path in paths] == [
        "/things/{id}",
        "/admin/{id}",
        "/things/{id}",
    ]
    assert visit.routes.refresh()
    assert not visit.routes.refresh()


async def test_a_route_that_stands_in_two_hidden_apps_stops_deciding() -> None:
    route = Route("/x", page)
    one, two = Starlette(routes=[route]), Starlette(routes=[Mount("/m", routes=[route])])

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        await (two if scope["path"].startswith("/m") else one)(scope, receive, send)

    visit = Visitor(choose)
    assert (await visit("/x")).cacheable
    assert (await visit("/m/x")).located == visit.routes.locate(http_scope("/m/x"), "/m/x", "", 200)
    assert visit.routes.refresh()
    assert not (await visit("/x")).cacheable


@pytest.mark.parametrize("inside", [False, True], ids=["the app", "a mounted app"])
async def test_a_route_added_later_is_found_at_once(inside: bool) -> None:
    sub = Starlette(routes=[Route("/x", page)])
    app = Starlette(routes=[Mount("/m", sub)])
    visit = Visitor(app)
    assert await visit.endpoint("/m/x") == "/m/x"
    (sub if inside else app).router.add_route("/late/{id}", page)
    found = await visit("/m/late/1" if inside else "/late/1")
    assert found.endpoint == ("/m/late/{id}" if inside else "/late/{id}")
    assert found.cacheable


async def test_refresh_tells_whether_the_routes_have_changed(tmp_path: Path) -> None:
    app = shop(tmp_path)
    visit = Visitor(app)
    assert not visit.routes.refresh()
    await visit("/items/42")
    assert not visit.routes.refresh()
    app.router.add_route("/late/{id}", page)
    assert visit.routes.refresh()
    assert not visit.routes.refresh()
    app.router.routes = [route for route in app.routes if not isinstance(route, Mount)]
    assert visit.routes.refresh()
    assert not visit.routes.refresh()


async def test_refresh_tells_of_a_change_that_a_request_found_first(tmp_path: Path) -> None:
    app = shop(tmp_path)
    visit = Visitor(app)
    await visit("/items/42")
    app.router.add_route("/late/{id}", page)
    await visit("/late/1")
    assert visit.routes.refresh()
    assert not visit.routes.refresh()


async def test_a_route_that_is_mounted_a_second_time_stops_deciding() -> None:
    sub = things()
    app = Starlette(routes=[Mount("/a", sub)])
    visit = Visitor(app)
    assert (await visit("/a/things/1")).cacheable
    app.mount("/b", sub)
    assert visit.routes.refresh()
    found = await visit("/a/things/1")
    assert (found.endpoint, found.cacheable) == ("/a/things/{id}", False)


async def test_what_was_remembered_of_a_path_is_forgotten_with_its_route() -> None:
    app = Starlette(routes=[Route("/{any}", page)])
    visit = Visitor(Copying(app))
    assert await visit.endpoint("/x") == "/{any}"
    app.router.routes.insert(0, Route("/x", page))
    assert visit.routes.refresh()
    assert not visit.routes._answers
    assert await visit.endpoint("/x") == "/x"


async def test_memory_does_not_grow_with_the_paths() -> None:
    visit = Visitor(Copying(things()))
    for number in range(3000):
        visit.routes.locate(http_scope(f"/things/{number}"), f"/things/{number}", "", 200)
    assert len(visit.routes._answers) <= 1024
    long = "/things/" + "7" * 10_000
    visit.routes._answers.clear()
    assert visit.routes.locate(http_scope(long), long, "", 200).endpoint == "/things/{id}"
    assert not visit.routes._answers


class ByHeader(Route):
    """A route that looks at more than the path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if (b"x-version", b"2") not in scope["headers"]:
            return Match.NONE, {}
        return super().matches(scope)


async def test_a_route_with_a_mind_of_its_own_is_asked() -> None:
    app = Starlette(routes=[ByHeader("/items/{new}", page), Route("/items/{old}", page)])
    new: dict[str, Any] = {"headers": [(b"x-version", b"2")]}
    for visit in (Visitor(app), Visitor(Copying(app))):
        assert await visit.endpoint("/items/1") == "/items/{old}"
        assert await visit.endpoint("/items/1", **new) == "/items/{new}"
        assert await visit.endpoint("/items/1") == "/items/{old}"
        assert await visit.endpoint("/items/items/1", root_path="/items", **new) == "/items/{new}"


class Everything(BaseRoute):
    """A route of a kind that no framework has."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(200, scope, receive, send)


async def test_a_route_of_an_unknown_kind_is_labelled_with_its_path() -> None:
    app = Starlette(routes=[Route("/items/{id}", page), Everything(path="/any/{thing:odd}")])
    for visit in (Visitor(app), Visitor(Copying(app))):
        assert await visit.endpoint("/items/1") == "/items/{id}"
        assert await visit.endpoint("/what/ever") == "/any/{thing}"


class Rotten(Everything):
    """A route that cannot be looked at, but answers."""

    def __getattribute__(self, name: str) -> Any:
        if name in {"matches", "handle", "__class__", "__dict__"}:
            return super().__getattribute__(name)
        raise RuntimeError(name)


async def test_a_route_that_cannot_be_read_costs_only_its_own_label(
    caplog: pytest.LogCaptureFixture,
) -> None:
    visit = Visitor(Starlette(routes=[Route("/items/{id}", page), Rotten()]))
    for _ in range(3):
        assert await visit.endpoint("/items/1") == "/items/{id}"
        assert await visit.endpoint("/what/ever") is None
        visit.routes.refresh()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "RuntimeError at " in caplog.text


class Handler:
    """An endpoint of a size of its own, so that one takes the place of another in memory."""

    __slots__ = tuple(f"field_{number}" for number in range(50))


class Fleeting(Route):
    """A route whose endpoint is a new object whenever one looks."""

    @property
    def endpoint(self) -> Any:
        return Handler()

    @endpoint.setter
    def endpoint(self, value: object) -> None:
        pass


async def test_what_is_gone_is_not_mistaken_for_what_comes() -> None:
    routes = Routes(Starlette(routes=[Fleeting("/fleeting", page)]))
    routes.refresh()
    for stranger in [Handler() for _ in range(100)]:
        scope = http_scope("/nowhere") | {"endpoint": stranger}
        assert routes.locate(scope, "/nowhere", "", 200).endpoint is None


@pytest.mark.parametrize("wrap", [lambda app: app, Copying], ids=["seen", "copied"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_a_label_never_holds_what_a_page_cannot(
    wrap: Callable[[ASGIApp], ASGIApp], method: str
) -> None:
    rough = "/a\nb\ud800/{x}" + "/long" * 100
    visit = Visitor(wrap(Starlette(routes=[Route(rough, page)])))
    endpoint = await visit.endpoint(rough.replace("{x}", "1"), method)
    assert endpoint is not None
    assert endpoint.startswith("/a\ufffdb\ufffd/{x}/long")
    assert len(endpoint) == 200
    assert endpoint.isprintable()
    endpoint.encode()


async def test_a_lone_surrogate_in_a_path_is_nothing_special(visit: Visitor) -> None:
    assert await visit.endpoint("/t/\ud800/things/1") == "/t/{tenant}/things/{id}"
    assert await visit.endpoint("/\ud800") is None
    assert await status_of(visit.app, http_scope("/\ud800")) == 404
