"""The shop, bare: what its customers are answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import httpx2
import pytest
from starlette.testclient import TestClient

from holistic_asgi_monitor.demo.payments import PaymentsService, Till
from holistic_asgi_monitor.demo.shop import ITEMS, shop


@pytest.fixture
async def customer(till: Till) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(shop(till))
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/items", 200),
        ("GET", "/items/3", 200),
        ("GET", "/items/999", 404),
        ("GET", "/items/teapot", 404),
        ("DELETE", "/items/3", 405),
        ("GET", "/search?q=tea", 200),
        ("GET", "/assistant?about=1", 200),
        ("GET", "/assistant?about=999", 404),
        ("GET", "/assistant", 404),
        ("GET", "/checkout", 405),
        ("GET", "/wp-login.php", 404),
    ],
)
async def test_each_wish_has_its_status(
    customer: httpx2.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await customer.request(method, path)).status_code == status


async def test_the_items_are_the_catalogue(customer: httpx2.AsyncClient) -> None:
    items = (await customer.get("/items")).json()

    assert [item["id"] for item in items] == list(ITEMS)
    assert (await customer.get("/items/5")).json() == items[4]


async def test_the_search_finds_words_in_any_case(customer: httpx2.AsyncClient) -> None:
    found = (await customer.get("/search", params={"q": "LITRE"})).json()

    assert [item["name"] for item in found] == ["teapot", "kettle"]


async def test_a_checkout_charges_and_numbers_the_order(customer: httpx2.AsyncClient) -> None:
    answers = [await customer.post("/checkout", json={"items": [1, 3]}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.json() for answer in answers] == [
        {"order": 1, "receipt": "RECEIPT-000001"},
        {"order": 2, "receipt": "RECEIPT-000002"},
    ]


async def test_a_checkout_without_payments_is_503_and_says_so(
    customer: httpx2.AsyncClient, service: PaymentsService
) -> None:
    service.answering = False
    answer = await customer.post("/checkout", json={"items": [1]})

    assert answer.status_code == 503
    assert "nothing was charged" in answer.json()["error"]


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", "{", '{"items": []}', '{"items": 3}', '{"items": [[1]]}', "7", "\xff"]
)
async def test_a_malformed_order_is_400_and_charges_nothing(
    customer: httpx2.AsyncClient, body: str
) -> None:
    answer = await customer.post("/checkout", content=body.encode("latin-1"))
    next_one = await customer.post("/checkout", json={"items": [1]})

    assert answer.status_code == 400
    assert next_one.json()["receipt"] == "RECEIPT-000001"


async def test_the_assistant_streams_its_answer_word_by_word() -> None:
    """More than one body message, so that Monitor takes it for a stream."""
    bodies: list[bytes] = []

    async def receive() -> dict[str, object]:
        await anyio.sleep_forever()
        return {}

    async def send(message: dict[str, object]) -> None:
        body = message.get("body")
        if isinstance(body, bytes) and body:
            bodies.append(body)

    scope = {"type": "http", "method": "GET", "path": "/assistant", "query_string": b"about=9"}
    app = shop(Till(port=1))
    await app({**scope, "headers": []}, receive, send)  # type: ignore[arg-type]  # plain dicts

    assert len(bodies) > 10
    assert b"".join(bodies).startswith(b"The honey jar costs 12.00 euros. ")


def test_prices_tick_until_the_customer_leaves() -> None:
    with TestClient(shop(Till(port=1))) as client, client.websocket_connect("/prices") as prices:
        ticks = [json.loads(prices.receive_text()) for _ in range(2)]

    assert [tick["item"] for tick in ticks] == [1, 2]
    assert all(isinstance(tick["price_cents"], int) for tick in ticks)
