"""Labels of FastAPI apps, whose scope shows the route without the prefixes of its routers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from holistic_asgi_monitor.web.routes.starlette import Tree
from tests.web.visits import Copying, Refusing, Visitor, ok


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


def items() -> APIRouter:
    router = APIRouter(prefix="/items")

    @router.get("")
    async def every() -> list[int]:
        return [1]

    @router.get("/{item_id}")
    async def one(item_id: int) -> int:
        if item_id == 0:
            raise HTTPException(404)
        return item_id

    @router.get("/at/{z:path}")
    async def at(z: str) -> str:
        return z

    @router.websocket("/live/{item_id}")
    async def live(websocket: WebSocket, item_id: int) -> None:
        await websocket.accept()
        await websocket.close()

    # FastAPI gives neither of these its router's own prefix.
    router.add_route("/plain/{id}", page)
    router.mount("/mounted", Starlette(routes=[Route("/leaf/{id}", page)]))
    return router


def shop(folder: Path, *, items_twice: bool = False, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    nested = APIRouter(prefix="/r1")

    @nested.get("/x/{xid}")
    async def x(xid: str) -> str:
        return xid

    outer = APIRouter(prefix="/o/{outer}")
    outer.include_router(nested, prefix="/n")

    @app.get("/own/{own_id}")
    async def own(own_id: int) -> int:
        return own_id

    app.include_router(items(), prefix="/api/{tenant}")
    app.include_router(outer)
    router = items()
    app.include_router(router, prefix="/v1")
    if items_twice:
        app.include_router(router, prefix="/v2")
    sub = FastAPI()
    sub.include_router(items(), prefix="/s")
    app.mount("/sub/{s}", sub)
    app.mount("/static", StaticFiles(directory=folder))
    app.mount("/raw", ok)
    app.add_route("/plain/{id}", page)
    return app


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "style.css").write_text("body {}")
    return tmp_path


CASES = [
    ("GET", "/own/1", 200, "/own/{own_id}"),
    ("GET", "/own/x", 422, "/own/{own_id}"),
    ("POST", "/own/1", 405, "/own/{own_id}"),
    ("HEAD", "/own/1", 405, "/own/{own_id}"),
    ("GET", "/own/1/", 307, "/own/{own_id}"),
    ("GET", "/docs", 200, "/docs"),
    ("GET", "/openapi.json", 200, "/openapi.json"),
    ("GET", "/plain/1", 200, "/plain/{id}"),
    ("GET", "/nowhere", 404, None),
    ("GET", "/api/acme/items", 200, "/api/{tenant}/items"),
    ("GET", "/api/acme/items/5", 200, "/api/{tenant}/items/{item_id}"),
    ("GET", "/api/beta/items/5", 200, "/api/{tenant}/items/{item_id}"),
    ("GET", "/api/acme/items/x", 422, "/api/{tenant}/items/{item_id}"),
    ("GET", "/api/acme/items/0", 404, "/api/{tenant}/items/{item_id}"),
    ("PUT", "/api/acme/items/5", 405, "/api/{tenant}/items/{item_id}"),
    ("GET", "/api/acme/items/5/", 307, "/api/{tenant}/items/{item_id}"),
    ("GET", "/api/acme/items/at/a/b", 200, "/api/{tenant}/items/at/{z}"),
    ("GET", "/api/acme/plain/5", 200, "/api/{tenant}/plain/{id}"),
    ("GET", "/api/acme/nope", 404, None),
    ("GET", "/v1/items/5", 200, "/v1/items/{item_id}"),
    ("PUT", "/v1/items/5", 405, "/v1/items/{item_id}"),
    ("GET", "/o/7/n/r1/x/5", 200, "/o/{outer}/n/r1/x/{xid}"),
    ("GET", "/api/acme/mounted/leaf/5", 200, "/api/{tenant}/mounted/leaf/{id}"),
    ("GET", "/api/acme/mounted/nope", 404, None),
    ("GET", "/sub/a/s/items/5", 200, "/sub/{s}/s/items/{item_id}"),
    ("GET", "/sub/b/s/items/5", 200, "/sub/{s}/s/items/{item_id}"),
    ("PUT", "/sub/b/s/items/5", 405, "/sub/{s}/s/items/{item_id}"),
    ("GET", "/sub/b/s/items/5/", 307, "/sub/{s}/s/items/{item_id}"),
    ("GET", "/sub/a/docs", 200, "/sub/{s}/docs"),
    ("GET", "/sub/a/nope", 404, None),
    ("GET", "/static/style.css", 200, "/static/{path}"),
    ("GET", "/static/none.css", 404, "/static/{path}"),
    ("GET", "/raw/any/thing", 200, "/raw/{path}"),
]
TWICE = [
    *CASES,
    ("GET", "/v2/items/5", 200, "/v2/items/{item_id}"),
    ("GET", "/v2/items/0", 404, "/v2/items/{item_id}"),
    ("PUT", "/v2/items/5", 405, "/v2/items/{item_id}"),
    ("GET", "/v2/plain/5", 200, "/v2/plain/{id}"),
    ("GET", "/v2/nope", 404, None),
]


@pytest.mark.parametrize(("method", "path", "status", "endpoint"), TWICE)
async def test_the_label_has_every_prefix(
    folder: Path, method: str, path: str, status: int, endpoint: str | None
) -> None:
    found = await Visitor(shop(folder, items_twice=True))(path, method)
    assert (found.status, found.endpoint) == (status, endpoint)


@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_a_copied_scope_costs_no_label(
    folder: Path, method: str, path: str, status: int, endpoint: str | None
) -> None:
    found = await Visitor(Copying(shop(folder)))(path, method)
    assert (found.status, found.endpoint) == (status, endpoint)


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/own/1", "/own/{own_id}"),
        ("/v1/items/5", "/v1/items/{item_id}"),
        ("/v2/items/5", "/v2/items/{item_id}"),
        ("/docs", "/docs"),
        ("/sub/a/docs", "/sub/{s}/docs"),
        ("/static/style.css", "/static/{path}"),
        ("/nowhere", None),
    ],
)
@pytest.mark.parametrize("mounted", [False, True])
async def test_what_the_scope_tells_is_not_looked_for(
    folder: Path,
    mounted: bool,
    path: str,
    endpoint: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app: ASGIApp = shop(folder, items_twice=True)
    if mounted:
        app = Starlette(routes=[Mount("/", app)])
        # No router marks that it found nothing below a mount.
        endpoint = endpoint or "looked for"
    monkeypatch.setattr(Tree, "template", lambda *_: "looked for")
    assert await Visitor(app).endpoint(path) == endpoint


@pytest.mark.parametrize(
    ("path", "cacheable"),
    [
        ("/own/1", True),
        ("/api/acme/items/5", True),
        ("/o/7/n/r1/x/5", True),
        ("/api/acme/mounted/leaf/5", True),
        ("/sub/a/s/items/5", True),
        ("/v1/items/5", False),
        ("/v2/items/5", False),
        ("/docs", False),
        ("/plain/1", False),
        ("/static/style.css", False),
        ("/nowhere", False),
    ],
)
async def test_only_a_route_included_once_decides_its_label(
    folder: Path, path: str, cacheable: bool
) -> None:
    found = await Visitor(shop(folder, items_twice=True))(path)
    assert found.cacheable is cacheable


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/api/acme/items/live/1", "/api/{tenant}/items/live/{item_id}"),
        ("/v1/items/live/1", "/v1/items/live/{item_id}"),
        ("/v2/items/live/1", "/v2/items/live/{item_id}"),
        ("/sub/a/s/items/live/1", "/sub/{s}/s/items/live/{item_id}"),
    ],
)
async def test_a_websocket_has_the_template_too(folder: Path, path: str, endpoint: str) -> None:
    for app in (shop(folder, items_twice=True), Copying(shop(folder, items_twice=True))):
        found = await Visitor(app).websocket(path)
        assert (found.status, found.endpoint) == (101, endpoint)


async def test_an_app_mounted_twice_has_two_labels_for_each_route() -> None:
    sub = FastAPI()
    sub.include_router(items(), prefix="/one")
    sub.include_router(items(), prefix="/two")
    app = FastAPI()
    app.mount("/a", sub)
    app.mount("/{b}", sub)
    for visit in (Visitor(app), Visitor(Copying(app))):
        found = [await visit(path) for path in ("/a/one/items/1", "/x/two/items/1", "/y/docs")]
        labels = ["/a/one/items/{item_id}", "/{b}/two/items/{item_id}", "/{b}/docs"]
        assert [one.endpoint for one in found] == labels
        assert not any(one.cacheable for one in found)


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("own", ["", "/proxy"], ids=["the server's", "FastAPI's own"])
@pytest.mark.parametrize("prefix", ["/proxy", ""])
@pytest.mark.parametrize("copied", [False, True])
async def test_a_root_path_changes_no_label(
    folder: Path, copied: bool, prefix: str, own: str
) -> None:
    app: ASGIApp = shop(folder, root_path=own)
    visit = Visitor(Copying(app) if copied else app)
    servers = "" if own else "/proxy"
    for path, endpoint in [
        ("/own/1", "/own/{own_id}"),
        ("/v1/items/5", "/v1/items/{item_id}"),
        ("/v1/items/5/", "/v1/items/{item_id}"),
        ("/docs", "/docs"),
        ("/nowhere", None),
    ]:
        assert await visit.endpoint(prefix + path, root_path=servers) == endpoint


async def test_what_a_middleware_answers_is_labelled_by_its_path(folder: Path) -> None:
    app = shop(folder)
    app.add_middleware(Refusing)
    visit = Visitor(app)
    found = await visit("/api/acme/items/5")
    assert (found.status, found.endpoint) == (401, "/api/{tenant}/items/{item_id}")
    assert await visit.endpoint("/nowhere") is None


async def test_a_preflight_request_is_labelled_by_its_path(folder: Path) -> None:
    app = shop(folder)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])
    headers = ((b"origin", b"http://shop.test"), (b"access-control-request-method", b"GET"))
    found = await Visitor(app)("/api/acme/items/5", "OPTIONS", headers=headers)
    assert (found.status, found.endpoint) == (200, "/api/{tenant}/items/{item_id}")


async def test_hosts_in_an_included_router_have_its_prefix() -> None:
    router = APIRouter()
    router.routes.append(Host("api.test", Router([Route("/x/{y}", page)])))
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    for visit in (Visitor(app), Visitor(Copying(app))):
        assert await visit.endpoint("/v1/x/1", host="api.test") == "/v1/x/{y}"
        assert await visit.endpoint("/v1/x/1", host="other.test") is None


async def test_an_app_below_a_plain_mount_keeps_its_labels(folder: Path) -> None:
    visit = Visitor(Starlette(routes=[Mount("/{shop}", shop(folder))]))
    paths = ("/a/v1/items/1", "/a/docs", "/a/sub/b/docs", "/a/nope")
    assert [await visit.endpoint(path) for path in paths] == [
        "/{shop}/v1/items/{item_id}",
        "/{shop}/docs",
        "/{shop}/sub/{s}/docs",
        None,
    ]


async def test_a_static_frontend_has_one_label_and_yields_to_routes(folder: Path) -> None:
    (folder / "index.html").write_text("<p>hello")
    router = APIRouter(prefix="/in")
    router.frontend("/side", directory=folder)
    sub = FastAPI()
    sub.frontend("/", directory=folder)
    app = FastAPI()
    app.include_router(router, prefix="/r")
    app.mount("/sub/{x}", sub)
    app.frontend("/", directory=folder)

    @app.get("/api/{x}")
    async def api(x: int) -> int:
        return x

    for visit in (Visitor(app), Visitor(Copying(app))):
        for path, endpoint in [
            ("/style.css", "/{path}"),
            ("/any/thing", "/{path}"),
            ("/api/1", "/api/{x}"),
            ("/api/1/", "/api/{x}"),
            ("/r/in/side/style.css", "/r/in/side/{path}"),
            ("/sub/1/style.css", "/sub/{x}/{path}"),
            ("/sub/1/docs", "/sub/{x}/docs"),
        ]:
            assert await visit.endpoint(path) == endpoint


class Anything(BaseRoute):
    """A route of a kind of its own, which leaves no mark in the scope."""

    path = "/any/{thing}"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if scope["path"].startswith("/any") else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await ok(scope, receive, send)


async def test_a_route_that_leaves_no_mark_is_found_by_path(folder: Path) -> None:
    app = shop(folder)
    app.router.routes.append(Anything())
    visit = Visitor(app)
    assert await visit.endpoint("/any/1") == "/any/{thing}"
    assert await visit.endpoint("/nowhere") is None


async def test_a_router_that_grows_is_read_again() -> None:
    router = APIRouter()
    app = FastAPI()
    app.include_router(router, prefix="/v1")
    visit = Visitor(app)
    assert await visit.endpoint("/v1/late/1") is None
    assert not visit.routes.refresh()

    @router.get("/late/{x}")
    async def late(x: int) -> int:
        return x

    assert visit.routes.refresh()
    assert not visit.routes.refresh()
    found = await visit("/v1/late/1")
    assert (found.endpoint, found.cacheable) == ("/v1/late/{x}", True)
    app.include_router(router, prefix="/v2")
    assert visit.routes.refresh()
    found = await visit("/v1/late/1")
    assert (found.endpoint, found.cacheable) == ("/v1/late/{x}", False)
