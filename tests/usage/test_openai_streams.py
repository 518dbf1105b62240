"""Answers that are read bit by bit end once: read, closed, dropped, cancelled, or never read."""

import asyncio
import gc
import json
import pickle
import time
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder
from openai.types.chat import ChatCompletionChunk

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.openai_call import Call, Usage
from holistic_asgi_monitor.usage.openai_names import Names
from holistic_asgi_monitor.usage.openai_operations import operation_at
from holistic_asgi_monitor.usage.openai_span import Account, Hosts, Lost, Span
from holistic_asgi_monitor.usage.prices import Prices
from holistic_asgi_monitor.usage.tracking import Current
from tests.apps.openai_scenarios import (
    ASK,
    async_client_of,
    chat,
    client_of,
    forget,
    nothing,
    responses,
    tracked,
)
from tests.servers.openai_stub import CHUNKS, HANG, OK, Answer, OpenAIStub, Request

# With and without us: openai leaves its own generators unread, of which trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator .* was garbage:ResourceWarning")
STALL = Answer(act="stall")
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def stub(server: OpenAIStub) -> OpenAIStub:
    server.reset(OK)
    return server


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    with tracked() as seen:
        yield seen


@pytest.fixture
def client(stub: OpenAIStub, calls: list[Call]) -> Iterator[openai.OpenAI]:
    with client_of(stub, max_retries=0) as made:
        yield made


@pytest.fixture
async def aclient(stub: OpenAIStub, calls: list[Call]) -> Any:
    async with async_client_of(stub, max_retries=0) as made:
        yield made


def endings(calls: list[Call]) -> list[tuple[str, bool]]:
    """How calls ended, and whether they said their usage."""
    Lost.settle()
    return [(call.status, call.usage is not None) for call in calls]


WHOLE = [("success", True)]
BLIND = [("success", False)]
LEFT = [("abandoned", False)]


def test_a_stream_counts_when_it_has_been_read_and_not_before(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    stream = chat(stream=True)(client)
    assert isinstance(stream, openai.Stream)
    for _ in range(CHUNKS + 2):
        next(stream)
    assert calls == []
    with pytest.raises(StopIteration):
        next(stream)

    assert endings(calls) == WHOLE
    stream.close()
    del stream
    forget()
    assert len(calls) == 1


def test_of_the_part_that_only_we_ask_for_no_object_is_made(
    client: openai.OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = openai.OpenAI._process_response_data

    def making(self: openai.OpenAI, **given: Any) -> Any:
        made.append(given["data"])
        return make(self, **given)

    monkeypatch.setattr(openai.OpenAI, "_process_response_data", making)
    list(chat(stream=True)(client))

    assert len(made) == CHUNKS + 2
    assert all(data["choices"] for data in made)
    assert endings(calls) == WHOLE


async def test_of_the_part_that_only_we_ask_for_no_object_is_made_in_async_calls(
    aclient: openai.AsyncOpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    make = openai.AsyncOpenAI._process_response_data

    def making(self: openai.AsyncOpenAI, **given: Any) -> Any:
        made.append(given["data"])
        return make(self, **given)

    monkeypatch.setattr(openai.AsyncOpenAI, "_process_response_data", making)
    parts = [part async for part in await chat(stream=True)(aclient)]

    assert len(made) == len(parts) == CHUNKS + 2
    assert endings(calls) == WHOLE


def event(**fields: Any) -> bytes:
    shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return f"data: {json.dumps({**shared, **fields})}\n\n".encode()


def spoken(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event(choices=[choice], **more)


USED = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
PASSING = {
    "what a filter says of the prompt": event(choices=[], prompt_filter_results=[]),
    "an empty usage": event(choices=[], usage=None),
    "usage beside a choice": spoken("hi", usage=USED),
    "a text that looks like it": spoken('"choices": [], "usage": {"prompt_tokens": 3}', usage=None),
    "an object without any": spoken("hi", more={"choices": []}, usage=USED),
    "an object within": event(more={"choices": [], "usage": USED}, choices=[]),
    "a usage of something else": event(choices=[], filter={"usage": USED}, usage=None),
}
EXTRA = {
    "as OpenAI writes it": event(choices=[], usage=USED),
    "after the usage": event(usage=USED, choices=[]),
    "after something nested": event(filter={"of": ["it"]}, choices=[], usage=USED),
    "between the two": event(choices=[], filter=[{}], usage=USED),
    "after a text with quotes": event(system_fingerprint='"choices"', choices=[], usage=USED),
    "with very much": event(system_fingerprint="x" * 5000, choices=[], usage=USED),
    "without an error": event(choices=[], usage=USED, error=None),
}


@pytest.mark.parametrize("part", EXTRA.values(), ids=EXTRA.keys())
def test_what_only_we_asked_for_reaches_nobody_in_whatever_order_it_is_written(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call], part: bytes
) -> None:
    parts = [spoken("a"), part, b"data: [DONE]\n\n"]
    stub.answer(Answer(parts=parts, content_type="text/event-stream"))

    assert len(list(chat(stream=True)(client))) == 1
    assert endings(calls) == WHOLE
    assert calls[0].usage == Usage(3, 2)


AZURE = event(choices=[], model="", prompt_filter_results=[{"prompt_index": 0}])


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ([spoken("a"), b"data: [DONE]\n\n"], "success"),
        ([spoken("a"), b'data: {"error": {"code": "rate_limit_exceeded"}}\n\n'], "rate_limited"),
    ],
    ids=["whole", "an error"],
)
def test_the_first_event_of_azure_does_not_hide_the_model(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call], rest: list[bytes], status: str
) -> None:
    stub.answer(Answer(parts=[AZURE, *rest], content_type="text/event-stream"))
    with suppress(openai.APIError):
        list(chat(stream=True, model="my-deployment")(client))

    assert [(call.model, call.status) for call in calls] == [("gpt-4o", status)]


MORE = {"prompt_tokens": 3, "completion_tokens": 9}
WRONG = {"prompt_tokens": -1, "completion_tokens": 9}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([event(choices=[], usage=USED), spoken("b", usage=MORE)], Usage(3, 9)),
        ([spoken("b", usage=MORE), event(choices=[], usage=USED)], Usage(3, 2)),
        ([spoken("b", usage=USED), spoken("c", usage=WRONG)], Usage(3, 2)),
        ([spoken("b", usage=USED), event(choices=[], usage=WRONG)], Usage(3, 2)),
        ([event(choices=[], usage=WRONG)], None),
    ],
)
def test_of_several_usages_the_last_good_one_counts(
    stub: OpenAIStub,
    client: openai.OpenAI,
    calls: list[Call],
    parts: list[bytes],
    expected: Usage | None,
) -> None:
    whole = [spoken("a"), *parts, b"data: [DONE]\n\n"]
    stub.answer(Answer(parts=whole, content_type="text/event-stream"))
    list(chat(stream=True)(client))

    assert [call.usage for call in calls] == [expected]


T = TypeVar("T")


class Own(openai.Stream[T]):
    """A stream of the application's own, which has another decoder."""

    def __init__(
        self, *, cast_to: type[T], response: Any, client: Any, options: Any = None
    ) -> None:
        self.response = response
        self._cast_to, self._client, self._options = cast_to, client, options
        self._iterator = self._all()

    def _all(self) -> Iterator[T]:
        for sse in SSEDecoder().iter_bytes(self.response.iter_bytes()):
            if sse.data.startswith("[DONE]"):
                return
            yield self._client._process_response_data(
                data=sse.json(), cast_to=self._cast_to, response=self.response
            )


def test_a_stream_of_the_applications_own_class_is_followed(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    stream = client.post(
        "/chat/completions",
        body={"model": "gpt-4o", "messages": ASK, "stream": True},
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=Own[ChatCompletionChunk],
    )
    parts = list(stream)

    assert len(parts) == CHUNKS + 2
    assert endings(calls) == WHOLE


names = st.sampled_from(["choices", "usage", "error", "id", '"choices": []', "more"])
values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, 0, "", '"choices": [], "usage": {', "\\", [], {}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(names, values, max_size=5) | values)
def test_an_event_is_left_out_only_where_it_has_a_usage_and_no_choices(body: Any) -> None:
    left_out = a_span().took_extra(SimpleNamespace(data=json.dumps(body)))

    assert not left_out or (
        body["choices"] == [] and body["usage"] is not None and not body.get("error")
    )


def a_span() -> Span:
    """A span of a stream that nobody counts."""
    chatting = operation_at("/chat/completions")
    assert chatting is not None
    settings = Settings(service="calls", history_url="off", track_openai=False)
    tracker = Monitor(nothing, settings=settings, checks=[])._parts.tracker
    account = Account(Prices(), Names(lambda _: False), Hosts())
    return Span(tracker, account, chatting, url="", body={}, request=None, feature="")


@pytest.mark.parametrize("part", PASSING.values(), ids=PASSING.keys())
def test_whatever_else_comes_reaches_the_application(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call], part: bytes
) -> None:
    parts = [spoken("a"), part, event(choices=[], usage=USED), b"data: [DONE]\n\n"]
    stub.answer(Answer(parts=parts, content_type="text/event-stream"))
    read = list(chat(stream=True)(client))

    assert len(read) == 2
    assert endings(calls) == WHOLE
    assert calls[0].usage == Usage(3, 2)


def test_an_error_that_comes_with_the_usage_reaches_the_application(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call]
) -> None:
    error = {"message": "no", "code": "server_error"}
    parts = [spoken("a"), event(choices=[], usage=USED, error=error), b"data: [DONE]\n\n"]
    stub.answer(Answer(parts=parts, content_type="text/event-stream"))
    with pytest.raises(openai.APIError, match="no"):
        list(chat(stream=True)(client))

    assert endings(calls) == [("server_error", False)]


def test_where_a_stream_shows_no_decoder_the_part_is_taken_out_afterwards(
    client: openai.OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Span, "took_extra", lambda self, event: False)
    parts = list(chat(stream=True)(client))

    assert len(parts) == CHUNKS + 2
    assert endings(calls) == WHOLE


class Decoder:
    """One of the application's own, whose `decode` is something else."""

    __slots__ = ()

    def iter_bytes(self, iterator: Iterator[bytes]) -> Iterator[Any]:
        yield from self.decode(iterator, SSEDecoder())

    def decode(self, iterator: Iterator[bytes], decoder: SSEDecoder) -> Iterator[Any]:
        return decoder.iter_bytes(iterator)


def test_a_decoder_of_another_kind_is_left_alone(
    client: openai.OpenAI, calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_make_sse_decoder", Decoder)
    parts = list(chat(stream=True)(client))

    assert len(parts) == CHUNKS + 2
    assert endings(calls) == WHOLE


def test_a_stream_is_closed_by_the_end_of_its_block(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    with chat(stream=True)(client) as stream:
        next(stream)
    assert endings(calls) == LEFT
    assert stream.response.is_closed


def test_what_was_changed_is_as_it_was_afterwards(client: openai.OpenAI, calls: list[Call]) -> None:
    stream = chat(stream=True)(client)
    list(stream)

    assert "decode" not in vars(stream._decoder)
    assert not {"close", "aclose"} & set(vars(stream.response))
    assert pickle.loads(pickle.dumps(stream.response)).status_code == 200


async def test_a_stream_closed_or_left_counts_once(
    aclient: openai.AsyncOpenAI, calls: list[Call]
) -> None:
    async with await chat(stream=True)(aclient) as stream:
        await anext(stream)
    assert endings(calls) == LEFT

    stream = await chat(stream=True)(aclient)
    assert isinstance(stream, openai.AsyncStream)
    assert len([part async for part in stream]) == CHUNKS + 2
    await stream.close()
    assert endings(calls) == [*LEFT, *WHOLE]


@pytest.mark.parametrize("answer", [STALL, HANG])
async def test_a_cancelled_call_counts_once(
    stub: OpenAIStub, aclient: openai.AsyncOpenAI, calls: list[Call], answer: Answer
) -> None:
    stub.answer(answer)
    with anyio.move_on_after(0.3) as scope:
        async for _ in await chat(stream=True)(aclient):
            pass

    assert scope.cancelled_caught
    assert endings(calls) == [("cancelled", False)]
    # What had been answered already is billed, by a price that nobody knows.
    assert calls[0].priced is (answer is HANG)


@ASYNCIO
async def test_a_cancelled_task_ends_with_its_own_exception(
    stub: OpenAIStub, aclient: openai.AsyncOpenAI, calls: list[Call]
) -> None:
    stub.answer(HANG)
    task = asyncio.create_task(chat()(aclient))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert endings(calls) == [("cancelled", False)]


def test_a_stream_without_an_end_times_out(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call]
) -> None:
    stub.answer(STALL)
    with pytest.raises(openai.APITimeoutError):
        list(chat(stream=True, timeout=0.1)(client))

    assert endings(calls) == [("timeout", False)]
    assert not calls[0].priced


def raw(client: Any, **more: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model="gpt-4o", messages=ASK, **more)


def streaming(client: Any, **more: Any) -> Any:
    return client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=ASK, **more
    )


def test_a_raw_response_shows_what_it_always_shows(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    answer = raw(client)
    assert endings(calls) == WHOLE
    assert answer.headers["content-type"] == "application/json"
    assert answer.parse() is answer.parse()
    assert "parse" not in vars(answer)
    assert len(calls) == 1


def test_the_stream_of_a_raw_response_outlives_it(client: openai.OpenAI, calls: list[Call]) -> None:
    answer = raw(client, stream=True, stream_options={"include_usage": True})
    stream = answer.parse()
    assert answer.parse() is stream
    del answer
    forget()
    assert isinstance(stream, openai.Stream)
    assert len(list(stream)) == CHUNKS + 3
    assert endings(calls) == WHOLE


def test_a_raw_stream_that_nobody_reads_counts_as_left(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    answer = raw(client, stream=True)
    answer.http_response.close()
    assert endings(calls) == LEFT

    answer = raw(client, stream=True)
    del answer
    forget()
    assert endings(calls) == LEFT * 2


def test_the_bytes_of_a_raw_stream_are_those_that_were_sent(
    client: openai.OpenAI, calls: list[Call], stub: OpenAIStub
) -> None:
    answer = raw(client, stream=True)
    text = b"".join(answer.http_response.iter_bytes())
    answer.http_response.close()

    assert text.count(b"data: {") == CHUNKS + 2
    assert b"usage" not in text
    assert "stream_options" not in stub.requests[-1].json
    assert endings(calls) == BLIND


READINGS: dict[str, tuple[Any, list[tuple[str, bool]]]] = {
    "parsed": (lambda answer: answer.parse(), WHOLE),
    "read": (lambda answer: answer.read(), WHOLE),
    "read as JSON": (lambda answer: answer.json(), WHOLE),
    "read in pieces": (lambda answer: list(answer.iter_bytes()), BLIND),
    "read by lines": (lambda answer: list(answer.iter_lines()), BLIND),
    "read twice": (lambda answer: (answer.read(), answer.parse()), WHOLE),
    "left": (lambda answer: answer.headers, LEFT),
}


@pytest.mark.parametrize(("read", "expected"), READINGS.values(), ids=READINGS)
def test_a_streaming_response_counts_as_it_is_read(
    client: openai.OpenAI, calls: list[Call], read: Any, expected: list[tuple[str, bool]]
) -> None:
    with streaming(client) as answer:
        read(answer)

    assert endings(calls) == expected


AREADINGS: dict[str, tuple[str, list[tuple[str, bool]]]] = {
    "parsed": ("parse", WHOLE),
    "read": ("read", WHOLE),
    "read as JSON": ("json", WHOLE),
    "read in pieces": ("iter_bytes", BLIND),
    "left": ("", LEFT),
}


@pytest.mark.parametrize(("method", "expected"), AREADINGS.values(), ids=AREADINGS)
async def test_an_async_streaming_response_counts_as_it_is_read(
    aclient: openai.AsyncOpenAI, calls: list[Call], method: str, expected: list[tuple[str, bool]]
) -> None:
    async with streaming(aclient) as answer:
        if method.startswith("iter"):
            assert [piece async for piece in getattr(answer, method)()]
        elif method:
            assert await getattr(answer, method)()

    assert endings(calls) == expected


@pytest.mark.parametrize("asked", [True, False])
async def test_the_stream_of_a_streaming_response_counts(
    aclient: openai.AsyncOpenAI, calls: list[Call], asked: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    async with streaming(aclient, stream=True, **options) as answer:
        stream = await answer.parse()
        parts = [part async for part in stream]

    assert len(parts) == CHUNKS + 2 + asked
    assert endings(calls) == (WHOLE if asked else BLIND)


def test_speech_that_is_streamed_counts_without_a_price(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    speech = client.audio.speech.with_streaming_response
    with speech.create(model="tts-1", voice="alloy", input="x") as answer:
        assert answer.read() == b"\xff\xf3sound"

    Lost.settle()
    assert [(call.model, call.status, call.priced) for call in calls] == [
        ("tts-1", "success", False)
    ]


class Person(pydantic.BaseModel):
    name: str


def test_the_helper_for_chats_counts_once(client: openai.OpenAI, calls: list[Call]) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=ASK) as stream:
        kinds = [event.type for event in stream]
        completion = stream.get_final_completion()

    assert kinds.count("chunk") == CHUNKS + 2
    assert completion.usage is None
    assert endings(calls) == WHOLE


async def test_the_async_helpers_count_once(aclient: openai.AsyncOpenAI, calls: list[Call]) -> None:
    async with aclient.chat.completions.stream(model="gpt-4o", messages=ASK) as chats:
        await anext(chats)
    assert endings(calls) == LEFT
    async with aclient.responses.stream(model="o3", input="x", text_format=Person) as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()

    assert kinds[-1] == "response.completed"
    assert response.output_parsed == Person(name="Ada")
    assert endings(calls) == [*LEFT, *WHOLE]


def test_a_response_that_stops_short_says_what_it_cost(
    stub: OpenAIStub, client: openai.OpenAI, calls: list[Call]
) -> None:
    asked = json.dumps({"model": "o3", "stream": True}).encode()
    ends = stub.reply(Request("POST", "/responses", "", {}, asked)).parts
    stub.answer(
        Answer(
            parts=[part.replace(b"response.completed", b"response.incomplete") for part in ends],
            content_type="text/event-stream",
        )
    )
    list(responses(stream=True)(client))

    assert endings(calls) == WHOLE


def test_what_is_thrown_away_is_counted_later_and_not_by_the_collector(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    stream = chat(stream=True)(client)
    next(stream)
    del stream
    gc.collect()
    assert calls == []
    chat()(client)

    assert [call.status for call in calls] == ["abandoned", "success"]


def test_the_collector_may_come_while_something_is_being_counted() -> None:
    """It would wait for a lock that its own thread holds."""
    monitor = Monitor(nothing, settings=Settings(service="calls", history_url="off"), checks=[])
    Current.started(monitor._parts.tracker)
    with OpenAIStub() as stub, client_of(stub) as client:
        streams = [chat(stream=True)(client)]
        next(streams[0])
        with monitor._parts.tracker.tally._settling:
            streams.clear()
            gc.collect()
    Lost.settle()
    monitor._parts.catalogue.gather()

    assert sum(monitor._parts.catalogue.openai_calls.values.values()) == 1


def test_the_duration_of_what_is_left_ends_when_it_is_left(
    client: openai.OpenAI, calls: list[Call]
) -> None:
    stream = chat(stream=True)(client)
    stream.close()
    time.sleep(0.3)
    Lost.settle()

    (call,) = calls
    assert call.seconds is not None
    assert call.seconds < 0.3
