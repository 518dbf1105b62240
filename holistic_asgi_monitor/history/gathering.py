"""Stored values on their way into an answer, and into coarser tiers: pure, for every store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

from holistic_asgi_monitor.history.codec import add_encoded, add_packed
from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.history.tiers import FINEST, ROLLED, Plan, Tier
from holistic_asgi_monitor.history.values import Row, Series, Sum, Value

__all__ = ("Gathering", "Stored", "gathered", "give_way", "joined", "matching", "rolled")


T = TypeVar("T")
AT_ONCE = 48
PAUSE_SECONDS = 0.0001
"""Long enough for another thread to wake up; a pause of 0 is over before it does."""


class Stored(NamedTuple):
    """One stored value: the store's number of its series, its time, its numbers, its bytes."""

    series: int
    time: int
    counted: int
    errors: int
    total: int
    peak: int
    body: bytes | None

    def add_to(self, into: Sum) -> None:
        """Add this value; a body that was not read is left out."""
        into.add_numbers(self.counted, self.errors, self.total, self.peak)
        if self.body:
            add_encoded(into, self.body)


class Gathering:
    """Puts values into the stretches and groups of an answer."""

    def __init__(self, query: Query, plan: Plan) -> None:
        self._plan = plan
        self._positions = [query.kind.labels.index(name) for name in query.by]
        self._groups: dict[tuple[str, ...], dict[int, Sum]] = {}

    def group(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The group that a series with these labels belongs to."""
        return tuple(labels[position] for position in self._positions)

    def sum(self, group: tuple[str, ...], time: int) -> Sum:
        """Where a value of this group and time is added."""
        stretches = self._groups.setdefault(group, {})
        start = self._plan.stretch(time)
        found = stretches.get(start)
        if found is None:
            found = stretches[start] = Sum()
        return found

    def answer(self) -> Answer:
        """The answer as it stands."""
        groups = {
            group: {start: stretches[start].value() for start in sorted(stretches)}
            for group, stretches in self._groups.items()
        }
        return Answer(self._plan.start, self._plan.end, self._plan.step, groups)


def gathered(
    query: Query, plan: Plan, known: Mapping[int, Series], found: Iterable[Stored]
) -> Answer:
    """The answer that stored values make; `known` are the series by their numbers."""
    gathering = Gathering(query, plan)
    groups = {number: gathering.group(series.labels) for number, series in known.items()}
    for stored in _giving_way(found):
        stored.add_to(gathering.sum(groups[stored.series], stored.time))
    return gathering.answer()


def joined(query: Query, answer: Answer, rows: Iterable[Row]) -> Answer:
    """The answer of a store, with rows that belong into it and are not in the store yet."""
    chosen = Plan(FINEST, answer.start, answer.end, answer.step)
    gathering = Gathering(query, chosen)
    changed: dict[tuple[str, ...], dict[int, Value]] = {}
    for row in rows:
        group, start = gathering.group(row.series.labels), chosen.stretch(row.time)
        stretches = changed.get(group)
        if stretches is None:
            stretches = changed[group] = {**answer.groups.get(group, {})}
        sum_ = Sum.of([stretches[start]] if start in stretches else [])
        add_packed(sum_, row.packed)
        stretches[start] = sum_.value()
    ordered = {group: dict(sorted(stretches.items())) for group, stretches in changed.items()}
    return replace(answer, groups={**answer.groups, **ordered})


def matching(query: Query, series: Series) -> bool:
    """Whether a query asks for a series."""
    if series.kind is not query.kind:
        return False
    labels = dict(zip(series.kind.labels, series.labels, strict=True))
    return all(labels[name] == wanted for name, wanted in query.where.items())


def rolled(found: Iterable[Stored]) -> dict[Tier, dict[tuple[int, int], Sum]]:
    """What the values add to each coarser tier, by series and time."""
    sums: dict[Tier, dict[tuple[int, int], Sum]] = {tier: {} for tier in ROLLED}
    finest = sums[ROLLED[0]]
    for stored in _giving_way(found):
        place = (stored.series, ROLLED[0].floor(stored.time))
        stored.add_to(finest.setdefault(place, Sum()))
    for tier in ROLLED[1:]:
        for (series, time_), sum_ in _giving_way(finest.items()):
            sums[tier].setdefault((series, tier.floor(time_)), Sum()).add(sum_)
    return sums


def give_way() -> None:
    """Let go of the interpreter lock for as long as the event loop takes to wake up."""
    time.sleep(PAUSE_SECONDS)


def _giving_way(found: Iterable[T]) -> Iterator[T]:
    """The same, with the interpreter lock let go in between.

    All this runs in threads: without it the event loop would wait for 5 ms each time.
    """
    for number, each in enumerate(found):
        if number % AT_ONCE == 0:
            give_way()
        yield each
