"""Alerts to be sent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holistic_asgi_monitor.model import Alert, AlertState, Severity

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def alarm(key: str = "database", **more: Any) -> Alert:
    """An alarm as the outbox has it sent."""
    plain = Alert(
        key=key,
        severity=Severity.CRITICAL,
        state=AlertState.FIRING,
        title=f"{key} is critical",
        summary="no answer within 4 s",
        started_at=NOON,
        service="shop",
        environment="production",
        instance="web-1",
    )
    return replace(plain, **more)


def all_clear(key: str = "database", **more: Any) -> Alert:
    """The all-clear to it, 4 minutes and 10 seconds later."""
    options: dict[str, Any] = {
        "state": AlertState.RESOLVED,
        "title": f"{key} is healthy again",
        "summary": "answers",
        "ended_at": NOON + timedelta(minutes=4, seconds=10),
        "reason": "clear",
    }
    return alarm(key, **options | more)


def notice(title: str = "Deployed", **more: Any) -> Alert:
    """A message of a user's own."""
    options: dict[str, Any] = {
        "severity": Severity.INFO,
        "state": AlertState.NOTICE,
        "title": title,
        "summary": "",
        "reason": "notice",
    }
    return alarm(f"notice: {title}", **options | more)
