"""How long to wait before the next try, as the answer to the last one asks for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ("asked_wait",)


def asked_wait(headers: Mapping[str, Any], now: datetime, body: str = "") -> float | None:
    """The seconds that `Retry-After` asks for, else `retry_after` in the body; None without both.

    The header may hold whole seconds, a fraction or an HTTP date.
    """
    named = (str(value) for name, value in headers.items() if name.lower() == "retry-after")
    value = next(named, "").strip()
    seconds = _number(value)
    if seconds is None:
        seconds = _seconds_until(value, now)
    return seconds if seconds is not None else _wait_in_body(body)


def _number(value: object) -> float | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _wait_in_body(body: str) -> float | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return _number(answer.get("retry_after")) if isinstance(answer, dict) else None
