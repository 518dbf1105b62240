"""Bursts: when a round does not wait for its time, and how often that may be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.burst import Burst, Pace


def seconds_until_seen(failing: float, fine: float, seconds: int = 60) -> int | None:
    """How many seconds after requests begin to fail, so many in each, a burst is seen."""
    burst = Burst(fewest=5, percent=5.0)
    failed = total = 0.0
    for second in range(seconds):
        if second:
            failed += failing
            total += failing + fine
        if burst.seen(int(failed), int(total), 1_000.0 + second):
            return second
    return None


@pytest.mark.parametrize(
    ("failing", "fine", "after"),
    [
        (100, 0, 1),
        (5, 0, 1),
        (5, 90, 1),
        (5, 95, None),
        (1, 0, 5),
        (2, 8, 3),
        (0.5, 0, None),
        (0, 1_000, None),
        (50, 10_000, None),
    ],
)
def test_five_failures_within_five_seconds_above_the_error_rate(
    failing: float, fine: float, after: int | None
) -> None:
    assert seconds_until_seen(failing, fine) == after


def test_what_was_before_the_first_look_is_no_burst() -> None:
    burst = Burst(fewest=5, percent=5.0)

    assert not burst.seen(1_000, 1_000, 5.0)
    assert not burst.seen(1_004, 1_004, 6.0)
    assert burst.seen(1_005, 1_005, 7.0)


def test_numbers_that_are_missing_for_a_moment_make_no_burst() -> None:
    burst = Burst(fewest=5, percent=5.0)
    looks = [(100, 100), (0, 20), (100, 100), (101, 101)]

    assert [burst.seen(*look, now) for now, look in enumerate(looks)] == [False] * 4


def test_requests_that_began_long_ago_fail_in_a_burst_all_the_same() -> None:
    burst = Burst(fewest=5, percent=5.0)
    burst.seen(0, 100, 1.0)

    assert burst.seen(100, 100, 2.0)


@given(
    looks=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)), max_size=100),
)
def test_fewer_failures_than_it_takes_never_make_one(
    looks: list[tuple[int, int]],
) -> None:
    burst, failed, total = Burst(fewest=6, percent=0.0), 0, 0
    for second, (more, fine) in enumerate(looks):
        failed, total = failed + more, total + more + fine
        assert not burst.seen(failed, total, float(second))


def rounds(bursts: str) -> list[int]:
    """The seconds at which a round is started; `x` marks a second of a burst."""
    pace = Pace()
    return [
        second
        for second, mark in enumerate(bursts)
        if pace.may_start(float(second), burst=mark == "x")
    ]


@pytest.mark.parametrize(
    ("bursts", "started"),
    [
        ("...x....", [3]),
        ("x" * 160, [0, 5, 15, 35, 75, 135]),
        ("xxx" + "." * 10 + "x", [0, 13]),
        ("x.x.x.x.x.x", [0, 6]),
        ("." * 50, []),
    ],
)
def test_a_round_at_once_and_seldom_where_it_goes_on(bursts: str, started: list[int]) -> None:
    assert rounds(bursts) == started


@given(bursts=st.text("x.", max_size=300))
def test_never_more_than_one_round_in_five_seconds(bursts: str) -> None:
    started = rounds(bursts)

    assert all(later - earlier >= 5 for earlier, later in pairwise(started))
    assert not bursts.count("x") or started[0] == bursts.index("x")
