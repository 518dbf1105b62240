"""Routes of the app at paths where the monitor answers: found beforehand, and warned of once."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from falcon.asgi import App
from fastapi import APIRouter, FastAPI
from litestar import Litestar, get
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route, Router

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.web.routes import Routes
from tests.web.visits import ok


def health() -> dict[str, str]:
    return {}


def fastapi(*, attached: bool = False) -> Any:
    app, router = FastAPI(), APIRouter()
    router.get("/health")(health)
    app.include_router(router, prefix="/api")
    return app if attached else GZipMiddleware(app)


def quart() -> Any:
    app = Quart("shop", static_folder=None)
    app.add_url_rule("/api/health/", "health", health)
    return app


def falcon() -> Any:
    class Health:
        async def on_get(self, req: Any, resp: Any) -> None:
            raise AssertionError

    app: Any = App()
    app.add_route("/api/health", Health())
    return app


@pytest.mark.parametrize(
    "app",
    [
        fastapi(),
        fastapi(attached=True),
        quart(),
        falcon(),
        Litestar([get("/api/health", sync_to_thread=False)(health)], logging_config=None),
        Starlette(routes=[Route("/api/health", ok, methods=["POST"])]),
        Starlette(routes=[Mount("/api", routes=[Route("/health", ok)])]),
        Starlette(routes=[Mount("/api/health", ok)]),
        Router(routes=[Route("/api/health/", ok)]),
        Router(routes=[Host("api.example", ok), Route("/api/health", ok)]),
    ],
)
def test_a_route_at_one_of_our_paths_is_found(app):
    assert Routes(app).stands_at("/api/health")
    assert not Routes(app).stands_at("/api/health/live")


@pytest.mark.parametrize(
    "app",
    [
        ok,
        Starlette(routes=[Route("/{path:path}", ok), Route("/api/health", ok)]),
        Starlette(routes=[Route("/api/{name}", ok), Mount("/", ok)]),
        Starlette(routes=[Route("/api/health/more", ok)]),
    ],
)
def test_a_route_that_takes_any_path_hides_nothing(app):
    assert not Routes(app).stands_at("/api/health")


async def test_the_log_warns_of_it_once(caplog):
    monitor = Monitor(fastapi(), settings=Settings(service="x"), checks=[])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            async with monitor:
                await monitor.report(fresh=True)

    assert caplog.text.count("The app has a route at /api/health, where the monitor answers") == 1
