"""The demo's own notifier: every alert as one coloured line."""

from __future__ import annotations

from collections.abc import Sequence

from holistic_asgi_monitor.demo.screen import Colour, Screen
from holistic_asgi_monitor.model import Alert, AlertState, Severity

__all__ = ("Announcer",)

_WORDS = {
    AlertState.FIRING: "ALERT",
    AlertState.RESOLVED: "ALL-CLEAR",
    AlertState.NOTICE: "NOTICE",
}


class Announcer:
    """A notifier that writes on a screen and counts what it wrote.

    `alerts` and `all_clears` are the numbers of messages of each kind so far.
    """

    name = "screen"

    def __init__(self, screen: Screen) -> None:
        self.alerts = 0
        self.all_clears = 0
        self._screen = screen

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Write each alert; one that ended counts as an all-clear."""
        for alert in alerts:
            self._screen.say(_sentence(alert), _colour(alert))
            if alert.state is AlertState.RESOLVED:
                self.all_clears += 1
            else:
                self.alerts += 1


def _sentence(alert: Alert) -> str:
    """The alert on one line: what began and why, or what ended and how long it lasted."""
    word = _WORDS[alert.state]
    if alert.state is AlertState.RESOLVED:
        line = f"{word}  {alert.title}{_duration(alert)}"
    else:
        text = ": ".join(part for part in (alert.title, alert.summary) if part)
        line = f"{word} ({alert.severity.value})  {text}"
    return " ".join(line.splitlines())


def _duration(alert: Alert) -> str:
    if alert.ended_at is None:
        return ""
    return f" (it lasted {(alert.ended_at - alert.started_at).total_seconds():.0f} s)"


def _colour(alert: Alert) -> Colour:
    if alert.state is AlertState.RESOLVED:
        return Colour.GREEN
    return Colour.RED if alert.severity >= Severity.ERROR else Colour.YELLOW
