"""Calls of the `openai` package, as applications make them, with and without a monitor.

As a script it makes them all with whatever `openai` comes first, and prints what was seen.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import openai
import pydantic
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.openai_call import Call
from holistic_asgi_monitor.usage.openai_span import Lost
from holistic_asgi_monitor.usage.tracking import Current, Tracker
from tests.servers.openai_stub import (
    CLOSE,
    CUT,
    FORBIDDEN,
    HANG,
    NOT_FOUND,
    OK,
    QUOTA,
    RATE_LIMITED,
    SERVER_ERROR,
    Answer,
    OpenAIStub,
    invalid_key,
)

KEY = "sk-proj-S3cretS3cretS3cret"
SECRET = "prompt-S3cret"
ASK: Any = [{"role": "user", "content": SECRET}]
AT_ONCE = {"retry-after-ms": "1", "retry-after": "0"}
GPT, O3 = "gpt-4o-2024-08-06", "o3"
CHAT = {"input": 1000, "output": 500, "cached": 200, "reasoning": 0}
THOUGHT = {"input": 1000, "output": 2000, "cached": 100, "reasoning": 1500}


class Person(pydantic.BaseModel):
    name: str


class Number(pydantic.BaseModel):
    number: int


def again(answer: Answer) -> Answer:
    """The same answer, to be tried again at once."""
    return Answer(answer.status, answer.body, {**answer.headers, **AT_ONCE})


@dataclass(frozen=True)
class Expected:
    """What a call is to be counted as."""

    model: str
    status: str = "success"
    cost: str | None = None
    usage: Mapping[str, int] | None = None
    priced: bool = True


@dataclass(frozen=True)
class Scenario:
    """A call, made of whatever client; the answers to it, where they are not the usual ones."""

    call: Callable[[Any], Any]
    expected: Expected
    answers: Sequence[Answer] = (OK,)
    read: str = "all"
    options: Mapping[str, Any] = field(default_factory=dict)


def chat(**more: Any) -> Callable[[Any], Any]:
    return lambda client: client.chat.completions.create(
        **{"model": "gpt-4o", "messages": ASK, **more}
    )


def responses(**more: Any) -> Callable[[Any], Any]:
    return lambda client: client.responses.create(**{"model": "o3", "input": SECRET, **more})


def transcribe(model: str) -> Callable[[Any], Any]:
    return lambda client: client.audio.transcriptions.create(
        model=model, file=("a.wav", b"RIFF", "audio/wav")
    )


def posted(**more: Any) -> Callable[[Any], Any]:
    body = {"model": "gpt-4o", "messages": ASK, "stream": "stream" in more}
    return lambda client: client.post("/chat/completions", body=body, **more)


def posted_stream(client: Any) -> Any:
    kind: Any = openai.AsyncStream if isinstance(client, openai.AsyncOpenAI) else openai.Stream
    wanted = {"cast_to": ChatCompletionChunk, "stream_cls": kind[ChatCompletionChunk]}
    return posted(stream=True, **wanted)(client)


def azure(client: Any, version: str) -> Any:
    """A client of Azure at the same server."""
    several = isinstance(client, openai.AsyncOpenAI)
    made: Any = openai.AsyncAzureOpenAI if several else openai.AzureOpenAI
    return made(
        api_key=KEY,
        azure_endpoint=str(client.base_url),
        api_version=version,
        http_client=client._client,
    )


CHATTED = Expected(GPT, cost="0.00725", usage=CHAT)
THOUGHT_OUT = Expected(O3, cost="0.01785", usage=THOUGHT)
UNKNOWN = Expected(GPT, priced=False)
USAGE_ON, USAGE_OFF = {"include_usage": True}, {"include_usage": False}


def failed(status: str) -> Expected:
    return Expected("gpt-4o", status)


SCENARIOS: dict[str, Scenario] = {
    "chat": Scenario(chat(), CHATTED),
    "chat, with options": Scenario(lambda c: chat()(c.with_options(timeout=20)), CHATTED),
    "chat, streamed": Scenario(chat(stream=True), CHATTED),
    "chat, streamed with usage": Scenario(chat(stream=True, stream_options=USAGE_ON), CHATTED),
    "chat, streamed without usage": Scenario(chat(stream=True, stream_options=USAGE_OFF), UNKNOWN),
    "chat, usage in the extra body": Scenario(
        chat(stream=True, extra_body={"stream_options": USAGE_ON}), CHATTED
    ),
    "chat, of an unknown model": Scenario(
        chat(model="house-1"), Expected("house-1", usage=CHAT, priced=False)
    ),
    "chat, flex": Scenario(
        chat(model="o3", service_tier="flex"), Expected(O3, cost="0.00285", usage=CHAT)
    ),
    "chat, a tier without price": Scenario(
        chat(service_tier="scale"), Expected(GPT, usage=CHAT, priced=False)
    ),
    "chat, parsed": Scenario(
        lambda c: c.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Person),
        CHATTED,
    ),
    "chat, parsed and cut off": Scenario(
        lambda c: c.chat.completions.parse(
            model="gpt-4o", messages=ASK, response_format=Person, max_tokens=1
        ),
        CHATTED,
    ),
    "chat, parsed in vain": Scenario(
        lambda c: c.chat.completions.parse(model="gpt-4o", messages=ASK, response_format=Number),
        CHATTED,
    ),
    "chat, raw": Scenario(
        lambda c: c.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK), CHATTED
    ),
    "chat, raw and streamed": Scenario(
        lambda c: c.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=ASK, stream=True
        ),
        UNKNOWN,
    ),
    "chat, raw and streamed with usage": Scenario(
        lambda c: c.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=ASK, stream=True, stream_options=USAGE_ON
        ),
        CHATTED,
    ),
    "Azure": Scenario(lambda c: chat()(azure(c, "2024-10-21")), CHATTED),
    "Azure, streamed": Scenario(lambda c: chat(stream=True)(azure(c, "2024-10-21")), CHATTED),
    "Azure of old, streamed": Scenario(
        lambda c: chat(stream=True)(azure(c, "2024-06-01")), UNKNOWN
    ),
    "post": Scenario(posted(cast_to=ChatCompletion), CHATTED),
    "post, any object": Scenario(posted(cast_to=object), CHATTED),
    "post, streamed": Scenario(posted_stream, CHATTED),
    "post, streamed but read as a whole": Scenario(
        lambda c: c.post(
            "/chat/completions",
            body={"model": "gpt-4o", "messages": ASK, "stream": True},
            cast_to=str,
        ),
        Expected("gpt-4o", priced=False),
    ),
    "completions": Scenario(
        lambda c: c.completions.create(model="gpt-3.5-turbo-instruct", prompt=SECRET),
        Expected(
            "gpt-3.5-turbo-instruct",
            cost="0.00017",
            usage={"input": 100, "output": 10, "cached": 0, "reasoning": 0},
        ),
    ),
    "responses": Scenario(responses(), THOUGHT_OUT),
    "responses, streamed": Scenario(responses(stream=True), THOUGHT_OUT),
    "responses, parsed": Scenario(
        lambda c: c.responses.parse(model="o3", input=SECRET, text_format=Person), THOUGHT_OUT
    ),
    "embeddings": Scenario(
        lambda c: c.embeddings.create(model="text-embedding-3-small", input=SECRET),
        Expected(
            "text-embedding-3-small",
            cost="0.0002",
            usage={"input": 10_000, "output": 0, "cached": 0, "reasoning": 0},
        ),
    ),
    "images": Scenario(
        lambda c: c.images.generate(model="gpt-image-1", prompt=SECRET),
        Expected(
            "gpt-image-1",
            cost="0.04025",
            usage={"input": 50, "output": 1000, "cached": 0, "reasoning": 0},
        ),
    ),
    "transcription": Scenario(
        transcribe("gpt-4o-transcribe"),
        Expected(
            "gpt-4o-transcribe",
            cost="0.000665",
            usage={"input": 100, "output": 10, "cached": 0, "reasoning": 0},
        ),
    ),
    "transcription by the minute": Scenario(
        transcribe("whisper-1"), Expected("whisper-1", priced=False)
    ),
    "speech": Scenario(
        lambda c: c.audio.speech.create(model="tts-1", voice="alloy", input=SECRET),
        Expected("tts-1", priced=False),
    ),
    "moderation": Scenario(
        lambda c: c.moderations.create(model="omni-moderation-latest", input=SECRET),
        Expected("omni-moderation-latest", cost="0"),
    ),
    "two failures and a success": Scenario(
        chat(), CHATTED, (again(SERVER_ERROR), again(SERVER_ERROR), OK)
    ),
    "quota used up": Scenario(chat(), failed("quota_exceeded"), (again(QUOTA),)),
    "rate limited": Scenario(chat(), failed("rate_limited"), (again(RATE_LIMITED),)),
    "server error": Scenario(chat(), failed("server_error"), (again(SERVER_ERROR),)),
    "wrong key": Scenario(chat(), failed("auth_error"), (invalid_key(KEY),)),
    "forbidden": Scenario(chat(stream=True), failed("auth_error"), (FORBIDDEN,)),
    "not found": Scenario(chat(), failed("bad_request"), (NOT_FOUND,)),
    "an error, raw": Scenario(
        lambda c: c.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK),
        failed("auth_error"),
        (invalid_key(KEY),),
    ),
    "timeout": Scenario(chat(timeout=0.05), failed("timeout"), (HANG,), options={"max_retries": 0}),
    "cut off": Scenario(chat(), failed("connection_error"), (CLOSE,), options={"max_retries": 0}),
    "an invented model": Scenario(
        chat(model="x-1"), Expected("_OTHER", "bad_request"), (NOT_FOUND,)
    ),
    "a stream that is cut": Scenario(
        chat(stream=True), Expected(GPT, "connection_error", priced=False), (CUT,)
    ),
    "a stream that ends in an error": Scenario(
        chat(stream=True),
        failed("rate_limited"),
        (
            Answer(
                parts=[b'data: {"error": {"message": "no", "code": "rate_limit_exceeded"}}\n\n'],
                content_type="text/event-stream",
            ),
        ),
    ),
    "a response that failed": Scenario(
        responses(),
        Expected(O3, "rate_limited", priced=True),
        (
            Answer(
                body={
                    "id": "resp_1",
                    "object": "response",
                    "model": "o3",
                    "status": "failed",
                    "output": [],
                    "error": {"code": "rate_limit_exceeded", "message": "no"},
                }
            ),
        ),
    ),
    "closed after one part": Scenario(
        chat(stream=True), Expected(GPT, "abandoned", priced=False), read="close"
    ),
    "dropped after one part": Scenario(
        chat(stream=True), Expected(GPT, "abandoned", priced=False), read="drop"
    ),
    "dropped unread": Scenario(
        chat(stream=True), Expected("gpt-4o", "abandoned", priced=False), read="nothing"
    ),
}


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that is never called."""


def listen(tracker: Tracker) -> list[Call]:
    """The calls that have ended, from now on."""
    calls: list[Call] = []
    ended = tracker.openai_ended

    def heard(status: str, call: Callable[[], Call]) -> None:
        calls.append(call())
        ended(status, call)

    tracker.openai_ended = heard  # type: ignore[method-assign]
    return calls


@contextmanager
def tracked(**settings: Any) -> Iterator[list[Call]]:
    """Have calls tracked by a monitor, and give those that were."""
    monitor = Monitor(
        nothing, settings=Settings(service="calls", history_url="off", **settings), checks=[]
    )
    tracker, tracking = monitor._parts.tracker, monitor._parts.business.openai
    assert tracking is not None
    calls = listen(tracker)
    Current.started(tracker)
    try:
        yield calls
        Lost.settle()
        assert monitor._parts.catalogue.faults.values == {}
    finally:
        tracking.end()


def told(call: Call) -> dict[str, Any]:
    """A call as it can be compared, without what differs from one time to the next."""
    assert call.seconds is not None
    assert call.seconds > 0
    kinds = ("input", "output", "cached", "reasoning")
    return {
        "model": call.model,
        "status": call.status,
        "cost": None if call.cost is None else str(call.cost.normalize()),
        "usage": None
        if call.usage is None
        else {kind: getattr(call.usage, kind) for kind in kinds},
        "priced": call.priced,
    }


def wanted(expected: Expected) -> dict[str, Any]:
    """What `told` says of a call that is as expected."""
    usage = None if expected.usage is None else dict(expected.usage)
    return {
        "model": expected.model,
        "status": expected.status,
        "cost": expected.cost,
        "usage": usage,
        "priced": expected.priced,
    }


def seen(result: Any) -> Any:
    """What a caller can see of an answer that he holds."""
    kind = type(result).__name__
    if isinstance(result, pydantic.BaseModel):
        fields = sorted(result.model_fields_set)
        return [kind, result.model_dump(mode="json", exclude_unset=True), fields]
    if hasattr(result, "content") and isinstance(result.content, bytes):
        return [kind, result.content.hex()]
    return [kind, result]


def raised(error: Exception) -> Any:
    """What a caller can see of an exception."""
    chain = [type(link).__name__ for link in (error.__cause__, error.__context__)]
    more = {name: getattr(error, name, None) for name in ("code", "type", "status_code", "body")}
    return [type(error).__name__, str(error), more, chain]


def run(client: openai.OpenAI, scenario: Scenario) -> Any:
    """Make the call, and say what came of it."""
    try:
        result: Any = scenario.call(client)
        if hasattr(result, "http_response"):
            return ["raw", type(result).__name__, _read(result.parse(), scenario.read)]
        return _read(result, scenario.read)
    except Exception as error:
        return raised(error)


def _read(result: Any, how: str) -> Any:
    if not isinstance(result, openai.Stream):
        return seen(result)
    parts = []
    for part in result if how != "nothing" else ():
        parts.append(seen(part))
        if how == "close":
            result.close()
        if how != "all":
            break
    return [type(result).__name__, parts, result.response.headers["content-type"]]


async def run_async(client: openai.AsyncOpenAI, scenario: Scenario) -> Any:
    """As `run`, on an event loop."""
    try:
        result: Any = await scenario.call(client)
        if hasattr(result, "http_response"):
            return ["raw", type(result).__name__, await _aread(result.parse(), scenario.read)]
        return await _aread(result, scenario.read)
    except Exception as error:
        return raised(error)


async def _aread(result: Any, how: str) -> Any:
    if not isinstance(result, openai.AsyncStream):
        return seen(result)
    parts = []
    if how == "all":
        parts = [seen(part) async for part in result]
    elif how != "nothing":
        parts.append(seen(await anext(result)))
    if how == "close":
        await result.close()
    return [
        type(result).__name__.removeprefix("Async"),
        parts,
        result.response.headers["content-type"],
    ]


def observed(stub: OpenAIStub, scenario: Scenario) -> Any:
    """What a sync caller sees, and what reached the server."""
    stub.reset(*scenario.answers)
    with client_of(stub, **scenario.options) as client:
        result = run(client, scenario)
    _forget(scenario)
    return result


async def observed_async(stub: OpenAIStub, scenario: Scenario) -> Any:
    """What a caller on an event loop sees."""
    stub.reset(*scenario.answers)
    async with async_client_of(stub, **scenario.options) as client:
        result = await run_async(client, scenario)
        _forget(scenario)
    return result


def client_of(stub: OpenAIStub, **options: Any) -> openai.OpenAI:
    """A client of the stub; the certificates that it does not need take long to read."""
    http = openai.DefaultHttpxClient(verify=False)
    return openai.OpenAI(api_key=KEY, base_url=stub.url, http_client=http, **options)


def async_client_of(stub: OpenAIStub, **options: Any) -> openai.AsyncOpenAI:
    """As `client_of`."""
    http = openai.DefaultAsyncHttpxClient(verify=False)
    return openai.AsyncOpenAI(api_key=KEY, base_url=stub.url, http_client=http, **options)


def _forget(scenario: Scenario) -> None:
    if scenario.read in {"drop", "nothing"}:
        forget()


def forget() -> None:
    """Throw away what nobody holds any more, and have it counted."""
    gc.collect()
    Lost.settle()


def main() -> None:
    """Print the version, and of each scenario what was seen untracked, tracked, and counted."""
    outcomes: dict[str, Any] = {}
    with OpenAIStub() as stub:
        for name, scenario in SCENARIOS.items():
            plain = observed(stub, scenario), anyio.run(observed_async, stub, scenario)
            with tracked() as calls:
                again_ = observed(stub, scenario), anyio.run(observed_async, stub, scenario)
            outcomes[name] = [plain, again_, [told(call) for call in calls]]
    version: str = openai.__version__
    json.dump({"version": version, "outcomes": outcomes}, sys.stdout)


if __name__ == "__main__":
    main()
