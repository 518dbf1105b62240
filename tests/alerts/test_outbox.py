"""Delivery: every notifier at its own pace, whatever the others do, and nothing lost."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from math import inf
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.lowlevel import checkpoint

from holistic_asgi_monitor.alerts.bell import Bell
from holistic_asgi_monitor.alerts.incidents import MAX_KEYS, Observation
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.model import Alert, ConfigurationError, Severity
from holistic_asgi_monitor.notifiers import DeliveryError, Memory
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.threads import waker
from tests.alerts.rounds import NOON, seen
from tests.alerts.virtual_time import VirtualTime, eventually

SECRET = "S3cret"


class Scripted:
    """A notifier that does what a script says, call by call, and then works."""

    def __init__(self, *script: Exception | str, name: str = "scripted") -> None:
        self.name = name
        self.calls: list[tuple[float, list[str]]] = []
        self.memory = Memory()
        self.time: VirtualTime | None = None
        self._script = list(script)

    async def send(self, alerts: Sequence[Alert]) -> None:
        now = self.time.now if self.time is not None else 0.0
        self.calls.append((now, [alert.reason for alert in alerts]))
        act = self._script.pop(0) if self._script else "work"
        if isinstance(act, Exception):
            raise act
        if act == "hang":
            await anyio.sleep_forever()
        await self.memory.send(alerts)

    @property
    def moments(self) -> list[float]:
        """When it was called, since the first time."""
        return [now - self.calls[0][0] for now, _ in self.calls]


class Post:
    """An outbox on a virtual clock, and the watch that posts to it."""

    def __init__(self, *notifiers: Any, **settings: Any) -> None:
        self.time = VirtualTime()
        self.outcomes: Counter[str] = Counter()
        for notifier in notifiers:
            if isinstance(notifier, Scripted):
                notifier.time = self.time
        options: dict[str, Any] = {
            "service": "shop",
            "environment": "test",
            "instance": "web-1",
            "startup_grace_seconds": 0,
        }
        self.outbox = Outbox(
            notifiers,
            Settings(**options | settings),
            outcome=self._count,
            clock=self.time.clock,
            sleep=self.time.sleep,
        )

    def _count(self, severity: Severity, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def round(self, *observations: Observation) -> None:
        time = NOON + timedelta(seconds=self.time.now)
        self.outbox.post(observations, now=self.time.now, time=time)

    def see(self, key: str, marks: str) -> None:
        for mark in marks:
            self.round(seen(key, mark))

    def notice(self, title: str, severity: Severity = Severity.INFO, **details: Any) -> None:
        self.outbox.notice(severity, title, details, now=self.time.now)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.outbox.run)
            await self.time.settle()
            yield
            group.cancel_scope.cancel()


async def test_alarm_and_all_clear_arrive_with_where_they_come_from() -> None:
    memory = Memory()
    post = Post(memory, public_url="https://shop.example", runbook_url="https://runbook.example")
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(5)
        post.see("db", "..")
        await post.time.pass_by(5)

    alarm, all_clear = memory.alerts
    assert (alarm.reason, all_clear.reason) == ("fire", "clear")
    for alert in memory.alerts:
        assert (alert.service, alert.environment, alert.instance) == ("shop", "test", "web-1")
        assert alert.dashboard_url == "https://shop.example/api/monitoring/alerts"
        assert alert.runbook_url == "https://runbook.example"
    assert post.outcomes == {"delivered": 2}


async def test_what_was_posted_before_is_delivered_once_it_runs() -> None:
    memory = Memory()
    post = Post(memory)
    post.see("db", "cc")
    post.notice("Deployed")
    async with post.running():
        await post.time.settle()

    assert [alert.reason for alert in memory.alerts] == ["fire", "notice"]


async def test_it_can_run_again() -> None:
    memory = Memory()
    post = Post(memory)
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(5)
    post.see("db", "..")
    async with post.running():
        await post.time.pass_by(5)

    assert [alert.reason for alert in memory.alerts] == ["fire", "clear"]


async def test_without_notifiers_there_is_nothing_to_do() -> None:
    post = Post()
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(5)

    assert not post.outcomes


async def test_all_of_a_round_go_in_one_call() -> None:
    notifier = Scripted()
    post = Post(notifier)
    async with post.running():
        for _ in range(2):
            post.round(seen("db", "c"), seen("redis", "d"), seen("openai", "d"))
        await post.time.pass_by(5)

    assert [reasons for _, reasons in notifier.calls] == [["fire"] * 3]


async def test_a_second_lies_between_two_messages() -> None:
    notifier = Scripted()
    post = Post(notifier)
    async with post.running():
        for key in ("one", "two", "three"):
            post.see(key, "cc")
            await post.time.settle()
        await post.time.pass_by(5)

    assert notifier.moments == [0, 1]
    assert [reasons for _, reasons in notifier.calls] == [["fire"], ["fire", "fire"]]


class TestFailures:
    async def test_what_fails_is_tried_again_later_and_later(self) -> None:
        notifier = Scripted(*(RuntimeError() for _ in range(4)))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(60)

        assert notifier.moments == [0, 1, 3, 7, 15]
        assert [alert.reason for alert in notifier.memory.alerts] == ["fire"]
        assert post.outcomes == {"failed": 4, "delivered": 1}

    async def test_an_outage_that_nobody_could_be_told_of_is_told_as_past(self) -> None:
        notifier = Scripted(*(RuntimeError() for _ in range(3)))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(2)
            post.see("db", "..")
            await post.time.pass_by(10)

        assert [reasons for _, reasons in notifier.calls] == [
            ["fire"],
            ["fire"],
            ["was_down"],
            ["was_down"],
        ]

    @pytest.mark.parametrize(
        ("asked", "wait"), [(7, 7), (2.5, 2.5), (-4, 1), (1e9, 300), (float("inf"), 300)]
    )
    async def test_a_wait_is_kept_whoever_asks_for_it(self, asked: float, wait: float) -> None:
        error = RuntimeError()
        error.retry_after = asked  # type: ignore[attr-defined]  # as a user's exception may have
        notifier = Scripted(error)
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(400)

        assert notifier.moments == [0, wait]

    @pytest.mark.parametrize("asked", [None, "7", True, float("nan"), object()])
    async def test_a_wait_that_is_none_is_left_out(self, asked: object) -> None:
        error = RuntimeError()
        error.retry_after = asked  # type: ignore[attr-defined]  # as a user's exception may have
        notifier = Scripted(error)
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(400)

        assert notifier.moments == [0, 1]

    async def test_a_refusal_is_logged_once_and_tried_again_after_an_hour(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        refusal = DeliveryError("the channel is gone", permanent=True)
        notifier = Scripted(*(refusal for _ in range(3)))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(3599)
            assert notifier.moments == [0]
            assert not post.outbox.up("scripted")
            await post.time.pass_by(3602)

        assert notifier.moments == [0, 3600, 7200]
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert len(errors) == 1
        assert "the channel is gone" in errors[0].getMessage()

    async def test_what_has_changed_is_tried_in_spite_of_a_refusal(self) -> None:
        notifier = Scripted(DeliveryError("too long", permanent=True))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(30)
            post.see("db", "..")
            await post.time.pass_by(30)

        assert [reasons for _, reasons in notifier.calls] == [["fire"], ["was_down"]]

    @pytest.mark.parametrize(("seconds", "most"), [(100, 2), (300, 3), (800, 4)])
    async def test_what_may_have_arrived_is_sent_at_most_twice_and_then_seldom(
        self, seconds: int, most: int
    ) -> None:
        doubt = DeliveryError("no answer", ambiguous=True)
        notifier = Scripted(*(doubt for _ in range(9)))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(seconds)

        assert len(notifier.calls) == most

    async def test_the_log_says_once_that_it_fails_without_the_exceptions_text(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        notifier = Scripted(*(RuntimeError(SECRET) for _ in range(4)))
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(60)

        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 2
        assert "scripted failed: it raised RuntimeError" in messages[0]
        assert "scripted delivers again" in messages[1]
        assert SECRET not in caplog.text

    @pytest.mark.parametrize("error", [SystemExit(SECRET), KeyboardInterrupt(), GeneratorExit()])
    async def test_whatever_is_thrown_ends_nothing(
        self, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Thrower(Scripted):
            async def send(self, alerts: Sequence[Alert]) -> None:
                if not self.calls:
                    self.calls.append((0, []))
                    raise error
                await super().send(alerts)

        notifier = Thrower()
        post = Post(notifier)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(5)

        assert [alert.reason for alert in notifier.memory.alerts] == ["fire"]
        assert SECRET not in caplog.text


class TestSlow:
    async def test_one_that_hangs_is_cut_off_and_delays_no_other(self) -> None:
        hanging, memory = Scripted("hang", name="hanging"), Memory()
        post = Post(hanging, memory)
        async with post.running():
            post.see("db", "cc")
            await post.time.settle()
            assert len(memory.alerts) == 1
            await post.time.pass_by(9.9)
            assert post.outbox.up("hanging")
            await post.time.pass_by(0.2)
            assert not post.outbox.up("hanging")
            assert post.outbox.up("memory")
            await post.time.pass_by(1)

        assert hanging.moments == [0, 11]
        assert len(hanging.memory.alerts) == 1
        assert post.outcomes == {"delivered": 2, "failed": 1}

    async def test_one_that_names_its_own_timeout_gets_a_moment_more(self) -> None:
        class Slow(Scripted):
            timeout = 30.0

        slow = Slow("hang")
        post = Post(slow)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(30.9)
            assert post.outbox.up("scripted")
            await post.time.pass_by(0.2)
            assert not post.outbox.up("scripted")

    async def test_it_stays_at_most_two_tries_where_nothing_ever_answers(self) -> None:
        hanging = Scripted(*["hang"] * 9)
        post = Post(hanging)
        async with post.running():
            post.see("db", "cc")
            await post.time.pass_by(100)

        assert len(hanging.calls) == 2

    async def test_the_end_waits_for_nobody(self) -> None:
        hanging = Scripted("hang")
        post = Post(hanging)
        with anyio.fail_after(2):
            async with post.running():
                post.see("db", "cc")
                await post.time.pass_by(1)
        assert len(hanging.calls) == 1

    async def test_a_thread_that_cannot_be_cut_off_is_outlasted(self) -> None:
        """No second call beside it, nobody else waits, and what it did in the end counts."""
        release = threading.Event()
        calls: list[str] = []

        class Blocking:
            name = "blocking"

            async def send(self, alerts: Sequence[Alert]) -> None:
                calls.extend(alert.reason for alert in alerts)
                await anyio.to_thread.run_sync(lambda: release.wait(10))

        memory = Memory()
        post = Post(Blocking(), memory)
        try:
            async with post.running():
                post.see("db", "cc")
                await post.time.pass_by(10.1)
                await anyio.sleep(0.2)
                await post.time.settle()
                assert not post.outbox.up("blocking")
                await post.time.pass_by(100)
                post.see("db", "..")
                await post.time.pass_by(5)
                assert [alert.reason for alert in memory.alerts] == ["fire", "clear"]
                assert calls == ["fire"]
                release.set()
                await eventually(lambda: post.outbox.up("blocking"))
                await post.time.pass_by(1)
                assert calls == ["fire", "clear"]
        finally:
            release.set()

    async def test_the_end_does_not_wait_for_a_thread_either(self) -> None:
        release = threading.Event()

        class Blocking:
            name = "blocking"

            async def send(self, alerts: Sequence[Alert]) -> None:
                await anyio.to_thread.run_sync(lambda: release.wait(10))

        post = Post(Blocking())
        try:
            with anyio.fail_after(2):
                async with post.running():
                    post.see("db", "cc")
                    await post.time.pass_by(1)
        finally:
            release.set()


class TestNotices:
    async def test_a_title_passes_once_in_a_cooldown(self) -> None:
        memory = Memory()
        post = Post(memory)
        async with post.running():
            post.notice("Deployed", Severity.INFO, version="2")
            post.notice("Deployed", Severity.INFO, version="2")
            post.notice("Rolled back")
            await post.time.pass_by(899)
            post.notice("Deployed")
            await post.time.pass_by(1)
            post.notice("Deployed")
            await post.time.pass_by(5)

        assert [alert.title for alert in memory.alerts] == ["Deployed", "Rolled back", "Deployed"]
        assert memory.alerts[0].details == {"version": "2"}
        assert memory.alerts[0].service == "shop"
        assert post.outcomes == {"delivered": 3, "suppressed": 2}

    async def test_one_may_come_from_another_thread(self) -> None:
        memory = Memory()
        post = Post(memory)
        async with post.running():
            await post.time.pass_by(1)
            await anyio.to_thread.run_sync(lambda: post.notice("Deployed"))
            await eventually(lambda: memory.alerts)

    def test_one_may_come_after_the_loop_has_ended(self) -> None:
        memory = Memory()
        post = Post(memory)

        async def live() -> None:
            async with post.running():
                await post.time.pass_by(1)

        for _ in range(2):
            anyio.run(live)
            post.notice("Deployed")
        anyio.run(live)
        assert [alert.title for alert in memory.alerts] == ["Deployed"]

    @pytest.mark.parametrize("nested", [True, False])
    async def test_what_cannot_be_read_keeps_nothing_back(self, nested: bool) -> None:
        memory = Memory()
        post = Post(memory)
        odd: Any = {"self": Unreadable()} if nested else Unreadable()
        async with post.running():
            post.outbox.notice(Severity.INFO, "Odd", odd, now=post.time.now)
            await post.time.pass_by(1)

        text = "could not be read"
        left = {"self": text} if nested else {"left_out": f"the details {text}"}
        assert memory.alerts[0].details == left

    async def test_a_severity_that_is_none_is_a_warning(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        memory = Memory()
        post = Post(memory)
        async with post.running():
            post.notice("Odd", "loud")  # type: ignore[arg-type]  # what is tested
            await post.time.pass_by(1)

        assert memory.alerts[0].severity is Severity.WARNING
        assert "needs a Severity" in caplog.text

    async def test_what_is_worse_passes_at_once_and_what_is_milder_does_not(self) -> None:
        memory = Memory()
        post = Post(memory)
        async with post.running():
            for severity in (Severity.WARNING, Severity.CRITICAL, Severity.ERROR, Severity.WARNING):
                post.notice("Disk", severity)
                await post.time.pass_by(2)

        assert [alert.severity for alert in memory.alerts] == [Severity.WARNING, Severity.CRITICAL]

    def test_titles_are_forgotten_in_the_end(self) -> None:
        post = Post(Memory())
        for number in range(3000):
            post.notice(f"Order {number}")
        inbox = post.outbox._inbox

        assert len(inbox._admitted) <= 1000
        assert len(inbox._waiting) <= 100

    async def test_more_than_can_be_kept_are_given_up_and_counted(self) -> None:
        broken = Scripted(*(RuntimeError() for _ in range(3)))
        post = Post(broken)
        async with post.running():
            for number in range(150):
                post.notice(f"Order {number}")
                await post.time.settle()
            await post.time.pass_by(10)

        assert post.outcomes["delivered"] == 100
        assert [alert.title for alert in broken.memory.alerts][-1] == "Order 149"


class Unreadable:
    """An object that does not like to be read."""

    def __str__(self) -> str:
        raise RuntimeError(SECRET)

    def keys(self) -> Iterable[str]:
        raise RuntimeError(SECRET)


class TestBell:
    async def test_it_is_heard_by_who_listens_later(self) -> None:
        bell = Bell(anyio.sleep)
        bell.ring()
        with anyio.fail_after(5):
            await bell.heard(inf)

    async def test_it_is_heard_from_another_thread(self) -> None:
        bell = Bell(anyio.sleep)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(bell.heard, inf)
                await checkpoint()
                await anyio.to_thread.run_sync(bell.ring)

    async def test_it_is_heard_once(self) -> None:
        bell = Bell(anyio.sleep)
        bell.ring()
        await bell.heard(inf)
        with anyio.move_on_after(0.02) as limit:
            await bell.heard(inf)
        assert limit.cancelled_caught

    def test_a_loop_that_has_ended_is_no_error_to_who_rings(self) -> None:
        bell = Bell(anyio.sleep)

        async def listen() -> None:
            bell._wake = waker(lambda: None)

        for backend in ("asyncio", "trio"):
            anyio.run(listen, backend=backend)
            bell.ring()
            assert bell._wake is None


async def test_a_fault_of_our_own_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    post = Post(memory)
    faults = [ValueError(SECRET)]

    def count(severity: Severity, outcome: str) -> None:
        if faults:
            raise faults.pop()

    post.outbox._outcome = count
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(1)
        post.see("db", "..")
        await post.time.pass_by(61)

    assert [alert.reason for alert in memory.alerts] == ["fire", "clear"]
    assert "ValueError" in caplog.text
    assert SECRET not in caplog.text


def test_incidents_that_are_kept_back_count_as_suppressed() -> None:
    post = Post(Memory(), startup_grace_seconds=60)
    post.see("db", "cccc")
    assert post.outcomes == {"suppressed": 1}


def test_too_many_keys_in_trouble_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    post = Post(Memory())
    for _ in range(2):
        post.round(*(seen(f"key {number}", "c") for number in range(MAX_KEYS + 5)))
    assert caplog.text.count("Too many") == 1


def test_two_of_one_name_are_told_apart() -> None:
    post = Post(Memory(), Memory(), Memory(name="memory 2"))
    assert len(set(post.outbox.names)) == 3
    assert post.outbox.names[:2] == ("memory", "memory 2")


class Plain:
    """A notifier that is not async, against the protocol."""

    name = "plain"

    def __init__(self) -> None:
        self.sent: list[Alert] = []

    def send(self, alerts: Sequence[Alert]) -> None:
        self.sent.extend(alerts)


async def test_a_notifier_that_is_not_async_sends_once() -> None:
    notifier = Plain()
    post = Post(notifier)
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(60)

    assert [alert.reason for alert in notifier.sent] == ["fire"]
    assert post.outcomes == {"delivered": 1}


@pytest.mark.parametrize("wrong", [object(), "slack", None, Memory])
def test_what_is_no_notifier_is_an_error(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="was given as a notifier"):
        Post(wrong)


@pytest.mark.parametrize(
    ("failures", "marks", "alarm"),
    [(2, "cc", True), (6, "ccccc", False), (6, "cccccc", True)],
)
async def test_how_many_rounds_it_takes_is_a_setting(
    failures: int, marks: str, alarm: bool
) -> None:
    """Five of the last ten do not call whoever wants six in a row."""
    memory = Memory()
    post = Post(memory, failures_before_alert=failures)
    async with post.running():
        post.see("db", marks)
        await post.time.settle()
    assert bool(memory.alerts) == alarm


async def test_the_cooldown_is_a_setting() -> None:
    notifier = Scripted()
    post = Post(notifier, alert_cooldown_minutes=1)
    async with post.running():
        for _ in range(120):
            post.see("db", "c")
            await post.time.pass_by(30)

    assert [reasons for _, reasons in notifier.calls] == [["fire"], *[["remind"]] * 5]
    assert [moment // 60 for moment in notifier.moments] == [0, 1, 4, 16, 32, 48]


class TestAsDict:
    def test_it_holds_open_and_recent_incidents_as_json(self) -> None:
        post = Post(Memory(), startup_grace_seconds=0)
        post.see("redis", "dd..")
        post.time.now += 30
        post.see("db", "cc")
        post.time.now += 30
        post.see("openai", "dd")
        rows = json.loads(json.dumps(post.outbox.as_dict()))

        assert [row["key"] for row in rows["open"]] == ["openai", "db"]
        assert [row["key"] for row in rows["recent"]] == ["redis"]
        assert rows["open"][1] == {
            "key": "db",
            "severity": "critical",
            "status": "critical",
            "summary": "db shows critical",
            "started_at": "2026-11-23T12:17:10.000000+00:00",
            "ended_at": None,
            "flapping": False,
            "silent": False,
        }
        assert rows["recent"][0]["ended_at"] == "2026-11-23T12:16:40.000000+00:00"

    def test_it_shows_what_is_kept_back_and_what_flaps(self) -> None:
        post = Post(Memory(), startup_grace_seconds=60)
        post.see("new", "cc")
        assert [row["silent"] for row in post.outbox.as_dict()["open"]] == [True]

        post = Post(Memory())
        post.see("db", "cc.." * 3)
        (row,) = post.outbox.as_dict()["open"]
        assert (row["flapping"], row["silent"]) == (True, False)
