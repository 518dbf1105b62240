"""Alerts over a restart: what is saved when, and what the next process makes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.alerts import keeping
from holistic_asgi_monitor.alerts.keeping import HistoryShelf, Keeper
from holistic_asgi_monitor.alerts.maintenance import Maintenance
from holistic_asgi_monitor.alerts.memory import LONGEST_CHARACTERS
from holistic_asgi_monitor.alerts.voice import Scope
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Store
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import Alert
from holistic_asgi_monitor.notifiers import DeliveryError, Memory
from tests.alerts.rounds import NOON
from tests.alerts.test_outbox import SECRET, Post, Scripted


class Paper:
    """A place in memory, which outlives the process and fails as a script says."""

    def __init__(self, *script: Exception | str) -> None:
        self.text: str | None = None
        self.saves = 0
        self._script = list(script)

    async def load(self) -> str | None:
        await self._act()
        return self.text

    async def save(self, text: str) -> None:
        await self._act()
        self.text = text
        self.saves += 1

    async def _act(self) -> None:
        act = self._script.pop(0) if self._script else "work"
        if isinstance(act, Exception):
            raise act
        if act == "hang":
            await anyio.sleep_forever()


class Process(Post):
    """An outbox with its keeper, which can be killed: then nothing is sent or saved any more."""

    def __init__(self, paper: Any, *notifiers: Any, **settings: Any) -> None:
        super().__init__(*notifiers, **settings)
        self.keeper = Keeper(
            self.outbox,
            paper,
            clock=self.time.clock,
            wall=lambda: NOON + timedelta(seconds=self.time.now),
        )

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        await self.keeper.restore()
        async with anyio.create_task_group() as group:
            group.start_soon(self.outbox.run)
            group.start_soon(self.keeper.run)
            await self.time.settle()
            yield
            await self.time.settle()
            group.cancel_scope.cancel()
        await self.keeper.close()

    async def live(self, marks: str, seconds: float = 30) -> None:
        for mark in marks:
            self.see("db", mark)
            await self.time.pass_by(seconds)


async def lived(paper: Paper, marks: str, notifier: Any = None, **settings: Any) -> list[str]:
    """The reasons that the notifier of one process hears of."""
    notifier = Memory() if notifier is None else notifier
    process = Process(paper, notifier, **settings)
    async with process.alive():
        await process.live(marks)
    return [alert.reason for alert in getattr(notifier, "memory", notifier).alerts]


class Unreachable(Scripted):
    """A notifier that never delivers."""

    async def send(self, alerts: Sequence[Alert]) -> None:
        raise DeliveryError("it is down")


@pytest.mark.parametrize(
    ("before", "delivered", "after", "reasons"),
    [
        ("..", True, "..", []),
        ("cc", True, "ccc", []),
        ("cc", True, "..", ["clear"]),
        ("cc..", True, "....", []),
        ("cc", False, "cc", ["fire"]),
        ("cc", False, "....", ["was_down"]),
        ("cc..", False, "....", ["was_down"]),
        ("c", True, "..", []),
    ],
)
async def test_a_restart_doubles_nothing_and_brings_what_is_missing(
    before: str, delivered: bool, after: str, reasons: list[str]
) -> None:
    paper = Paper()
    first = Memory() if delivered else Unreachable()
    first.name = "slack"
    second = Memory()
    second.name = "slack"
    await lived(paper, before, first)
    assert await lived(paper, after, second, startup_grace_seconds=60) == reasons


async def test_killed_between_decision_and_delivery_the_next_one_delivers() -> None:
    """What hangs in the first process is cut off with it: nobody knows whether it arrived."""
    paper = Paper()
    hanging = Scripted("hang", name="slack")
    process = Process(paper, hanging)
    async with process.alive():
        await process.live("cc", seconds=1)
        assert len(hanging.calls) == 1
        saved = paper.text
    paper.text = saved

    after = Memory()
    after.name = "slack"
    assert await lived(paper, "cc", after) == ["fire"]
    last = Memory()
    last.name = "slack"
    assert await lived(paper, "..", last) == ["clear"]


async def test_what_was_under_way_at_an_orderly_end_may_be_sent_once_more_and_no_oftener() -> None:
    paper = Paper()
    for _ in range(2):
        hanging = Scripted("hang", name="slack")
        process = Process(paper, hanging)
        async with process.alive():
            await process.live("cc", seconds=1)
        assert len(hanging.calls) == 1
    last = Scripted(name="slack")
    assert await lived(paper, "cc", last) == []


async def test_what_arrives_while_the_process_ends_is_not_sent_again() -> None:
    class Stubborn(Memory):
        async def send(self, alerts: Sequence[Alert]) -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
            self.alerts.extend(alerts)

    paper, first = Paper(), Stubborn()
    process = Process(paper, first)
    async with process.alive():
        await process.live("cc", seconds=0)
    assert [alert.reason for alert in first.alerts] == ["fire"]
    assert await lived(paper, "cc") == []


async def test_a_message_of_the_users_own_is_delivered_by_the_next_and_its_cooldown_holds() -> None:
    paper = Paper()
    first = Unreachable(name="slack")
    process = Process(paper, first)
    async with process.alive():
        process.notice("Deployed", by="ci")
        await process.time.pass_by(1)

    after = Memory()
    after.name = "slack"
    process = Process(paper, after)
    async with process.alive():
        process.notice("Deployed", by="ci")
        await process.time.pass_by(5)
    (alert,) = after.alerts
    assert (alert.title, dict(alert.details)) == ("Deployed", {"by": "ci"})


async def test_what_may_have_arrived_is_tried_no_oftener_than_without_a_restart() -> None:
    paper = Paper()
    unsure = DeliveryError("it did not answer", ambiguous=True)
    first = Scripted(unsure, unsure, unsure, name="slack")
    process = Process(paper, first)
    async with process.alive():
        process.see("db", "cc")
        await process.time.pass_by(10)
    assert len(first.calls) == 2

    assert await lived(paper, "cc", Scripted(name="slack")) == []


async def test_maintenance_by_order_and_silence_go_on_and_a_block_does_not() -> None:
    paper = Paper()
    process = Process(paper, Memory())
    async with process.alive():
        process.outbox.quiet_times.begin("deploy", 30)
        process.outbox.silence("db", 60)
        Maintenance(process.outbox.quiet_times, "block", 600).begin()

    process = Process(paper, Memory())
    async with process.alive():
        shown = process.outbox.as_dict()
        assert shown["maintenance"]["reason"] == "deploy"
        assert [each["key"] for each in shown["silences"]] == ["db"]
        await process.time.pass_by(1801)
        assert process.outbox.as_dict()["maintenance"] is None


class Threaded(Memory):
    """A notifier with a memory of its own."""

    def __init__(self, state: Any = None) -> None:
        super().__init__()
        self.threads = state

    def state(self) -> Any:
        return self.threads

    def restore(self, state: Mapping[str, Any]) -> None:
        self.threads = state["ts"]


async def test_a_notifiers_own_memory_comes_back() -> None:
    paper = Paper()
    await lived(paper, "cc", Threaded({"ts": "1.2"}))
    after = Threaded()
    await lived(paper, "cc", after)
    assert after.threads == "1.2"


@pytest.mark.parametrize("state", [{"other": SECRET}, 5, {1, 2}])
async def test_a_notifier_that_cannot_be_restored_delivers_all_the_same(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper()
    await lived(paper, "cc", Threaded(state))
    assert await lived(paper, "..", Threaded()) == ["clear"]
    assert SECRET not in caplog.text


async def test_a_notifier_whose_state_fails_costs_nothing_else() -> None:
    class Broken(Memory):
        def state(self) -> Any:
            raise ValueError(SECRET)

    paper = Paper()
    await lived(paper, "cc", Broken())
    assert await lived(paper, "..", Broken()) == ["clear"]


async def test_it_is_restored_once_however_often_the_watch_begins_anew() -> None:
    paper, memory = Paper(), Memory()
    process = Process(paper, memory)
    for marks in ("cc", "..", ".."):
        async with process.alive():
            await process.live(marks)
    assert [alert.reason for alert in memory.alerts] == ["fire", "clear"]


async def test_rounds_in_which_nothing_changes_are_not_saved() -> None:
    paper = Paper()
    process = Process(paper, Memory())
    async with process.alive():
        await process.live("cc")
        before = paper.saves
        await process.live("c" * 20)
        assert paper.saves == before
        await process.live("....")
        assert paper.saves > before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("{}", "it is not what a monitor writes"),
        ('{"version": 99}', "it is of version 99"),
        ('{"version": 1}', "it is not what a monitor writes (KeyError)"),
        ("x" * (LONGEST_CHARACTERS + 1), "it has more than"),
    ],
)
async def test_what_cannot_be_used_is_left_with_one_warning(
    text: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    paper = Paper()
    paper.text = text
    assert await lived(paper, "cc..") == ["fire", "clear"]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        message for message in caplog.messages if why in message
    ]
    assert json.loads(paper.text)["version"] == 1


async def test_a_place_that_cannot_be_read_is_left_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paper = Paper(OSError(SECRET))
    assert await lived(paper, "cc..") == ["fire", "clear"]
    assert caplog.text.count("is not used: it could not be read (OSError") == 1
    assert SECRET not in caplog.text


async def test_what_is_so_of_both_places_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    process = Process(Paper(), Memory())
    shelves = [Paper(OSError(SECRET), "work", OSError(SECRET)), Paper(OSError(SECRET))]
    keeper = Keeper(process.outbox, *shelves)
    for scope in (*Scope, *Scope, Scope.HOST):
        await keeper.take(scope)

    # The last time is after one that could be read.
    assert caplog.text.count("is not used: it could not be read (OSError") == 2


async def test_a_place_that_does_not_answer_delays_the_first_round_for_moments_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOAD_SECONDS", 0.01)
    assert await lived(Paper("hang"), "cc") == ["fire"]
    assert "is not used: it could not be read within 0.01 s" in caplog.text


async def test_what_could_not_be_saved_is_saved_later_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The first one answers the load.
    paper = Paper("work", *[OSError(SECRET)] * 3)
    process = Process(paper, Memory())
    async with process.alive():
        process.see("db", "cc")
        await process.time.pass_by(300)
        assert paper.text is not None
    assert caplog.text.count("cannot be kept (OSError") == 1
    assert SECRET not in caplog.text
    assert await lived(paper, "..") == ["clear"]


async def test_the_end_saves_what_is_behind() -> None:
    paper = Paper("work", OSError(), OSError(), OSError(), OSError())
    process = Process(paper, Memory())
    async with process.alive():
        process.see("db", "cc")
        await process.time.settle()
        paper._script.clear()
        assert paper.text is None
    assert paper.text is not None


@pytest.fixture
def recorder() -> Callable[[Store, str], Recorder]:
    def make(store: Store, instance: str) -> Recorder:
        series = RequestSeries(Bounds((0.1, 1.0)), max_endpoints=10, exclude=None)
        return Recorder(store, requests=series, instance=instance, flush_seconds=60, spare=Off)

    return make


class TestHistoryShelf:
    async def test_each_instance_has_its_own(
        self, recorder: Callable[[Store, str], Recorder], tmp_path: Any
    ) -> None:
        file = tmp_path / "shop.sqlite"
        one = recorder(SQLite(file, max_mb=64), "web-1")
        await HistoryShelf(one, "web-1").save("one")
        await HistoryShelf(one, "web-2").save("two")
        await one.close()

        again = recorder(SQLite(file, max_mb=64), "web-1")
        assert await HistoryShelf(again, "web-1").load() == "one"
        assert await HistoryShelf(again, "web-2").load() == "two"
        assert await HistoryShelf(again, "web-3").load() is None
        await again.close()

    async def test_what_an_earlier_release_kept_is_read_until_there_is_something_newer(
        self, recorder: Callable[[Store, str], Recorder], tmp_path: Any
    ) -> None:
        one = recorder(SQLite(tmp_path / "shop.sqlite", max_mb=64), "web-1")
        await one.put_state("alerts web-1", "old")
        shelf = HistoryShelf(one, "here in production", "web-1")
        assert await shelf.load() == "old"
        await shelf.save("new")
        assert await shelf.load() == "new"
        assert await one.get_state("alerts web-1") == "old"
        await one.close()

    async def test_without_history_nothing_is_kept(
        self, recorder: Callable[[Store, str], Recorder]
    ) -> None:
        off = recorder(Off(), "web-1")
        await HistoryShelf(off, "web-1").save("one")
        assert await HistoryShelf(off, "web-1").load() is None
        await off.close()
