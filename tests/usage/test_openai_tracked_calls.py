"""Every call is counted once and priced, and its caller sees what he would see without us."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import holistic_asgi_monitor
from tests.apps.openai_scenarios import (
    ASK,
    KEY,
    SCENARIOS,
    SECRET,
    Scenario,
    async_client_of,
    chat,
    client_of,
    observed,
    observed_async,
    told,
    tracked,
    wanted,
)
from tests.servers.openai_stub import CHUNKS, CLOSE, OK, Answer, OpenAIStub, refusal

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(holistic_asgi_monitor.__file__).absolute().parents[1]
# With and without us: openai leaves its own generators unread, of which trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator .* was garbage:ResourceWarning")
EACH = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def stub(server: OpenAIStub) -> OpenAIStub:
    server.reset(OK)
    return server


@EACH
def test_a_sync_call_is_counted_and_its_answer_is_the_same(
    server: OpenAIStub, scenario: Scenario
) -> None:
    plain = observed(server, scenario)
    attempts = len(server.requests)
    with tracked() as calls:
        result = observed(server, scenario)

    assert result == plain
    assert [told(call) for call in calls] == [wanted(scenario.expected)]
    assert len(server.requests) == attempts


@EACH
async def test_an_async_call_is_counted_and_its_answer_is_the_same(
    server: OpenAIStub, scenario: Scenario
) -> None:
    plain = await observed_async(server, scenario)
    with tracked() as calls:
        result = await observed_async(server, scenario)

    assert result == plain
    assert [told(call) for call in calls] == [wanted(scenario.expected)]


def test_with_older_versions_it_is_all_the_same(old_openai: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "apps" / "openai_scenarios.py")],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (old_openai, PACKAGE, ROOT))),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)

    assert report["version"].startswith(("1.109.", "2."))
    assert set(report["outcomes"]) == set(SCENARIOS)
    for name, (plain, result, calls) in report["outcomes"].items():
        assert result == plain, name
        assert calls == [wanted(SCENARIOS[name].expected)] * 2, name


def test_the_options_of_the_caller_stay_his(stub: OpenAIStub) -> None:
    options = {"include_obfuscation": False}
    with tracked() as calls, client_of(stub) as client:
        list(chat(stream=True, stream_options=options)(client))

    assert options == {"include_obfuscation": False}
    assert stub.requests[-1].json["stream_options"] == {**options, "include_usage": True}
    assert calls[0].usage is not None


@pytest.mark.parametrize("more", [{}, {"stream": True, "stream_options": {"include_usage": False}}])
def test_what_need_not_be_changed_is_sent_as_it_is(stub: OpenAIStub, more: Any) -> None:
    with tracked(), client_of(stub) as client:
        chat(**more)(client)

    assert stub.requests[-1].json == {"model": "gpt-4o", "messages": ASK, **more}


def test_the_parts_of_a_stream_are_as_many_as_without_us(stub: OpenAIStub) -> None:
    with tracked(), client_of(stub) as client:
        parts = list(chat(stream=True)(client))

    assert len(parts) == CHUNKS + 2
    assert all(part.choices for part in parts)


def test_a_server_that_refuses_the_option_is_asked_again_without_and_never_more() -> None:
    refused = Answer(422, {"detail": [{"loc": ["body", "stream_options"]}]})
    with OpenAIStub() as stub:
        stub.answer(refused, OK)
        with tracked() as calls, client_of(stub) as client:
            assert len(list(chat(stream=True)(client))) == CHUNKS + 2
            assert len(list(chat(stream=True)(client))) == CHUNKS + 2
        asked = ["stream_options" in request.json for request in stub.requests]

    assert asked == [True, False, False]
    assert [call.status for call in calls] == ["success", "success"]


async def test_an_async_call_is_asked_again_as_well() -> None:
    refused = refusal(400, "Unknown parameter: 'stream_options'.", None, "unknown_parameter")
    with OpenAIStub() as stub:
        stub.answer(refused, OK)
        with tracked() as calls:
            async with async_client_of(stub) as client:
                assert len([part async for part in await chat(stream=True)(client)]) == CHUNKS + 2
        assert len(stub.requests) == 2

    assert [call.status for call in calls] == ["success"]


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_of_something_else_is_the_callers(stub: OpenAIStub, status: int) -> None:
    stub.answer(refusal(status, "Invalid 'temperature'.", None, None))
    with (
        tracked() as calls,
        client_of(stub) as client,
        pytest.raises(openai.APIStatusError, match="temperature"),
    ):
        chat(stream=True)(client)

    assert len(stub.requests) == 1
    assert [call.status for call in calls] == ["bad_request"]


def test_when_the_second_try_fails_its_exception_is_the_callers() -> None:
    refused = refusal(400, "stream_options", None, None)
    with OpenAIStub() as stub:
        stub.answer(refused, refusal(404, "no such model", None, None))
        with (
            tracked() as calls,
            client_of(stub) as client,
            pytest.raises(openai.NotFoundError) as caught,
        ):
            chat(stream=True)(client)

    links = []
    link: BaseException | None = caught.value
    while link is not None:
        links.append(type(link).__name__)
        link = link.__cause__ or link.__context__
    assert "BadRequestError" not in links
    assert [call.status for call in calls] == ["bad_request"]


@pytest.mark.parametrize(
    ("version", "asked"),
    [("2024-06-01", False), ("2023-03-15-preview", False), ("2024-10-21", True), ("preview", True)],
)
def test_azure_is_asked_for_usage_where_it_understands_that(
    stub: OpenAIStub, version: str, asked: bool
) -> None:
    client = openai.AzureOpenAI(api_key=KEY, azure_endpoint=stub.url, api_version=version)
    with tracked(openai_prices={"my-deployment": "gpt-4o"}) as calls, client:
        list(chat(model="my-deployment", stream=True)(client))

    assert ("stream_options" in stub.requests[-1].json) is asked
    assert [call.priced for call in calls] == [asked]
    assert "/deployments/my-deployment/" in stub.requests[-1].path


@pytest.mark.parametrize("price", ["gpt-4o-mini", {"input": 0.15, "output": 0.6}])
def test_a_deployment_has_the_price_that_it_is_given(stub: OpenAIStub, price: Any) -> None:
    client = openai.AzureOpenAI(api_key=KEY, azure_endpoint=stub.url, api_version="2024-10-21")
    with tracked(openai_prices={"my-deployment": price}) as calls, client:
        client.embeddings.create(model="my-deployment", input="x")

    assert [(call.model, str(call.cost)) for call in calls] == [("my-deployment", "0.0015")]


def test_the_client_of_the_module_is_seen(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "api_key", KEY)
    monkeypatch.setattr(openai, "base_url", stub.url)
    with tracked() as calls:
        chat()(openai)
    openai._reset_client()

    assert [call.status for call in calls] == ["success"]


def test_a_client_on_httpx_is_seen(stub: OpenAIStub) -> None:
    import httpx

    with tracked() as calls, httpx.Client() as http:
        client = openai.OpenAI(api_key=KEY, base_url=stub.url, http_client=http)  # type: ignore[arg-type] # allowed, and not typed
        chat()(client)
        list(chat(stream=True)(client))

    assert [str(call.cost) for call in calls] == ["0.00725", "0.00725"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_on_aiohttp_is_seen(stub: OpenAIStub) -> None:
    http = openai.DefaultAioHttpClient()
    with tracked() as calls:
        async with openai.AsyncOpenAI(api_key=KEY, base_url=stub.url, http_client=http) as client:
            await chat()(client)
            assert len([part async for part in await chat(stream=True)(client)]) == CHUNKS + 2

    assert [str(call.cost) for call in calls] == ["0.00725", "0.00725"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.models.list(),
        lambda client: client.models.with_raw_response.list(),
        lambda client: client.files.list(),
    ],
)
def test_what_is_not_billed_by_the_call_is_not_counted(stub: OpenAIStub, call: Any) -> None:
    with tracked() as calls, client_of(stub, max_retries=0) as client:
        try:
            call(client)
        except openai.NotFoundError:
            assert stub.requests[-1].path.endswith("/files")

    assert len(stub.requests) == 1
    assert calls == []


def test_a_duration_holds_all_attempts(stub: OpenAIStub) -> None:
    slow = refusal(500, "no", None, None, {"retry-after-ms": "60"})
    stub.answer(slow, slow, OK)
    with tracked() as calls, client_of(stub) as client:
        chat()(client)

    (call,) = calls
    assert call.seconds is not None
    assert call.seconds >= 0.12


def test_nothing_of_prompt_and_answer_is_kept(stub: OpenAIStub) -> None:
    with tracked() as calls, client_of(stub) as client:
        chat()(client)
        list(chat(stream=True)(client))
        stub.answer(CLOSE)
        with pytest.raises(openai.APIConnectionError):
            chat()(client.with_options(max_retries=0))

    assert len(calls) == 3
    for word in (SECRET, "Ada", "S3cret", KEY):
        assert word not in repr(calls)
