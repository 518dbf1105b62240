"""Waiting for what any thread may bring, on asyncio and trio."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio

from holistic_asgi_monitor.threads import waker

__all__ = ("Bell", "Sleep", "either")

Sleep = Callable[[float], Awaitable[None]]
"""Waits so many seconds."""


class Bell:
    """Something that any thread can ring and one task hears, even if it listens later only."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self._rung = False
        self._wake: Callable[[], object] | None = None

    def ring(self) -> None:
        """Let the listener go on."""
        self._rung = True
        wake = self._wake
        if wake is None:
            return
        try:
            wake()
        except RuntimeError:
            # The listener's loop has ended; whoever listens next will hear it.
            self._wake = None

    async def heard(self, seconds: float) -> None:
        """Wait until it is rung, or has been since the last time, at most `seconds`."""
        event = anyio.Event()
        self._wake = waker(event.set)
        try:
            if not self._rung:
                await either(event, self._sleep, seconds)
        finally:
            self._wake = None
            self._rung = False


async def either(event: anyio.Event, sleep: Sleep, seconds: float) -> None:
    """Wait for `event`, at most `seconds`."""
    if math.isinf(seconds):
        await event.wait()
        return
    async with anyio.create_task_group() as group:

        async def expire() -> None:
            await sleep(seconds)
            group.cancel_scope.cancel()

        group.start_soon(expire)
        await event.wait()
        group.cancel_scope.cancel()
