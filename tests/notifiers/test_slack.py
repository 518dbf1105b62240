"""The Slack notifier against a webhook that speaks real HTTP: what it takes for what, and secrets."""

from __future__ import annotations

import builtins
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import Notifier
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.model import ConfigurationError, MissingExtraError
from holistic_asgi_monitor.notifiers import DeliveryError, Slack
from holistic_asgi_monitor.notifiers.slack_answers import judged
from holistic_asgi_monitor.settings import Settings
from tests.alerts.rounds import NOON as START
from tests.alerts.rounds import seen
from tests.alerts.virtual_time import eventually
from tests.notifiers.alerts import alarm, all_clear
from tests.notifiers.slack_stub import PATH, SECRET, Answer, SlackStub

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def stub() -> Iterator[SlackStub]:
    """A webhook on this machine."""
    with SlackStub() as stub:
        yield stub


async def refused(slack: Slack) -> DeliveryError:
    """The error with which a message is not delivered."""
    with pytest.raises(DeliveryError) as info:
        await slack.send([alarm()])
    return info.value


async def test_all_alerts_of_a_delivery_are_one_message(stub: SlackStub) -> None:
    await Slack(stub.url).send([alarm(), all_clear("redis")])

    (request,) = stub.received
    assert request.path == PATH
    assert request.headers["Content-Type"] == "application/json;charset=utf-8"
    assert "1 in trouble, 1 over" in request.payload["text"]


async def test_no_alerts_are_no_message(stub: SlackStub) -> None:
    await Slack(stub.url).send([])
    assert stub.received == []


async def test_one_object_sends_many_messages(stub: SlackStub) -> None:
    slack = Slack(stub.url)
    for _ in range(3):
        await slack.send([alarm()])
    assert len(stub.received) == 3


def test_it_serves_one_loop_after_another(stub: SlackStub) -> None:
    slack = Slack(stub.url)
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(slack.send, [alarm()], backend=backend)
    assert len(stub.received) == 3


ANSWERS: list[tuple[Answer, dict[str, Any]]] = [
    (Answer(200, "invalid_payload"), {"permanent": True}),
    (Answer(200, "<html>welcome to our wifi</html>"), {}),
    (Answer(200, "Ok"), {}),
    (Answer(200, ""), {}),
    (Answer(204, ""), {}),
    (Answer(400, "invalid_blocks"), {"permanent": True}),
    (Answer(403, "invalid_token"), {"permanent": True}),
    (Answer(404, "no_service"), {"permanent": True}),
    (Answer(404, "channel_not_found"), {"permanent": True}),
    (Answer(410, "channel_is_archived"), {"permanent": True}),
    (Answer(408, "slow"), {}),
    (Answer(429, "rate_limited"), {}),
    (Answer(429, "", {"Retry-After": "7"}), {"retry_after": 7.0}),
    (Answer(429, "", {"retry-after": "2.5"}), {"retry_after": 2.5}),
    (Answer(429, "", {"Retry-After": "soon"}), {}),
    (Answer(429, '{"retry_after":3,"ok":false,"error":"rate_limited"}'), {"retry_after": 3.0}),
    (Answer(500, "rollup_error"), {}),
    (Answer(502, "<html>"), {}),
    (Answer(503, "", {"Retry-After": "30"}), {"retry_after": 30.0}),
    (Answer(act="close"), {"ambiguous": True}),
    (Answer(act="cut"), {"ambiguous": True}),
    (Answer(charset="no-such-charset"), {"ambiguous": True}),
    (Answer(500, "\udcff\udcfe"), {"ambiguous": True}),
]


@pytest.mark.parametrize(
    ("answer", "meaning"), ANSWERS, ids=[repr(row[0])[7:60] for row in ANSWERS]
)
async def test_only_200_and_ok_is_a_delivery(
    answer: Answer, meaning: dict[str, Any], stub: SlackStub
) -> None:
    stub.script = [answer]
    error = await refused(Slack(stub.url))

    nothing = {"retry_after": None, "permanent": False, "ambiguous": False}
    found = {name: getattr(error, name) for name in nothing}
    assert found == nothing | meaning
    assert len(stub.received) == 1


async def test_ok_with_a_line_end_is_one_too(stub: SlackStub) -> None:
    stub.script = [Answer(200, "ok\n")]
    await Slack(stub.url).send([alarm()])


@pytest.mark.parametrize(
    ("headers", "body", "wait"),
    [
        ({}, "", None),
        ({"Retry-After": "7"}, "", 7.0),
        ({"retry-after": " 2.5 "}, "", 2.5),
        ({"Retry-After": "-3"}, "", 0.0),
        ({"Retry-After": "nan"}, "", None),
        ({"Retry-After": "inf"}, "", None),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=20), usegmt=True)}, "", 20.0),
        ({"Retry-After": format_datetime(NOW - timedelta(seconds=20), usegmt=True)}, "", 0.0),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:09 -0000"}, "", 9.0),
        ({"Retry-After": "Mon, 99 Foo 2026"}, "", None),
        ({"Retry-After": "Mon, 23 Nov 99999999999 12:00:09 GMT"}, "", None),
        ({"Retry-After": ""}, '{"retry_after": 4}', 4.0),
        ({}, '{"retry_after": null}', None),
        ({}, '{"retry_after": "x"}', None),
        ({}, "[" * 100_000, None),
        ({}, "[3]", None),
    ],
)
def test_how_long_to_wait_is_read_from_every_form(
    headers: dict[str, str], body: str, wait: float | None
) -> None:
    error = judged(429, body, headers, NOW)
    assert error is not None
    assert error.retry_after == wait


async def test_no_answer_in_time_may_be_a_delivery(stub: SlackStub) -> None:
    stub.script = [Answer(act="hang")]
    error = await refused(Slack(stub.url, timeout=0.2))

    assert (error.ambiguous, str(error)) == (True, "Slack did not answer within 0.2 s")


async def test_who_is_not_reached_has_got_nothing(stub: SlackStub) -> None:
    url = stub.url
    stub.__exit__(None, None, None)
    error = await refused(Slack(url))

    assert not error.ambiguous
    assert str(error) == "Slack could not be reached (ConnectionRefusedError)"


async def test_a_cancelled_send_ends_at_once_and_holds_up_nobody(stub: SlackStub) -> None:
    """The thread is left behind; as long as it lasts there is no second one."""
    stub.script = [Answer(act="hang")]
    slack = Slack(stub.url, timeout=30)
    began = time.monotonic()
    with anyio.move_on_after(0.2):
        await slack.send([alarm()])
    assert time.monotonic() - began < 5

    threads = [each for each in threading.enumerate() if each.name.endswith("monitor slack")]
    assert [each.daemon for each in threads] == [True]
    error = await refused(slack)
    assert str(error) == "the message before is still on its way"
    stub.released.set()
    await eventually(lambda: not threads[0].is_alive())
    await slack.send([alarm()])
    assert len(stub.received) == 2


class TestArguments:
    @pytest.mark.parametrize(
        "url",
        [
            "https://hooks.slack.com/services/T/B/X",
            "http://127.0.0.1:8080/x",
            "http://localhost/x",
            "http://[::1]:80/x",
        ],
    )
    def test_an_address_by_tls_or_within_this_machine_is_taken(self, url: str) -> None:
        slack = Slack(url)
        assert isinstance(slack, Notifier)
        assert (slack.name, slack.timeout) == ("slack", 10.0)

    @pytest.mark.parametrize(
        "url",
        [
            f"http://hooks.slack.com/{SECRET}",
            f"http://127.0.0.1.evil.example/{SECRET}",
            f"http://10.0.0.1/{SECRET}",
            f"ftp://127.0.0.1/{SECRET}",
            f"https:///{SECRET}",
            f"https://user:{SECRET}@hooks.slack.com/x",
            f"https://hooks.slack.com:0/{SECRET}",
            f"https://hooks.slack.com:99999/{SECRET}",
            f"https://[::1/{SECRET}",
            f"https://hooks.slack.com/{SECRET}\n",
            f"https://hooks.slack.com/{SECRET} x",
            f"https://hooks.slack.com/\u00fc{SECRET}",
            SECRET,
            "",
            None,
            b"https://hooks.slack.com/x",
        ],
    )
    def test_any_other_is_refused_and_not_shown(self, url: Any) -> None:
        with pytest.raises(ConfigurationError) as info:
            Slack(url)
        shown = "".join(traceback.format_exception(info.value))

        assert "https://" in str(info.value)
        assert SECRET not in shown
        assert info.value.__context__ is None

    @pytest.mark.parametrize("timeout", [0, -1, 301, float("nan"), True, "10", None])
    def test_a_timeout_is_a_number_of_seconds(self, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match="seconds above 0 and at most 300"):
            Slack("https://hooks.slack.com/x", timeout=timeout)

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
            Slack("https://hooks.slack.com/x")


class TestSecrets:
    def test_the_address_is_not_in_the_repr(self) -> None:
        slack = Slack(f"https://hooks.slack.com/{SECRET}")
        assert SECRET not in repr(slack) + str(slack) + repr([slack])

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(500),
            Answer(429, "", {"Retry-After": "1"}),
            Answer(404, f"no {SECRET}"),
            Answer(302, "", {"Location": f"file:///{SECRET}"}),
            Answer(act="close"),
            Answer(act="cut"),
        ],
        ids=str,
    )
    async def test_it_is_in_no_log_and_no_error(
        self,
        answer: Answer,
        stub: SlackStub,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """At no level, not through slack_sdk's logger, not in the causes of the error."""
        for name in (None, "slack_sdk", "urllib", "http"):
            caplog.set_level(logging.DEBUG, name)
        stub.script = [answer]
        error: BaseException | None = await refused(Slack(stub.url))
        while error is not None:
            assert SECRET not in repr(error)
            error = error.__cause__ or error.__context__

        assert SECRET not in caplog.text
        assert SECRET not in "".join(capfd.readouterr())


async def test_through_the_outbox_it_outlives_an_outage_of_slack(stub: SlackStub) -> None:
    """Errors, a wait, a hang-up: the alarm arrives once, late, and then the all-clear."""
    stub.script = [
        Answer(500, "rollup_error"),
        Answer(429, "", {"Retry-After": "1.2"}),
        Answer(act="close"),
    ]
    outcomes: list[str] = []
    outbox = Outbox(
        [Slack(stub.url)],
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
        see("cc")
        await eventually(lambda: "delivered" in outcomes)
        see("..")
        await eventually(lambda: outcomes.count("delivered") == 2)
        group.cancel_scope.cancel()

    said = [payload["text"] for payload in stub.payloads]
    assert outcomes == ["failed"] * 3 + ["delivered"] * 2
    assert all("db is critical" in text for text in said[:4])
    assert "db is healthy again" in said[4]
    assert len(said) == 5
    moments = [request.moment for request in stub.received]
    assert moments[2] - moments[1] >= 0.12


async def test_an_answer_that_never_comes_is_not_asked_for_a_third_time(stub: SlackStub) -> None:
    stub.script = [Answer(act="hang") for _ in range(9)]
    outbox = Outbox(
        [Slack(stub.url, timeout=0.1)],
        Settings(service="shop", startup_grace_seconds=0),
        outcome=lambda *_: None,
        clock=lambda: time.monotonic() * 10,
        sleep=lambda seconds: anyio.sleep(seconds / 10),
    )
    for mark in "cc":
        outbox.post([seen("db", mark)], now=time.monotonic() * 10, time=START)
    with anyio.move_on_after(1.5):
        await outbox.run()

    assert len(stub.received) == 2
