"""Tells the checks of OpenAI how real calls end, and rings where that cannot wait."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio

from holistic_asgi_monitor.checks.openai import OpenAI

__all__ = ("News",)

_GRAVE = frozenset({"auth_error", "quota_exceeded"})


class News:
    """A listener of calls that tells `checks`.

    A rejected key and a used-up quota `ring`, in the event loop of whoever called `settle`, at
    most once in `pause` seconds. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        checks: Sequence[OpenAI],
        ring: Callable[[], None],
        *,
        pause: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._ring = ring
        self._pause = pause
        self._clock = clock
        self._rang = -math.inf
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def settle(self) -> None:
        """Ring in the event loop that runs here."""
        if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
            self._soon = asyncio.get_running_loop().call_soon_threadsafe
            return
        import trio

        self._soon = trio.lowlevel.current_trio_token().run_sync_soon

    def __call__(self, status: str) -> None:
        """Take in how a call has ended, in whatever thread."""
        now = self._clock()
        for check in self._checks:
            check.saw(status, now)
        if status not in _GRAVE or not self._checks or now - self._rang < self._pause:
            return
        self._rang = now
        if self._soon is not None:
            # That event loop may have ended.
            with suppress(RuntimeError):
                self._soon(self._ring)
