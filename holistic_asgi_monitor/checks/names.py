"""From the name of a host to its addresses, without the threads that the app has for its own work.

An event loop asks in a pool of a few threads, and waits for them at its end: a name service that
hangs would hold up everybody.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address

from holistic_asgi_monitor.checks.loops import Threaded
from holistic_asgi_monitor.checks.per_loop import PerLoop

__all__ = ("Resolver",)


class Resolver:
    """Looks up one host for the check `name`, in a daemon thread, once at a time in each loop."""

    def __init__(self, host: str, name: str) -> None:
        self._host = host
        self._asking = PerLoop(lambda: Threaded(self._look_up, f"check {name}"))

    async def addresses(self) -> list[str]:
        """The addresses in the order in which they are to be tried; a host may be one itself.

        Raises what the socket module does, and `StillRunningError` while the question before has
        no answer.
        """
        with suppress(ValueError):
            return [str(ip_address(self._host))]
        found = await self._asking.here()()
        assert isinstance(found, list)
        return found

    def _look_up(self) -> list[str]:
        found = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(place[0]) for *_, place in found))
