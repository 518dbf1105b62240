"""The slowest requests of a day: exactly the longest, bounded, and forgotten after a day."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import PENDING_LENGTH, RequestSeries
from holistic_asgi_monitor.metrics.slowest import (
    DAY_SECONDS,
    HOUR_SECONDS,
    SLOWEST_KEPT,
    Slowest,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def series(clock):
    return RequestSeries(
        Bounds([0.1, 1.0]), max_endpoints=10, exclude=re.compile("^/quiet"), clock=clock
    )


def observe(series, durations, endpoint="/a", status=200, *, streamed=False):
    found = series.find("GET", endpoint)
    for duration in durations:
        series.observe(found, status, duration, streamed=streamed)
    series.fold()


def kept(slowest):
    return [slow.nanoseconds for slow in slowest.of_last_day()]


@given(st.lists(st.integers(0, 10**9), max_size=700), st.integers(1, 300))
def test_they_are_the_longest_of_all_however_they_were_folded(durations, at_once):
    series = RequestSeries(Bounds([0.1]), max_endpoints=10, clock=Clock())
    for start in range(0, len(durations), at_once):
        observe(series, durations[start : start + at_once])

    assert kept(series.slowest) == sorted(durations, reverse=True)[:SLOWEST_KEPT]


def test_many_pending_durations_are_folded_with_their_slowest(series):
    dice = random.Random(3)
    durations = [dice.randrange(10**9) for _ in range(10 * PENDING_LENGTH)]
    observe(series, durations)

    assert kept(series.slowest) == sorted(durations, reverse=True)[:SLOWEST_KEPT]


def test_each_says_what_it_was_and_when_it_was_noted(series, clock):
    observe(series, [5_000], "/a", 404)
    clock.now += 60
    observe(series, [7_000], "/b", 200, streamed=True)
    (plain,) = series.slowest.of_last_day()
    (streamed,) = series.slowest_streamed.of_last_day()

    assert (plain.method, plain.endpoint, plain.status, plain.streamed) == ("GET", "/a", 404, False)
    assert (streamed.endpoint, streamed.status, streamed.streamed) == ("/b", 200, True)
    assert streamed.noted - plain.noted == 60


def test_what_is_excluded_is_not_among_them(series):
    observe(series, [10**9], "/quiet/1")

    assert kept(series.slowest) == []


def test_an_hour_keeps_its_own_and_a_day_forgets(clock):
    slowest = Slowest(clock)
    for hour in range(24):
        for number in range(150):
            duration = 1_000 * (24 - hour) + number
            if duration > slowest.floor:
                slowest.note(duration, "GET", "/a", 200)
        clock.now += HOUR_SECONDS
        slowest.turn()
    # Each hour was quicker than the one before: the first one has the hundred slowest.
    assert kept(slowest) == [24_000 + number for number in range(149, 49, -1)]

    clock.now += HOUR_SECONDS / 2
    assert max(kept(slowest)) == 23_149, "the first hour is more than a day ago"
    clock.now += DAY_SECONDS
    assert kept(slowest) == []


def test_only_what_is_longer_than_the_floor_is_looked_at(clock):
    slowest = Slowest(clock)
    assert slowest.floor == -1
    for duration in range(SLOWEST_KEPT - 1):
        slowest.note(duration, "GET", "/a", 200)
    assert slowest.floor == -1
    slowest.note(500, "GET", "/a", 200)
    assert slowest.floor == 0
    slowest.note(600, "GET", "/a", 200)
    assert slowest.floor == 1


def test_the_floor_is_new_in_every_hour(clock):
    slowest = Slowest(clock)
    for duration in range(SLOWEST_KEPT):
        slowest.note(1_000 + duration, "GET", "/a", 200)
    slowest.turn()
    assert slowest.floor == 1_000
    clock.now += HOUR_SECONDS
    slowest.turn()
    assert slowest.floor == -1


def test_memory_is_bounded(clock):
    slowest = Slowest(clock)
    for _ in range(40):
        for duration in range(300):
            slowest.note(duration, "GET", "/a", 200)
        clock.now += HOUR_SECONDS
        slowest.turn()

    assert sum(map(len, slowest._hours)) <= 25 * SLOWEST_KEPT
