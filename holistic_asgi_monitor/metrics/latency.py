"""Latency cells: one sorted list of bounds that serves classic buckets and exact-enough quantiles.

The bounds are base-2 exponential ones of scale 5 (each 2.2 % above the last) joined with the
exported `le`s. An observation falls into the one cell whose upper bound is the first not below
it, so that classic buckets are exact prefix sums and a quantile is within 1.1 % of the truth.
Cells of the same bounds merge by addition. Durations are whole nanoseconds.

What is kept for long is counted by the index of the exponential bound alone (`Bounds.sparse`):
index `i` stands for durations above 2 ** ((i - 1) / 32) s and up to 2 ** (i / 32) s. Such counts
merge whatever the `le`s were.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from itertools import accumulate, pairwise
from math import ceil, floor, log2

__all__ = ("Bounds", "Cells", "exponent", "merge", "quantile")

SCALE = 5
LOWEST_SECONDS = 1e-5
HIGHEST_SECONDS = 700.0
_NANO = 1_000_000_000
_STEPS = 1 << SCALE
FIRST = floor(log2(LOWEST_SECONDS) * _STEPS)
LAST = ceil(log2(HIGHEST_SECONDS) * _STEPS)

Cells = MutableSequence[int]
"""The counts of one histogram, one per bound, one above the last bound, then the sum in ns."""


def _exponential() -> list[int]:
    return [round(2 ** (index / _STEPS) * _NANO) for index in range(FIRST, LAST + 1)]


class Bounds:
    """The upper bounds of the cells, shared by every histogram with the same `le`s.

    `le` are the exported bounds in seconds, `upper` all bounds in nanoseconds, ascending; a set
    of cells has `size` entries: `len(upper) + 1` counts and the sum. `bucket` gives the number of
    the classic bucket that a cell belongs to; the last is the one without a bound. `exponents`
    gives the index of the exponential bound for each cell.
    """

    __slots__ = ("bucket", "exponents", "le", "size", "slices", "upper")

    def __init__(self, le: Iterable[float]) -> None:
        self.le = tuple(sorted(set(le)))
        exported = [round(bound * _NANO) for bound in self.le]
        exponential = _exponential()
        self.upper = sorted({*exponential, *exported})
        self.exponents = [FIRST + bisect_left(exponential, bound) for bound in self.upper]
        # What lies above all bounds has one index, whichever `le`s there are beyond them.
        self.exponents.append(LAST + 1)
        self.size = len(self.upper) + 2
        ends = [0, *(bisect_left(self.upper, bound) + 1 for bound in exported), self.size - 1]
        self.slices = tuple(slice(start, end) for start, end in pairwise(ends))
        self.bucket = [
            number for number, part in enumerate(self.slices) for _ in range(part.start, part.stop)
        ]

    def cells(self) -> Cells:
        """Fresh cells, all zero."""
        return [0] * self.size

    def observe(self, cells: Cells, nanoseconds: int) -> None:
        """Count one duration."""
        cells[bisect_left(self.upper, nanoseconds)] += 1
        cells[-1] += nanoseconds

    def count(self, cells: Sequence[int]) -> int:
        """How many observations the cells hold."""
        return sum(cells) - cells[-1]

    def classic(self, cells: Sequence[int]) -> list[int]:
        """The cumulative counts of the exported `le`s, and the total as the last."""
        return list(accumulate(sum(cells[part]) for part in self.slices))

    def sparse(self, cells: Sequence[int]) -> dict[int, int]:
        """The counts by the index of their exponential bound, without zeros, ascending."""
        found: dict[int, int] = {}
        for index, count in zip(self.exponents, cells, strict=False):
            if count:
                found[index] = found.get(index, 0) + count
        return found

    def quantile(self, cells: Sequence[int], q: float) -> float | None:
        """The `q` quantile (0 to 1) in seconds, within 1.1 %; None where nothing was observed.

        Below 10 µs and above 700 s the nearest bound is given.
        """
        total = self.count(cells)
        if not total:
            return None
        rank = q * (total - 1)
        seen = 0
        for index in range(len(self.upper) + 1):
            seen += cells[index]
            if seen > rank:
                return self._middle(index)
        return self._middle(len(self.upper))

    def _middle(self, index: int) -> float:
        if index == 0:
            return self.upper[0] / _NANO
        if index == len(self.upper):
            return self.upper[-1] / _NANO
        low, high = self.upper[index - 1], self.upper[index]
        # The harmonic middle has the same relative distance to both ends of the cell.
        return 2 * low * high / (low + high) / _NANO


def merge(into: Cells, other: Sequence[int]) -> None:
    """Add the cells `other` to `into`, in place; both must stand on the same bounds."""
    if len(into) != len(other):
        message = f"cells of {len(other)} entries cannot be merged into {len(into)}"
        raise ValueError(message)
    into[:] = [a + b for a, b in zip(into, other, strict=True)]


def exponent(nanoseconds: int) -> int:
    """The index of the exponential bound that a duration falls under."""
    if nanoseconds <= LOWEST_SECONDS * _NANO:
        return FIRST
    return max(FIRST, min(LAST + 1, ceil(log2(nanoseconds / _NANO) * _STEPS)))


def quantile(sparse: Mapping[int, int], q: float) -> float | None:
    """The `q` quantile (0 to 1) of counts by index in seconds, within 1.1 %; None without any."""
    total = sum(sparse.values())
    if not total:
        return None
    rank, seen, index = q * (total - 1), 0, FIRST
    for index in sorted(sparse):
        seen += sparse[index]
        if seen > rank:
            break
    return _middle_of(index)


def _middle_of(index: int) -> float:
    """What is said of a duration under this bound: the harmonic middle, at the ends the bound."""
    if index <= FIRST or index > LAST:
        nearest: float = 2 ** (max(FIRST, min(LAST, index)) / _STEPS)
        return nearest
    low, high = 2 ** ((index - 1) / _STEPS), 2 ** (index / _STEPS)
    middle: float = 2 * low * high / (low + high)
    return middle
