"""Where a series is read: equal questions at the same time are one reading."""

from __future__ import annotations

import threading

import anyio
import pytest

from holistic_asgi_monitor.history.store import Answer, Query, StoreError
from holistic_asgi_monitor.history.values import Kind
from holistic_asgi_monitor.web.history.source import Shared

NOON = 1_795_694_400


def question(start=NOON, end=NOON + 3600, step=300, **options):
    return Query(Kind.REQUESTS, start, end, step, **options)


class History:
    """Answers when it is told to."""

    def __init__(self):
        self.asked = []
        self.release = anyio.Event()
        self.error = None

    async def __call__(self, query):
        self.asked.append(query)
        await self.release.wait()
        if self.error is not None:
            raise self.error
        return Answer(query.start, query.end, query.step or 60, {})


async def all_at_once(history, *questions):
    """Ask all of them, then let them be answered: what each was told."""
    shared = Shared(history)
    told: list[Answer | StoreError] = []

    async def ask(query):
        try:
            told.append(await shared(query))
        except StoreError as error:
            told.append(error)

    async with anyio.create_task_group() as group:
        for each in questions:
            group.start_soon(ask, each)
        await anyio.wait_all_tasks_blocked()
        history.release.set()
    return told


async def test_equal_questions_at_the_same_time_are_one_reading():
    history = History()
    told = await all_at_once(history, *(question(NOON + n, NOON + 3541 + n) for n in range(20)))

    assert len(history.asked) == 1
    assert told == [told[0]] * 20


@pytest.mark.parametrize(
    "other",
    [
        {"end": NOON + 3601},
        {"start": NOON - 1},
        {"step": 60},
        {"step": None},
        {"where": {"method": "GET"}},
        {"by": ("method",)},
        {"instance": "web-1"},
        {"cells": False},
    ],
)
async def test_other_questions_are_readings_of_their_own(other):
    history = History()
    await all_at_once(history, question(), question(**other))

    assert len(history.asked) == 2


async def test_trouble_is_told_to_all_who_asked():
    history = History()
    history.error = StoreError("locked")
    told = await all_at_once(history, question(), question())

    assert len(history.asked) == 1
    assert [str(each) for each in told] == ["locked", "locked"]


async def test_where_the_first_leaves_another_goes_on():
    history, told = History(), []
    shared = Shared(history)

    async def ask():
        told.append(await shared(question()))

    async with anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def leave():
            with first:
                await ask()

        group.start_soon(leave)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(ask)
        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        first.cancel()
        await anyio.wait_all_tasks_blocked()
        history.release.set()

    assert len(history.asked) == 2
    assert len(told) == 2


async def test_afterwards_it_is_read_anew():
    history = History()
    history.release.set()
    shared = Shared(history)
    for _ in range(2):
        await shared(question())

    assert len(history.asked) == 2


async def test_what_another_event_loop_reads_is_not_waited_for():
    begun, over = threading.Event(), threading.Event()

    async def read(query):
        if threading.current_thread() is other:
            begun.set()
            await anyio.to_thread.run_sync(over.wait, 10)
        return Answer(query.start, query.end, query.step, {})

    shared = Shared(read)
    other = threading.Thread(target=lambda: anyio.run(shared, question()))
    other.start()
    try:
        assert await anyio.to_thread.run_sync(begun.wait, 10)
        with anyio.fail_after(10):
            assert (await shared(question())).start == NOON
    finally:
        over.set()
        await anyio.to_thread.run_sync(other.join, 10)
