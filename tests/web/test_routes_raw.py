"""Labels of apps that show no routes, names the user gives, and what happens when things break."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from holistic_asgi_monitor.web.routes import Located, Routes
from holistic_asgi_monitor.web.routes.starlette import Tree
from holistic_asgi_monitor.web.routes.unwrapping import layers
from tests.web.visits import Copying, Refusing, Visitor, answer, http_scope, ok


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


def shop() -> Starlette:
    return Starlette(routes=[Route("/items/{id}", page)])


@pytest.mark.parametrize(
    ("path", "root_path", "endpoint"),
    [
        ("/", "", "/"),
        ("/users/42", "", "/users/{id}"),
        ("/users/42/posts/d41d8cd98f00b204e9800998ecf8427e", "", "/users/{id}/posts/{id}"),
        ("/proxy/users/42", "/proxy", "/users/{id}"),
        ("/users/42", "/proxy", "/users/{id}"),
        ("/\ud800/x", "", "/{id}/x"),
    ],
)
async def test_an_app_without_routes_gets_its_path_normalised(
    path: str, root_path: str, endpoint: str
) -> None:
    found = await Visitor(ok)(path, root_path=root_path)
    assert found.located == Located(endpoint, None)


@pytest.mark.parametrize(
    ("status", "endpoint"), [(200, "/x"), (302, "/x"), (399, "/x"), (400, None), (500, None)]
)
async def test_an_app_without_routes_has_no_label_for_what_failed(
    status: int, endpoint: str | None
) -> None:
    visit = Visitor(functools.partial(answer, status))
    assert await visit.endpoint("/x") == endpoint


async def test_a_websocket_of_an_app_without_routes_is_labelled_once_accepted() -> None:
    assert (await Visitor(ok).websocket("/chat/17")).endpoint == "/chat/{id}"
    assert (await Visitor(Refusing(ok)).websocket("/chat/17")).endpoint is None


class Unknown:
    """An app of a framework that nobody knows."""

    routes: Any = "none of your business"
    router: Any = object()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.update({"route": "/secret/7", "router": object(), "endpoint": 7, "fastapi": None})
        await answer(200, scope, receive, send)


async def test_an_unknown_framework_may_leave_what_it_likes_in_the_scope() -> None:
    visit = Visitor(Unknown())
    for number in range(100):
        assert await visit.endpoint(f"/secret/{number}") == "/secret/{id}"


class Foreign(Unknown):
    """An app whose routes have the look of Starlette's, but are of another make."""

    routes: Any = (object(),)

    def url_path_for(self, name: str) -> str:
        return name


async def test_routes_that_nobody_can_match_count_as_none() -> None:
    assert await Visitor(Foreign()).endpoint("/secret/7") == "/secret/{id}"


async def test_a_known_framework_may_find_strange_things_in_its_scope() -> None:
    routes = Routes(shop())
    strange: list[dict[str, Any]] = [
        {"route": 7},
        {"route": [], "endpoint": {}},
        {"endpoint": None},
        {"fastapi": 7, "route": object()},
        {"path": None},
        {"router": "mine"},
    ]
    for left in strange:
        scope = http_scope("/items/1") | left
        assert routes.locate(scope, "/items/1", "", 200) == Located("/items/{id}", None)


async def test_endless_strangers_cost_no_memory() -> None:
    routes = Routes(shop())
    for _ in range(2000):
        scope = http_scope("/items/1") | {"route": object(), "router": object()}
        assert routes.locate(scope, "/items/1", "", 200).endpoint == "/items/{id}"
    assert len(routes._others) <= 32
    tree = routes._family
    assert isinstance(tree, Tree)
    assert 0 < len(tree._strangers) <= 256
    routes.refresh()
    assert not tree._strangers


Wrap = Callable[[ASGIApp], Any]


class Holding:
    """An app that holds another in an attribute of any name, and hands on a copied scope."""

    def __init__(self, name: str, app: ASGIApp) -> None:
        setattr(self, name, app)
        self._held = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await getattr(self, self._held)(dict(scope), receive, send)

    async def method(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self(scope, receive, send)


def decorated(app: ASGIApp) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    @functools.wraps(app)
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app(dict(scope), receive, send)

    return call


async def call_with(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(dict(scope), receive, send)


@pytest.mark.parametrize(
    "wrap",
    [
        Copying,
        lambda app: Copying(Copying(Copying(app))),
        *[
            functools.partial(Holding, name)
            for name in ("app", "_app", "asgi_app", "other_asgi_app", "application", "inner")
        ],
        lambda app: Holding("wrapped", app).method,
        decorated,
        lambda app: functools.partial(Copying(app).__call__),
    ],
)
async def test_an_app_is_found_through_whatever_wraps_it(wrap: Wrap) -> None:
    assert await Visitor(wrap(shop())).endpoint("/items/1") == "/items/{id}"


def test_apps_that_hold_each_other_are_met_once() -> None:
    one, two = Holding("app", ok), Holding("inner", ok)
    one.app, two.inner = two, one  # type: ignore[attr-defined]  # set by name
    assert list(layers(one)) == [one, two]


class Unready:
    """A proxy that is used before it is set up, and set up later."""

    target: ASGIApp | None = None

    def __getattr__(self, name: str) -> Any:
        if self.target is None:
            raise RuntimeError(name)
        return getattr(self.target, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.target or ok)(dict(scope), receive, send)


async def test_an_app_that_shows_its_routes_late_is_recognised_by_the_next_refresh(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Unready()
    visit = Visitor(app)
    assert await visit.endpoint("/items/1") == "/items/{id}"
    assert not visit.routes.refresh()
    app.target = shop()
    assert visit.routes.refresh()
    assert not visit.routes.refresh()
    assert await visit.endpoint("/items/word") == "/items/{id}"
    assert len(caplog.records) == 1


class Crumbling:
    """An app whose routes can be seen and then no longer."""

    def __init__(self) -> None:
        self.inner = shop()
        self.whole = True

    @property
    def routes(self) -> list[Any]:
        if not self.whole:
            raise RuntimeError("postgres://user:secret@host")
        return self.inner.routes

    def url_path_for(self, name: str) -> str:
        return name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(dict(scope), receive, send)


async def test_routes_that_cannot_be_read_again_stay_as_they_were(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Crumbling()
    visit = Visitor(app)
    assert await visit.endpoint("/items/1") == "/items/{id}"
    app.whole = False
    for _ in range(3):
        assert not visit.routes.refresh()
        assert await visit.endpoint("/items/2") == "/items/{id}"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "secret" not in caplog.text


async def test_routes_that_cannot_be_read_at_all_give_no_label_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Crumbling()
    visit = Visitor(app)
    app.whole = False
    assert [await visit.endpoint("/items/1") for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_a_scope_that_lacks_everything_gives_no_label() -> None:
    assert Routes(shop()).locate({}, "/items/1", "", 200) == Located(None, None)


async def test_the_users_name_for_an_endpoint_wins_and_is_never_remembered() -> None:
    visit = Visitor(shop(), route=lambda scope: f"own {scope['path_params']['id']}")
    for number in (1, 2):
        assert (await visit(f"/items/{number}")).located == Located(f"own {number}", None)


async def test_where_the_user_has_no_name_ours_is_taken_but_not_remembered() -> None:
    for name in (None, ""):
        visit = Visitor(shop(), route=lambda _, name=name: name)  # type: ignore[misc]  # mypy sees no default
        assert (await visit("/items/1")).located == Located("/items/{id}", None)
        assert (await visit("/nowhere")).located == Located(None, None)


@pytest.mark.parametrize("wrong", [7, b"/x", ["/x"]])
async def test_a_name_that_is_no_text_is_logged_once(
    wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    visit = Visitor(shop(), route=lambda _: wrong)
    for _ in range(3):
        assert (await visit("/items/1")).endpoint == "/items/{id}"
    assert len(caplog.records) == 1


async def test_a_naming_function_that_raises_is_logged_once_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def name(scope: Scope) -> str:
        raise ValueError("sk-very-secret")

    visit = Visitor(shop(), route=name)
    for _ in range(3):
        assert (await visit("/items/1")).endpoint == "/items/{id}"
    assert len(caplog.records) == 1
    assert "ValueError at " in caplog.text
    assert "secret" not in caplog.text


async def test_the_users_name_is_made_safe() -> None:
    visit = Visitor(shop(), route=lambda _: "a\nb\ud800" + "c" * 500)
    endpoint = await visit.endpoint("/items/1")
    assert endpoint is not None
    assert (endpoint[:4], len(endpoint)) == ("a\ufffdb\ufffd", 200)
