"""The words of an alert."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holistic_asgi_monitor.alerts.condition import NO_REQUESTS, Condition, Incident, Observation
from holistic_asgi_monitor.alerts.incidents import Draft, Reason, Told
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import Severity, Status
from tests.alerts.rounds import NOON, ROUND, Reader, seen


@pytest.mark.parametrize(
    ("marks", "titles"),
    [
        ("dd", ["db is degraded"]),
        ("uu", ["db is unhealthy"]),
        ("??", ["db cannot be judged"]),
        ("?" * 40, ["db cannot be judged", "db still cannot be judged"]),
        ("ddc", ["db is degraded", "db is now critical (was degraded)"]),
        ("ddu", ["db is degraded", "db is now unhealthy (was degraded)"]),
        ("cc..", ["db is critical", "db is healthy again"]),
        ("ccss", ["db is critical", "db is no longer checked"]),
    ],
)
def test_a_title_says_what_is_so(marks: str, titles: list[str]) -> None:
    reader = Reader()
    reader.rounds(marks)
    assert [alert.title for alert in reader.alerts] == titles


def test_a_reminder_of_flapping_says_that_it_still_does() -> None:
    reader = Reader()
    reader.rounds("cc.." * 12)
    assert reader.alerts[-1].title == "db still keeps failing and recovering"


@pytest.mark.parametrize(
    ("mark", "required", "impact"),
    [
        ("c", True, "the app cannot serve without it"),
        ("u", True, "the app cannot serve without it"),
        ("d", True, None),
        ("c", False, None),
    ],
)
def test_an_alarm_says_where_the_app_cannot_serve(
    mark: str, required: bool, impact: str | None
) -> None:
    reader = Reader()
    for number in range(2):
        reader.round(number * ROUND, [seen("db", mark, required=required, details={"idle": 0})])

    assert reader.alerts[0].details.get("impact") == impact
    assert reader.alerts[0].details["idle"] == 0


def test_an_all_clear_names_the_worst_that_was() -> None:
    reader = Reader()
    reader.rounds("ddcdddddd..")

    assert reader.alerts[-1].details["was"] == "critical: db shows critical"


def test_an_end_without_anything_good_is_not_called_well() -> None:
    reader = Reader()
    reader.rounds("uu")
    for number in (2, 3):
        gone = Observation("db", Status.SKIPPED, NO_REQUESTS)
        reader.round(number * ROUND, [gone])

    assert reader.alerts[-1].title == "db has no requests any more"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "was down 12:00:00\N{EN DASH}12:00:20 UTC"),
        (240, "was down 12:00\N{EN DASH}12:04 UTC"),
        (86400, "was down 2026-11-23 12:00 \N{EN DASH} 2026-11-24 12:00 UTC"),
    ],
)
def test_a_period_is_as_exact_as_it_must_be(seconds: int, words: str) -> None:
    ended = NOON + timedelta(seconds=seconds)
    incident = Incident(1, NOON, ended, severity=Severity.ERROR)
    condition = Condition(serial=1, ended=(incident,), last=incident)
    draft = Draft("db", Reason.WAS_DOWN, condition, Told())

    assert alert_of(draft).title == f"db {words}"
    assert alert_of(draft).details["now"] == "no longer checked"
