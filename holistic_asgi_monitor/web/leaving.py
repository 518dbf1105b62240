"""Clients that leave before they are answered: what is done for them is left off."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
from starlette.types import Receive

from holistic_asgi_monitor.web.orders import ClientGoneError

__all__ = ("unless_left",)

T = TypeVar("T")


async def unless_left(work: Callable[[], Awaitable[T]], receive: Receive) -> T:
    """What `work` returns or raises; `ClientGoneError`, with it cancelled, where a client leaves.

    `receive` is the request's, of which nobody else reads.
    """
    found: list[T] = []
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_look, receive, group.cancel_scope)
            found.append(await work())
            group.cancel_scope.cancel()
    except ExceptionGroup as raised:
        # What the group has made of the one error of the work.
        raise raised.exceptions[0] from None
    if not found:
        raise ClientGoneError
    return found[0]


async def _look(receive: Receive, waiting: anyio.CancelScope) -> None:
    """Cancel what waits, once the server says that the client has left."""
    with suppress(Exception):  # who cannot be asked any longer has said all
        message = await receive()
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
        if message["type"] == "http.request":
            message = await receive()
        if message["type"] == "http.disconnect":
            waiting.cancel()
