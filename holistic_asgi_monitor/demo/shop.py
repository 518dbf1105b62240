"""The demo's app: a small shop in plain Starlette that knows nothing of being watched."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from itertools import count, cycle

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from holistic_asgi_monitor.demo.payments import PaymentsDownError, Till

__all__ = ("ITEMS", "Item", "shop")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on the shelf; the price is in cents."""

    id: int
    name: str
    price_cents: int
    about: str


ITEMS = {
    item.id: item
    for item in (
        Item(1, "teapot", 3490, "It holds a litre, pours without a drip and is safe to heat."),
        Item(2, "kettle", 4900, "It boils a litre in three minutes and then switches itself off."),
        Item(3, "coffee mill", 5950, "Its burrs are steel, and eighteen steps set the grind."),
        Item(4, "bread knife", 2750, "Its blade is long enough for a whole country loaf."),
        Item(5, "cast iron pan", 6400, "It keeps its heat and lasts longer than its owner."),
        Item(6, "linen apron", 3200, "It has two pockets and fits over every coat."),
        Item(7, "salt cellar", 1450, "Its lid of olive wood keeps the salt dry."),
        Item(8, "rolling pin", 1890, "It is turned from one piece of beech."),
        Item(9, "honey jar", 1200, "It comes with a dipper, but without the bees."),
        Item(10, "egg timer", 990, "Its sand runs for four minutes, give or take a second."),
        Item(11, "tea towels", 1600, "There are three of them, and none ever stays white."),
        Item(12, "picnic basket", 7900, "It carries a lunch for four, with plates and glasses."),
    )
}

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>The demo shop</title>
<h1>The demo shop</h1>
<p>A small app under steady traffic, watched by one line: <code>app = Monitor(app)</code></p>
<ul>
<li><a href="/items">items</a>, <a href="/items/1">one of them</a>,
 <a href="/search?q=tea">a search</a></li>
<li><a href="/assistant?about=1">the assistant</a>, which answers word by word</li>
<li>a checkout: <code>POST /checkout</code> with <code>{"items": [1, 2]}</code></li>
<li>moving prices: the WebSocket <code>/prices</code></li>
</ul>
<p>What Monitor sees of it: <a href="/api/health">health</a>, <a href="/metrics">metrics</a>,
 <a href="/api/monitoring/stats">statistics</a></p>
</html>
"""


def shop(till: Till) -> Starlette:
    """The shop's app; its checkout charges through `till` and answers 503 where that fails."""
    counter = _Counter(till)
    return Starlette(
        routes=[
            Route("/", _front),
            Route("/items", _items),
            Route("/items/{item_id:int}", _item),
            Route("/search", _search),
            Route("/checkout", counter.checkout, methods=["POST"]),
            Route("/assistant", _assistant),
            WebSocketRoute("/prices", _prices),
        ]
    )


class _Counter:
    """Where customers pay: numbers the orders and charges for them."""

    def __init__(self, till: Till) -> None:
        self._till = till
        self._orders = count(1)

    async def checkout(self, request: Request) -> Response:
        items = _ordered(await request.body())
        if not items:
            return _sorry(400, 'Send the numbers of items, such as {"items": [1, 2]}.')
        await anyio.sleep(0.03)
        try:
            receipt = await self._till.charge(sum(item.price_cents for item in items))
        except PaymentsDownError:
            return _sorry(503, "Payments do not answer; nothing was charged.")
        order = {"order": next(self._orders), "receipt": receipt}
        return JSONResponse(order, status_code=201)


def _ordered(body: bytes) -> list[Item]:
    """The items of an order, none where it is malformed or names something we do not have."""
    try:
        return [ITEMS[number] for number in json.loads(body)["items"]]
    except (ValueError, TypeError, KeyError):
        return []


def _sorry(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status_code=status)


async def _front(_: Request) -> Response:
    return HTMLResponse(_PAGE)


async def _items(_: Request) -> Response:
    await anyio.sleep(0.005)
    return JSONResponse([asdict(item) for item in ITEMS.values()])


async def _item(request: Request) -> Response:
    item = ITEMS.get(request.path_params["item_id"])
    if item is None:
        return _sorry(404, "There is no such item.")
    await anyio.sleep(0.002 * item.id)
    return JSONResponse(asdict(item))


async def _search(request: Request) -> Response:
    wanted = request.query_params.get("q", "").casefold()
    await anyio.sleep(0.02 + 0.01 * min(len(wanted), 10))
    return JSONResponse(
        [
            asdict(item)
            for item in ITEMS.values()
            if wanted in f"{item.name} {item.about}".casefold()
        ]
    )


async def _assistant(request: Request) -> Response:
    about = request.query_params.get("about")
    item = next((item for item in ITEMS.values() if str(item.id) == about), None)
    if item is None:
        return _sorry(404, "The assistant only knows the items of this shop.")
    return StreamingResponse(_words(item), media_type="text/plain")


async def _words(item: Item) -> AsyncIterator[str]:
    """An answer as a language model would give it: slowly, one word after the other."""
    euros = f"{item.price_cents / 100:.2f}"
    answer = f"The {item.name} costs {euros} euros. {item.about} Shall I put one aside for you?"
    for word in answer.split():
        await anyio.sleep(0.04)
        yield f"{word} "
    yield "\n"


async def _prices(websocket: WebSocket) -> None:
    """Send a moving price twice a second until the customer leaves."""
    await websocket.accept()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_gone, websocket, tasks.cancel_scope)
        for tick in _ticks():
            try:
                await websocket.send_json(tick)
            except WebSocketDisconnect:
                return
            await anyio.sleep(0.5)


async def _until_gone(websocket: WebSocket, stop: anyio.CancelScope) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    stop.cancel()


def _ticks() -> Iterator[dict[str, int]]:
    """Prices that swing by a few cents, item after item, for ever."""
    for item, swing in zip(cycle(ITEMS.values()), cycle((-3, 0, 2, 5, 1)), strict=False):
        yield {"item": item.id, "price_cents": item.price_cents + swing}
