"""What one request costs with each contender: `python -m benchmarks.requests`.

Everything runs in one process and one task, in blocks of a few hundred calls that alternate
between the contenders in random order; the quickest block of each counts. Whoever answers wrongly
or counts under the wrong label gets words in the table instead of a number.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter

from benchmarks.apps import Case, cases
from benchmarks.contenders import Contender, Mounted, contenders
from benchmarks.driving import get, http_scope, receive_nothing, send_nowhere, started
from benchmarks.options import (
    chosen,
    demand_installed,
    forget_settings,
    keys,
    listed,
    new_parser,
    positive,
)
from benchmarks.table import conditions, markdown, publish

BASE = "bare"
OURS = "monitor"
REHEARSALS = 3
FRAMEWORKS = ("starlette", "fastapi", "prometheus-client")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: `blocks` of `calls` for each of `chosen` on each of `cases`."""

    cases: Sequence[Case]
    chosen: Sequence[Contender]
    blocks: int
    calls: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell: seconds per request in the quickest block, or what was wrong."""

    seconds: float = 0.0
    wrong: str = ""


async def measure(case: Case, plan: Plan) -> Mapping[str, Outcome]:
    """Every chosen contender on `case`, by its key; who does not know the framework is left out."""
    async with AsyncExitStack() as stack:
        mounted: dict[str, Mounted] = {}
        standing = case.standing()
        for contender in plan.chosen:
            if contender.only_on in {"", case.framework}:
                mounted[contender.key] = contender.put_on(standing if contender.around else case)
                await stack.enter_async_context(started(mounted[contender.key].app))
        wrong = {key: await rehearse(one, case) for key, one in mounted.items()}
        sound = {key: one for key, one in mounted.items() if not wrong[key]}
        quickest = await alternate(sound, case, plan)
        made = len(case.paths) * REHEARSALS + plan.blocks * plan.calls
        for key, one in sound.items():
            wrong[key] = await miscounted(one, case, made)
        return {key: Outcome(quickest.get(key, 0.0), wrong[key]) for key in mounted}


async def rehearse(one: Mounted, case: Case) -> str:
    """A few requests before any is timed; what was wrong with them, or an empty text."""
    for path in case.paths * REHEARSALS:
        answer = await get(one.app, path)
        why = f" ({type(answer.raised).__name__})" if answer.raised else ""
        if answer.status != 200 or answer.raised:
            return f"answers {answer.status or 'nothing'}{why}"
    return await miscounted(one, case, len(case.paths) * REHEARSALS)


async def miscounted(one: Mounted, case: Case, made: int) -> str:
    """How the contender's counts differ from `made` requests of the case's endpoint."""
    if one.counts is None:
        return ""
    counts = await one.counts.read()
    strange = [label for label in counts if label != case.endpoint]
    if strange:
        return f"wrong label: `{strange[0]}`"
    counted = counts.get(case.endpoint, 0)
    return "" if counted == made else f"counts {counted} of {made}"


async def alternate(sound: Mapping[str, Mounted], case: Case, plan: Plan) -> dict[str, float]:
    """Seconds per request in each contender's quickest block."""
    quickest = dict.fromkeys(sound, float("inf"))
    order, shuffle = list(sound), random.Random(1).shuffle
    gc.collect()
    gc.freeze()
    try:
        for _ in range(plan.blocks):
            shuffle(order)
            for key in order:
                seconds = await block(sound[key], case, plan.calls)
                quickest[key] = min(quickest[key], seconds)
                await asyncio.sleep(0)
    finally:
        gc.unfreeze()
    return quickest


async def block(one: Mounted, case: Case, calls: int) -> float:
    """Seconds per request over `calls` requests, one after the other, each with a fresh scope."""
    app, scopes = one.app, [http_scope(path) for path in case.paths]
    begin = perf_counter()
    for scope in islice(cycle(scopes), calls):
        await app(scope.copy(), receive_nothing, send_nowhere)
    return (perf_counter() - begin) / calls


def cell(key: str, outcomes: Mapping[str, Outcome]) -> str:
    """The text of one cell: µs for the bare app, else µs added and the ratio to Monitor's."""
    outcome = outcomes.get(key)
    if outcome is None:
        return "-"
    if outcome.wrong:
        return outcome.wrong
    if key == BASE:
        return f"{outcome.seconds * 1e6:.1f} in all"
    base, ours = outcomes[BASE].seconds, outcomes.get(OURS)
    added = outcome.seconds - base
    text = f"{added * 1e6:+.2f}"
    if ours is None or ours.seconds <= base or key in {OURS, "again", "empty", "least"}:
        return text
    return f"{text} ({added / (ours.seconds - base):.0f}x)"


def report(plan: Plan, results: Sequence[Mapping[str, Outcome]]) -> str:
    """The table with the conditions above it."""
    installed = [one.distribution for one in plan.chosen if one.distribution]
    measured = f"the quickest of {plan.blocks} blocks of {plan.calls} requests"
    head = ["µs added to a request", *(case.title for case in plan.cases)]
    rows = [[one.title, *(cell(one.key, each) for each in results)] for one in plan.chosen]
    return f"{conditions([*FRAMEWORKS, *installed], measured)}\n\n{markdown(head, rows)}"


async def run(plan: Plan) -> str:
    """Measure all of `plan` and give the report; wrong numbers of our own end it."""
    results = []
    for case in plan.cases:
        outcomes = await measure(case, plan)
        for key in {BASE, "again", "empty", "least", OURS} & outcomes.keys():
            if outcomes[key].wrong:
                raise SystemExit(f"{key} on {case.title}: {outcomes[key].wrong}")
        results.append(outcomes)
    return report(plan, results)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, measure, and print or write the table."""
    parser = new_parser("benchmarks.requests", __doc__)
    parser.add_argument("--blocks", type=positive, default=120, help="blocks of each (120)")
    parser.add_argument("--calls", type=positive, default=200, help="requests in a block (200)")
    parser.add_argument("--only", type=listed, help=f"some of {keys(contenders())}")
    parser.add_argument("--apps", type=listed, help=f"some of {keys(cases())}")
    options = parser.parse_args(arguments)
    plan = Plan(
        cases=chosen(parser, cases(), options.apps),
        chosen=chosen(parser, contenders(), options.only and [BASE, *options.only]),
        blocks=options.blocks,
        calls=options.calls,
    )
    demand_installed(parser, [one.distribution for one in plan.chosen if one.distribution])
    forget_settings()
    publish("requests", asyncio.run(run(plan)), options.write)


if __name__ == "__main__":
    main()
