"""Which incidents there were: each once, whoever noted it and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.chronicle import Chapter, merged
from holistic_asgi_monitor.alerts.incidents import Observation
from holistic_asgi_monitor.history.store import Event
from holistic_asgi_monitor.model import Alert, AlertState, Severity
from tests.alerts.fleet import Fleet, Member
from tests.alerts.rounds import seen

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
async def fleet(anyio_backend: str) -> AsyncIterator[Fleet]:
    async with Fleet(NOON).running() as made:
        yield made


def see(fleet: Fleet, member: Member, *observations: Observation) -> None:
    time = datetime.fromtimestamp(fleet.now, UTC)
    member.outbox.post(observations, now=fleet.time.now, time=time)


def alert(start: float, end: float | None = None, key: str = "db") -> Alert:
    state = AlertState.FIRING if end is None else AlertState.RESOLVED
    ended = None if end is None else NOON + timedelta(seconds=end)
    began = NOON + timedelta(seconds=start)
    return Alert(key, Severity.ERROR, state, key, "", began, ended)


async def times(fleet: Fleet, member: Member) -> list[tuple[str, float, float | None]]:
    noon = NOON.timestamp()
    return [
        (each.key, each.start - noon, None if each.end is None else each.end - noon)
        for each in await member.chronicle.read(noon - 3600, noon + 86_400)
    ]


async def test_what_was_told_is_noted_with_its_beginning_and_its_end(fleet: Fleet) -> None:
    member = fleet.member(startup_grace_seconds=0)
    for mark in "cc":
        see(fleet, member, seen("db", mark))
        await fleet.pass_by(1)
    assert await times(fleet, member) == [("db", 0.0, None)]
    for mark in "..":
        see(fleet, member, seen("db", mark))
        await fleet.pass_by(1)

    ((key, start, end),) = await times(fleet, member)
    assert (key, start) == ("db", 0.0)
    assert end is not None
    assert 60 <= end <= 240


async def test_it_is_as_grave_as_it_became(fleet: Fleet) -> None:
    """Of a day on which the database was gone nobody may read that it was slow."""
    member = fleet.member(startup_grace_seconds=0)
    for mark in "ddccdddd":
        see(fleet, member, seen("db", mark, required=True))
        await fleet.pass_by(1)
    noon = NOON.timestamp()
    (chapter,) = await member.chronicle.read(noon, noon + 86_400)

    assert (chapter.severity, chapter.end) == (Severity.CRITICAL, None)


async def test_messages_of_no_incident_are_not_noted(fleet: Fleet) -> None:
    member = fleet.member()
    await member.bulletins.say("daily", Severity.INFO, "News", "", {})
    member.outbox.notice(Severity.ERROR, "Mine", {}, now=fleet.time.now)
    await fleet.pass_by(1)

    assert len(fleet.said) == 2
    assert await times(fleet, member) == []


async def test_what_several_processes_saw_is_one_incident(fleet: Fleet) -> None:
    first, other = fleet.member(), fleet.member()
    first.chronicle.note(alert(0))
    other.chronicle.note(alert(3))
    first.chronicle.note(alert(0, 300))
    other.chronicle.note(alert(3, 310))
    other.chronicle.note(alert(900, 960))
    for member in (first, other):
        await member.chronicle.write()

    assert await times(fleet, first) == [("db", 0, 310), ("db", 900, 960)]


async def test_what_several_notifiers_were_told_is_noted_once(fleet: Fleet) -> None:
    member = fleet.member()
    for _ in range(5):
        member.chronicle.note(alert(0))
    await member.chronicle.write()

    assert len(await member.recorder.events("incidents", 0, fleet.now + 1)) == 1


async def test_it_goes_on_as_long_as_there_are_reminders(fleet: Fleet) -> None:
    """Whoever told of it may be gone, and nobody left who knows its end."""
    member = fleet.member()
    pause = member.outbox.longest_reminder
    member.chronicle.note(alert(0))
    await member.chronicle.write()
    await fleet.time.pass_by(pause)
    assert await times(fleet, member) == [("db", 0, None)]
    member.chronicle.note(replace(alert(0), reason="remind"))
    await member.chronicle.write()
    await fleet.time.pass_by(pause)
    assert await times(fleet, member) == [("db", 0, None)]
    await fleet.time.pass_by(pause)

    ((_, _, end),) = await times(fleet, member)
    assert end == pytest.approx(pause)


async def test_an_incident_whose_end_nobody_knew_does_not_last_until_the_next_one(
    fleet: Fleet,
) -> None:
    """A deployment has ended it, and those who had told of it; half a day later there is another."""
    member = fleet.member()
    pause = member.outbox.longest_reminder
    member.chronicle.note(alert(0))
    await member.chronicle.write()
    await fleet.time.pass_by(3 * pause)
    member.chronicle.note(alert(3 * pause))
    member.chronicle.note(alert(3 * pause, 3 * pause + 600))
    await member.chronicle.write()

    assert await times(fleet, member) == [
        ("db", 0.0, pytest.approx(0.0)),
        ("db", 3 * pause, 3 * pause + 600),
    ]


async def test_what_cannot_be_written_now_is_written_later(fleet: Fleet) -> None:
    member = fleet.member()
    member.store.lost = True
    for number in range(300):
        member.chronicle.note(alert(100 * number, 100 * number + 50))
    await member.chronicle.write()
    member.store.lost = False
    await member.chronicle.write()

    # The newest two hundred: what waits is bounded.
    assert len(await times(fleet, member)) == 200


async def test_only_what_touches_the_time_asked_for_is_read(fleet: Fleet) -> None:
    member, noon = fleet.member(), NOON.timestamp()
    for start, end in ((0, 50), (100, 150), (140, 400), (400, None)):
        member.chronicle.note(alert(start, end, key=f"check {start}"))
    found = await member.chronicle.read(noon + 120, noon + 300)

    assert [each.key for each in found] == ["check 100", "check 140"]


async def test_entries_that_nobody_can_read_are_left_out(fleet: Fleet) -> None:
    member = fleet.member()
    for number, text in enumerate(("", "{}", '{"start": "x", "end": null, "severity": 1}', "[]")):
        await member.recorder.add_event(Event(str(number), fleet.now, "incidents", "db", text))

    assert await times(fleet, member) == []


CHAPTERS = st.builds(
    lambda key, start, length: Chapter(key, Severity.ERROR, start, start + length),
    st.sampled_from("ab"),
    st.integers(0, 100),
    st.integers(0, 20),
)


@given(st.lists(CHAPTERS), st.randoms())
def test_merged_they_cover_the_same_times_without_touching_each_other(chapters, dice):
    found = merged(chapters)
    shuffled = list(chapters)
    dice.shuffle(shuffled)

    assert merged(shuffled) == merged([*chapters, *found]) == found
    for key in "ab":
        mine = [each for each in found if each.key == key]
        assert all((one.end or 0) < other.start for one, other in pairwise(mine))
        for moment in range(125):
            assert any(_at(each, moment) for each in mine) == any(
                _at(each, moment) for each in chapters if each.key == key
            )


def _at(chapter: Chapter, moment: float) -> bool:
    return chapter.end is not None and chapter.start <= moment <= chapter.end
