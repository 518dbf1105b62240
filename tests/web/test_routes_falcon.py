"""Labels of Falcon apps: its router, its sinks and its static routes are asked by path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from falcon.asgi import App, Request, Response, WebSocket

from holistic_asgi_monitor.web.routes import Routes
from tests.web.visits import Copying, Visitor, http_scope, status_of

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Item:
    async def on_get(self, req: Request, resp: Response, **values: Any) -> None:
        resp.text = "an item"

    async def on_websocket(self, req: Request, ws: WebSocket, **values: Any) -> None:
        await ws.accept()


async def sink(req: Request, resp: Response | None, **values: Any) -> None:
    assert resp is not None
    resp.text = "down the sink"


def shop(folder: Path) -> Any:
    app: Any = App()
    app.add_route("/", Item())
    app.add_route("/items/{item_id:int}", Item())
    app.add_route('/at/{when:dt("%Y-%m-%d")}', Item())
    app.add_route("/files/{rest:path}", Item())
    app.add_static_route("/static", str(folder))
    app.add_sink(sink, "/sink")
    app.add_sink(sink, re.compile(r"/old-(?P<shop>\d+)/"))
    return app


CASES = [
    ("GET", "/", 200, "/"),
    ("GET", "/items/1", 200, "/items/{item_id}"),
    ("GET", "/items/2", 200, "/items/{item_id}"),
    ("POST", "/items/1", 405, "/items/{item_id}"),
    ("HEAD", "/items/1", 405, "/items/{item_id}"),
    ("OPTIONS", "/items/1", 200, "/items/{item_id}"),
    ("GET", "/items/x", 404, None),
    ("GET", "/items/1/", 404, None),
    ("GET", "/at/2024-01-31", 200, "/at/{when}"),
    ("GET", "/files/a/b", 200, "/files/{rest}"),
    ("GET", "/static/style.css", 200, "/static/{path}"),
    ("GET", "/static/none.css", 404, "/static/{path}"),
    ("GET", "/sink/any/thing", 200, "/sink/{path}"),
    ("GET", "/old-7/thing", 200, "/old-{shop}/{path}"),
    ("GET", "/nowhere", 404, None),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "style.css").write_text("body {}")
    return tmp_path


@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_the_label_is_the_template_without_its_converters(
    folder: Path, method: str, path: str, status: int, endpoint: str | None
) -> None:
    visit = Visitor(Copying(shop(folder)))
    for _ in range(2):
        found = await visit(path, method)
        assert (found.status, found.endpoint) == (status, endpoint)
        assert not found.cacheable


async def test_a_websocket_has_the_template_too(folder: Path) -> None:
    found = await Visitor(shop(folder)).websocket("/items/1")
    assert (found.status, found.endpoint) == (101, "/items/{item_id}")


async def test_through_a_bound_method_the_router_is_found(folder: Path) -> None:
    routes = Routes(shop(folder).__call__)
    scope = http_scope("/items/1")
    assert await status_of(shop(folder), scope) == 200
    assert routes.locate(scope, "/items/1", "", 200).endpoint == "/items/{item_id}"
