"""The traces on which other systems were compared, and how many messages a reader gets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.alerts.rounds import ROUND, Reader, seen

Bad = Callable[[float], bool]


def between(start: float, end: float) -> Bad:
    return lambda now: start <= now < end


def never(_: float) -> bool:
    return False


def waves(start: float, end: float, half: float) -> Bad:
    """Bad for `half` seconds, then good for `half`, from `start` to `end`."""
    return lambda now: start <= now < end and (now // half) % 2 == 0


TRACES: list[tuple[str, int, Bad, Bad, list[str]]] = [
    ("one failed check", 60, lambda now: now == 600, never, []),
    ("10 min outage", 120, between(600, 1200), never, ["fire", "clear"]),
    ("Slack down first 5 min", 120, between(600, 1200), between(600, 900), ["fire", "clear"]),
    ("4 min inside a Slack outage", 120, between(600, 840), between(570, 900), ["was_down"]),
    ("Slack down at recovery", 120, between(600, 1200), between(1170, 1320), ["fire", "clear"]),
    (
        "60 s / 60 s for 1 h",
        240,
        waves(600, 4200, 60),
        never,
        ["fire", "clear", "fire", "clear", "flapping", "remind", "clear"],
    ),
    ("alternating for 1 h", 240, waves(600, 4200, 30), never, ["fire", "remind", "clear"]),
    (
        "5 / 5 min for 2 h",
        400,
        waves(600, 7800, 300),
        never,
        ["fire", "clear", "fire", "clear", "flapping", "remind", "remind", "clear"],
    ),
    (
        "two 3 min outages 5 min apart",
        120,
        lambda now: 600 <= now < 780 or 1080 <= now < 1260,
        never,
        ["fire", "clear", "fire", "clear"],
    ),
    ("6 h outage", 900, between(600, 22200), never, ["fire", *["remind"] * 3, "clear"]),
]


RECOMMENDED = [0, 2, 2, 1, 2, 7, 3, 8, 4, 5]
"""The most messages that each trace may give."""


@pytest.mark.parametrize(
    ("rounds", "bad", "down", "reasons"),
    [row[1:] for row in TRACES],
    ids=[row[0] for row in TRACES],
)
def test_a_trace_gives_these_messages_and_no_more(
    rounds: int, bad: Bad, down: Bad, reasons: list[str]
) -> None:
    reader = Reader(up=lambda now: not down(now))
    for number in range(rounds):
        now = number * ROUND
        reader.round(now, [seen("db", "c" if bad(now) else ".")])

    assert reader.reasons == reasons


def test_an_alarm_comes_with_the_second_bad_round() -> None:
    """30 seconds after the first one."""
    reader = Reader()
    reader.rounds("...ccc")

    assert [now for now, _ in reader.messages] == [4 * ROUND]


def test_the_document_shows_how_many_messages_each_trace_gives_and_none_gives_more() -> None:
    """Its last column is ours; `RECOMMENDED` is what was reached before, in a simulation."""
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text("utf-8")
    table = text.split("| What happens |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    shown = [int(re.findall(r"\d+", row)[-1]) for row in table]

    assert shown == [len(reasons) for *_, reasons in TRACES]
    assert all(ours <= most for ours, most in zip(shown, RECOMMENDED, strict=True))
