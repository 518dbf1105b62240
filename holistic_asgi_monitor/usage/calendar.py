"""Days, weeks and months of a time zone, and the times at which a summary is due. Pure.

Local days tile time without a hole or an overlap, whatever the zone does: a day begins with the
first moment that the clock there shows its date or a later one. A day of summer-time change has 23
or 25 hours; a date that a zone leaves out is no day.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from types import MappingProxyType
from zoneinfo import ZoneInfo

__all__ = (
    "MONTHS",
    "WEEKDAYS",
    "Due",
    "Period",
    "before",
    "day_of",
    "due_day",
    "due_week",
    "month_of",
    "week_of",
    "zone_of",
)

HOUR = 3600
_ONE_DAY, _ONE_WEEK = timedelta(days=1), timedelta(days=7)
# Not strftime, which goes by the locale of the process.
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, slots=True)
class Period:
    """A local `kind` ("day", "week" or "month") from `start` to before `end`.

    Both are UTC epoch seconds, whole minutes. `name` is "2026-11-25", "2026-W48" (ISO weeks,
    Monday to Sunday) or "2026-11".
    """

    kind: str
    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Due:
    """The summary of `period` is due from `at` on, until the next one takes its place."""

    period: Period
    at: int
    until: int


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name; UTC is known where the system has no time zones."""
    return UTC if name == "UTC" else ZoneInfo(name)


def day_of(now: float, zone: tzinfo) -> Period:
    """The local day that `now`, UTC epoch seconds, is in."""
    return _day(_date(now, zone), zone)


def week_of(now: float, zone: tzinfo) -> Period:
    """The local week, Monday to Sunday, that `now` is in."""
    today = _date(now, zone)
    monday = today - timedelta(days=today.weekday())
    year, week, _ = monday.isocalendar()
    return _period("week", f"{year:04}-W{week:02}", monday, monday + _ONE_WEEK, zone)


def month_of(now: float, zone: tzinfo) -> Period:
    """The local month that `now` is in."""
    first = _date(now, zone).replace(day=1)
    years, month = divmod(first.month, len(MONTHS))
    following = date(first.year + years, month + 1, 1)
    return _period("month", f"{first:%Y-%m}", first, following, zone)


def before(period: Period, zone: tzinfo, count: int = 1) -> Period:
    """The period of the same kind so many before this one."""
    for _ in range(count):
        period = _OF[period.kind](period.start - 1, zone)
    return period


def due_day(now: float, zone: tzinfo, at: time) -> Due:
    """The day whose summary was due last, at the local time `at` of the day after it.

    Where there is no such time that day, it is due with the first moment after it; where there
    are two, with the first.
    """
    today = day_of(now, zone)
    if now < _due_on(today, zone, at):
        today = before(today, zone)
    tomorrow = day_of(today.end, zone)
    return Due(before(today, zone), _due_on(today, zone, at), _due_on(tomorrow, zone, at))


def due_week(now: float, zone: tzinfo, at: time) -> Due:
    """The week whose summary was due last, on the Monday after it; otherwise as `due_day`."""
    this = week_of(now, zone)
    if now < _due_on(this, zone, at):
        this = before(this, zone)
    following = week_of(this.end, zone)
    return Due(before(this, zone), _due_on(this, zone, at), _due_on(following, zone, at))


def _due_on(period: Period, zone: tzinfo, at: time) -> int:
    """When a summary is due on the first day of a period."""
    return _moment(datetime.combine(_date(period.start, zone), at), zone)


def _day(day: date, zone: tzinfo) -> Period:
    return _period("day", day.isoformat(), day, day + _ONE_DAY, zone)


def _period(kind: str, name: str, first: date, following: date, zone: tzinfo) -> Period:
    return Period(kind, name, _midnight(first, zone), _midnight(following, zone))


def _date(now: float, zone: tzinfo) -> date:
    """The date of the day that `now` is in; where the clock goes back over midnight, the later."""
    day = datetime.fromtimestamp(now, zone).date()
    while now >= _midnight(day + _ONE_DAY, zone):
        day += _ONE_DAY
    return day


def _midnight(day: date, zone: tzinfo) -> int:
    return _moment(datetime.combine(day, time()), zone)


def _moment(local: datetime, zone: tzinfo) -> int:
    """The first moment at which a clock in `zone` shows `local` or later; UTC epoch seconds."""
    early = _epoch(local.replace(tzinfo=zone, fold=0))
    if datetime.fromtimestamp(early, zone).replace(tzinfo=None, fold=0) == local:
        return early
    # A gap: the earlier offset leads behind it, the later one before it.
    late = _epoch(local.replace(tzinfo=zone, fold=1))
    passed = bisect_left(
        range(late, early + 1),
        x=True,
        key=lambda moment: datetime.fromtimestamp(moment, zone).replace(tzinfo=None) > local,
    )
    return late + passed


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


_OF: Mapping[str, Callable[[float, tzinfo], Period]] = MappingProxyType(
    {"day": day_of, "week": week_of, "month": month_of}
)
