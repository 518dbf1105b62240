"""From the exceptions of the `openai` package to the status of a call."""

import httpx2
import openai
import pytest

from holistic_asgi_monitor.checks.openai_faults import hides_models, outcome, unwell
from holistic_asgi_monitor.usage.tracking import OPENAI_OUTCOMES

REQUEST = httpx2.Request("GET", "http://127.0.0.1/v1/models")


def refused(
    status: int, code: str | None = None, kind: str | None = None, message: str = "no"
) -> openai.APIStatusError:
    """The exception for such an answer, made as the package makes it."""
    client = openai.OpenAI(api_key="sk-none", base_url="http://127.0.0.1/v1")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    response = httpx2.Response(status, json=body, request=REQUEST)
    return client._make_status_error_from_response(response)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (refused(401, "invalid_api_key"), "auth_error"),
        (refused(403), "auth_error"),
        (refused(402), "quota_exceeded"),
        (refused(429, "insufficient_quota"), "quota_exceeded"),
        (refused(429, None, "insufficient_quota"), "quota_exceeded"),
        (refused(429, "billing_not_active"), "quota_exceeded"),
        (refused(400, "billing_hard_limit_reached"), "quota_exceeded"),
        (refused(429, "rate_limit_exceeded", "requests"), "rate_limited"),
        (refused(429), "rate_limited"),
        (refused(408), "timeout"),
        (refused(500), "server_error"),
        (refused(503), "server_error"),
        (refused(529), "server_error"),
        (refused(400), "bad_request"),
        (refused(404), "bad_request"),
        (refused(409), "bad_request"),
        (refused(422), "bad_request"),
        (refused(418), "bad_request"),
        (openai.APITimeoutError(request=REQUEST), "timeout"),
        (openai.APIConnectionError(request=REQUEST), "connection_error"),
        (ValueError("S3cret"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_class_and_code_of_an_exception_make_the_status_of_the_call(
    error: BaseException, word: str | None
) -> None:
    assert outcome(error) == word
    assert word is None or word in OPENAI_OUTCOMES


def test_an_answer_that_is_no_json_is_told_by_its_number() -> None:
    client = openai.OpenAI(api_key="sk-none", base_url="http://127.0.0.1/v1")
    response = httpx2.Response(503, text="<html>", request=REQUEST)

    assert outcome(client._make_status_error_from_response(response)) == "server_error"


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize(("host", "harmless"), [("api.openai.com", False), ("llm:8000", True)])
def test_only_another_server_may_have_no_list_of_models(
    status: int, host: str, harmless: bool
) -> None:
    assert (hides_models(refused(status), host) is not None) is harmless


@pytest.mark.parametrize(
    ("status", "message", "harmless"),
    [
        (403, "Missing scopes: api.model.read. Check", True),
        (401, "Missing scopes: api.model.read. Check", True),
        (403, "Missing scopes: model.request. Check", False),
        (403, "Country, region, or territory not supported", False),
        (500, "Missing scopes: api.model.read. Check", False),
    ],
)
def test_a_key_that_may_not_list_the_models_is_no_rejected_one(
    status: int, message: str, harmless: bool
) -> None:
    error = refused(status, message=message)

    assert (hides_models(error, "api.openai.com") is not None) is harmless


def test_of_several_addresses_one_is_enough_to_know_why() -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = OSError("All connection attempts failed")
    refusals = [ConnectionRefusedError(111, "no"), ConnectionRefusedError(111, "no")]
    error.__cause__.__cause__ = ExceptionGroup("several", refusals)

    told = unwell(error, "llm:8000", 4.0)

    assert str(told) == "OpenAI at llm:8000 refuses connections"


@pytest.mark.parametrize(
    ("cause", "does"),
    [
        (httpx2.RemoteProtocolError("S3cret"), "cut the connection"),
        (httpx2.ReadError("S3cret"), "cut the connection"),
        (httpx2.ConnectError("S3cret"), "cannot be reached"),
        (None, "cannot be reached"),
    ],
)
def test_a_lost_connection_is_told_without_the_exception_s_text(
    cause: Exception | None, does: str
) -> None:
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = cause

    assert str(unwell(error, "llm:8000", 4.0)) == f"OpenAI at llm:8000 {does}"
