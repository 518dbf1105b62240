"""What a check has once in each event loop: what belongs to one must never meet another.

One check may be asked in two event loops at once, in two threads, and in one after another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio

from holistic_asgi_monitor.checks.loops import running_loop

__all__ = ("PerLoop", "Sharing")

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Has `make` make something for each event loop, when it is first wanted there."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: dict[object, T] = {}

    def here(self) -> T:
        """What this event loop has."""
        loop = running_loop()
        if loop not in self._kept:
            self.orphans()
            self._kept[loop] = self._make()
        return self._kept[loop]

    def known(self) -> T | None:
        """What this event loop has, if it has it already; None outside of one."""
        try:
            loop = running_loop()
        except RuntimeError:
            return None
        return self._kept.get(loop)

    def take(self) -> T | None:
        """What this event loop has, which is forgotten here."""
        return self._kept.pop(running_loop(), None)

    def orphans(self) -> list[T]:
        """What event loops had that have ended, which is forgotten here."""
        ended = [loop for loop in list(self._kept) if _has_ended(loop)]
        return [self._kept.pop(loop) for loop in ended if loop in self._kept]


class Sharing(Generic[T]):
    """Work that is done once for all who want it while it is being done, in each event loop.

    Where it failed, or whoever did it was cancelled, the next one does it.
    """

    def __init__(self) -> None:
        self._flights: PerLoop[_Flight[T]] = PerLoop(_Flight)

    async def __call__(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns, or has returned to somebody since this was called."""
        flight = self._flights.here()
        async with flight.lock:
            if not flight.outcome:
                flight.outcome.append(await work())
                # Who comes from now on wants it done again.
                self._flights.take()
            return flight.outcome[0]


@dataclass(frozen=True, slots=True)
class _Flight(Generic[T]):
    """One time that the work is done, and what came of it."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    outcome: list[T] = field(default_factory=list)


def _has_ended(loop: Any) -> bool:
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.is_closed()
    import trio

    try:
        # Does nothing there, and cannot be asked of a loop that has ended.
        loop.run_sync_soon(int)
    except trio.RunFinishedError:
        return True
    return False
