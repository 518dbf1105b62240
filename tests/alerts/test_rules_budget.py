"""Error budgets: when they burn too fast, over two windows at a time, and what is said of it."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.budget import (
    MINIMUM_BAD,
    RULES,
    Objective,
    Read,
    Spent,
    burning,
    judged,
)
from holistic_asgi_monitor.model import Severity, Status

MINUTE, HOUR = 60.0, 3600.0
LENGTHS = sorted({length for rule in RULES for length in (rule.long, rule.short)})
AVAILABILITY = Objective("slo availability", 99.9, "the error budget of 30 days (99.9 %)", "failed")


def steady(per_hour: int, bad_share: float, seen: float = 100 * HOUR) -> Read:
    """An app that has always had so many requests and bad ones, for so many `seen` seconds."""

    def read(seconds: float) -> Spent:
        really = min(seconds, seen)
        count = round(per_hour * really / HOUR)
        return Spent(really, count, round(count * bad_share))

    return read


def once(count: int, bad: int, ago: float, seen: float = 24 * HOUR) -> Read:
    """`count` requests spread over all that was seen, and all bad ones at once, `ago` seconds."""

    def read(seconds: float) -> Spent:
        really = min(seconds, seen)
        good = round(count * really / seen)
        return Spent(really, good + bad * (ago <= seconds), bad * (ago <= seconds))

    return read


def status(read: Read, objective: Objective = AVAILABILITY) -> Status | None:
    observation = judged(objective, read)
    return None if observation is None else observation.status


@pytest.mark.parametrize(
    ("share", "severity"),
    [
        (0.0, None),
        (0.001, None),
        (0.0029, None),
        (0.0031, Severity.WARNING),
        (0.0059, Severity.WARNING),
        (0.0061, Severity.ERROR),
        (0.0143, Severity.ERROR),
        (0.0145, Severity.CRITICAL),
        (1.0, Severity.CRITICAL),
    ],
)
def test_the_pace_says_how_bad_it_is(share: float, severity: Severity | None) -> None:
    observation = judged(AVAILABILITY, steady(100_000, share))

    assert observation is not None
    assert (observation.key, observation.severity) == ("slo availability", severity)


@pytest.mark.parametrize(
    ("ago", "expected"),
    [(1 * MINUTE, Status.CRITICAL), (6 * MINUTE, Status.UNHEALTHY), (31 * MINUTE, Status.DEGRADED)],
)
def test_what_is_over_in_the_short_window_is_no_page_any_more(ago: float, expected: Status) -> None:
    assert status(once(100_000, 2_000, ago)) is expected


def test_what_is_over_in_every_short_window_is_well() -> None:
    assert status(once(100_000, 2_000, 7 * HOUR)) is Status.HEALTHY


@given(
    count=st.integers(0, 1_000_000),
    bad=st.integers(0, MINIMUM_BAD - 1),
    ago=st.floats(0, 30 * HOUR),
    seen=st.floats(1, 30 * HOUR),
    percent=st.floats(50, 99.999),
)
def test_fewer_bad_requests_than_five_never_fire_however_quiet_the_app(
    count: int, bad: int, ago: float, seen: float, percent: float
) -> None:
    """Of n requests one fails, or up to four: nobody is called, whatever was promised."""
    objective = Objective("slo", percent, "the budget", "failed")

    assert burning(objective, once(count, bad, ago, seen)) is None


def test_five_are_enough_on_a_quiet_app() -> None:
    assert status(once(30, MINIMUM_BAD, MINUTE, HOUR)) is Status.CRITICAL


SPENT = st.integers(0, 5_000).flatmap(
    lambda count: st.builds(Spent, st.just(0.0), st.just(count), st.integers(0, count))
)


@given(
    windows=st.fixed_dictionaries(dict.fromkeys(LENGTHS, SPENT)),
    more=st.sampled_from(LENGTHS),
    percent=st.floats(50, 99.999),
)
def test_more_bad_requests_are_never_less_grave(
    windows: dict[float, Spent], more: float, percent: float
) -> None:
    objective = Objective("slo", percent, "the budget", "failed")
    windows = {seconds: Spent(seconds, each.count, each.bad) for seconds, each in windows.items()}
    before = status(windows.__getitem__, objective)
    one = windows[more]
    assume(one.bad < one.count)
    worse = windows | {more: Spent(more, one.count, one.bad + 1)}

    after = status(worse.__getitem__, objective)
    assert before is not None
    assert after is not None
    assert after >= before


@pytest.mark.parametrize("percent", [50.0, 80.0, 93.0, 99.999])
def test_a_complete_outage_is_critical_whatever_was_promised(percent: float) -> None:
    objective = Objective("slo", percent, "the budget", "failed")

    assert status(steady(1_000, 1.0), objective) is Status.CRITICAL


class TestYoungProcess:
    def test_its_first_minutes_do_not_stand_for_an_hour(self) -> None:
        """Five minutes at 20 times are a fifth of what an hour at 14.4 times would burn."""
        read = steady(100_000, 0.02, seen=5 * MINUTE)

        assert status(read) is None, "it may be, so it is not said that all is well"

    def test_an_outage_is_told_within_its_first_minutes(self) -> None:
        assert status(steady(100_000, 1.0, seen=30.0)) is None
        assert status(steady(100_000, 1.0, seen=60.0)) is Status.CRITICAL

    def test_it_is_well_once_the_shortest_window_has_been_seen(self) -> None:
        assert status(steady(100_000, 0.0, seen=4 * MINUTE)) is None
        assert status(steady(100_000, 0.0, seen=5 * MINUTE)) is Status.HEALTHY

    def test_a_slow_rule_keeps_no_all_clear_back_for_hours(self) -> None:
        assert status(once(100_000, 2_000, ago=40 * MINUTE, seen=2 * HOUR)) is Status.HEALTHY

    def test_it_knows_when_the_window_is_full(self) -> None:
        assert status(steady(100_000, 0.02, seen=HOUR)) is Status.CRITICAL


class TestKnown:
    """What is known to burn, from before a restart or from the rounds before."""

    @pytest.mark.parametrize("share", [0.004, 0.01, 0.05])
    @pytest.mark.parametrize("seen", [MINUTE, 5 * MINUTE, 30 * MINUTE])
    def test_after_a_restart_it_is_not_over_while_it_burns(self, share: float, seen: float) -> None:
        observation = judged(AVAILABILITY, steady(100_000, share, seen=seen), known=True)

        assert observation is not None
        assert observation.kept or observation.severity is not None

    def test_after_a_restart_it_is_over_once_it_is_seen_to_be(self) -> None:
        for seen, status in ((4 * MINUTE, Status.SKIPPED), (5 * MINUTE, Status.HEALTHY)):
            observation = judged(AVAILABILITY, steady(100_000, 0.0, seen=seen), known=True)
            assert observation is not None
            assert (observation.status, observation.kept) == (status, status is Status.SKIPPED)

    @pytest.mark.parametrize("ago", [6 * MINUTE, 31 * MINUTE])
    def test_what_is_well_now_is_told_no_more_until_it_is_over(self, ago: float) -> None:
        observation = judged(AVAILABILITY, once(100_000, 2_000, ago), known=True)

        assert observation is not None
        assert (observation.severity, observation.kept) == (None, True)


class TestWords:
    def test_an_alarm_says_what_burns_how_fast_and_since_when(self) -> None:
        windows = {each: Spent(each, 1_204, 25) for each in LENGTHS}
        observation = judged(AVAILABILITY, windows.__getitem__)

        assert observation is not None
        assert observation.summary == (
            "the error budget of 30 days (99.9 %) is burning 21 times too fast: "
            "2.08 % of 1,204 requests failed in the last hour"
        )
        assert observation.details == {
            "objective_percent": 99.9,
            "count": 1_204,
            "bad": 25,
            "bad_percent": 2.076,
            "burn_rate": 20.8,
        }

    def test_good_news_has_its_numbers_too(self) -> None:
        observation = judged(AVAILABILITY, steady(10_000, 0.0002))

        assert observation is not None
        assert observation.summary == (
            "0.02 % of 10,000 requests failed in the last hour: "
            "the error budget of 30 days (99.9 %) lasts"
        )

    @pytest.mark.parametrize(
        ("read", "words"),
        [
            (steady(100_000, 1.0, seen=20 * MINUTE), "failed in the last 20 min"),
            (steady(100_000, 0.007), "7 times too fast: 0.7 % of 600,000 requests failed"),
            (steady(100_000, 0.007), "in the last 6 h"),
            (steady(100_000, 0.0035), "3.5 times too fast"),
            (steady(100_000, 0.0035), "in the last 24 h"),
        ],
    )
    def test_it_names_what_was_really_seen(self, read: Read, words: str) -> None:
        observation = judged(AVAILABILITY, read)

        assert observation is not None
        assert words in observation.summary

    def test_without_any_request_all_is_well(self) -> None:
        assert status(steady(0, 0.0)) is Status.HEALTHY
