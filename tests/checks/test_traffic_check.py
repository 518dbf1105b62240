"""The check of the real requests: when their errors and their latency are too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.traffic import Traffic, TrafficWindow, judge_traffic
from holistic_asgi_monitor.model import Check, CheckResult, Status
from holistic_asgi_monitor.settings import Settings


def judged(
    count: int = 100, errors: int = 0, timed: int | None = None, p95_ms: float | None = 10.0
) -> CheckResult:
    window = TrafficWindow(count, errors, count if timed is None else timed, p95_ms)
    return judge_traffic(
        window, error_rate_percent=5.0, response_time_ms=5_000.0, minimum_requests=20
    )


@pytest.mark.parametrize(
    ("count", "errors", "status"),
    [
        (100, 0, Status.HEALTHY),
        (100, 5, Status.HEALTHY),
        (1_000, 51, Status.DEGRADED),
        (100, 50, Status.DEGRADED),
        (1_000, 501, Status.UNHEALTHY),
        (100, 100, Status.UNHEALTHY),
        (20, 2, Status.DEGRADED),
        (19, 19, Status.HEALTHY),
        (0, 0, Status.HEALTHY),
    ],
)
def test_errors_count_above_the_threshold_and_not_at_it(
    count: int, errors: int, status: Status
) -> None:
    assert judged(count, errors).status is status


@pytest.mark.parametrize(
    ("timed", "p95_ms", "status"),
    [
        (100, 4_999.0, Status.HEALTHY),
        (100, 5_000.0, Status.HEALTHY),
        (100, 5_000.1, Status.DEGRADED),
        (20, 60_000.0, Status.DEGRADED),
        (19, 60_000.0, Status.HEALTHY),
        (0, None, Status.HEALTHY),
    ],
)
def test_latency_counts_above_the_threshold_where_enough_were_timed(
    timed: int, p95_ms: float | None, status: Status
) -> None:
    assert judged(100, 0, timed, p95_ms).status is status


def test_few_requests_say_so() -> None:
    result = judged(3, 3)

    assert (result.status, result.message) == (Status.HEALTHY, "too few requests to judge")
    assert result.details["count"] == 3


def test_the_sentences_have_figures_units_and_thresholds() -> None:
    assert judged(2_000, 246, 1_900, 6_213.4).message == (
        "12.3 % of 2,000 requests in 5 min failed (threshold 5 %); "
        "the slowest 5 % of 1,900 requests in 5 min took over 6,213 ms (threshold 5,000 ms)"
    )


def test_a_healthy_answer_has_its_figures_too() -> None:
    result = judged(1_000, 1)

    assert result.message == "0.1 % of 1,000 requests in 5 min failed"
    assert result.details == {
        "count": 1_000,
        "errors": 1,
        "error_rate_percent": 0.1,
        "p95_ms": 10.0,
    }


def test_more_than_half_is_unhealthy_whatever_the_threshold() -> None:
    result = judge_traffic(
        TrafficWindow(100, 51, 100, 1.0),
        error_rate_percent=90.0,
        response_time_ms=1.0,
        minimum_requests=1,
    )

    assert result.status is Status.UNHEALTHY
    assert result.message == "51 % of 100 requests in 5 min failed (threshold 50 %)"


@given(data=st.data())
def test_every_window_has_a_judgement_that_only_worsens_with_errors_and_latency(
    data: st.DataObject,
) -> None:
    count = data.draw(st.integers(0, 10_000))
    errors = data.draw(st.integers(0, count))
    timed = data.draw(st.integers(0, count))
    p95_ms = data.draw(st.floats(0.01, 700_000)) if timed else None
    thresholds = {
        "error_rate_percent": data.draw(st.floats(0, 100)),
        "response_time_ms": data.draw(st.floats(1, 60_000)),
        "minimum_requests": data.draw(st.integers(1, 1_000)),
    }
    result = judge_traffic(TrafficWindow(count, errors, timed, p95_ms), **thresholds)  # type: ignore[arg-type] # one dict for both kinds of number

    enough = count >= thresholds["minimum_requests"]
    rate = 100 * errors / count if count else 0.0
    failing = enough and rate > thresholds["error_rate_percent"]
    slow = (
        enough
        and timed >= thresholds["minimum_requests"]
        and p95_ms is not None
        and p95_ms > thresholds["response_time_ms"]
    )
    if enough and rate > 50:
        assert result.status is Status.UNHEALTHY
    else:
        assert result.status is (Status.DEGRADED if failing or slow else Status.HEALTHY)
    assert ("threshold" in result.message) == (result.status is not Status.HEALTHY)


async def test_the_check_reads_the_window_anew_and_takes_thresholds_from_the_settings() -> None:
    windows = iter([TrafficWindow(10, 0, 10, 1.0), TrafficWindow(10, 3, 10, 1.0)])
    settings = Settings(error_rate_percent=20.0, minimum_requests=10)

    async def read() -> TrafficWindow:
        return next(windows)

    check: Check = Traffic(read, settings)

    assert check.name == "traffic"
    assert not check.required
    assert (await check()).status is Status.HEALTHY
    assert (await check()).status is Status.DEGRADED
