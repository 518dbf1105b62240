"""Writes alerts to the log: where they go when no other notifier is set up."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.wording import clean, how_long, origin, paragraphs, state_word

__all__ = ("Log",)

_logger = logging.getLogger("holistic_asgi_monitor.alerts")

_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}


class Log:
    """One line for each alert, to the logger `holistic_asgi_monitor.alerts`.

    An alarm is logged at the level of its severity; what is over never above WARNING, but not
    below either, since a log that shows the alarm should show its end.
    """

    def __init__(self, *, name: str = "log") -> None:
        self.name = name

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Write the alerts."""
        for alert in alerts:
            level = _LEVELS[alert.severity]
            if alert.state is AlertState.RESOLVED:
                level = min(level, logging.WARNING)
            _logger.log(level, "%s", _line(alert))


def _line(alert: Alert) -> str:
    where = origin(alert)
    head = f"{state_word(alert)} {where}" if where else state_word(alert)
    long = [_paragraph(lines) for lines in paragraphs(alert)]
    texts = [alert.title, *(long or [alert.summary, *_details(alert)])]
    return clean(f"{head}: {'; '.join(filter(None, texts))}{_lasted(alert)}")


def _paragraph(lines: Sequence[str]) -> str:
    head, *others = lines
    return f"{head}: {'; '.join(others)}" if others else head


def _details(alert: Alert) -> list[str]:
    return [f"{name}: {value}" for name, value in alert.details.items()]


def _lasted(alert: Alert) -> str:
    if alert.ended_at is None:
        return ""
    return f" (it lasted {how_long(alert.started_at, alert.ended_at)})"
