"""Labels of Quart apps, and of Flask apps behind a bridge: the rules are asked by path."""

from __future__ import annotations

from typing import Any

import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from quart import Blueprint, Quart, websocket
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from holistic_asgi_monitor.web.routes import Routes
from tests.web.visits import Copying, Visitor, http_scope, status_of

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def shop(**options: Any) -> Any:
    app = Quart("shop", static_folder=None, **options)
    blueprint = Blueprint("things", "things", url_prefix="/b/<tenant>")

    async def page(**values: str) -> str:
        return "a page"

    async def chat(**values: str) -> None:
        await websocket.accept()

    app.add_url_rule("/", "front", page)
    app.add_url_rule("/items/<int:item_id>", "item", page)
    app.add_url_rule("/items/<int:item_id>", "change", page, methods=["PUT"])
    app.add_url_rule("/files/<path:rest>", "file", page)
    app.add_url_rule("/lang/<string(length=2):lang>", "lang", page)
    app.add_url_rule("/any/<any(a, b):which>", "any", page)
    app.add_url_rule("/slash/<x>/", "slash", page)
    app.add_websocket("/chat/<room>", "chat", chat)
    blueprint.add_url_rule("/things/<thing>", "thing", page)
    app.register_blueprint(blueprint)
    return app


CASES = [
    ("GET", "/", 200, "/"),
    ("GET", "/items/1", 200, "/items/{item_id}"),
    ("GET", "/items/2", 200, "/items/{item_id}"),
    ("HEAD", "/items/1", 200, "/items/{item_id}"),
    ("OPTIONS", "/items/1", 200, "/items/{item_id}"),
    ("PUT", "/items/1", 200, "/items/{item_id}"),
    ("POST", "/items/1", 405, "/items/{item_id}"),
    ("GET", "/items/x", 404, None),
    ("GET", "/files/a/b/c", 200, "/files/{rest}"),
    ("GET", "/lang/en", 200, "/lang/{lang}"),
    ("GET", "/any/a", 200, "/any/{which}"),
    ("GET", "/slash/1", 308, "/slash/{x}/"),
    ("POST", "/slash/1", 404, None),
    ("GET", "/b/acme/things/1", 200, "/b/{tenant}/things/{thing}"),
    ("GET", "/b/acme/nope", 404, None),
    ("GET", "/nowhere", 404, None),
]


@pytest.mark.parametrize("root_path", ["", "/proxy"])
@pytest.mark.parametrize(("method", "path", "status", "endpoint"), CASES)
async def test_the_label_is_the_rule_without_its_converters(
    method: str, path: str, status: int, endpoint: str | None, root_path: str
) -> None:
    visit = Visitor(shop())
    for _ in range(2):
        found = await visit(root_path + path, method, root_path=root_path)
        assert (found.status, found.endpoint) == (status, endpoint)
        assert not found.cacheable


async def test_a_websocket_has_the_rule_too() -> None:
    visit = Visitor(shop())
    found = await visit.websocket("/chat/lobby")
    assert (found.status, found.endpoint) == (101, "/chat/{room}")
    assert (await visit.websocket("/items/1")).endpoint is None
    assert (await visit("/chat/lobby")).endpoint is None


class Between:
    """Stands where Quart's documentation has a middleware stand: in the place of `asgi_app`."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.routes = Routes(app)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def test_in_the_place_of_asgi_app_the_rules_are_found_through_the_method() -> None:
    app = shop()
    between = Between(app.asgi_app)
    app.asgi_app = between
    scope = http_scope("/items/1")
    assert await status_of(app, scope) == 200
    assert between.routes.locate(scope, "/items/1", "", 200).endpoint == "/items/{item_id}"


async def test_rules_bound_to_hosts_are_asked_with_the_host() -> None:
    app: Any = Quart("hosts", static_folder=None, host_matching=True, static_host=None)

    async def page(**values: str) -> str:
        return "a page"

    app.add_url_rule("/<x>", "one", page, host="one.test")
    app.add_url_rule("/<y>", "two", page, host="two.test")
    visit = Visitor(app)
    for host, endpoint in [("one.test", "/{x}"), ("two.test", "/{y}"), ("three.test", None)]:
        assert await visit.endpoint("/1", host=host) == endpoint


def flask_app() -> ASGIApp:
    flask = Flask("legacy", static_folder=None)
    flask.add_url_rule("/items/<int:item_id>", "item", lambda item_id: "an item")
    bridged: ASGIApp = WsgiToAsgi(flask)
    return bridged


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/items/1", "/items/{item_id}"), ("/nowhere", None)]
)
async def test_a_flask_app_is_found_behind_its_bridge(path: str, endpoint: str | None) -> None:
    assert await Visitor(Copying(flask_app())).endpoint(path) == endpoint


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/new/items/1", "/new/items/{item_id}"),
        ("/new/nope", None),
        ("/old/items/1", "/old/items/{item_id}"),
        ("/old/nope", None),
    ],
)
async def test_below_a_starlette_mount_the_prefix_is_kept(path: str, endpoint: str | None) -> None:
    app = Starlette(routes=[Mount("/new", shop()), Mount("/old", flask_app())])
    assert await Visitor(app).endpoint(path) == endpoint


async def test_a_rule_that_cannot_be_asked_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shop()

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(app.url_map, "bind", refuse)
    routes = Routes(app)
    for _ in range(3):
        assert routes.locate(http_scope("/items/1"), "/items/1", "", 200).endpoint is None
    assert len(caplog.records) == 1
