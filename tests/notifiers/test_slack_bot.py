"""Slack by a bot's token, against the wire format of its Web API: threads, edits, refusals."""

from __future__ import annotations

import builtins
import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import ConfigurationError, MissingExtraError, Notifier, Severity
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.model import Alert
from holistic_asgi_monitor.notifiers import DeliveryError, Slack
from holistic_asgi_monitor.notifiers.slack_threads import MOST_THREADS, Threads
from holistic_asgi_monitor.settings import Settings
from tests.alerts.rounds import NOON as START
from tests.alerts.rounds import seen
from tests.alerts.virtual_time import eventually
from tests.notifiers.alerts import alarm, all_clear, notice
from tests.notifiers.slack_stub import (
    CHANNEL,
    CHANNEL_ID,
    SECRET,
    TOKEN,
    Answer,
    SlackStub,
    api_answer,
    api_error,
)


@pytest.fixture
def stub() -> Iterator[SlackStub]:
    """Slack on this machine."""
    with SlackStub() as stub:
        yield stub


@pytest.fixture
def slack(stub: SlackStub) -> Slack:
    """A bot of it."""
    return bot(stub)


def bot(stub: SlackStub, **options: Any) -> Slack:
    given: dict[str, Any] = {"token": TOKEN, "channel": CHANNEL, "api_url": stub.api_url}
    return Slack(**given | options)


def worse(key: str = "database", **more: Any) -> Alert:
    return alarm(key, title=f"{key} is now critical (was degraded)", reason="escalate", **more)


def reminder(key: str = "database") -> Alert:
    return alarm(key, title=f"{key} is still critical", reason="remind")


def calls(stub: SlackStub) -> list[tuple[str, str | None, bool]]:
    """Of each request the method, the message it concerns, and whether the channel sees it too."""
    return [
        (
            each.method,
            each.payload.get("thread_ts") or each.payload.get("ts"),
            each.payload.get("reply_broadcast", False),
        )
        for each in stub.received
    ]


def said(payload: Any) -> str:
    """Everything that stands in a message."""
    return json.dumps(payload["blocks"], ensure_ascii=False)


async def refused(slack: Slack, *alerts: Alert) -> DeliveryError:
    """The error with which alerts are not delivered."""
    with pytest.raises(DeliveryError) as info:
        await slack.send(alerts or [alarm()])
    return info.value


async def test_what_is_new_is_one_message_to_the_channel(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm(), alarm("redis"), notice()])

    (request,) = stub.received
    assert request.path == "/api/chat.postMessage"
    assert request.headers["Content-Type"] == "application/json;charset=utf-8"
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.payload["channel"] == CHANNEL
    assert "2 in trouble, 1 to note" in request.payload["text"]
    assert not {"thread_ts", "reply_broadcast"} & set(request.payload)


async def test_the_all_clear_is_in_the_thread_and_the_channel_and_the_alarm_is_edited(
    stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    (ts,) = stub.messages
    await slack.send([all_clear(details={"was": "critical: no answer within 4 s"})])

    assert calls(stub)[1:] == [("chat.postMessage", ts, True), ("chat.update", ts, False)]
    reply, edit = stub.payloads[1:]
    assert (reply["channel"], edit["channel"]) == (CHANNEL_ID, CHANNEL_ID)
    assert "database is healthy again" in reply["text"]
    assert "It lasted 4 min 10 s" in said(edit)
    assert "was: critical: no answer within 4 s" in said(edit)
    assert stub.messages[ts] is edit
    assert slack.state()["threads"] == []


async def test_only_what_is_worse_leaves_the_thread(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm(severity=Severity.WARNING)])
    (ts,) = stub.messages
    await slack.send([worse()])
    await slack.send([reminder()])
    await slack.send([alarm(severity=Severity.WARNING, reason="ease")])

    assert calls(stub)[1:] == [
        ("chat.postMessage", ts, True),
        ("chat.postMessage", ts, False),
        ("chat.postMessage", ts, False),
    ]


async def test_alarms_of_one_message_end_one_by_one(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm(), alarm("redis")])
    (ts,) = stub.messages
    await slack.send([all_clear("redis")])

    assert "1 in trouble, 1 over" in stub.messages[ts]["text"]
    assert "database is critical" in said(stub.messages[ts])
    await slack.send([all_clear()])
    assert "2 over" in stub.messages[ts]["text"]
    assert slack.state()["threads"] == []


async def test_what_belongs_to_different_messages_is_answered_in_each(
    stub: SlackStub, slack: Slack
) -> None:
    for key in ("a", "b", "c"):
        await slack.send([alarm(key)])
    first, second, _ = stub.messages
    await slack.send([all_clear("a"), all_clear("b"), alarm("d")])

    new, *answers = calls(stub)[3:]
    assert new == ("chat.postMessage", None, False)
    assert answers == [
        ("chat.postMessage", first, True),
        ("chat.postMessage", second, True),
        ("chat.update", first, False),
        ("chat.update", second, False),
    ]


async def test_many_threads_at_once_are_one_message_and_all_are_edited(
    stub: SlackStub, slack: Slack
) -> None:
    keys = [f"check {number}" for number in range(6)]
    for key in keys:
        await slack.send([alarm(key)])
    alarms = list(stub.messages)
    await slack.send([all_clear(key) for key in keys])

    assert calls(stub)[6] == ("chat.postMessage", None, False)
    assert calls(stub)[7:] == [("chat.update", ts, False) for ts in alarms]


async def test_a_new_incident_has_a_new_message(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm()])
    await slack.send([all_clear()])
    await slack.send([alarm()])
    await slack.send([alarm()])
    newest = list(stub.messages)[-1]
    await slack.send([all_clear()])

    assert calls(stub)[3:] == [
        ("chat.postMessage", None, False),
        ("chat.postMessage", None, False),
        ("chat.postMessage", newest, True),
        ("chat.update", newest, False),
    ]
    assert slack.state()["threads"] == []


@pytest.mark.parametrize("alert", [all_clear(), worse(), reminder()], ids=lambda each: each.reason)
async def test_without_a_known_alarm_it_is_a_plain_message(
    stub: SlackStub, slack: Slack, alert: Alert
) -> None:
    await slack.send([alert])
    assert calls(stub) == [("chat.postMessage", None, False)]


async def test_what_gets_worse_unknown_begins_a_thread(stub: SlackStub, slack: Slack) -> None:
    await slack.send([worse()])
    (ts,) = stub.messages
    await slack.send([all_clear()])
    assert calls(stub)[1] == ("chat.postMessage", ts, True)


async def test_the_threads_outlive_a_restart(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm(details={"n": [1, "\u202e"]}), alarm("redis")])
    (ts,) = stub.messages
    kept = json.dumps(slack.state())

    after = bot(stub)
    after.restore(json.loads(kept))
    assert after.state() == slack.state()
    await after.send([all_clear()])
    assert calls(stub)[1:] == [("chat.postMessage", ts, True), ("chat.update", ts, False)]
    assert "1 in trouble, 1 over" in stub.messages[ts]["text"]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "channel": CHANNEL, "threads": [{}]},
        {"version": 1, "channel": CHANNEL, "threads": None},
        {"version": 1, "channel": CHANNEL, "threads": [None, {}, [], 7, {"alerts": None}]},
        {"version": 1, "channel": CHANNEL, "threads": [{"channel": "C", "ts": 1, "alerts": []}]},
        {"version": 1, "channel": CHANNEL, "threads": [{"channel": "C", "ts": "1", "alerts": [7]}]},
    ],
)
async def test_a_state_that_is_none_is_left(state: Any, slack: Slack) -> None:
    slack.restore(state)
    assert slack.state()["threads"] == []


async def test_the_state_of_another_channel_is_left(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm()])
    other = bot(stub, channel="#other")
    other.restore(slack.state())
    assert other.state()["threads"] == []


def test_the_memory_is_bounded() -> None:
    threads = Threads(CHANNEL)
    long = "x" * 5000
    many = MOST_THREADS + 50
    for number in range(many):
        details = {f"{long}{each}": long for each in range(20)}
        alert = alarm(f"k{number}", title=long, summary=long, service=long, details=details)
        threads.begin(CHANNEL_ID, str(number), [alert])

    state = threads.state()
    assert len(state["threads"]) == MOST_THREADS
    assert threads.of("k0") is None
    assert threads.of(f"k{many - 1}") is not None
    assert len(json.dumps(state)) < 6000 * MOST_THREADS


@pytest.mark.parametrize("word", ["thread_not_found", "cannot_reply_to_message", "something_new"])
async def test_a_deleted_alarm_does_not_keep_the_all_clear_back(
    word: str, stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    (ts,) = stub.messages
    stub.script = [api_error(word)]
    await slack.send([all_clear()])

    assert calls(stub)[1:] == [("chat.postMessage", ts, True), ("chat.postMessage", None, False)]
    assert slack.state()["threads"] == []


async def test_a_thread_is_kept_where_nothing_at_all_is_taken(
    stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    stub.script = [api_error("token_revoked")] * 2
    assert (await refused(slack, all_clear())).permanent
    await slack.send([all_clear()])

    (ts, _) = stub.messages
    assert calls(stub)[3] == ("chat.postMessage", ts, True)


@pytest.mark.parametrize("word", ["ratelimited", "internal_error", "service_unavailable"])
async def test_what_passes_by_leaves_the_thread_as_it_is(
    word: str, stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    (ts,) = stub.messages
    stub.script = [api_error(word)]
    assert not (await refused(slack, all_clear())).permanent
    await slack.send([all_clear()])
    assert calls(stub)[1:3] == [("chat.postMessage", ts, True)] * 2


async def test_what_has_arrived_is_not_posted_again_with_the_rest(
    stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    (ts,) = stub.messages
    delivery = [alarm("redis"), all_clear()]
    stub.script = [None, api_answer(429, {"Retry-After": "3"}, ok=False, error="ratelimited")]
    assert (await refused(slack, *delivery)).retry_after == 3.0
    await slack.send(delivery)
    await slack.send([alarm("redis")])

    assert calls(stub)[1:] == [
        ("chat.postMessage", None, False),
        ("chat.postMessage", ts, True),
        ("chat.postMessage", ts, True),
        ("chat.update", ts, False),
        ("chat.postMessage", None, False),
    ]


async def test_an_edit_that_fails_fails_nothing_and_is_made_up_for(
    stub: SlackStub, slack: Slack
) -> None:
    await slack.send([alarm()])
    (ts,) = stub.messages
    stub.script = [None, Answer(500, "")]
    await slack.send([all_clear()])
    assert "is critical" in stub.messages[ts]["text"]

    await slack.send([notice()])
    assert "is healthy again" in stub.messages[ts]["text"]


async def test_an_edit_that_is_refused_is_given_up(stub: SlackStub, slack: Slack) -> None:
    await slack.send([alarm()])
    stub.script = [None, api_error("is_archived")]
    await slack.send([all_clear()])
    await slack.send([notice()])
    assert [call[0] for call in calls(stub)].count("chat.update") == 1


REFUSALS: list[tuple[Answer, dict[str, Any], str]] = [
    (api_error("invalid_auth"), {"permanent": True}, "invalid_auth (the token is not valid)"),
    (api_error("token_revoked"), {"permanent": True}, "token_revoked (the token was revoked)"),
    (
        api_error("channel_not_found"),
        {"permanent": True},
        "channel_not_found (there is no such channel",
    ),
    (api_error("not_in_channel"), {"permanent": True}, "not_in_channel (the bot must be invited"),
    (api_error("missing_scope"), {"permanent": True}, "missing_scope (the bot needs the scope"),
    (api_error("is_archived"), {"permanent": True}, "is_archived (the channel is archived)"),
    (api_error("msg_too_long"), {"permanent": True}, "msg_too_long"),
    (api_error("account_inactive"), {"permanent": True}, "account_inactive"),
    (api_error("internal_error"), {}, "internal_error"),
    (api_error("fatal_error"), {}, "fatal_error"),
    (api_error("service_unavailable"), {}, "service_unavailable"),
    (api_error("something_new"), {}, "something_new"),
    (api_error("rate_limited"), {}, "rate_limited"),
    (
        api_answer(429, {"Retry-After": "30"}, ok=False, error="ratelimited"),
        {"retry_after": 30.0},
        "ratelimited",
    ),
    (Answer(429, "", {"Retry-After": "2.5"}), {"retry_after": 2.5}, "429"),
    (Answer(503, "<html>", {"Retry-After": "5"}), {"retry_after": 5.0}, "503"),
    (Answer(500, ""), {}, "500"),
    (Answer(404, "<html>"), {"permanent": True}, "404"),
    (Answer(200, "<html>welcome to our wifi</html>"), {}, "200"),
    (Answer(200, "[]"), {}, ""),
    (Answer(200, "[1]"), {"ambiguous": True}, ""),
    (Answer(act="close"), {"ambiguous": True}, "the connection without an answer"),
    (Answer(act="cut"), {"ambiguous": True}, ""),
    (Answer(charset="no-such-charset"), {"ambiguous": True}, ""),
]


@pytest.mark.parametrize(
    ("answer", "meaning", "words"), REFUSALS, ids=[repr(row[0])[7:60] for row in REFUSALS]
)
async def test_what_a_refusal_means(
    answer: Answer, meaning: dict[str, Any], words: str, stub: SlackStub, slack: Slack
) -> None:
    stub.script = [answer]
    error = await refused(slack)

    nothing = {"retry_after": None, "permanent": False, "ambiguous": False}
    assert {name: getattr(error, name) for name in nothing} == nothing | meaning
    assert words in str(error)
    assert len(stub.received) == 1


async def test_ok_without_a_place_is_a_delivery_without_a_thread(
    stub: SlackStub, slack: Slack
) -> None:
    stub.script = [api_answer(ok=True)]
    await slack.send([alarm()])
    assert slack.state()["threads"] == []


async def test_no_answer_in_time_may_be_a_delivery(stub: SlackStub) -> None:
    stub.script = [Answer(act="hang")]
    error = await refused(bot(stub, timeout=0.2))
    assert (error.ambiguous, str(error)) == (True, "Slack did not answer within 0.2 s")


async def test_the_timeout_is_for_the_whole_delivery(stub: SlackStub) -> None:
    """A second message does not get the time that the first one has used."""
    slack = bot(stub, timeout=1.0)
    await slack.send([alarm("a")])
    await slack.send([alarm("b")])
    late = Answer(200, '{"ok": true}', delay=0.6, kind="application/json")
    stub.script = [late, late]
    error = await refused(slack, all_clear("a"), all_clear("b"))

    assert str(error) == "Slack did not answer within 1 s"


async def test_who_is_not_reached_has_got_nothing(stub: SlackStub, slack: Slack) -> None:
    stub.__exit__(None, None, None)
    error = await refused(slack)
    assert str(error) == "Slack could not be reached (ConnectionRefusedError)"


def test_it_serves_one_loop_after_another(stub: SlackStub, slack: Slack) -> None:
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(slack.send, [alarm()], backend=backend)
    assert len(stub.messages) == 3


class TestArguments:
    def test_a_token_and_a_channel_are_taken(self) -> None:
        slack = Slack(token=TOKEN, channel="C0G9QF9GZ")
        assert isinstance(slack, Notifier)
        assert (slack.name, slack.timeout) == ("slack", 10.0)
        assert SECRET not in repr(slack)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"token": TOKEN}, "The channel of notifiers.Slack is 'None'"),
            ({"token": TOKEN, "channel": ""}, "The channel of notifiers.Slack is ''"),
            ({"token": TOKEN, "channel": "two words"}, "it must be the name or the id"),
            ({"token": TOKEN, "channel": 7}, "it must be the name or the id"),
            ({"channel": CHANNEL}, "The token of notifiers.Slack is not shown and refused"),
            ({"token": "", "channel": CHANNEL}, "not shown and refused"),
            ({"token": f"{SECRET}\n", "channel": CHANNEL}, "not shown and refused"),
            ({"token": f"{SECRET}\u00fc", "channel": CHANNEL}, "not shown and refused"),
            ({"token": 7, "channel": CHANNEL}, "not shown and refused"),
            (
                {"webhook_url": f"https://x/{SECRET}", "token": TOKEN, "channel": CHANNEL},
                "either a webhook_url, or a token and a channel, not both",
            ),
            ({"webhook_url": f"https://x/{SECRET}", "channel": CHANNEL}, "not both"),
            ({"token": TOKEN, "channel": CHANNEL, "api_url": f"http://x/{SECRET}"}, "The api_url"),
            ({}, "or give token and channel"),
        ],
    )
    def test_anything_else_is_one_sentence_without_a_secret(
        self, options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(ConfigurationError) as info:
            Slack(**options)
        assert sentence in str(info.value)
        assert SECRET not in "".join(traceback.format_exception(info.value))

    def test_without_the_extra_it_says_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = builtins.__import__

        def without(name: str, *rest: Any) -> Any:
            if name.partition(".")[0] == "slack_sdk":
                raise ImportError(name)
            return real(name, *rest)

        for name in [name for name in sys.modules if name.partition(".")[0] == "slack_sdk"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=r"holistic-asgi-monitor\[slack\]"):
            Slack(token=TOKEN, channel=CHANNEL)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500),
        api_error("invalid_auth"),
        Answer(200, f"no {SECRET}"),
        Answer(302, "", {"Location": f"file:///{SECRET}"}),
        Answer(act="close"),
        Answer(act="cut"),
    ],
    ids=str,
)
async def test_the_token_is_in_no_log_and_no_error(
    answer: Answer,
    stub: SlackStub,
    slack: Slack,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in (None, "slack_sdk", "urllib", "http"):
        caplog.set_level(logging.DEBUG, name)
    stub.script = [answer]
    error: BaseException | None = await refused(slack)
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__
    assert SECRET not in caplog.text + "".join(capfd.readouterr())


async def test_through_the_outbox_an_outage_is_one_thread(stub: SlackStub, slack: Slack) -> None:
    stub.script = [Answer(500), Answer(act="close")]
    outcomes: list[str] = []
    outbox = Outbox(
        [slack],
        Settings(service="shop", startup_grace_seconds=0),
        outcome=lambda _, outcome: outcomes.append(outcome),
        sleep=lambda seconds: anyio.sleep(seconds / 10),
        clock=lambda: time.monotonic() * 10,
    )

    def see(marks: str) -> None:
        for mark in marks:
            outbox.post([seen("db", mark)], now=time.monotonic() * 10, time=START)

    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        see("dd")
        await eventually(lambda: "delivered" in outcomes)
        see("cc")
        await eventually(lambda: outcomes.count("delivered") == 2)
        see("..")
        await eventually(lambda: outcomes.count("delivered") == 3)
        group.cancel_scope.cancel()

    root = next(iter(stub.messages))
    assert calls(stub)[2:] == [
        ("chat.postMessage", None, False),
        ("chat.postMessage", root, True),
        ("chat.postMessage", root, True),
        ("chat.update", root, False),
    ]
    await eventually(
        lambda: not [each for each in threading.enumerate() if each.name.endswith("slack")]
    )
