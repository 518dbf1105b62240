"""The cases that any alerting must get right, on a virtual clock, with Slack on this machine.

The numbers are those of a survey of what other systems get wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.alerts.incidents import Observation
from holistic_asgi_monitor.alerts.keeping import Keeper
from holistic_asgi_monitor.alerts.maintenance import Maintenance
from holistic_asgi_monitor.notifiers import Slack
from tests.alerts.rounds import NOON, seen
from tests.alerts.test_keeping import Paper
from tests.alerts.test_outbox import Post
from tests.alerts.virtual_time import eventually
from tests.notifiers.slack_stub import SECRET, Answer, SlackStub

ROUND = 30.0


class Line(Post):
    """An outbox with Slack, and rounds of checks half a minute apart."""

    def __init__(self, stub: SlackStub, *, timeout: float = 10.0, **settings: Any) -> None:
        super().__init__(Slack(stub.url, timeout=timeout), **settings)
        self.stub = stub
        self.wall_ahead = 0.0

    def round(self, *observations: Observation) -> None:
        time = NOON + timedelta(seconds=self.time.now + self.wall_ahead)
        self.outbox.post(observations, now=self.time.now, time=time)

    async def rounds(self, marks: str, *, key: str = "db") -> None:
        """A round for each mark, with what is sent because of it, and half a minute after it."""
        for mark in marks:
            self.see(key, mark)
            await self.delivered()
            await self.wait(ROUND)

    async def wait(self, seconds: float) -> None:
        """Let time pass, second by second where something may be under way."""
        end = self.time.now + seconds
        while self.time.now < end:
            step = 1.0 if self.stub.script or not self.outbox.up("slack") else seconds
            await self.time.pass_by(min(step, end - self.time.now))
            await self.delivered()

    async def delivered(self) -> None:
        """Wait, in real time, until nothing is under way."""
        (courier,) = self.outbox._couriers.values()
        await self.time.settle()
        while courier._sending is not None:
            await eventually(lambda: courier._sending is None)
            await self.time.settle()

    @property
    def reasons(self) -> list[str]:
        """What each request said, by its first word that tells it apart."""
        return [_reason(json.dumps(payload)) for payload in self.stub.payloads]


def _reason(text: str) -> str:
    words = {
        "was down": "was_down",
        "healthy again": "clear",
        "is now": "escalate",
        "is still": "remind",
        "keeps failing": "flapping",
        "db is ": "fire",
    }
    return next(reason for word, reason in words.items() if word in text)


@pytest.fixture
def stub() -> Iterator[SlackStub]:
    with SlackStub() as stub:
        yield stub


async def test_1_one_failed_round_is_no_message(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("...c...")
    assert stub.received == []


async def test_2_two_are_one_alarm_that_says_what_where_and_since_when(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("..cccc")
    (payload,) = stub.payloads
    text = json.dumps(payload)
    for word in ("db is critical", "db shows critical", "shop", "test", "web-1", "12:17:40"):
        assert word in text


async def test_3_one_good_round_is_no_all_clear_and_two_are_one(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("cc.c.cc")
        assert line.reasons == ["fire"]
        await line.rounds("...")
    assert line.reasons == ["fire", "clear"]
    assert "3 min" in json.dumps(stub.payloads[-1])


async def test_4_what_fails_three_times_is_delivered_once_and_the_cooldown_begins_then(
    stub: SlackStub,
) -> None:
    stub.script = [Answer(500, "")] * 3
    line = Line(stub)
    async with line.running():
        await line.rounds("cc")
        assert line.reasons == ["fire"] * 4
        late = line.time.now
        await line.rounds("c" * 30)
        assert line.reasons == ["fire"] * 4
        await line.rounds("c")
    assert late > 1000 + ROUND + 7
    assert line.reasons[4:] == ["remind"]


async def test_5_an_outage_within_one_of_slack_is_one_message_afterwards(stub: SlackStub) -> None:
    stub.script = [Answer(503, "")] * 50
    line = Line(stub)
    async with line.running():
        await line.rounds("." + "c" * 8 + "..")
        known = len(stub.received)
        stub.script.clear()
        await line.rounds("......")
    assert known > 5
    assert line.reasons[known:] == ["was_down"]


async def test_5_an_hour_without_slack_loses_and_doubles_nothing(stub: SlackStub) -> None:
    stub.script = [Answer(503, "")] * 500
    line = Line(stub)
    async with line.running():
        for number in range(120):
            line.see("db", "c" if number > 1 else ".")
            line.see("redis", "c" if 20 <= number < 40 else ".")
            await line.delivered()
            await line.time.pass_by(ROUND)
            await line.delivered()
        known = len(stub.received)
        stub.script.clear()
        await line.rounds("c" * 6)
    after = json.dumps(stub.payloads[known:])
    assert known > 50, "it is tried at least once a minute"
    assert len(stub.payloads) - known == 1, "all that there is to say goes into one message"
    assert ("db is critical" in after, "redis was down" in after) == (True, True)


async def test_6_an_all_clear_that_slack_did_not_take_comes_later(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("cccc")
        stub.script = [Answer(503, "")] * 4
        await line.rounds("........")
    assert line.reasons == ["fire", *["clear"] * 5]


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "2.5"}, 2),
        ({}, 1),
        ({"Retry-After": "soon"}, 1),
    ],
)
async def test_7_a_wait_that_slack_asks_for_is_kept_while_checks_go_on(
    stub: SlackStub, headers: dict[str, str], wait: int
) -> None:
    stub.script = [Answer(429, "", headers)]
    line = Line(stub)
    async with line.running():
        line.see("db", "cc")
        await line.delivered()
        for _ in range(wait - 1):
            await line.wait(1)
            line.see("db", "c")
        assert line.reasons == ["fire"]
        await line.wait(2)
    assert line.reasons == ["fire", "fire"]


async def test_7_a_wait_may_be_a_date(stub: SlackStub) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    stub.script = [Answer(429, "", {"Retry-After": date})]
    line = Line(stub)
    async with line.running():
        line.see("db", "cc")
        await line.wait(80)
        assert line.reasons == ["fire"]
        await line.wait(30)
    assert line.reasons == ["fire", "fire"]


@pytest.mark.parametrize(
    "answer",
    [Answer(404, "no_service"), Answer(410, "channel_is_archived"), Answer(403, "invalid_token")],
)
async def test_8_a_refusal_is_logged_once_and_not_tried_again_soon(
    stub: SlackStub, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    stub.script = [answer] * 3
    line = Line(stub)
    async with line.running():
        await line.rounds("c" * 20)
        assert line.reasons == ["fire"]
        assert not line.outbox.up("slack")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert SECRET not in caplog.text


async def test_8_an_answer_of_200_that_says_no_is_no_delivery(stub: SlackStub) -> None:
    stub.script = [Answer(200, "invalid_payload")]
    line = Line(stub)
    async with line.running():
        line.see("db", "cc")
        await line.delivered()
        assert not line.outbox.up("slack")


async def test_9_what_may_have_arrived_is_posted_at_most_twice(stub: SlackStub) -> None:
    stub.script = [Answer(act="hang")] * 5
    line = Line(stub, timeout=3.0)
    async with line.running():
        line.see("db", "cc")
        # The notifier's own timeout is of real time. The outbox's, a second more, is of this one:
        # a long step would end what a busy machine has not posted yet. Two minutes are the hold.
        for _ in range(100):
            await line.delivered()
            await line.time.pass_by(1)
    assert line.reasons == ["fire", "fire"]


async def test_10_what_never_answers_holds_up_neither_rounds_nor_the_end(stub: SlackStub) -> None:
    stub.script = [Answer(act="hang")] * 5
    line = Line(stub)
    async with line.running():
        line.see("db", "cc")
        await eventually(lambda: stub.received)
        for _ in range(100):
            line.see("db", "c")
        await line.time.settle()
        assert [row["key"] for row in line.outbox.as_dict()["open"]] == ["db"]
        began = anyio.current_time()
    # Its own timeout would be ten seconds away.
    assert anyio.current_time() - began < 5
    assert len(stub.received) == 1


async def test_11_what_fails_every_other_time_for_an_hour_is_three_messages(
    stub: SlackStub,
) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("c." * 60 + "." * 20)
    assert line.reasons == ["fire", "remind", "clear"]


async def test_14_worse_is_told_at_once_and_milder_is_no_end(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("ddccdddd....")
    assert line.reasons == ["fire", "escalate", "clear"]


async def test_15_what_fails_in_one_round_is_one_message(stub: SlackStub) -> None:
    line = Line(stub)
    async with line.running():
        for _ in range(2):
            line.round(*(seen(key, "c") for key in ("database", "redis", "openai")))
        await line.delivered()
    (payload,) = stub.payloads
    assert all(f"{key} is critical" in json.dumps(payload) for key in ("database", "redis"))


@pytest.mark.parametrize(("after", "reasons"), [("cccc", []), ("....", ["clear"])])
async def test_20_a_restart_in_an_incident(stub: SlackStub, after: str, reasons: list[str]) -> None:
    paper = Paper()
    for number, marks in enumerate(["cc", after]):
        line = Line(stub)
        line.time.now -= 900 * number
        async with _kept(line, paper):
            await line.rounds(marks)
    assert line.reasons == ["fire", *reasons]


@asynccontextmanager
async def _kept(line: Line, paper: Paper) -> AsyncIterator[None]:
    keeper = Keeper(line.outbox, paper, clock=line.time.clock, wall=lambda: NOON)
    await keeper.restore()
    async with anyio.create_task_group() as group:
        group.start_soon(keeper.run)
        async with line.running():
            yield
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("before", "within", "after", "reasons"),
    [
        ("cc", "....", "..", ["fire", "clear"]),
        ("cc", "cccc", "cc", ["fire"]),
        ("..", "cccc", "cc", ["fire"]),
        ("..", "cc..", "..", []),
    ],
)
async def test_24_maintenance(
    stub: SlackStub, before: str, within: str, after: str, reasons: list[str]
) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds(before)
        known = len(stub.received)
        async with Maintenance(line.outbox.quiet_times, "deploy", 60):
            await line.rounds(within)
            assert len(stub.received) == known
        await line.rounds(after)
    assert line.reasons == reasons


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_27_a_clock_that_jumps_changes_no_cooldown(stub: SlackStub, ahead: float) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds("cc")
        line.wall_ahead = ahead
        await line.rounds("c" * 28)
        assert line.reasons == ["fire"]
        await line.rounds("ccc")
    assert line.reasons == ["fire", "remind"]


@pytest.mark.parametrize("marks", ["cc", "....", "cc.", "c"])
async def test_29_the_end_itself_says_nothing(stub: SlackStub, marks: str) -> None:
    line = Line(stub)
    async with line.running():
        await line.rounds(marks)
        before = len(stub.received)
    await anyio.sleep(0.05)
    assert len(stub.received) == before
