"""The watch goes on: at a fixed rate, whatever a round takes, and whatever ends it."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.checks.function import FunctionCheck
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.watch import JITTER, Watch
from holistic_asgi_monitor.web import lifespan as lifespan_room

INTERVAL = 30.0


async def app(scope, receive, send):
    raise AssertionError


def watched(recheck_seconds: float = 5.0) -> Monitor:
    settings = Settings(
        service="shop", check_interval_seconds=INTERVAL, recheck_seconds=recheck_seconds
    )
    return Monitor(app, settings=settings, notifiers=[notifiers.Memory()])


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watch_of(monitor: Monitor, clock: Clock, jitter: Callable[[], float] = lambda: 0.0) -> Watch:
    watch = monitor._parts.watch
    watch._clock, watch._jitter = clock, jitter
    return watch


async def test_checks_are_due_at_a_fixed_rate_however_long_a_round_takes(clock: Clock) -> None:
    monitor = watched()
    watch = watch_of(monitor, clock)

    async def slow() -> None:
        clock.now += 7.0

    monitor.check("slow")(slow)
    due = []
    for _ in range(4):
        await watch.round()
        due.append(watch._due["slow"])
        clock.now = due[-1]

    assert [later - earlier for earlier, later in pairwise(due)] == [INTERVAL] * 3


async def test_missed_rounds_are_not_made_up_for(clock: Clock) -> None:
    watch = watch_of(watched(), clock)
    await watch.round()
    clock.now += 100 * INTERVAL
    await watch.round()

    assert set(watch._due.values()) == {clock.now + INTERVAL}


@pytest.mark.parametrize("share", [-JITTER, 0.0, JITTER])
async def test_all_checks_of_a_round_are_moved_by_the_same_share(
    clock: Clock, share: float
) -> None:
    monitor = watched()
    monitor.check("own")(lambda: None)
    watch = watch_of(monitor, clock, lambda: share)
    await watch.round()

    assert set(watch._due) == {"system", "traffic", "own"}
    (due,) = set(watch._due.values())
    assert due == pytest.approx(clock.now + INTERVAL * (1 + share))


def test_the_dice_stay_within_a_tenth() -> None:
    dice = watched()._parts.watch._jitter
    thrown = [dice() for _ in range(1000)]

    assert -JITTER <= min(thrown) < 0 < max(thrown) <= JITTER


async def test_a_round_asked_for_before_its_time_does_not_put_off_the_next(clock: Clock) -> None:
    watch = watch_of(watched(), clock)
    await watch.round()
    due = dict(watch._due)
    for _ in range(10):
        clock.now += 1.0
        await watch.report(fresh=True)

    assert watch._due == due


@pytest.mark.parametrize("bad", [Status.UNKNOWN, Status.DEGRADED, Status.CRITICAL])
async def test_only_after_a_first_failure_a_second_look_comes_soon(
    clock: Clock, bad: Status
) -> None:
    monitor = watched()
    status = bad
    monitor.check("own")(lambda: CheckResult(status))
    watch = watch_of(monitor, clock)

    await watch.round()
    assert watch._due["own"] == clock.now + 5.0

    clock.now += 5.0
    await watch.round({"own"})
    assert watch._due["own"] == clock.now + INTERVAL


async def test_a_watch_that_dies_is_begun_again_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitor = watched(recheck_seconds=0.01)
    watch, begun, again = monitor._parts.watch, [], anyio.Event()

    async def outbox() -> None:
        begun.append(watch.running)
        if len(begun) == 1:
            raise RuntimeError("S3cret")
        again.set()
        await anyio.sleep_forever()

    monkeypatch.setattr(monitor._parts.outbox, "run", outbox)
    async with monitor:
        with anyio.fail_after(5):
            await again.wait()
        assert watch.running

    assert "The watch ended and is begun again" in caplog.text
    assert "S3cret" not in caplog.text
    assert monitor._parts.catalogue.faults.values["watch",] == 1


async def test_the_checks_are_closed_when_the_watch_ends() -> None:
    closed = []

    class Closing(FunctionCheck):
        async def aclose(self) -> None:
            closed.append(self.name)

    settings = Settings(service="shop")
    monitor = Monitor(
        app,
        settings=settings,
        checks=[Closing(lambda: None, name="own")],
        notifiers=[notifiers.Memory()],
    )
    async with monitor:
        await until(lambda: monitor._parts.watch.running)
        assert closed == []

    assert closed == ["own"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_watch_that_somebody_else_cancels_is_begun_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan_room, "_RESTART_SECONDS", 0.01)
    monitor = watched()
    async with monitor:
        await until(lambda: monitor._parts.watch.running)
        (task,) = own_tasks()
        task.cancel()
        await until(lambda: not monitor._parts.watch.running)
        await until(lambda: monitor._parts.watch.running)

    assert "was ended by somebody else, and is begun again" in caplog.text
    assert own_tasks() == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_watch_that_was_ended_stays_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifespan_room, "_RESTART_SECONDS", 0.0)
    monitor = watched()
    async with monitor:
        await until(lambda: monitor._parts.watch.running)
    for _ in range(10):
        await anyio.sleep(0.001)

    assert not monitor._parts.watch.running


def own_tasks() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "holistic-asgi-monitor"]


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.001)
