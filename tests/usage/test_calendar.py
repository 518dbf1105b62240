"""Days, weeks and months of any zone, and when a summary is due."""

from __future__ import annotations

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.usage.calendar import (
    HOUR,
    before,
    day_of,
    due_day,
    due_week,
    month_of,
    week_of,
    zone_of,
)

# Half hours, a change of half an hour, one at midnight, one day left out, one over the date line.
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"),
    *("America/Havana", "Asia/Beirut", "Pacific/Apia", "America/St_Johns", "Africa/Casablanca"),
    *("America/Sao_Paulo", "Pacific/Chatham", "Asia/Gaza", "Pacific/Kiritimati"),
)
zones = st.sampled_from(ZONES).map(zone_of)
moments = st.integers(946_684_800, 4_102_444_800)
times = st.times().map(lambda each: each.replace(second=0, microsecond=0))
PERIODS = {"day": day_of, "week": week_of, "month": month_of}


def epoch(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize("kind", PERIODS)
@given(moments, zones)
def test_periods_tile_time(kind, now, zone):
    of = PERIODS[kind]
    period = of(now, zone)

    assert period.kind == kind
    assert period.start <= now < period.end
    assert of(period.start, zone) == of(period.end - 1, zone) == period
    following = of(period.end, zone)
    assert following.start == period.end
    assert following.name > period.name
    assert before(following, zone) == period
    assert period.start % 60 == period.end % 60 == 0


@given(moments, zones)
def test_weeks_and_months_are_made_of_whole_days(now, zone):
    day = day_of(now, zone)
    for period in (week_of(now, zone), month_of(now, zone)):
        assert period.start <= day.start < day.end <= period.end
        assert day_of(period.start, zone).start == period.start


@given(moments, zones, times)
def test_one_summary_is_due_for_each_day(now, zone, at):
    due = due_day(now, zone, at)

    assert due.at <= now < due.until
    assert due.period.end <= due.at
    following = due_day(due.until, zone, at)
    assert (following.at, due_day(due.until - 1, zone, at)) == (due.until, due)
    assert before(following.period, zone) == due.period


@given(moments, zones, times)
def test_one_summary_is_due_for_each_week(now, zone, at):
    due = due_week(now, zone, at)

    assert due.at <= now < due.until
    assert due.period.end <= due.at < due.period.end + 25 * HOUR
    assert due.period.kind == "week"
    following = due_week(due.until, zone, at)
    assert before(following.period, zone) == due.period


@pytest.mark.parametrize(
    ("moment", "hours"),
    [("2026-03-29T12:00", 23), ("2026-10-25T12:00", 25), ("2026-11-25T12:00", 24)],
)
def test_a_day_of_the_change_has_23_or_25_hours(moment, hours):
    day = day_of(epoch(moment), zone_of("Europe/Berlin"))

    assert (day.end - day.start) / HOUR == hours


@pytest.mark.parametrize(
    ("zone", "moment", "names"),
    [
        ("UTC", "2026-11-25T23:59", ("2026-11-25", "2026-W48", "2026-11")),
        ("Europe/Berlin", "2026-11-25T23:30", ("2026-11-26", "2026-W48", "2026-11")),
        ("UTC", "2027-01-01T00:00", ("2027-01-01", "2026-W53", "2027-01")),
        ("Pacific/Auckland", "2026-12-31T12:00", ("2027-01-01", "2026-W53", "2027-01")),
        ("America/New_York", "2027-01-01T04:59", ("2026-12-31", "2026-W53", "2026-12")),
    ],
)
def test_they_are_named_as_people_name_them(zone, moment, names):
    now, place = epoch(moment), zone_of(zone)

    assert (day_of(now, place).name, week_of(now, place).name, month_of(now, place).name) == names


@pytest.mark.parametrize(
    ("day", "at", "due"),
    [
        # There is no 02:30 that day: the first moment after the gap.
        ("2026-03-29", "02:30", "2026-03-29T01:00"),
        # There are two: the first one.
        ("2026-10-25", "02:30", "2026-10-25T00:30"),
        ("2026-10-25", "03:00", "2026-10-25T02:00"),
        ("2026-11-25", "09:00", "2026-11-25T08:00"),
        ("2026-11-25", "00:00", "2026-11-24T23:00"),
    ],
)
def test_a_time_that_is_missing_or_there_twice_comes_once(day, at, due):
    berlin, moment = zone_of("Europe/Berlin"), time.fromisoformat(at)

    assert due_day(epoch(due), berlin, moment).at == epoch(due)
    assert due_day(epoch(f"{day}T12:00"), berlin, moment).at == epoch(due)
    assert due_day(epoch(due) - 1, berlin, moment).at < epoch(due)


def test_the_week_before_is_due_on_monday():
    due = due_week(epoch("2026-11-25T12:00"), UTC, time(9))

    assert (due.period.name, due.at) == ("2026-W47", epoch("2026-11-23T09:00"))
    assert due.until == epoch("2026-11-30T09:00")


def test_a_date_that_a_zone_leaves_out_is_no_day():
    apia = zone_of("Pacific/Apia")
    day = day_of(epoch("2011-12-31T12:00", "Pacific/Apia"), apia)

    assert (day.name, before(day, apia).name) == ("2011-12-31", "2011-12-29")
    assert due_day(day.start + 12 * HOUR, apia, time(9)).period.name == "2011-12-29"


def test_utc_needs_no_time_zones_of_the_system():
    assert zone_of("UTC") is UTC
