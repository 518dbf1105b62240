"""What real calls of OpenAI say about it, over five minutes and in a bounded memory."""

import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.openai_calls import WINDOW_SECONDS, RealCalls
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.usage.tracking import OPENAI_OUTCOMES

NOW = 10_000.0
PASSING = ["rate_limited", "server_error", "timeout", "connection_error"]
REFUSED = ["auth_error", "quota_exceeded"]
QUOTA = "the OpenAI quota is used up, as the app's own calls show"


def judged(*statuses: str, after: float = 0.0) -> CheckResult:
    """The judgement `after` seconds after calls that came one second after another."""
    calls = RealCalls()
    for number, status in enumerate(statuses):
        calls.saw(status, NOW + number)
    return calls.judged(NOW + len(statuses) - 1 + after)


def test_without_calls_there_is_nothing_to_say() -> None:
    assert RealCalls().judged(NOW) == CheckResult(Status.HEALTHY, "", {})


@pytest.mark.parametrize("status", REFUSED)
def test_one_refusal_for_good_is_critical_among_many_calls_before_it(status: str) -> None:
    assert judged(*["success"] * 100, status).status is Status.CRITICAL


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("auth_error", "OpenAI rejects the API key of the app's own calls"),
        ("quota_exceeded", QUOTA),
    ],
)
def test_a_refusal_for_good_says_what_it_is(status: str, sentence: str) -> None:
    assert judged(status).message == sentence


@pytest.mark.parametrize("refused", REFUSED)
def test_a_success_takes_the_refusal_back(refused: str) -> None:
    assert judged(refused, "success").status is Status.HEALTHY


@pytest.mark.parametrize("status", [*PASSING, "bad_request", "abandoned", "cancelled"])
def test_nothing_but_a_success_takes_the_refusal_back(status: str) -> None:
    assert judged("quota_exceeded", status).message == QUOTA


@pytest.mark.parametrize(("after", "status"), [(300, Status.CRITICAL), (301, Status.HEALTHY)])
def test_a_refusal_is_forgotten_after_five_minutes(after: float, status: Status) -> None:
    assert judged("quota_exceeded", after=after).status is status


@pytest.mark.parametrize("failing", PASSING)
@pytest.mark.parametrize(
    ("failed", "other", "status"),
    [
        (4, 0, Status.HEALTHY),
        (5, 0, Status.DEGRADED),
        (5, 5, Status.HEALTHY),
        (6, 5, Status.DEGRADED),
        (3, 2, Status.DEGRADED),
        (2, 3, Status.HEALTHY),
    ],
)
def test_more_than_half_of_at_least_five_calls_must_fail(
    failing: str, failed: int, other: int, status: Status
) -> None:
    assert judged(*[failing] * failed, *["success"] * other).status is status


@pytest.mark.parametrize("answered", ["bad_request", "abandoned"])
def test_what_openai_answered_and_the_app_spoilt_is_no_failure(answered: str) -> None:
    assert judged(*["timeout"] * 5, *[answered] * 5).status is Status.HEALTHY
    assert judged(*[answered] * 50).status is Status.HEALTHY


@pytest.mark.parametrize("unknown", ["cancelled", "other", ""])
def test_a_call_that_says_nothing_of_openai_is_not_counted(unknown: str) -> None:
    assert judged(*["timeout"] * 4, unknown).status is Status.HEALTHY
    assert judged(*[unknown] * 9).details == {}


def test_failures_are_told_with_their_share_and_what_most_of_them_are() -> None:
    result = judged("success", *["timeout"] * 4, *["rate_limited"] * 2)

    assert result.message == (
        "86 % of 7 OpenAI calls of the app in 5 min failed, most of them: no answer in time"
    )
    assert result.details == {"calls": 7, "timeout": 4, "rate_limited": 2}


def test_failures_are_forgotten_after_five_minutes() -> None:
    assert judged(*["timeout"] * 9, after=WINDOW_SECONDS - 20).status is Status.DEGRADED
    assert judged(*["timeout"] * 9, after=WINDOW_SECONDS + 20) == CheckResult(Status.HEALTHY)


def test_every_status_of_the_metric_is_known() -> None:
    counted = {status for status in OPENAI_OUTCOMES if judged(status).details}

    assert counted == OPENAI_OUTCOMES - {"cancelled"}


@given(
    st.lists(
        st.tuples(st.sampled_from([*PASSING, *REFUSED, "success"]), st.floats(0, 100)), max_size=200
    )
)
def test_the_memory_is_bounded_and_every_call_of_five_minutes_is_in_it(
    steps: list[tuple[str, float]],
) -> None:
    calls = RealCalls()
    moments = list(itertools.accumulate((wait for _, wait in steps), initial=NOW))[1:]
    for (status, _), moment in zip(steps, moments, strict=True):
        calls.saw(status, moment)
        assert len(calls._slots) <= 31

    end = moments[-1] if moments else NOW
    figure = calls.judged(end).details.get("calls", 0)
    recent = [moment for moment in moments if moment >= end - WINDOW_SECONDS]
    at_most = [moment for moment in moments if moment >= end - WINDOW_SECONDS - 10]
    assert len(recent) <= figure <= len(at_most)


def test_calls_from_several_threads_are_all_counted() -> None:
    calls = RealCalls()

    def call() -> None:
        for number in range(2_000):
            calls.saw("success", NOW + number % 7)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls.judged(NOW).details == {"calls": 8_000}
