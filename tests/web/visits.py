"""Requests that are sent to an app in process, and what `Routes` makes of the scope they leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holistic_asgi_monitor.web.routes import Located, Routes

_REQUEST: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]
_WEBSOCKET: list[Message] = [
    {"type": "websocket.connect"},
    {"type": "websocket.disconnect", "code": 1000},
]


@dataclass(frozen=True, slots=True)
class Visit:
    """One request, seen from outside the app: its answer, and where it went."""

    status: int
    located: Located
    scope: Scope

    @property
    def endpoint(self) -> str | None:
        return self.located.endpoint

    @property
    def cacheable(self) -> bool:
        """Whether the route in the scope may stand for the label from now on."""
        route = self.located.route
        assert route is None or route is self.scope["route"]
        return route is not None


class Visitor:
    """Visits one app; `routes` is asked about it as a monitor around the app would."""

    def __init__(self, app: ASGIApp, *, route: Callable[[Scope], str | None] | None = None) -> None:
        self.app = app
        self.routes = Routes(app, route=route)

    async def __call__(self, path: str, method: str = "GET", **more: Any) -> Visit:
        scope = http_scope(path, method, **more)
        status = await status_of(self.app, scope)
        located = self.routes.locate(scope, path, more.get("root_path", ""), status)
        return Visit(status, located, scope)

    async def endpoint(self, path: str, method: str = "GET", **more: Any) -> str | None:
        return (await self(path, method, **more)).endpoint

    async def websocket(self, path: str, **more: Any) -> Visit:
        scope = http_scope(path, **more) | {"type": "websocket", "scheme": "ws", "subprotocols": []}
        del scope["method"]
        status = await status_of(self.app, scope)
        located = self.routes.locate(scope, path, more.get("root_path", ""), status)
        return Visit(status, located, scope)


def http_scope(
    path: str,
    method: str = "GET",
    *,
    root_path: str = "",
    host: str = "testserver",
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> dict[str, Any]:
    """The scope that a server would make of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(b"host", host.encode()), *headers],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "extensions": {},
        "state": {},
    }


async def status_of(app: ASGIApp, scope: Scope) -> int:
    """The status an app answers with; 101 for an accepted WebSocket, 403 for a refused one."""
    websocket = scope["type"] == "websocket"
    statuses: list[int] = []
    incoming = deque(_WEBSOCKET if websocket else _REQUEST)

    answered = anyio.Event()

    async def receive() -> Message:
        if not incoming:
            # The client stays until it has its answer; an app may wait for that.
            await answered.wait()
            return {"type": "websocket.disconnect" if websocket else "http.disconnect"}
        return incoming.popleft()

    async def send(message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body")
        if last or message["type"] == "websocket.close":
            answered.set()
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        elif message["type"] == "websocket.accept":
            statuses.append(101)

    try:
        await app(scope, receive, send)
    except Exception:
        # A server would answer the same to a request that broke.
        statuses.append(500)
    return statuses[0] if statuses else 403


class Copying:
    """A middleware that hands on a copy of the scope, so that nothing comes back in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


class Refusing:
    """A middleware that answers before any router has run."""

    def __init__(self, app: ASGIApp, status: int = 401) -> None:
        self.app = app
        self.status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(self.status, scope, receive, send)


async def answer(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with `status` and no body; refuse a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    """A raw app that answers everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await answer(200, scope, receive, send)
