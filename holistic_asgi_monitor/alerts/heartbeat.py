"""A sign of life to an address elsewhere, where somebody notices that it stays away."""

from __future__ import annotations

import logging
import math
import time as clocks
from collections.abc import Callable

import anyio

from holistic_asgi_monitor.alerts.bell import Bell, Sleep
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.notifiers.addresses import Address
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.posting import Poster

__all__ = ("Heartbeat",)

_logger = logging.getLogger("holistic_asgi_monitor")

SECONDS = 10.0


class Heartbeat:
    """Asks `url` once after `beat`, and at most once in `interval` seconds.

    The attribute `fresh` is asked before each time whether the last round is not too old. `clock`
    gives monotonic seconds. ConfigurationError where `url` is none.
    """

    def __init__(
        self,
        url: str,
        interval: float,
        *,
        clock: Callable[[], float] = clocks.monotonic,
        sleep: Sleep = anyio.sleep,
        timeout: float = SECONDS,
    ) -> None:
        address = Address.parse(url, "value of MONITOR_HEARTBEAT_URL")
        self.fresh: Callable[[], bool] = lambda: True
        self._poster = Poster(address, who="it", name="heartbeat", timeout=timeout)
        self._interval = interval
        self._clock = clock
        self._sleep = sleep
        self._bell = Bell(sleep)
        self._failing = False

    def beat(self) -> None:
        """Have a sign of life sent; never waits."""
        self._bell.ring()

    async def run(self) -> None:
        """Send what `beat` asks for until cancelled."""
        while True:
            await self._bell.heard(math.inf)
            began = self._clock()
            if self.fresh():
                await self._send()
            await self._sleep(max(0.0, self._interval - (self._clock() - began)))

    async def _send(self) -> None:
        try:
            await self._poster.get()
        except DeliveryError as error:
            self._failed(str(error))
        except Exception as error:
            # Protects the watch.
            self._failed(described(error))
        else:
            if self._failing:
                _logger.info("The heartbeat of MONITOR_HEARTBEAT_URL arrives again")
            self._failing = False

    def _failed(self, sentence: str) -> None:
        if not self._failing:
            _logger.warning("The heartbeat of MONITOR_HEARTBEAT_URL failed: %s", sentence)
        self._failing = True
