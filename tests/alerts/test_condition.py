"""The machine of one key, step by step: when an incident begins, gets worse, eases, ends, flaps."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holistic_asgi_monitor.alerts.condition import Belief, Condition, Policy, abandoned, step
from holistic_asgi_monitor.model import Severity, Status
from tests.alerts.rounds import NOON, ROUND, seen


def after(marks: str, policy: Policy | None = None) -> Condition:
    """The condition after one round for each letter."""
    condition = Condition()
    for number, mark in enumerate(marks):
        now = number * ROUND
        time = NOON + timedelta(seconds=now)
        condition = step(condition, seen("db", mark), policy or Policy(), now=now, time=time)
    return condition


@pytest.mark.parametrize(
    ("marks", "belief"),
    [
        ("", Belief.CALM),
        (".", Belief.CALM),
        ("c", Belief.CALM),
        ("c.c.", Belief.CALM),
        ("cc", Belief.FIRING),
        ("dd", Belief.FIRING),
        ("??", Belief.FIRING),
        ("d?", Belief.FIRING),
        ("ss", Belief.CALM),
        ("cs", Belief.CALM),
        ("cc.", Belief.FIRING),
        ("cc.c.", Belief.FIRING),
        ("cc..", Belief.CALM),
        ("ccss", Belief.CALM),
        ("cc.s", Belief.CALM),
        ("c.c.c.c.c", Belief.FIRING),
        ("c.c.c.c..c", Belief.FIRING),
        ("c.c.c..c..c", Belief.CALM),
    ],
)
def test_bad_rounds_in_a_row_or_half_of_the_last_ten_make_an_incident(
    marks: str, belief: Belief
) -> None:
    """`.` is a good round, the letters bad ones, `s` a skipped one, which never counts as bad."""
    assert after(marks).belief is belief


@pytest.mark.parametrize(
    ("failures", "successes", "marks", "belief"),
    [
        (1, 1, "c", Belief.FIRING),
        (1, 1, "c.", Belief.CALM),
        (3, 2, "cc", Belief.CALM),
        (3, 2, "ccc", Belief.FIRING),
        (2, 3, "cc..", Belief.FIRING),
        (2, 3, "cc...", Belief.CALM),
    ],
)
def test_how_many_rounds_it_takes_is_the_policys(
    failures: int, successes: int, marks: str, belief: Belief
) -> None:
    assert after(marks, Policy(failures=failures, successes=successes)).belief is belief


def test_an_incident_of_the_ratio_ends_when_the_ratio_has_fallen() -> None:
    """Two good rounds alone would end it, and the next bad ones begin another."""
    policy = Policy(failures=3)
    began = "cc.cc.c"
    assert after(began[:-1], policy).open is None
    assert after(began, policy).open is not None
    assert after(began + "...", policy).open is not None
    assert after(began + "....", policy).open is None


def test_an_incident_of_a_row_ends_though_most_of_the_last_ten_were_bad() -> None:
    assert after("cccccccccc..").open is None


def test_what_made_an_incident_does_not_make_the_next_one() -> None:
    """One bad round after the end is one bad round, however many there were before."""
    assert after("cccccccccc..c").open is None


def minute(marks: str) -> tuple[str, str | None]:
    """When the incident that `marks` makes began and ended."""
    condition = after(marks)
    incident = condition.open or condition.last
    assert incident is not None
    ended = incident.ended_at
    return f"{incident.started_at:%H:%M:%S}", None if ended is None else f"{ended:%H:%M:%S}"


@pytest.mark.parametrize(
    ("marks", "began", "ended"),
    [
        ("..cc", "12:01:00", None),
        ("..ccc...", "12:01:00", "12:02:30"),
        ("..cc.cc..", "12:01:00", "12:03:30"),
        ("..c.c.c.c.c", "12:01:00", None),
    ],
)
def test_an_incident_began_with_its_first_bad_round_and_ended_with_the_first_good_one(
    marks: str, began: str, ended: str | None
) -> None:
    assert minute(marks) == (began, ended)


@pytest.mark.parametrize(
    ("marks", "status"),
    [
        ("dd", Status.DEGRADED),
        ("cd", Status.DEGRADED),
        ("dc", Status.CRITICAL),
        ("ddc", Status.CRITICAL),
        ("ddu", Status.UNHEALTHY),
        ("ccd", Status.CRITICAL),
        ("ccdd", Status.DEGRADED),
        ("ccd.d", Status.DEGRADED),
        ("ccdcd", Status.CRITICAL),
        ("cc?????", Status.CRITICAL),
        ("ccd?d", Status.CRITICAL),
        ("dd?", Status.UNKNOWN),
        ("??d", Status.DEGRADED),
        ("cc.", Status.CRITICAL),
    ],
)
def test_worse_counts_at_once_and_better_after_as_many_rounds_as_an_end_takes(
    marks: str, status: Status
) -> None:
    """No answer at all never shows that something critical is better."""
    condition = after(marks)

    assert condition.open is not None
    assert condition.open.status is status
    assert condition.open.summary == f"db shows {status.value}"


@pytest.mark.parametrize(
    ("mark", "severity"),
    [
        ("?", Severity.WARNING),
        ("d", Severity.WARNING),
        ("u", Severity.ERROR),
        ("c", Severity.CRITICAL),
        (".", None),
        ("s", None),
    ],
)
def test_each_status_has_its_severity(mark: str, severity: Severity | None) -> None:
    assert seen("db", mark).severity is severity


class TestFlapping:
    UP_AND_DOWN = "cc.." * 2

    def test_the_third_incident_of_an_hour_is_flapping(self) -> None:
        assert after(self.UP_AND_DOWN).belief is Belief.CALM
        assert after(self.UP_AND_DOWN + "cc").belief is Belief.FLAPPING
        assert after(self.UP_AND_DOWN + "cc..").belief is Belief.FLAPPING

    def test_incidents_further_apart_are_none(self) -> None:
        """The first has left the hour when the third begins."""
        pause = "." * 60
        assert after(f"cc..{pause}cc..{pause}cc").belief is Belief.FIRING

    def test_it_began_with_the_first_of_them_and_counts_them(self) -> None:
        flapping = after(self.UP_AND_DOWN + "dd..dd").flapping

        assert flapping is not None
        assert (flapping.times, flapping.started_at) == (4, NOON)

    def test_it_ends_after_quarter_of_an_hour_without_a_change(self) -> None:
        marks = self.UP_AND_DOWN + "cc.."
        assert after(marks + "." * 29).belief is Belief.FLAPPING
        assert after(marks + "." * 30).belief is Belief.CALM

    def test_quiet_and_down_it_goes_over_into_an_incident(self) -> None:
        assert after(self.UP_AND_DOWN + "cc" + "c" * 30).belief is Belief.FIRING

    def test_its_end_forgets_the_incidents_before(self) -> None:
        """Else the next one alone would be flapping again."""
        assert after(self.UP_AND_DOWN + "cc.." + "." * 30 + "cc").belief is Belief.FIRING

    def test_it_is_as_grave_as_the_worst_of_its_incidents(self) -> None:
        flapping = after(self.UP_AND_DOWN + "dd..cc..dd").flapping

        assert flapping is not None
        assert flapping.severity is Severity.CRITICAL

    def test_it_can_be_switched_off(self) -> None:
        assert after("cc.." * 5 + "cc", Policy(flap_incidents=0)).belief is Belief.FIRING


def test_a_clock_that_is_set_back_changes_no_decision() -> None:
    condition = Condition()
    for number, mark in enumerate("..cc.."):
        time = NOON - timedelta(hours=number)
        now = number * ROUND
        condition = step(condition, seen("db", mark), Policy(), now=now, time=time)

    assert (condition.serial, condition.belief) == (1, Belief.CALM)


def test_there_is_nothing_to_remember_of_what_is_well() -> None:
    assert after("....").idle
    assert not after("c...").idle
    assert after("c" + "." * 10).idle


def test_what_nobody_observes_is_over() -> None:
    """It has not become healthy by that."""
    over = abandoned(after("cc"), now=1e6, time=NOON)

    assert over.belief is Belief.CALM
    assert over.latest is not None
    assert over.latest.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("number", "multiple"), [(0, 1), (1, 4), (2, 16), (3, 32), (4, 48), (10, 144)]
)
def test_reminders_come_after_1_4_and_16_times_the_cooldown_then_every_16(
    number: int, multiple: int
) -> None:
    assert Policy().reminder(number) == multiple * 900


def test_without_reminders_there_are_none() -> None:
    assert Policy(reminders=()).reminder(0) == float("inf")
