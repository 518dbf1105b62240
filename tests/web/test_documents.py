"""Long JSON documents: the same as in one piece, written by and by."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.web.documents import in_pieces, written

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


async def document(values):
    return b"".join([piece async for piece in in_pieces(values)])


@given(VALUES)
def test_the_pieces_are_the_document(values):
    assert anyio.run(document, values) == written(values)


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 250, 1000])
async def test_a_long_list_is_cut_anywhere(size):
    rows = [{"number": number, "of": [number] * 3} for number in range(size)]
    document = {"rows": rows, "tuple": tuple(rows), "inner": {"rows": rows}, "end": None}
    pieces = [piece async for piece in in_pieces(document)]

    assert b"".join(pieces) == written(document)
    assert max(map(len, pieces)) < 6000


async def test_what_is_no_json_value_is_written_as_its_text():
    moment = datetime(2026, 11, 26, tzinfo=UTC)
    text = b"".join([piece async for piece in in_pieces({"at": moment, "bad": "\ud800é"})])

    assert json.loads(text) == {"at": str(moment), "bad": "?é"}
