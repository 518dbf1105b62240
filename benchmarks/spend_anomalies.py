"""How often the rules for spend speak, rightly and wrongly: `python -m benchmarks.spend_anomalies`.

Spend is made up, hour by hour, from a seed: a bell over the day, weekends at a third, growth, noise
of hours and of days, services of several sizes. Each is judged as the monitor does it: by all rules
together, day after day and hour after hour, from the first day on.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC

from benchmarks.options import new_parser, positive
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor.usage.calendar import month_of
from holistic_asgi_monitor.usage.spend import (
    DOLLAR,
    HISTORY_DAYS,
    Budgets,
    Day,
    Finding,
    Past,
    days_of,
    judged,
)

MONDAY = 1_767_571_200
"""2026-01-05, 00:00 UTC."""
HOUR, DAY = 3600, 86_400
DAYS = 56
SETTLED = 28
BASES = (0.5, 2.0, 20.0)
"""US dollars in the busiest hour."""
HOUR_NOISE = (0.2, 0.35, 0.6)
DAY_NOISE = (0.1, 0.25, 0.4)
GROWTH = (0.0, 0.005, 0.01)
NIGHT, WEEKEND = 0.15, 0.3
TIMES = (1.5, 2.0, 3.0, 5.0)
PROJECTED_ON = (5, 10, 20)
MONTHS = ((55, 31), (86, 30), (116, 31))
"""On which day March, April and May begin, and how many days they have."""
SPIKE, AFTER_SPIKE, DAYS_BETWEEN = 20.0, 4.0, 4
STEP, STEP_DAYS = 2.5, 14
RUNAWAY = 10.0
PATIENCE_HOURS = 24


@dataclass(frozen=True, slots=True)
class Shape:
    """What a service spends: dollars in its busiest hour, growth a day, noise of hours and days."""

    base: float
    growth: float = 0.005
    hour_noise: float = 0.35
    day_noise: float = 0.0

    @classmethod
    def drawn(cls, draw: random.Random) -> Shape:
        """One of the services that the rules are meant for."""
        return cls(*(draw.choice(each) for each in (BASES, GROWTH, HOUR_NOISE, DAY_NOISE)))

    def days(self, draw: random.Random, count: int = DAYS) -> list[list[float]]:
        """The dollars of each hour of so many days, the first of them a Monday."""
        return [self._day(draw, number) for number in range(count)]

    def _day(self, draw: random.Random, number: int) -> list[float]:
        weekend = WEEKEND if number % 7 >= 5 else 1.0
        of_the_day = draw.lognormvariate(0, self.day_noise) * (1 + self.growth) ** number
        scale = self.base * weekend * of_the_day
        return [scale * _bell(hour) * draw.lognormvariate(0, self.hour_noise) for hour in range(24)]


def _bell(hour: int) -> float:
    return NIGHT + (1 - NIGHT) * max(0.0, math.sin((hour - 6) / 12 * math.pi))


def recorded(days: Iterable[Sequence[float]]) -> list[Day]:
    """Days as the rules take them."""
    hours = [dollars for day in days for dollars in day]
    spent = {MONDAY + HOUR * place: round(each * DOLLAR) for place, each in enumerate(hours)}
    return days_of(spent, MONDAY + HOUR * len(hours) - 1, UTC)


def by_the_hour(past: Past, day: Day) -> Iterator[tuple[int, Finding]]:
    """What is said in the course of a day, at the end of which hour: each thing once."""
    said: set[str] = set()
    month = month_of(day.period.start, UTC)
    for hour in range(24):
        so_far = replace(day, hours=(*day.hours[: hour + 1], *(0,) * (23 - hour)))
        now = day.period.start + HOUR * (hour + 1) - 1
        for found in judged(past, so_far, month, Budgets(), now).findings:
            if not said.intersection((found.key, *found.graver)):
                said.add(found.key)
                yield hour, found


def past_of(days: Sequence[Day], place: int) -> Past:
    """What is known of the days before one, as far back as is read."""
    return Past(days[max(0, place - HISTORY_DAYS) : place])


def messages(days: Sequence[Day], first: int, last: int) -> list[Finding]:
    """What is said on the days from `first` to before `last`."""
    return [
        found
        for place in range(first, last)
        for _, found in by_the_hour(past_of(days, place), days[place])
    ]


def times(day: Day, factor: float, since: int = 0) -> Day:
    """The day with its hours from `since` on so many times as dear."""
    hours = [round(each * factor) if hour >= since else each for hour, each in enumerate(day.hours)]
    return replace(day, hours=tuple(hours))


def rate(found: Sequence[object], days: int) -> float:
    """How many in a hundred days."""
    return 100 * len(found) / days


def false_alerts(draw: random.Random, count: int) -> dict[str, float]:
    """Messages in 100 days about services with which nothing is wrong."""
    young: list[Finding] = []
    settled: list[Finding] = []
    for _ in range(count):
        days = recorded(Shape.drawn(draw).days(draw))
        young += messages(days, 0, SETTLED)
        settled += messages(days, SETTLED, DAYS)
    of_hours = [found for found in settled if found.kind == "hours"]
    of_days = [found for found in settled if found.kind == "day"]
    days_each = count * (DAYS - SETTLED)
    return {
        "in the first four weeks": rate(young, count * SETTLED),
        "afterwards": rate(settled, days_each),
        "of these by the rule for days": rate(of_days, days_each),
        "of these by the rule for hours": rate(of_hours, days_each),
    }


def caught(draw: random.Random, count: int) -> dict[float, float]:
    """The share of days that are said when they cost so many times as much as they would."""
    found = dict.fromkeys(TIMES, 0)
    for _ in range(count):
        days = recorded(Shape.drawn(draw).days(draw))
        place = draw.randrange(SETTLED + 7, DAYS)
        for factor in TIMES:
            said = by_the_hour(past_of(days, place), times(days[place], factor))
            found[factor] += any(True for _ in said)
    return {factor: number / count for factor, number in found.items()}


def caught_after_a_spike(draw: random.Random, count: int) -> float:
    """The share of 4x days that are said though a 20x day was four days before."""
    found = 0
    for _ in range(count):
        days = recorded(Shape.drawn(draw).days(draw))
        place = draw.randrange(SETTLED + 7, DAYS)
        days[place - DAYS_BETWEEN] = times(days[place - DAYS_BETWEEN], SPIKE)
        said = by_the_hour(past_of(days, place), times(days[place], AFTER_SPIKE))
        found += any(True for _ in said)
    return found / count


def days_after_a_step(draw: random.Random, count: int) -> float:
    """On how many of the fourteen days something is said after spend has risen for good."""
    said = []
    for _ in range(count):
        days = Shape(2.0, day_noise=0.15).days(draw)
        first = SETTLED + 7
        risen = [[hour * STEP for hour in day] for day in days[first:]]
        found = messages(recorded([*days[:first], *risen]), first, first + STEP_DAYS)
        said.append(len({each.period for each in found}))
    return statistics.mean(said)


def small_change(draw: random.Random, count: int) -> tuple[float, float]:
    """Messages in 100 days on cents a day; and the share of first $0.40 that are said."""
    cents: list[Finding] = []
    first = 0
    for _ in range(count):
        days = recorded(Shape(0.01, day_noise=0.8).days(draw))
        cents += messages(days, SETTLED, DAYS)
        hours = [0.0] * 24
        hours[draw.randrange(24)] = 0.4
        empty = recorded([*[[0.0] * 24] * SETTLED, hours])
        first += len(messages(empty, SETTLED, SETTLED + 1))
    return rate(cents, count * (DAYS - SETTLED)), first / count


def daily_job(draw: random.Random, count: int) -> float:
    """Messages in 100 days on a job that costs about $10, once a day at any hour."""
    found: list[Finding] = []
    for _ in range(count):
        days = [[0.0] * 24 for _ in range(DAYS)]
        for day in days:
            day[draw.randrange(24)] = 10 * draw.lognormvariate(0, 0.25)
        found += messages(recorded(days), SETTLED, DAYS)
    return rate(found, count * (DAYS - SETTLED))


def delays(draw: random.Random, count: int) -> list[int | None]:
    """After how many hours a loop is said that costs ten times the usual from some hour on."""
    found: list[int | None] = []
    for _ in range(count):
        days = recorded(Shape.drawn(draw).days(draw))
        place, since = draw.randrange(SETTLED + 7, DAYS - 1), draw.randrange(20)
        days[place] = times(days[place], RUNAWAY, since)
        days[place + 1] = times(days[place + 1], RUNAWAY)
        found.append(_delay(days, place, since))
    return found


def _delay(days: Sequence[Day], place: int, since: int) -> int | None:
    for day in range(2):
        for hour, _ in by_the_hour(past_of(days, place + day), days[place + day]):
            late = 24 * day + hour - since + 1
            if 0 < late <= PATIENCE_HOURS:
                return late
    return None


def projection_errors(
    draw: random.Random, count: int, shape: Callable[[random.Random], Shape]
) -> dict[str, dict[int, list[float]]]:
    """How far off the end of the month is, as a share of it, on some days of the month."""
    ours: dict[int, list[float]] = {day: [] for day in PROJECTED_ON}
    linear: dict[int, list[float]] = {day: [] for day in PROJECTED_ON}
    for _ in range(count):
        begin, length = draw.choice(MONTHS)
        days = recorded(shape(draw).days(draw, begin + length))
        true = sum(day.spent for day in days[begin:])
        for number in PROJECTED_ON:
            place = begin + number - 1
            now = days[place].period.end - 1
            month = month_of(now, UTC)
            verdict = judged(past_of(days, place), days[place], month, Budgets(), now)
            assert verdict.projected is not None
            ours[number].append(abs(verdict.projected / true - 1))
            linear[number].append(abs(verdict.month / number * length / true - 1))
    return {"ours": ours, "linear": linear}


def calm(draw: random.Random) -> Shape:
    """A service whose days differ by their hours alone."""
    return Shape(2.0, draw.choice(GROWTH))


@dataclass(frozen=True, slots=True)
class Promise:
    """What the figures must keep: whether they do, and in words what it is."""

    kept: bool
    words: str


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of so many made up services.

    Shares are from 0 to 1, alerts messages in 100 days, delays hours (None: not within a day).
    """

    services: int
    false_alerts: Mapping[str, float]
    caught: Mapping[float, float]
    after_spike: float
    after_step: float
    cents: float
    first_cents: float
    job: float
    delays: Sequence[int | None]
    errors: Mapping[str, Mapping[int, Sequence[float]]]
    calm_errors: Mapping[str, Mapping[int, Sequence[float]]]

    @property
    def late(self) -> list[int]:
        """The delays in order, the missed ones as longer than any."""
        return sorted(PATIENCE_HOURS + 1 if each is None else each for each in self.delays)

    @property
    def promises(self) -> tuple[Promise, ...]:
        """What is promised of these figures."""
        return (
            Promise(max(self.false_alerts.values()) <= 2, "at most 2 false alerts in 100 days"),
            Promise(self.caught[3.0] >= 0.65, "65 % of the 3x days are said"),
            Promise(self.after_spike >= 0.84, "a 20x day does not hide a 4x day"),
            Promise(self.first_cents == 0, "the first $0.40 is not said"),
            Promise(_share(self.late, 0.9) <= 3, "a 10x loop is said within 3 h"),
            Promise(self.late[-1] <= PATIENCE_HOURS, "no 10x loop is missed"),
        )


def _share(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def measured(seed: int, count: int) -> Figures:
    """All figures, of so many services each."""

    def draw() -> random.Random:
        return random.Random(seed)

    cents, first_cents = small_change(draw(), count)
    return Figures(
        services=count,
        false_alerts=false_alerts(draw(), count),
        caught=caught(draw(), count),
        after_spike=caught_after_a_spike(draw(), count),
        after_step=days_after_a_step(draw(), count),
        cents=cents,
        first_cents=first_cents,
        job=daily_job(draw(), count),
        delays=delays(draw(), count),
        errors=projection_errors(draw(), count, Shape.drawn),
        calm_errors=projection_errors(draw(), count, calm),
    )


def report(figures: Figures) -> str:
    """The tables with the conditions above them."""
    head = conditions((), f"{figures.services} made up services for each line")
    return f"{head}\n\n{_alerts_table(figures)}\n\n{_projection_table(figures)}"


def _alerts_table(figures: Figures) -> str:
    late = figures.late
    missed = sum(each is None for each in figures.delays)
    rows = [
        *((f"false alerts, {name}", f"{each:.2f}") for name, each in figures.false_alerts.items()),
        *((f"days of {factor:g}x said", _percent(each)) for factor, each in figures.caught.items()),
        ("days of 4x said, four days after one of 20x", _percent(figures.after_spike)),
        ("days with a message after a lasting step of 2.5x", f"{figures.after_step:.1f}"),
        ("false alerts on cents a day", f"{figures.cents:.2f}"),
        ("the first $0.40 after four weeks of nothing said", _percent(figures.first_cents)),
        ("false alerts on a job of $10 a day, at any hour", f"{figures.job:.2f}"),
        ("hours until a loop of 10x is said: median", f"{_share(late, 0.5):g}"),
        ("hours until a loop of 10x is said: 90th percentile", f"{_share(late, 0.9):g}"),
        ("loops of 10x not said within a day", f"{missed} of {len(late)}"),
    ]
    return markdown(["false alerts are messages in 100 days", "figure"], rows)


def _projection_table(figures: Figures) -> str:
    kinds = (figures.calm_errors, figures.errors)
    rows = [
        [
            f"on day {day}",
            *(_error(errors[name][day]) for errors in kinds for name in ("ours", "linear")),
        ]
        for day in PROJECTED_ON
    ]
    columns = ["days alike: ours", "linear", "all services: ours", "linear"]
    return markdown(["error of the projection: median (90th percentile)", *columns], rows)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _error(errors: Sequence[float]) -> str:
    ordered = sorted(errors)
    return f"{100 * statistics.median(ordered):.1f} % ({100 * _share(ordered, 0.9):.1f} %)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, print or write the table; exit 1 where a promise is broken."""
    parser = new_parser("benchmarks.spend_anomalies", __doc__)
    parser.add_argument("--services", type=positive, default=480, help="for each line (480)")
    parser.add_argument("--seed", type=positive, default=7, help="of what is made up (7)")
    options = parser.parse_args(arguments)
    figures = measured(options.seed, options.services)
    publish("spend", report(figures), options.write)
    broken = [promise.words for promise in figures.promises if not promise.kept]
    if broken:
        raise SystemExit(f"Not as promised: {'; '.join(broken)}")


if __name__ == "__main__":
    main()
