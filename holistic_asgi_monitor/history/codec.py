"""Cells and further counts as bytes: about half a byte to a byte for each cell in use.

A version byte, then the number of further counts, each as length, name and count (varints, the
low seven bits first), then the cells in ascending order as hexadecimal digits, two in a byte. A
digit says how far the next cell is from the last one, and what it counts:

- 0 to 7: one to eight on, counts 1
- 8 to 11: one to four on, counts 2
- 12: one on, counts 3
- 13: one on, counts 4 and what the number after it says
- 14: nine and what the number after it says on, counts 1; at the end, nothing
- 15: one and what the number after it says on, counts 1 and what the number after that says

Such a number is digits of three bits each, the low ones first, with 8 added to all but the last.
Nothing at all is no bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.history.values import Packed, Sum, Value
from holistic_asgi_monitor.metrics.latency import LAST

__all__ = ("CodecError", "add_encoded", "add_packed", "encode", "pack")

VERSION = 1
ORIGIN = -1024
"""Below the index of any duration, so that the first gap is above 0 as well."""
_DIGITS = "0123456789abcdef"
_VALUES = bytes.maketrans(_DIGITS.encode(), bytes(range(16)))
_THREE, _MANY, _FAR, _ANY = 12, 13, 14, 15
HIGHEST = LAST + 1
"""The index of the longest durations."""
_DAMAGES = (IndexError, StopIteration, UnicodeDecodeError)
LARGEST = 2**63 - 1
"""What a database can hold."""


class CodecError(StoreError):
    """Stored bytes that this version cannot read."""


def encode(value: Value | Sum) -> bytes:
    """The cells and further counts of a value."""
    if not value.cells and not value.extra:
        return b""
    out = bytearray((VERSION,))
    _put_extra(out, value.extra)
    _put_cells(out, value.cells)
    return bytes(out)


def add_encoded(into: Sum, body: bytes) -> None:
    """Add the cells and further counts in `body`; CodecError where they cannot be read.

    Then nothing is added.
    """
    if not body:
        return
    if body[0] != VERSION:
        raise CodecError(f"history holds values of format {body[0]}; known is {VERSION}")
    try:
        _add_cells(into.cells, body, _add_extra(into, body))
    except _DAMAGES:
        _take_back(into, body)
        raise CodecError("history holds a value that is cut off or damaged") from None


def pack(value: Value | Sum) -> Packed:
    """The value as it is stored."""
    return Packed(
        min(value.count, LARGEST),
        min(value.errors, LARGEST),
        min(value.total, LARGEST),
        min(value.peak, LARGEST),
        encode(value),
    )


def add_packed(into: Sum, packed: Packed) -> None:
    """Add a stored value."""
    into.add_numbers(packed.count, packed.errors, packed.total, packed.peak)
    add_encoded(into, packed.body)


def _put_extra(out: bytearray, extra: Mapping[str, int]) -> None:
    _put(out, len(extra))
    for name in sorted(extra):
        written = name.encode("utf-8", "backslashreplace")
        _put(out, len(written))
        out += written
        _put(out, extra[name])


def _put_cells(out: bytearray, cells: Mapping[int, int]) -> None:
    digits: list[int] = []
    last = ORIGIN
    for index in sorted(cells):
        if cells[index] > 0:
            _put_cell(digits, index - last, cells[index])
            last = index
    if len(digits) % 2:
        digits.append(_FAR)
    out += bytes.fromhex("".join([_DIGITS[digit] for digit in digits]))


def _put_cell(digits: list[int], gap: int, count: int) -> None:
    if count == 1 and gap <= 8:
        digits.append(gap - 1)
    elif count == 2 and gap <= 4:
        digits.append(gap + 7)
    elif count == 3 and gap == 1:
        digits.append(_THREE)
    elif count > 3 and gap == 1:
        digits.append(_MANY)
        _put_number(digits, count - 4)
    elif count == 1:
        digits.append(_FAR)
        _put_number(digits, gap - 9)
    else:
        digits.append(_ANY)
        _put_number(digits, gap - 1)
        _put_number(digits, count - 1)


def _put_number(digits: list[int], number: int) -> None:
    while number > 7:
        digits.append(number & 7 | 8)
        number >>= 3
    digits.append(number)


def _put(out: bytearray, number: int) -> None:
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)


def _add_extra(into: Sum, body: bytes) -> int:
    """Add the further counts; the place where the cells begin."""
    size, place = _take(body, 1)
    for _ in range(size):
        length, place = _take(body, place)
        name = body[place : place + length].decode()
        count, place = _take(body, place + length)
        into.add_extra(name, count)
    return place


def _take_back(into: Sum, body: bytes) -> None:
    """Take back what a damaged body has added up to its damage."""
    part = Sum()
    with suppress(*_DAMAGES):
        _add_cells(part.cells, body, _add_extra(part, body))
    for index, count in part.cells.items():
        into.cells[index] -= count
        if not into.cells[index]:
            del into.cells[index]
    for name, count in part.extra.items():
        into.extra[name] -= count
        if not into.extra[name]:
            del into.extra[name]


def _take(body: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and the place after it."""
    number = shift = 0
    while True:
        byte = body[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
        shift += 7


def _add_cells(cells: dict[int, int], body: bytes, place: int) -> None:
    # Most of the time of a query is spent here, most of it in the first of the cases.
    digits = iter(body[place:].hex().encode().translate(_VALUES))
    index, get = ORIGIN, cells.get
    for digit in digits:
        if digit < 8:
            index += digit + 1
            count = 1
        elif digit < _THREE:
            index += digit - 7
            count = 2
        elif digit == _THREE:
            index += 1
            count = 3
        elif digit == _MANY:
            index += 1
            count = 4 + _number(digits, next(digits))
        elif digit == _FAR:
            first = next(digits, None)
            if first is None:
                break
            index += 9 + _number(digits, first)
            count = 1
        else:
            index += 1 + _number(digits, next(digits))
            count = 1 + _number(digits, next(digits))
        cells[index] = get(index, 0) + count
    if index > HIGHEST:
        raise IndexError


def _number(digits: Iterator[int], digit: int) -> int:
    """The number whose first digit is given; the others are taken."""
    number = shift = 0
    while digit > 7:
        number |= (digit & 7) << shift
        shift += 3
        digit = next(digits)
    return number | digit << shift
