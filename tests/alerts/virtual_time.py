"""A clock that stands still until a test moves it, for asyncio and trio alike."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

import anyio
from anyio.lowlevel import checkpoint

_STEPS = 40


class VirtualTime:
    """Gives `clock` and `sleep` to what is tested, and lets the test say how time passes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._numbers = count()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.now + max(0.0, seconds), next(self._numbers), anyio.Event())
        heapq.heappush(self._sleepers, sleeper)
        try:
            await sleeper[2].wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
                heapq.heapify(self._sleepers)

    async def settle(self) -> None:
        """Let every task go on until it waits for something."""
        for _ in range(_STEPS):
            await checkpoint()

    async def pass_by(self, seconds: float) -> None:
        """Let time pass, and wake whoever sleeps, each at its own moment."""
        end = self.now + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, event = heapq.heappop(self._sleepers)
            self.now = max(self.now, when)
            event.set()
            await self.settle()
        self.now = end


async def eventually(condition: Callable[[], object]) -> None:
    """Wait, in real time, for what a thread does."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)
