"""What tracking adds to a call of OpenAI: `python -m benchmarks.openai_calls`.

Two clients make the same calls in process, over a transport that answers at once; those of one go
past what tracking has put into their class. Their blocks alternate, and the quickest of each
counts; the cost of a part of a stream is the difference between a long stream and a short one.
"""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isclose
from time import perf_counter
from types import MethodType
from typing import Any

import httpx2
import openai
from openai._base_client import AsyncAPIClient, SyncAPIClient
from starlette.types import Receive, Scope, Send

from benchmarks.options import forget_settings, new_parser, positive
from benchmarks.table import conditions, markdown, publish
from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.tracking import Current

PARTS = 200
MICRO = 1e6
ASK: list[Any] = [{"role": "user", "content": "Say hi."}]
USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
SHARED = {"id": "chatcmpl-1", "created": 1_795_000_000, "model": "gpt-4o-2024-08-06"}
MESSAGE = {"role": "assistant", "content": "hi", "refusal": None}
WHOLE = json.dumps(
    {
        **SHARED,
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": MESSAGE}],
        "usage": USAGE,
    }
).encode()


def _streamed(parts: int, *, usage: bool) -> bytes:
    """A stream of as many parts, and one more that has the usage."""
    shared = {**SHARED, "object": "chat.completion.chunk", **({"usage": None} if usage else {})}
    choice = {"index": 0, "delta": {"content": "hi"}, "logprobs": None, "finish_reason": None}
    bodies = [{**shared, "choices": [choice]}] * parts
    bodies += [{**shared, "choices": [], "usage": USAGE}] if usage else []
    events = "".join(f"data: {json.dumps(body)}\n\n" for body in bodies)
    return f"{events}data: [DONE]\n\n".encode()


STREAMS = {
    (parts, usage): _streamed(parts, usage=usage)
    for parts in (1, PARTS + 1)
    for usage in (False, True)
}


def _respond(request: httpx2.Request) -> httpx2.Response:
    asked = json.loads(request.content)
    if not asked.get("stream"):
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=WHOLE)
    body = STREAMS[asked["max_tokens"], "stream_options" in asked]
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)


@dataclass(frozen=True)
class Case:
    """Something that is timed: one call or one stream, in an event loop."""

    name: str
    once: Callable[[], Awaitable[None]]


Clients = tuple[openai.OpenAI, openai.AsyncOpenAI]


def _clients() -> Clients:
    transport = httpx2.MockTransport(_respond)
    sync = openai.OpenAI(api_key="k", http_client=httpx2.Client(transport=transport))
    http = httpx2.AsyncClient(transport=transport)
    return sync, openai.AsyncOpenAI(api_key="k", http_client=http)


def _unseen(clients: Clients, originals: Sequence[Callable[..., Any]]) -> Clients:
    """The clients, with methods of their own before those of their class.

    To attach and to detach between blocks would have Python learn the class anew each time.
    """
    for client, original in zip(clients, originals, strict=True):
        vars(client)["request"] = MethodType(original, client)
    return clients


def _cases(clients: Clients) -> list[Case]:
    """Whole calls and streams, sync and async; short and long streams one after the other."""
    return [*_whole(*clients), *_streams(*clients)]


def _whole(sync: openai.OpenAI, made: openai.AsyncOpenAI) -> list[Case]:
    async def call() -> None:
        sync.chat.completions.create(model="gpt-4o", messages=ASK)

    async def acall() -> None:
        await made.chat.completions.create(model="gpt-4o", messages=ASK)

    return [Case("a call", call), Case("an async call", acall)]


def _streams(sync: openai.OpenAI, made: openai.AsyncOpenAI) -> list[Case]:
    async def stream(parts: int) -> None:
        for _part in sync.chat.completions.create(
            model="gpt-4o", messages=ASK, stream=True, max_tokens=parts
        ):
            pass

    async def astream(parts: int) -> None:
        async for _part in await made.chat.completions.create(
            model="gpt-4o", messages=ASK, stream=True, max_tokens=parts
        ):
            pass

    return [
        Case(name, partial(way, parts))
        for name, way in (("a stream", stream), ("an async stream", astream))
        for parts in (1, PARTS + 1)
    ]


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that is never called."""


async def _measure(blocks: int, calls: int) -> list[tuple[float, float]]:
    """Seconds of each case for one call, untracked and tracked."""
    originals = [kind.request for kind in (SyncAPIClient, AsyncAPIClient)]
    settings = Settings(service="benchmark", history_url="off")
    monitor = Monitor(_nothing, settings=settings, checks=[])
    tracker, tracking = monitor._parts.tracker, monitor._parts.business.openai
    assert tracking is not None
    Current.started(tracker)
    cases = [_cases(_unseen(_clients(), originals)), _cases(_clients())]
    tracking.begin()
    every = range(len(cases[0]))
    best = {(case, tracked): inf for case in every for tracked in (0, 1)}
    gc.freeze()
    for case in every:
        for block in range(2 * blocks):
            tracked = block % 2
            start = perf_counter()
            for _ in range(calls):
                await cases[tracked][case].once()
            # What is counted later is a cost as well.
            tracker.tally.settle()
            best[case, tracked] = min(best[case, tracked], (perf_counter() - start) / calls)
    gc.unfreeze()
    tracking.end()
    families, made = monitor._parts.catalogue, blocks * calls * len(every)
    counted = dict(families.openai_calls.values)
    cost = sum(families.openai_cost.values.values())
    if counted != {("gpt-4o-2024-08-06", "success"): made} or not isclose(cost, made * 0.00725):
        raise SystemExit(f"not every call was counted and priced: {counted}, {cost} of {made}")
    return [(best[case, 0], best[case, 1]) for case in every]


def _rows(times: Sequence[tuple[float, float]]) -> list[tuple[str, str, str]]:
    """The rows; a part of a stream is the difference of long and short, in 200 parts."""
    (call, acall, short, long, ashort, along) = times
    parts = [
        tuple((more - less) / PARTS for less, more in zip(*pair, strict=True))
        for pair in ((short, long), (ashort, along))
    ]
    named = {
        "a call": call,
        "an async call": acall,
        "a stream of one part": short,
        "an async stream of one part": ashort,
        "each further part": parts[0],
        "each further part, async": parts[1],
    }
    return [
        (name, f"{untracked * MICRO:.1f}", f"{(tracked - untracked) * MICRO:+.1f}")
        for name, (untracked, tracked) in named.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and print or publish the table."""
    forget_settings()
    parser = new_parser("benchmarks.openai_calls", __doc__)
    parser.add_argument("--blocks", type=positive, default=80)
    parser.add_argument("--calls", type=positive, default=10)
    options = parser.parse_args(argv)
    rows = _rows(asyncio.run(_measure(options.blocks, options.calls)))
    measured = f"the quickest of {options.blocks} blocks of {options.calls} calls"
    head = ("µs", "untracked", "tracking adds")
    text = f"{conditions(('openai', 'genai-prices'), measured)}\n\n{markdown(head, rows)}"
    publish("openai", text, options.write)


if __name__ == "__main__":
    main()
