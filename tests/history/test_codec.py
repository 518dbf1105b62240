"""Stored values: what was written is read again, and adding bytes is adding values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.codec import (
    LARGEST,
    CodecError,
    add_encoded,
    add_packed,
    encode,
    pack,
)
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.history.values import Sum, Value, statuses
from holistic_asgi_monitor.metrics.latency import FIRST, LAST
from tests.history.samples import spread

COUNTS = st.integers(min_value=1, max_value=2**40)
SMALL = st.dictionaries(st.integers(-20, 20), st.integers(1, 6), max_size=30)
CELLS = SMALL | st.dictionaries(
    st.integers(min_value=FIRST, max_value=LAST + 1), COUNTS, max_size=60
)
EXTRA = st.dictionaries(st.text(max_size=8), COUNTS, max_size=6)
NUMBERS = st.integers(min_value=0, max_value=2**50)
VALUES = st.builds(Value, NUMBERS, NUMBERS, NUMBERS, NUMBERS, CELLS, EXTRA)


def read(body):
    into = Sum()
    add_encoded(into, body)
    return into


@given(CELLS, EXTRA)
def test_what_was_written_is_read_again(cells, extra):
    found = read(encode(Value(cells=cells, extra=extra)))

    assert found.cells == cells
    assert found.extra == extra


@given(st.lists(VALUES, max_size=5))
def test_adding_stored_values_is_adding_values(values):
    into = Sum()
    for value in values:
        add_packed(into, pack(value))

    assert into.value() == Sum.of(values).value()


@given(VALUES, VALUES, VALUES)
def test_the_order_of_adding_does_not_matter(one, two, three):
    left = Sum.of([Sum.of([one, two]).value(), three])
    right = Sum.of([three, Sum.of([two, one]).value()])

    assert left.value() == right.value()
    assert encode(left) == encode(right)


def test_nothing_takes_no_bytes():
    assert encode(Value(count=5, total=7)) == b""
    assert read(b"").value() == Value()


@pytest.mark.parametrize(("requests", "bytes_for_a_cell"), [(10, 1.5), (60, 0.75), (3000, 1.3)])
def test_a_typical_minute_takes_about_a_byte_for_each_cell_or_less(requests, bytes_for_a_cell):
    value = spread(requests)

    assert len(encode(value)) <= bytes_for_a_cell * len(value.cells) + 4


def test_zero_counts_are_not_written():
    assert read(encode(Value(cells={3: 0, 5: 1}))).cells == {5: 1}


@pytest.mark.parametrize("body", [b"\x00", b"\x02\x00", b"\xff\x00\x17"])
def test_an_unknown_format_is_named(body):
    with pytest.raises(CodecError, match=f"format {body[0]}; known is 1"):
        read(body)


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_value_that_is_cut_off_is_an_error_or_less_but_never_more(cut):
    whole = encode(Value(cells={-100: 3, 0: 2000, 200: 70_000}, extra={"500": 4}))
    try:
        found = read(whole[:-cut])
    except CodecError:
        return
    assert set(found.cells) < {-100, 0, 200}


@given(CELLS, EXTRA, st.data())
def test_what_cannot_be_read_adds_nothing(cells, extra, data):
    body = encode(Value(cells=cells, extra=extra))
    cut = body[: data.draw(st.integers(0, len(body)))]
    before = Value(count=1, cells={0: 2, 7: 1}, extra={"500": 4})
    into = Sum.of([before])
    try:
        add_encoded(into, cut)
    except CodecError:
        assert into.value() == before


def test_a_duration_that_cannot_be_is_damage():
    with pytest.raises(CodecError, match="damaged"):
        read(encode(Value(cells={5_000: 1})))


def test_what_cannot_be_read_is_a_failure_of_the_store():
    assert issubclass(CodecError, StoreError)


def test_counts_beyond_what_a_database_holds_are_kept_at_its_limit():
    packed = pack(Value(count=2**70, errors=2**64, total=2**63, peak=2**99))

    assert (packed.count, packed.errors, packed.total, packed.peak) == (LARGEST,) * 4


def test_a_name_that_is_no_text_is_written_out():
    assert read(encode(Value(extra={"a\ud800": 1}))).extra == {"a\\ud800": 1}


def test_the_usual_status_is_what_is_left():
    assert statuses(Value(count=10, extra={"404": 2, "500": 1})) == {"200": 7, "404": 2, "500": 1}
    assert statuses(Value(count=3, extra={"404": 3})) == {"404": 3}
