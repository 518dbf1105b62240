"""Which notifiers the environment gives."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from holistic_asgi_monitor import ConfigurationError, Monitor, Settings
from holistic_asgi_monitor.notifiers import Alertmanager, Log, Slack, Webhook
from holistic_asgi_monitor.notifiers.environment import notifiers_from_environment
from tests.notifiers.alerts import alarm
from tests.notifiers.receiver import Receiver
from tests.notifiers.slack_stub import CHANNEL, SECRET, TOKEN

HOOK = f"https://hooks.slack.com/services/{SECRET}"
BOT = {"slack_bot_token": TOKEN, "slack_channel": CHANNEL}
ELSEWHERE = f"http://me:{SECRET}@alerts.example/{SECRET}"


def made(**fields: Any) -> list[object]:
    return list(notifiers_from_environment(Settings(service="shop", **fields)))


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({}, [Log]),
        ({"slack_webhook_url": HOOK}, [Slack]),
        (BOT, [Slack]),
        ({"alertmanager_url": ELSEWHERE}, [Alertmanager]),
        ({"webhook_url": ELSEWHERE}, [Webhook]),
        (
            {**BOT, "alertmanager_url": ELSEWHERE, "webhook_url": ELSEWHERE},
            [Slack, Alertmanager, Webhook],
        ),
        ({"slack_channel": CHANNEL}, [Log]),
    ],
)
def test_all_that_are_set_are_used_together(
    fields: dict[str, str], kinds: list[type], caplog: pytest.LogCaptureFixture
) -> None:
    assert [type(notifier) for notifier in made(**fields)] == kinds
    assert caplog.text == ""


def test_of_two_ways_to_slack_the_webhook_is_taken() -> None:
    (slack,) = made(slack_webhook_url=HOOK, **BOT)
    assert repr(slack) == "Slack(webhook_url=..., name='slack')"


def test_a_token_without_a_channel_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    (only,) = made(slack_bot_token=TOKEN)

    assert isinstance(only, Log)
    (record,) = caplog.records
    assert record.getMessage().startswith("SLACK_BOT_TOKEN is set, but not used for alerts")
    assert "SLACK_CHANNEL" in record.getMessage()
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("fields", "variable"),
    [({"slack_webhook_url": HOOK}, "SLACK_WEBHOOK_URL"), (BOT, "SLACK_BOT_TOKEN")],
)
def test_without_the_extra_the_others_remain_and_it_is_one_warning(
    fields: dict[str, str],
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "slack_sdk":
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.partition(".")[0] == "slack_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)

    assert [type(each) for each in made(**fields)] == [Log]
    assert [type(each) for each in made(**fields, webhook_url=ELSEWHERE)] == [Webhook]
    assert [record.args[0] for record in caplog.records if record.args] == [variable] * 2  # type: ignore[index]  # a tuple here
    assert "pip install 'holistic-asgi-monitor[slack]'" in caplog.text
    assert SECRET not in caplog.text


def test_a_way_to_slack_that_is_in_the_clear_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="https://") as info:
        made(slack_webhook_url=f"http://hooks.slack.com/{SECRET}")
    assert SECRET not in str(info.value)


@pytest.mark.parametrize(
    ("minutes", "seconds"), [(15, 86_400), (45, 86_400), (46, 88_320), (525_600, 1_009_152_000)]
)
async def test_an_alert_burns_in_alertmanager_beyond_the_next_reminder(
    minutes: float, seconds: float
) -> None:
    with Receiver() as receiver:
        (notifier,) = made(alertmanager_url=receiver.url, alert_cooldown_minutes=minutes)
        assert isinstance(notifier, Alertmanager)
        await notifier.send([alarm()])
        (row,) = receiver.payloads[0]
    from datetime import UTC, datetime

    left = datetime.fromisoformat(row["endsAt"]) - datetime.now(UTC)
    assert seconds - 60 < left.total_seconds() <= seconds


def test_a_monitor_takes_them_and_knows_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(*_: object) -> None:
        raise AssertionError

    monkeypatch.setenv("MONITOR_WEBHOOK_URL", ELSEWHERE)
    monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("SLACK_CHANNEL", CHANNEL)
    monitor = Monitor(app)

    assert monitor._parts.outbox.names == ("slack", "webhook")
    assert {ELSEWHERE, TOKEN, SECRET} <= set(monitor.settings.secrets)
    assert SECRET not in repr(monitor.settings)
