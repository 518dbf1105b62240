"""Latency cells: classic buckets are exact, quantiles within 1.1 %, merging is addition."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.metrics.latency import FIRST, LAST, Bounds, exponent, merge, quantile

CLASSIC = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BOUNDS = Bounds(CLASSIC)
DURATIONS = st.lists(st.integers(min_value=0, max_value=10**12), max_size=60)


def filled(nanoseconds):
    cells = BOUNDS.cells()
    for value in nanoseconds:
        BOUNDS.observe(cells, value)
    return cells


@given(DURATIONS)
def test_classic_buckets_count_exactly_what_is_not_above_their_bound(values):
    """A bucket holds every observation up to and including its `le`."""
    counts = BOUNDS.classic(filled(values))

    expected = [sum(value <= round(le * 1e9) for value in values) for le in BOUNDS.le]
    assert counts == [*expected, len(values)]


@pytest.mark.parametrize("le", CLASSIC)
def test_an_observation_on_a_bound_belongs_to_its_bucket(le):
    """The bound itself is inside, the next nanosecond outside."""
    position = CLASSIC.index(le)

    assert BOUNDS.classic(filled([round(le * 1e9)]))[position] == 1
    assert BOUNDS.classic(filled([round(le * 1e9) + 1]))[position] == 0


@given(DURATIONS)
def test_sum_and_count_are_exact(values):
    cells = filled(values)

    assert cells[-1] == sum(values)
    assert BOUNDS.count(cells) == len(values)


@given(DURATIONS, DURATIONS)
def test_merging_equals_observing_together(ours, theirs):
    merged = filled(ours)
    merge(merged, filled(theirs))

    assert merged == filled(ours + theirs)


def test_cells_of_other_bounds_are_refused():
    with pytest.raises(ValueError, match="cannot be merged"):
        merge(BOUNDS.cells(), Bounds((0.123,)).cells())


DISTRIBUTIONS = {
    "lognormal around 40 ms": lambda r: r.lognormvariate(math.log(0.04), 0.8),
    "fast around 2 ms": lambda r: r.lognormvariate(math.log(0.002), 0.5),
    "bimodal 8 ms and 900 ms": lambda r: r.gauss(0.9, 0.1) if r.random() < 0.05 else 0.008,
    "LLM calls of seconds": lambda r: r.lognormvariate(math.log(9), 0.6),
    "tight around 120 ms": lambda r: r.gauss(0.12, 0.005),
}


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_are_within_1_1_percent_of_the_exact_ones(name, q):
    draw = random.Random(7)
    values = sorted(max(20_000, round(DISTRIBUTIONS[name](draw) * 1e9)) for _ in range(5_000))

    exact = values[int(q * (len(values) - 1))] / 1e9
    assert BOUNDS.quantile(filled(values), q) == pytest.approx(exact, rel=0.011)


@given(st.lists(st.integers(min_value=10_001, max_value=699 * 10**9), min_size=1, max_size=80))
def test_any_single_quantile_is_within_1_1_percent(values):
    exact = sorted(values)[int(0.95 * (len(values) - 1))] / 1e9

    assert BOUNDS.quantile(filled(values), 0.95) == pytest.approx(exact, rel=0.011)


def test_there_is_no_quantile_of_nothing():
    assert BOUNDS.quantile(BOUNDS.cells(), 0.5) is None


@pytest.mark.parametrize(
    ("nanoseconds", "seconds"), [(0, BOUNDS.upper[0] / 1e9), (10**15, BOUNDS.upper[-1] / 1e9)]
)
def test_beyond_the_bounds_the_nearest_one_is_given(nanoseconds, seconds):
    assert BOUNDS.quantile(filled([nanoseconds]), 0.5) == seconds


def test_exported_bounds_may_lie_beyond_the_exponential_ones():
    far = Bounds((1e-7, 5_000.0))
    cells = far.cells()
    for seconds in (1e-8, 1.0, 4_000.0, 6_000.0):
        far.observe(cells, round(seconds * 1e9))

    assert far.classic(cells) == [1, 3, 4]


def together(*sparse):
    """Counts by index added up, as history does."""
    summed: dict[int, int] = {}
    for each in sparse:
        for index, count in each.items():
            summed[index] = summed.get(index, 0) + count
    return summed


@pytest.mark.parametrize("q", [0.5, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize("processes", [1, 7])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantiles_of_merged_processes_are_within_1_1_percent(name, processes, q):
    """Each process may have other `le`s: what is kept for long does not know them."""
    draw = random.Random(11)
    values = sorted(max(20_000, round(DISTRIBUTIONS[name](draw) * 1e9)) for _ in range(5_000))
    parts = []
    for number in range(processes):
        bounds = Bounds((0.01 + number / 1000, 0.5))
        cells = bounds.cells()
        for value in values[number::processes]:
            bounds.observe(cells, value)
        parts.append(bounds.sparse(cells))

    exact = values[int(q * (len(values) - 1))] / 1e9
    assert quantile(together(*parts), q) == pytest.approx(exact, rel=0.011)


@given(DURATIONS, DURATIONS)
def test_sparse_counts_merge_like_the_cells(ours, theirs):
    merged = filled(ours)
    merge(merged, filled(theirs))

    assert BOUNDS.sparse(merged) == together(
        BOUNDS.sparse(filled(ours)), BOUNDS.sparse(filled(theirs))
    )


@given(DURATIONS)
def test_the_classic_bounds_leave_no_trace_in_sparse_counts(values):
    plain = Bounds(())
    cells = plain.cells()
    for value in values:
        plain.observe(cells, value)

    assert plain.sparse(cells) == BOUNDS.sparse(filled(values))


@given(DURATIONS)
def test_sparse_counts_lose_no_observation_and_ascend(values):
    sparse = BOUNDS.sparse(filled(values))

    assert sum(sparse.values()) == len(values)
    assert list(sparse) == sorted(sparse)
    assert all(FIRST <= index <= LAST + 1 for index in sparse)


@given(st.integers(min_value=0, max_value=10**15))
def test_a_single_duration_has_the_index_that_its_cell_has(nanoseconds):
    (index,) = BOUNDS.sparse(filled([nanoseconds]))

    assert abs(index - exponent(nanoseconds)) <= (nanoseconds in BOUNDS.upper)


def test_no_sparse_quantile_of_nothing():
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("nanoseconds", [0, 10**15])
def test_beyond_the_bounds_sparse_counts_give_the_nearest_one(nanoseconds):
    nearest = BOUNDS.quantile(filled([nanoseconds]), 0.5)

    assert quantile(BOUNDS.sparse(filled([nanoseconds])), 0.5) == pytest.approx(nearest, rel=1e-4)
