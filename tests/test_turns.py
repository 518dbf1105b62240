"""Turns: one task of an event loop at a time, and nobody is kept waiting by another loop."""

from __future__ import annotations

import threading

import anyio
import pytest

from holistic_asgi_monitor.threads import Turn

PATIENCE = 10


async def test_one_task_has_its_turn_at_a_time() -> None:
    turn = Turn()
    inside: list[int] = []
    most = 0

    async def take(number: int) -> None:
        nonlocal most
        async with turn:
            inside.append(number)
            most = max(most, len(inside))
            await anyio.lowlevel.checkpoint()
            inside.remove(number)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(take, number)

    assert most == 1


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_a_turn_that_another_event_loop_has_keeps_nobody_waiting(other: str) -> None:
    turn, taken, over = Turn(), threading.Event(), threading.Event()

    async def hold() -> None:
        async with turn:
            taken.set()
            await anyio.to_thread.run_sync(over.wait, PATIENCE)

    thread = threading.Thread(target=lambda: anyio.run(hold, backend=other))
    thread.start()
    try:
        assert await anyio.to_thread.run_sync(taken.wait, PATIENCE)
        with anyio.fail_after(PATIENCE):
            async with turn:
                pass
    finally:
        over.set()
        await anyio.to_thread.run_sync(thread.join, PATIENCE)
