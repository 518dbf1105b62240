"""What a reader is told, round by round, through a channel that works or does not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.alerts.incidents import MAX_KEYS, Incidents, Policy
from holistic_asgi_monitor.alerts.quiet import Silence
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import AlertState, Severity, Status
from tests.alerts.rounds import CHANNEL, NOON, ROUND, Reader, seen


def test_a_failed_round_alone_says_nothing() -> None:
    reader = Reader()
    reader.rounds("..c....c...")
    assert reader.alerts == []


def test_alarm_and_all_clear_say_what_since_when_and_how_long() -> None:
    reader = Reader()
    reader.rounds("..ccc...")
    alarm, all_clear = reader.alerts

    assert (alarm.key, alarm.reason, alarm.state) == ("db", "fire", AlertState.FIRING)
    assert (alarm.severity, alarm.title) == (Severity.CRITICAL, "db is critical")
    assert (alarm.summary, alarm.ended_at) == ("db shows critical", None)
    assert alarm.started_at == NOON + timedelta(minutes=1)
    assert (all_clear.key, all_clear.reason, all_clear.state) == (
        "db",
        "clear",
        AlertState.RESOLVED,
    )
    assert (all_clear.severity, all_clear.title) == (Severity.CRITICAL, "db is healthy again")
    assert (all_clear.summary, all_clear.details["was"]) == (
        "fine",
        "critical: db shows critical",
    )
    assert all_clear.started_at == alarm.started_at
    assert all_clear.ended_at == NOON + timedelta(seconds=150)


@pytest.mark.parametrize(
    ("marks", "reasons"),
    [
        ("ccc.c.cc", ["fire"]),
        ("ddc", ["fire", "escalate"]),
        ("dduc", ["fire", "escalate", "escalate"]),
        ("ddcdddd", ["fire", "escalate"]),
        ("ddcdd..", ["fire", "escalate", "clear"]),
        ("ccdcdcdcdcdcdcdcd", ["fire"]),
        ("cc..cc..", ["fire", "clear", "fire", "clear"]),
        ("ccss", ["fire", "clear"]),
        ("sss", []),
    ],
)
def test_each_change_is_told_once(marks: str, reasons: list[str]) -> None:
    """Worse at once, a mere step down never as an all-clear, a new incident like the first."""
    reader = Reader()
    reader.rounds(marks)
    assert reader.reasons == reasons


def test_a_step_down_that_lasts_is_told_with_the_cooldown_and_not_before() -> None:
    reader = Reader()
    reader.rounds("cc" + "d" * 40)
    eased = reader.alerts[1]

    assert reader.reasons == ["fire", "ease"]
    assert reader.messages[1][0] == ROUND + 900
    assert (eased.state, eased.severity) == (AlertState.FIRING, Severity.WARNING)
    assert eased.title == "db is still degraded (was critical)"


def test_what_has_eased_and_gets_worse_again_is_told_at_once() -> None:
    reader = Reader()
    reader.rounds("cc" + "d" * 40 + "c")
    assert reader.reasons == ["fire", "ease", "escalate"]


def test_all_transitions_of_a_round_are_one_message_the_gravest_first() -> None:
    reader = Reader()
    reader.rounds({"redis": "..dd..", "db": "..cc..", "openai": "cccc.."})
    _, both, ends = reader.messages

    assert [alert.key for alert in both[1]] == ["db", "redis"]
    assert {alert.key for alert in ends[1]} == {"redis", "db", "openai"}


def test_what_is_over_stands_after_what_begins() -> None:
    reader = Reader()
    reader.rounds({"old": "cccc..", "new": "....dd"})

    assert [alert.reason for alert in reader.messages[-1][1]] == ["fire", "clear"]


class TestReminders:
    def test_they_come_after_1_4_and_16_cooldowns_from_the_delivery(self) -> None:
        reader = Reader(up=lambda now: now > 300)
        reader.rounds("c" * 1700)
        told = reader.messages[0][0]

        assert told == 330
        assert reader.reasons == ["fire", *["remind"] * 5]
        waits = [(now - told) / 900 for now, _ in reader.messages[1:]]
        assert waits == pytest.approx([1, 4, 16, 32, 48], abs=0.05)

    def test_one_that_was_late_keeps_the_next_one_off_for_a_cooldown(self) -> None:
        reader = Reader(up=lambda now: now < 60 or now > 3500)
        reader.rounds("c" * 160)

        assert [now for now, _ in reader.messages] == [30, 3510, 4410]

    def test_an_escalation_counts_anew(self) -> None:
        reader = Reader()
        reader.rounds("d" * 20 + "c" * 40)
        times = [now for now, _ in reader.messages]

        assert reader.reasons == ["fire", "escalate", "remind"]
        assert times[2] - times[1] == 900

    def test_they_say_that_it_still_lasts(self) -> None:
        reader = Reader()
        reader.rounds("c" * 40)
        reminder = reader.alerts[1]

        assert (reminder.title, reminder.started_at) == ("db is still critical", NOON)


class TestUndelivered:
    def test_the_newest_state_wins(self) -> None:
        """Degraded, then critical, and nothing got through: one alarm, critical."""
        reader = Reader(up=lambda now: now > 150)
        reader.rounds("ddccccc")
        assert [(alert.reason, alert.severity) for alert in reader.alerts] == [
            ("fire", Severity.CRITICAL)
        ]

    def test_what_came_and_went_unseen_is_one_message(self) -> None:
        reader = Reader(up=lambda now: now > 600)
        reader.rounds("..cccccccc" + "." * 20)
        (late,) = reader.alerts

        assert (late.reason, late.state) == ("was_down", AlertState.RESOLVED)
        assert late.title == "db was down 12:01\N{EN DASH}12:05 UTC"
        assert (late.started_at, late.ended_at) == (
            NOON + timedelta(minutes=1),
            NOON + timedelta(minutes=5),
        )
        assert late.severity is Severity.CRITICAL

    def test_several_that_came_and_went_unseen_are_one_message_too(self) -> None:
        reader = Reader(up=lambda now: now > 600)
        reader.rounds("..cccc....dddd" + "." * 20)
        (late,) = reader.alerts

        assert late.title == "db was down 2 times, 12:01\N{EN DASH}12:07 UTC"
        assert late.severity is Severity.CRITICAL

    def test_many_of_them_are_still_counted(self) -> None:
        reader = Reader(Policy(flap_incidents=0), up=lambda now: now > 3000)
        reader.rounds("cc.." * 25 + "..")
        assert reader.alerts[0].title == "db was down 25 times, 12:00\N{EN DASH}12:49 UTC"

    def test_an_earlier_one_is_mentioned_by_the_alarm_of_the_next(self) -> None:
        reader = Reader(up=lambda now: now > 480)
        reader.rounds("..cccc........ccccc..")
        alarm, all_clear = reader.alerts

        assert alarm.reason == "fire"
        assert alarm.started_at == NOON + timedelta(minutes=7)
        assert alarm.details["earlier"] == (
            "was down 12:01\N{EN DASH}12:03 UTC, which could not be delivered"
        )
        assert all_clear.reason == "clear"
        assert all_clear.started_at == alarm.started_at

    def test_an_all_clear_waits_until_it_can_be_delivered(self) -> None:
        reader = Reader(up=lambda now: now < 90 or now > 600)
        reader.rounds("cccc" + "." * 30)

        assert reader.reasons == ["fire", "clear"]
        assert reader.alerts[1].ended_at == NOON + timedelta(minutes=2)

    def test_a_new_incident_takes_the_place_of_the_all_clear_that_was_not_delivered(self) -> None:
        """To the reader it is one time of trouble, which ends once."""
        reader = Reader(up=lambda now: now < 90 or now > 600)
        reader.rounds("cccc....cc" + "c" * 15 + "..")

        assert reader.reasons == ["fire", "clear"]
        assert reader.alerts[1].started_at == NOON
        assert reader.alerts[1].ended_at == NOON + timedelta(seconds=25 * ROUND)

    def test_no_end_is_told_in_a_bad_round(self) -> None:
        reader = Reader(up=lambda now: now < 60 or now >= 150)
        reader.rounds("cc...c..")

        assert [now for now, _ in reader.messages] == [30, 180]

    def test_each_channel_has_its_own_account(self) -> None:
        incidents = Incidents(Policy(), ["works", "broken"])
        for number, mark in enumerate("cc.."):
            now = number * ROUND
            incidents.observe([seen("db", mark)], now, NOON + timedelta(seconds=now))
            incidents.delivered("works", incidents.wanted("works", now), now)

        assert incidents.wanted("works", 100.0) == []
        (late,) = incidents.wanted("broken", 100.0)
        assert alert_of(late).reason == "was_down"

    def test_a_message_on_its_way_while_things_change_counts_as_what_it_said(self) -> None:
        """The alarm arrives after the end: then the end is wanted."""
        incidents = Incidents(Policy(), [CHANNEL])
        incidents.observe([seen("db", "c")], 0, NOON)
        incidents.observe([seen("db", "c")], 1, NOON)
        alarm = incidents.wanted(CHANNEL, 1)
        incidents.observe([seen("db", ".")], 2, NOON)
        incidents.observe([seen("db", ".")], 3, NOON)
        incidents.delivered(CHANNEL, alarm, 4)

        (end,) = incidents.wanted(CHANNEL, 4)
        assert alert_of(end).reason == "clear"


class TestFlapping:
    def test_it_is_told_once_with_what_it_is(self) -> None:
        reader = Reader()
        reader.rounds("cc.." * 8)
        flapping = reader.alerts[-1]

        assert reader.reasons == ["fire", "clear", "fire", "clear", "flapping"]
        assert flapping.title == "db keeps failing and recovering"
        assert (flapping.started_at, flapping.details["incidents"]) == (NOON, 3)

    def test_its_end_is_told(self) -> None:
        reader = Reader()
        reader.rounds("cc.." * 4 + "." * 40)
        assert reader.reasons[-2:] == ["flapping", "clear"]
        assert reader.alerts[-1].ended_at == NOON + timedelta(seconds=14 * ROUND)

    def test_it_that_turns_into_a_lasting_outage_is_told_as_one(self) -> None:
        reader = Reader()
        reader.rounds("cc.." * 2 + "c" * 31 + "..")
        assert reader.reasons[-3:] == ["flapping", "fire", "clear"]

    def test_it_that_gets_worse_is_told(self) -> None:
        reader = Reader()
        reader.rounds("dd.." * 2 + "dd..cc..dd..cc")

        assert reader.reasons[-2:] == ["flapping", "escalate"]
        assert reader.alerts[-1].title == (
            "db keeps failing and recovering, now critical (was degraded)"
        )

    def test_one_that_nobody_saw_is_one_message(self) -> None:
        reader = Reader(up=lambda now: now > 3600)
        reader.rounds("cc.." * 5 + "." * 120)

        assert reader.reasons == ["was_down"]
        assert "5 times" in reader.alerts[0].title


class TestGrace:
    def test_there_is_no_alarm_in_it(self) -> None:
        reader = Reader(Policy(grace=100))
        reader.rounds("cccccc")
        alarm = reader.alerts[0]

        assert [now for now, _ in reader.messages] == [120]
        assert (alarm.reason, alarm.started_at) == ("fire", NOON)

    def test_what_was_well_once_may_give_one(self) -> None:
        reader = Reader(Policy(grace=100))
        reader.rounds(".cc")
        assert reader.reasons == ["fire"]

    def test_that_another_key_was_well_changes_nothing(self) -> None:
        reader = Reader(Policy(grace=100))
        reader.rounds({"db": "cc", "redis": ".."})
        assert reader.reasons == []

    def test_what_is_over_before_its_end_was_never_there(self) -> None:
        """No alarm, no all-clear, no report that it was down."""
        reader = Reader(Policy(grace=1000))
        reader.rounds("ccc" + "." * 60)
        assert reader.reasons == []


class TestInhibition:
    def rounds(self, reader: Reader, parent: str, child: str) -> None:
        for number, (above, below) in enumerate(zip(parent, child, strict=True)):
            observations = [seen("pay", below, depends_on=("db",))]
            if above.strip():
                observations.append(seen("db", above))
            reader.round(number * ROUND, observations)

    def told(self, reader: Reader) -> list[tuple[str, str]]:
        return [(alert.key, alert.reason) for alert in reader.alerts]

    @pytest.mark.parametrize(
        ("parent", "child", "told"),
        [
            ("ccc......", "ccc......", [("db", "fire"), ("db", "clear")]),
            ("cccc.....", "ccccc....", [("db", "fire"), ("db", "clear")]),
            ("dddd.....", "cccc.....", [("db", "fire"), ("db", "clear")]),
            (".ccc.....", "cccc.....", [("db", "fire"), ("db", "clear")]),
            (
                "ccc........",
                "ccccccccccc",
                [("db", "fire"), ("db", "clear"), ("pay", "fire")],
            ),
            (
                "..ccc......",
                "cccccccc...",
                [("pay", "fire"), ("db", "fire"), ("db", "clear"), ("pay", "clear")],
            ),
            (
                "..cccccccc",
                "cccc......",
                [("pay", "fire"), ("db", "fire"), ("pay", "clear")],
            ),
            ("          ", "cccccccccc", [("pay", "fire")]),
        ],
        ids=[
            "it fails and recovers with its parent",
            "it recovers a round later",
            "its parent is only degraded",
            "it failed a round earlier",
            "it stays down",
            "it was told before",
            "its own end is told while the parent burns",
            "its parent is not known",
        ],
    )
    def test_a_child_is_silent_while_its_parent_burns(
        self, parent: str, child: str, told: list[tuple[str, str]]
    ) -> None:
        reader = Reader()
        self.rounds(reader, parent, child)
        assert self.told(reader) == told

    def test_the_parents_alarm_names_the_children(self) -> None:
        reader = Reader()
        self.rounds(reader, "cc", "cc")
        assert reader.alerts[0].details["affected"] == "pay"

    def test_a_slow_parent_does_not_keep_its_children_silent_for_long(self) -> None:
        """It was seen twice since its end, and will not be seen again for a day."""
        reader = Reader()
        self.rounds(reader, "cc..      ", "cccccccccc")
        assert self.told(reader)[-1] == ("pay", "fire")

    def test_it_reaches_grandchildren(self) -> None:
        reader = Reader()
        for number in range(4):
            reader.round(
                number * ROUND,
                [
                    seen("page", "c", depends_on=("pay",)),
                    seen("pay", ".", depends_on=("db",)),
                    seen("db", "c"),
                ],
            )
        assert self.told(reader) == [("db", "fire")]

    @pytest.mark.parametrize("depends_on", [("pay", "db"), ("pay",)])
    def test_keys_that_depend_on_each_other_do_not_silence_each_other(
        self, depends_on: tuple[str, ...]
    ) -> None:
        reader = Reader()
        for number in range(2):
            observations = [
                seen("pay", "c", depends_on=depends_on),
                seen("db", "c", depends_on=("pay",) if "db" in depends_on else ()),
            ]
            reader.round(number * ROUND, observations)
        assert set(self.told(reader)) == {("pay", "fire"), ("db", "fire")}

    def test_reminders_of_a_child_wait_too(self) -> None:
        reader = Reader()
        self.rounds(reader, "..." + "c" * 40, "c" * 43)
        assert self.told(reader) == [("pay", "fire"), ("db", "fire"), ("db", "remind")]

    def test_a_silenced_parent_speaks_for_nobody(self) -> None:
        reader = Reader()
        for number, child in enumerate("....ccccc"):
            if number == 3:
                reader.incidents.quiet.silence("db", Silence(9_999.0, Severity.CRITICAL))
            looks = [seen("db", "c"), seen("shop", child, depends_on=("db",))]
            reader.round(number * ROUND, looks)

        assert [(alert.key, alert.reason) for alert in reader.alerts] == [
            ("db", "fire"),
            ("shop", "fire"),
        ]

    @pytest.mark.parametrize(
        ("part", "begins", "told_at"),
        [
            ("traffic GET /a", 20, 21),
            ("traffic GET /a", 0, 11),
            ("shop", 20, None),
        ],
    )
    def test_a_part_that_is_graver_than_the_whole_speaks_unless_it_began_with_it(
        self, part: str, begins: int, told_at: int | None
    ) -> None:
        """What began with it has five minutes in which the whole may become as grave."""
        reader = Reader()
        for number in range(28):
            mark = "u" if number >= begins else "."
            looks = [seen("traffic", "d"), seen(part, mark, depends_on=("traffic",))]
            reader.round(number * ROUND, looks)
        told = [now / ROUND for now, alerts in reader.messages if alerts[0].key == part]

        assert told == ([] if told_at is None else [told_at])

    def test_a_part_that_is_as_grave_as_the_whole_is_told_with_it(self) -> None:
        reader = Reader()
        for number in range(28):
            mark = "u" if number > 20 else "."
            looks = [seen("traffic", "u"), seen("traffic a", mark, depends_on=("traffic",))]
            reader.round(number * ROUND, looks)

        assert {alert.key for alert in reader.alerts} == {"traffic"}

    def test_a_parent_lingers_although_its_all_clear_was_delivered(self) -> None:
        reader = Reader(Policy(flap_incidents=0, flap_window=0.0))
        for number, marks in enumerate(("cc", "cc", ".c", ".c", ".c", "..", "..")):
            looks = [seen("db", marks[0]), seen("shop", marks[1], depends_on=("db",))]
            reader.round(number * ROUND, looks)

        assert ("db", "clear") in [(alert.key, alert.reason) for alert in reader.alerts]
        assert {alert.key for alert in reader.alerts} == {"db"}

    @pytest.mark.parametrize(("child", "told"), [("traffic GET /a", False), ("shop", True)])
    def test_traffic_has_a_minute_to_be_well_again_however_short_the_rounds(
        self, child: str, told: bool
    ) -> None:
        """Its last minute is judged, in which there are the failures of before."""
        reader = Reader()
        seconds = 3.0
        for number in range(60):
            parent, mark = "c" if number < 6 else ".", "c" if number < 37 else "."
            looks = [seen("db", parent), seen(child, mark, depends_on=("db",))]
            reader.round(number * seconds, looks)

        assert (child in {alert.key for alert in reader.alerts}) is told
        assert ("db", "clear") in [(alert.key, alert.reason) for alert in reader.alerts]

    def test_traffic_that_still_fails_after_that_minute_is_told(self) -> None:
        reader = Reader()
        for number in range(60):
            looks = [
                seen("db", "c" if number < 6 else "."),
                seen("traffic", "c", depends_on=("db",)),
            ]
            reader.round(number * 3.0, looks)

        assert [alert.key for alert in reader.alerts][-1] == "traffic"

    def test_keys_of_the_past_do_not_take_the_room_of_those_that_depend_now(self) -> None:
        reader = Reader()
        old = [seen(f"old {number}", ".", depends_on=("db",)) for number in range(MAX_KEYS)]
        reader.round(0, old)
        for number in range(1, 5):
            looks = [seen("db", "c"), seen("shop", "c", depends_on=("db",))]
            reader.round(number * ROUND, looks)

        assert {alert.key for alert in reader.alerts} == {"db"}
        assert len(reader.incidents.snapshot().parents) <= MAX_KEYS

    def test_what_a_key_depends_on_is_forgotten_with_it(self) -> None:
        reader = Reader()
        for number in range(200):
            mark = "c" if number < 4 else "."
            looks = [seen("traffic a", mark, depends_on=("traffic",))]
            # As with endpoints: observed only while there is something to remember.
            reader.round(number * ROUND, looks if number < 4 or reader.incidents.remembered else [])

        assert reader.incidents.remembered == ()
        assert reader.incidents.snapshot().parents == {}


class TestKeptAsItIs:
    """Looks in which nothing was seen by which something begins, or is over."""

    @staticmethod
    def look(key: str = "db", summary: str = "") -> Observation:
        return Observation(key, Status.SKIPPED, summary, kept=True)

    def test_it_goes_on_without_reminders_and_ends_when_it_is_seen_to(self) -> None:
        reader = Reader()
        reader.rounds("cc")
        for number in range(2, 200):
            reader.round(number * ROUND, [self.look()])
        assert reader.reasons == ["fire"]
        assert [key for key, _, _ in reader.incidents.standing()] == ["db"]
        reader.rounds("..", start=200 * ROUND)
        assert reader.reasons == ["fire", "clear"]

    def test_nothing_begins_by_it(self) -> None:
        reader = Reader()
        for number in range(9):
            reader.round(number * ROUND, [seen("db", "c") if number % 3 == 0 else self.look()])
        assert reader.alerts == []

    def test_it_says_what_is_so_by_now(self) -> None:
        reader = Reader()
        reader.rounds("cc")
        reader.round(60.0, [self.look(summary="it is half well")])
        ((_, incident, _),) = reader.incidents.standing()
        assert (incident.summary, incident.severity) == ("it is half well", Severity.CRITICAL)

    def test_after_a_restart_nothing_is_over_by_it(self) -> None:
        before = Reader()
        before.rounds("cc")
        reader = Reader()
        reader.incidents.restore(before.incidents.snapshot(), 60.0)
        for number in range(100):
            reader.round(60.0 + number * ROUND, [self.look()])
        assert reader.alerts == []

    def test_after_a_restart_an_end_that_is_doubtful_is_not_told(self) -> None:
        before = Reader(up=lambda now: now < 45)
        before.rounds("cc..")
        reader = Reader()
        reader.incidents.restore(before.incidents.snapshot(), 120.0)
        reader.round(120.0, [self.look()])
        assert reader.alerts == []


class TestKeptBack:
    """The incidents that are counted as suppressed."""

    def test_each_is_given_once_when_it_begins(self) -> None:
        incidents = Incidents(Policy(grace=1000), [CHANNEL])
        given = [incidents.observe([seen("db", "c")], now, NOON) for now in range(4)]
        assert given == [[], [Severity.CRITICAL], [], []]

    def test_those_of_a_key_that_flaps_are_among_them(self) -> None:
        incidents = Incidents(Policy(), [CHANNEL])
        marks = "cc.." * 3 + "dd"
        given = [incidents.observe([seen("db", mark)], now, NOON) for now, mark in enumerate(marks)]
        assert [severities for severities in given if severities] == [[Severity.WARNING]]


class TestMemory:
    def test_keys_that_are_well_leave_nothing(self) -> None:
        incidents = Incidents(Policy(), [CHANNEL])
        for number in range(3000):
            incidents.observe([seen(f"key {number}", ".")], number, NOON)
        assert incidents._conditions == {}

    def test_keys_that_have_recovered_leave_nothing_after_a_while(self) -> None:
        reader = Reader()
        reader.rounds("cc" + "." * 140)
        incidents = reader.incidents

        assert (incidents._conditions, incidents._told[CHANNEL]) == ({}, {})
        assert len(incidents.recent) == 1

    def test_without_a_channel_nothing_waits_for_one(self) -> None:
        incidents = Incidents(Policy(flap_window=60), [])
        for now, mark in enumerate("cc.." + "." * 100):
            incidents.observe([seen("db", mark)], now, NOON)
        assert incidents._conditions == {}

    def test_the_number_of_keys_in_trouble_is_bounded(self) -> None:
        incidents = Incidents(Policy(grace=10), [CHANNEL])
        for mark in ".c":
            keys = [f"key {number}" for number in range(MAX_KEYS + 50)]
            incidents.observe([seen(key, mark, depends_on=("db",)) for key in keys], 0, NOON)

        assert len(incidents._conditions) == MAX_KEYS
        assert incidents.refused == 50
        assert max(len(incidents._well), len(incidents._parents)) == MAX_KEYS
        incidents.observe([], 11, NOON)
        incidents.observe([seen("key 1", "c")], 12, NOON)
        assert incidents._well == set()

    def test_a_key_that_is_never_observed_again_is_over(self) -> None:
        reader = Reader()
        reader.rounds("cc")
        reader.round(200_000, [])
        gone = reader.alerts[-1]

        assert (gone.reason, gone.title) == ("clear", "db is no longer checked")
        reader.round(400_000, [])
        assert reader.incidents._conditions == {}
        assert len(reader.alerts) == 2

    def test_the_last_incidents_are_kept(self) -> None:
        reader = Reader(Policy(flap_incidents=0))
        reader.rounds("cc.." * 150)
        assert len(reader.incidents.recent) == 100
