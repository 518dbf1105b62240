"""Amounts as people read them in a sentence: money, counts, shares, times, comparisons. Pure."""

from __future__ import annotations

from collections.abc import Callable

from holistic_asgi_monitor.usage.calendar import HOUR
from holistic_asgi_monitor.usage.spend import DOLLAR

__all__ = ("compared", "counted", "named", "percent", "short", "span", "took", "usd")

LONGEST_NAME = 60
SAME_PERCENT = 0.5
TIMES = 3.0


def usd(nano: float) -> str:
    """An amount of nano-dollars: `$0.0034`, `$12.34`, `$1,234`."""
    dollars = nano / DOLLAR
    if dollars >= 1000:
        return f"${dollars:,.0f}"
    if dollars >= 0.0995 or not dollars:
        return f"${dollars:,.2f}"
    return f"${dollars:.2g}" if dollars >= 0.0001 else "less than $0.0001"


def short(count: float) -> str:
    """A count, rounded from a million on: `938`, `412,340`, `1.23 million`."""
    for size, word in ((1_000_000_000, "billion"), (1_000_000, "million")):
        if count >= size:
            return f"{_digits(count / size, 3)} {word}"
    return f"{count:,.0f}"


def percent(part: float, whole: float) -> str:
    """A share of a whole: `0.12 %`, `38 %`."""
    share = 100 * part / whole if whole else 0.0
    if not share or share >= 10:
        return f"{share:,.0f} %"
    return f"{share:.2g} %" if share >= 0.01 else "less than 0.01 %"


def compared(
    new: float, old: float, than: str, said: Callable[[float], str], less: str = "less"
) -> str:
    """`8 % more than the day before (11.42)`; several times as much where it is that much more."""
    if not old:
        return f"nothing {than}" if new else f"as {than}"
    change = 100 * (new - old) / old
    if abs(change) < SAME_PERCENT:
        return f"as much as {than}"
    if new >= TIMES * old:
        return f"{_digits(new / old, 2)} times {than} ({said(old)})"
    word = "more" if change > 0 else less
    return f"{percent(abs(new - old), old)} {word} than {than} ({said(old)})"


def counted(count: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{short(count)} {noun}{'' if count == 1 else 's'}"


def took(seconds: float) -> str:
    """A duration: `12 ms`, `1.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{_digits(seconds, 2)} s"


def span(seconds: float) -> str:
    """How long something lasted: `40 s`, `14 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, unit, smaller, part in ((86_400, "d", HOUR, "h"), (HOUR, "h", 60, "min")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{whole // 60} min" if whole >= 60 else f"{whole} s"


def named(name: str) -> str:
    """A name, on one line, and not longer than that can bear."""
    line = " ".join(name.split()) or "unnamed"
    return line if len(line) <= LONGEST_NAME else f"{line[: LONGEST_NAME - 1]}…"


def _digits(value: float, digits: int) -> str:
    """The first digits of a number, and all of them before its point."""
    whole = f"{value:,.0f}"
    return whole if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"
