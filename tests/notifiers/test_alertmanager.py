"""Alertmanager: what is posted, and that a real one receives, groups and resolves it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor import ConfigurationError, Notifier, Settings, Severity
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.model import Alert, AlertState
from holistic_asgi_monitor.notifiers import Alertmanager, DeliveryError
from holistic_asgi_monitor.notifiers.alertmanager import MOST_KEYS, entries
from tests.alerts.rounds import seen
from tests.alerts.virtual_time import VirtualTime, eventually
from tests.notifiers.alerts import NOON, alarm, all_clear, notice
from tests.notifiers.receiver import Receiver
from tests.notifiers.slack_stub import SECRET, Answer
from tests.servers.alertmanager import Alertmanager as RealOne

LATER = NOON + timedelta(minutes=5)
DAY = 86_400.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with Receiver() as receiver:
        yield receiver


def posted(*alerts: Alert, told: dict[str, Severity] | None = None) -> list[dict[str, Any]]:
    return list(entries(alerts, told or {}, LATER, DAY))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_an_alarm_has_labels_for_a_routing_and_words_for_a_reader() -> None:
    (row,) = posted(
        alarm(
            details={"impact": "bad", "affected": ["a", "b"]},
            dashboard_url="https://shop.example/dash",
            runbook_url="https://wiki.example/run",
        )
    )
    assert row == {
        "labels": {
            "alertname": "database",
            "severity": "critical",
            "service": "shop",
            "environment": "production",
            "instance": "web-1",
            "key": "database",
        },
        "annotations": {
            "summary": "database is critical",
            "description": 'no answer within 4 s\nimpact: bad\naffected: ["a", "b"]',
            "runbook_url": "https://wiki.example/run",
            "dashboard": "https://shop.example/dash",
        },
        "startsAt": "2026-11-23T12:00:00.000+00:00",
        "endsAt": "2026-11-24T12:05:00.000+00:00",
        "generatorURL": "https://shop.example/dash",
    }


def test_the_all_clear_has_the_same_labels_and_ends_when_it_was_over() -> None:
    (alarmed,), (cleared,) = posted(alarm()), posted(all_clear())
    assert cleared["labels"] == alarmed["labels"]
    assert cleared["startsAt"] == alarmed["startsAt"]
    assert cleared["endsAt"] == "2026-11-23T12:04:10.000+00:00"


def test_an_all_clear_without_a_time_or_from_a_later_clock_ends_now() -> None:
    for ended in (None, LATER + timedelta(hours=1)):
        (row,) = posted(all_clear(ended_at=ended))
        assert moment(row["endsAt"]) == LATER


def test_nothing_ends_before_it_begins() -> None:
    (row,) = posted(all_clear(started_at=NOON + timedelta(hours=1)))
    assert moment(row["startsAt"]) <= moment(row["endsAt"])


@pytest.mark.parametrize("reason", ["escalate", "ease"])
def test_with_another_severity_the_one_before_ends(reason: str) -> None:
    former, new = posted(alarm(reason=reason), told={"database": Severity.WARNING})

    assert [row["labels"]["severity"] for row in (former, new)] == ["warning", "critical"]
    assert moment(former["endsAt"]) == LATER
    assert moment(new["endsAt"]) > LATER


def test_after_a_restart_every_other_severity_ends() -> None:
    *former, new = posted(alarm(reason="escalate"))
    assert {row["labels"]["severity"] for row in former} == {"info", "warning", "error"}
    assert {moment(row["endsAt"]) for row in former} == {LATER}
    assert new["labels"]["severity"] == "critical"


def test_an_all_clear_of_another_severity_ends_both() -> None:
    rows = posted(all_clear(), told={"database": Severity.ERROR})
    assert [row["labels"]["severity"] for row in rows] == ["error", "critical"]
    assert all(moment(row["endsAt"]) < LATER for row in rows)


@pytest.mark.parametrize(
    ("alert", "severity"),
    [
        (notice("Deployed"), "info"),
        (notice("Broken", severity=Severity.CRITICAL), "critical"),
        (all_clear(reason="was_down", title="database was down 12:00"), "warning"),
        (all_clear(reason="was_down", severity=Severity.INFO), "info"),
    ],
)
def test_what_opens_no_incident_stands_there_for_a_while(alert: Alert, severity: str) -> None:
    (row,) = posted(alert)
    assert row["labels"]["severity"] == severity
    assert moment(row["endsAt"]) == LATER + timedelta(minutes=15)


def test_empty_labels_are_left_out_and_there_is_always_one() -> None:
    (row,) = posted(alarm("\x00", service="", environment="", instance=""))
    assert row["labels"] == {"alertname": "alert", "severity": "critical", "key": "alert"}


async def test_it_is_posted_to_the_api_below_any_path(receiver: Receiver) -> None:
    for path in ("", "/", "/am", "/am/", "/am/api/v2/alerts"):
        await Alertmanager(f"{receiver.url}{path}").send([alarm(), all_clear("redis")])

    assert [request.path for request in receiver.received] == [
        *["/api/v2/alerts"] * 2,
        *["/am/api/v2/alerts"] * 3,
    ]
    assert len(receiver.payloads[0]) == 2
    assert receiver.received[0].headers["Content-Type"] == "application/json"


async def test_a_user_and_a_password_are_basic_authentication(receiver: Receiver) -> None:
    url = receiver.url.replace("http://", "http://me:p%40ss@")
    await Alertmanager(url).send([alarm()])
    assert receiver.received[0].headers["Authorization"] == "Basic bWU6cEBzcw=="


async def test_only_what_was_delivered_counts_as_told(receiver: Receiver) -> None:
    notifier = Alertmanager(receiver.url)
    await notifier.send([alarm(severity=Severity.WARNING)])
    receiver.script = [Answer(500, "")]
    with pytest.raises(DeliveryError):
        await notifier.send([alarm(reason="escalate")])
    await notifier.send([alarm(reason="escalate")])
    await notifier.send([alarm(reason="remind")])
    await notifier.send([all_clear()])

    severities = [[row["labels"]["severity"] for row in each] for each in receiver.payloads]
    assert severities == [
        ["warning"],
        ["warning", "critical"],
        ["warning", "critical"],
        ["critical"],
        ["critical"],
    ]
    assert notifier.state() == {}


async def test_the_severities_outlive_a_restart_and_are_bounded(receiver: Receiver) -> None:
    notifier = Alertmanager(receiver.url)
    await notifier.send([alarm(severity=Severity.WARNING), alarm("redis")])
    after = Alertmanager(receiver.url)
    after.restore(json.loads(json.dumps(notifier.state())) | {"odd": 7, "odder": []})
    assert after.state() == notifier.state() == {"database": "warning", "redis": "critical"}
    await after.send([alarm(reason="escalate")])
    assert len(receiver.payloads[-1]) == 2

    await after.send([alarm(f"k{number}") for number in range(MOST_KEYS + 10)])
    assert len(after.state()) == MOST_KEYS


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (Answer(400, '"bad"'), {"permanent": True}),
        (Answer(404, ""), {"permanent": True}),
        (Answer(429, "", {"Retry-After": "9"}), {"retry_after": 9.0}),
        (Answer(500, ""), {}),
        (Answer(act="close"), {}),
        (Answer(act="hang"), {}),
    ],
    ids=str,
)
async def test_what_an_answer_means(
    answer: Answer, meaning: dict[str, Any], receiver: Receiver
) -> None:
    """No answer is not a doubt: the same alert twice is one."""
    receiver.script = [answer]
    with pytest.raises(DeliveryError, match=r"^Alertmanager ") as info:
        await Alertmanager(receiver.url, timeout=0.5).send([alarm()])
    nothing = {"retry_after": None, "permanent": False, "ambiguous": False}
    assert {name: getattr(info.value, name) for name in nothing} == nothing | meaning


async def test_no_alerts_are_no_request(receiver: Receiver) -> None:
    await Alertmanager(receiver.url).send([])
    assert receiver.received == []


class TestArguments:
    def test_it_is_a_notifier_that_shows_no_secret(self) -> None:
        notifier = Alertmanager(f"https://me:{SECRET}@alerts.example/{SECRET}")
        assert isinstance(notifier, Notifier)
        assert (notifier.name, notifier.timeout) == ("alertmanager", 10.0)
        assert SECRET not in repr(notifier)

    @pytest.mark.parametrize("url", [SECRET, f"ftp://{SECRET}", "", None])
    def test_a_wrong_address_is_not_shown(self, url: Any) -> None:
        with pytest.raises(ConfigurationError, match=r"url of notifiers\.Alertmanager") as info:
            Alertmanager(url)
        assert SECRET not in "".join(traceback.format_exception(info.value))

    @pytest.mark.parametrize("options", [{"timeout": 0}, {"lasting": 59}, {"lasting": "1"}])
    def test_times_are_numbers_of_seconds(self, options: Any) -> None:
        with pytest.raises(ConfigurationError, match="number of seconds"):
            Alertmanager("https://alerts.example", **options)


@given(text=st.text(), state=st.sampled_from(AlertState), severity=st.sampled_from(Severity))
def test_every_row_is_one_that_alertmanager_takes(
    text: str, state: AlertState, severity: Severity
) -> None:
    alert = alarm(text, title=text * 50, summary=text * 100, state=state, severity=severity)
    for row in entries([alert], {}, LATER, DAY):
        assert all(row["labels"].values())
        assert all(len(value) <= 4000 for value in row["annotations"].values())
        assert moment(row["startsAt"]) <= moment(row["endsAt"])
        json.dumps(row).encode("utf-8")


# --- a real one ---


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """Where Alertmanager sends what it makes of the alerts."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def real(hook: Receiver, alertmanager_program: Path) -> Iterator[RealOne]:
    """A real Alertmanager, its pages below a path."""
    with RealOne(alertmanager_program, f"{hook.url}/hook", prefix="/am") as server:
        yield server


def groups(hook: Receiver) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Of each message the state of the group, and key, severity and state of its alerts."""
    return [
        (
            payload["status"],
            sorted(
                (each["labels"]["key"], each["labels"]["severity"], each["status"])
                for each in payload["alerts"]
            ),
        )
        for payload in hook.payloads
    ]


def fresh(alert: Alert, **more: Any) -> Alert:
    """The alert of a moment ago."""
    began = datetime.now(UTC) - timedelta(seconds=30)
    ended = {"ended_at": began + timedelta(seconds=20)} if alert.ended_at else {}
    return alarm(**{**_fields(alert), "started_at": began, **ended, **more})


def _fields(alert: Alert) -> dict[str, Any]:
    return {name: getattr(alert, name) for name in Alert.__dataclass_fields__}


async def test_a_real_one_receives_groups_and_resolves(real: RealOne, hook: Receiver) -> None:
    notifier = Alertmanager(real.url)
    await notifier.send([fresh(alarm(severity=Severity.WARNING)), fresh(alarm("redis"))])
    await eventually(lambda: len(hook.received) == 2)
    assert sorted(groups(hook)) == [
        ("firing", [("database", "warning", "firing")]),
        ("firing", [("redis", "critical", "firing")]),
    ]
    (burning,) = [each for each in real.alerts() if each["labels"]["key"] == "database"]
    assert burning["annotations"]["summary"] == "database is critical"
    assert moment(burning["endsAt"].replace("Z", "+00:00")) - datetime.now(UTC) > timedelta(
        hours=23
    )

    hook.received.clear()
    await notifier.send([fresh(alarm(reason="escalate"))])
    await eventually(lambda: hook.received)
    both = [("database", "critical", "firing"), ("database", "warning", "resolved")]
    assert groups(hook)[0] == ("firing", both)

    hook.received.clear()
    await notifier.send([fresh(all_clear())])
    await eventually(lambda: hook.received)
    assert groups(hook)[0] == ("resolved", [("database", "critical", "resolved")])
    assert [each["labels"]["key"] for each in real.alerts()] == ["redis"]


async def test_a_real_one_takes_everything_that_may_come(real: RealOne, hook: Receiver) -> None:
    hostile = "<!channel> & \x00\u202e\ud83d " + "x" * 5000
    many = [alarm(f"{number} {hostile}", title=hostile, summary=hostile) for number in range(60)]
    others = [notice(hostile), all_clear(hostile, reason="was_down"), all_clear("unknown")]
    await Alertmanager(real.url).send([fresh(each) for each in [*many, *others]])

    await eventually(lambda: len(hook.received) == 62)
    assert len(real.alerts()) == 62


async def test_through_the_outbox_its_reader_hears_of_alarm_and_end(
    real: RealOne, hook: Receiver
) -> None:
    time = VirtualTime()
    outbox = Outbox(
        [Alertmanager(real.url)],
        Settings(service="shop", startup_grace_seconds=0),
        outcome=lambda *_: None,
        clock=time.clock,
        sleep=time.sleep,
    )

    async def see(marks: str) -> None:
        for mark in marks:
            outbox.post([seen("db", mark)], now=time.now, time=datetime.now(UTC))
            time.now += 30

    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        await see("cc")
        await eventually(lambda: hook.received)
        await see("..")
        await eventually(lambda: len(hook.received) == 2)
        group.cancel_scope.cancel()

    assert groups(hook) == [
        ("firing", [("db", "critical", "firing")]),
        ("resolved", [("db", "critical", "resolved")]),
    ]
