"""How asyncpg connects, without leaving anything behind where it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ("ConnectingLoop",)


class ConnectingLoop:
    """An event loop, for asyncpg to connect by; all but that is the loop's own.

    Where asyncpg is cancelled between the connection and its first word about TLS, it forgets a
    future that is then told of the connection's end: asyncio would log an error that nobody saw.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __hash__(self) -> int:
        return hash(self._loop)

    def __eq__(self, other: object) -> bool:
        """As the loop itself: tasks are found by their loop."""
        return other is self or other is self._loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(
        self,
        factory: Callable[[], asyncio.Protocol],
        host: Any = None,
        port: Any = None,
        **options: Any,
    ) -> Any:
        """Connect as the loop does, and have nothing wait for what is given up."""
        made: list[asyncio.Protocol] = []

        def remembered() -> asyncio.Protocol:
            made.append(factory())
            return made[-1]

        try:
            return await self._loop.create_connection(remembered, host, port, **options)
        except BaseException:
            for future in (getattr(protocol, "on_data", None) for protocol in made):
                if isinstance(future, asyncio.Future):
                    future.cancel()
            raise
