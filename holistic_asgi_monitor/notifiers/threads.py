"""Where a notifier waits for its peer: in a thread, and in no more than one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.threads import Call

__all__ = ("OneThread",)

T = TypeVar("T")


class OneThread:
    """Calls functions in a daemon thread, one at a time.

    Who waits can be cancelled at any time: the call is then left to itself, and as long as it
    lasts another one is refused with a `DeliveryError`.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    async def call(self, function: Callable[[], T]) -> T:
        """What `function` returns; what it raises is raised."""
        if self._thread is not None and self._thread.is_alive():
            raise DeliveryError("the message before is still on its way")
        call = Call(function)
        self._thread = threading.Thread(target=call.run, name=self._name, daemon=True)
        self._thread.start()
        await call.done.wait()
        # It has nothing left to do but end.
        self._thread = None
        return await call.outcome()
