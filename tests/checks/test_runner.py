"""Rounds of checks: together, in time, once each, whatever a check does."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from blockbuster import BlockBuster

from holistic_asgi_monitor.checks.function import FunctionCheck
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import Check, CheckResult, ConfigurationError, Status

SOON = 0.03
LIMIT = 2.0


class Probe:
    """A check of somebody else's, which knows nothing but the protocol."""

    def __init__(
        self,
        call: Callable[[], Awaitable[Any]],
        name: str = "probe",
        *,
        required: bool = False,
        timeout: float | None = None,
    ) -> None:
        self.call = call
        self.name = name
        self.required = required
        self.timeout = timeout
        self.interval = None
        self.depends_on: tuple[str, ...] = ()
        self.calls = 0
        self.ended = 0

    async def __call__(self) -> CheckResult:
        self.calls += 1
        try:
            result: CheckResult = await self.call()
        finally:
            self.ended += 1
        return result


async def well() -> CheckResult:
    await checkpoint()
    return CheckResult(Status.HEALTHY, "fine")


async def hang() -> CheckResult:
    await anyio.sleep_forever()
    raise AssertionError


def others_tasks() -> int:
    """Return how many tasks the loop has, on asyncio or on trio."""
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        return len(asyncio.all_tasks())
    import trio

    statistics = trio.lowlevel.current_statistics()
    return statistics.tasks_living


class Swallower:
    """A check that ignores its cancellation and goes on until the test lets it end."""

    def __init__(self) -> None:
        self.release = False
        self.swallowed = 0
        self.turns = 0

    async def __call__(self) -> CheckResult:
        while not self.release:
            try:
                await anyio.sleep(0.01)
            except BaseException:
                self.swallowed += 1
            self.turns += 1
        return CheckResult(Status.HEALTHY, "at last")


@pytest.fixture
async def swallower() -> AsyncIterator[Swallower]:
    """A deaf check that is let go while the loop still runs, or the loop could not end."""
    found = Swallower()
    yield found
    found.release = True
    await anyio.sleep(0.03)


async def ended(*probes: Probe) -> None:
    """Wait until every call of the probes has returned."""
    with anyio.fail_after(LIMIT):
        for probe in probes:
            while probe.calls != probe.ended:
                await checkpoint()
        await checkpoint()


async def test_a_round_gives_the_results_in_the_order_of_adding() -> None:
    async def slow() -> CheckResult:
        await anyio.sleep(0.01)
        return CheckResult(Status.UNHEALTHY, "slow")

    runner = Runner([Probe(slow, "z"), Probe(well, "a")], timeout=LIMIT)
    runner.add(Probe(well, "m"))
    results = await runner.round()

    assert list(results) == ["z", "a", "m"]
    assert [result.status for result in results.values()] == [
        Status.UNHEALTHY,
        Status.HEALTHY,
        Status.HEALTHY,
    ]


async def test_a_runner_without_checks_has_empty_rounds() -> None:
    assert await Runner([], timeout=LIMIT).round() == {}


async def test_a_round_of_some_checks_calls_only_those() -> None:
    probes = [Probe(well, name) for name in "abc"]
    results = await Runner(probes, timeout=LIMIT).round({"c", "a"})

    assert list(results) == ["a", "c"]
    assert [probe.calls for probe in probes] == [1, 0, 1]


async def test_checks_run_together() -> None:
    """Each waits for all the others, which could never end one after another."""
    here = 0

    async def meet() -> CheckResult:
        nonlocal here
        here += 1
        while here < 20:
            await checkpoint()
        return CheckResult(Status.HEALTHY)

    runner = Runner([Probe(meet, f"c{index}") for index in range(20)], timeout=LIMIT)

    assert {result.status for result in (await runner.round()).values()} == {Status.HEALTHY}


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
@pytest.mark.parametrize(("own", "default", "said"), [(None, SOON, "0.03"), (0.02, 60.0, "0.02")])
async def test_a_timeout_is_as_grave_as_the_check_is_needed(
    required: bool, status: Status, own: float | None, default: float, said: str
) -> None:
    probe = Probe(hang, required=required, timeout=own)
    with anyio.fail_after(LIMIT):
        result = (await Runner([probe], timeout=default).round())["probe"]

    assert (result.status, result.message) == (status, f"no answer within {said} s")
    assert result.response_time_ms is not None
    assert result.response_time_ms >= float(said) * 1000 * 0.9
    assert probe.ended == 1


def raise_now(error: BaseException) -> Callable[[], Awaitable[Any]]:
    async def fail() -> None:
        raise error

    return fail


class Interrupt(KeyboardInterrupt):
    """What a library may raise that thinks itself the program."""


async def cancel_oneself() -> CheckResult:
    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
    raise asyncio.CancelledError


async def leave_a_scope_open() -> CheckResult:
    anyio.CancelScope().__enter__()
    return CheckResult(Status.HEALTHY)


ERRORS: dict[str, Callable[[], Awaitable[Any]]] = {
    "ValueError": raise_now(ValueError("S3cret")),
    "TimeoutError": raise_now(TimeoutError()),
    "SystemExit": raise_now(SystemExit(3)),
    "KeyboardInterrupt": raise_now(KeyboardInterrupt()),
    "Interrupt": raise_now(Interrupt()),
    "GeneratorExit": raise_now(GeneratorExit()),
    "CancelledError": cancel_oneself,
    "StopAsyncIteration": raise_now(StopAsyncIteration()),
    "ZeroDivisionError": raise_now(BaseExceptionGroup("S3cret", [ZeroDivisionError()])),
    "RuntimeError": leave_a_scope_open,
}


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
@pytest.mark.parametrize("kind", ERRORS)
async def test_whatever_a_check_raises_is_a_result_and_its_neighbours_go_on(
    kind: str, required: bool, status: Status, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> CheckResult:
        await anyio.sleep(0.005)
        return CheckResult(Status.HEALTHY, "fine")

    crashing = Probe(ERRORS[kind], "pay", required=required)
    runner = Runner([Probe(slow, "before"), crashing, Probe(slow, "after")], timeout=LIMIT)
    with caplog.at_level(logging.DEBUG, logger="holistic_asgi_monitor"):
        results = await runner.round()

    assert (results["pay"].status, results["pay"].message) == (status, f"pay raised {kind}")
    assert results["before"].status is results["after"].status is Status.HEALTHY
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "S3cret" not in caplog.text


async def test_a_check_that_answers_its_cancellation_is_late_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def excuse() -> CheckResult:
        try:
            await anyio.sleep_forever()
        except BaseException:
            return CheckResult(Status.HEALTHY, "all is well")
        raise AssertionError

    async def stumble() -> CheckResult:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError
        raise AssertionError

    runner = Runner([Probe(excuse, "a"), Probe(stumble, "b")], timeout=SOON)
    results = await runner.round()

    assert {result.message for result in results.values()} == {"no answer within 0.03 s"}
    assert caplog.messages == []


async def test_a_log_that_raises_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr("holistic_asgi_monitor.checks.answers._logger.warning", refuse)
    results = await Runner(
        [Probe(raise_now(ValueError())), Probe(well, "b")], timeout=LIMIT
    ).round()

    assert results["probe"].status is Status.DEGRADED
    assert results["probe"].message == "what the check gave could not be judged"
    assert results["b"].status is Status.HEALTHY


async def test_a_check_that_is_no_coroutine_function_is_a_result() -> None:
    class Wrong(Probe):
        def __call__(self) -> CheckResult:  # type: ignore[override] # wrong on purpose
            return CheckResult(Status.HEALTHY)

    check: Any = Wrong(well)
    results = await Runner([check], timeout=LIMIT).round()

    assert results["probe"].message == "probe raised TypeError"


@pytest.mark.parametrize("answer", ["ok", 1, {}, CheckResult("healthy")])  # type: ignore[arg-type] # wrong on purpose
async def test_an_answer_that_is_none_is_degraded(answer: Any) -> None:
    async def wrong() -> Any:
        return answer

    result = (await Runner([Probe(wrong, required=True)], timeout=LIMIT).round())["probe"]

    assert result.status is Status.DEGRADED
    assert "; allowed " in result.message


async def test_the_time_of_an_answer_is_measured_unless_it_brings_its_own() -> None:
    now = 100.0

    async def measured() -> CheckResult:
        nonlocal now
        now += 0.25
        return CheckResult(Status.HEALTHY)

    async def own() -> CheckResult:
        return CheckResult(Status.HEALTHY, response_time_ms=1.5)

    runner = Runner([Probe(measured, "a")], timeout=LIMIT, clock=lambda: now)
    assert (await runner.round())["a"].response_time_ms == 250.0
    runner = Runner([Probe(own, "b")], timeout=LIMIT, clock=lambda: now)
    assert (await runner.round())["b"].response_time_ms == 1.5


async def test_the_runner_knows_better_which_function_is_required() -> None:
    def crash() -> None:
        raise ValueError

    checks = [
        FunctionCheck(crash, name="named"),
        FunctionCheck(lambda: False, name="other", required=True),
    ]
    runner = Runner(checks, timeout=LIMIT, required=["named"])
    results = await runner.round()

    assert runner.required == {"named"}
    assert results["named"].status is Status.CRITICAL
    assert results["other"].status is Status.DEGRADED


async def test_a_hundred_rounds_of_a_hanging_async_check_leave_no_task() -> None:
    probe = Probe(hang, timeout=0.001)
    runner = Runner([probe], timeout=LIMIT)
    before = others_tasks()
    for _ in range(100):
        assert (await runner.round())["probe"].status is Status.DEGRADED
    await ended(probe)

    assert probe.calls == 100
    assert others_tasks() == before


async def test_a_hundred_rounds_of_a_hanging_sync_check_leave_one_thread() -> None:
    gate = threading.Event()
    before = threading.active_count()
    tasks = others_tasks()
    check = FunctionCheck(lambda: gate.wait(30), name="pay", timeout=0.05, required=True)
    runner = Runner([check, Probe(well)], timeout=LIMIT)
    try:
        results = [await runner.round() for _ in range(100)]
        assert threading.active_count() <= before + 1
        assert others_tasks() == tasks
    finally:
        gate.set()

    assert {result["pay"].status for result in results} == {Status.CRITICAL}
    assert {result["probe"].status for result in results} == {Status.HEALTHY}
    assert results[0]["pay"].message == "no answer within 0.05 s"
    later = {result["pay"].message for result in results[1:]}
    assert len(later) == 1
    assert later.pop().startswith("still running since ")
    assert results[1]["pay"].response_time_ms is None


async def test_a_check_that_swallows_its_cancellation_holds_no_round(swallower: Swallower) -> None:
    probe = Probe(swallower, "deaf", required=True, timeout=SOON)
    runner = Runner([probe, Probe(well)], timeout=LIMIT)
    tasks = others_tasks()
    began = time.monotonic()
    first = await runner.round()
    took = time.monotonic() - began

    assert took < SOON + 0.05 + 0.2
    assert first["deaf"].message == "no answer within 0.03 s"
    assert first["probe"].status is Status.HEALTHY
    began = time.monotonic()
    rest = [await runner.round() for _ in range(100)]
    assert time.monotonic() - began < 1.0
    assert probe.calls == 1
    assert others_tasks() <= tasks + 2
    assert {result["deaf"].status for result in rest} == {Status.CRITICAL}
    messages = {result["deaf"].message for result in rest}
    assert len(messages) == 1
    assert messages.pop().startswith("still running since ")


async def test_a_check_that_swallows_its_cancellation_is_left_in_peace(
    swallower: Swallower,
) -> None:
    """Cancelled again and again it would spin, and take a whole core."""
    runner = Runner([Probe(swallower, "deaf", timeout=SOON)], timeout=LIMIT)
    await runner.round()
    await anyio.sleep(0.02)
    before, turns = swallower.swallowed, swallower.turns
    await anyio.sleep(0.1)

    assert swallower.swallowed == before
    assert 0 < swallower.turns - turns <= 11


async def test_an_overdue_check_is_started_again_once_it_has_ended(swallower: Swallower) -> None:
    probe = Probe(swallower, "deaf", timeout=SOON)
    runner = Runner([probe], timeout=LIMIT)
    tasks = others_tasks()
    await runner.round()
    swallower.release = True
    await ended(probe)
    await anyio.sleep(0.01)

    assert others_tasks() == tasks
    assert (await runner.round())["deaf"].message == "at last"
    assert probe.calls == 2


async def test_a_check_that_shields_itself_holds_no_round() -> None:
    release = anyio.Event()

    async def shielded() -> CheckResult:
        with anyio.CancelScope(shield=True):
            await release.wait()
        return CheckResult(Status.HEALTHY)

    probe = Probe(shielded, timeout=SOON)
    runner = Runner([probe], timeout=LIMIT)
    with anyio.fail_after(LIMIT):
        assert (await runner.round())["probe"].message == "no answer within 0.03 s"
        assert (await runner.round())["probe"].message.startswith("still running since ")
    release.set()
    await ended(probe)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_check_left_in_peace_does_not_hold_the_end_of_the_loop(backend: str) -> None:
    ends: list[str] = []

    async def deaf_until_left_in_peace() -> CheckResult:
        while True:
            try:
                await anyio.sleep(0.02)
            except BaseException:
                ends.append("swallowed")
            else:
                if ends:
                    break
        try:
            await anyio.sleep(60)
        finally:
            ends.append("reached")
        raise AssertionError

    async def one_round() -> None:
        runner = Runner([Probe(deaf_until_left_in_peace, timeout=SOON)], timeout=LIMIT)
        await runner.round()
        await anyio.sleep(0.1)

    began = time.monotonic()
    anyio.run(one_round, backend=backend)

    assert ends[0] == "swallowed"
    assert ends[-1] == "reached"
    assert time.monotonic() - began < LIMIT


async def test_two_hundred_callers_share_one_round() -> None:
    probes = [Probe(well, name) for name in ("a", "b")]
    runner = Runner(probes, timeout=LIMIT)
    seen: list[dict[str, CheckResult]] = []

    async def ask() -> None:
        seen.append(await runner.round())

    async with anyio.create_task_group() as group:
        for _ in range(200):
            group.start_soon(ask)

    assert len(seen) == 200
    assert all(results is seen[0] for results in seen)
    assert [probe.calls for probe in probes] == [1, 1]
    assert await runner.round() is not seen[0]


async def test_rounds_of_different_sets_share_the_checks_in_both() -> None:
    gate = anyio.Event()

    async def wait() -> CheckResult:
        await gate.wait()
        return CheckResult(Status.HEALTHY)

    probes = [Probe(wait, name) for name in "abc"]
    runner = Runner(probes, timeout=LIMIT)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.round)
        group.start_soon(runner.round, ["a", "b"])
        group.start_soon(runner.round, ["b", "a"])
        await anyio.wait_all_tasks_blocked()
        gate.set()

    assert [probe.calls for probe in probes] == [1, 1, 1]


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    gate = anyio.Event()

    async def wait() -> CheckResult:
        await gate.wait()
        return CheckResult(Status.HEALTHY)

    probe = Probe(wait)
    runner = Runner([probe], timeout=LIMIT)
    seen = []

    async def ask() -> None:
        seen.append((await runner.round())["probe"].status)

    async with anyio.create_task_group() as group:
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(ask)
            group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        gate.set()

    assert seen == [Status.HEALTHY] * 2
    assert probe.calls == 1


async def test_the_runner_s_own_cancellation_ends_the_checks_too() -> None:
    probe = Probe(hang, timeout=60.0)
    runner = Runner([probe], timeout=LIMIT)
    tasks = others_tasks()
    with anyio.move_on_after(SOON) as scope:
        await runner.round()

    assert scope.cancelled_caught
    assert (probe.calls, probe.ended) == (1, 1)
    await checkpoint()
    assert others_tasks() == tasks


async def test_a_caller_cancelled_beside_a_deaf_check_is_held_only_a_moment(
    swallower: Swallower,
) -> None:
    probes = [Probe(swallower, f"deaf{index}", timeout=60.0) for index in range(5)]
    runner = Runner(probes, timeout=LIMIT)
    began = time.monotonic()
    with anyio.move_on_after(SOON):
        await runner.round()

    assert time.monotonic() - began < SOON + 0.05 + 0.2
    assert (await runner.round())["deaf0"].message.startswith("still running since ")
    swallower.release = True
    await ended(*probes)


async def test_who_asks_while_a_deserted_check_ends_is_given_a_fresh_answer() -> None:
    leaving = anyio.Event()

    async def slow_to_leave() -> CheckResult:
        if not leaving.is_set():
            try:
                await anyio.sleep_forever()
            finally:
                leaving.set()
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
        return CheckResult(Status.HEALTHY, "fresh")

    probe = Probe(slow_to_leave)
    runner = Runner([probe], timeout=LIMIT)
    async with anyio.create_task_group() as group:
        group.start_soon(runner.round)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await leaving.wait()
            assert probe.ended == 0
            assert (await runner.round())["probe"].message == "fresh"

    assert probe.calls == 2


async def test_a_native_cancellation_of_a_caller_passes(anyio_backend: str) -> None:
    """Servers and frameworks on asyncio cancel tasks without anyio."""
    if anyio_backend == "asyncio":
        probe = Probe(hang, timeout=60.0)
        task = asyncio.create_task(Runner([probe], timeout=LIMIT).round())
        await anyio.wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert probe.ended == 1


async def test_a_timeout_while_the_loop_stood_still_is_unknown(blockbuster: BlockBuster) -> None:
    """One check that blocks must not make its neighbours look down."""
    blockbuster.deactivate()

    async def block() -> CheckResult:
        await anyio.sleep(0.01)
        time.sleep(0.5)  # noqa: ASYNC251 - the stall is what is tested
        return CheckResult(Status.HEALTHY)

    async def wait() -> CheckResult:
        await anyio.sleep(0.2)
        return CheckResult(Status.HEALTHY)

    victim = Probe(wait, "victim", required=True, timeout=0.1)
    blocker = Probe(block, "blocker", timeout=5.0)
    results = await Runner([victim, blocker], timeout=LIMIT).round()

    assert results["victim"].status is Status.UNKNOWN
    assert results["victim"].message == "no answer within 0.1 s, but the event loop stood still"
    assert results["blocker"].status is Status.HEALTHY


async def test_a_round_does_not_block_the_loop() -> None:
    gate = threading.Event()
    runner = Runner(
        [FunctionCheck(lambda: gate.wait(0.2) or None, name="pay"), Probe(hang, timeout=0.1)],
        timeout=LIMIT,
    )
    longest = 0.0
    done = False

    async def watch() -> None:
        nonlocal longest
        while not done:
            began = time.monotonic()
            await anyio.sleep(0.005)
            longest = max(longest, time.monotonic() - began)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await runner.round()
        done = True

    assert longest < 0.1


@pytest.mark.parametrize(
    "backends", [("asyncio", "asyncio"), ("trio", "trio"), ("asyncio", "trio")]
)
def test_a_runner_outlives_its_event_loop(backends: tuple[str, str]) -> None:
    """Test clients give each request a loop of its own."""
    runner = Runner([Probe(well), FunctionCheck(lambda: None, name="pay")], timeout=LIMIT)

    for backend in backends:
        results = anyio.run(runner.round, backend=backend)
        assert [result.status for result in results.values()] == [Status.HEALTHY] * 2


def test_what_one_loop_left_unfinished_does_not_bind_the_next() -> None:
    async def first_hangs() -> CheckResult:
        if probe.calls == 1:
            await anyio.sleep_forever()
        return CheckResult(Status.HEALTHY)

    probe = Probe(first_hangs)
    runner = Runner([probe], timeout=LIMIT)
    loop = asyncio.new_event_loop()
    task = loop.create_task(runner.round())
    loop.call_later(0.02, loop.stop)
    loop.run_forever()

    assert asyncio.run(runner.round())["probe"].status is Status.HEALTHY
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


if sys.version_info >= (3, 12):

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_a_loop_with_eager_tasks_runs_rounds_too() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        try:
            runner = Runner([Probe(well), Probe(hang, "slow", timeout=SOON)], timeout=LIMIT)
            results = await runner.round()
        finally:
            asyncio.get_running_loop().set_task_factory(None)

        assert results["probe"].status is Status.HEALTHY
        assert results["slow"].message == "no answer within 0.03 s"


async def test_a_check_sees_nothing_of_who_asks() -> None:
    """What a request keeps in context variables must not live on in a check."""
    import contextvars

    variable = contextvars.ContextVar("variable", default="empty")
    seen = []

    async def look() -> CheckResult:
        seen.append(variable.get())
        return CheckResult(Status.HEALTHY)

    variable.set("the request's")
    await Runner([Probe(look)], timeout=LIMIT).round()

    assert seen == ["empty"]


def test_a_name_that_is_taken_is_refused() -> None:
    runner = Runner([Probe(well, "pay")], timeout=LIMIT)

    with pytest.raises(ConfigurationError, match="two checks with the name pay"):
        runner.add(Probe(well, "pay"))
    with pytest.raises(ConfigurationError, match="two checks with the name pay"):
        Runner([Probe(well, "pay"), Probe(well, "pay")], timeout=LIMIT)


@pytest.mark.parametrize("options", [{"name": "a b"}, {"name": "a", "timeout": 0}])
def test_options_of_somebody_else_s_check_are_looked_at(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="allowed "):
        Runner([Probe(well, **options)], timeout=LIMIT)


def test_what_is_no_check_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="A function was given as a check"):
        Runner([well], timeout=LIMIT)  # type: ignore[list-item] # wrong on purpose


def test_names_and_checks_can_be_asked_for() -> None:
    probe = Probe(well, "pay", required=True)
    runner = Runner([probe, Probe(well, "other")], timeout=LIMIT)
    check: Check = runner.check("pay")

    assert check is probe
    assert runner.names == ("pay", "other")
    assert runner.required == {"pay"}


async def test_a_check_that_does_not_exist_is_named_with_those_that_do() -> None:
    runner = Runner([Probe(well, "pay"), Probe(well, "stock")], timeout=LIMIT)

    with pytest.raises(ConfigurationError, match="no check cash; the checks are pay, stock"):
        runner.check("cash")
    with pytest.raises(ConfigurationError, match="no check cash; the checks are pay, stock"):
        await runner.round(["pay", "cash"])


@pytest.mark.parametrize(
    ("required", "expected"), [(None, {"pay"}), ([], set()), (["stock"], {"stock"})]
)
def test_the_named_checks_are_required_in_place_of_what_they_say(
    required: list[str] | None, expected: set[str]
) -> None:
    checks = [Probe(well, "pay", required=True), Probe(well, "stock")]
    runner = Runner(checks, timeout=LIMIT, required=required)

    assert runner.required == expected


def test_a_required_check_may_be_added_later() -> None:
    runner = Runner([Probe(well, "pay")], timeout=LIMIT, required=["stock"])
    assert runner.required == frozenset()
    runner.add(Probe(well, "stock"))

    assert runner.required == {"stock"}


def test_what_the_checks_depend_on_is_known_though_nobody_has_that_name() -> None:
    child = Probe(well, "pay")
    child.depends_on = ("databse", "stock")

    assert Runner([child, Probe(well, "stock")], timeout=LIMIT).parents == ("databse", "stock")


async def test_what_one_check_knows_is_hidden_in_what_another_one_says() -> None:
    class Knowing(FunctionCheck):
        secrets = ("Tr0ub4dor",)

    def tell() -> CheckResult:
        return CheckResult(Status.DEGRADED, "bad password Tr0ub4dor", {"dsn": "x Tr0ub4dor"})

    runner = Runner([FunctionCheck(tell, name="own")], timeout=LIMIT)
    runner.add(Knowing(lambda: None, name="database"))
    result = (await runner.round())["own"]

    assert (result.message, result.details) == ("bad password ***", {"dsn": "x ***"})
    assert "Tr0ub4dor" in runner.secrets


async def test_a_skipped_check_has_no_time() -> None:
    async def skipped() -> CheckResult:
        return CheckResult(Status.SKIPPED, "not here")

    result = (await Runner([Probe(skipped)], timeout=LIMIT).round())["probe"]

    assert result.response_time_ms is None
