"""Stored values on their way into an answer, and into coarser tiers: pure, for every store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from holistic_asgi_monitor.history.codec import CodecError, add_encoded, add_packed
from holistic_asgi_monitor.history.pace import giving_way
from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.history.tiers import FINEST, ROLLED, Plan, Tier
from holistic_asgi_monitor.history.values import Row, Series, Sum

__all__ = (
    "Gathering",
    "Joining",
    "Stored",
    "Unreadable",
    "gathered",
    "matching",
    "rolled",
)


class Stored(NamedTuple):
    """One stored value: the store's number of its series, its time, its numbers, its bytes."""

    series: int
    time: int
    counted: int
    errors: int
    total: int
    peak: int
    body: bytes | None

    def add_to(self, into: Sum) -> bool:
        """Add this value, all of it or nothing; whether it could be read.

        A body that was not asked for is left out.
        """
        if self.body:
            try:
                add_encoded(into, self.body)
            except CodecError:
                return False
        into.add_numbers(self.counted, self.errors, self.total, self.peak)
        return True


@dataclass(slots=True)
class Unreadable:
    """How many values could not be read, and were left out."""

    count: int = 0

    def add(self, stored: Stored, into: Sum) -> bool:
        """Add a value, or count it here; whether it could be read."""
        readable = stored.add_to(into)
        self.count += not readable
        return readable


class Gathering:
    """Puts values into the stretches and groups of an answer."""

    def __init__(self, query: Query, plan: Plan) -> None:
        self._plan = plan
        self._positions = [query.kind.labels.index(name) for name in query.by]
        self._groups: dict[tuple[str, ...], dict[int, Sum]] = {}

    def group(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        """The group that a series with these labels belongs to."""
        return tuple(labels[position] for position in self._positions)

    def add(self, group: tuple[str, ...], stored: Stored) -> None:
        """Add a stored value; one that cannot be read is left out, and makes no stretch."""
        start = self._plan.stretch(stored.time)
        sum_ = self._groups.get(group, {}).get(start) or Sum()
        if stored.add_to(sum_):
            self._groups.setdefault(group, {})[start] = sum_

    def answer(self) -> Answer:
        """The answer as it stands."""
        groups = {
            group: {start: stretches[start].value() for start in giving_way(sorted(stretches))}
            for group, stretches in giving_way(self._groups.items())
        }
        return Answer(self._plan.start, self._plan.end, self._plan.step, groups)


def gathered(
    query: Query, plan: Plan, known: Mapping[int, Series], found: Iterable[Stored]
) -> Answer:
    """The answer that stored values make; `known` are the series by their numbers."""
    gathering = Gathering(query, plan)
    groups = {number: gathering.group(series.labels) for number, series in known.items()}
    for stored in giving_way(found):
        gathering.add(groups[stored.series], stored)
    return gathering.answer()


class Joining:
    """The answer of a store, on the way to holding what is not in the store yet as well."""

    def __init__(self, query: Query, answer: Answer) -> None:
        self._query = query
        self._answer = answer
        self._plan = Plan(FINEST, answer.start, answer.end, answer.step)
        self._gathering = Gathering(query, self._plan)
        self._changed: dict[tuple[str, ...], dict[int, Sum]] = {}

    def add(self, row: Row) -> None:
        """Add a row, where it belongs into the answer."""
        answer = self._answer
        if not (answer.start <= row.time < answer.end and matching(self._query, row.series)):
            return
        group, start = self._gathering.group(row.series.labels), self._plan.stretch(row.time)
        sums = self._changed.setdefault(group, {})
        sum_ = sums.get(start)
        if sum_ is None:
            there = answer.groups.get(group, {}).get(start)
            sum_ = sums[start] = Sum.of([] if there is None else [there])
        add_packed(sum_, row.packed)

    def merged(self) -> Iterator[Answer]:
        """The answer, again and again: each time with one more group, at last with all."""
        groups = dict(self._answer.groups)
        answer = replace(self._answer, groups=groups)
        yield answer
        for group, sums in self._changed.items():
            stretches = {**groups.get(group, {})}
            stretches.update((start, sum_.value()) for start, sum_ in sums.items())
            # Nearly in order already, which makes this quick.
            groups[group] = dict(sorted(stretches.items()))
            yield answer


def matching(query: Query, series: Series) -> bool:
    """Whether a query asks for a series."""
    if series.kind is not query.kind:
        return False
    names = series.kind.labels
    return all(series.labels[names.index(name)] == wanted for name, wanted in query.where.items())


def rolled(
    found: Iterable[Stored], unreadable: Unreadable | None = None
) -> dict[Tier, dict[tuple[int, int], Sum]]:
    """What the values add to each coarser tier, by series and time.

    What cannot be read is left out, and counted in `unreadable`.
    """
    counted = Unreadable() if unreadable is None else unreadable
    sums: dict[Tier, dict[tuple[int, int], Sum]] = {tier: {} for tier in ROLLED}
    finest = sums[ROLLED[0]]
    for stored in giving_way(found):
        place = (stored.series, ROLLED[0].floor(stored.time))
        sum_ = finest.get(place) or Sum()
        if counted.add(stored, sum_):
            finest[place] = sum_
    for tier in ROLLED[1:]:
        for (series, time_), sum_ in giving_way(finest.items()):
            sums[tier].setdefault((series, tier.floor(time_)), Sum()).add(sum_)
    return sums
