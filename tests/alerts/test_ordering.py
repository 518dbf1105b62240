"""Maintenance and silences that hold for all processes of a voice, whichever was told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from holistic_asgi_monitor.alerts.ordering import LOOK_SECONDS, SharedOrders
from holistic_asgi_monitor.notifiers import Memory
from tests.alerts.rounds import NOON
from tests.alerts.test_keeping import Paper
from tests.alerts.test_outbox import SECRET, Post
from tests.alerts.virtual_time import VirtualTime


class Process(Post):
    """An outbox and what it shares by a paper; its clock is that of the others."""

    def __init__(self, paper: Paper, time: VirtualTime, boot: float = 0.0) -> None:
        super().__init__(Memory())
        self.time = time
        # Each host counts its monotonic seconds from another moment.
        clock: Callable[[], float] = lambda: time.now + boot  # noqa: E731 - handed on
        self.outbox._clock = self.outbox.quiet_times._clock = clock
        self.orders = SharedOrders(
            self.outbox,
            paper,
            clock=clock,
            wall=lambda: NOON + timedelta(seconds=time.now),
        )

    @property
    def quiet(self) -> tuple[str | None, list[str]]:
        shown = self.outbox.as_dict()
        maintenance = shown["maintenance"]
        return maintenance and maintenance["reason"], [each["key"] for each in shown["silences"]]


async def pass_on(time: VirtualTime, *processes: Process) -> None:
    """Time enough for all to hear of each other."""
    for _ in range(2):
        for process in processes:
            await process.orders.step()
        time.now += LOOK_SECONDS


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
def three(time: VirtualTime) -> list[Process]:
    paper = Paper()
    return [Process(paper, time, boot) for boot in (0.0, 5e6, -3e5)]


async def test_what_one_was_told_holds_for_all(time: VirtualTime, three: list[Process]) -> None:
    await pass_on(time, *three)
    three[1].outbox.quiet_times.begin("deploy", 30)
    three[2].outbox.silence("db", 60)
    await pass_on(time, *three)
    assert [each.quiet for each in three] == [("deploy", ["db"])] * 3

    three[0].outbox.quiet_times.end_all()
    three[0].outbox.quiet_times.speak("db")
    await pass_on(time, *three)
    assert [each.quiet for each in three] == [(None, [])] * 3


async def test_orders_that_two_get_at_the_same_time_both_hold(
    time: VirtualTime, three: list[Process]
) -> None:
    await pass_on(time, *three)
    three[0].outbox.quiet_times.begin("deploy", 30)
    three[1].outbox.quiet_times.begin("backup", 30)
    three[2].outbox.silence("db", 60)
    await pass_on(time, *three)
    assert [sorted((each.quiet[0] or "").split(", ")) for each in three] == [
        ["backup", "deploy"]
    ] * 3
    assert [each.quiet[1] for each in three] == [["db"]] * 3


async def test_it_ends_at_its_time_everywhere_and_is_not_begun_anew(
    time: VirtualTime, three: list[Process]
) -> None:
    three[0].outbox.quiet_times.begin("deploy", 1)
    await pass_on(time, *three)
    time.now += 60
    await pass_on(time, *three)
    assert [each.quiet for each in three] == [(None, [])] * 3


async def test_a_block_holds_for_its_own_process(time: VirtualTime, three: list[Process]) -> None:
    await pass_on(time, *three)
    three[0].outbox.quiet_times.begin("block", 30, lasting=False)
    await pass_on(time, *three)
    assert [each.quiet[0] for each in three] == ["block", None, None]


async def test_who_starts_later_hears_of_it_and_whose_memory_is_older_gives_way(
    time: VirtualTime, three: list[Process]
) -> None:
    first, second, third = three
    second.outbox.quiet_times.begin("long ago", 60)
    await pass_on(time, first)
    first.outbox.quiet_times.begin("deploy", 30)
    await pass_on(time, first)
    # As if it were brought back from a memory before its first step.
    await pass_on(time, second, third)
    assert [each.quiet[0] for each in three] == ["deploy"] * 3


async def test_what_was_remembered_is_shared_where_nothing_is_yet(
    time: VirtualTime, three: list[Process]
) -> None:
    three[0].outbox.quiet_times.begin("deploy", 30)
    await pass_on(time, *three)
    assert [each.quiet[0] for each in three] == ["deploy"] * 3


@pytest.mark.parametrize("faults", [[OSError(SECRET)] * 4, [OSError(SECRET)] * 9])
async def test_what_cannot_be_shared_holds_here_and_is_shared_later(
    time: VirtualTime, faults: list[Exception | str], caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper(*faults)
    one, other = Process(paper, time), Process(paper, time)
    await one.orders.step()
    one.outbox.quiet_times.begin("deploy", 30)
    for _ in range(12):
        await pass_on(time, one)
    assert one.quiet[0] == "deploy"
    await pass_on(time, other)
    assert other.quiet[0] == "deploy"
    assert caplog.text.count("hold for this process alone") == 1
    assert SECRET not in caplog.text


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1, "windows": [5], "silences": {}}'])
async def test_what_is_not_ours_there_is_left_with_a_warning_and_written_over(
    time: VirtualTime, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper()
    paper.text = text
    one = Process(paper, time)
    await pass_on(time, one)
    one.outbox.quiet_times.begin("deploy", 30)
    await pass_on(time, one)
    assert one.quiet[0] == "deploy"
    assert caplog.text.count("were told to be quiet of") == 1
    assert paper.text is not None
    assert "deploy" in paper.text


async def test_nothing_is_written_while_nothing_changes(
    time: VirtualTime, three: list[Process]
) -> None:
    paper = three[0].orders._shelf
    assert isinstance(paper, Paper)
    for _ in range(5):
        await pass_on(time, *three)
    assert paper.saves == 0
    three[0].outbox.silence("db", 60)
    for _ in range(5):
        await pass_on(time, *three)
    assert paper.saves == 1
