"""Maintenance and silence: what is held back, and what is told when they are over."""

from __future__ import annotations

from datetime import timedelta
from math import inf

import pytest

from holistic_asgi_monitor.alerts.incidents import Policy
from holistic_asgi_monitor.alerts.quiet import (
    LOOK_SECONDS,
    MOST_SILENCES,
    MOST_WINDOWS,
    Quiet,
    Silence,
    Window,
    refuse_wrong_minutes,
)
from holistic_asgi_monitor.model import ConfigurationError, Severity
from tests.alerts.rounds import NOON, ROUND, Reader, seen


class Deployment(Reader):
    """A reader of `db`, during whose rounds marked by brackets there is maintenance."""

    def live(self, marks: str, **more: object) -> list[str]:
        """`..[cc..]..`: a letter is a round, a bracket begins or ends a window before it."""
        now, numbers = 0.0, []
        for mark in marks:
            if mark == "[":
                window = Window("deploy", now - 1, now + 86400)
                numbers.append(self.incidents.quiet.begin(window))
            elif mark == "]":
                self.incidents.quiet.end(numbers.pop(), now - 1)
            else:
                self.round(now, [seen("db", mark, **more)])
                now += ROUND
        return self.reasons


@pytest.mark.parametrize(
    ("marks", "reasons"),
    [
        ("cc[....]", ["fire"]),
        ("cc[....].", ["fire", "clear"]),
        ("cc[cccc]cccc", ["fire"]),
        ("..[cccc]", []),
        ("..[cccc]c", ["fire"]),
        ("..[cccc]....", []),
        ("..[cccc].c", ["fire"]),
        ("..[cc..]....", []),
        ("..[cc..cc..cc..cc..]......", []),
        ("cc[..cc..cc..cc]cc", ["fire"]),
        ("..[.c.c.c.c.]c....", []),
        ("dd[cccc]c", ["fire", "escalate"]),
        ("[[cc]cc]c", ["fire"]),
        ("[[cc]cc]..", []),
        ("[c]cc", ["fire"]),
        ("c[c]c", ["fire"]),
    ],
)
def test_when_it_is_over_what_was_told_is_compared_with_what_is_so(
    marks: str, reasons: list[str]
) -> None:
    """In the window nothing is told; what began and ended in it never was."""
    assert Deployment().live(marks) == reasons


def test_the_alarm_after_it_says_since_when() -> None:
    reader = Deployment()
    reader.live("..[ccc]c")
    (alarm,) = reader.alerts
    assert alarm.started_at == NOON + timedelta(seconds=2 * ROUND)


def test_reminders_are_held_back_too() -> None:
    reader = Deployment()
    assert reader.live("cc[" + "c" * 100 + "]") == ["fire"]
    reader.round(200 * ROUND, [seen("db", "c")])
    assert reader.reasons == ["fire", "remind"]


def test_what_had_begun_and_could_not_be_told_before_it_is_told_after_it() -> None:
    reader = Deployment(up=lambda now: now > 4 * ROUND)
    assert reader.live("cc[...]..") == ["was_down"]


def test_it_ends_by_itself() -> None:
    reader = Reader()
    reader.incidents.quiet.begin(Window("deploy", 0.0, 3.5 * ROUND))
    reader.rounds("cccccc")
    assert [now for now, _ in reader.messages] == [4 * ROUND]


def test_nothing_is_told_of_a_key_that_was_not_looked_at_since() -> None:
    """What was bad in the window may be well: only another look, or a minute, shows it."""
    reader = Reader()
    quiet = reader.incidents.quiet
    number = quiet.begin(Window("deploy", 0.0, inf))
    reader.rounds("cc")
    quiet.end(number, 40.0)

    assert reader.incidents.wanted("slack", 50.0) == []
    assert len(reader.incidents.wanted("slack", 40.0 + LOOK_SECONDS)) == 1


def test_what_begins_in_it_counts_as_kept_back() -> None:
    reader = Reader()
    reader.incidents.quiet.begin(Window("deploy", 0.0, inf))
    kept_back = [
        reader.incidents.observe([seen("db", "c")], number * ROUND, NOON) for number in range(3)
    ]
    assert kept_back == [[], [Severity.CRITICAL], []]


class TestWindows:
    def test_they_overlap(self) -> None:
        quiet = Quiet()
        first = quiet.begin(Window("deploy", 0.0, 100.0))
        second = quiet.begin(Window("migration", 0.0, 200.0))
        assert [window.reason for window in quiet.windows(50.0)] == ["deploy", "migration"]
        assert quiet.next_end() == 100.0
        assert quiet.end(first, 50.0) is not None
        assert quiet.active(60.0)
        assert quiet.end(first, 60.0) is None
        assert quiet.end(second, 70.0) is not None
        assert not quiet.active(70.0)
        assert quiet.next_end() == inf

    def test_those_of_one_reason_can_be_ended_and_all(self) -> None:
        quiet = Quiet()
        for reason in ("deploy", "deploy", "migration", "backup"):
            quiet.begin(Window(reason, 0.0, 100.0))
        assert len(quiet.end_all(1.0, "deploy")) == 2
        assert len(quiet.end_all(1.0)) == 2
        assert not quiet.active(1.0)

    def test_they_expire_once(self) -> None:
        quiet = Quiet()
        quiet.begin(Window("deploy", 0.0, 100.0))
        quiet.silence("db", Silence(100.0))
        assert quiet.expire(99.0) == []
        assert len(quiet.expire(100.0)) == 1
        assert quiet.expire(101.0) == []
        assert quiet.silenced(0.0) == {}

    def test_their_number_is_bounded(self) -> None:
        quiet = Quiet()
        for number in range(MOST_WINDOWS + 5):
            quiet.begin(Window(str(number), 0.0, 100.0))
        assert len(quiet.windows(0.0)) == MOST_WINDOWS
        for number in range(MOST_SILENCES + 5):
            quiet.silence(str(number), Silence(100.0))
        assert len(quiet.silenced(0.0)) == MOST_SILENCES


class TestSilence:
    """A key is silenced after the rounds `before`; then come the rounds `after`."""

    @pytest.mark.parametrize(
        ("before", "after", "reasons"),
        [
            ("dd", "d" * 100, ["fire"]),
            ("dd", "dd....", ["fire", "clear"]),
            ("dd", "ddcccc", ["fire", "escalate"]),
            ("dd", "ddcc....", ["fire", "escalate", "clear"]),
            ("dd", "....dddd", ["fire", "clear"]),
            ("cc", "dddddddd", ["fire"]),
            ("d", "dddd....", []),
            ("..", "cccc....", []),
        ],
    )
    def test_it_holds_back_what_is_known_and_not_worse(
        self, before: str, after: str, reasons: list[str]
    ) -> None:
        reader = Reader(Policy(flap_incidents=0))
        reader.rounds(before)
        severity = reader.incidents.severity("db")
        reader.incidents.quiet.silence("db", Silence(inf, severity))
        reader.rounds(after, start=len(before) * ROUND)
        assert reader.reasons == reasons

    def test_it_holds_back_its_own_key_only(self) -> None:
        reader = Reader()
        reader.incidents.quiet.silence("db", Silence(inf))
        reader.rounds({"db": "cc", "pay": "cc"})
        assert [alert.key for alert in reader.alerts] == ["pay"]

    def test_what_lasts_when_it_is_over_is_told(self) -> None:
        reader = Reader()
        reader.incidents.quiet.silence("db", Silence(3.5 * ROUND))
        reader.rounds("cccccc")
        assert [now for now, _ in reader.messages] == [4 * ROUND]

    def test_it_can_be_ended(self) -> None:
        reader = Reader()
        reader.incidents.quiet.silence("db", Silence(inf))
        reader.rounds("ccc")
        assert reader.incidents.quiet.speak("db")
        assert not reader.incidents.quiet.speak("db")
        reader.rounds("c", start=3 * ROUND)
        assert reader.reasons == ["fire"]


@pytest.mark.parametrize("minutes", [0, -1, 1440.1, inf, float("nan"), True, "60", None])
def test_wrong_minutes_are_refused(minutes: object) -> None:
    with pytest.raises(ConfigurationError, match="above 0 and at most 1440"):
        refuse_wrong_minutes(minutes, "The minutes")


@pytest.mark.parametrize(("minutes", "seconds"), [(1, 60.0), (0.5, 30.0), (1440, 86400.0)])
def test_minutes_become_seconds(minutes: float, seconds: float) -> None:
    assert refuse_wrong_minutes(minutes, "The minutes") == seconds
