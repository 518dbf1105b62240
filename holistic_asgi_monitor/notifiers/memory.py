"""Keeps alerts in memory, for tests and for a look at them from the application."""

from __future__ import annotations

from collections.abc import Sequence

from holistic_asgi_monitor.model import Alert

__all__ = ("Memory",)


class Memory:
    """Keeps the last `limit` alerts in the list `alerts`, newest last."""

    def __init__(self, *, name: str = "memory", limit: int = 1000) -> None:
        self.name = name
        self.alerts: list[Alert] = []
        self._limit = limit

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Keep the alerts."""
        self.alerts.extend(alerts)
        surplus = len(self.alerts) - self._limit
        if surplus > 0:
            del self.alerts[:surplus]

    def clear(self) -> None:
        """Forget what was kept."""
        self.alerts.clear()
