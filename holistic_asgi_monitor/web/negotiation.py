"""What a client takes, by its Accept headers, as far as our pages have a choice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ("accepts", "format_of_metrics")

_OPENMETRICS = "application/openmetrics-text"
_PLAIN = "text/plain"
_NEWEST_OPENMETRICS = "1.0.0"
_LONGEST = 1_000
_MOST = 30
_NUMBERS = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}")
_FIRST_OPENMETRICS = re.compile(r"1(\.\d{1,3}){0,2}")
_ESCAPING = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of an Accept header; `quality` is from 0 (refused) to 1."""

    name: str
    quality: float
    version: str
    escaping: str


def accepts(header: str, name: str) -> bool:
    """Whether `name` is among the entries of an Accept header, and not refused by `q=0`."""
    return any(entry.name == name and entry.quality > 0 for entry in _entries(header))


def format_of_metrics(header: str) -> str:
    """The one format that the page of metrics is to have, as prometheus_client reads it.

    It is what is wanted most of what can be written; of two that are wanted alike, OpenMetrics.
    An empty text, which stands for the plain format, where nothing of the kind is named.
    """
    known = [entry for entry in _entries(header) if entry.quality > 0 and _is_known(entry)]
    known.sort(key=lambda entry: (-entry.quality, entry.name != _OPENMETRICS))
    return _written(known[0]) if known else ""


def _is_known(entry: _Entry) -> bool:
    if entry.name == _OPENMETRICS:
        return not entry.version or _FIRST_OPENMETRICS.fullmatch(entry.version) is not None
    return entry.name == _PLAIN


def _written(entry: _Entry) -> str:
    """The entry without what only some version of prometheus_client can read."""
    version = entry.version if _NUMBERS.fullmatch(entry.version) else ""
    if entry.name == _OPENMETRICS and entry.version and not version:
        version = _NEWEST_OPENMETRICS
    escaping = entry.escaping if version and _ESCAPING.fullmatch(entry.escaping) else ""
    parts = {"version": version, "escaping": escaping}
    return ";".join((entry.name, *(f"{name}={value}" for name, value in parts.items() if value)))


def _entries(header: str) -> Iterator[_Entry]:
    # Anybody may send a header as long as the server allows, and reading it takes time.
    for part in header[:_LONGEST].lower().split(",", _MOST)[:_MOST]:
        name, *rest = (piece.strip() for piece in part.split(";"))
        found = dict(_parameter(piece) for piece in rest)
        yield _Entry(
            name, _quality(found.get("q", "1")), found.get("version", ""), found.get("escaping", "")
        )


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip().strip('"')


def _quality(text: str) -> float:
    """The weight that `text` writes; 1 where it writes none."""
    return float(text) if re.fullmatch(r"0(\.\d*)?|1(\.0*)?", text, re.ASCII) else 1.0
