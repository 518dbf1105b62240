"""The demo's customers: real HTTP and WebSocket traffic, a bounded number of them at a time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import httpx2

__all__ = ("customers",)

_BUYERS = 12
_WATCHERS = 3
_WORDS = ("tea", "pan", "wood", "iron", "litre", "knife", "honey", "bicycle")

# Checkouts stay below the error rate at which `traffic` itself would raise an alert: the payments
# service is what this story is about. The odd ones are what every public app gets to see.
_WISHES: dict[tuple[str, str], int] = {
    ("GET", "/"): 4,
    ("GET", "/items"): 12,
    ("GET", "/items/{known}"): 40,
    ("GET", "/items/{unknown}"): 4,
    ("GET", "/search?q={word}"): 22,
    ("POST", "/checkout"): 4,
    ("GET", "/assistant?about={known}"): 4,
    ("DELETE", "/items/{known}"): 3,
    ("GET", "/wp-login.php"): 2,
}


async def customers(http: httpx2.AsyncClient) -> None:
    """Keep the shop at the base URL of `http` busy until cancelled.

    Answers of every status are welcome; one that does not come is tried again a little later.
    """
    prices = str(http.base_url.join("/prices").copy_with(scheme="ws"))
    async with anyio.create_task_group() as tasks:
        for number in range(_BUYERS):
            tasks.start_soon(_buy, http, _dice(number))
        for number in range(_WATCHERS):
            tasks.start_soon(_watch_prices, prices, _dice(number))


def _dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - dice for shopping, not for secrets


async def _buy(http: httpx2.AsyncClient, dice: random.Random) -> None:
    import httpx2

    while True:
        await anyio.sleep(dice.uniform(0.05, 0.35))
        method, path, body = _wish(dice)
        try:
            await http.request(method, path, json=body)
        except httpx2.HTTPError:
            await anyio.sleep(0.5)


def _wish(dice: random.Random) -> tuple[str, str, object]:
    """What a customer does next: method, path and JSON body (None for none)."""
    [(method, path)] = dice.choices(list(_WISHES), weights=list(_WISHES.values()))
    body = {"items": dice.sample(range(1, 13), k=2)} if method == "POST" else None
    return (
        method,
        path.format(
            known=dice.randint(1, 12), unknown=dice.randint(500, 999), word=dice.choice(_WORDS)
        ),
        body,
    )


async def _watch_prices(address: str, dice: random.Random) -> None:
    from websockets.asyncio.client import connect  # noqa: PLC0415 - of the extra `demo` only
    from websockets.exceptions import WebSocketException  # noqa: PLC0415 - of the extra `demo` only

    while True:
        await anyio.sleep(dice.uniform(0.2, 2.0))
        try:
            async with connect(address, proxy=None) as prices:
                for _ in range(dice.randint(4, 16)):
                    await prices.recv()
        except (OSError, WebSocketException):
            await anyio.sleep(0.5)
