"""What is said of spend: budgets, days, hours, and how a month will end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.usage.calendar import month_of
from holistic_asgi_monitor.usage.spend import (
    DOLLAR,
    Budgets,
    Day,
    Finding,
    Past,
    Verdict,
    days_of,
    judged,
)

HOUR = 3600
MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
NO_BUDGETS = Budgets()


def spread(days: Sequence[float], start: datetime = MONDAY) -> dict[int, int]:
    """Dollars of whole days, about the same in each hour."""
    first = int(start.timestamp())
    spent: dict[int, int] = {}
    for place, amount in enumerate(days):
        each, rest = divmod(dollars(amount), 24)
        for hour in range(24):
            spent[first + 86_400 * place + HOUR * hour] = each + rest * (hour == 23)
    return spent


def at(
    spent: Mapping[int, int], now: float, budgets: Budgets = NO_BUDGETS, zone: tzinfo = UTC
) -> Verdict:
    """The verdict at a time, of what was spent before it."""
    so_far = {time: nano for time, nano in spent.items() if time <= now}
    *before, today = days_of({**so_far, int(now): so_far.get(int(now), 0)}, now, zone)
    return judged(Past(before), today, month_of(now, zone), budgets, now)


def at_end(
    days: Sequence[float], budgets: Budgets = NO_BUDGETS, start: datetime = MONDAY
) -> Verdict:
    """The verdict at the end of the last of these days."""
    spent = spread(days, start)
    return at(spent, max(spent) + HOUR - 1, budgets)


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(found.kind, found.level) for found in verdict.findings]


def of_day(verdict: Verdict) -> list[str]:
    """What is said of the day as a whole."""
    return [found.level for found in verdict.findings if found.kind == "day"]


def dollars(amount: float) -> int:
    return round(amount * DOLLAR)


# Budgets


@pytest.mark.parametrize(
    ("spent", "level"),
    [(4.99, None), (5, "50"), (7.99, "50"), (8, "80"), (9.99, "80"), (10, "100"), (12, "100")],
)
def test_the_highest_step_of_a_budget_that_is_reached_is_said(
    spent: float, level: str | None
) -> None:
    verdict = at_end([0.0] * 5 + [spent], Budgets(day=dollars(10)))
    expected = [] if level is None else [("budget", level)]

    assert [each for each in kinds(verdict) if each[0] == "budget"] == expected


def test_a_jump_over_steps_says_the_highest_and_leaves_nothing_to_the_others() -> None:
    (found,) = at_end([12.0], Budgets(month=dollars(10))).findings

    assert found.level == "100"
    assert found.ratio == pytest.approx(1.2)
    lower = replace(found, level="50")
    assert found.key in lower.graver
    assert not found.graver


def test_day_and_month_have_steps_of_their_own() -> None:
    verdict = at_end([9.0], Budgets(day=dollars(10), month=dollars(10)))

    assert {found.key for found in verdict.findings} == {
        "spend budget day 2026-06-01 80 of 10.00",
        "spend budget month 2026-06 80 of 10.00",
    }


def test_a_new_month_begins_at_nothing() -> None:
    verdict = at_end([9.0] * 31, Budgets(month=dollars(300)))

    assert verdict.month == verdict.today == pytest.approx(dollars(9), abs=100)
    assert [each for each in kinds(verdict) if each[0] == "budget"] == []


def test_months_and_days_end_where_the_clock_says_so() -> None:
    # The last hour of June in UTC is the first but one of July in Berlin.
    end = int(datetime(2026, 6, 30, 22, 30, tzinfo=UTC).timestamp())
    spent = {end - 2 * HOUR: dollars(3), end: dollars(4)}

    assert (at(spent, end).today, at(spent, end).month) == (dollars(7), dollars(7))
    local = at(spent, end, zone=BERLIN)
    assert (local.today, local.month) == (dollars(4), dollars(4))


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_a_day_of_summer_time_change_is_a_whole_day(day: str, hours: int) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=BERLIN)
    first = int(start.timestamp())
    spent = {first + HOUR * hour: dollars(1) for hour in range(-24, 48)}
    days = {each.period.name: each for each in days_of(spent, first + 40 * HOUR, BERLIN)}

    assert days[day].spent == dollars(hours)
    assert len(days[day].hours) == len(days[day].clock) == hours
    assert days[day].weekday == 6
    assert days[day].clock[:2] == (0, 1)
    assert days[day].clock[-1] == 23


def test_half_hours_belong_to_the_day_that_they_are_in() -> None:
    zone = ZoneInfo("Asia/Kolkata")
    midnight = int(datetime(2026, 6, 2, tzinfo=zone).timestamp())
    days = days_of({midnight - 1800: 5, midnight: 7}, midnight, zone)

    assert [day.spent for day in days] == [5, 7]


# Days


def test_nothing_is_unusual_in_the_first_week() -> None:
    assert at_end([1.0] * 6 + [500.0]).findings == ()


@pytest.mark.parametrize(("days", "factor"), [(7, 3.0), (27, 3.0), (28, 2.5), (40, 2.5)])
def test_from_the_second_week_on_a_day_is_compared(days: int, factor: float) -> None:
    usual = [10.0] * days

    assert of_day(at_end([*usual, factor * 10 - 0.1])) == []
    assert of_day(at_end([*usual, factor * 10 + 0.1])) == ["unusual"]


def test_weekends_are_compared_with_weekends() -> None:
    weeks = ([10.0] * 5 + [2.0] * 2) * 4
    saturday = [*weeks, *[10.0] * 5, 7.0]

    (found,) = at_end(saturday).findings
    assert found.kind == "day"
    assert found.expected == pytest.approx(dollars(2), rel=0.01)
    assert kinds(at_end([*weeks, 7.0])) == []


def test_a_service_that_grows_is_measured_by_its_last_week() -> None:
    assert kinds(at_end([10.0] * 28 + [20.0] * 7 + [40.0])) == []
    (found,) = at_end([10.0] * 28 + [20.0] * 7 + [59.0]).findings
    assert found.expected == pytest.approx(dollars(20), rel=0.01)


@pytest.mark.parametrize("usual", [0.0, 0.01])
def test_less_than_a_dollar_more_is_never_unusual(usual: float) -> None:
    assert at_end([usual] * 35 + [usual + 0.99]).findings == ()
    assert kinds(at_end([usual] * 35 + [usual + 1.2])) == [("day", "unusual")]


def test_a_spike_does_not_hide_what_comes_after_it() -> None:
    assert ("day", "unusual") in kinds(at_end([10.0] * 35 + [200.0] + [10.0] * 3 + [40.0]))


def test_what_goes_on_for_days_is_normal_from_then_on() -> None:
    days = [10.0] * 35 + [80.0] * 14
    said = [bool(at_end(days[:end]).findings) for end in range(36, 50)]

    assert said == [True] * 3 + [False] * 11


def test_spend_on_few_days_is_compared_with_these() -> None:
    weekly = [0.0, 0, 0, 5.0, 0, 0, 0] * 4

    assert kinds(at_end([*weekly, 6.0])) == []
    assert of_day(at_end([*weekly, 20.0])) == ["unusual"]


def test_ten_times_the_usual_is_graver_unless_it_is_little() -> None:
    assert of_day(at_end([24.0] * 35 + [240.0])) == ["runaway"]
    assert of_day(at_end([0.2] * 35 + [8.0])) == ["unusual"]


def test_a_day_is_judged_while_it_runs() -> None:
    spent = spread([24.0] * 30 + [24.0 * 2.9])
    midnight = max(spent) + HOUR - 86_400

    assert at(spent, midnight + 19 * HOUR).findings == ()
    (found,) = at(spent, midnight + 21 * HOUR).findings
    assert (found.kind, found.start, found.end) == ("day", midnight, midnight + 21 * HOUR)


# Hours


def burst(hour: int, amount: float, days: int = 35) -> tuple[dict[int, int], int]:
    """A dollar an hour for so many days, then so much in one hour; and when that was."""
    spent = spread([24.0] * (days + 1))
    when = int(MONDAY.timestamp()) + 86_400 * days + HOUR * hour
    return {**spent, when: dollars(amount)}, when


def test_hours_far_above_the_usual_are_said_within_the_hour() -> None:
    spent, when = burst(10, 12.0)
    (found,) = at(spent, when + 600).findings

    assert (found.kind, found.level) == ("hours", "unusual")
    assert (found.spent, found.expected) == (dollars(14), dollars(3))
    assert (found.start, found.end) == (when - 2 * HOUR, when + 600)
    assert at(spent, when - 1).findings == ()


def test_hours_that_are_over_are_still_said_that_day_and_no_longer() -> None:
    spent, when = burst(10, 12.0)
    first, later = at(spent, when + 600).findings, at(spent, when + 8 * HOUR).findings

    assert [found.key for found in first] == [found.key for found in later]
    assert at(spent, when + 14 * HOUR).findings == ()


def test_what_goes_on_over_midnight_is_said_once_by_hours() -> None:
    spent, when = burst(22, 20.0)
    spent |= {when + HOUR * hour: dollars(20) for hour in range(4)}

    assert [found.kind for found in at(spent, when + HOUR).findings] == ["hours"]
    assert "hours" not in [found.kind for found in at(spent, when + 3 * HOUR).findings]


def test_a_day_that_is_unusual_by_its_hours_alone_is_not_said_again() -> None:
    spent, when = burst(10, 45.0)
    (found,) = at(spent, when + 13 * HOUR).findings

    assert found.kind == "hours"


def test_a_day_that_goes_on_is_news_beside_its_hours() -> None:
    spent, when = burst(10, 12.0)
    spent |= {when + HOUR * hour: dollars(12) for hour in range(12)}

    assert [found.kind for found in at(spent, when + 13 * HOUR).findings] == ["hours", "day"]


def test_little_for_such_a_service_is_not_said() -> None:
    spent, when = burst(10, 5.2)

    assert at(spent, when).findings == ()


def test_a_job_at_a_different_hour_each_day_is_nothing_unusual() -> None:
    start = int(MONDAY.timestamp())
    spent = {start + 86_400 * day + HOUR * (day * 7 % 24): dollars(10) for day in range(40)}
    spent[start + 86_400 * 39 + HOUR * 23] = spent.pop(max(spent))

    for hour in range(24):
        assert at(spent, start + 86_400 * 39 + HOUR * hour + 1).findings == ()


def test_a_burst_does_not_hide_the_next_one() -> None:
    spent, when = burst(10, 24.0)
    earlier = when - 3 * 86_400 - 6 * HOUR
    assert ("hours", "unusual") in kinds(at({**spent, earlier: dollars(25)}, earlier + 60))
    assert ("hours", "unusual") in kinds(at({**spent, earlier: dollars(25)}, when + 60))


def test_the_hour_that_comes_twice_is_compared_with_both() -> None:
    first = int(datetime(2026, 9, 20, tzinfo=BERLIN).timestamp())
    now = int(datetime(2026, 10, 25, 23, tzinfo=BERLIN).timestamp())
    spent = {time: dollars(1) for time in range(first, now + 1, HOUR)}

    assert at(spent, now, zone=BERLIN).findings == ()


# The month


def test_a_month_is_projected_by_its_weekdays() -> None:
    weeks = ([10.0] * 5 + [3.0] * 2) * 5
    verdict = at_end(weeks, start=datetime(2026, 5, 4, tzinfo=UTC))

    # To 7 June there were 5 days at 10 and 2 at 3; of the rest of June 17 are workdays, 6 not.
    assert verdict.month == pytest.approx(dollars(56), rel=0.001)
    assert verdict.projected == pytest.approx(dollars(56 + 170 + 18), rel=0.001)


@pytest.mark.parametrize(("days", "said"), [(1, False), (3, False), (4, True), (12, True)])
def test_a_young_service_is_projected_by_its_mean_after_three_days(days: int, said: bool) -> None:
    projected = at_end([10.0] * days).projected

    assert projected == (pytest.approx(dollars(300), rel=0.001) if said else None)


def test_the_rest_of_a_day_counts_by_its_usual_hours() -> None:
    spent = {
        int(MONDAY.timestamp()) + 86_400 * day + HOUR * hour: dollars(1)
        for day in range(30)
        for hour in (9, 10)
    }
    noon = int(datetime(2026, 6, 30, 12, tzinfo=UTC).timestamp())
    morning = noon - 6 * HOUR

    assert at(spent, morning).projected == pytest.approx(dollars(60 - 2 + 2 - 0), rel=0.001)
    assert at(spent, noon).projected == pytest.approx(at(spent, noon).month)


def test_a_month_that_will_cost_more_is_said_until_it_does() -> None:
    budget = Budgets(month=dollars(200))
    (found,) = at_end([10.0] * 9, budget).findings
    assert (found.kind, found.expected) == ("projected", dollars(200))
    assert found.spent == pytest.approx(dollars(300), rel=0.001)
    assert kinds(at_end([10.0] * 20, budget)) == [("budget", "100")]
    assert kinds(at_end([6.6] * 9, budget)) == []


def test_nothing_is_said_of_a_month_without_any_history() -> None:
    assert at_end([0.0]).projected is None


# Properties

SPENDS = st.lists(st.floats(0, 50) | st.sampled_from([0.0, 1.0, 500.0]), min_size=1, max_size=45)
FRACTIONS = st.floats(0, 1)


def course(days: Sequence[float], parts: Sequence[int], budgets: Budgets) -> list[Finding]:
    """What is said in the course of the last day, looked at in these hours."""
    spent = spread(days)
    midnight = max(spent) + HOUR - 86_400
    said: list[Finding] = []
    for hour in sorted(parts):
        for found in at(spent, midnight + HOUR * hour + HOUR - 1, budgets).findings:
            known = {each.key for each in said}
            if found.key not in known and not known.intersection(found.graver):
                said.append(found)
    return said


@given(SPENDS, st.sets(st.integers(0, 23), min_size=1), st.floats(0.5, 2000))
def test_each_thing_is_said_once_and_what_is_graver_later(
    days: list[float], parts: set[int], budget: float
) -> None:
    said = course(days, sorted(parts), Budgets(day=dollars(budget), month=dollars(3 * budget)))

    assert len({found.key for found in said}) == len(said)
    for place, found in enumerate(said):
        assert not {earlier.key for earlier in said[:place]}.intersection(found.graver)


@given(SPENDS)
def test_nothing_is_unusual_below_the_floor(days: list[float]) -> None:
    for found in at_end(days).findings:
        assert found.excess > DOLLAR
        assert found.ratio is None or found.ratio > 2.5


@given(SPENDS, st.integers(0, 23))
def test_what_was_said_of_a_day_stays_so_until_its_end(days: list[float], hour: int) -> None:
    """So a verdict on history is the same as the one on the running day."""
    spent = spread(days)
    midnight = max(spent) + HOUR - 86_400
    early = at(spent, midnight + HOUR * hour).findings
    late = at(spent, midnight + 24 * HOUR - 1).findings
    if any(found.kind in {"day", "hours"} for found in early):
        assert any(found.kind in {"day", "hours"} for found in late)


@given(SPENDS, st.lists(FRACTIONS, min_size=3, max_size=3))
def test_how_many_processes_spent_it_makes_no_difference(
    days: list[float], shares: list[float]
) -> None:
    whole = spread(days)
    parts: list[dict[int, int]] = [{}, {}, {}, {}]
    for time, nano in whole.items():
        left = nano
        for part, share in zip(parts, shares, strict=False):
            part[time] = int(left * share)
            left -= part[time]
        parts[3][time] = left
    merged: dict[int, int] = {}
    for part in reversed(parts):
        for time in reversed(part):
            merged[time] = merged.get(time, 0) + part[time]
    now = max(whole) + HOUR - 1
    budgets = Budgets(day=dollars(5), month=dollars(100))

    assert at(merged, now, budgets) == at(whole, now, budgets)


@given(SPENDS)
def test_a_month_never_ends_below_what_it_has_cost(days: list[float]) -> None:
    verdict = at_end(days)

    assert verdict.projected is None or verdict.projected >= verdict.month


def test_days_without_a_call_between_others_are_days() -> None:
    spent = {int(MONDAY.timestamp()): 5, int(MONDAY.timestamp()) + 4 * 86_400: 6}
    days: list[Day] = days_of(spent, max(spent), UTC)

    assert [day.spent for day in days] == [5, 0, 0, 0, 6]
    assert days_of({}, max(spent), UTC) == []
