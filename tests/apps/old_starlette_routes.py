"""Prints where requests to a Starlette app went, as JSON; for a Starlette that a test puts first.

Starlette before 1.7 names no route in the scope, only the endpoint.
"""

from __future__ import annotations

import json
import sys
import tempfile

import anyio
import starlette
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from tests.web.visits import Copying, Visitor, ok


async def page(request: Request) -> Response:
    return PlainTextResponse("a page")


async def shared(request: Request) -> Response:
    return PlainTextResponse("another page")


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


def things() -> Starlette:
    return Starlette(
        routes=[Route("/things/{id:int}", lambda request: PlainTextResponse("a thing"))]
    )


def shop(folder: str) -> Starlette:
    twice = things()
    return Starlette(
        routes=[
            Route("/items/{id:int}", page, methods=["GET"]),
            Route("/one/{x}", shared),
            Route("/two/{x}", shared),
            WebSocketRoute("/chat/{room}", chat),
            Mount("/t/{tenant}", things()),
            Mount("/a", twice),
            Mount("/b/{c}", twice),
            Mount("/static", StaticFiles(directory=folder)),
            Mount("/raw", ok),
            Host("api.test", Starlette(routes=[Route("/v/{x}", page)])),
        ]
    )


CASES = [
    ("GET", "/items/42"),
    ("POST", "/items/42"),
    ("GET", "/items/42/"),
    ("GET", "/items/x"),
    ("GET", "/one/1"),
    ("GET", "/two/1"),
    ("GET", "/t/acme/things/7"),
    ("GET", "/t/beta/things/7"),
    ("GET", "/t/beta/nope"),
    ("GET", "/a/things/7"),
    ("GET", "/b/c/things/7"),
    ("GET", "/static/none.css"),
    ("GET", "/raw/any/thing"),
    ("GET", "/nowhere"),
]


async def main() -> None:
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, visit in (
            ("copied", Visitor(Copying(shop(folder)))),
            ("seen", Visitor(shop(folder))),
        ):
            answers = {f"{method} {path}": await visit(path, method) for method, path in CASES}
            answers["host"] = await visit("/v/1", host="api.test")
            answers["proxy"] = await visit("/proxy/t/acme/things/7", root_path="/proxy")
            answers["websocket"] = await visit.websocket("/chat/lobby")
            found[name] = {case: [one.status, one.endpoint] for case, one in answers.items()}
            found["cacheable"] = any(one.cacheable for one in answers.values())
    found["version"] = starlette.__version__
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    anyio.run(main)
