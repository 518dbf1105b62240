"""What history holds of a day or a week, and of what it is compared with.

Read through two functions, so that it is the same for any store. Whatever is not known is None.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from math import gcd

import anyio.lowlevel

from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.history.values import Kind, Sum, Value
from holistic_asgi_monitor.usage.calendar import HOUR, Period, before, day_of, month_of
from holistic_asgi_monitor.usage.spend import Budgets
from holistic_asgi_monitor.usage.spending import Spending
from holistic_asgi_monitor.usage.summary_facts import Facts, Month, Stretch

__all__ = ("Reader", "is_known", "is_used", "read_facts")

WEEK_DAYS = 7
KNOWN_DAYS = 60
DAY = 24 * HOUR
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Reader:
    """Where it is read: the values of a query; different users from one UTC day to before another.

    Both may raise `StoreError`. Days are counted since 1970.
    """

    read: Callable[[Query], Awaitable[Answer]]
    users: Callable[[int, int], Awaitable[int]]


async def is_recorded(reader: Reader, period: Period) -> bool:
    """Whether anything was: whoever watches notes the event loop, at least."""
    return await _is_any(reader, period.start, period.end, HOUR)


async def is_known(reader: Reader, period: Period) -> bool:
    """Whether anything was recorded in a period or in the two months before it."""
    # In whole days, of which the last must not reach beyond the period.
    end = period.end // DAY * DAY
    return await is_recorded(reader, period) or await _is_any(
        reader, end - KNOWN_DAYS * DAY, end, DAY
    )


async def _is_any(reader: Reader, start: int, end: int, step: int) -> bool:
    for kind in (Kind.LAG, Kind.TRAFFIC, Kind.SPEND):
        answer = await reader.read(Query(kind, start, end, step=step, cells=False))
        if any(start <= time < end for found in answer.groups.values() for time in found):
            return True
    return False


async def is_used(reader: Reader, period: Period) -> bool:
    """Whether spend, users or features were recorded."""
    for kind in (Kind.SPEND, Kind.FEATURES):
        if await _sums(reader, kind, period):
            return True
    return bool(await reader.users(*_utc_days(period)))


async def read_facts(
    reader: Reader,
    period: Period,
    zone: tzinfo,
    now: float,
    *,
    budgets: Budgets,
    attached: bool | None,
) -> Facts:
    """Everything of a period that has ended, as it is known at the time `now`."""
    previous = before(period, zone)
    days = [await _brief(reader, day, now) for day in _days(period, zone)]
    weekday = None
    if period.kind == "day":
        a_week_ago = before(period, zone, WEEK_DAYS)
        weekday = await _if_recorded(reader, a_week_ago, now, _brief)
    return Facts(
        zone=zone,
        now=await _whole(reader, period, now, cells=True),
        previous=await _if_recorded(reader, previous, now, _whole),
        weekday=weekday,
        days=tuple(days),
        month=await _month(reader, period, zone, now),
        budgets=budgets,
        attached=attached,
    )


def _days(period: Period, zone: tzinfo) -> list[Period]:
    """The days of a week; none for a day."""
    days: list[Period] = []
    start = period.start
    while period.kind != "day" and start < period.end:
        days.append(day_of(start, zone))
        start = days[-1].end
    return days


async def _if_recorded(
    reader: Reader,
    period: Period,
    now: float,
    read: Callable[[Reader, Period, float], Awaitable[Stretch]],
) -> Stretch | None:
    return await read(reader, period, now) if await is_recorded(reader, period) else None


async def _brief(reader: Reader, period: Period, now: float) -> Stretch:
    traffic = await _sums(reader, Kind.TRAFFIC, period)
    spent = await _sums(reader, Kind.SPEND, period)
    return Stretch(
        period,
        spend=spent,
        traffic=traffic.get("", Value()),
        users=await _users(reader, period),
        users_until_now=_is_ahead(period, now),
    )


async def _whole(reader: Reader, period: Period, now: float, *, cells: bool = False) -> Stretch:
    """All of a period; tokens, failed calls and quantiles only with `cells`."""
    traffic = await _sums(reader, Kind.TRAFFIC, period)
    return Stretch(
        period,
        spend=await _sums(reader, Kind.SPEND, period, "model", cells=cells),
        spend_by_endpoint=await _sums(reader, Kind.SPEND, period, "endpoint"),
        spend_by_feature=await _sums(reader, Kind.SPEND, period, "feature"),
        features=await _sums(reader, Kind.FEATURES, period, "feature"),
        traffic=traffic.get("", Value()),
        endpoints=await _sums(reader, Kind.REQUESTS, period, "method", "endpoint", cells=cells),
        users=await _users(reader, period),
        users_until_now=_is_ahead(period, now),
    )


async def _sums(
    reader: Reader, kind: Kind, period: Period, *by: str, cells: bool = False
) -> dict[str, Value]:
    """What was recorded in a period, by the labels, joined by a space where there are several."""
    found: dict[str, Value] = {}
    answer = await reader.read(
        Query(kind, period.start, period.end, step=_step(period), by=by, cells=cells)
    )
    for group, stretches in answer.groups.items():
        inside = [value for start, value in stretches.items() if period.start <= start < period.end]
        if inside:
            found[" ".join(group)] = Sum.of(inside).value()
        await anyio.lowlevel.checkpoint()
    return found


def _step(period: Period) -> int | None:
    """In which steps a period is read so that its ends are exact.

    A day or a week of whole hours is one: the store adds up its hours, beside the event loop.
    """
    grain = gcd(HOUR, period.start, period.end)
    return None if grain == HOUR and period.kind != "month" else grain


async def _users(reader: Reader, period: Period) -> int | None:
    return await reader.users(*_utc_days(period)) or None


def _utc_days(period: Period) -> tuple[int, int]:
    """The UTC days with the dates of a period, counted since 1970."""
    first = _first_date(period)
    days = 1 if period.kind == "day" else WEEK_DAYS
    number = (first - _EPOCH).days
    return number, number + days


def _is_ahead(period: Period, now: float) -> bool:
    """Whether the last of its UTC days is not over, as east of Greenwich soon after midnight."""
    return now < _utc_days(period)[1] * DAY


def _first_date(period: Period) -> date:
    if period.kind == "day":
        return date.fromisoformat(period.name)
    return datetime.strptime(f"{period.name}-1", "%G-W%V-%u").date()  # noqa: DTZ007 - a date


async def _month(reader: Reader, period: Period, zone: tzinfo, now: float) -> Month | None:
    """The month that the period ended in: to its end where it is over, else to now."""
    month = month_of(period.end - 1, zone)
    spent = await _sums(reader, Kind.SPEND, month)
    if not spent:
        return None
    if month.end <= now:
        return Month(month, spent[""].total, over=True)
    stand = await Spending(reader.read, lambda: now, zone).stand()
    verdict = stand.judged(Budgets())
    return Month(month, verdict.month, verdict.projected)
