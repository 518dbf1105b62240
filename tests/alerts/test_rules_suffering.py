"""Which endpoints an alarm names: those that rose most, with their numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.suffering import MOST_NAMED, Pain, suffering


@pytest.mark.parametrize(
    ("pain", "words"),
    [
        (
            Pain("GET /a", 120, 42.3, 20.0, 900, 0.123, 20.0),
            "GET /a 42.3 % failed (was 0.12 %)",
        ),
        (
            Pain("GET /a", 120, 0.0, 4_210.0, 900, 0.0, 35.0),
            "GET /a p95 4,210 ms (was 35 ms)",
        ),
        (
            Pain("GET /a", 120, 42.0, 4_210.0, 900, 0.0, 35.0),
            "GET /a 42 % failed (was 0 %), p95 4,210 ms (was 35 ms)",
        ),
        (Pain("GET /a", 5, 100.0, None), "GET /a 100 % failed (was 0 %)"),
    ],
)
def test_the_words_have_what_it_is_and_what_it_was(pain: Pain, words: str) -> None:
    assert suffering([pain]) == [words]


@pytest.mark.parametrize(
    "pain",
    [
        Pain("few requests", 4, 100.0, 9_000.0, 900, 0.0, 10.0),
        Pain("as ever", 100, 10.0, 900.0, 900, 10.0, 900.0),
        Pain("half a point", 1_000, 0.5, 10.0, 900, 0.0, 10.0),
        Pain("a third slower", 100, 0.0, 130.0, 900, 0.0, 100.0),
        Pain("slower by what nobody feels", 100, 0.0, 5.0, 900, 0.0, 1.0),
        Pain("slow, but who knows what was", 100, 0.0, 9_000.0),
        Pain("slow, but was seldom asked", 100, 0.0, 9_000.0, 4, 0.0, 10.0),
        Pain("better", 100, 0.0, 10.0, 900, 50.0, 900.0),
    ],
    ids=lambda pain: pain.name,
)
def test_no_word_of(pain: Pain) -> None:
    assert suffering([pain]) == []


def test_errors_come_before_latency_and_more_before_less() -> None:
    named = suffering(
        [
            Pain("slow", 100, 0.0, 500.0, 100, 0.0, 100.0),
            Pain("slower", 100, 0.0, 900.0, 100, 0.0, 100.0),
            Pain("failing", 100, 3.0, 10.0, 100, 0.0, 10.0),
            Pain("gone", 100, 100.0, 10.0, 100, 0.0, 10.0),
        ]
    )

    assert [each.split()[0] for each in named] == ["gone", "failing", "slower", "slow"]


PAINS = st.builds(
    Pain,
    name=st.text("abc", min_size=1),
    count=st.integers(0, 100),
    error_percent=st.floats(0, 100),
    p95_ms=st.none() | st.floats(0.01, 700_000),
    count_before=st.integers(0, 100),
    error_percent_before=st.floats(0, 100),
    p95_ms_before=st.none() | st.floats(0.01, 700_000),
)


@given(pains=st.lists(PAINS))
def test_at_most_five_are_named_in_an_order_that_is_always_the_same(pains: list[Pain]) -> None:
    named = suffering(pains)

    assert len(named) <= MOST_NAMED
    assert named == suffering(reversed(pains)) or len({each.name for each in pains}) < len(pains)
    assert bool(named) == any(each.more_errors or each.slower for each in pains)
