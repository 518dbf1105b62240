"""A series and a trend as text: tables for a terminal, and what another program reads."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from holistic_asgi_monitor.web.history.asking import Asked
from holistic_asgi_monitor.web.history.curve import Curve
from holistic_asgi_monitor.web.history.measures import Number
from holistic_asgi_monitor.web.trend import AGO, Hour, Trend, Where

__all__ = ("curve_table", "drawable", "trend_csv", "trend_json", "trend_table")

BAR_WIDTH = 40
_EIGHTHS = " ▏▎▍▌▋▊▉"
_FULL = "█"
_GAP = "-"
_LARGE = 1000
"""From here on two decimals are enough."""
_NUMBERS: tuple[tuple[str, Callable[[Hour], str]], ...] = (
    ("requests", lambda hour: f"{hour.count}"),
    ("errors", lambda hour: f"{hour.error_percent:.2f} %"),
    ("p95", lambda hour: _GAP if hour.p95 is None else f"{hour.p95 * 1000:.1f} ms"),
)


def curve_table(wanted: Asked, found: Curve) -> str:
    """A line for each step: its start in UTC, its value, and a bar."""
    most = max((value for _, value in found.points if value is not None), default=0)
    shown = [_shown(value) for _, value in found.points]
    width = max(map(len, shown), default=0)
    lines = [
        f"{_time(time)}  {text.rjust(width)}  {_bar(value, most)}".rstrip()
        for (time, value), text in zip(found.points, shown, strict=True)
    ]
    return "".join(f"{line}\n" for line in [_title(wanted, found), *lines, *_remark(found)])


def _title(wanted: Asked, found: Curve) -> str:
    quantile = f" p{100 * wanted.quantile:g}" if wanted.measure.timed else ""
    filters = "".join(f", {name} {text}" for name, text in wanted.filters.items())
    return f"{found.metric}{quantile} in {found.unit}, each {found.step} s from (UTC){filters}"


def _shown(value: Number | None) -> str:
    if value is None:
        return _GAP
    if isinstance(value, int):
        return str(value)
    return f"{value:.6g}" if value < _LARGE else f"{value:.2f}"


def _remark(found: Curve) -> list[str]:
    nothing = all(value is None for _, value in found.points)
    return ["nothing is recorded of this time"] if nothing else []


def _bar(value: Number | None, most: Number) -> str:
    if value is None or most <= 0:
        return ""
    full, rest = divmod(round(8 * BAR_WIDTH * value / most), 8)
    return (_FULL * full + _EIGHTHS[rest]).rstrip()


def drawable(text: str, encoding: str) -> str:
    """The text with its bars drawn in what the encoding has."""
    try:
        (_EIGHTHS + _FULL).encode(encoding)
    except UnicodeEncodeError:
        bars = {ord(_FULL): "#", **dict.fromkeys(map(ord, _EIGHTHS.strip()), "")}
        return text.translate(bars)
    return text


def _time(time: int) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M}"


def trend_table(found: Trend, wanted: Sequence[Where]) -> str:
    """A line for the whole and for each endpoint: each number now, a day and a week ago."""
    heads = [name if ago == "now" else ago.replace("_", " ") for name, _ in _NUMBERS for ago in AGO]
    rows = [["", *heads], *([_name(where), *_cells(found, where)] for where in wanted)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    title = f"trend of the hour up to {_time(found.until)} (UTC)"
    return "".join(f"{line}\n" for line in [title, *(_aligned(row, widths) for row in rows)])


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if number else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()


def _name(where: Where) -> str:
    return " ".join(where) or "whole"


def _cells(found: Trend, where: Where) -> Iterable[str]:
    hours = found.of(*where)
    for _, shown in _NUMBERS:
        for ago in AGO:
            hour = hours[ago]
            yield _GAP if hour is None else shown(hour)


def trend_json(found: Trend, wanted: Sequence[Where]) -> str:
    """The trend as one JSON document: the whole, and the endpoints as in the statistics."""
    endpoints = [
        {"method": where[0], "endpoint": where[1], "trend": found.rows(*where)}
        for where in wanted
        if where
    ]
    return json.dumps({**found.as_dict(), "endpoints": endpoints}, ensure_ascii=False) + "\n"


def trend_csv(found: Trend, wanted: Sequence[Where]) -> str:
    """The trend as CSV: a line for each hour of the whole (without a method) and each endpoint."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["method", "endpoint", "hour", "count", "error_rate_percent", "p95_ms"])
    for where in wanted:
        for ago, hour in found.of(*where).items():
            values = ["", "", ""] if hour is None else hour.as_dict().values()
            writer.writerow([*(where or ("", "")), ago, *values])
    return out.getvalue()
