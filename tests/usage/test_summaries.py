"""The text of a summary: every number real, and no line about what was not recorded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holistic_asgi_monitor.history.values import Value
from holistic_asgi_monitor.metrics.latency import exponent
from holistic_asgi_monitor.usage.amounts import compared, named, percent, short, span, took, usd
from holistic_asgi_monitor.usage.calendar import before, day_of, month_of, week_of, zone_of
from holistic_asgi_monitor.usage.spend import DOLLAR, Budgets
from holistic_asgi_monitor.usage.summaries import Outage, summary_of
from holistic_asgi_monitor.usage.summary_facts import Facts, Month, Stretch

DOCS = Path(__file__).parents[2] / "docs" / "summaries.md"
BERLIN = zone_of("Europe/Berlin")
NOW = datetime(2026, 11, 26, 8, 0, tzinfo=UTC).timestamp()
DAY = before(day_of(NOW, BERLIN), BERLIN)
EMPTY = Facts(BERLIN, Stretch(DAY))


def calls(count, dollars, taken=0, given=0, cached=0, unpriced=0, **failed):
    """Calls of a model; `failed` counts those without success by their status."""
    well = count - sum(failed.values())
    extra = {"input": taken, "output": given, "cached": cached, "unpriced": unpriced}
    extra |= {f"status:{status}": number for status, number in {**failed, "success": well}.items()}
    some = {name: number for name, number in extra.items() if number}
    return Value(count, count - well, round(dollars * DOLLAR), extra=some)


def served(count, milliseconds, errors=0):
    return Value(count, errors, 0, cells={exponent(round(milliseconds * 1e6)): count})


def a_day_of_the_shop():
    """The day that docs/summaries.md shows."""
    day = Stretch(
        DAY,
        spend={
            "gpt-4o": calls(
                830, 8.14, 1_200_000, 300_000, 430_000, quota_exceeded=8, timeout=3, cancelled=1
            ),
            "o3": calls(120, 3.9, 400_000, 110_000),
            "our-deployment": calls(2, 0, 900, 80, unpriced=2),
        },
        spend_by_endpoint={"/chat": calls(700, 7.9), "/reports/{id}": calls(250, 4.14)},
        spend_by_feature={"assistant": calls(700, 7.9), "": calls(252, 4.14)},
        features={"assistant": Value(700), "export": Value(40)},
        traffic=served(1_204_331, 20, 1402),
        endpoints={
            "GET /reports/{id}": served(1200, 2300, 3),
            "POST /pay": served(2010, 320, 62),
            "GET /items": served(1_200_000, 20, 9),
            "GET /rare": served(3, 9000, 3),
            "_OTHER _unmatched": served(900, 1),
        },
        users=312,
    )
    previous = Stretch(
        before(DAY, BERLIN),
        spend={"gpt-4o": calls(800, 10.1, 1_100_000, 290_000), "o3": calls(120, 0.9)},
        spend_by_endpoint={"/chat": calls(690, 10.56), "/reports/{id}": calls(50, 0.44)},
        spend_by_feature={"assistant": calls(690, 10.56)},
        features={"assistant": Value(690), "export": Value(300)},
        traffic=served(1_100_020, 20, 1000),
        endpoints={
            "GET /reports/{id}": served(300, 2300, 3),
            "POST /pay": served(2000, 320, 62),
            "GET /items": served(1_090_000, 20),
        },
        users=300,
    )
    return Facts(
        BERLIN,
        day,
        previous,
        Stretch(before(DAY, BERLIN, 7), spend={"gpt-4o": calls(900, 14.02)}),
        month=Month(month_of(NOW, BERLIN), round(281.5 * DOLLAR), 341.2 * DOLLAR),
        budgets=Budgets(20 * DOLLAR, 300 * DOLLAR),
        attached=True,
    )


def outages(*minutes):
    """Incidents of the database that began and ended so many minutes after midnight."""
    return [
        Outage(
            "database",
            "critical",
            DAY.start + 60 * start,
            None if end is None else DAY.start + 60 * end,
        )
        for start, end in minutes
    ]


def text_of(facts, *incidents):
    return summary_of(facts, outages(*incidents)).text


def shown(summary):
    return f"{summary.title}\n\n{summary.text}\n"


def test_the_example_in_the_documentation_is_what_the_code_writes():
    example = re.search(r"```text\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    some = [
        *outages((192, 206)),
        Outage("redis", "warning", DAY.start + 40_000, DAY.start + 40_100),
    ]

    assert example is not None
    assert example[1] == shown(summary_of(a_day_of_the_shop(), some))


def test_the_figures_are_the_same_as_json():
    figures = summary_of(a_day_of_the_shop(), outages((192, 206))).figures

    assert json.loads(json.dumps(figures)) == figures
    assert figures["period"]["start"] == "2026-11-25T00:00:00+01:00"
    spend = figures["openai"]
    assert (spend["usd"], spend["previous_usd"], spend["same_weekday_usd"]) == (12.04, 11.0, 14.02)
    assert (spend["month_usd"], spend["projected_month_usd"]) == (281.5, 341.2)
    assert spend["errors"] == {"quota_exceeded": 8, "timeout": 3, "cancelled": 1}
    assert spend["unpriced_calls"] == 2
    assert figures["requests"] == {"count": 1_204_331, "errors": 1402}
    assert figures["incidents"] == [{"key": "database", "severity": "critical", "seconds": 840}]


@pytest.mark.parametrize("attached", [None, True, False])
def test_nothing_at_all_is_one_sentence(attached):
    text = text_of(replace(EMPTY, attached=attached))

    sentence, when, *others = text.split("\n\n")
    assert sentence == "Nothing was recorded on this day: no request, no user, no call of OpenAI."
    assert when == "Midnight to midnight, time zone Europe/Berlin"
    assert others == (["OpenAI tracking is not attached."] if attached is False else [])


def test_a_day_without_calls_after_one_with_them_cost_nothing():
    """As each Saturday of a service that people use at work."""
    facts = a_day_of_the_shop()
    text = text_of(replace(facts, now=Stretch(DAY, traffic=served(50, 20))))

    assert "OpenAI spend\n$0.00, 100 % less than the day before ($11.00), " in text
    assert "Not known" not in text


@pytest.mark.parametrize("kind", ["features", "spend", "spend_by_feature", "endpoints"])
@pytest.mark.parametrize("line_end", ["\n\n", "\r", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_no_name_makes_a_paragraph_of_its_own(kind, line_end):
    """A feature is named by the app, and often by what a client has sent."""
    name = f"export{line_end}OpenAI spend{line_end}$0.00"
    named_so: Any = {name: replace(served(50, 20), total=round(DOLLAR))}
    paid = {"gpt-4o": calls(50, 1)} if kind == "spend_by_feature" else {}
    facts = replace(EMPTY, now=replace(Stretch(DAY, spend=paid), **{kind: named_so}))
    text = text_of(facts)

    assert "export OpenAI spend $0.00" in text
    assert line_end not in text.replace("\n\n", "").replace("\n", "")


def test_users_of_a_day_that_is_not_over_are_compared_with_nothing():
    """In Sydney it is nine o'clock two hours before the UTC day ends."""
    facts = a_day_of_the_shop()
    partly = replace(facts.now, users_until_now=True)
    text = text_of(replace(facts, now=partly))

    assert "Users\n312 active users (of the UTC day, which is not over)\nFeatures used" in text


def test_of_what_was_not_recorded_there_is_no_word():
    text = text_of(replace(EMPTY, now=Stretch(DAY, traffic=served(50, 20))))

    assert (
        text
        == "Midnight to midnight, time zone Europe/Berlin\n\nRequests\n50 requests\nNone failed"
    )


def test_unpriced_calls_are_never_nothing():
    facts = replace(EMPTY, now=Stretch(DAY, spend={"ours": calls(3, 0, unpriced=3)}))
    text = text_of(facts)

    assert "Not known: none of the calls has a known price" in text
    assert "Without a known price, so not in the dollars: 3 calls (ours 3)" in text
    assert "$" not in text


def test_what_a_call_costs_is_of_those_with_a_price():
    spend = {"gpt-4o": calls(10, 1), "ours": calls(90, 0, unpriced=90)}
    text = text_of(replace(EMPTY, now=Stretch(DAY, spend)))

    assert "100 calls; $0.10 on average for those with a known price" in text


def test_an_exhausted_quota_comes_first():
    many = calls(100, 1, timeout=20, quota_exceeded=2, server_error=5)
    text = text_of(replace(EMPTY, now=Stretch(DAY, spend={"gpt-4o": many})))

    assert "Failures: quota exceeded 2, timed out 20, server error 5" in text


@pytest.mark.parametrize(
    ("incidents", "words"),
    [
        ([(192, 206)], "1 incident; the longest: database (critical), 14 min from 03:12 on"),
        ([(-120, 30)], "2 h 30 min from 2026-11-24 22:00 on"),
        ([(1380, None)], "database (critical), from 23:00 on, still not over\n"),
        ([(1380, 2000)], "10 h 20 min from 23:00 on\n"),
        ([(0, 1), (10, 12)], "2 incidents; the longest: database (critical), 2 min from 00:10 on"),
    ],
)
def test_incidents_are_counted_and_the_longest_is_named(incidents, words):
    assert words in text_of(EMPTY, *incidents) + "\n"


def test_what_moved_by_chance_alone_is_not_told():
    facts = replace(
        EMPTY,
        now=Stretch(DAY, endpoints={"GET /a": served(1010, 20)}, traffic=served(1010, 20)),
        previous=Stretch(before(DAY, BERLIN), endpoints={"GET /a": served(1000, 20)}),
    )

    assert "moved" not in text_of(facts)


def test_a_week_has_its_best_and_worst_day():
    week = before(week_of(NOW, BERLIN), BERLIN)
    days = []
    day = day_of(week.start, BERLIN)
    for number in range(7):
        spend = {"": calls(10, number + 1)}
        days.append(Stretch(day, spend, traffic=served(100, 20, number), users=10 + number))
        day = day_of(day.end, BERLIN)
    now = Stretch(week, {"gpt-4o": calls(70, 28)}, traffic=served(700, 20, 21), users=31)
    summary = summary_of(Facts(BERLIN, now, days=tuple(days)), [])

    assert summary.title == "Summary of week 47, 16 November to 22 November 2026"
    assert "Monday to Sunday, time zone Europe/Berlin" in summary.text
    assert "Most on Sunday ($7.00), least on Monday ($1.00)" in summary.text
    assert "Best day Monday (0 % failed), worst Sunday (6 % failed)" in summary.text
    assert "31 active users (of the UTC days)\n13 on average every day" in summary.text


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", "23"),
        ("Europe/Berlin", "2026-10-25", "25"),
        ("Australia/Lord_Howe", "2026-10-04", "23.5"),
        ("Australia/Lord_Howe", "2026-04-05", "24.5"),
    ],
)
def test_a_day_that_is_shorter_or_longer_says_by_how_much(zone, noon, hours):
    place = zone_of(zone)
    moment = datetime.fromisoformat(f"{noon}T12:00").replace(tzinfo=place)
    day = Stretch(day_of(moment.timestamp(), place), traffic=served(50, 20))

    assert text_of(Facts(place, day)).startswith(
        f"Midnight to midnight, time zone {zone}, a day of {hours} hours\n"
    )


def test_it_is_short_however_much_there_is():
    many = {f"GET /{'x' * 300}{number}": served(10_000, 20, 5000) for number in range(500)}
    models = {f"model-{'y' * 300}{number}": calls(5, number, unpriced=1) for number in range(300)}
    none = {name: served(20, 1) for name in many}
    facts = replace(
        a_day_of_the_shop(),
        now=Stretch(DAY, models, models, models, many, served(9, 1), many, 5),
        previous=Stretch(before(DAY, BERLIN), {}, {}, {}, none, served(9, 1), none, 5),
    )
    summary = summary_of(facts, outages(*((number, number + 1) for number in range(1000))))

    assert len(summary.text) < 4000
    assert len(json.dumps(summary.figures)) < 10_000


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "$0.00"),
        (99_960_000, "$0.10"),
        (1, "less than $0.0001"),
        (3_400_000, "$0.0034"),
        (39_000_000, "$0.039"),
        (12_340_000_000, "$12.34"),
        (999_990_000_000, "$999.99"),
        (1_234_560_000_000, "$1,235"),
    ],
)
def test_dollars(amount, text):
    assert usd(amount) == text


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [
        (12, 10, "20 % more than then (10)"),
        (8, 10, "20 % less than then (10)"),
        (1000, 1001, "as much as then"),
        (30, 10, "3 times then (10)"),
        (1500, 10, "150 times then (10)"),
        (34_567, 10, "3,457 times then (10)"),
        (5, 0, "nothing then"),
        (0, 0, "as then"),
        (0, 10, "100 % less than then (10)"),
    ],
)
def test_comparisons(new, old, text):
    assert compared(new, old, "then", short) == text


def test_counts_shares_and_times_are_short():
    assert [short(count) for count in (938, 12_340, 1_234_567, 999_960_000, 2e9, 5e13)] == [
        *("938", "12,340", "1.23 million", "1,000 million", "2 billion", "50,000 billion")
    ]
    assert [percent(part, 100) for part in (0, 0.001, 0.12, 3.14, 38.2, 114)] == [
        *("0 %", "less than 0.01 %", "0.12 %", "3.1 %", "38 %", "114 %")
    ]
    assert percent(1, 0) == "0 %"
    assert [took(seconds) for seconds in (0.0123, 0.9, 0.9999, 1.44, 12, 99.9, 300)] == [
        *("12 ms", "900 ms", "1 s", "1.4 s", "12 s", "100 s", "300 s")
    ]
    assert [span(seconds) for seconds in (40, 840, 11_100, 90_000, 86_400)] == [
        *("40 s", "14 min", "3 h 5 min", "1 d 1 h", "1 d")
    ]
    assert len(named(1000 * "x")) == 60
    assert [named(name) for name in ("", " \t", "a\u2003b")] == ["unnamed", "unnamed", "a b"]
