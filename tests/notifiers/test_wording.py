"""The words that notifiers share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holistic_asgi_monitor.notifiers.wording import clean, how_long, origin, state_word
from tests.notifiers.alerts import NOON, alarm, all_clear, notice


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (45, "45 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (250, "4 min 10 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 3600 * 4 + 5, "3 d 4 h"),
        (-30, "0 s"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert how_long(NOON, NOON + timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  two\n lines\t here ", "two lines here"),
        ("bell\x07 and \x1b[31mred", "bell and [31mred"),
        ("\u202eevil\u202c \u200fleft\u2066", "evil left"),
        ("half \ud83d pair", "half pair"),
        ("line\u2028separator", "line separator"),
        ("\u00fcmlaut \u65e5\u672c \U0001f600", "\u00fcmlaut \u65e5\u672c \U0001f600"),
        (42, "42"),
    ],
)
def test_a_text_is_one_line_that_shows_what_it_holds(text: object, cleaned: str) -> None:
    assert clean(text).replace("  ", " ") == cleaned


def test_where_it_comes_from_is_as_long_as_it_is_known() -> None:
    assert origin(alarm()) == "shop / production / web-1"
    assert origin(alarm(environment="")) == "shop / web-1"
    assert origin(alarm(service="", environment="", instance="")) == ""


def test_a_state_is_one_word() -> None:
    assert [state_word(each) for each in (alarm(), all_clear(), notice())] == [
        "CRITICAL",
        "RESOLVED",
        "INFO",
    ]
