"""The watchdog: what it says of a stuck loop, and when it says nothing."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import groupby

import anyio
import pytest
from blockbuster import BlockBuster
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor import watchdog as module
from holistic_asgi_monitor.watchdog import Watchdog

NAME = "holistic-asgi-monitor watchdog"
BEAT_SECONDS = 0.25
TURNS = (1.0, True)
STUCK = (1.0, False)
ASLEEP = (3_600.0, False)


class Course:
    """A clock that only the script moves: for each wait of the thread, what happens meanwhile.

    Each entry has the seconds that pass, and whether the loop turns all the while.
    """

    def __init__(self, script: Sequence[tuple[float, bool]], patience: float = 5.0) -> None:
        self.now = 100.0
        self.waits: list[float] = []
        self._script = iter(script)
        self._gate = threading.Event()
        self.watchdog = Watchdog(patience=patience, clock=lambda: self.now, wait=self._wait)

    def _wait(self, seconds: float) -> bool:
        assert self._gate.wait(10)
        self.waits.append(seconds)
        following = next(self._script, None)
        if following is None:
            return True
        passed, turning = following
        for _ in range(int(passed / BEAT_SECONDS) if turning else 0):
            self.now += BEAT_SECONDS
            self.watchdog.beat(self.now)
        self.now += 0.0 if turning else passed
        return False

    def play(self) -> Watchdog:
        """Let everything happen that stands in the script."""
        self.watchdog.start()
        return self.finish()

    def finish(self) -> Watchdog:
        threads = watching()
        self._gate.set()
        for thread in threads:
            thread.join(10)
        assert not watching()
        return self.watchdog


@pytest.fixture(autouse=True)
def nobody_watches() -> None:
    """Let the threads end that other tests have told to."""
    until(lambda: not watching())


def until(condition: Callable[[], bool]) -> None:
    """Block this thread until the condition holds, for twenty seconds at most."""
    began = time.monotonic()
    while not condition() and time.monotonic() - began < 20:
        time.sleep(0.01)


def watching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """The level and the first line of what was logged."""
    ours = [record for record in caplog.records if record.name == "holistic_asgi_monitor"]
    return [(record.levelno, record.getMessage().splitlines()[0]) for record in ours]


def test_a_stall_is_reported_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Course([TURNS] * 3 + [STUCK] * 9 + [TURNS] * 3).play()

    assert said(caplog) == [
        (logging.ERROR, "The event loop has been stuck for 5.0 s:"),
        (logging.WARNING, "The event loop goes on; it was stuck for 9.2 s."),
    ]
    assert (watchdog.stalls, watchdog.longest_seconds) == (1, 9.25)


def test_a_stall_that_goes_on_is_the_longest_by_now(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Course([STUCK] * 60).play()

    assert said(caplog) == [(logging.ERROR, "The event loop has been stuck for 5.0 s:")]
    assert (watchdog.stalls, watchdog.longest_seconds) == (1, 60.0)


def test_every_stall_is_counted_and_the_longest_kept(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Course(([STUCK] * 8 + [TURNS]) + ([STUCK] * 6 + [TURNS]) * 2).play()

    assert [level for level, _ in said(caplog)] == [logging.ERROR, logging.WARNING] * 3
    assert (watchdog.stalls, watchdog.longest_seconds) == (3, 8.25)


@pytest.mark.parametrize(
    "script",
    [
        [TURNS] * 20,
        ([STUCK] * 4 + [TURNS]) * 5,
        [ASLEEP],
        [TURNS, ASLEEP, TURNS],
        [TURNS, ASLEEP, STUCK, STUCK, STUCK, TURNS],
        [ASLEEP, TURNS] * 3,
        [TURNS, *[(1.5, False)] * 4],
    ],
    ids=["turning", "short", "asleep", "woken", "slow to wake", "often asleep", "thread late too"],
)
def test_a_loop_that_is_not_stuck_is_not_reported(
    script: list[tuple[float, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    watchdog = Course(script).play()

    assert said(caplog) == []
    assert (watchdog.stalls, watchdog.longest_seconds) == (0, 0.0)


@pytest.mark.parametrize("before", [3, 7])
def test_a_sleep_is_no_part_of_a_stall(before: int, caplog: pytest.LogCaptureFixture) -> None:
    """The thread has its own period of the sleep, which it cannot tell from a second awake."""
    script = [STUCK] * before + [ASLEEP] + [STUCK] * (9 - before) + [TURNS]
    watchdog = Course(script).play()

    assert said(caplog) == [
        (logging.ERROR, "The event loop has been stuck for 5.0 s:"),
        (logging.WARNING, "The event loop goes on; it was stuck for 10.2 s."),
    ]
    assert (watchdog.stalls, watchdog.longest_seconds) == (1, 10.25)


@given(st.lists(st.sampled_from([TURNS, STUCK, STUCK, STUCK, ASLEEP]), max_size=60))
def test_any_course_reports_the_silences_of_five_seconds_awake(
    script: list[tuple[float, bool]],
) -> None:
    watchdog = Course(script).play()

    silences = [list(run) for turns, run in groupby(script, lambda entry: entry[1]) if not turns]
    assert watchdog.stalls == sum(len(silence) >= 5 for silence in silences)
    assert watchdog.longest_seconds == pytest.approx(
        max((len(silence) for silence in silences if len(silence) >= 5), default=0), abs=0.25
    )


@pytest.mark.parametrize(("patience", "period"), [(5.0, 1.0), (60.0, 1.0), (0.5, 0.1)])
def test_the_thread_wakes_once_a_second_at_most_unless_it_must_see_less(
    patience: float, period: float
) -> None:
    course = Course([TURNS] * 3, patience)
    course.play()

    assert course.waits == [pytest.approx(period)] * 4


def test_the_stack_has_places_and_neither_code_nor_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    password = "S3cret"  # noqa: F841 - in a frame that is reported
    Course([STUCK] * 5).play()

    lines = caplog.records[0].getMessage().splitlines()[1:]
    if "left out" in lines[0]:
        # Whoever runs the tests may stand on a deep stack itself.
        del lines[0]
    assert all(line.startswith("  ") and " in " in line for line in lines)
    here = [line for line in lines if __file__ in line]
    assert [line.rpartition(" ")[2] for line in here] == [
        "test_the_stack_has_places_and_neither_code_nor_values",
        "play",
        "finish",
    ]
    assert all(line.split(" in ")[0].rpartition(":")[2].isdigit() for line in lines[1:])
    assert "S3cret" not in caplog.text
    assert "Course(" not in caplog.text


def test_of_a_deep_stack_the_inner_frames_are_shown(caplog: pytest.LogCaptureFixture) -> None:
    def sink(depth: int, course: Course) -> None:
        if depth:
            sink(depth - 1, course)
        else:
            course.play()

    sink(200, Course([STUCK] * 5))

    lines = caplog.records[0].getMessage().splitlines()[1:]
    assert len(lines) == module.MOST_FRAMES + 1
    assert lines[0].endswith("outer frames are left out")
    assert "in finish" in caplog.text


def test_a_thread_that_has_ended_is_not_stuck(caplog: pytest.LogCaptureFixture) -> None:
    course = Course([STUCK] * 60)
    thread = threading.Thread(target=course.watchdog.start)
    thread.start()
    thread.join(10)
    course.finish()

    assert said(caplog) == []
    assert len(course.waits) < 10


@pytest.mark.parametrize("closed", [False, True])
def test_a_loop_that_nobody_runs_is_not_stuck(
    closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def begin() -> None:
        course.watchdog.start()

    course = Course([STUCK] * 60)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(begin())
        if closed:
            loop.close()
        course.finish()
    finally:
        loop.close()

    assert said(caplog) == []


def test_the_rest_of_a_loop_is_not_held_against_it_when_it_is_run_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first look may come before the first beat."""
    course = Course([TURNS] + [STUCK] * 60 + [TURNS] * 3)
    monkeypatch.setattr(module, "_turning", lambda: lambda: len(course.waits) not in range(2, 61))
    course.play()

    assert said(caplog) == []


def test_a_look_that_fails_is_followed_by_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stack = module._stack
    failed: list[int] = []

    def fail_once(thread: int) -> str:
        if not failed:
            failed.append(thread)
            raise ValueError("S3cret")
        return stack(thread)

    monkeypatch.setattr(module, "_stack", fail_once)
    Course([STUCK] * 7).play()

    assert said(caplog) == [
        (logging.WARNING, "A look at the event loop failed (ValueError)."),
        (logging.ERROR, "The event loop has been stuck for 6.0 s:"),
    ]
    assert "S3cret" not in caplog.text


def test_a_loop_that_goes_on_while_its_stack_is_read_is_not_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def go_on(thread: int) -> str:
        course.watchdog.beat(course.now)
        return "\n  its stack"

    course = Course([STUCK] * 9)
    monkeypatch.setattr(module, "_stack", go_on)
    watchdog = course.play()

    assert said(caplog) == []
    assert (watchdog.stalls, watchdog.longest_seconds) == (0, 0.0)


def test_where_no_thread_can_be_started_the_loop_goes_on_unwatched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    watchdog = Watchdog()
    watchdog.start()
    watchdog.beat(time.monotonic())
    watchdog.stop()

    assert said(caplog) == [(logging.WARNING, "The event loop is not watched (RuntimeError).")]


def test_stopping_ends_the_thread_at_once_and_more_than_once_does_no_harm() -> None:
    watchdog = Watchdog(patience=3_600.0)
    watchdog.stop()
    watchdog.start()
    threads = watching()
    watchdog.stop()
    watchdog.stop()
    watchdog.beat(time.monotonic())
    for thread in threads:
        thread.join(10)

    assert len(threads) == 1
    assert watching() == []


def test_a_forked_child_leaves_the_parent_s_locks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the thread held when the process was forked would never be free again."""
    watchdog = Watchdog(patience=3_600.0)
    watchdog.start()
    guard, threads = watchdog._guard, watching()
    assert guard is not None
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        watchdog.stop()
    told = guard._told.is_set()
    guard.stop()
    for thread in threads:
        thread.join(10)

    assert not told
    assert watching() == []


def test_starting_again_leaves_one_thread() -> None:
    watchdog = Watchdog(patience=3_600.0)
    watchdog.start()
    first = watching()
    watchdog.start()
    for thread in first:
        thread.join(10)

    assert len(watching()) == 1
    last = watching()
    watchdog.stop()
    for thread in last:
        thread.join(10)


async def test_a_really_blocked_loop_is_reported_with_its_stack(
    blockbuster: BlockBuster, caplog: pytest.LogCaptureFixture
) -> None:
    blockbuster.deactivate()
    watchdog = Watchdog(patience=0.2)

    async def turn() -> None:
        while True:
            watchdog.beat(time.monotonic())
            await anyio.sleep(0.01)

    def hold_up_the_loop() -> None:
        until(lambda: len(said(caplog)) > 0)

    async with anyio.create_task_group() as group:
        watchdog.start()
        group.start_soon(turn)
        await anyio.sleep(0.05)
        hold_up_the_loop()
        with anyio.fail_after(20):
            while len(said(caplog)) < 2:
                await anyio.sleep(0.01)
        watchdog.stop()
        group.cancel_scope.cancel()

    levels = [level for level, _ in said(caplog)[:2]]
    assert levels == [logging.ERROR, logging.WARNING]
    assert "in hold_up_the_loop" in caplog.records[0].getMessage()
    assert watchdog.stalls >= 1
    assert watchdog.longest_seconds >= 0.2


START = """
import os, sys, time
from holistic_asgi_monitor.watchdog import Watchdog
watchdog = Watchdog()
watchdog.start()
"""
FORK = """
child = os.fork()
watchdog.beat(time.monotonic())
watchdog.stop()
watchdog.start()
watchdog.stop()
if not child:
    os._exit(7)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("rest", "code"), [("", 0), (FORK, 7)], ids=["end", "fork"])
def test_a_process_may_end_and_fork_while_it_is_watched(rest: str, code: int) -> None:
    """From 3.12 on Python warns of any fork beside a thread; that is not ours to silence."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", START + rest],
        capture_output=True,
        timeout=40,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (code, b"")
