"""An alert as JSON, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from holistic_asgi_monitor.model import Alert, AlertState, Severity

__all__ = ("alert_from", "as_json", "encoded")

DEEPEST = 20
_ORIGIN = ("service", "environment", "instance")


def as_json(alert: Alert) -> dict[str, Any]:
    """Every field of the alert as a JSON value; times in ISO 8601 with offset."""
    ended = alert.ended_at
    return {
        "key": _text(alert.key),
        "severity": alert.severity.value,
        "state": alert.state.value,
        "title": _text(alert.title),
        "summary": _text(alert.summary),
        "started_at": alert.started_at.isoformat(timespec="microseconds"),
        "ended_at": None if ended is None else ended.isoformat(timespec="microseconds"),
        "details": _plain(alert.details),
        "reason": alert.reason,
        **{name: _text(getattr(alert, name)) for name in _ORIGIN},
        "dashboard_url": alert.dashboard_url,
        "runbook_url": alert.runbook_url,
    }


def alert_from(values: Mapping[str, Any]) -> Alert:
    """The alert that `as_json` wrote; KeyError, TypeError or ValueError where it did not."""
    ended = values["ended_at"]
    alert = Alert(
        key=str(values["key"]),
        severity=Severity(values["severity"]),
        state=AlertState(values["state"]),
        title=str(values["title"]),
        summary=str(values["summary"]),
        started_at=datetime.fromisoformat(values["started_at"]),
        ended_at=None if ended is None else datetime.fromisoformat(ended),
        details=dict(values["details"]),
        reason=str(values["reason"]),
        **{name: str(values[name]) for name in _ORIGIN},
        dashboard_url=_address(values["dashboard_url"]),
        runbook_url=_address(values["runbook_url"]),
    )
    if alert.started_at.tzinfo is None or (alert.ended_at and alert.ended_at.tzinfo is None):
        raise ValueError
    return alert


def _address(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise TypeError


def encoded(value: object) -> bytes:
    """The bytes of JSON that any parser takes."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _plain(value: object, depth: int = 0) -> Any:
    """The value as JSON has it; what JSON lacks becomes a text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth < DEEPEST:
        if isinstance(value, Mapping):
            return {_text(name): _plain(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, depth + 1) for each in value]
    return _text(value)


def _text(value: object) -> str:
    """The value as a text that UTF-8 can hold."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
