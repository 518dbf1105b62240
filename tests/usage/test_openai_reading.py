"""What answers say of themselves, in each of the forms that usage has."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.usage.openai_call import Usage
from holistic_asgi_monitor.usage.openai_reading import (
    LONGEST_BODY,
    Report,
    counted,
    of_answer,
    of_body,
    of_event,
    status_of,
)
from tests.servers.openai_stub import CHAT_USAGE, RESPONSES_USAGE


def things(value: Any) -> Any:
    """JSON as objects with attributes."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: things(each) for name, each in value.items()})
    return value


USAGES = [
    (CHAT_USAGE, Usage(1000, 500, cached=200)),
    (RESPONSES_USAGE, Usage(1000, 2000, cached=100, reasoning=1500)),
    ({"prompt_tokens": 7, "total_tokens": 7}, Usage(7)),
    (
        {
            "input_tokens": 100,
            "output_tokens": 10,
            "input_token_details": {"audio_tokens": 90, "text_tokens": 10},
        },
        Usage(100, 10, audio_in=90),
    ),
    (
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cache_write_tokens": 3, "image_tokens": 2},
            "completion_tokens_details": {"audio_tokens": 4, "image_tokens": 1},
        },
        Usage(9, 8, cache_write=3, image_in=2, audio_out=4, image_out=1),
    ),
    ({"prompt_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": None}, Usage(5)),
    ({"type": "duration", "seconds": 60}, None),
    ({"prompt_tokens": -1, "completion_tokens": 5}, None),
    ({"prompt_tokens": 10**400, "completion_tokens": 5}, None),
    ({"prompt_tokens": 1.5, "completion_tokens": 5}, None),
    ({"prompt_tokens": True, "completion_tokens": 5}, None),
    ({"prompt_tokens": "7"}, None),
    ({}, None),
    (None, None),
]


def tokens(answer: Any, **options: Any) -> Usage | None:
    figures = of_answer(answer, **options).usage
    return None if figures is None else counted(figures)


@pytest.mark.parametrize(("usage", "expected"), USAGES)
@pytest.mark.parametrize("form", [dict, things])
def test_the_tokens_of_every_form(usage: Any, expected: Usage | None, form: Any) -> None:
    assert tokens(form({"usage": usage})) == expected


def test_the_output_of_images_is_images_where_nothing_else_is_said() -> None:
    usage = {"input_tokens": 50, "output_tokens": 1000}
    detailed = {**usage, "output_tokens_details": {"text_tokens": 100, "image_tokens": 900}}

    assert tokens({"usage": usage}, images=True) == Usage(50, 1000, image_out=1000)
    assert tokens({"usage": detailed}, images=True) == Usage(50, 1000, image_out=900)
    assert tokens({"usage": usage}) == Usage(50, 1000)


def test_model_and_tier_are_read_where_they_are_text() -> None:
    assert of_answer({"model": "m", "service_tier": "flex"}) == Report("m", "flex")
    assert of_answer({"model": 3, "service_tier": None}) == Report()
    assert of_answer("hi") == of_answer(None) == of_answer(b"") == of_answer([1]) == Report()


def test_an_answer_may_itself_be_a_failure() -> None:
    error = {"code": "rate_limit_exceeded", "message": "no"}

    assert of_answer({"status": "failed", "error": error}).status == "rate_limited"
    assert of_answer({"status": "failed", "error": None}).status == "server_error"
    assert of_answer({"status": "incomplete", "error": None}).status is None


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_the_last_event_of_a_response_has_it_all(kind: str) -> None:
    event = {"type": kind, "response": {"model": "o3", "usage": RESPONSES_USAGE}}
    report = of_event(event)

    assert report == of_event(things(event))
    assert report is not None
    assert report.model == "o3"
    assert tokens(event["response"]) == Usage(1000, 2000, cached=100, reasoning=1500)


def test_the_other_events_say_nothing() -> None:
    assert of_event({"type": "response.output_text.delta", "delta": "x"}) is None
    assert of_event({"type": "response.created", "response": {"usage": None}}) is None
    assert of_event({}) is None


def test_an_event_may_be_an_error() -> None:
    assert of_event({"type": "error", "code": "insufficient_quota"}) == Report(
        status="quota_exceeded"
    )
    assert of_event({"type": "error", "code": None}) == Report(status="server_error")


def test_a_code_or_a_type_makes_the_word() -> None:
    assert status_of(None, "insufficient_quota") == "quota_exceeded"
    assert status_of("invalid_api_key", "invalid_request_error") == "auth_error"
    assert status_of(7, None) == "server_error"


@pytest.mark.parametrize(
    "body", [b"", b"hi", b"[1]", b"\xff\xf3", b'{"usage": ', b"null", b"[" * 100_000]
)
def test_a_body_that_is_no_answer_says_nothing(body: bytes) -> None:
    assert of_body(body) == Report()


def test_a_very_long_body_is_left_unread() -> None:
    answer = {"model": "m", "usage": CHAT_USAGE, "data": "x" * LONGEST_BODY}

    assert of_body(json.dumps(answer).encode()) == Report()
    assert of_body(json.dumps({**answer, "data": ""}).encode()).model == "m"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ["usage", "model", "status", "error", "input_tokens", "type", "response"]
            ),
            inner,
        )
    ),
)


@given(json_values)
def test_nothing_that_comes_breaks_the_reading(value: Any) -> None:
    found = tokens(value)
    of_event(value)

    assert found is None or min(found.input, found.output) >= 0
