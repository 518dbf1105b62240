"""What hostile requests leave in memory: `python -m benchmarks.memory`.

Requests over random unknown paths with random unknown methods go through Monitor around a
Starlette app of a few routes; after every tenth of them the resident memory of the process and
the number of series on the page are read.
"""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Sequence

import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from benchmarks.options import forget_settings, new_parser, positive
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor import Monitor, Settings

PARTS = 10
MEBIBYTE = 1 << 20


async def _item(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params["item_id"])


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Message) -> None:
    """Take the message, as a server would."""


def _words(draw: random.Random, count: int) -> list[str]:
    letters = string.ascii_letters + string.digits
    return ["".join(draw.choices(letters, k=draw.randint(3, 30))) for _ in range(count)]


def _scope(path: str, method: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("203.0.113.7", 5),
        "server": ("127.0.0.1", 80),
    }


async def _run(requests: int, paths: int, methods: int) -> list[tuple[str, ...]]:
    """The rows: requests so far, resident memory, series on the page, requests in progress."""
    draw = random.Random(5)
    names, verbs = _words(draw, paths), _words(draw, methods)
    routes = [Route(f"/shop{number}/{{item_id}}", _item) for number in range(5)]
    monitor = Monitor(Starlette(routes=routes), settings=Settings(service="memory"), checks=[])
    process = psutil.Process()
    rows = []
    async with monitor:
        for part in range(PARTS + 1):
            for _ in range(requests // PARTS if part else 1000):
                path = f"/{draw.choice(names)}" if draw.random() < 0.8 else "/shop1/7"
                await monitor(_scope(path, draw.choice(verbs)), _receive, _send)
            rows.append(await _read(monitor, process, part * (requests // PARTS) + 1000))
    return rows


async def _read(monitor: Monitor, process: psutil.Process, requests: int) -> tuple[str, ...]:
    sent: list[Message] = []

    async def keep(message: Message) -> None:
        sent.append(message)

    scope = {**_scope("/metrics", "GET"), "client": ("127.0.0.1", 5)}
    await monitor(scope, _receive, keep)
    page = b"".join(message.get("body", b"") for message in sent)
    lines = [line for line in page.splitlines() if not line.startswith(b"#")]
    ours = [line for line in lines if line.startswith(b"holisticos_request")]
    progress = next(line for line in ours if line.startswith(b"holisticos_requests_in_progress"))
    return (
        f"{requests:,}",
        f"{process.memory_info().rss / MEBIBYTE:.1f}",
        str(len(ours)),
        progress.split()[-1].decode(),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and print or publish the table."""
    forget_settings()
    parser = new_parser("benchmarks.memory", __doc__)
    parser.add_argument("--requests", type=positive, default=1_000_000)
    parser.add_argument("--paths", type=positive, default=1000)
    parser.add_argument("--methods", type=positive, default=1000)
    options = parser.parse_args(argv)
    rows = asyncio.run(_run(options.requests, options.paths, options.methods))
    measured = f"{options.paths:,} random paths and {options.methods:,} random methods"
    head = ("requests", "resident memory, MiB", "series lines of the requests", "in progress")
    text = f"{conditions(('starlette',), measured)}\n\n{markdown(head, rows)}"
    publish("memory", text, options.write)


if __name__ == "__main__":
    main()
