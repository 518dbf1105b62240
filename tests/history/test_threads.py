"""The thread that does what may block: in order, one at a time, and in nobody's way."""

import threading
import time

import anyio
import pytest

from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.history.threads import LONGEST_QUEUE, Desk


@pytest.fixture
async def desk(anyio_backend):
    made = Desk("history under test")
    yield made
    made.close()


def threads():
    return [each for each in threading.enumerate() if each.name == "history under test"]


def gone():
    return not threads()


async def eventually(condition):
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)


async def test_what_is_asked_is_done_in_order_in_one_daemon_thread(desk):
    done = []

    async def ask(number):
        done.append((number, await desk.ask(threading.get_ident)))

    for number in range(10):
        await ask(number)

    assert [number for number, _ in done] == list(range(10))
    assert len({ident for _, ident in done}) == 1
    (thread,) = threads()
    assert thread.daemon
    assert thread.ident != threading.get_ident()


async def test_what_the_work_raises_is_raised(desk):
    def fail():
        raise ValueError("this")

    for _ in range(2):
        with pytest.raises(ValueError, match="this"):
            await desk.ask(fail)
    assert await desk.ask(lambda: 7) == 7


async def test_who_no_longer_waits_leaves_the_work_to_be_done(desk):
    begun, release, done = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        release.wait(20)
        done.append(1)

    async with anyio.create_task_group() as group:
        group.start_soon(desk.ask, work)
        await eventually(begun.is_set)
        group.cancel_scope.cancel()
    release.set()

    assert await desk.ask(lambda: list(done)) == [1]


async def test_a_reading_that_nobody_waits_for_any_longer_is_not_begun(desk):
    release, done = threading.Event(), []

    async def ask(name):
        await desk.ask(lambda: done.append(name), forsakable=name == "reading")

    async with anyio.create_task_group() as group:
        group.start_soon(desk.ask, lambda: release.wait(20))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ask, "reading")
        group.start_soon(ask, "writing")
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    release.set()
    await ask("reading")

    assert done == ["writing", "reading"]


async def test_too_much_is_refused_with_a_sentence(desk):
    release = threading.Event()
    refused = []

    async def ask():
        try:
            await desk.ask(lambda: release.wait(20))
        except StoreError as error:
            refused.append(str(error))
            if len(refused) == 3:
                release.set()

    async with anyio.create_task_group() as group:
        for _ in range(LONGEST_QUEUE + 4):
            group.start_soon(ask)

    assert set(refused) == {f"more than {LONGEST_QUEUE} calls wait for history under test"}


async def test_where_no_thread_can_be_started_that_is_said_and_tried_again(desk, monkeypatch):
    def fail(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(StoreError, match="no thread can be started for history under test"):
            await desk.ask(lambda: 1)

    assert await desk.ask(lambda: 2) == 2


async def test_closed_the_thread_ends_and_asked_again_another_begins(desk):
    await desk.ask(lambda: 1)
    desk.close()
    desk.close()
    await eventually(gone)

    assert await desk.ask(lambda: 2) == 2


async def test_finished_the_thread_does_one_last_thing(desk):
    done = []
    await desk.finish(lambda: done.append("never begun"))
    await desk.ask(lambda: done.append("work"))
    await desk.finish(lambda: done.append("end"))
    await eventually(gone)

    assert done == ["work", "end"]


async def test_the_last_thing_is_done_even_if_nobody_waits_and_another_thread_begins(desk):
    release, done = threading.Event(), []
    async with anyio.create_task_group() as group:
        group.start_soon(desk.ask, lambda: release.wait(20))
        await eventually(threads)
        with anyio.move_on_after(0.05):
            await desk.finish(lambda: done.append(threading.get_ident()))
        other = await desk.ask(threading.get_ident)
        assert (len(threads()), done) == (2, [])
        release.set()
    await eventually(lambda: done)

    assert done != [other]


def test_work_that_ends_after_its_event_loop_harms_nobody():
    desk = Desk("history under test")

    async def leave():
        with anyio.move_on_after(0.05):
            await desk.ask(lambda: time.sleep(0.3))

    for backend in ("asyncio", "trio"):
        anyio.run(leave, backend=backend)
    assert anyio.run(desk.ask, lambda: 3) == 3
    desk.close()


async def test_the_loop_runs_on_while_the_thread_works(desk):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await anyio.sleep(0.001)
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        await desk.ask(lambda: time.sleep(0.3))
        group.cancel_scope.cancel()
    assert turns > 10
