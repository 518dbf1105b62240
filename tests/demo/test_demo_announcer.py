"""The demo's notifier: every alert is one line, and is counted."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from holistic_asgi_monitor.demo.announcer import Announcer
from holistic_asgi_monitor.demo.screen import Screen
from holistic_asgi_monitor.model import Alert, AlertState, Notifier, Severity

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def alert(
    state: AlertState, severity: Severity = Severity.WARNING, summary: str = "No answer"
) -> Alert:
    return Alert(
        "payments",
        severity,
        state,
        "payments is degraded",
        summary,
        NOON,
        NOON + timedelta(seconds=20.4) if state is AlertState.RESOLVED else None,
    )


async def said(*alerts: Alert, colour: bool = False) -> str:
    out = io.StringIO()
    await Announcer(Screen(out, colour=colour)).send(alerts)
    return out.getvalue()


def test_it_is_a_notifier() -> None:
    notifier: Notifier = Announcer(Screen(io.StringIO()))

    assert notifier.name == "screen"


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (AlertState.FIRING, "ALERT (warning)  payments is degraded: No answer"),
        (AlertState.NOTICE, "NOTICE (warning)  payments is degraded: No answer"),
        (AlertState.RESOLVED, "ALL-CLEAR  payments is degraded (it lasted 20 s)"),
    ],
)
async def test_each_state_has_its_word(state: AlertState, line: str) -> None:
    assert await said(alert(state)) == f"00:00  {line}\n"


async def test_an_alert_stays_on_one_line() -> None:
    text = await said(alert(AlertState.FIRING, summary="one\ntwo\r\nthree"))

    assert text == "00:00  ALERT (warning)  payments is degraded: one two three\n"


@pytest.mark.parametrize(
    ("state", "severity", "code"),
    [
        (AlertState.FIRING, Severity.WARNING, "1;33"),
        (AlertState.FIRING, Severity.CRITICAL, "1;31"),
        (AlertState.RESOLVED, Severity.CRITICAL, "1;32"),
    ],
)
async def test_its_colour_says_how_grave_it_is(
    state: AlertState, severity: Severity, code: str
) -> None:
    assert f"\x1b[{code}m" in await said(alert(state, severity), colour=True)


async def test_alerts_and_all_clears_are_counted() -> None:
    announcer = Announcer(Screen(io.StringIO()))
    await announcer.send([alert(AlertState.FIRING), alert(AlertState.NOTICE)])
    await announcer.send([alert(AlertState.RESOLVED)])

    assert (announcer.alerts, announcer.all_clears) == (2, 1)
