"""One request, or one WebSocket connection, against an ASGI app in process, message by message."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Scope

from holistic_asgi_monitor import Monitor
from holistic_asgi_monitor.metrics.families import Requests

Series = dict[tuple[str, str, str], int]


def http_scope(path: str = "/", method: str = "GET", **more: Any) -> Scope:
    """A fresh HTTP scope as uvicorn makes it."""
    target, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": target,
        "raw_path": target.encode("utf-8", "surrogateescape"),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 80),
        "state": {},
        **more,
    }


class Exchange:
    """Drives one request and keeps every message that the app sent."""

    def __init__(
        self,
        *,
        incoming: Sequence[Message] = ({"type": "http.request", "body": b"", "more_body": False},),
        on_send: Callable[[Message], Awaitable[None]] | None = None,
    ) -> None:
        self._incoming = list(incoming)
        self._on_send = on_send
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self._incoming:
            return self._incoming.pop(0)
        await anyio.sleep_forever()
        raise AssertionError

    async def send(self, message: Message) -> None:
        if self._on_send is not None:
            await self._on_send(message)
        self.sent.append(message)

    async def run(self, app: ASGIApp, scope: Scope) -> "Exchange":
        await app(scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return int(next(m["status"] for m in self.sent if m["type"] == "http.response.start"))

    @property
    def headers(self) -> Mapping[str, str]:
        start = next(m for m in self.sent if m["type"] == "http.response.start")
        return {key.decode(): value.decode() for key, value in start["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.sent if m["type"] == "http.response.body")


async def get(app: ASGIApp, path: str = "/", method: str = "GET", **more: Any) -> Exchange:
    """Send one request without a body and give the finished exchange."""
    return await Exchange().run(app, http_scope(path, method, **more))


def counted(monitor: Monitor) -> Series:
    """What requests_total shows, without the series that stand at 0."""
    family = monitor._parts.catalogue.families["requests"]
    assert isinstance(family, Requests)
    return {
        (labels["method"], labels["endpoint"], labels["status"]): int(value)
        for _, pairs, value in family.samples()
        if (labels := dict(pairs)) and value
    }


def timed(monitor: Monitor) -> dict[tuple[str, str], tuple[int, float]]:
    """How many durations each method and endpoint has, and their sum in seconds."""
    series = monitor._parts.catalogue.series
    return {
        key: (
            sum(series.bounds.count(cells) for cells in found.durations()),
            sum(cells[-1] for cells in found.durations()) / 1e9,
        )
        for key, found in series.endpoints.items()
    }


def errors(monitor: Monitor) -> dict[tuple[str, ...], float]:
    """What errors_total shows."""
    return dict(monitor._parts.catalogue.errors.values)


def in_progress(monitor: Monitor) -> int:
    return monitor._parts.catalogue.series.in_progress


def error_count(monitor: Monitor) -> int:
    """How many requests count as errors in the error rate."""
    return sum(found.errors for found in monitor._parts.catalogue.series.endpoints.values())


def sample(text: str, name: str, labels: Iterable[str] = ()) -> list[str]:
    """The values of the page's lines of one name whose labels contain all of `labels`."""
    pattern = re.compile(rf"^{re.escape(name)}(\{{.*\}})? (\S+)$", re.MULTILINE)
    return [
        value for found, value in pattern.findall(text) if all(label in found for label in labels)
    ]
