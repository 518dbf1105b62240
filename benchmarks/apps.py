"""The apps to measure on: each hits the last of its routes, under a path parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

PREFIX = "/api"


@dataclass(frozen=True, slots=True)
class Case:
    """One app: how to build it afresh, which paths to request, and the label they must get.

    `build` takes the keyword arguments of the framework's own constructor.
    """

    key: str
    title: str
    framework: str
    build: Callable[..., Any]
    paths: tuple[str, ...]
    endpoint: str

    def standing(self) -> Case:
        """The same case with one app for all who build it: for those who stand around it only."""
        app = self.build()
        return replace(self, build=lambda: app)


def cases() -> tuple[Case, ...]:
    """Every app, in the order of the table's columns."""
    return (*(_starlette_case(routes) for routes in (1, 30, 100)), _fastapi_case(30))


def _starlette_case(routes: int) -> Case:
    last = f"/r{routes - 1}"
    return Case(
        key=f"starlette-{routes}",
        title=f"Starlette, {routes} route{'s' if routes > 1 else ''}",
        framework="starlette",
        build=partial(_starlette_app, routes),
        paths=(f"{last}/7", f"{last}/8"),
        endpoint=f"{last}/{{item_id}}",
    )


def _fastapi_case(routes: int) -> Case:
    last = f"{PREFIX}/r{routes - 1}"
    return Case(
        key=f"fastapi-{routes}",
        title=f"FastAPI, included router of {routes}",
        framework="fastapi",
        build=partial(_fastapi_app, routes),
        paths=(f"{last}/7", f"{last}/8"),
        endpoint=f"{last}/{{item_id}}",
    )


def _starlette_app(routes: int, **options: Any) -> Starlette:
    async def item(_request: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[Route(f"/r{number}/{{item_id}}", item) for number in range(routes)], **options
    )


def _fastapi_app(routes: int, **options: Any) -> FastAPI:
    router = APIRouter()
    for number in range(routes):
        router.add_api_route(f"/r{number}/{{item_id}}", _item_handler(), methods=["GET"])
    app = FastAPI(**options)
    app.include_router(router, prefix=PREFIX)
    return app


def _item_handler() -> Callable[..., Any]:
    async def item(item_id: int) -> dict[str, int]:
        return {"item_id": item_id}

    return item
