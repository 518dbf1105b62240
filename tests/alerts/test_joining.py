"""What two have seen of one key, put together: what both saw counts once, and keeps its number."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holistic_asgi_monitor.alerts.condition import Condition, Policy, speaking, step
from holistic_asgi_monitor.alerts.incidents import Incidents
from holistic_asgi_monitor.alerts.joining import joined
from tests.alerts.rounds import CHANNEL, NOON, ROUND, Reader, seen

POLICY = Policy()


def lived(marks: str, start: float = 0.0) -> Condition:
    condition = Condition()
    for number, mark in enumerate(marks):
        now = start + number * ROUND
        time = NOON + timedelta(seconds=now)
        condition = speaking(step(condition, seen("db", mark), POLICY, now=now, time=time))
    return condition


@pytest.mark.parametrize(
    ("known", "own", "is_open", "serial", "ended"),
    [
        # What both see.
        ("..cc", "..cc", True, 1, 0),
        ("..cc..", "..cc..", False, 1, 1),
        ("..cc", "..cc..", False, 1, 1),
        # Who goes on is a round behind, or was away.
        ("..cc..", "..cc.", False, 1, 1),
        ("..cc", "..c", True, 1, 0),
        ("..cc", "....", False, 1, 1),
        ("..cc", "...", False, 1, 1),
        # What began after that.
        ("..cc..", "..cc..cc", True, 2, 1),
        ("..cc..", "..cc..cc..", False, 2, 2),
        ("......", "......cc", True, 1, 0),
    ],
)
def test_incidents_keep_their_numbers_and_count_once(
    known: str, own: str, is_open: bool, serial: int, ended: int
) -> None:
    both = joined(lived(own), lived(known), POLICY)
    assert (both.open is not None, both.serial, len(both.ended)) == (is_open, serial, ended)


@pytest.mark.parametrize(
    ("known", "own", "then", "reasons"),
    [
        ("cc", "cc", "..", ["clear"]),
        ("cc", "cc..", "", ["clear"]),
        ("cc", "cc", "cc", []),
        ("cc..", "cc..", "..", []),
        ("cc..", "cc.", ".", []),
        ("..", "..cc", "", ["fire"]),
        ("dd", "dd", "c", ["escalate"]),
        ("cc..", "cc..cc", "c..", ["fire", "clear"]),
        ("cc", "....", "..", ["clear"]),
    ],
)
def test_who_goes_on_tells_what_is_missing_and_repeats_nothing(
    known: str, own: str, then: str, reasons: list[str]
) -> None:
    before, after = Reader(), Reader()
    before.rounds(known)
    for number, mark in enumerate(own):
        now = number * ROUND
        after.incidents.observe([seen("db", mark)], now, NOON + timedelta(seconds=now))
    now = max(len(known), len(own)) * ROUND
    after.incidents.restore(before.incidents.snapshot(), now)
    if not then:
        drafts = after.incidents.wanted(CHANNEL, now)
        assert [draft.reason.value for draft in drafts] == reasons
        return
    after.rounds(then, start=now)
    assert after.reasons == reasons


def test_what_is_restored_twice_is_the_same() -> None:
    before = Reader()
    before.rounds("cc")
    after = Incidents(POLICY, [CHANNEL])
    for _ in range(2):
        after.restore(before.incidents.snapshot(), 100.0)
    assert after.snapshot().told == before.incidents.snapshot().told
    assert len(list(after.standing())) == 1
