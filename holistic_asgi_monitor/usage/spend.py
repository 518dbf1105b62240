"""What is said of spend: budgets, days and hours that cost far too much, and how a month will end.

Pure: hours of spend go in, with the time. A verdict on a day that is not over can only grow with
what is spent, since what is expected comes from the days before it alone. So which days were
unusual is worked out anew from history, and neither processes nor restarts can make it differ.
Amounts are nano-dollars.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from functools import cached_property
from itertools import accumulate
from statistics import fmean, median

from holistic_asgi_monitor.usage.calendar import Period, day_of

__all__ = (
    "DOLLAR",
    "HISTORY_DAYS",
    "RUNAWAY",
    "WINDOW_HOURS",
    "Budgets",
    "Day",
    "Finding",
    "Frame",
    "Past",
    "Verdict",
    "days_of",
    "filled",
    "frames_of",
    "judged",
)

DOLLAR = 1_000_000_000
HOUR = 3600
HISTORY_DAYS = 63
"""How far back is looked: four weeks to compare with, and as many to know them by."""
BUDGET_PERCENT = (100, 80, 50)
WEEK, FOUR_WEEKS = 7, 28
DAY_FACTORS, YOUNG_FACTOR = (2.5, 4.0), 3.0
DAY_MARGIN, RECENT_DAYS = 1.3, 21
LEVELS = (0.5, 2.0)
FLOOR = DOLLAR
WINDOW_HOURS = 3
HOUR_FACTORS, YOUNG_HOUR_FACTOR = (3.0, 5.0), 6.0
HOUR_MARGIN, WILD = 2.0, 7.0
SHARE_OF_A_DAY = 0.1
RUNAWAY = 10.0
"""From so many times the expected on, it is an error and no longer a warning."""
NEWS = 2.0
"""A day is news beside some of its hours when it is so many times as far above the expected."""
NEW_NORMAL_DAYS = 3
LEAST_DAYS = 3
"""Whole days without which nothing is said of how the month will end."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a day and a month may cost; None where nobody says so."""

    day: int | None = None
    month: int | None = None


@dataclass(frozen=True)
class Day:
    """A local day: `hours` are what each of its 23 to 25 hours cost, `clock` their local hours.

    `weekday` is 0 for Monday.
    """

    period: Period
    weekday: int
    hours: tuple[int, ...]
    clock: tuple[int, ...]

    @cached_property
    def spent(self) -> int:
        """What the whole day cost."""
        return sum(self.hours)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to say once in a `period`.

    `kind` is "budget", "projected", "day" or "hours"; `level` the percent of a budget, or whether
    the expected is far ("unusual") or very far ("runaway") behind. `spent` stands against
    `expected` (the budget, for budgets), from `start` to `end` in UTC epoch seconds.
    """

    kind: str
    period: Period
    level: str
    spent: float
    expected: float
    start: int
    end: int

    @property
    def topic(self) -> str:
        """What it is about, in whatever period and to whatever degree."""
        return f"spend {self.kind} {self.period.kind}"

    @property
    def key(self) -> str:
        """What is said once: the same in all processes."""
        return self._key(self.level)

    @property
    def graver(self) -> tuple[str, ...]:
        """The keys that leave nothing to say here once they are said."""
        steps = [str(percent) for percent in BUDGET_PERCENT]
        if self.kind == "projected":
            return (replace(self, kind="budget", level=steps[0]).key,)
        levels = steps if self.kind == "budget" else ["runaway", "unusual"]
        return tuple(self._key(level) for level in levels[: levels.index(self.level)])

    @property
    def excess(self) -> float:
        """How much more it is."""
        return self.spent - self.expected

    @property
    def ratio(self) -> float | None:
        """How many times as much it is; None where nothing was expected."""
        return self.spent / self.expected if self.expected else None

    def _key(self, level: str) -> str:
        key = f"{self.topic} {self.period.name} {level}"
        if self.kind in {"day", "hours"}:
            return key
        # Another budget is another matter, also where more was said of the one before.
        return f"{key} of {self.expected / DOLLAR:.2f}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How things stand with the spend of a day and its month, and what there is to say."""

    today: int
    month: int
    projected: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What a day should cost, and from how many times that on it is unusual."""

    nano_usd: float
    factor: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """A day that is over: how many times the expected it cost (None: unknown), if that is much."""

    day: Day
    ratio: float | None
    unusual: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """A local day before anything is known of it; the fields are those of `Day`."""

    period: Period
    weekday: int
    clock: tuple[int, ...]


def days_of(spent: Mapping[int, int], now: float, zone: tzinfo) -> list[Day]:
    """The local days from the first with anything recorded to the one of `now`, oldest first.

    `spent` is what was spent from each time on (UTC epoch seconds); it counts in the hour, and in
    the day, that this time is in.
    """
    return filled(frames_of(min(spent), now, zone), spent) if spent else []


def frames_of(first: float, now: float, zone: tzinfo) -> list[Frame]:
    """The local days from the one of `first` to the one of `now`."""
    frames = [_frame(day_of(min(first, now), zone), zone)]
    while frames[-1].period.end <= now:
        frames.append(_frame(day_of(frames[-1].period.end, zone), zone))
    return frames


def filled(frames: Sequence[Frame], spent: Mapping[int, int]) -> list[Day]:
    """The days with what was spent in them; what is not in them is left out."""
    starts = [frame.period.start for frame in frames]
    hours = [[0] * len(frame.clock) for frame in frames]
    for time, amount in spent.items():
        place = bisect_right(starts, time) - 1
        if place >= 0 and time < frames[place].period.end:
            hours[place][(time - starts[place]) // HOUR] += amount
    return [
        Day(frame.period, frame.weekday, tuple(spent_in), frame.clock)
        for frame, spent_in in zip(frames, hours, strict=True)
    ]


def _frame(period: Period, zone: tzinfo) -> Frame:
    starts = range(period.start, period.end, HOUR)
    clock = tuple(datetime.fromtimestamp(start, zone).hour for start in starts)
    # Noon: where the clock goes back over midnight, the first moments have another date.
    noon = datetime.fromtimestamp((period.start + period.end) / 2, zone)
    return Frame(period, noon.weekday(), clock)


@dataclass(frozen=True, slots=True)
class HoursRule:
    """Hours are unusual above `factor` times the expected, and more than `least` above it."""

    factor: float
    least: float


class Past:
    """The days before one, oldest first, and what they let expect.

    The first of `days` is the first with anything recorded.
    """

    def __init__(self, days: Sequence[Day]) -> None:
        self.days = tuple(days)
        self._seen = _looked_at(self.days)
        self._expected_days: dict[int, _Expected | None] = {}
        self._expected_hours: dict[tuple[int | None, tuple[int, ...]], list[float]] = {}
        self.kept = tuple(_kept(self._seen))
        """The days without those that were unusual."""

    def like(self, weekday: int) -> list[Day]:
        """The days that one of this weekday is compared with, oldest first."""
        if self._is_young:
            return list(self._comparable)
        return [day for day in self._comparable if day.weekday == weekday]

    def expected_day(self, weekday: int) -> _Expected | None:
        """What the day that follows is expected to cost; None where there are too few days."""
        if weekday not in self._expected_days:
            self._expected_days[weekday] = _expected(self._seen, weekday)
        return self._expected_days[weekday]

    @cached_property
    def average_day(self) -> float:
        """What the last seven days that were not unusual cost on average."""
        return fmean(day.spent for day in self.kept[-WEEK:]) if self.kept else 0.0

    @cached_property
    def _hours(self) -> dict[tuple[int | None, int], float]:
        """The usual cost of each hour of the week; of the day, where there are no four weeks."""
        found: dict[tuple[int | None, int], list[int]] = {}
        for day in self._comparable:
            for hour, amount in zip(day.clock, day.hours, strict=True):
                found.setdefault((self._weekday(day), hour), []).append(amount)
        # A service that grows would be ahead of its own four weeks for as long as it does.
        level = max(1.0, _level_of([day.spent for day in self.kept]) or 1.0)
        return {key: level * median(amounts) for key, amounts in found.items()}

    @property
    def _is_young(self) -> bool:
        return len(self.days) < FOUR_WEEKS

    @cached_property
    def _comparable(self) -> Sequence[Day]:
        if self._is_young:
            return self.kept[-WEEK:]
        since = self.days[-FOUR_WEEKS].period.start
        return [day for day in self.kept if day.period.start >= since]

    def _weekday(self, day: Day) -> int | None:
        return None if self._is_young else day.weekday

    def expected_hours(self, day: Day) -> list[float]:
        """What each hour of a day is expected to cost."""
        key = self._weekday(day), day.clock
        if key not in self._expected_hours:
            hours = [self._hours.get((key[0], hour), 0.0) for hour in day.clock]
            self._expected_hours[key] = hours
        return self._expected_hours[key]

    @cached_property
    def hours_rule(self) -> HoursRule:
        """From where on hours are unusual, going by how unlike each other they are."""
        least = max(FLOOR, SHARE_OF_A_DAY * self.average_day)
        days = [self._pairs(day) for day in self._comparable]
        # Of a few days every one must speak; of many none alone, so that it hides nothing.
        greatest = max if self._is_young else _second
        ratio = greatest([0.0, *map(_greatest_ratio, days)])
        low, high = HOUR_FACTORS
        high = YOUNG_HOUR_FACTOR if self._is_young else high
        # What comes at no fixed hour is far from the expected in many of them.
        if ratio > WILD or greatest([0.0, *map(_unexpected, days)]) > least:
            least = max(least, HOUR_MARGIN * greatest([0.0, *map(_greatest_excess, days)]))
        return HoursRule(min(max(HOUR_MARGIN * ratio, low), high), least)

    def _pairs(self, day: Day) -> list[tuple[float, float]]:
        """What each hour and the two before it cost, on that day alone, and what they should."""
        return list(zip(_windows(day.hours), _windows(self.expected_hours(day)), strict=True))

    @cached_property
    def profile(self) -> tuple[float, ...] | None:
        """What a day of each weekday from now on will cost; None while nobody can say."""
        if len(self.days) < LEAST_DAYS or not self.kept:
            return None
        if self._is_young:
            return (self.average_day,) * WEEK
        usual = [
            median([day.spent for day in self.like(weekday)] or [0]) for weekday in range(WEEK)
        ]
        last = self.kept[-WEEK:]
        before = sum(usual[day.weekday] for day in last)
        scale = sum(day.spent for day in last) / before if before else 1.0
        return tuple(scale * each for each in usual)


def _looked_at(days: Sequence[Day]) -> list[_Seen]:
    """The days, each judged by those before it."""
    seen: list[_Seen] = []
    for day in days:
        expected = _expected(seen, day.weekday)
        if expected is None or not expected.nano_usd:
            seen.append(_Seen(day, None, expected is not None and _exceeds(day.spent, expected)))
        else:
            ratio = day.spent / expected.nano_usd
            seen.append(_Seen(day, ratio, _exceeds(day.spent, expected)))
    return seen


def _exceeds(spent: float, expected: _Expected) -> bool:
    excess = spent - expected.nano_usd
    return spent > expected.factor * expected.nano_usd and excess > FLOOR


def _kept(seen: Sequence[_Seen]) -> list[Day]:
    """The days without the unusual ones, but for those of which a week had several.

    What happens again and again is what is normal now.
    """
    if not any(each.unusual for each in seen):
        return [each.day for each in seen]
    again = _again(seen)
    return [each.day for at, each in enumerate(seen) if not each.unusual or again[at]]


def _again(seen: Sequence[_Seen]) -> list[bool]:
    """Whether each day is in a week with several unusual ones."""
    sums = [0, *accumulate(each.unusual for each in seen)]
    again = [False] * len(seen)
    for end in range(1, len(sums)):
        start = max(0, end - WEEK)
        if sums[end] - sums[start] >= NEW_NORMAL_DAYS:
            again[start:end] = [True] * (end - start)
    return again


def _expected(seen: Sequence[_Seen], weekday: int) -> _Expected | None:
    """What the day after those seen should cost; None where there are too few of them."""
    kept = _kept(seen) if len(seen) >= WEEK else []
    if not kept:
        return None
    spent = [day.spent for day in kept]
    usual = median(spent[-WEEK:])
    if len(seen) >= FOUR_WEEKS:
        usual = _same_weekday(kept, seen[-FOUR_WEEKS].day.period.start, weekday, usual)
    if not usual:
        usual = _of_those_that_cost(spent, [each.day.spent for each in seen])
    return _Expected(max(usual, _new_normal(seen)), _factor(seen))


def _new_normal(seen: Sequence[_Seen]) -> float:
    """What days cost by now, where a week of the last four had several unusual ones; else 0."""
    recent = seen[-FOUR_WEEKS:]
    if sum(each.unusual for each in recent) < NEW_NORMAL_DAYS or not any(_again(recent)):
        return 0.0
    days = NEW_NORMAL_DAYS if any(_again(seen[-WEEK:])) else WEEK
    return median(each.day.spent for each in seen[-days:])


def _factor(seen: Sequence[_Seen]) -> float:
    """Where days are very unlike each other, it takes more to be unusual."""
    recent = seen[-RECENT_DAYS:]
    ratios = [each.ratio for each in recent if each.ratio is not None and not each.unusual]
    low, high = DAY_FACTORS
    least = low if len(seen) >= FOUR_WEEKS else YOUNG_FACTOR
    return min(max(DAY_MARGIN * max(ratios, default=0.0), least), high)


def _same_weekday(kept: Sequence[Day], since: int, weekday: int, otherwise: float) -> float:
    """The median of the same weekday, at the level of the last week."""
    same = [day.spent for day in kept if day.weekday == weekday and day.period.start >= since]
    level = _level_of([day.spent for day in kept])
    return otherwise if not same or level is None else median(same) * level


def _level_of(spent: Sequence[int]) -> float | None:
    """How many times what it was the last week costs; None where there was nothing before it."""
    last, before = spent[-WEEK:], spent[-FOUR_WEEKS:-WEEK]
    if not before:
        return None
    return min(max(median(last) / max(median(before), 1), LEVELS[0]), LEVELS[1])


def _of_those_that_cost(kept: Sequence[int], every: Sequence[int]) -> float:
    """Where most days cost nothing: the median of the others, if there are some."""
    for spent in (kept, every):
        some = [amount for amount in spent[-FOUR_WEEKS:] if amount]
        if len(some) >= NEW_NORMAL_DAYS:
            return median(some)
    return 0.0


def judged(past: Past, today: Day, month: Period, budgets: Budgets, now: float) -> Verdict:
    """What is to be said of a day and of its `month` at the time `now`, which is in that day."""
    before = sum(day.spent for day in past.days if day.period.start >= month.start)
    spent = before + today.spent
    rest = _rest_of_month(past, today, month, now)
    projected = None if rest is None else spent + rest
    found = (
        _reached(today.period, today.spent, budgets.day, now),
        _reached(month, spent, budgets.month, now),
        _too_much_in_the_end(month, spent, projected, budgets.month),
        *_anomalies(past, today, now),
    )
    return Verdict(today.spent, spent, projected, tuple(each for each in found if each))


def _reached(period: Period, spent: int, budget: int | None, now: float) -> Finding | None:
    """The highest step of a budget that is reached; who jumps over some hears of that one only."""
    for percent in BUDGET_PERCENT:
        if budget and spent * 100 >= percent * budget:
            end = min(int(now), period.end)
            return Finding("budget", period, str(percent), spent, budget, period.start, end)
    return None


def _too_much_in_the_end(
    month: Period, spent: int, projected: float | None, budget: int | None
) -> Finding | None:
    if not budget or projected is None or not spent < budget < projected:
        return None
    return Finding("projected", month, "over", projected, budget, month.start, month.end)


def _rest_of_month(past: Past, today: Day, month: Period, now: float) -> float | None:
    profile = past.profile
    if profile is None:
        return None
    # A day of summer-time change is an hour longer or shorter.
    left = round((month.end - today.period.end) / (24 * HOUR))
    days = sum(profile[(today.weekday + number) % WEEK] for number in range(1, left + 1))
    return days + profile[today.weekday] * _left_of(past.expected_hours(today), today, now)


def _left_of(hours: Sequence[float], today: Day, now: float) -> float:
    """The share of a day's spend that is still to come, 0 to 1, going by its usual hours."""
    weights = hours if sum(hours) else [1.0] * len(hours)
    passed = min(max((now - today.period.start) / HOUR, 0.0), float(len(weights)))
    whole = int(passed)
    done = sum(weights[:whole]) + sum(weights[whole : whole + 1]) * (passed - whole)
    return 1 - done / sum(weights)


def _anomalies(past: Past, today: Day, now: float) -> list[Finding]:
    """The day and some of its hours, where they cost far too much, and what is news of it."""
    hours, day = _unusual_hours(past, today, now), _unusual_day(past, today, now)
    if hours is None or day is None:
        return [each for each in (hours, day) if each]
    graver = day.level != hours.level and day.level == "runaway"
    return [hours, day] if graver or day.excess >= NEWS * hours.excess else [hours]


def _unusual_day(past: Past, today: Day, now: float) -> Finding | None:
    expected = past.expected_day(today.weekday)
    if expected is None or not _exceeds(today.spent, expected):
        return None
    start, end = today.period.start, min(int(now), today.period.end)
    level = _level(today.spent, expected.nano_usd)
    return Finding("day", today.period, level, today.spent, expected.nano_usd, start, end)


def _level(spent: float, expected: float) -> str:
    # Ten times next to nothing is not worth an error.
    far = spent >= RUNAWAY * expected > 0 and spent - expected >= RUNAWAY * FLOOR
    return "runaway" if far else "unusual"


def _unusual_hours(past: Past, today: Day, now: float) -> Finding | None:
    """The first hours of today that cost far too much, or the first that cost very far too much.

    What goes on from the day before without a break was that day's to say.
    """
    if len(past.days) < WEEK:
        return None
    found = [
        Finding("hours", today.period, _level(spent, expected), spent, expected, start, end)
        for spent, expected, start, end in _dear_windows(past, today, now)
    ]
    return next((each for each in found if each.level == "runaway"), found[0] if found else None)


def _dear_windows(past: Past, today: Day, now: float) -> Iterator[tuple[float, float, int, int]]:
    """What each hour of today and the two before it cost and should, from when to when."""
    before = past.days[-1]
    spent = _windows((*before.hours, *today.hours))
    expected = _windows((*past.expected_hours(before), *past.expected_hours(today)))
    rule, first = past.hours_rule, len(before.hours)
    dear = [
        cost > rule.factor * usual and cost - usual > rule.least
        for cost, usual in zip(spent, expected, strict=True)
    ]
    since = dear.index(False, first - 1) if False in dear[first - 1 :] else len(dear)
    for place in range(max(since, first), len(dear)):
        if dear[place]:
            end = today.period.start + (place - first + 1) * HOUR
            start = end - WINDOW_HOURS * HOUR
            yield spent[place], expected[place], start, min(int(now), end)


def _greatest_ratio(pairs: Iterable[tuple[float, float]]) -> float:
    return max((cost / expected for cost, expected in pairs if expected), default=0.0)


def _greatest_excess(pairs: Iterable[tuple[float, float]]) -> float:
    return max(cost - expected for cost, expected in pairs)


def _unexpected(pairs: Iterable[tuple[float, float]]) -> float:
    """The most that hours cost in which nothing is expected."""
    return max((cost for cost, expected in pairs if not expected), default=0.0)


def _second(values: Sequence[float]) -> float:
    """The greatest but one."""
    return sorted(values)[-2:][0]


def _windows(hours: Sequence[float]) -> list[float]:
    """What each hour and the two before it cost together."""
    before = (*(0,) * (WINDOW_HOURS - 1), *hours)
    return list(map(sum, zip(*(before[place:] for place in range(WINDOW_HOURS)), strict=False)))
