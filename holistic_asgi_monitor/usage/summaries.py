"""The summary of a day or a week: from figures to what a manager reads. Pure.

Every number comes from what was recorded; where nothing was, the line is left out. The text is
made of paragraphs; the first line of each is its head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from math import sqrt
from typing import Any

from holistic_asgi_monitor.history.values import Value
from holistic_asgi_monitor.usage.amounts import (
    compared,
    counted,
    named,
    percent,
    short,
    span,
    took,
    usd,
)
from holistic_asgi_monitor.usage.calendar import HOUR, MONTHS, WEEKDAYS, Period
from holistic_asgi_monitor.usage.spend import DOLLAR
from holistic_asgi_monitor.usage.summary_facts import Facts, Stretch

__all__ = ("Outage", "Summary", "summary_of")

MOST_NAMED = 3
LEAST_REQUESTS = 20
"""An endpoint with fewer requests is neither slow nor bad: chance says more than it does."""
LEAST_SHARE = 0.05
LEAST_MOVE = DOLLAR // 100
BAD_PERCENT = 1.0
SIGMAS = 3.0
_FAILURES = {
    "quota_exceeded": "quota exceeded",
    "auth_error": "key refused",
    "rate_limited": "rate limited",
    "timeout": "timed out",
    "connection_error": "not connected",
    "server_error": "server error",
    "bad_request": "bad request",
    "cancelled": "cancelled",
    "abandoned": "abandoned",
}
_NO_TRACKING = "OpenAI tracking is not attached."


@dataclass(frozen=True, slots=True)
class Outage:
    """An incident: what failed, how gravely, and from when to when; `end` None while it lasts."""

    key: str
    severity: str
    start: float
    end: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary as it is sent: `figures` are the same as JSON values."""

    title: str
    text: str
    figures: Mapping[str, Any]


def summary_of(facts: Facts, outages: Sequence[Outage]) -> Summary:
    """The summary of a period; `outages` are the incidents that were there in it."""
    said = [paragraph for part in _paragraphs(facts, outages) if (paragraph := list(part))]
    body = [[_when(facts)], *said] if said else [[_nothing(facts)], [_when(facts)]]
    if facts.attached is False and not facts.now.spent.count:
        # Nobody could have seen it.
        body.append([_NO_TRACKING])
    return Summary(
        title=_title(facts.period, facts),
        text="\n\n".join("\n".join(lines) for lines in body),
        figures=_figures(facts, outages),
    )


def _paragraphs(facts: Facts, outages: Sequence[Outage]) -> Iterator[Iterator[str]]:
    yield _spend(facts)
    yield _calls(facts)
    yield _where_it_went(facts)
    yield _users(facts)
    yield _requests(facts)
    yield _endpoints(facts)
    yield _incidents(facts, outages)
    yield _moved(facts)


# --- what it is about ---


def _title(period: Period, facts: Facts) -> str:
    if period.kind == "day":
        return f"Summary of {_day(period, facts)}"
    return f"Summary of week {period.name.partition('W')[2]}, {_span(period, facts)}"


def _day(period: Period, facts: Facts) -> str:
    noon = _noon(period, facts)
    return f"{WEEKDAYS[noon.weekday()]}, {_date(noon)}"


def _date(moment: datetime) -> str:
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}"


def _span(period: Period, facts: Facts) -> str:
    first = _local(period.start + 12 * HOUR, facts)
    last = _local(period.end - 12 * HOUR, facts)
    return f"{first.day} {MONTHS[first.month - 1]} to {_date(last)}"


def _noon(period: Period, facts: Facts) -> datetime:
    return _local((period.start + period.end) / 2, facts)


def _local(moment: float, facts: Facts) -> datetime:
    return datetime.fromtimestamp(moment, facts.zone)


def _when(facts: Facts) -> str:
    """From when to when, and in which zone; the hours of a day where they are not 24."""
    period = facts.period
    zone = getattr(facts.zone, "key", "UTC")
    if period.kind != "day":
        return f"Monday to Sunday, time zone {zone}"
    hours = (period.end - period.start) / HOUR
    change = f", a day of {hours:g} hours" if hours != 24 else ""
    return f"Midnight to midnight, time zone {zone}{change}"


def _nothing(facts: Facts) -> str:
    when = "on this day" if facts.period.kind == "day" else "in this week"
    return f"Nothing was recorded {when}: no request, no user, no call of OpenAI."


def _before(facts: Facts) -> str:
    return "the day before" if facts.period.kind == "day" else "the week before"


# --- money ---


def _spend(facts: Facts) -> Iterator[str]:
    spent = facts.now.spent
    earlier = [each for each in (facts.previous, facts.weekday) if each is not None]
    if not spent.count and not any(each.spent.count for each in earlier):
        return
    yield "OpenAI spend"
    known = spent.total or not spent.count or spent.extra.get("unpriced", 0) < spent.count
    amount = usd(spent.total) if known else "Not known: none of the calls has a known price"
    yield ", ".join((amount, *(_comparisons(facts, spent.total) if known else ())))
    yield from _budgets(facts, spent.total)
    yield from _extremes(facts)


def _comparisons(facts: Facts, spent: int) -> Iterator[str]:
    if facts.previous is not None:
        yield compared(spent, facts.previous.spent.total, _before(facts), usd)
    if facts.weekday is not None:
        weekday = WEEKDAYS[_noon(facts.weekday.period, facts).weekday()]
        yield compared(spent, facts.weekday.spent.total, f"the {weekday} before", usd)


def _budgets(facts: Facts, spent: int) -> Iterator[str]:
    daily, monthly = facts.budgets.day, facts.budgets.month
    if daily and facts.period.kind == "day":
        yield f"{percent(spent, daily)} of the daily budget of {usd(daily)}"
    month = facts.month
    if month is None:
        return
    name = MONTHS[_noon(month.period, facts).month - 1]
    budget = f", {percent(month.spent, monthly)} of its budget of {usd(monthly)}" if monthly else ""
    ahead = ""
    if month.projected is not None:
        share = f" ({percent(month.projected, monthly)} of the budget)" if monthly else ""
        ahead = f"; on course for {usd(month.projected)}{share}"
    verb = "in all" if month.over else "so far"
    yield f"{name} {verb}: {usd(month.spent)}{budget}{ahead}"


def _extremes(facts: Facts) -> Iterator[str]:
    """The dearest and the cheapest day of a week, where they differ."""
    days = sorted(facts.days, key=lambda day: day.spent.total)
    if not days or days[0].spent.total == days[-1].spent.total:
        return
    low, high = (_weekday(each, facts) for each in (days[0], days[-1]))
    most, least = usd(days[-1].spent.total), usd(days[0].spent.total)
    yield f"Most on {high} ({most}), least on {low} ({least})"


def _weekday(stretch: Stretch, facts: Facts) -> str:
    return WEEKDAYS[_noon(stretch.period, facts).weekday()]


# --- calls ---


def _calls(facts: Facts) -> Iterator[str]:
    spent = facts.now.spent
    if not spent.count:
        return
    yield "OpenAI calls"
    failed = f"; {_share(spent.errors, spent.count)} without success" if spent.errors else ""
    yield f"{counted(spent.count, 'call')}{_on_average(spent)}{failed}"
    classes = _failures(spent)
    if classes:
        said = (f"{_FAILURES.get(name, name)} {count:,}" for name, count in classes)
        yield f"Failures: {_listed(said)}"
    yield from _tokens(spent)
    yield from _unpriced(facts)


def _on_average(spent: Value) -> str:
    priced = spent.count - spent.extra.get("unpriced", 0)
    if not spent.total or priced <= 0:
        return ""
    average = f"{usd(spent.total / priced)} on average"
    known = priced == spent.count
    return f" at {average}" if known else f"; {average} for those with a known price"


def _failures(spent: Value) -> list[tuple[str, int]]:
    """The classes of what failed with their counts: an exhausted quota first, then the most."""
    found = {
        name.removeprefix("status:"): count
        for name, count in spent.extra.items()
        if name.startswith("status:") and name != "status:success"
    }
    ordered = sorted(found, key=lambda name: (name != "quota_exceeded", -found[name]))
    return [(name, found[name]) for name in ordered]


def _tokens(spent: Value) -> Iterator[str]:
    tokens = spent.extra
    taken, given, cached = (tokens.get(kind, 0) for kind in ("input", "output", "cached"))
    if taken or given:
        share = f", {percent(cached, taken)} of them cached" if cached else ""
        yield f"Tokens: {short(taken)} in{share}; {short(given)} out"


def _unpriced(facts: Facts) -> Iterator[str]:
    calls = {name: value.extra.get("unpriced", 0) for name, value in facts.now.spend.items()}
    some = _top(calls)
    if some:
        total = sum(calls.values())
        names = _listed(f"{named(name)} {count:,}" for name, count in some)
        yield f"Without a known price, so not in the dollars: {counted(total, 'call')} ({names})"


def _where_it_went(facts: Facts) -> Iterator[str]:
    total = facts.now.spent.total
    if not total:
        return
    yield "Where it went"
    parts = (
        ("Models", facts.now.spend),
        ("Endpoints", facts.now.spend_by_endpoint),
        ("Features", facts.now.spend_by_feature),
    )
    for head, values in parts:
        some = _top({name: value.total for name, value in values.items() if name})
        if some:
            shares = (f"{named(name)} {usd(cost)} ({percent(cost, total)})" for name, cost in some)
            yield f"{head}: {_listed(shares)}"


# --- people and requests ---


def _users(facts: Facts) -> Iterator[str]:
    users, uses = facts.now.users, _top(_counts(facts.now.features))
    if users is None and not uses:
        return
    yield "Features" if users is None else "Users"
    if users is not None:
        yield from _active_users(users, facts)
    if uses:
        yield f"Features used: {_listed(f'{named(name)} {count:,}' for name, count in uses)}"


def _active_users(users: int, facts: Facts) -> Iterator[str]:
    until_now = facts.now.users_until_now
    earlier = None if until_now or facts.previous is None else facts.previous.users
    than = "" if earlier is None else f", {_fewer(users, earlier, facts)}"
    yield f"{counted(users, 'active user')}{_of_utc(facts)}{than}"
    yield from _average_users(facts)
    spent = facts.now.spent.total
    if spent and users and not until_now:
        yield f"{usd(spent / users)} of OpenAI for each of them"


def _of_utc(facts: Facts) -> str:
    """That days of UTC are meant, where those of the zone are others, and whether they are over."""
    if facts.zone.utcoffset(None) == timedelta(0):
        return ""
    one = facts.period.kind == "day"
    which = ", which is not over" if one else ", of which the last is not over"
    return f" (of the UTC day{'' if one else 's'}{which if facts.now.users_until_now else ''})"


def _counts(values: Mapping[str, Value]) -> dict[str, int]:
    return {name: value.count for name, value in values.items()}


def _average_users(facts: Facts) -> Iterator[str]:
    over = [day for day in facts.days if not day.users_until_now]
    seen = [day.users for day in over if day.users]
    if seen:
        days = "every day" if len(seen) == len(facts.days) else f"on {counted(len(seen), 'day')}"
        yield f"{short(sum(seen) / len(seen))} on average {days}"


def _requests(facts: Facts) -> Iterator[str]:
    traffic = facts.now.traffic
    if not traffic.count:
        return
    yield "Requests"
    earlier = facts.previous.traffic if facts.previous is not None else None
    than = f", {_fewer(traffic.count, earlier.count, facts)}" if earlier else ""
    yield f"{counted(traffic.count, 'request')}{than}"
    rates = f"{_share(traffic.errors, traffic.count)} failed" if traffic.errors else "None failed"
    if earlier and earlier.count:
        rates += f"; {_before(facts)} {percent(earlier.errors, earlier.count)}"
    yield rates
    yield from _best_and_worst_day(facts)


def _fewer(new: int, old: int, facts: Facts) -> str:
    return compared(new, old, _before(facts), short, "fewer")


def _best_and_worst_day(facts: Facts) -> Iterator[str]:
    days = [day for day in facts.days if day.traffic.count >= LEAST_REQUESTS]
    days.sort(key=lambda day: _ratio(day.traffic))
    if len(days) > 1 and _ratio(days[0].traffic) < _ratio(days[-1].traffic):
        best, worst = (
            f"{_weekday(day, facts)} ({percent(day.traffic.errors, day.traffic.count)} failed)"
            for day in (days[0], days[-1])
        )
        yield f"Best day {best}, worst {worst}"


def _endpoints(facts: Facts) -> Iterator[str]:
    enough = {
        name: value
        for name, value in _routed(facts.now.endpoints).items()
        if value.count >= LEAST_REQUESTS
    }
    slow = _top({name: value.quantile(0.95) or 0.0 for name, value in enough.items()})
    bad = _top(
        {
            name: _ratio(value)
            for name, value in enough.items()
            if 100 * _ratio(value) >= BAD_PERCENT
        }
    )
    if slow:
        yield "Endpoints"
        yield f"Slowest (p95): {_listed(f'{named(name)} {took(p95)}' for name, p95 in slow)}"
    if bad:
        shares = (
            f"{named(name)} {_share(enough[name].errors, enough[name].count)}" for name, _ in bad
        )
        yield f"Most failures: {_listed(shares)}"


def _routed(endpoints: Mapping[str, Value]) -> dict[str, Value]:
    """Those that are endpoints of the app, and not what no route took or no place was left for."""
    return {
        name: value
        for name, value in endpoints.items()
        if not name.endswith(("_unmatched", "_overflow"))
    }


def _incidents(facts: Facts, outages: Sequence[Outage]) -> Iterator[str]:
    if not outages:
        return
    yield "Incidents"
    longest = max(outages, key=lambda each: _length(each, facts.period))
    began = _local(longest.start, facts)
    day = "" if facts.period.kind == "day" else f"{WEEKDAYS[began.weekday()]} "
    if longest.start < facts.period.start:
        day = f"{began:%Y-%m-%d} "
    since = f"from {day}{began:%H:%M} on"
    lasted = f" {span(_length(longest, facts.period))} {since}"
    yield (
        f"{counted(len(outages), 'incident')}; the longest: {named(longest.key)} "
        f"({longest.severity}),{lasted if longest.end is not None else f' {since}, still not over'}"
    )
    if len(outages) > 1:
        times: dict[str, int] = {}
        for each in outages:
            times[each.key] = times.get(each.key, 0) + 1
        yield f"By check: {_listed(f'{named(key)} {count}' for key, count in _top(times))}"


def _length(outage: Outage, period: Period) -> float:
    """How long it lasted; what is not over counts to the period's end."""
    end = period.end if outage.end is None else outage.end
    return max(0.0, end - outage.start)


# --- what moved ---


def _moved(facts: Facts) -> Iterator[str]:
    """What rose or fell most against the period before, as far as that is more than chance."""
    if facts.previous is None:
        return
    now, past = facts.now, facts.previous
    said = [
        *_dearer("Cost", now.spend_by_endpoint, past.spend_by_endpoint),
        *_dearer("Cost of features", now.spend_by_feature, past.spend_by_feature),
        *_busier("Use of features", now.features, past.features),
        *_busier("Requests", _routed(now.endpoints), _routed(past.endpoints)),
    ]
    if said:
        yield f"What moved against {_before(facts)}"
        yield from said


def _dearer(head: str, now: Mapping[str, Value], past: Mapping[str, Value]) -> Iterator[str]:
    costs = _changes(now, past, lambda value: value.total)
    whole = max(sum(new for new, _ in costs.values()), sum(old for _, old in costs.values()))
    least = max(LEAST_MOVE, LEAST_SHARE * whole)
    moved = {name: each for name, each in costs.items() if abs(each[0] - each[1]) >= least}
    yield from _moves(head, moved, usd)


def _busier(head: str, now: Mapping[str, Value], past: Mapping[str, Value]) -> Iterator[str]:
    counts = _changes(now, past, lambda value: value.count)
    moved = {
        name: (new, old)
        for name, (new, old) in counts.items()
        if max(new, old) >= LEAST_REQUESTS
        and abs(new - old) >= max(SIGMAS * sqrt(new + old), LEAST_SHARE * max(new, old))
    }
    yield from _moves(head, moved, short)


def _moves(
    head: str, moved: Mapping[str, tuple[int, int]], said: Callable[[float], str]
) -> Iterator[str]:
    top = _top({name: abs(new - old) for name, (new, old) in moved.items()})
    if top:
        steps = (f"{named(name)} {_step(*moved[name], said)}" for name, _ in top)
        yield f"{head}: {_listed(steps)}"


def _step(new: int, old: int, said: Callable[[float], str]) -> str:
    way = "up" if new > old else "down"
    start, end = (said(each) if each else "nothing" for each in (old, new))
    return f"{way} from {start} to {end}"


def _changes(
    now: Mapping[str, Value], past: Mapping[str, Value], of: Callable[[Value], int]
) -> dict[str, tuple[int, int]]:
    """What each name has now and had in the period before."""
    none = Value()
    names = dict.fromkeys(chain(now, past))
    return {name: (of(now.get(name, none)), of(past.get(name, none))) for name in names if name}


# --- figures ---


def _figures(facts: Facts, outages: Sequence[Outage]) -> dict[str, Any]:
    """The same as JSON values; money in dollars."""
    period, spent, month = facts.period, facts.now.spent, facts.month
    return {
        "period": {
            "kind": period.kind,
            "name": period.name,
            "start": _iso(period.start, facts),
            "end": _iso(period.end, facts),
            "timezone": getattr(facts.zone, "key", "UTC"),
        },
        "openai": {
            **_spend_figures(spent),
            "previous_usd": _dollars_of(facts.previous),
            "same_weekday_usd": _dollars_of(facts.weekday),
            "month_usd": None if month is None else _dollars(month.spent),
            "projected_month_usd": (
                None if month is None or month.projected is None else _dollars(month.projected)
            ),
            "models": _top_figures(facts.now.spend),
            "endpoints": _top_figures(facts.now.spend_by_endpoint),
            "features": _top_figures(facts.now.spend_by_feature),
        },
        "users": facts.now.users,
        "requests": {"count": facts.now.traffic.count, "errors": facts.now.traffic.errors},
        "incidents": [
            {"key": each.key, "severity": each.severity, "seconds": round(_length(each, period))}
            for each in sorted(outages, key=lambda each: -_length(each, period))[:10]
        ],
    }


def _spend_figures(spent: Value) -> dict[str, Any]:
    return {
        "usd": _dollars(spent.total),
        "calls": spent.count,
        "errors": dict(_failures(spent)),
        "tokens": {
            kind: spent.extra.get(kind, 0) for kind in ("input", "output", "cached", "reasoning")
        },
        "unpriced_calls": spent.extra.get("unpriced", 0),
    }


def _top_figures(values: Mapping[str, Value]) -> list[dict[str, Any]]:
    costs = _top({name: value.total for name, value in values.items() if name}, 10)
    return [{"name": named(name), "usd": _dollars(cost)} for name, cost in costs]


def _dollars(nano: float) -> float:
    return round(nano / DOLLAR, 6)


def _dollars_of(stretch: Stretch | None) -> float | None:
    return None if stretch is None else _dollars(stretch.spent.total)


def _iso(moment: int, facts: Facts) -> str:
    return _local(moment, facts).isoformat()


# --- small parts ---


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({percent(part, whole)})"


def _ratio(value: Value) -> float:
    return value.errors / value.count if value.count else 0.0


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)


def _top(values: Mapping[str, float], most: int = MOST_NAMED) -> list[tuple[str, Any]]:
    """The greatest of the values that are above 0, with their names."""
    some = [(name, value) for name, value in values.items() if value > 0]
    return sorted(some, key=lambda item: (-item[1], item[0]))[:most]
