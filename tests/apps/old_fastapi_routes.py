"""Prints where requests to a FastAPI app went, as JSON; for a FastAPI that a test puts first.

FastAPI before 0.137 copies the routes of an included router and gives the copies the prefix.
"""

from __future__ import annotations

import json
import sys
import warnings

import anyio
import fastapi
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tests.web.visits import Copying, Visitor, ok

warnings.simplefilter("ignore", DeprecationWarning)


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


def items() -> APIRouter:
    router = APIRouter(prefix="/items")

    @router.get("/{item_id}")
    async def one(item_id: int) -> int:
        return item_id

    @router.get("/at/{z:path}")
    async def at(z: str) -> str:
        return z

    @router.websocket("/live/{item_id}")
    async def live(websocket: WebSocket, item_id: int) -> None:
        await websocket.accept()
        await websocket.close()

    return router


def shop() -> FastAPI:
    app = FastAPI()
    outer = APIRouter(prefix="/o/{outer}")
    outer.include_router(items(), prefix="/n")
    router = items()
    app.include_router(outer)
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    sub = FastAPI()
    sub.include_router(items(), prefix="/s")
    app.mount("/sub/{s}", sub)
    app.mount("/plain", Starlette(routes=[Route("/leaf/{id}", page)]))
    app.mount("/raw", ok)
    return app


CASES = [
    ("GET", "/o/7/n/items/5"),
    ("GET", "/o/7/n/items/x"),
    ("PUT", "/o/7/n/items/5"),
    ("GET", "/o/7/n/items/at/a/b"),
    ("GET", "/v1/items/5"),
    ("GET", "/v2/items/5"),
    ("GET", "/v2/items/5/"),
    ("GET", "/docs"),
    ("GET", "/sub/a/s/items/5"),
    ("GET", "/sub/a/docs"),
    ("GET", "/sub/a/nope"),
    ("GET", "/plain/leaf/5"),
    ("GET", "/raw/any/thing"),
    ("GET", "/nowhere"),
]


async def main() -> None:
    found: dict[str, object] = {}
    for name, visit in (("copied", Visitor(Copying(shop()))), ("seen", Visitor(shop()))):
        answers = {f"{method} {path}": await visit(path, method) for method, path in CASES}
        answers["websocket"] = await visit.websocket("/v2/items/live/1")
        found[name] = {case: [one.status, one.endpoint] for case, one in answers.items()}
        found["cacheable"] = [case for case, one in answers.items() if one.cacheable]
    found["version"] = fastapi.__version__
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    anyio.run(main)
