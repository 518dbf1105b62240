"""Labels of Litestar apps, which leave the full template in the scope most of the time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from litestar import Controller, Litestar, Router, WebSocket, asgi, get, post, websocket
from litestar.config.cors import CORSConfig
from litestar.exceptions import NotFoundException
from litestar.static_files import create_static_files_router
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from tests.web.visits import Copying, Visitor, ok


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


@get("/", sync_to_thread=False)
def front() -> str:
    return "the front"


@get("/items/{item_id:int}", sync_to_thread=False)
def item() -> str:
    return "an item"


@get("/items/special", sync_to_thread=False)
def special() -> str:
    return "one of them"


@get("/files/{rest:path}", sync_to_thread=False)
def file() -> str:
    return "a file"


@get("/missing/{x:str}", sync_to_thread=False)
def missing() -> str:
    raise NotFoundException


@get("/{any_one:str}/end", sync_to_thread=False)
def ending() -> str:
    return "the end"


@get("/pairs/{one:str}/{other:str}", sync_to_thread=False)
def pair() -> str:
    return "a pair"


@get("/pairs/{one:str}/same", sync_to_thread=False)
def same() -> str:
    return "a pair of one"


@websocket("/chat/{room:str}")
async def chat(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.close()


class Orders(Controller):
    path = "/orders"

    @get("/{order_id:uuid}", sync_to_thread=False)
    def one(self) -> str:
        return "an order"

    @post("/{order_id:uuid}/cancel", sync_to_thread=False)
    def cancel(self) -> None:
        return None


@asgi("/raw", is_mount=True, copy_scope=True)
async def raw(scope: Any, receive: Any, send: Any) -> None:
    await ok(scope, receive, send)


@asgi("/exact", copy_scope=True)
async def exact(scope: Any, receive: Any, send: Any) -> None:
    await ok(scope, receive, send)


def shop(folder: Path, *, root: bool = False) -> Any:
    inner = Starlette(routes=[Route("/leaf/{id}", page), Mount("/raw", ok)])

    @asgi("/inner", is_mount=True, copy_scope=False)
    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    @asgi("/", is_mount=True, copy_scope=True)
    async def rest(scope: Any, receive: Any, send: Any) -> None:
        await ok(scope, receive, send)

    static = create_static_files_router(path="/static", directories=[folder])
    return Litestar(
        [
            front,
            item,
            special,
            file,
            missing,
            ending,
            pair,
            same,
            chat,
            Router("/api/{tenant:str}", route_handlers=[Orders, item]),
            raw,
            exact,
            mounted,
            static,
            *([rest] if root else []),
        ],
        cors_config=CORSConfig(allow_origins=["http://shop.test"]),
        openapi_config=None,
        logging_config=None,  # Else each of them has a thread that never ends.
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "style.css").write_text("body {}")
    return tmp_path


UUID = "550e8400-e29b-41d4-a716-446655440000"
CASES = [
    ("GET", "/", 200, "/"),
    ("GET", "/items/1", 200, "/items/{item_id}"),
    ("GET", "/items/2", 200, "/items/{item_id}"),
    ("GET", "/items/1/", 200, "/items/{item_id}"),
    ("GET", "//items//1", 200, "/items/{item_id}"),
    ("GET", "/items/special", 200, "/items/special"),
    ("POST", "/items/1", 405, "/items/{item_id}"),
    ("HEAD", "/items/1", 405, "/items/{item_id}"),
    ("OPTIONS", "/items/1", 204, "/items/{item_id}"),
    ("GET", "/files/a/b.txt", 200, "/files/{rest}"),
    ("GET", "/missing/1", 404, "/missing/{x}"),
    ("GET", "/pairs/a/b", 200, "/pairs/{one}/{other}"),
    ("GET", "/pairs/a/same", 200, "/pairs/{one}/same"),
    ("GET", "/x/end", 200, "/{any_one}/end"),
    ("GET", f"/api/acme/orders/{UUID}", 200, "/api/{tenant}/orders/{order_id}"),
    ("POST", f"/api/acme/orders/{UUID}/cancel", 201, "/api/{tenant}/orders/{order_id}/cancel"),
    ("GET", f"/api/acme/orders/{UUID}/cancel", 405, "/api/{tenant}/orders/{order_id}/cancel"),
    ("GET", "/api/acme/items/1", 200, "/api/{tenant}/items/{item_id}"),
    ("GET", "/raw", 200, "/raw/{path}"),
    ("GET", "/raw/any/thing", 200, "/raw/{path}"),
    ("GET", "/exact", 200, "/exact"),
    ("GET", "/static/style.css", 200, "/static/{file_path}"),
    ("GET", "/static/none.css", 404, "/static/{file_path}"),
    ("GET", "/nowhere", 404, None),
    ("GET", "/api/acme/nope", 404, None),
]


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_the_label_is_the_full_template(
    folder: Path, method: str, path: str, status: int, endpoint: str | None, root_path: str
) -> None:
    visit = Visitor(shop(folder))
    for _ in range(2):
        found = await visit(root_path + path, method, root_path=root_path)
        assert (found.status, found.endpoint) == (status, endpoint)
        assert not found.cacheable


@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_a_copied_scope_costs_no_label(
    folder: Path, method: str, path: str, status: int, endpoint: str | None
) -> None:
    found = await Visitor(Copying(shop(folder)))(path, method)
    assert (found.status, found.endpoint) == (status, endpoint)


async def test_a_parameter_of_the_wrong_type_is_no_route(folder: Path) -> None:
    found = await Visitor(shop(folder))("/items/x")
    assert (found.status, found.endpoint) == (404, None)


async def test_a_websocket_has_the_template_too(folder: Path) -> None:
    for app in (shop(folder), Copying(shop(folder))):
        found = await Visitor(app).websocket("/chat/lobby")
        assert (found.status, found.endpoint) == (101, "/chat/{room}")


async def test_a_preflight_request_is_labelled_by_its_path(folder: Path) -> None:
    headers = ((b"origin", b"http://shop.test"), (b"access-control-request-method", b"GET"))
    found = await Visitor(shop(folder))("/items/1", "OPTIONS", headers=headers)
    assert (found.status, found.endpoint) == (204, "/items/{item_id}")


async def test_a_mount_at_the_root_takes_what_is_left(folder: Path) -> None:
    visit = Visitor(shop(folder, root=True))
    # Litestar prefers such a mount to everything but paths without parameters.
    asked = ["/items/special", "/exact", "/items/1", "/what/ever"]
    labels = ["/items/special", "/exact", "/{path}", "/{path}"]
    assert [await visit.endpoint(path) for path in asked] == labels


async def test_below_a_starlette_mount_the_prefix_is_kept(folder: Path) -> None:
    app = Starlette(routes=[Mount("/m/{x}", shop(folder))])
    visit = Visitor(app)
    asked = ["/m/1/items/1", "/m/1/raw/thing", "/m/1/nope", "/m/1/items/1"]
    labels = ["/m/{x}/items/{item_id}", "/m/{x}/raw/{path}", None, "/m/{x}/items/{item_id}"]
    assert [await visit.endpoint(path) for path in asked] == labels
    assert await visit.endpoint("/m/1/items/1", "POST") == "/m/{x}/items/{item_id}"


async def test_an_app_that_is_the_handler_shows_its_routes_below_the_mount() -> None:
    inner = Starlette(routes=[Route("/leaf/{id}", page)])
    handler = asgi("/inner", is_mount=True, copy_scope=False)(inner)
    app: Any = Litestar([handler, front], openapi_config=None, logging_config=None)
    visit = Visitor(app)
    assert await visit.endpoint("/inner/leaf/1") == "/inner/leaf/{id}"
    assert await visit.endpoint("/inner/nope") is None
    assert await visit.endpoint("/") == "/"


async def test_a_route_registered_later_is_found(folder: Path) -> None:
    app = shop(folder)
    visit = Visitor(Copying(app))
    assert await visit.endpoint("/late/1") is None
    assert not visit.routes.refresh()

    @get("/late/{x:int}", sync_to_thread=False)
    def late() -> str:
        return "late"

    app.register(late)
    assert visit.routes.refresh()
    assert not visit.routes.refresh()
    assert await visit.endpoint("/late/1") == "/late/{x}"
