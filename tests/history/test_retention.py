"""Which time deleting goes by: pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.retention import Retention
from tests.history.samples import NOON

HOUR, DAY, YEAR = 3600, 86_400, 365 * 86_400


def after(*times, known=None):
    found = Retention(NOON) if known is None else known
    for time in times:
        found = found.after(time)
    return found


def steps(start, seconds, every=300):
    return range(start, start + seconds + 1, every)


def test_time_that_passes_evenly_is_believed():
    assert after(*steps(NOON, 3 * DAY)) == Retention(NOON + 3 * DAY)


@pytest.mark.parametrize("jump", [HOUR + 1, DAY, 3 * YEAR])
def test_a_clock_that_jumps_ahead_is_believed_after_a_day(jump):
    ahead = NOON + jump

    assert not after(*steps(ahead, DAY - 300)).believed
    assert after(*steps(ahead, DAY)) == Retention(ahead + DAY)


def test_a_service_that_rests_every_night_is_believed_after_some_days():
    days = [time for day in range(1, 8) for time in steps(NOON + day * DAY, 8 * HOUR)]

    assert not after(*days[:97]).believed
    assert any(after(*days[:number]).believed for number in range(97, len(days)))


def test_of_two_replicas_the_one_that_is_ahead_is_never_believed():
    """Both look after the same history, in turn, for a week."""
    found = Retention(NOON)
    for time in steps(NOON, 7 * DAY):
        found = found.after(time)
        assert found.believed
        found = found.after(time + YEAR)
        assert not found.believed


def test_a_clock_that_is_right_again_is_believed_at_once():
    assert after(NOON + YEAR, NOON + YEAR + 300, NOON + 900) == Retention(NOON + 900)
    assert after(*steps(NOON + YEAR, DAY), NOON + DAY + 300) == Retention(NOON + DAY + 300)


@given(st.lists(st.integers(0, 40 * YEAR), max_size=24))
def test_fewer_steps_than_a_day_has_hours_lead_no_further_than_a_day(jumps):
    found = Retention(NOON)
    for jump in jumps:
        found = found.after(NOON + jump)
        assert found.sure <= NOON + DAY
