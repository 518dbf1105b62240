"""What people read in Slack, and that Slack takes it."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.blocks import escaped, message
from tests.notifiers.alerts import NOON, alarm, all_clear, notice
from tests.notifiers.slack_stub import refusal

LATER = NOON + timedelta(minutes=2)
ENTITY = re.compile(r"&(?:amp|lt|gt);")


def texts(body: dict[str, Any]) -> list[str]:
    """Every text of the message, in the order in which it is read."""
    found = []
    for block in body["blocks"]:
        found += [each["text"] for each in block.get("elements", [block.get("text")])]
    return found


def test_an_alarm_says_first_what_is_broken_then_since_when_and_where() -> None:
    body = message([alarm(details={"impact": "the app cannot serve without it"})], LATER)

    said, foot = texts(body)
    assert said == (
        "\N{LARGE RED CIRCLE} *shop (production): database is critical*\n"
        "no answer within 4 s\n"
        "Critical, since 12:00:00 UTC, for 2 min by now\n"
        "\N{BULLET} impact: the app cannot serve without it"
    )
    assert foot == "shop / production / web-1"
    assert body["text"] == (
        "\N{LARGE RED CIRCLE} shop (production): database is critical. no answer within 4 s"
    )


def test_an_all_clear_says_how_long_it_lasted() -> None:
    body = message([all_clear(details={"was": "critical: no answer within 4 s"})], LATER)

    assert texts(body)[0] == (
        "\N{WHITE HEAVY CHECK MARK} *shop (production): database is healthy again*\n"
        "answers\n"
        "It lasted 4 min 10 s, from 12:00:00 to 12:04:10 UTC.\n"
        "\N{BULLET} was: critical: no answer within 4 s"
    )


def test_what_comes_late_says_so() -> None:
    late = all_clear(title="database was down", reason="was_down")
    assert "This could not be delivered earlier." in texts(message([late], LATER))[0]


def test_a_message_of_ones_own_needs_no_times() -> None:
    body = message([notice(details={"version": 2, "by": ["a", {"b": 1}]})], LATER)
    assert texts(body)[0] == (
        "\N{LARGE BLUE CIRCLE} *shop (production): Deployed*\n"
        "\N{BULLET} version: 2\n"
        '\N{BULLET} by: ["a", {"b": 1}]'
    )


def test_another_day_is_named() -> None:
    body = message([alarm()], NOON + timedelta(days=1))
    assert "since 2026-11-23 12:00:00 UTC, for 1 d by now" in texts(body)[0]


def test_an_end_without_a_time_is_told_without_one() -> None:
    assert "It began at 12:00:00 UTC." in texts(message([all_clear(ended_at=None)], LATER))[0]


def test_several_are_counted_first_the_gravest_before_the_rest() -> None:
    degraded = alarm("redis", severity=Severity.WARNING, title="redis is degraded")
    body = message([all_clear("openai"), degraded, notice(), alarm()], LATER)
    head, *rest = texts(body)

    assert head == ("*\N{LARGE RED CIRCLE} shop (production): 2 in trouble, 1 to note, 1 over*")
    assert [text.partition("*")[2].partition("*")[0] for text in rest[:4]] == [
        "database is critical",
        "redis is degraded",
        "Deployed",
        "openai is healthy again",
    ]
    assert "database is critical; redis is degraded" in body["text"]


def test_the_marks_tell_the_severities_apart() -> None:
    marks = {texts(message([alarm(severity=each)], LATER))[0][0] for each in Severity}
    assert len(marks) == 4


class TestLinks:
    def links(self, **more: Any) -> str:
        found = texts(message([alarm(**more)], LATER))
        return found[1] if len(found) > 1 else ""

    def test_they_stand_at_the_end(self) -> None:
        foot = self.links(
            dashboard_url="https://shop.example/api/monitoring/dashboard",
            runbook_url="https://wiki.example/run?book=1&page=2",
        )
        assert foot == (
            "shop / production / web-1 \N{MIDDLE DOT} "
            "<https://shop.example/api/monitoring/dashboard|Dashboard> \N{MIDDLE DOT} "
            "<https://wiki.example/run?book=1&amp;page=2|Runbook>"
        )

    @pytest.mark.parametrize(
        "url", ["javascript:alert(1)", "https://x/" + "y" * 1000, "https://x/\nz", ""]
    )
    def test_what_is_no_whole_web_address_is_none(self, url: str) -> None:
        assert "|" not in self.links(dashboard_url=url)

    def test_one_cannot_end_early(self) -> None:
        foot = self.links(runbook_url="https://x/a|b>c")
        assert foot.endswith("<https://x/a%7Cb&gt;c|Runbook>")

    def test_without_anything_to_say_there_is_no_foot(self) -> None:
        assert self.links(service="", environment="", instance="") == ""


class TestLimits:
    HOSTILE = "<!channel> & <b> <@U123> <https://evil|click> *bold* ```code``` "

    def test_a_hostile_text_mentions_nobody(self) -> None:
        body = message([alarm(title=self.HOSTILE, summary=self.HOSTILE)], LATER)
        for text in [body["text"], *texts(body)]:
            assert not re.search(r"<[!@#h]", text)
            assert "&lt;!channel&gt; &amp; &lt;b&gt;" in text or "web-1" in text

    def test_slack_adds_nothing_of_its_own(self) -> None:
        """No links out of what looks like one, no previews of where they lead."""
        body = message([alarm()], LATER)
        said = [block.get("text") or block["elements"][0] for block in body["blocks"]]

        assert all(text["verbatim"] for text in said)
        assert (body["unfurl_links"], body["unfurl_media"]) == (False, False)

    def test_controls_and_marks_that_turn_a_text_are_gone(self) -> None:
        """Nor does a line end let a text forge a second alert."""
        evil = "\u202eevil\u202c\u2066x\u2069\u200f\x00\x1b[31m\x07\r\n*forged is critical*\u2028\ud83d"
        many = [
            alarm(
                f"{number}{evil}",
                title=evil,
                summary=evil,
                details={evil: evil},
                service=evil,
                environment=evil,
                instance=evil,
            )
            for number in range(12)
        ]
        for alerts in (many[:1], many):
            body = message(alerts, LATER)
            for text in [body["text"], *texts(body)]:
                assert not re.search(
                    r"[\x00-\x09\x0b-\x1f\u200f\u202a-\u202e\u2066-\u2069\u2028]", text
                )
                assert "\n*forged" not in text
                text.encode("utf-8")
            assert "\n" not in body["text"]

    def test_a_long_text_is_cut_and_the_rest_of_the_message_is_there(self) -> None:
        body = message([alarm(summary="x" * 5000, runbook_url="https://wiki.example/run")], LATER)
        said, foot = texts(body)

        assert "Critical, since 12:00:00 UTC" in said
        assert "x\N{HORIZONTAL ELLIPSIS}\n" in said
        assert "|Runbook>" in foot

    def test_what_it_means_comes_before_the_numbers_of_the_check(self) -> None:
        numbers = {f"number {each}": each for each in range(9)}
        more = {"affected": "shop", "impact": "the app cannot serve without it"}
        said = texts(message([alarm(details=numbers | more)], LATER))[0].splitlines()

        assert said[3:6] == [
            "\N{BULLET} impact: the app cannot serve without it",
            "\N{BULLET} affected: shop",
            "\N{BULLET} number 0: 0",
        ]
        assert said[-1] == "\N{BULLET} and 5 more"

    def test_each_endpoint_has_a_line_before_the_numbers(self) -> None:
        endpoints = ["GET /a 42 % failed (was 0 %)", "GET /<b> p95 9 ms (was 1 ms)"]
        body = message([alarm(details={"size": 7, "endpoints": endpoints})], LATER)

        assert texts(body)[0].splitlines()[3:] == [
            "\N{BULLET} endpoints:",
            "    GET /a 42 % failed (was 0 %)",
            "    GET /&lt;b&gt; p95 9 ms (was 1 ms)",
            "\N{BULLET} size: 7",
        ]

    def test_of_many_and_long_texts_those_are_shown_that_fit(self) -> None:
        details = {"endpoints": ["x" * 190 for _ in range(9)], "note": "n" * 900, "more": "m" * 900}
        body = message([alarm(summary="&" * 5_000, details=details)], LATER)

        assert refusal(body) is None
        assert texts(body)[0].count("x" * 190) == 3

    def test_numbers_that_the_summary_has_are_not_repeated(self) -> None:
        details = {"count": 6_100, "errors": 370, "error_rate_percent": 6.07, "p95_ms": 12.5}
        summary = "6.07 % of 6,100 requests in 5 min failed (threshold 5 %)"
        said = texts(message([alarm(summary=summary, details=details)], LATER))[0]
        assert said.splitlines()[3:] == ["\N{BULLET} p95_ms: 12.5"]

        said = texts(message([alarm(summary="it fails", details=details)], LATER))[0]
        assert len(said.splitlines()) == 7

    @pytest.mark.parametrize("count", [1, 2, 10, 11, 60, 300])
    def test_many_and_long_alerts_stay_within_them(self, count: int) -> None:
        long = self.HOSTILE + "&" * 5000
        alerts = [
            alarm(
                f"check {number} {long}",
                title=long,
                summary=long,
                details={f"{long}{each}": long for each in range(20)},
                service=long,
                environment=long,
                instance=long,
                dashboard_url="https://x/" + "&" * 900,
            )
            for number in range(count)
        ]
        body = message(alerts, LATER)

        assert refusal(body) is None
        assert len(body["blocks"]) <= 50
        for text in [body["text"], *texts(body)]:
            assert 0 < len(text) <= 3000
            assert "&" not in ENTITY.sub("", text)

    def test_sixty_at_once_are_all_named(self) -> None:
        body = message([alarm(f"check {number}") for number in range(60)], LATER)
        said = "\n".join(texts(body))

        assert all(f"check {number} is critical" in said for number in range(60))
        assert "60 in trouble" in body["text"]

    def test_sixty_with_much_to_say_are_counted_and_as_many_as_fit_are_named(self) -> None:
        long = "word " * 1000
        body = message([alarm(f"check {n}", summary=long) for n in range(60)], LATER)
        named = {int(n) for n in re.findall(r"check (\d+) is critical", "\n".join(texts(body)))}
        (rest,) = re.findall(r"and (\d+) more", "\n".join(texts(body)))

        assert refusal(body) is None
        assert len(named) >= 20
        assert len(named) + int(rest) == 60

    def test_those_that_find_no_place_are_counted(self) -> None:
        body = message([alarm(f"check {number}") for number in range(100)], LATER)
        said = texts(body)

        assert said[-2] == "and 30 more"
        assert "check 69 is critical" in said[-3]
        assert "check 70 is critical" not in "".join(said)

    def test_an_alert_without_words_is_still_a_message(self) -> None:
        body = message([alarm("", title="\x00", summary="", service="")], LATER)
        assert refusal(body) is None
        assert "*Alert*" in texts(body)[0]


@given(st.text(), st.integers(1, 60))
def test_an_escaped_text_is_short_enough_and_whole(text: str, limit: int) -> None:
    short = escaped(text, limit)

    assert len(short) <= limit
    assert not set("<>") & set(short)
    assert "&" not in ENTITY.sub("", short)


@given(st.text(alphabet="a&<>; \n", max_size=30))
def test_a_text_that_fits_is_escaped_once(text: str) -> None:
    plain = " ".join(text.split())
    once = escaped(text, 1000)
    assert once.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == plain


ALERTS = st.builds(
    Alert,
    key=st.text(),
    severity=st.sampled_from(Severity),
    state=st.sampled_from(AlertState),
    title=st.text(),
    summary=st.text(),
    started_at=st.just(NOON),
    ended_at=st.sampled_from([None, LATER]),
    details=st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.lists(st.text()))),
    reason=st.sampled_from(["fire", "was_down"]),
    service=st.text(),
    environment=st.text(),
    instance=st.text(),
    dashboard_url=st.none() | st.text(),
    runbook_url=st.none() | st.text(),
)


@given(st.lists(ALERTS, min_size=1, max_size=80))
def test_slack_takes_every_message(alerts: list[Alert]) -> None:
    assert refusal(message(alerts, LATER)) is None
