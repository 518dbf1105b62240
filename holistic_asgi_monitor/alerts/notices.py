"""The messages of the user's own, which open no incident."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from holistic_asgi_monitor.alerts.channel import BULLETIN, MOST_NOTICES
from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.plain import plain_details, shortened
from holistic_asgi_monitor.redaction import Redaction

__all__ = ("Inbox", "bulletin_of", "notice_of")

_logger = logging.getLogger("holistic_asgi_monitor")

MOST_TITLES = 1000
LONGEST_TITLE = 300
LONGEST_BULLETIN = 6_000


class Inbox:
    """The messages of the user's own, from any thread, until the loop takes them.

    It lets each pass once in `cooldown` seconds, and what is worse at once. It keeps the newest.
    """

    def __init__(self, cooldown: float) -> None:
        self._cooldown = cooldown
        self._lock = threading.Lock()
        self._admitted: dict[str, float] = {}
        self._waiting: deque[Alert] = deque(maxlen=MOST_NOTICES)

    def admit(self, alert: Alert, now: float) -> bool:
        """Whether the message may pass now; then it waits to be taken."""
        with self._lock:
            if any(now - moment < self._cooldown for moment in self._passed(alert)):
                return False
            mark = _mark(alert.key, alert.severity)
            self._admitted.pop(mark, None)
            self._admitted[mark] = now
            if len(self._admitted) > MOST_TITLES:
                del self._admitted[next(iter(self._admitted))]
            self._waiting.append(alert)
            return True

    @property
    def titles(self) -> dict[str, float]:
        """When each key passed last with each severity, which stands before it; newest last."""
        with self._lock:
            return dict(self._admitted)

    def restore(self, titles: Mapping[str, float]) -> None:
        """Go on from the `titles` of before a restart."""
        with self._lock:
            self._admitted = {**titles, **self._admitted}

    def _passed(self, alert: Alert) -> list[float]:
        """When the same passed last, as grave as this or graver."""
        marks = [_mark(alert.key, each) for each in Severity if each >= alert.severity]
        return [self._admitted.get(mark, -math.inf) for mark in marks]

    def take(self) -> list[Alert]:
        """The messages that wait, the oldest first."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            return taken


def _mark(key: str, severity: Severity) -> str:
    return f"{severity.value} {key}"


def notice_of(
    severity: object, title: object, details: Mapping[str, Any], redaction: Redaction
) -> Alert:
    """A message of the user's own, without secrets; it never raises because of what it is given."""
    title = redaction.text(shortened(str(title), LONGEST_TITLE))
    if not isinstance(severity, Severity):
        _logger.warning("An alert of your own needs a Severity; warning is taken")
        severity = Severity.WARNING
    return Alert(
        key=f"notice: {title}",
        severity=severity,
        state=AlertState.NOTICE,
        title=title,
        summary="",
        started_at=datetime.now(UTC),
        details=dict(redaction.value(plain_details(details))),
        reason="notice",
    )


def bulletin_of(
    key: str,
    severity: Severity,
    text: tuple[str, str],
    details: Mapping[str, Any],
    *,
    time: datetime,
    redaction: Redaction,
) -> Alert:
    """A message that the whole service tells once, without secrets; `text` is title and summary."""
    title, summary = text
    return Alert(
        key=key,
        severity=severity,
        state=AlertState.NOTICE,
        title=redaction.text(shortened(title, LONGEST_TITLE)),
        summary=redaction.text(shortened(summary, LONGEST_BULLETIN)),
        started_at=time,
        details=dict(redaction.value(plain_details(details))),
        reason=BULLETIN,
    )
