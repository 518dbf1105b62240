"""JSON documents that may be long: written in pieces, with the event loop let in between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio.lowlevel

__all__ = ("in_pieces", "written")

_ITEMS_AT_ONCE = 100


def written(values: Any) -> bytes:
    """JSON values as a document, without waiting; what is no JSON value is written as its text."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")


async def in_pieces(values: Any) -> AsyncIterator[bytes]:
    """The same document, with lists and what is in mappings written by and by."""
    if isinstance(values, Mapping):
        async for piece in _mapping(values):
            yield piece
    elif isinstance(values, list | tuple) and len(values) > _ITEMS_AT_ONCE:
        async for piece in _list(values):
            yield piece
    else:
        yield written(values)


async def _mapping(values: Mapping[str, Any]) -> AsyncIterator[bytes]:
    before = b"{"
    for name, value in values.items():
        yield before + written(name) + b":"
        async for piece in in_pieces(value):
            yield piece
        before = b","
    yield b"}" if values else b"{}"


async def _list(values: Sequence[Any]) -> AsyncIterator[bytes]:
    for start in range(0, len(values), _ITEMS_AT_ONCE):
        items = written(list(values[start : start + _ITEMS_AT_ONCE]))
        yield (b"," if start else b"[") + items[1:-1]
        await anyio.lowlevel.checkpoint()
    yield b"]"
