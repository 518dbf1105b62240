"""Lets maintenance and silences hold for all processes that have one voice.

Whoever is given an order writes it where the others look every few seconds.
"""

from __future__ import annotations

import json
import logging
import math
import time as clocks
from collections.abc import Callable
from datetime import UTC, datetime

import anyio

from holistic_asgi_monitor.alerts.keeping import LOAD_SECONDS, Shelf
from holistic_asgi_monitor.alerts.memory import (
    LONGEST_CHARACTERS,
    Moments,
    UnreadableError,
    read_orders,
    written_orders,
)
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.quiet import Orders
from holistic_asgi_monitor.failures import described

__all__ = ("SharedOrders",)

_logger = logging.getLogger("holistic_asgi_monitor")

LOOK_SECONDS = 5.0


class SharedOrders:
    """Keeps the orders of `outbox` the same as those on `shelf`; `step` is for about each second.

    What is ordered in two processes at the same time holds both. `clock` gives monotonic seconds,
    `wall` the time in UTC.
    """

    def __init__(
        self,
        outbox: Outbox,
        shelf: Shelf,
        *,
        clock: Callable[[], float] = clocks.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._shelf = shelf
        self._clock = clock
        self._wall = wall
        self._agreed: Orders | None = None
        self._is_first = True
        self._text: str | None = None
        self._looked = -math.inf
        self._failing = False

    async def step(self) -> None:
        """Take over what others were told, and tell them what was ordered here; never raises."""
        now = self._clock()
        if self._agreed is None:
            # What a process before remembered: what is ordered from now on is news.
            self._agreed = self._outbox.quiet_times.orders
        is_due = now - self._looked >= LOOK_SECONDS
        if not is_due and (self._failing or not self._is_changed(now)):
            return
        self._looked = now
        try:
            with anyio.fail_after(LOAD_SECONDS):
                await self._agree()
        except Exception as error:
            self._say_failing(error)
        else:
            self._failing = False

    def _is_changed(self, now: float) -> bool:
        """Whether something was ordered here; what is over by its time is no change."""
        agreed, held = self._agreed, self._outbox.quiet_times.orders
        assert agreed is not None
        lasting = tuple(each for each in agreed.windows if now < each.until)
        silences = {key: each for key, each in agreed.silences.items() if now < each.until}
        return (lasting, silences) != (held.windows, dict(held.silences))

    async def _agree(self) -> None:
        text = await self._shelf.load()
        held = self._outbox.quiet_times.orders
        changed = self._is_changed(self._clock())
        if text is not None and text != self._text:
            held = self._merged(text, held)
        elif text is None and self._is_first:
            changed = bool(held.windows or held.silences)
        if changed:
            values = written_orders(held, Moments(self._clock(), self._wall()))
            text = json.dumps(values, separators=(",", ":"))
            await self._shelf.save(text)
        self._text, self._is_first = text, False
        self._outbox.shares_orders = text is not None
        self._outbox.quiet_times.agree(held)
        self._agreed = self._outbox.quiet_times.orders

    def _merged(self, text: str, held: Orders) -> Orders:
        """What others were told, with what was ordered here since they were last heard of."""
        try:
            found = read_orders(_values(text), Moments(self._clock(), self._wall()))
        except UnreadableError as error:
            _logger.warning("What other processes were told to be quiet of %s", error)
            return held
        return found.merged(self._agreed or held, held, self._clock())

    def _say_failing(self, error: Exception) -> None:
        if not self._failing and self._is_changed(self._clock()):
            self._failing = True
            _logger.warning(
                "Maintenance and silences hold for this process alone now: %s", described(error)
            )


def _values(text: str) -> object:
    if len(text) > LONGEST_CHARACTERS:
        raise UnreadableError(f"has more than {LONGEST_CHARACTERS} characters")
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        raise UnreadableError("is no JSON") from None
