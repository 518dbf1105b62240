"""One notifier's pace: what is tried when, after which failure, and what is not tried again."""

from __future__ import annotations

from datetime import timedelta
from math import inf

import pytest

from holistic_asgi_monitor.alerts.channel import MOST_NOTICES, Channel, Failure
from holistic_asgi_monitor.alerts.incidents import Incidents, Policy
from holistic_asgi_monitor.model import Alert, AlertState, Severity
from tests.alerts.rounds import CHANNEL, NOON, seen

DOWN = Failure("it is down")
REFUSED = Failure("it is gone", permanent=True)
DOUBTFUL = Failure("it is slow", ambiguous=True)


class Desk:
    """A channel, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.incidents = Incidents(Policy(), [CHANNEL])
        self.channel = Channel(CHANNEL, self.incidents)
        self.now = 0.0

    def see(self, key: str, marks: str) -> None:
        for mark in marks:
            time = NOON + timedelta(seconds=self.now)
            self.incidents.observe([seen(key, mark)], self.now, time)

    @property
    def due(self) -> float:
        """In how many seconds the next try is due."""
        return self.channel.due(self.now) - self.now

    @property
    def reasons(self) -> list[str]:
        return [letter.alert.reason for letter in self.channel.letters(self.now)]

    def fail(self, failure: Failure = DOWN) -> None:
        self.channel.failed(self.channel.letters(self.now), failure, self.now)

    def deliver(self) -> None:
        self.channel.delivered(self.channel.letters(self.now), self.now)


def notice(title: str, number: int = 0) -> Alert:
    return Alert(
        key=f"notice: {title}",
        severity=Severity.INFO,
        state=AlertState.NOTICE,
        title=title,
        summary="",
        started_at=NOON + timedelta(seconds=number),
        reason="notice",
    )


@pytest.fixture
def desk() -> Desk:
    """A channel that is to tell that the database is down."""
    desk = Desk()
    desk.see("db", "cc")
    return desk


def test_nothing_is_due_where_nothing_is_wanted() -> None:
    assert Desk().due == inf


def test_what_is_wanted_is_due_at_once_and_once_only(desk: Desk) -> None:
    assert desk.due <= 0
    desk.deliver()
    assert desk.due == inf
    assert desk.channel.up


def test_one_message_a_second(desk: Desk) -> None:
    desk.deliver()
    desk.see("db", "..")
    assert desk.due == 1


def test_tries_are_1_2_4_and_at_last_60_seconds_apart(desk: Desk) -> None:
    waits = []
    for _ in range(9):
        desk.fail()
        waits.append(desk.due)
        desk.now += desk.due

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert not desk.channel.up


def test_a_delivery_ends_the_waiting(desk: Desk) -> None:
    for _ in range(5):
        desk.fail()
    desk.deliver()
    desk.see("db", "..")
    desk.now += 1
    desk.fail()

    assert desk.due == 1


@pytest.mark.parametrize(("asked", "wait"), [(7.0, 7), (2.5, 2.5), (0.0, 1), (9999.0, 300)])
def test_a_wait_that_was_asked_for_is_kept(desk: Desk, asked: float, wait: float) -> None:
    desk.fail(Failure("busy", retry_after=asked))
    desk.see("redis", "cc")

    assert desk.due == wait


def test_what_changes_meanwhile_is_what_is_tried_next(desk: Desk) -> None:
    desk.fail()
    desk.see("db", "..")
    assert desk.reasons == ["was_down"]


class TestRefused:
    def test_the_same_is_tried_every_hour(self, desk: Desk) -> None:
        desk.fail(REFUSED)
        assert (desk.due, desk.channel.refused) == (3600, True)
        desk.now += 3600
        desk.fail(REFUSED)
        assert desk.due == 3600

    def test_what_has_changed_is_tried_at_once(self, desk: Desk) -> None:
        desk.fail(REFUSED)
        desk.see("redis", "cc")
        assert desk.due == 1

    def test_a_wait_that_was_asked_for_is_kept_all_the_same(self, desk: Desk) -> None:
        desk.fail(Failure("busy", retry_after=60.0, permanent=True))
        desk.see("redis", "cc")
        assert desk.due == 60

    def test_what_is_refused_together_is_tried_one_by_one(self, desk: Desk) -> None:
        desk.see("redis", "cc")
        desk.fail(REFUSED)
        sent = []
        for failure in (REFUSED, None):
            desk.now += desk.due
            sent += [letter.alert.key for letter in desk.channel.letters(desk.now)]
            desk.deliver() if failure is None else desk.fail(failure)

        assert sent == ["db", "redis"]
        assert desk.channel.up

    def test_what_alone_is_refused_twice_keeps_nothing_else_back(self, desk: Desk) -> None:
        desk.fail(REFUSED)
        desk.see("redis", "cc")
        assert [letter.alert.key for letter in desk.channel.letters(desk.now)] == ["redis"]
        desk.deliver()
        assert [letter.alert.key for letter in desk.channel.letters(desk.now)] == ["db"]
        desk.fail(REFUSED)
        desk.see("redis", "..")

        assert [letter.alert.key for letter in desk.channel.letters(desk.now)] == ["redis"]
        desk.deliver()
        assert desk.due == 3600

    @pytest.mark.parametrize("alerts", [3, 10, 50])
    def test_a_notifier_that_refuses_all_gets_few_tries_an_hour(self, alerts: int) -> None:
        desk = Desk()
        for number in range(alerts):
            desk.see(f"check {number}", "cc")
        tries = 0
        while desk.now < 3600:
            desk.fail(REFUSED)
            tries += 1
            desk.now += desk.due

        assert tries == 4
        assert len(desk.channel.letters(desk.now)) == alerts

    def test_a_delivery_forgets_it(self, desk: Desk) -> None:
        desk.fail(REFUSED)
        desk.now += 3600
        desk.deliver()
        assert not desk.channel.refused


class TestInDoubt:
    def test_what_may_have_arrived_is_tried_once_more_and_then_after_ever_longer_times(
        self, desk: Desk
    ) -> None:
        desk.fail(DOUBTFUL)
        assert desk.due == 1
        desk.now += 1
        for held in (120, 240, 480, 900, 900):
            desk.fail(DOUBTFUL)
            assert (desk.reasons, desk.due) == ([], held)
            desk.now += held
            assert desk.reasons == ["fire"]

    def test_what_arrives_meanwhile_ends_the_first_hold_and_no_other(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.fail(DOUBTFUL)
        assert desk.reasons == []
        desk.see("redis", "cc")
        desk.deliver()
        assert desk.reasons == ["fire"], "the notifier is well again, and it may not have come"
        desk.fail(DOUBTFUL)
        desk.see("redis", "..")
        desk.deliver()
        assert (desk.reasons, desk.due) == ([], 240)

    def test_after_a_hold_it_is_sent_only_if_it_is_still_so(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.fail(DOUBTFUL)
        desk.see("redis", "cc")
        desk.deliver()
        desk.see("db", "..")
        assert desk.reasons == ["was_down"]

    def test_a_failure_without_doubt_changes_nothing_of_it(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.fail()
        desk.fail(DOUBTFUL)
        assert desk.due == 120

    def test_what_has_changed_is_tried(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.fail(DOUBTFUL)
        desk.see("db", "..")
        assert desk.reasons == ["was_down"]

    def test_it_keeps_nothing_else_back(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.fail(DOUBTFUL)
        desk.see("redis", "cc")
        assert [letter.alert.key for letter in desk.channel.letters(desk.now)] == ["redis"]

    def test_it_is_forgotten_with_what_it_was_about(self, desk: Desk) -> None:
        desk.fail(DOUBTFUL)
        desk.see("db", "..")
        desk.deliver()
        assert desk.channel._doubts == {}


class TestNotices:
    def test_they_go_with_the_rest(self, desk: Desk) -> None:
        desk.channel.notice(notice("Deployed"))
        assert desk.reasons == ["fire", "notice"]
        desk.deliver()
        assert desk.due == inf

    def test_a_newer_one_takes_the_place_of_an_undelivered_one(self) -> None:
        desk = Desk()
        desk.channel.notice(notice("Deployed", 1))
        desk.channel.notice(notice("Deployed", 2))
        (letter,) = desk.channel.letters(0)
        assert letter.alert.started_at == NOON + timedelta(seconds=2)

    def test_one_that_comes_while_the_older_is_under_way_is_sent_too(self) -> None:
        desk = Desk()
        desk.channel.notice(notice("Deployed", 1))
        under_way = desk.channel.letters(0)
        desk.channel.notice(notice("Deployed", 2))
        desk.channel.delivered(under_way, 0)
        assert desk.reasons == ["notice"]

    def test_the_oldest_is_given_up_where_there_are_too_many(self) -> None:
        desk = Desk()
        dropped = [desk.channel.notice(notice(str(number))) for number in range(MOST_NOTICES + 1)]
        assert [alert.title for alert in dropped if alert is not None] == ["0"]
        assert len(desk.reasons) == MOST_NOTICES
