"""Wording that the notifiers share: where an alert comes from, in which state, how long."""

from __future__ import annotations

import re
from datetime import datetime

from holistic_asgi_monitor.model import Alert, AlertState

__all__ = ("clean", "how_long", "origin", "paragraphs", "state_word")

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
# Controls, halves of surrogate pairs, and the marks with which a text turns its direction.
_UNWANTED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SPACE = re.compile(r"\s+")


def clean(text: object) -> str:
    """The text on one line, without what a reader cannot see and a display obeys."""
    return _UNWANTED.sub("", _SPACE.sub(" ", str(text))).strip()


def paragraphs(alert: Alert) -> list[list[str]]:
    """The lines of each paragraph of a message that has several; none for any other alert.

    The first line of a paragraph of more than one is its head. Such a text says all that the
    details do, which are for machines then.
    """
    if alert.state is not AlertState.NOTICE:
        return []
    found = [each.splitlines() for each in alert.summary.split("\n\n")]
    cleaned = [[line for line in map(clean, lines) if line] for lines in found]
    some = [lines for lines in cleaned if lines]
    return some if len(some) > 1 else []


def state_word(alert: Alert) -> str:
    """The state in one word: the severity of an alarm, or that it is over."""
    if alert.state is AlertState.RESOLVED:
        return "RESOLVED"
    return alert.severity.value.upper()


def origin(alert: Alert) -> str:
    """Where it comes from: service, environment and instance, as far as they are known."""
    return " / ".join(filter(None, (alert.service, alert.environment, alert.instance)))


def how_long(start: datetime, end: datetime) -> str:
    """The time between two moments in its two largest units: `4 min 10 s`, `2 h`, `0 s`."""
    # The clocks may have been set back meanwhile.
    left = max(0, round((end - start).total_seconds()))
    parts: list[tuple[int, str]] = []
    for name, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, name))
    said = [f"{count} {name}" for count, name in parts[:2] if count]
    return " ".join(said) or "0 s"
