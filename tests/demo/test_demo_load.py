"""The customers against a real server: what they ask for, and how many they are."""

from __future__ import annotations

import importlib
import socket
from collections import Counter

import anyio
import httpx2
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holistic_asgi_monitor.demo.load import customers
from holistic_asgi_monitor.demo.payments import PaymentsService, Till
from holistic_asgi_monitor.demo.serving import serving
from holistic_asgi_monitor.demo.shop import shop

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(autouse=True)
def imported() -> None:
    """Import before the loop runs what the demo imports before it runs its own."""
    for package in ("uvicorn", "httpx2", "websockets.asyncio.client"):
        importlib.import_module(package)


class Doorman:
    """Counts who comes in, how they were answered, and how many were inside at once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.statuses: Counter[int] = Counter()
        self.sockets = self.inside = self.most_inside = 0
        self.changed = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            self.sockets += scope["type"] == "websocket"
            await self.app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.statuses[message["status"]] += 1
                self.changed.set()
                self.changed = anyio.Event()
            await send(message)

        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await self.app(scope, receive, noting)
        self.inside -= 1

    async def has_seen(self, *statuses: int) -> None:
        with anyio.fail_after(20):
            while not (self.sockets and all(self.statuses[status] for status in statuses)):
                await self.changed.wait()


async def test_customers_bring_every_kind_of_traffic(
    service: PaymentsService, till: Till, anyio_backend: str
) -> None:
    """Successes, unknown things, wrong methods and WebSockets; 503 while payments fail."""
    doorman = Doorman(shop(till))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            serving(doorman, listener),
            httpx2.AsyncClient(base_url=base_url, trust_env=False) as http,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(customers, http)
            await doorman.has_seen(200, 201, 404, 405)
            service.answering = False
            await doorman.has_seen(503)
            tasks.cancel_scope.cancel()

    assert set(doorman.statuses) == {200, 201, 404, 405, 503}
    assert doorman.most_inside <= 12


async def test_customers_outlive_a_shop_that_is_closed(anyio_backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx2.AsyncClient(base_url=base_url, trust_env=False) as http:
        with anyio.move_on_after(0.8) as scope:
            await customers(http)

    assert scope.cancelled_caught
