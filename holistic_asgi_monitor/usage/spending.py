"""What was spent, read from history: of all processes that write there, and what waits to be.

Amounts are nano-dollars. What lies back two days is read once in a day, what lies back an hour once
in an hour, and only the rest each time it is asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from math import gcd
from statistics import median
from types import MappingProxyType
from typing import Generic, TypeVar

import anyio.lowlevel

from holistic_asgi_monitor.history.ledger import Ledger
from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.history.values import Kind, Series, Sum, Value
from holistic_asgi_monitor.threads import Turn
from holistic_asgi_monitor.usage.calendar import Period, day_of, month_of
from holistic_asgi_monitor.usage.spend import (
    HISTORY_DAYS,
    WINDOW_HOURS,
    Budgets,
    Day,
    Finding,
    Frame,
    Past,
    Verdict,
    filled,
    frames_of,
    judged,
)

__all__ = ("Account", "Cause", "SpendFigures", "Spending", "Stand", "grain_of", "spent", "total_of")

T = TypeVar("T")
MINUTE, HOUR, DAY, WEEK = 60, 3600, 86_400, 604_800
SETTLED_SECONDS = 2 * DAY
FINE_DAYS = 13
"""How far back history knows parts of an hour, with a day to spare."""
MOST_ENTRIES = 20_000
TOKENS = ("input", "output", "cached", "reasoning")
_STATUS = "status:"

Read = Callable[[Query], Awaitable[Answer]]
_NONE: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class SpendFigures:
    """Calls and what they cost: `errors` failed, `unpriced_calls` cost nobody knows how much.

    `tokens` are `input`, `output`, `cached` and `reasoning`; the latter two are parts of the
    former.
    """

    calls: int = 0
    errors: int = 0
    nano_usd: int = 0
    unpriced_calls: int = 0
    by_status: Mapping[str, int] = field(default_factory=lambda: _NONE)
    tokens: Mapping[str, int] = field(default_factory=lambda: _NONE)

    @classmethod
    def of(cls, value: Value) -> SpendFigures:
        """The figures that a stored value holds."""
        counts = value.extra
        return cls(
            calls=value.count,
            errors=value.errors,
            nano_usd=value.total,
            unpriced_calls=counts.get("unpriced", 0),
            by_status={
                name.removeprefix(_STATUS): count
                for name, count in counts.items()
                if name.startswith(_STATUS)
            },
            tokens={kind: counts.get(kind, 0) for kind in TOKENS},
        )


def grain_of(zone: tzinfo, now: float) -> int:
    """The longest stretches of UTC of which the days around `now` are made, at most an hour."""
    starts = [day_of(now - days * DAY, zone).start for days in range(FINE_DAYS + 1)]
    return gcd(HOUR, *starts)


async def spent(
    read: Read, start: int, end: int, by: tuple[str, ...] = (), *, grain: int = HOUR
) -> dict[tuple[str, ...], SpendFigures]:
    """The figures from `start` to before `end`, whole multiples of `grain`, by labels."""
    sums = await _sums(read, start, end, by, grain)
    return {group: SpendFigures.of(sum_.value()) for group, sum_ in sums.items()}


async def _sums(
    read: Read, start: int, end: int, by: tuple[str, ...], grain: int
) -> dict[tuple[str, ...], Sum]:
    sums: dict[tuple[str, ...], Sum] = {}
    for first in range(start, end, DAY):
        last = min(end, first + DAY)
        answer = await read(Query(Kind.SPEND, first, last, step=grain, by=by))
        for group, stretches in answer.groups.items():
            sum_ = sums.setdefault(group, Sum())
            # Where only whole hours are known, one belongs to the day in which it begins.
            for value in (each for time, each in stretches.items() if first <= time < last):
                sum_.add(value)
    return {group: sum_ for group, sum_ in sums.items() if sum_.count}


def total_of(figures: Iterable[SpendFigures]) -> SpendFigures:
    """All of them together."""
    total, counts = SpendFigures(tokens=dict.fromkeys(TOKENS, 0)), Sum()
    for each in figures:
        counts.add_numbers(each.calls, each.errors, each.nano_usd, 0)
        counts.add_extra("unpriced", each.unpriced_calls)
        for status, count in each.by_status.items():
            counts.add_extra(f"{_STATUS}{status}", count)
        for kind, count in each.tokens.items():
            counts.add_extra(kind, count)
    return SpendFigures.of(counts.value()) if counts.count else total


class _Pieces(Generic[T]):
    """What is read of days, and kept while it cannot change much any more."""

    def __init__(self, fetch: Callable[[int, int], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._known: dict[tuple[int, int], tuple[float, T]] = {}

    async def since(self, first: int, now: float) -> list[T]:
        """What there is from `first` (a whole hour) to `now`, piece by piece."""
        closed = max(first, int(now // HOUR) * HOUR - HOUR)
        spans = [(start, min(start + DAY, closed)) for start in range(first, closed, DAY)]
        self._known = {span: self._known[span] for span in spans if self._holds(span, now)}
        for span in spans:
            if span not in self._known:
                self._known[span] = (now, await self._fetch(*span))
        found = [self._known[span][1] for span in spans]
        return [*found, await self._fetch(closed, int(now) + MINUTE)]

    def _holds(self, span: tuple[int, int], now: float) -> bool:
        """Whether what is known of a span is new enough: others may write late."""
        if span not in self._known:
            return False
        read = self._known[span][0]
        if span[1] <= read - SETTLED_SECONDS:
            return 0 <= now - read < DAY
        return read // HOUR == now // HOUR


@dataclass(frozen=True, slots=True)
class Cause:
    """What most of a finding is due to: the `name` of a `label` such as "model".

    It `spent` so many nano-dollars; `expected` is the usual, None where that is not asked for. An
    empty name stands for calls outside of requests, or without a feature.
    """

    label: str
    name: str
    spent: int
    expected: float | None


@dataclass(frozen=True, slots=True)
class Stand:
    """How things stand with the spend at the time `now`.

    `past` are the days before `today`; `last_week` is what the last seven days cost, to the hour
    at `week_start`.
    """

    now: float
    past: Past
    today: Day
    month: Period
    week_start: int
    last_week: int

    def judged(self, budgets: Budgets) -> Verdict:
        """What is to be said of it."""
        return judged(self.past, self.today, self.month, budgets, self.now)

    def before(self, zone: tzinfo) -> Stand | None:
        """How things stood at the end of the day before; None where nothing is known of it."""
        if not self.past.days:
            return None
        *days, day = self.past.days
        now = day.period.end - 1
        return Stand(now, Past(days), day, month_of(now, zone), now, 0)


class Spending:
    """The spend of the whole service, by `read`; `clock` gives UTC epoch seconds.

    `StoreError` where it cannot be read.
    """

    def __init__(self, read: Read, clock: Callable[[], float], zone: tzinfo) -> None:
        self.read = read
        self.zone = zone
        self._clock = clock
        self._totals = _Pieces(self._fetch_totals)
        self._models = _Pieces(self._fetch_models)
        self._month: Period | None = None
        self._past = Past(())
        self._frames: list[Frame] = []
        self._grain = (-1, HOUR)
        self._turn = Turn()

    @property
    def grain(self) -> int:
        """The stretches in which spend is read, in seconds."""
        day = int(self._clock() // DAY)
        if self._grain[0] != day:
            self._grain = (day, grain_of(self.zone, self._clock()))
        return self._grain[1]

    async def stand(self) -> Stand:
        """How things stand now."""
        async with self._turn:
            now = self._clock()
            pieces = await self._totals.since(int(now // DAY - HISTORY_DAYS) * DAY, now)
        amounts = {time: nano for piece in pieces for time, nano in piece.items()}
        *before, today = filled(self._frames_from(min(amounts, default=now), now), amounts)
        if list(self._past.days) != before:
            # Once in a day both what is above and what is below take some milliseconds.
            await anyio.lowlevel.checkpoint()
            self._past = Past(before)
        since = int((now - WEEK) // HOUR) * HOUR
        last_week = sum(nano for time, nano in amounts.items() if time >= since)
        return Stand(now, self._past, today, month_of(now, self.zone), since, last_week)

    async def unpriced_since(self, start: int) -> int:
        """How many calls from `start` on had no price."""
        found = await spent(self.read, start, int(self._clock()) + MINUTE, grain=self.grain)
        return total_of(found.values()).unpriced_calls

    def _frames_from(self, first: float, now: float) -> list[Frame]:
        frames = self._frames
        known = frames and frames[0].period.start <= first < frames[0].period.end
        if not known or not frames[-1].period.start <= now < frames[-1].period.end:
            self._frames = frames_of(first, now, self.zone)
        return self._frames

    async def models(self) -> dict[str, SpendFigures]:
        """The figures of this month, by model."""
        async with self._turn:
            now = self._clock()
            month = month_of(now, self.zone)
            if month != self._month:
                self._month, self._models = month, _Pieces(self._fetch_models)
            pieces = await self._models.since(month.start // HOUR * HOUR, now)
        sums: dict[str, Sum] = {}
        for piece in pieces:
            for (model,), sum_ in piece.items():
                sums.setdefault(model, Sum()).add(sum_)
        return {model: SpendFigures.of(sum_.value()) for model, sum_ in sums.items()}

    async def causes(self, finding: Finding, past: Past) -> list[Cause]:
        """The model, endpoint and feature that the most of a finding is due to.

        `past` are the days before the finding's.
        """
        start, end = finding.start, finding.end
        if finding.kind == "projected":
            end = int(self._clock()) + MINUTE
        actual = await self._costs(start, end)
        if finding.kind in {"budget", "projected"}:
            return [_cause(label, actual, None) for label in Kind.SPEND.labels]
        usual = [await self._costs(*span) for span in _spans_like(finding, past, self.zone)]
        return [_cause(label, actual, usual) for label in Kind.SPEND.labels]

    async def _costs(self, start: int, end: int) -> dict[tuple[str, ...], int]:
        """The nano-dollars of each model, endpoint and feature."""
        costs: dict[tuple[str, ...], int] = {}
        labels, grain = Kind.SPEND.labels, self.grain
        for first in range(start // HOUR * HOUR, end, DAY):
            last = min(end, first + DAY)
            query = Query(Kind.SPEND, first, last, step=grain, by=labels, cells=False)
            for group, stretches in (await self.read(query)).groups.items():
                for time, value in stretches.items():
                    if start <= time < end and first <= time < last:
                        costs[group] = costs.get(group, 0) + value.total
        return costs

    async def _fetch_totals(self, start: int, end: int) -> dict[int, int]:
        answer = await self.read(Query(Kind.SPEND, start, end, step=self.grain, cells=False))
        totals = {time: each.total for time, each in answer.groups.get((), {}).items()}
        if answer.step > HOUR:
            totals = _by_the_hour(totals, answer.step // HOUR)
        return {time: total for time, total in totals.items() if start <= time < end}

    async def _fetch_models(self, start: int, end: int) -> dict[tuple[str, ...], Sum]:
        # A month may begin within an hour.
        first = start if self._month is None else max(start, self._month.start)
        return await _sums(self.read, first, end, ("model",), self.grain)


def _by_the_hour(totals: Mapping[int, int], hours: int) -> dict[int, int]:
    """What is only known of so many hours together, as where a full disk has cost history hours."""
    found: dict[int, int] = {}
    for time, total in totals.items():
        each, rest = divmod(total, hours)
        for hour in range(hours):
            found[time + hour * HOUR] = each + (rest if hour == 0 else 0)
    return found


def _spans_like(finding: Finding, past: Past, zone: tzinfo) -> list[tuple[int, int]]:
    """The same hours of the days that a finding is compared with; whole days for a day's."""
    noon = datetime.fromtimestamp((finding.period.start + finding.period.end) / 2, zone)
    spans = []
    for day in past.like(noon.weekday()):
        earlier = finding.period.start - day.period.start
        start = finding.start - earlier
        end = start + WINDOW_HOURS * HOUR if finding.kind == "hours" else day.period.end
        spans.append((start, end))
    return spans


def _cause(
    label: str,
    actual: Mapping[tuple[str, ...], int],
    usual: Sequence[Mapping[tuple[str, ...], int]] | None,
) -> Cause:
    """The name of this label that costs most, or most above the usual where that is known."""
    place = Kind.SPEND.labels.index(label)
    spent_now = _by_name(actual, place)
    befores = [_by_name(each, place) for each in usual or ()]
    expected = {
        name: float(median(each.get(name, 0) for each in befores)) if befores else 0.0
        for name in spent_now
    }
    name = max(spent_now, key=lambda each: spent_now[each] - expected[each], default="")
    known = None if usual is None else expected.get(name, 0.0)
    return Cause(label, name, spent_now.get(name, 0), known)


def _by_name(costs: Mapping[tuple[str, ...], int], place: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for group, cost in costs.items():
        found[group[place]] = found.get(group[place], 0) + cost
    return found


class Account:
    """The spend that this process knows of, where history is off: what is told to `ledger`.

    `read` is asked as history is. It is bounded: the oldest hours are given up beyond that, which
    `dropped` counts.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ledger = Ledger("")
        self.dropped = 0
        self._clock = clock
        self._sums: dict[int, dict[Series, Sum]] = {}

    async def read(self, query: Query) -> Answer:
        """Answer a query about spend."""
        # There are many in a row, and no store to wait for.
        await anyio.lowlevel.checkpoint()
        self.settle()
        step = query.step or max(1, query.end - query.start)
        positions = [query.kind.labels.index(name) for name in query.by]
        groups: dict[tuple[str, ...], dict[int, Sum]] = {}
        first = -(-query.start // _QUARTER) * _QUARTER
        for time in range(first, query.end, _QUARTER):
            for series, sum_ in self._sums.get(time, {}).items():
                group = tuple(series.labels[place] for place in positions)
                start = time // step * step
                groups.setdefault(group, {}).setdefault(start, Sum()).add(sum_)
        found = {
            group: {time: sum_.value() for time, sum_ in stretches.items()}
            for group, stretches in groups.items()
        }
        return Answer(query.start, query.end, step, found)

    def settle(self) -> None:
        """Note what has come in since the last time as of now."""
        sums, _ = self.ledger.take()
        time = int(self._clock() // _QUARTER) * _QUARTER
        for series, sum_ in sums.items():
            self._sums.setdefault(time, {}).setdefault(series, Sum()).add(sum_)
        self._forget(time - HISTORY_DAYS * DAY)
        if sums:
            self._give_up()

    def _forget(self, expired: int) -> None:
        while self._sums and (first := next(iter(self._sums))) < expired:
            del self._sums[first]

    def _give_up(self) -> None:
        entries = sum(map(len, self._sums.values()))
        while entries > MOST_ENTRIES and len(self._sums) > 1:
            lost = len(self._sums.pop(next(iter(self._sums))))
            self.dropped += lost
            entries -= lost


_QUARTER = 900
