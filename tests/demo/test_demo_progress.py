"""The line of progress: the pace, the numbers, the health."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from holistic_asgi_monitor.demo.progress import Pace, sentence
from holistic_asgi_monitor.demo.screen import Colour
from holistic_asgi_monitor.model import CheckResult, Report, Status

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_the_pace_is_that_of_the_last_seconds() -> None:
    """A burst is forgotten once it is older than the window."""
    pace = Pace(100.0, window_seconds=5.0)

    assert pace.of(50, now=101.0) == 50.0
    assert pace.of(100, now=105.0) == 20.0
    assert pace.of(140, now=109.0) == 10.0


def test_readings_further_apart_than_the_window_still_give_a_pace() -> None:
    pace = Pace(0.0, window_seconds=5.0)

    assert pace.of(100, now=10.0) == 10.0
    assert pace.of(200, now=20.0) == 10.0


def test_two_readings_at_one_time_divide_by_nothing() -> None:
    assert Pace(3.0).of(0, now=3.0) == 0.0


def report(status: Status, **services: Status) -> Report:
    results = {name: CheckResult(each) for name, each in services.items()}
    return Report(status, NOON, 0.0, results)


@pytest.mark.parametrize(
    ("status", "health", "colour"),
    [
        (Status.HEALTHY, "healthy", Colour.CYAN),
        (Status.DEGRADED, "degraded (payments)", Colour.YELLOW),
        (Status.CRITICAL, "critical (payments)", Colour.RED),
    ],
)
def test_it_names_what_is_unwell(status: Status, health: str, colour: Colour) -> None:
    numbers = {"windows": {"1m": {"p95_ms": 71.6, "error_rate_percent": 2.345}}}
    text, painted = sentence(numbers, report(status, system=Status.HEALTHY, payments=status), 40.52)

    assert text == f" 40.5 requests/s   p95 72 ms   errors 2.3 %   health {health}"
    assert painted is colour


def test_before_the_first_request_there_are_no_numbers() -> None:
    numbers = {"windows": {"1m": {"p95_ms": None, "error_rate_percent": None}}}

    text, _ = sentence(numbers, report(Status.HEALTHY), 0.0)

    assert text == "  0.0 requests/s   p95 - ms   errors - %   health healthy"
