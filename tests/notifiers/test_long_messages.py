"""Messages of several paragraphs, as a summary of the day: what each notifier makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers import Log
from holistic_asgi_monitor.notifiers.alertmanager import entries
from holistic_asgi_monitor.notifiers.blocks import message
from tests.notifiers.alerts import NOON, alarm
from tests.notifiers.slack_stub import refusal

LATER = NOON + timedelta(minutes=2)
TEXT = "Midnight to midnight\n\nSpend\n$12 & <more>\nNovember: $30\n\nRequests\n5 requests"


def summary(text: str = TEXT, **more: Any) -> Alert:
    options: dict[str, Any] = {
        "severity": Severity.INFO,
        "state": AlertState.NOTICE,
        "title": "Summary of Monday",
        "summary": text,
        "reason": "bulletin",
        "details": {"figures": {"usd": 12}},
    }
    return replace(alarm("bulletin: daily 2026-11-23"), **options | more)


def sections(body: dict[str, Any]) -> list[str]:
    return [block["text"]["text"] for block in body["blocks"] if block["type"] == "section"]


def test_in_slack_each_paragraph_has_a_section_under_a_head_in_bold() -> None:
    body = message([summary()], LATER)

    assert sections(body) == [
        "\N{LARGE BLUE CIRCLE} *shop (production): Summary of Monday*\nMidnight to midnight",
        "*Spend*\n$12 &amp; &lt;more&gt;\nNovember: $30",
        "*Requests*\n5 requests",
    ]
    assert refusal(body) is None


def test_a_phone_shows_the_first_paragraph_that_says_something() -> None:
    assert message([summary()], LATER)["text"] == (
        "\N{LARGE BLUE CIRCLE} shop (production): Summary of Monday. "
        "Spend: $12 &amp; &lt;more&gt;; November: $30"
    )


def test_a_first_paragraph_with_a_head_stands_by_itself() -> None:
    body = message([summary("Spend\n$12\n\nRequests\n5 requests")], LATER)

    assert sections(body)[1:] == ["*Spend*\n$12", "*Requests*\n5 requests"]


def test_a_message_of_one_paragraph_looks_as_ever() -> None:
    body = message([summary("The budget is spent.", details={"spent": "$12"})], LATER)

    (said,) = sections(body)
    assert said == (
        "\N{LARGE BLUE CIRCLE} *shop (production): Summary of Monday*\n"
        "The budget is spent.\n\N{BULLET} spent: $12"
    )


LINES = st.lists(st.text(max_size=700), max_size=40)


@given(st.lists(LINES, min_size=1, max_size=40), st.integers(0, 12))
def test_slack_takes_it_however_long_it_is(paragraphs: list[list[str]], others: int) -> None:
    text = "\n\n".join("\n".join(lines) for lines in paragraphs)
    alarms = [alarm(f"check {number}") for number in range(others)]

    assert refusal(message([*alarms, summary(text)], LATER)) is None


def test_of_what_is_too_long_the_beginning_is_told() -> None:
    long = "\n\n".join(f"Part {number}\n" + "\n".join(60 * ["&" * 90]) for number in range(9))
    said = sections(message([summary(long)], LATER))

    assert said[1].startswith("*Part 0*\n")
    assert said[-1] == "and more, for which there is no room"


async def test_the_log_has_it_on_one_line_without_the_figures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    await Log().send([summary()])

    (record,) = caplog.records
    assert record.getMessage() == (
        "INFO shop / production / web-1: Summary of Monday; Midnight to midnight; "
        "Spend: $12 & <more>; November: $30; Requests: 5 requests"
    )


def test_alertmanager_has_its_paragraphs_for_a_quarter_of_an_hour() -> None:
    (entry,) = entries([summary()], {}, LATER, 86_400)

    assert entry["annotations"]["description"] == TEXT
    assert entry["labels"]["severity"] == "info"
    assert entry["endsAt"] == "2026-11-23T12:17:00.000+00:00"
