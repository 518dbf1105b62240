"""Driving an ASGI app without a server: its scopes, one request, its lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

STARTUP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back to one request; `raised` is the exception that left the app, if one did.

    The body stays in the pieces that it was sent in: a server does not put them together either.
    """

    status: int
    pieces: Sequence[bytes]
    raised: Exception | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)


def http_scope(path: str) -> dict[str, Any]:
    """The scope of a GET of `path` from this machine, as uvicorn would build it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"user-agent", b"benchmark"),
            (b"accept", b"*/*"),
        ],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
    }


async def receive_nothing() -> Message:
    """The whole of an empty request body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send_nowhere(_message: Message) -> None:
    """Take what the app sends, and drop it."""


async def get(app: ASGIApp, path: str) -> Answer:
    """GET `path` and keep what came back; a raised exception is part of the answer."""
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    raised = None
    try:
        await app(http_scope(path), receive_nothing, keep)
    except Exception as error:  # the peer under test may fail: that is a finding, not our end
        raised = error
    status = next((m["status"] for m in sent if m["type"] == "http.response.start"), 0)
    return Answer(status, [m["body"] for m in sent if "body" in m], raised)


async def metrics_pieces(app: ASGIApp) -> Sequence[bytes]:
    """What `GET /metrics` sends; anything but 200 ends the run."""
    answer = await get(app, "/metrics")
    if answer.status != 200:
        raise SystemExit(f"GET /metrics answered {answer.status}: {answer.raised or answer.body!r}")
    return answer.pieces


async def metrics_page(app: ASGIApp) -> bytes:
    """The body of `GET /metrics`; anything but 200 ends the run."""
    return b"".join(await metrics_pieces(app))


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[None]:
    """Take `app` through its startup, and through its shutdown at the end, as a server does."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope: dict[str, Any] = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    life = asyncio.create_task(_live(app, scope, to_app, from_app))
    await _phase("startup", to_app, from_app)
    try:
        yield
    finally:
        await _phase("shutdown", to_app, from_app)
        await life


async def _live(
    app: ASGIApp, scope: Scope, to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]
) -> None:
    await app(scope, to_app.get, from_app.put)


async def _phase(
    name: str, to_app: asyncio.Queue[Message], from_app: asyncio.Queue[Message]
) -> None:
    await to_app.put({"type": f"lifespan.{name}"})
    async with asyncio.timeout(STARTUP_SECONDS):
        answer = await from_app.get()
    if answer["type"] != f"lifespan.{name}.complete":
        raise RuntimeError(f"the app answered {answer['type']} to its {name}")
