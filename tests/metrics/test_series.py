"""The request path's series: bounded in their number whatever clients send."""

import re
import sys
import threading
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import PENDING_LENGTH, RequestSeries

BOUNDS = Bounds((0.1, 1.0))


def make(max_endpoints=1000, exclude=None):
    return RequestSeries(BOUNDS, max_endpoints=max_endpoints, exclude=exclude)


def test_one_method_and_endpoint_have_one_set_of_numbers():
    series = make()

    assert series.find("GET", "/items/{id}") is series.find("GET", "/items/{id}")


@pytest.mark.parametrize("method", ["FOOBAR", "get", "", "GET ", "PROPFIND"])
def test_methods_outside_the_list_are_one(method):
    assert make().find(method, "/a").method == "_OTHER"


def test_what_no_route_took_is_unmatched():
    assert make().find("GET", None).endpoint == "_unmatched"


def test_beyond_the_cap_everything_is_overflow_with_one_warning(caplog):
    series = make(max_endpoints=2)
    for number in range(10):
        series.find("GET", f"/{number}")

    assert {found.endpoint for found in series.endpoints.values()} == {"/0", "/1", "_overflow"}
    assert series.overflowed == 8
    assert len(caplog.records) == 1
    assert "MONITOR_MAX_ENDPOINTS" in caplog.text


def test_known_endpoints_and_unmatched_stay_themselves_beyond_the_cap():
    series = make(max_endpoints=1)
    series.find("GET", "/a")
    series.find("GET", "/b")

    assert series.find("POST", "/a").endpoint == "/a"
    assert series.find("GET", None).endpoint == "_unmatched"


def test_errors_are_5xx_and_broken_responses():
    series = make()
    found = series.find("GET", "/a")
    for status in (200, 404, 499, 500, 503):
        series.observe(found, status, 1_000_000, streamed=False)
    found.broken += 1
    series.fold()

    assert (found.count, found.errors) == (5, 3)


def test_a_status_of_500_exists_from_the_start_for_real_endpoints_only():
    """Prometheus sees no increase in a counter that appears at 1."""
    series = make()

    assert series.find("GET", "/a").statuses == {500: [0]}
    assert series.find("GET", None).statuses == {}


def test_streamed_durations_are_kept_apart_from_plain_ones():
    series = make()
    found = series.find("GET", "/a")
    series.observe(found, 200, 50_000_000, streamed=False)
    series.observe(found, 200, 9_000_000_000, streamed=True)

    assert BOUNDS.count(series.whole) == BOUNDS.count(series.whole_streamed) == 1
    assert [BOUNDS.count(cells) for cells in found.durations()] == [1, 1]


def test_excluded_endpoints_leave_no_trace():
    series = make(exclude=re.compile("^/internal"))
    found = series.find("GET", "/internal/ping")
    series.observe(found, 200, 1_000_000, streamed=False)

    assert not series.endpoints
    assert BOUNDS.count(series.whole) == 0


def pending(series):
    return sum(len(target.pending) for target in series._targets.values())


def test_what_is_pending_is_folded_before_anybody_reads():
    series = make()
    found = series.find("GET", "/a")
    for _ in range(5):
        series.observe(found, 200, 1_000_000, streamed=False)

    assert pending(series) == 5
    assert series.endpoints["GET", "/a"].count == 5
    assert pending(series) == 0


def test_what_is_pending_never_grows_beyond_its_length():
    series = make()
    found = series.find("GET", "/a")
    for _ in range(3 * PENDING_LENGTH + 1):
        series.observe(found, 200, 1_000_000, streamed=False)
        assert pending(series) < PENDING_LENGTH

    assert series.endpoints["GET", "/a"].count == 3 * PENDING_LENGTH + 1


@given(st.lists(st.integers(min_value=0, max_value=10**12), max_size=400))
def test_folding_equals_counting_one_by_one(durations):
    series = make()
    found = series.find("GET", "/a")
    expected = BOUNDS.cells()
    for nanoseconds in durations:
        series.observe(found, 200, nanoseconds, streamed=False)
        BOUNDS.observe(expected, nanoseconds)

    assert series.endpoints["GET", "/a"].latency == expected
    assert list(accumulate(found.buckets)) == BOUNDS.classic(expected)
    assert series.whole[:-1] == expected[:-1]


def test_several_threads_count_exactly():
    """Increments are not atomic; entries are, and only one thread folds at a time."""
    series = make()
    found = series.find("GET", "/a")

    def work():
        for _ in range(5_000):
            series.observe(found, 200, 1_000_000, streamed=False)

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert series.endpoints["GET", "/a"].count == 40_000
    assert BOUNDS.count(series.whole) == 40_000


def test_in_progress_falls_with_the_last_byte_not_with_the_fold():
    series = make()
    series.started += 1
    assert series.in_progress == 1
    series.write(series.target(series.find("GET", "/a"), 200, streamed=False), 5)

    assert series.in_progress == 0
    series.fold()
    assert series.in_progress == 0


def test_the_methods_that_clients_choose_cannot_multiply_the_endpoints():
    series = make(max_endpoints=5)
    for number in range(5):
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"):
            series.find(method, f"/{number}")

    assert len(series.endpoints) <= 4 * 5 + 10
    assert series.overflowed > 0
