"""What tracking adds to a call of OpenAI: `python -m benchmarks.openai_calls`.

Clients make the same calls in process, over a transport that answers at once; those of two of them
go past what tracking has put into their class. They take turns call by call, a hundred times before
calls of another kind do, and the quickest of each counts; the cost of a part of a stream is the
difference between a long stream and a short one. What is counted some calls later is timed there,
and its share of a call is in the number.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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
SHORT_TURNS = 100
LONG_TURNS = 6
COUNTED_TOGETHER = 50
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
    """A stream of as many parts, and one more that has the usage; fields in OpenAI's order."""
    shared = {**SHARED, "object": "chat.completion.chunk"}
    choice = {"index": 0, "delta": {"content": "hi"}, "logprobs": None, "finish_reason": None}
    none = {"usage": None} if usage else {}
    bodies = [{**shared, "choices": [choice], **none}] * parts
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

    once: Callable[[], Awaitable[None]]
    long: bool = False


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

    return [Case(call), Case(acall)]


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
        Case(partial(way, parts), long=parts > 1)
        for way in (stream, astream)
        for parts in (1, PARTS + 1)
    ]


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that is never called."""


@dataclass
class Timed:
    """The quickest times of one case in seconds, with each of the contenders."""

    cases: Sequence[Case]
    best: list[float] = field(default_factory=lambda: [inf, inf, inf])

    @property
    def turns(self) -> int:
        """How often it is run in one round: long streams are long."""
        return LONG_TURNS if self.cases[0].long else SHORT_TURNS

    async def take_turns(self, dice: random.Random) -> None:
        """Time one call of each contender, in random order."""
        order = list(range(len(self.cases)))
        dice.shuffle(order)
        for contender in order:
            start = perf_counter()
            await self.cases[contender].once()
            self.best[contender] = min(self.best[contender], perf_counter() - start)


async def _measure(rounds: int) -> list[list[float]]:
    """Seconds of a call of each case: untracked, untracked once more, and tracked."""
    originals = [kind.request for kind in (SyncAPIClient, AsyncAPIClient)]
    settings = Settings(service="benchmark", history_url="off")
    monitor = Monitor(_nothing, settings=settings, checks=[])
    tracker, tracking = monitor._parts.tracker, monitor._parts.business.openai
    assert tracking is not None
    Current.started(tracker)
    contenders = [_cases(_unseen(_clients(), originals)) for _ in range(2)] + [_cases(_clients())]
    tracking.begin()
    gc.freeze()
    times = [Timed(cases) for cases in zip(*contenders, strict=True)]
    dice, made = random.Random(1), 0
    # Again and again, since other work on the machine comes and goes by the minute.
    for _ in range(rounds):
        for timed in times:
            for _ in range(timed.turns):
                await timed.take_turns(dice)
            made += timed.turns
    call, stream = [
        await _counting(timed.cases[-1], rounds, tracker.tally.settle)
        for timed in (times[0], times[2])
    ]
    gc.unfreeze()
    tracking.end()
    _demand_counted(monitor, made + 2 * rounds * COUNTED_TOGETHER)
    for timed, later in zip(times, (call, call, *[stream] * 4), strict=True):
        timed.best[-1] += later
    return [timed.best for timed in times]


async def _counting(case: Case, times: int, settle: Callable[[], object]) -> float:
    """Seconds that counting takes for a call: some calls later, for many at a time."""
    best = inf
    for _ in range(times):
        settle()
        for _ in range(COUNTED_TOGETHER):
            await case.once()
        start = perf_counter()
        settle()
        best = min(best, (perf_counter() - start) / COUNTED_TOGETHER)
    return best


def _demand_counted(monitor: Monitor, made: int) -> None:
    families = monitor._parts.catalogue
    counted = dict(families.openai_calls.values)
    cost = sum(families.openai_cost.values.values())
    if counted != {("gpt-4o-2024-08-06", "success"): made} or not isclose(cost, made * 0.00725):
        raise SystemExit(f"not every call was counted and priced: {counted}, {cost} of {made}")


def _rows(times: Sequence[Sequence[float]]) -> list[tuple[str, ...]]:
    """The rows; a part of a stream is the difference of long and short, in 200 parts."""
    call, acall, short, long, ashort, along = times
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
        (name, f"{bare * MICRO:.1f}", *(f"{(each - bare) * MICRO:+.1f}" for each in others))
        for name, (bare, *others) in named.items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and print or publish the table."""
    forget_settings()
    parser = new_parser("benchmarks.openai_calls", __doc__)
    parser.add_argument("--rounds", type=positive, default=25)
    options = parser.parse_args(argv)
    rows = _rows(asyncio.run(_measure(options.rounds)))
    calls, long = SHORT_TURNS * options.rounds, LONG_TURNS * options.rounds
    measured = f"the quickest of {calls} calls of each kind, of {long} long streams"
    head = ("µs", "untracked", "once more (the noise)", "tracking adds")
    text = f"{conditions(('openai', 'genai-prices'), measured)}\n\n{markdown(head, rows)}"
    publish("openai", text, options.write)


if __name__ == "__main__":
    main()
