"""Maintenance and silence through the outbox: begun and ended, said in the log, and shown."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.to_thread
import pytest

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.alerts.maintenance import Maintenance
from holistic_asgi_monitor.model import ConfigurationError, Severity
from holistic_asgi_monitor.notifiers import Memory
from tests.alerts.rounds import seen
from tests.alerts.test_outbox import SECRET, Post
from tests.alerts.virtual_time import eventually


def window(post: Post, reason: str = "deploy", minutes: float = 60) -> Maintenance:
    return Maintenance(post.outbox.quiet_times, reason, minutes)


def shown(post: Post) -> object:
    return post.outbox.as_dict()["maintenance"]


async def test_in_a_block_nothing_is_told_and_after_it_what_is_so() -> None:
    memory = Memory()
    post = Post(memory)
    async with post.running():
        post.see("db", "cc")
        await post.time.pass_by(5)
        async with window(post):
            post.see("db", "..")
            post.see("pay", "cc")
            await post.time.pass_by(30)
        await post.time.pass_by(5)
        assert [alert.reason for alert in memory.alerts] == ["fire"]
        post.round(seen("db", "."), seen("pay", "c"))
        await post.time.pass_by(5)

    assert [(alert.key, alert.reason) for alert in memory.alerts[1:]] == [
        ("pay", "fire"),
        ("db", "clear"),
    ]


async def test_an_exception_ends_the_block_and_goes_on() -> None:
    post = Post(Memory())
    with pytest.raises(ZeroDivisionError):
        async with window(post):
            raise ZeroDivisionError
    assert shown(post) is None


async def test_it_ends_by_itself_at_its_time_and_has_things_looked_at_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    post = Post(Memory())
    looks: list[float] = []
    post.outbox.look = lambda: looks.append(post.time.now)
    async with post.running():
        began = post.time.now
        window(post, minutes=30).begin()
        await post.time.pass_by(29 * 60)
        assert shown(post) is not None
        await post.time.pass_by(3600)

    assert looks == [began + 30 * 60]
    assert shown(post) is None
    assert [record.message for record in caplog.records] == [
        "Maintenance begins: deploy, for 30 minutes at most; alerts are held back",
        "Maintenance ends: deploy",
    ]


async def test_an_end_after_the_end_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    post = Post(Memory())
    async with post.running():
        deploy = window(post, minutes=1)
        deploy.end()
        deploy.begin()
        await post.time.pass_by(90)
        deploy.end()
        deploy.end()
    assert [record.message for record in caplog.records].count("Maintenance ends: deploy") == 1


async def test_a_message_of_the_users_own_waits_for_the_end() -> None:
    memory = Memory()
    post = Post(memory)
    async with post.running():
        async with window(post):
            post.notice("Deployed")
            await post.time.pass_by(60)
            assert memory.alerts == []
        await post.time.pass_by(5)
    assert [alert.title for alert in memory.alerts] == ["Deployed"]


async def test_it_may_begin_and_end_in_another_thread() -> None:
    memory = Memory()
    post = Post(memory)
    looks: list[int] = []
    post.outbox.look = lambda: looks.append(threading.get_ident())
    async with post.running():
        deploy = window(post)
        await anyio.to_thread.run_sync(deploy.begin)
        post.see("db", "cc")
        await post.time.pass_by(5)
        assert memory.alerts == []
        await anyio.to_thread.run_sync(deploy.end)
        await eventually(lambda: looks)
        post.see("db", "c")
        await post.time.pass_by(5)

    assert looks == [threading.get_ident()]
    assert [alert.reason for alert in memory.alerts] == ["fire"]


async def test_windows_overlap_and_all_reasons_are_shown() -> None:
    post = Post(Memory())
    deploy, migration = window(post, minutes=30), window(post, "migration", 120)
    deploy.begin()
    migration.begin()
    both = post.outbox.as_dict()["maintenance"]
    assert both["reason"] == "deploy, migration"
    until = datetime.fromisoformat(both["until"])
    assert timedelta(minutes=119) < until - datetime.now(UTC) <= timedelta(minutes=120)

    migration.end()
    assert post.outbox.as_dict()["maintenance"]["reason"] == "deploy"
    deploy.end()
    assert shown(post) is None


def test_one_object_may_be_begun_twice_and_is_over_when_it_was_ended_twice() -> None:
    post = Post(Memory())
    deploy = window(post)
    deploy.begin()
    deploy.begin()
    deploy.end()
    assert shown(post) is not None
    deploy.end()
    assert shown(post) is None


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("deploy\n2026 ERROR forged", "deploy 2026 ERROR forged"),
        (f"with {SECRET}", "with ***"),
        ("x" * 1000, "x" * 200),
        ("\u202e\n", "maintenance"),
    ],
)
def test_a_reason_is_one_short_line_without_secrets(
    reason: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    post = Post(Memory(), token=SECRET)
    window(post, reason).begin()
    assert post.outbox.as_dict()["maintenance"]["reason"] == line
    assert f"Maintenance begins: {line}, for 60 minutes" in caplog.text

    post.outbox.quiet_times.end_all(reason)
    assert shown(post) is None


@pytest.mark.parametrize("minutes", [0, -5, 1441, True])
def test_wrong_minutes_are_one_sentence(minutes: float) -> None:
    with pytest.raises(ConfigurationError, match=r"^The minutes of a maintenance window are"):
        window(Post(Memory()), minutes=minutes)
    with pytest.raises(ConfigurationError, match=r"^The minutes of a silence are"):
        Post(Memory()).outbox.silence("db", minutes)


async def test_a_silence_holds_back_one_key_until_it_gets_worse(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    memory = Memory()
    post = Post(memory, alert_cooldown_minutes=1)
    async with post.running():
        post.see("db", "dd")
        await post.time.pass_by(1)
        post.outbox.silence("db", 60)
        (silence,) = post.outbox.as_dict()["silences"]
        for _ in range(20):
            post.see("db", "d")
            await post.time.pass_by(60)
        assert [alert.reason for alert in memory.alerts] == ["fire"]
        post.see("db", "c")
        await post.time.pass_by(1)

    assert silence["key"] == "db"
    assert datetime.fromisoformat(silence["until"]) > datetime.now(UTC) + timedelta(minutes=59)
    assert [alert.severity for alert in memory.alerts] == [Severity.WARNING, Severity.CRITICAL]
    assert post.outbox.as_dict()["silences"] == []
    assert "Alerts of db are silenced for 60 minutes" in caplog.text


def test_a_silence_can_be_ended_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holistic_asgi_monitor")
    post = Post(Memory())
    post.outbox.silence("db", 60)
    for _ in range(2):
        post.outbox.quiet_times.speak("db")
    assert caplog.text.count("Alerts of db are no longer silenced") == 1
    assert post.outbox.as_dict()["silences"] == []


async def app(scope, receive, send):
    raise AssertionError


def monitored(memory: Memory, **settings: Any) -> Monitor:
    options: dict[str, Any] = {
        "service": "shop",
        "history_url": "off",
        "startup_grace_seconds": 0,
        "failures_before_alert": 1,
    }
    return Monitor(app, settings=Settings(**(options | settings)), checks=[], notifiers=[memory])


async def test_a_monitors_block_holds_messages_back_and_looks_anew_at_its_end() -> None:
    memory = Memory()
    monitor = monitored(memory)
    rounds: list[str] = []

    @monitor.check("payments")
    def payments() -> bool:
        rounds.append("one more")
        return False

    async with monitor:
        async with monitor.maintenance("deploy"):
            for _ in range(3):
                await monitor.report(fresh=True)
            assert memory.alerts == []
            looked = len(rounds)
        # The next round by itself would be half a minute away.
        await eventually(lambda: memory.alerts)

    assert len(rounds) > looked
    assert [(alert.key, alert.reason) for alert in memory.alerts] == [("payments", "fire")]


async def test_one_that_is_switched_off_has_blocks_too() -> None:
    async with monitored(Memory(), enabled=False).maintenance("deploy", minutes=5):
        pass


async def test_a_monitors_window_needs_no_block() -> None:
    monitor = monitored(Memory())
    window = monitor.maintenance()
    assert monitor._parts.outbox.as_dict()["maintenance"] is None
    window.begin()
    assert monitor._parts.outbox.as_dict()["maintenance"]["reason"] == "maintenance"
    window.end()
    assert monitor._parts.outbox.as_dict()["maintenance"] is None
