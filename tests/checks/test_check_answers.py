"""What is made of the things that a check returns or raises."""

import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from holistic_asgi_monitor.checks.answers import LONGEST_MESSAGE, Answers
from holistic_asgi_monitor.model import CheckResult, Status

SECRET = "S3cret"


def raised(error: BaseException) -> BaseException:
    """Return `error` with the traceback that raising it gives."""
    try:
        raise error
    except BaseException as caught:
        return caught


def judged(value: object, *, required: bool = False) -> CheckResult:
    return Answers("pay").returned(value, required=required)


class Hostile(Mapping[str, Any]):
    """Details that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(SECRET)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError(SECRET)

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("value", [None, True])
def test_nothing_and_true_are_healthy(value: object, required: bool) -> None:
    assert judged(value, required=required) == CheckResult(Status.HEALTHY, "pay is healthy")


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
def test_false_is_as_grave_as_the_check_is_needed(required: bool, status: Status) -> None:
    assert judged(False, required=required) == CheckResult(status, "pay returned False")


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_taken_as_it_is(status: Status) -> None:
    assert judged(status, required=True).status is status


def test_a_result_is_taken_as_it_is() -> None:
    result = CheckResult(Status.UNHEALTHY, "no stock", {"items": [1, None]}, 2.5)

    assert judged(result) == result


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    ("value", "kind"),
    [("ok", "a str"), (0, "an int"), (1, "an int"), ([], "a list"), (b"", "a bytes")],
)
def test_anything_else_is_degraded_and_told_what_is_allowed(
    value: object, kind: str, required: bool
) -> None:
    sentence = f"pay returned {kind}; allowed are None, True, False, a Status or a CheckResult"

    assert judged(value, required=required) == CheckResult(Status.DEGRADED, sentence)


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (CheckResult("healthy"), "status is a str; allowed is a Status"),  # type: ignore[arg-type] # wrong on purpose
        (CheckResult(Status.HEALTHY, None), "message is a NoneType; allowed is a str"),  # type: ignore[arg-type] # wrong on purpose
        (CheckResult(Status.HEALTHY, "", []), "details is a list; allowed is a Mapping"),  # type: ignore[arg-type] # wrong on purpose
    ],
)
def test_a_result_with_a_wrong_field_is_degraded(result: CheckResult, what: str) -> None:
    assert judged(result) == CheckResult(
        Status.DEGRADED, f"pay returned a CheckResult whose {what}"
    )


@pytest.mark.parametrize(
    ("details", "kept"),
    [
        ({"at": datetime(2026, 11, 23, tzinfo=UTC)}, {"at": "2026-11-23 00:00:00+00:00"}),
        ({("a", 1): 2, "b": (1, 2)}, {"b": [1, 2]}),
        ({"x": float("nan"), "y": 1}, {"x": None, "y": 1}),
        (Hostile(), {"left_out": "the details could not be read"}),
    ],
)
def test_details_become_json_values(details: Mapping[str, Any], kept: Any) -> None:
    found = judged(CheckResult(Status.HEALTHY, "", details)).details

    assert found == kept
    json.dumps(found, allow_nan=False)


def test_a_message_without_end_is_cut() -> None:
    message = judged(CheckResult(Status.HEALTHY, "word " * 1_000_000)).message

    assert len(message) <= LONGEST_MESSAGE
    assert message.endswith("word...")


def test_details_are_a_copy() -> None:
    details = {"items": [1]}
    result = judged(CheckResult(Status.HEALTHY, "", details))
    details["items"].append(2)

    assert result.details == {"items": [1]}


@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1.0, "2", True])
def test_a_time_that_is_none_is_left_out(time: Any) -> None:
    assert judged(CheckResult(Status.HEALTHY, "", {}, time)).response_time_ms is None


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError(SECRET), "ValueError"),
        (SystemExit(SECRET), "SystemExit"),
        (ExceptionGroup(SECRET, [ExceptionGroup("", [KeyError(SECRET)])]), "KeyError"),
        (ExceptionGroup(SECRET, [KeyError(), OSError()]), "ExceptionGroup"),
    ],
)
def test_an_exception_is_published_by_its_type(
    error: BaseException, kind: str, required: bool, status: Status
) -> None:
    result = Answers("pay").raised(raised(error), required=required)

    assert result == CheckResult(status, f"pay raised {kind}")


def test_the_log_is_told_once_per_change_where_it_was_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The text of an exception may hold a secret, so that the log has type and place only."""
    answers = Answers("pay")
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            answers.raised(raised(ValueError(SECRET)), required=True)
        answers.raised(raised(KeyError(SECRET)), required=True)
        answers.returned(None, required=True)
        answers.raised(raised(KeyError(SECRET)), required=True)

    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    told = [record.getMessage().rpartition(":")[0] for record in caplog.records]
    assert told == [
        "The check pay raised ValueError at test_check_answers.py",
        "The check pay raised KeyError at test_check_answers.py",
        "The check pay raised KeyError at test_check_answers.py",
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
def test_a_call_that_hangs_says_since_when(required: bool, status: Status) -> None:
    since = datetime(2026, 11, 23, 3, 4, 5, tzinfo=UTC)

    assert Answers("pay").hanging(since, required=required) == CheckResult(
        status, "still running since 2026-11-23 03:04:05 UTC, so not started again"
    )
