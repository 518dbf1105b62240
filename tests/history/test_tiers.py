"""Tiers: one of them answers a question, and it holds all that the answer needs."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.store import Query
from holistic_asgi_monitor.history.tiers import (
    FINEST,
    ROLLED,
    TIERS,
    expired_before,
    plan,
    ripe_before,
)
from holistic_asgi_monitor.history.values import Kind

MINUTE, HOUR, DAY = 60, 3600, 86_400
NOW = 20_000 * DAY + 12 * HOUR + 1234.5


def asked(back, step, until=0, **options):
    return Query(Kind.REQUESTS, int(NOW) - back, int(NOW) - until, step, **options)


@pytest.mark.parametrize(
    ("back", "step", "tier", "step_in_force"),
    [
        (HOUR, 60, 60, 60),
        (HOUR, 120, 60, 120),
        (DAY, 300, 300, 300),
        (DAY, 420, 60, 420),
        (48 * HOUR, 60, 60, 60),
        (7 * DAY, 60, 300, 300),
        (14 * DAY, 300, 300, 300),
        (30 * DAY, 300, 3600, 3600),
        (30 * DAY, 5400, 3600, 7200),
        (30 * DAY, DAY, DAY, DAY),
        (90 * DAY, 3600, 3600, 3600),
        (365 * DAY, 60, DAY, DAY),
        (3000 * DAY, 60, DAY, DAY),
        (HOUR, 5, 60, 60),
        (5 * MINUTE, None, 60, 7 * MINUTE),
        (HOUR, None, 300, 65 * MINUTE),
        (DAY, None, 3600, 25 * HOUR),
        (30 * DAY, None, DAY, 31 * DAY),
    ],
)
def test_the_coarsest_tier_that_is_fine_enough_answers(back, step, tier, step_in_force):
    found = plan(asked(back, step), NOW)

    assert found.tier.step == tier
    assert found.step == pytest.approx(step_in_force, abs=60)


@given(
    st.integers(min_value=0, max_value=800 * DAY),
    st.integers(min_value=1, max_value=DAY),
    st.one_of(st.none(), st.integers(min_value=1, max_value=3 * DAY)),
)
def test_a_plan_covers_the_range_in_whole_windows_that_still_exist(back, length, step):
    query = Query(Kind.REQUESTS, int(NOW) - back, int(NOW) - back + length, step)
    found = plan(query, NOW)

    assert found.start <= query.start
    assert found.end >= query.end
    assert found.step % found.tier.step == 0
    assert (found.end - found.start) % found.step == 0
    assert found.start % found.tier.step == 0
    if found.tier is not TIERS[-1]:
        assert found.start >= expired_before(found.tier, NOW), "part of it is deleted already"


@given(st.integers(min_value=0, max_value=10**10), st.integers(min_value=1, max_value=400))
def test_every_value_of_the_range_belongs_to_one_stretch_of_it(time, minutes):
    query = Query(Kind.REQUESTS, time, time + minutes * 60, 300)
    found = plan(query, float(time + minutes * 60))
    stretches = range(found.start, found.end, found.step)

    for each in range(found.start, found.end, found.tier.step):
        assert found.stretch(each) in stretches
        assert 0 <= each - found.stretch(each) < found.step


def test_a_tier_that_the_cap_has_cut_does_not_answer_for_what_it_lost():
    floors = {300: int(NOW) - 3 * DAY}

    assert plan(asked(2 * DAY, 300), NOW, floors).tier.step == 300
    assert plan(asked(4 * DAY, 300), NOW, floors).tier.step == 3600


def test_only_the_finest_tier_knows_the_instances():
    assert plan(asked(40 * DAY, 3600, instance="web-1"), NOW).tier is FINEST


def test_a_window_is_ripe_when_it_is_over_and_rows_have_had_time_to_come():
    end = 20_000 * DAY + 300

    assert ripe_before(end + 89) == end - 300
    assert ripe_before(end + 90) == end


def test_each_tier_is_made_of_whole_windows_of_the_one_before():
    assert all(coarse.step % fine.step == 0 for fine, coarse in pairwise(TIERS))
    assert (FINEST, *ROLLED) == TIERS


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"where": {"model": "x"}}, "requests has no label model"),
        ({"by": ("check",)}, "requests has no label check"),
        ({"step": 0}, "the step is 0 s; allowed is a whole number above 0"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Query(Kind.REQUESTS, 0, 60, **options)
