"""Checks made of functions: every kind of callable, sync and async, and calls that hang."""

import asyncio
import functools
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from holistic_asgi_monitor.checks.function import FunctionCheck
from holistic_asgi_monitor.model import Check, CheckResult, ConfigurationError, Status

THREAD = "check pay"


def check_threads() -> int:
    """Return how many threads of checks are alive."""
    return sum(thread.name == THREAD for thread in threading.enumerate())


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Hold the threads of hanging checks until the test ends, and see that they end then."""
    event = threading.Event()
    yield event
    event.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(5)
    assert check_threads() == 0


def sync_answer() -> Status:
    return Status.UNHEALTHY


async def async_answer() -> Status:
    await checkpoint()
    return Status.UNHEALTHY


def answer_with(status: Status) -> Status:
    return status


async def async_answer_with(status: Status) -> Status:
    return status


class Callable_:
    def __call__(self) -> Status:
        return Status.UNHEALTHY

    def method(self) -> Status:
        return Status.UNHEALTHY


class AsyncCallable:
    async def __call__(self) -> Status:
        return Status.UNHEALTHY

    async def method(self) -> Status:
        return Status.UNHEALTHY


class Later:
    """Awaitable, and no coroutine."""

    def __await__(self) -> Any:
        return async_answer().__await__()


CALLABLES: dict[str, Callable[[], Any]] = {
    "function": sync_answer,
    "async function": async_answer,
    "partial": functools.partial(answer_with, Status.UNHEALTHY),
    "async partial": functools.partial(async_answer_with, Status.UNHEALTHY),
    "object": Callable_(),
    "async object": AsyncCallable(),
    "method": Callable_().method,
    "async method": AsyncCallable().method,
    "partial of an async object": functools.partial(AsyncCallable()),
    "lambda with a coroutine": lambda: async_answer_with(Status.UNHEALTHY),
    "class of awaitables": Later,
}


@pytest.mark.parametrize("kind", CALLABLES)
async def test_every_kind_of_callable_is_a_check(kind: str) -> None:
    result = await FunctionCheck(CALLABLES[kind], name="pay")()

    assert result == CheckResult(Status.UNHEALTHY, "pay is unhealthy")


def test_a_function_check_has_the_protocol_and_its_options() -> None:
    check: Check = FunctionCheck(
        sync_answer, name="pay", required=True, timeout=2, interval=9.5, depends_on=("db",)
    )

    assert isinstance(check, Check)
    assert (check.name, check.required, check.timeout) == ("pay", True, 2)
    assert (check.interval, check.depends_on) == (9.5, ("db",))


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="The check pay is given a str; allowed is a fun"):
        FunctionCheck("payments", name="pay")  # type: ignore[arg-type] # wrong on purpose


def fail() -> None:
    raise StopIteration


async def fail_later(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("required", "status"), [(True, Status.CRITICAL), (False, Status.DEGRADED)]
)
@pytest.mark.parametrize(
    "function",
    [
        fail,
        lambda: int("x"),
        lambda: fail_later(ValueError()),
        functools.partial(fail_later, OSError()),
    ],
)
async def test_an_exception_is_a_result(
    function: Callable[[], Any], required: bool, status: Status
) -> None:
    result = await FunctionCheck(function, name="pay", required=required)()

    assert result.status is status
    assert result.message.startswith("pay raised ")


async def test_a_sync_function_runs_in_a_daemon_thread() -> None:
    """Neither the loop nor the end of the process may wait for it."""
    seen: list[threading.Thread] = []
    check = FunctionCheck(lambda: seen.append(threading.current_thread()), name="pay")

    assert (await check()).status is Status.HEALTHY
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon


async def test_who_waits_for_a_hanging_function_can_be_cancelled(gate: threading.Event) -> None:
    check = FunctionCheck(gate.wait, name="pay")

    with anyio.fail_after(5), anyio.move_on_after(0.01) as scope:
        await check()

    assert scope.cancelled_caught


async def test_a_hanging_function_is_not_called_again(gate: threading.Event) -> None:
    calls: list[int] = []

    def hang() -> None:
        calls.append(1)
        gate.wait()

    check = FunctionCheck(hang, name="pay", required=True)
    results = set()
    for _ in range(100):
        with anyio.move_on_after(0.001):
            result = await check()
            results.add((result.status, result.message))

    assert len(calls) == 1
    assert check_threads() == 1
    [(status, message)] = results
    assert status is Status.CRITICAL
    assert message.startswith("still running since 20")
    assert message.endswith(" UTC, so not started again")


async def test_a_function_is_called_again_once_it_has_returned(gate: threading.Event) -> None:
    check = FunctionCheck(gate.wait, name="pay")
    with anyio.move_on_after(0.01):
        await check()
    gate.set()
    with anyio.fail_after(5):
        while check_threads():
            await checkpoint()

    assert (await check()).status is Status.HEALTHY


async def test_a_coroutine_that_comes_too_late_is_closed(gate: threading.Event) -> None:
    """Left alone it would warn that it was never awaited, and a warning is an error here."""
    made: list[Awaitable[Status]] = []

    def late() -> Awaitable[Status]:
        gate.wait()
        made.append(async_answer())
        return made[0]

    with anyio.move_on_after(0.01):
        await FunctionCheck(late, name="pay")()
    gate.set()
    with anyio.fail_after(5):
        while check_threads():
            await checkpoint()
    assert len(made) == 1
    made.clear()
    gc.collect()


async def test_a_thread_that_cannot_be_started_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    check = FunctionCheck(sync_answer, name="pay")
    with monkeypatch.context() as patched:
        patched.setattr("holistic_asgi_monitor.checks.loops.threading.Thread.start", refuse)
        failed = await check()

    assert failed.message == "pay raised RuntimeError"
    assert (await check()).status is Status.UNHEALTHY


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_function_that_returns_after_the_loop_is_gone_does_no_harm(
    backend: str, gate: threading.Event
) -> None:
    check = FunctionCheck(gate.wait, name="pay")

    async def ask() -> None:
        with anyio.move_on_after(0.01):
            await check()

    anyio.run(ask, backend=backend)
    gate.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(5)

    assert check_threads() == 0


def test_a_loop_that_is_closed_under_a_call_leaves_its_thread_unharmed(
    gate: threading.Event,
) -> None:
    """An exception in a thread is a warning, and a warning is an error here."""
    check = FunctionCheck(gate.wait, name="pay")
    loop = asyncio.new_event_loop()
    task = loop.create_task(check())
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert check_threads() == 1
    gate.set()
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(5)

    assert check_threads() == 0
    task.get_coro().close()
