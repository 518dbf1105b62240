"""What each event loop has for itself, and what is done once for all who want it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest

from holistic_asgi_monitor.checks.per_loop import PerLoop, Sharing

BACKENDS = ("asyncio", "trio")


async def test_an_event_loop_has_one_thing_until_it_is_taken() -> None:
    things = PerLoop(object)
    assert things.known() is None
    first = things.here()

    assert things.here() is first
    assert things.known() is first
    assert things.orphans() == []
    assert things.take() is first
    assert things.take() is None
    assert things.here() is not first


def test_outside_of_an_event_loop_nothing_is_known() -> None:
    assert PerLoop(object).known() is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_ended_loops_had_is_handed_out_once(backend: str) -> None:
    things = PerLoop(object)

    async def have() -> object:
        return things.here()

    async def look() -> list[object]:
        return [things.orphans(), things.orphans()]

    had = anyio.run(have, backend=backend)
    assert anyio.run(look, backend=backend) == [[had], []]


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_thing_is_made_without_a_trace_of_those_of_ended_loops(backend: str) -> None:
    things = PerLoop(object)

    async def have() -> object:
        return things.here()

    had = {id(anyio.run(have, backend=backend)) for _ in range(5)}

    assert len(things._kept) == 1
    assert len(had) >= 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_loops_of_two_threads_have_things_of_their_own(backend: str) -> None:
    things, had, ready = PerLoop(object), list[object](), list[bool]()

    async def have() -> None:
        thing = things.here()
        had.append(thing)
        await until(lambda: len(had) == 2)
        assert things.orphans() == []
        assert things.here() is thing
        ready.append(True)
        await until(lambda: len(ready) == 2)

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(lambda: anyio.run(have, backend=backend)) for _ in range(2)]
        for future in futures:
            future.result()

    assert len(set(had)) == 2


class Work:
    """Returns how many times it was begun, once it is let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = anyio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        return number


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.001)


async def test_work_is_done_once_for_all_who_want_it_meanwhile() -> None:
    sharing, work, had = Sharing[int](), Work(), list[int]()

    async def want() -> None:
        had.append(await sharing(work))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(want)
        await until(lambda: work.begun == 1)
        await anyio.sleep(0.01)
        work.go.set()

    assert had == [1] * 5
    assert await sharing(work) == 2


async def test_the_next_one_does_it_where_the_first_was_cancelled() -> None:
    sharing, work, had = Sharing[int](), Work(), list[int]()

    async def want() -> None:
        had.append(await sharing(work))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as inner:
                inner.start_soon(want)
                await until(lambda: work.begun == 1)
                group.start_soon(want)
                await anyio.sleep(0.01)
                first.cancel()
        await until(lambda: work.begun == 2)
        work.go.set()

    assert had == [2]


async def test_a_failure_is_of_who_met_it_only() -> None:
    sharing = Sharing[str]()

    async def fail() -> str:
        raise OSError

    with pytest.raises(OSError, match=r"^$"):
        await sharing(fail)

    async def succeed() -> str:
        return "well"

    assert await sharing(succeed) == "well"


def test_a_loop_that_is_stopped_and_run_again_is_the_same() -> None:
    things = PerLoop(object)

    async def have() -> object:
        return things.here()

    loop = asyncio.new_event_loop()
    first, second = (loop.run_until_complete(have()) for _ in range(2))
    loop.close()

    assert first is second
