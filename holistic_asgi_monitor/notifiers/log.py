"""Writes alerts to the log: what is used where no other notifier is set up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.wording import duration, plain

__all__ = ("Log",)

_logger = logging.getLogger("holistic_asgi_monitor.alerts")

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}


class Log:
    """One line for each alert, to the logger `holistic_asgi_monitor.alerts`."""

    def __init__(self, *, name: str = "log") -> None:
        self.name = name

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Write the alerts, the all-clear at INFO, an alarm at the level of its severity."""
        for alert in alerts:
            resolved = alert.state is AlertState.RESOLVED
            level = logging.INFO if resolved else _LEVELS[alert.severity]
            _logger.log(level, "%s", _line(alert))


def _line(alert: Alert) -> str:
    word = "ALL-CLEAR" if alert.state is AlertState.RESOLVED else alert.severity.value.upper()
    text = f"{word} {alert.service}: {alert.title}"
    if alert.summary:
        text += f": {alert.summary}"
    return plain(text + duration(alert))
