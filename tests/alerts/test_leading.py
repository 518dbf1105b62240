"""Processes that share a lease and a memory on a virtual clock: one tells, and another goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.alerts import leading
from holistic_asgi_monitor.alerts.keeping import Keeper
from holistic_asgi_monitor.alerts.leading import Leader, Lease, lease_seconds
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.voice import Scope, Voice, local_keys
from holistic_asgi_monitor.model import Severity
from holistic_asgi_monitor.notifiers import Memory
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.workers.lease import STALE_SECONDS
from tests.alerts.rounds import NOON, seen
from tests.alerts.test_keeping import Paper, Unreachable
from tests.alerts.test_outbox import SECRET
from tests.alerts.virtual_time import VirtualTime

ROUND, STEP = 30.0, 5.0


class Row:
    """A lease that ends by itself, on the virtual clock; `fault` is what asking meets."""

    def __init__(self, time: VirtualTime, seconds: float) -> None:
        self.holder: str | None = None
        self.fault: Exception | str | None = None
        self.until = 0.0
        self._time = time
        self._seconds = seconds

    async def hold(self, holder: str) -> bool:
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.fault == "hang":
            await anyio.sleep_forever()
        if self.holder not in {None, holder} and self._time.now < self.until:
            return False
        self.holder, self.until = holder, self._time.now + self._seconds
        return True

    async def release(self, holder: str) -> None:
        if isinstance(self.fault, Exception):
            raise self.fault
        if self.holder == holder:
            self.holder = None


class Lock:
    """The lock of one host, as one process sees it; it is free once that is dead."""

    def __init__(self, name: str, row: Row, process: object) -> None:
        self.name = name
        self._row = row
        self._process = str(id(process))

    async def hold(self, _: str = "") -> bool:
        return await self._row.hold(self._process)

    async def release(self, _: str = "") -> None:
        await self._row.release(self._process)


class Host:
    """What the processes of one host share."""

    def __init__(self, time: VirtualTime, name: str = "web-1") -> None:
        self.time = time
        self.name = name
        self.row = Row(time, float("inf"))
        self.paper = Paper()


class Worker:
    """One process of a host, with what it delivers."""

    def __init__(
        self,
        host: Host,
        service: Lease | None = None,
        shared: Paper | None = None,
        notifier: Any = None,
    ) -> None:
        self.host, self.time = host, host.time
        self.notifier = Memory() if notifier is None else notifier
        self.notifier.name = "slack"
        self.suppressed = 0
        self.outbox = Outbox(
            [self.notifier],
            Settings(service="shop", instance=host.name, startup_grace_seconds=0),
            outcome=self._count,
            voice=Voice(local_keys(["system"])),
            clock=self.time.clock,
            sleep=self.time.sleep,
        )
        self.keeper = Keeper(
            self.outbox,
            host.paper,
            shared,
            clock=self.time.clock,
            wall=lambda: NOON + timedelta(seconds=self.time.now),
        )
        self.leader = Leader(
            self.outbox,
            self.keeper,
            Lock(host.name, host.row, self),  # type: ignore[arg-type]  # a lock of its own kind
            service,
            interval=ROUND,
            clock=self.time.clock,
        )
        self.killed = False

    def _count(self, severity: Severity, outcome: str) -> None:
        self.suppressed += outcome == "suppressed"

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """It lives until the block ends or it is killed, in order or at once."""
        await self.leader.begin()
        async with anyio.create_task_group() as self.tasks:
            self.tasks.start_soon(self.outbox.run)
            self.tasks.start_soon(self.keeper.run)
            self.tasks.start_soon(self._lead)
            await self.time.settle()
            yield
            self.tasks.cancel_scope.cancel()
        if not self.killed:
            await self.keeper.close()
            await self.leader.close()

    async def _lead(self) -> None:
        while True:
            await self.time.sleep(STEP)
            await self.leader.step()

    def kill(self) -> None:
        """It is gone, and the kernel takes its lock."""
        self.killed = True
        self.tasks.cancel_scope.cancel()
        if self.host.row.holder == str(id(self)):
            self.host.row.holder = None

    def see(self, key: str, mark: str, **more: Any) -> None:
        time = NOON + timedelta(seconds=self.time.now)
        self.outbox.post([seen(key, mark, **more)], now=self.time.now, time=time)

    @property
    def voice(self) -> str:
        return str(self.outbox.as_dict()["voice"])

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(alert.key, alert.reason) for alert in self.notifier.alerts]


async def rounds(time: VirtualTime, marks: str, *workers: Worker, key: str = "db") -> None:
    """Rounds in which all who live see the same."""
    for mark in marks:
        for worker in workers:
            if not worker.killed:
                worker.see(key, mark)
        await time.pass_by(ROUND)


def all_said(*workers: Worker) -> list[str]:
    return [reason for worker in workers for _, reason in worker.said]


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


class TestOnOneHost:
    async def test_a_process_alone_speaks_at_once(self, time: VirtualTime) -> None:
        worker = Worker(Host(time))
        assert worker.voice == "none"
        async with worker.alive():
            assert worker.voice == "all"
            await rounds(time, "cc..", worker)
        assert worker.said == [("db", "fire"), ("db", "clear")]
        assert worker.voice == "none"

    @pytest.mark.parametrize("orderly", [True, False])
    async def test_another_one_goes_on_within_three_rounds_and_repeats_nothing(
        self, time: VirtualTime, orderly: bool
    ) -> None:
        host = Host(time)
        first, second = Worker(host), Worker(host)
        async with second_after(first, second):
            await rounds(time, "cc", first, second)
            assert (first.voice, second.voice) == ("all", "none")
            if orderly:
                first.tasks.cancel_scope.cancel()
                await first.keeper.close()
                await first.leader.close()
            first.kill()
            await time.pass_by(STEP)
            assert second.voice == "all"
            await rounds(time, "c", second)
            assert all_said(first, second) == ["fire"]
            await rounds(time, "..", second)
        assert all_said(first, second) == ["fire", "clear"]

    async def test_what_the_dead_one_could_not_deliver_is_delivered(
        self, time: VirtualTime
    ) -> None:
        host = Host(time)
        first, second = Worker(host, notifier=Unreachable()), Worker(host)
        async with second_after(first, second):
            await rounds(time, "cc", first, second)
            first.kill()
            await time.pass_by(STEP)
            assert second.said == [("db", "fire")]

    async def test_one_that_stands_by_delivers_messages_of_its_own(self, time: VirtualTime) -> None:
        host = Host(time)
        first, second = Worker(host), Worker(host)
        async with second_after(first, second):
            second.outbox.notice(Severity.INFO, "Deployed", {}, now=time.now)
            await rounds(time, "cc", first, second)
        assert [reason for _, reason in second.said] == ["notice"]
        assert first.said == [("db", "fire")]

    async def test_one_that_stands_by_saves_nothing_and_counts_nothing_as_suppressed(
        self, time: VirtualTime
    ) -> None:
        host = Host(time)
        first, second = Worker(host), Worker(host)
        async with second_after(first, second):
            saves = host.paper.saves
            await rounds(time, "cc..cc..", second)
            assert (host.paper.saves, second.suppressed) == (saves, 0)

    async def test_what_is_long_over_is_not_told_by_who_takes_over(self, time: VirtualTime) -> None:
        """It alone saw it: the one that told had nothing to tell of."""
        host = Host(time)
        first, second = Worker(host), Worker(host)
        async with second_after(first, second):
            await rounds(time, "cc....", second)
            first.kill()
            await rounds(time, "..", second)
            assert second.said == []
            assert second.outbox.remembered == ("db",)

    @pytest.mark.parametrize("fault", [OSError(SECRET), "hang"])
    async def test_without_a_lock_each_speaks_and_says_why_once(
        self,
        time: VirtualTime,
        fault: Exception | str,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(leading, "ASK_SECONDS", 0.0)
        host = Host(time)
        host.row.fault = fault
        worker = Worker(host)
        async with worker.alive():
            assert worker.voice == "all"
            await rounds(time, "cc", worker)
        assert worker.said == [("db", "fire")]
        assert caplog.text.count("cannot be settled") == 1
        assert SECRET not in caplog.text

    @pytest.mark.parametrize(("marks", "said"), [("..", ["clear"]), ("cc", [])])
    async def test_a_process_whose_loop_was_blocked_for_long_knows_what_it_told(
        self, time: VirtualTime, marks: str, said: list[str]
    ) -> None:
        """Its rounds may come before it has asked whether it still has the voice."""
        worker = Worker(Host(time))
        async with worker.alive():
            await rounds(time, "cc", worker)
            time.now += 2 * STALE_SECONDS
            assert worker.voice == "none"
            for mark in marks:
                worker.see("db", mark)
            await rounds(time, marks, worker)
        assert all_said(worker) == ["fire", *said]

    @pytest.mark.parametrize(("marks", "said"), [("..", ["clear"]), ("cc", [])])
    async def test_who_tells_again_after_one_that_kept_nothing_knows_what_it_told(
        self, time: VirtualTime, marks: str, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = Host(time)
        first, second = Worker(host), Worker(host)
        async with second_after(first, second):
            await rounds(time, "cc", first, second)
            monkeypatch.setattr(host.paper, "save", Unreachable().send)
            host.row.holder = str(id(second))
            await rounds(time, "cc", first, second)
            assert (first.voice, second.voice) == ("none", "all")
            monkeypatch.undo()
            second.kill()
            await time.pass_by(STEP)
            assert first.voice == "all"
            await rounds(time, marks, first)
        assert all_said(first, second) == ["fire", *said]

    @pytest.mark.parametrize("is_readable", [True, False])
    async def test_what_was_taken_over_once_is_not_taken_over_again_where_nothing_can_be_kept(
        self, time: VirtualTime, monkeypatch: pytest.MonkeyPatch, is_readable: bool
    ) -> None:
        """On a full disk what one before knew stays there; after a block it is read again."""
        host = Host(time)
        before, worker = Worker(host), Worker(host)
        async with before.alive():
            await rounds(time, "cc", before)
        monkeypatch.setattr(host.paper, "save", Unreachable().send)
        async with worker.alive():
            await rounds(time, "...", worker)
            assert all_said(before, worker) == ["fire", "clear"]
            if not is_readable:
                host.paper._script = [OSError()] * 100
            time.now += 2 * STALE_SECONDS
            await rounds(time, "....", worker)
        assert all_said(before, worker) == ["fire", "clear"]

    async def test_a_process_that_looks_between_two_lives_knows_what_it_told(
        self, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where nothing is kept."""
        host = Host(time)
        monkeypatch.setattr(host.paper, "save", Unreachable().send)
        worker = Worker(host)
        async with worker.alive():
            await rounds(time, "cc", worker)
        worker.see("db", "c")
        async with worker.alive():
            await rounds(time, "c..", worker)
        assert worker.said == [("db", "fire"), ("db", "clear")]

    async def test_the_same_process_begun_again_repeats_nothing(self, time: VirtualTime) -> None:
        worker = Worker(Host(time))
        for marks in ("cc", "cc", ".."):
            async with worker.alive():
                await rounds(time, marks, worker)
        assert worker.said == [("db", "fire"), ("db", "clear")]


class TestGoingOn:
    """Whatever goes on when the leader dies, goes on with the next one."""

    async def test_a_window_of_maintenance(self, time: VirtualTime) -> None:
        first, second = pair(time)
        async with second_after(first, second):
            first.outbox.quiet_times.begin("deploy", 30)
            await rounds(time, "cc", first, second)
            first.kill()
            await rounds(time, "cc" * 28, second)
            assert (second.voice, all_said(first, second)) == ("all", [])
            await rounds(time, "cccc", second)
            assert all_said(first, second) == ["fire"]

    async def test_a_silence(self, time: VirtualTime) -> None:
        first, second = pair(time)
        async with second_after(first, second):
            await rounds(time, "cc", first, second)
            first.outbox.silence("db", 60)
            await rounds(time, "..cc", first, second)
            first.kill()
            await rounds(time, "c" * 60, second)
            assert all_said(first, second) == ["fire", "clear"]
            await rounds(time, "c" * 70, second)
            assert all_said(first, second) == ["fire", "clear", "fire"]

    async def test_an_outage_of_the_channel_in_which_all_came_and_went(
        self, time: VirtualTime
    ) -> None:
        host = Host(time)
        first, second = Worker(host, notifier=Unreachable()), Worker(host)
        async with second_after(first, second):
            await rounds(time, "cccc....", first, second)
            first.kill()
            await rounds(time, "..", second)
        assert second.said == [("db", "was_down")]

    async def test_a_message_that_was_not_delivered(self, time: VirtualTime) -> None:
        host = Host(time)
        first, second = Worker(host, notifier=Unreachable()), Worker(host)
        async with second_after(first, second):
            first.outbox.notice(Severity.INFO, "Deployed", {}, now=time.now)
            await time.pass_by(STEP)
            first.kill()
            await time.pass_by(2 * STEP)
        assert [reason for _, reason in second.said] == ["notice"]

    async def test_what_is_known_to_flap(self, time: VirtualTime) -> None:
        first, second = pair(time)
        async with second_after(first, second):
            await rounds(time, "cc..cc..cc..", first, second)
            assert "flapping" in all_said(first)
            told = len(first.said)
            first.kill()
            await rounds(time, "cc..cc..", second)
            assert second.said == []
            await rounds(time, "." * 40, second)
        assert all_said(second) == ["clear"]
        assert len(first.said) == told

    async def test_a_reminder_comes_when_it_is_due(self, time: VirtualTime) -> None:
        first, second = pair(time)
        async with second_after(first, second):
            await rounds(time, "c" * 20, first, second)
            first.kill()
            await rounds(time, "c" * 20, second)
        assert first.said == [("db", "fire")]
        assert second.said == [("db", "remind")]

    async def test_what_gets_worse_and_then_milder(self, time: VirtualTime) -> None:
        first, second = pair(time)
        async with second_after(first, second):
            await rounds(time, "dd", first, second)
            first.kill()
            await rounds(time, "dccd..", second)
        assert all_said(first, second) == ["fire", "escalate", "clear"]


def pair(time: VirtualTime) -> tuple[Worker, Worker]:
    host = Host(time)
    return Worker(host), Worker(host)


@asynccontextmanager
async def second_after(first: Worker, *others: Worker) -> AsyncIterator[None]:
    """All of them alive, the first one first."""
    async with anyio.create_task_group() as group:
        for worker in (first, *others):
            await group.start(_live, worker)
        yield
        group.cancel_scope.cancel()


async def _live(worker: Worker, *, task_status: Any) -> None:
    async with worker.alive():
        task_status.started()
        await anyio.sleep_forever()


class Fleet:
    """Hosts with one process each, and what they share."""

    def __init__(self, time: VirtualTime, number: int = 2) -> None:
        self.row, self.paper = Row(time, lease_seconds(ROUND)), Paper()
        self.hosts = [Host(time, f"web-{number}") for number in range(1, number + 1)]
        self.workers = [self.worker(host) for host in self.hosts]

    def worker(self, host: Host) -> Worker:
        return Worker(host, self.row, self.paper)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self.workers)


class TestOfSeveralHosts:
    async def test_one_tells_what_all_share_and_each_what_is_its_own(
        self, time: VirtualTime
    ) -> None:
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            assert (first.voice, second.voice) == ("all", "host")
            for key in ("db", "system", "traffic"):
                await rounds(time, "cc", *fleet, key=key)
        assert first.said == [("db", "fire"), ("system", "fire"), ("traffic", "fire")]
        assert second.said == [("system", "fire"), ("traffic", "fire")]
        assert {alert.instance for alert in second.notifier.alerts} == {"web-2"}

    async def test_another_host_goes_on_when_the_lease_has_ended(self, time: VirtualTime) -> None:
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "cc", *fleet)
            first.kill()
            await rounds(time, "cccc", *fleet)
            assert (second.voice, second.said) == ("all", [])
            await rounds(time, "..", *fleet)
        assert all_said(*fleet) == ["fire", "clear"]
        # Where alerts are told apart by it, as in Alertmanager, that is the end of this very one.
        assert second.notifier.alerts[0].instance == "web-1"

    async def test_what_fails_with_a_check_that_only_this_host_sees_fail_is_told_by_it(
        self, time: VirtualTime
    ) -> None:
        """The leader of all tells of databases; of one that only another host has lost, nobody."""
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await time.pass_by(ROUND)
            for mark in "cccccc..":
                first.see("db", ".")
                second.see("db", mark)
                second.see("traffic", mark, depends_on=("db",))
                await time.pass_by(ROUND)
        assert first.said == []
        assert second.said == [("traffic", "fire"), ("traffic", "clear")]

    async def test_what_fails_with_a_check_that_another_host_tells_of_is_not_told_besides(
        self, time: VirtualTime
    ) -> None:
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await time.pass_by(ROUND)
            for mark in "cccccc......":
                for worker in fleet:
                    worker.see("db", mark)
                    worker.see("traffic", mark, depends_on=("db",))
                await time.pass_by(ROUND)
        assert first.said == [("db", "fire"), ("db", "clear")]
        assert second.said == []

    async def test_who_stands_by_goes_on_within_moments_of_the_end_of_the_lease(
        self, time: VirtualTime
    ) -> None:
        """A container that was killed leaves it behind, and the next one is another host."""
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await time.pass_by(ROUND)
            first.kill()
            await time.pass_by(30 + 2 * STEP)
            assert second.voice == "all"

    async def test_who_stands_by_reads_what_is_told_no_more_often_than_the_lease_is_refreshed(
        self, time: VirtualTime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = fleet = Fleet(time)
        reads = []

        async def follow(scope: Scope) -> None:
            reads.append(scope)

        monkeypatch.setattr(second.keeper, "follow", follow)
        async with second_after(*fleet):
            await time.pass_by(60)
            assert (first.voice, second.voice) == ("all", "host")
        assert 5 <= len(reads) <= 7

    async def test_a_new_incident_is_told_by_who_tells_then(self, time: VirtualTime) -> None:
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "cc", *fleet)
            first.kill()
            await rounds(time, "cccc..cc..", *fleet)
        told = [(alert.reason, alert.instance) for alert in second.notifier.alerts]
        assert told == [("clear", "web-1"), ("fire", "web-2"), ("clear", "web-2")]

    async def test_an_end_that_only_others_saw_is_told_with_the_takeover(
        self, time: VirtualTime
    ) -> None:
        first, _ = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "cc", *fleet)
            first.kill()
            await rounds(time, "....", *fleet)
        assert all_said(*fleet) == ["fire", "clear"]

    async def test_the_next_process_of_the_same_host_has_the_lease_at_once(
        self, time: VirtualTime
    ) -> None:
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "cc", *fleet)
            first.kill()
            again = fleet.worker(first.host)
            async with again.alive():
                assert again.voice == "all"
                await rounds(time, "c..", again, second)
        assert all_said(*fleet, again) == ["fire", "clear"]

    async def test_an_orderly_end_frees_the_lease(self, time: VirtualTime) -> None:
        fleet = Fleet(time)
        async with fleet.workers[0].alive():
            await time.pass_by(STEP)
        async with fleet.workers[1].alive():
            assert fleet.workers[1].voice == "all"

    async def test_the_end_of_one_that_stands_by_frees_nothing_of_its_host(
        self, time: VirtualTime
    ) -> None:
        fleet = Fleet(time)
        first, other = fleet.workers[0], fleet.workers[1]
        second = fleet.worker(first.host)
        async with second_after(first, second, other):
            first.host.row.holder = str(id(second))
            await time.pass_by(ROUND)
            assert (first.voice, second.voice, other.voice) == ("none", "all", "host")
            await first.leader.close()
            assert fleet.row.holder == first.host.name
            await time.pass_by(ROUND)
            assert (second.voice, other.voice) == ("all", "host")

    async def test_who_leads_its_host_again_asks_for_the_lease_of_the_service_at_once(
        self, time: VirtualTime
    ) -> None:
        fleet = Fleet(time)
        first, other = fleet.workers
        async with second_after(first, other):
            await time.pass_by(ROUND)
            for holder, voice in (("another", "none"), (None, "all")):
                first.host.row.holder = holder
                time.now += 1
                await first.leader.step()
                assert first.voice == voice

    @pytest.mark.parametrize("marks", ["cc..", "cc...", "cc...."])
    async def test_what_was_told_to_its_end_is_not_told_by_who_goes_on_then(
        self, time: VirtualTime, marks: str
    ) -> None:
        fleet = Fleet(time)
        first, second = fleet.workers
        async with second_after(*fleet):
            await rounds(time, marks, *fleet)
            await first.keeper.close()
            await first.leader.close()
            first.kill()
            await rounds(time, "..", second)
            assert second.voice == "all"
        assert all_said(*fleet) == ["fire", "clear"]

    async def test_what_was_read_in_passing_is_used_where_the_place_has_lost_it(
        self, time: VirtualTime
    ) -> None:
        """A server of Redis that was begun anew is empty."""
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "ccc", *fleet)
            fleet.row.holder, fleet.paper.text = None, None
            first.kill()
            await rounds(time, "c..", second)
            assert second.voice == "all"
        assert all_said(*fleet) == ["fire", "clear"]

    async def test_where_the_lease_cannot_be_asked_for_the_holder_speaks_and_then_all(
        self, time: VirtualTime, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As many alarms as there are hosts at most, and at least one."""
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await time.pass_by(ROUND)
            fleet.row.fault = OSError(SECRET)
            await rounds(time, "cc", *fleet, key="redis")
            assert first.said == [("redis", "fire")]
            await rounds(time, "ccc", *fleet, key="redis")
            assert (first.voice, second.voice) == ("all", "all")
            assert len(all_said(*fleet)) <= 2

            fleet.row.fault = None
            await time.pass_by(ROUND)
            assert sorted([first.voice, second.voice]) == ["all", "host"]
            alarms = len(all_said(*fleet))
            await rounds(time, "....", *fleet, key="redis")
        assert len(all_said(*fleet)) == alarms + 1
        assert all_said(*fleet).count("clear") == 1
        assert SECRET not in caplog.text

    async def test_what_another_told_is_known_though_its_memory_is_out_of_reach(
        self, time: VirtualTime
    ) -> None:
        """Each host reads it in passing, as long as it can."""
        first, second = fleet = Fleet(time)
        async with second_after(*fleet):
            await rounds(time, "ccc", *fleet)
            fleet.row.fault = OSError()
            fleet.paper._script = [OSError()] * 100
            first.kill()
            await rounds(time, "cccc", second)
            assert (second.voice, second.said) == ("all", [])
            await rounds(time, "..", second)
        assert all_said(*fleet) == ["fire", "clear"]

    async def test_a_process_that_was_suspended_asks_before_it_speaks_again(
        self, time: VirtualTime
    ) -> None:
        first, _ = fleet = Fleet(time)
        async with second_after(*fleet):
            await time.pass_by(ROUND)
            assert first.voice == "all"
            # Nothing runs meanwhile, as in a process that is stopped.
            time.now += 3 * ROUND + 1
            first.see("db", "c")
            first.see("db", "c")
            assert first.voice == "none"
            assert first.said == []
