"""Whatever somebody gives becomes JSON values, and not more of them than a report can carry."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.plain import (
    DEEPEST,
    LONGEST_TEXT,
    MOST_ENTRIES,
    MOST_VALUES,
    plain_details,
    shortened,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


class Shy:
    """It does not like to be read."""

    def __str__(self) -> str:
        raise RuntimeError


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_what_is_json_and_small_stays_as_it_is(details: dict[str, Any]) -> None:
    if depth(details) <= DEEPEST:
        assert plain_details(details) == details


@given(st.dictionaries(st.text() | st.integers(), st.floats() | st.binary() | st.complex_numbers()))
def test_what_is_not_becomes_what_can_be_written(details: dict[str, Any]) -> None:
    json.dumps(plain_details(details), allow_nan=False).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (1.5, 1.5),
        ((1, (2,)), [1, [2]]),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23 00:00:00+00:00"),
        (Shy(), "could not be read"),
        (ValueError("password=hunter2"), "ValueError"),
        (10**400, "..."),
        ({3: 4, "a": 1}, {"a": 1}),
    ],
)
def test_a_value_becomes_what_json_can_hold(value: Any, plain: Any) -> None:
    assert plain_details({"x": value}) == {"x": plain}


def test_nothing_can_be_too_large() -> None:
    endless: list[Any] = []
    endless.append(endless)
    details = {f"k{number}": list(range(10_000)) for number in range(1_000)}
    # The last is no JSON value, which is the point.
    details |= {"text": "x" * 10_000_000, "endless": endless}  # type: ignore[dict-item]
    plain = plain_details(details)

    assert len(plain) == MOST_ENTRIES
    assert max(map(len, plain.values())) <= MOST_ENTRIES
    assert len(json.dumps(plain)) < 10 * MOST_VALUES
    assert len(plain_details({"text": "x" * 10_000_000})["text"]) == LONGEST_TEXT
    assert depth(plain_details({"endless": endless})) <= DEEPEST + 2


@given(st.text(), st.integers(10, 50))
def test_a_text_is_cut_at_a_space_where_that_costs_little(text: str, longest: int) -> None:
    cut = shortened(text, longest)

    assert len(cut) <= longest
    assert cut == text or cut.endswith("...")
    assert shortened("aaaa bbbb cccc dddd", 17) == "aaaa bbbb..."
