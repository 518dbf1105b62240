"""What the whole service says once: whoever dies, and whatever cannot be reached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holistic_asgi_monitor.alerts.bulletins import LEASE_SECONDS, Bulletin, Bulletins
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.store import Event
from holistic_asgi_monitor.model import Severity
from tests.alerts.fleet import Channel, Fleet, Line, Member

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
KEY = "daily 2026-11-24"
LEASE_MINUTES = LEASE_SECONDS / 60


@pytest.fixture
async def fleet(anyio_backend: str) -> AsyncIterator[Fleet]:
    async with Fleet(NOON).running() as made:
        yield made


async def say(member: Member, key: str = KEY, title: str = "", **details: Any) -> bool:
    return await member.bulletins.say(
        key, Severity.INFO, title or f"{key} by {member.name}", "It went well.", details
    )


async def say_and_wait(fleet: Fleet, minutes: int, *members: Member) -> None:
    """Each of these says it once a minute, as a rule whose reason goes on."""
    for _ in range(minutes):
        await fleet.pass_by(1)
        for member in members:
            await say(member)
        await fleet.settle()


async def test_of_four_processes_one_says_it(fleet: Fleet) -> None:
    members = [fleet.member() for _ in range(4)]
    handed = [await say(member) for member in members]
    await fleet.settle()

    assert sorted(handed) == [False, False, False, True]
    (alert,) = fleet.channel.alerts
    assert (alert.key, alert.reason, alert.state.value) == (
        f"bulletin: {KEY}",
        "bulletin",
        "notice",
    )
    assert (alert.title, alert.summary) == (f"{KEY} by web-1", "It went well.")


async def test_it_is_said_once_for_good(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    await say(first)
    await say_and_wait(fleet, 20, first, other)
    first.kill()
    again = fleet.member()
    await say_and_wait(fleet, 20, again, other)

    assert fleet.said == [f"{KEY} by web-1"]


async def test_each_key_is_said(fleet: Fleet) -> None:
    member = fleet.member()
    assert await say(member, "daily 2026-11-24")
    assert await say(member, "weekly 2026-W47")
    await fleet.pass_by(1)

    assert len(fleet.said) == 2


async def test_no_cooldown_holds_back_the_same_title(fleet: Fleet) -> None:
    member = fleet.member()
    for number in range(3):
        assert await say(member, f"day {number}", title="The budget is spent")
        await fleet.pass_by(1)

    assert fleet.said == 3 * ["The budget is spent"]


@pytest.mark.parametrize("asked_again", [True, False])
async def test_whoever_dies_before_the_delivery_is_followed_by_another(
    fleet: Fleet, asked_again: bool
) -> None:
    """Even where nobody has a reason to say it any more: the log has the text."""
    first, other = fleet.member(), fleet.member()
    first.cut = True
    await say(first)
    await fleet.pass_by(1)
    first.kill()
    asking = [other] if asked_again else []
    await say_and_wait(fleet, int(LEASE_MINUTES) - 2, *asking)
    assert fleet.said == []
    await say_and_wait(fleet, int(LEASE_MINUTES) + 3, *asking)
    await say_and_wait(fleet, 30, *asking)

    (alert,) = fleet.channel.alerts
    assert (alert.title, alert.instance) == (f"{KEY} by web-1", "web-2")


async def test_after_its_own_restart_it_is_said_as_well(fleet: Fleet) -> None:
    first = fleet.member()
    first.cut = True
    await say(first)
    await fleet.pass_by(1)
    first.kill()
    fleet.member()
    await fleet.pass_by(2 * LEASE_MINUTES + 1)

    assert fleet.said == [f"{KEY} by web-1"]


async def test_what_dies_between_a_claim_and_the_log_is_said_by_who_asks(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    stretch = int(fleet.now // LEASE_SECONDS)
    for each in (stretch - 1, stretch):
        assert await first.recorder.claim(f"{KEY} @{each}")
    first.kill()
    await say_and_wait(fleet, int(2 * LEASE_MINUTES) + 1, other)

    assert fleet.said == [f"{KEY} by web-2"]


async def test_an_outage_of_the_channel_delays_it_and_does_not_double_it(fleet: Fleet) -> None:
    members = [fleet.member() for _ in range(3)]
    fleet.channel.down = True
    await say(members[0])
    await say_and_wait(fleet, 30, *members)
    assert fleet.said == []
    fleet.channel.down = False
    await say_and_wait(fleet, 12, *members)

    assert fleet.said == [f"{KEY} by web-1"]


async def test_what_nobody_takes_is_given_up_some_day(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that was revoked: a message more each day, and each of them a claim a stretch."""
    monkeypatch.setattr("holistic_asgi_monitor.alerts.bulletins.LOOK_BACK_SECONDS", 1800.0)
    members = [fleet.member(), fleet.member()]
    fleet.channel.down = True
    await say(members[0])
    await fleet.pass_by(29)
    assert [len(member.bulletins._open) for member in members] == [1, 0]
    await fleet.pass_by(20)
    assert [len(member.bulletins._open) for member in members] == [0, 0]
    fleet.channel.down = False
    await fleet.pass_by(20)

    assert fleet.said == []
    # While there is reason to say it, it is said with what is known then.
    assert await say(members[1])
    await fleet.pass_by(1)
    assert fleet.said == [f"{KEY} by web-2"]


async def test_no_number_of_other_messages_takes_its_place(fleet: Fleet) -> None:
    member = fleet.member()
    fleet.channel.down = True
    await say(member)
    for number in range(150):
        member.outbox.notice(Severity.ERROR, f"Mine {number}", {}, now=fleet.time.now)
        await fleet.time.settle()
    fleet.channel.down = False
    await fleet.pass_by(5)

    assert f"{KEY} by web-1" in fleet.said
    assert (len(fleet.said), member.outcomes["failed"] >= 51) == (100, True)


async def test_who_loses_the_store_leaves_it_to_the_others(fleet: Fleet) -> None:
    """A process cut off from everything must not come back with what another has said."""
    first, other = fleet.member(), fleet.member()
    first.cut = True
    await say(first)
    first.store.lost = True
    await fleet.pass_by(2 * LEASE_MINUTES + 1)
    assert fleet.said == [f"{KEY} by web-1"]
    assert [alert.instance for alert in fleet.channel.alerts] == ["web-2"]
    first.cut = first.store.lost = False
    await say_and_wait(fleet, 30, first, other)

    assert len(fleet.said) == 1


async def test_who_loses_the_store_for_a_moment_still_says_it(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    first.cut = True
    await say(first)
    first.store.lost = True
    await fleet.pass_by(LEASE_MINUTES - 2)
    first.cut = first.store.lost = False
    await say_and_wait(fleet, 30, other)

    assert [alert.instance for alert in fleet.channel.alerts] == ["web-1"]


async def test_a_process_that_slept_does_not_say_what_another_has_said(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    first.cut = True
    await say(first)
    fleet.members.remove(first)
    await fleet.pass_by(2 * LEASE_MINUTES + 1)
    fleet.members.append(first)
    await fleet.tend()
    first.cut = False
    await say_and_wait(fleet, 30, first, other)

    assert [alert.instance for alert in fleet.channel.alerts] == ["web-2"]


async def test_without_history_each_process_says_it_once(anyio_backend: str) -> None:
    async with Fleet(NOON, Off()).running() as fleet:
        members = [fleet.member(), fleet.member()]
        for member in members:
            assert await say(member)
        await say_and_wait(fleet, 30, *members)

        assert sorted(fleet.said) == [f"{KEY} by web-1", f"{KEY} by web-2"]


async def test_what_is_composed_waits_a_while_for_the_store(fleet: Fleet) -> None:
    """All processes lose it together: at once each of them would say it."""
    members = [fleet.member() for _ in range(4)]

    async def compose() -> Bulletin:
        return Bulletin(Severity.INFO, "News", "", {})

    async def ask(minutes: int) -> None:
        for _ in range(minutes):
            for member in members:
                await member.bulletins.say_what(KEY, compose)
            await fleet.pass_by(1)

    for member in members:
        member.store.lost = True
    await ask(3)
    assert fleet.said == []
    for member in members:
        member.store.lost = False
    await ask(int(2 * LEASE_MINUTES) + 2)

    assert fleet.said == ["News"]


async def test_what_was_said_without_the_store_is_noted_when_it_is_back(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    first.store.lost = True
    assert await say(first)
    await fleet.pass_by(2)
    assert not await say(first)
    first.store.lost = False
    await fleet.pass_by(2)
    await say_and_wait(fleet, 20, first, other)

    assert fleet.said == [f"{KEY} by web-1"]


async def test_keys_of_any_length_and_letters_stay_apart(fleet: Fleet) -> None:
    member, other = fleet.member(), fleet.member()
    keys = [1000 * "k" + "a", 1000 * "k" + "b", "nul \0", "half \ud800"]
    for key in keys:
        assert await say(member, key, title="News")
        assert not await say(other, key)
    await fleet.pass_by(1)
    for key in keys:
        assert not await say(other, key)

    assert len(fleet.said) == 4


async def test_secrets_are_hidden_everywhere(fleet: Fleet) -> None:
    member = fleet.member(token="S3cretToken")
    await member.bulletins.say(
        KEY, Severity.INFO, "at S3cretToken", "is S3cretToken", {"S3cretToken": "S3cretToken"}
    )
    await fleet.settle()
    (event,) = await member.recorder.events("bulletins", 0, fleet.now + 1)

    assert "S3cret" not in event.text
    assert "S3cret" not in repr(fleet.channel.alerts)


async def test_only_who_is_to_say_it_composes_it_and_a_failure_is_tried_again(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    members = [fleet.member(), fleet.member()]
    composed: list[str] = []

    async def compose() -> Bulletin:
        composed.append("")
        if len(composed) == 1:
            raise KeyError("S3cret")
        return Bulletin(Severity.INFO, "News", "", {})

    for _ in range(int(2 * LEASE_MINUTES) + 2):
        for member in reversed(members):
            await member.bulletins.say_what(KEY, compose)
        await fleet.pass_by(1)

    assert (fleet.said, len(composed)) == (["News"], 2)
    assert "S3cret" not in caplog.text


async def test_it_never_raises(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    member = fleet.member()

    async def broken(*_: object) -> Any:
        raise RuntimeError("S3cret")

    for name in ("claim", "events", "get_state", "put_state", "add_event"):
        monkeypatch.setattr(member.recorder, name, broken)
    assert await say(member)
    await member.bulletins.tend()
    await fleet.time.settle()

    assert len(fleet.said) == 1


async def test_what_the_log_holds_and_nobody_can_read_is_left_out(fleet: Fleet) -> None:
    member = fleet.member()
    for number, text in enumerate(("", "{}", "[1]", '{"key": 1}', 10 * "[")):
        await member.recorder.add_event(Event(str(number), fleet.now, "bulletins", text, text))
    await fleet.pass_by(2)
    assert await say(member)
    await fleet.settle()

    assert len(fleet.said) == 1


async def test_a_restart_brings_back_what_some_notifier_lacks_and_only_that(fleet: Fleet) -> None:
    lines = Line(fleet.channel), Line(Channel(), "webhook")
    member = fleet.member(*lines)
    for line in lines:
        line.cut = True
    await say(member)
    await fleet.time.settle()
    kept = member.outbox.memory().channels
    assert [kept[line.name].notices for line in lines] == [(), ()]
    lines[0].cut = False
    await fleet.pass_by(2)
    kept = member.outbox.memory().channels

    assert [len(kept[line.name].notices) for line in lines] == [0, 1]


async def test_the_time_of_a_message_is_when_it_was_said_first(fleet: Fleet) -> None:
    """Who gets it twice after all sees that it is the same."""
    first = fleet.member()
    first.cut = True
    await say(first)
    first.kill()
    fleet.member()
    await fleet.pass_by(2 * LEASE_MINUTES + 1)
    (alert,) = fleet.channel.alerts

    assert abs(alert.started_at - NOON) < timedelta(seconds=1)


async def test_where_nobody_is_to_be_told_nothing_is_waited_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that can never arrive would be claimed anew every five minutes, for ever."""
    member = fleet.member()
    bulletins = Bulletins(member.recorder, Outbox([], member.settings, outcome=print))
    assert await bulletins.say(KEY, Severity.INFO, "News", "", {})
    await fleet.time.settle()
    claims: list[str] = []

    async def claim(key: str) -> bool:
        claims.append(key)
        return True

    monkeypatch.setattr(member.recorder, "claim", claim)
    for _ in range(30):
        await fleet.time.pass_by(60)
        await bulletins.tend()

    assert claims == []
    assert not await say(member)


async def test_where_there_is_one_process_alone_it_composes_again_itself(fleet: Fleet) -> None:
    member = fleet.member()
    composed: list[str] = []

    async def compose() -> Bulletin:
        composed.append("")
        if len(composed) == 1:
            raise KeyError
        return Bulletin(Severity.INFO, "News", "", {})

    for _ in range(int(3 * LEASE_MINUTES) + 2):
        await member.bulletins.say_what(KEY, compose)
        await fleet.pass_by(1)

    assert (fleet.said, len(composed)) == (["News"], 2)
