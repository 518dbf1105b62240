"""The timing of a run: the story fits into the time there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.demo.script import Script


def test_without_an_end_it_fails_after_15_seconds_and_is_back_20_later() -> None:
    """The first minute of an endless run is the story of the documentation."""
    script = Script.lasting(None)

    assert (script.fails_at, script.returns_at, script.interval) == (15.0, 35.0, 2.0)


@pytest.mark.parametrize(("seconds", "fails_at", "returns_at"), [(20, 5, 11), (8, 2, 4.4)])
def test_a_short_run_scales_the_failure(seconds: float, fails_at: float, returns_at: float) -> None:
    """A quarter and 55 % of the time."""
    script = Script.lasting(seconds)

    assert script.fails_at == pytest.approx(fails_at)
    assert script.returns_at == pytest.approx(returns_at)


def test_a_long_run_is_no_slower_than_an_endless_one() -> None:
    assert Script.lasting(3600) == Script.lasting(None)


@given(st.floats(min_value=20, max_value=1e6))
def test_from_20_seconds_on_alert_and_all_clear_both_fit_in(seconds: float) -> None:
    """Two rounds fit into the outage, two more after it, each with an interval to spare."""
    script = Script.lasting(seconds)

    assert script.returns_at - script.fails_at >= 3 * script.interval
    assert seconds - script.returns_at >= 3 * script.interval


@given(st.floats(min_value=0.001, max_value=1e6))
def test_every_run_has_its_events_in_order(seconds: float) -> None:
    script = Script.lasting(seconds)

    assert 0 < script.fails_at < script.returns_at < seconds
    assert script.interval >= 0.2
    assert script.lines >= 1.0
