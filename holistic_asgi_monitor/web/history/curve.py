"""A series read from history, point by point, and the forms in which it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import anyio.lowlevel

from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.web.documents import in_pieces
from holistic_asgi_monitor.web.history.asking import DAY, MOST_POINTS, Asked
from holistic_asgi_monitor.web.history.measures import Number

__all__ = ("Curve", "Point", "Source", "as_csv", "as_json", "curve")

Point = tuple[int, Number | None]
_AT_ONCE = 100
_ROWS_AT_ONCE = 1000


class Source(Protocol):
    """Where history is read; both calls raise `StoreError`."""

    @property
    def note(self) -> str:
        """Why there is nothing to read, as a sentence; empty where history is kept."""
        ...

    async def read(self, query: Query) -> Answer:
        """Answer a query, with what this process has not written yet."""
        ...

    async def users_by_day(self, start: int, end: int, feature: str = "") -> Mapping[int, int]:
        """How many different users there were on each UTC day that had any."""
        ...


@dataclass(frozen=True, slots=True)
class Curve:
    """A series: `step` is the one in force, a point's time the start of its step."""

    metric: str
    unit: str
    step: int
    points: Sequence[Point]
    note: str = ""

    def head(self) -> dict[str, Any]:
        """All but the points, as JSON values."""
        noted = {"note": self.note} if self.note else {}
        return {"metric": self.metric, "unit": self.unit, "step_seconds": self.step, **noted}


async def curve(asked: Asked, source: Source) -> Curve:
    """The series that is asked for; yields to the loop between its points."""
    if asked.measure.kind is None:
        step, points = DAY, await _users(asked, source)
    else:
        answer = await source.read(asked.query())
        step, points = answer.step, await _points(asked, answer, await _ran(asked, source))
    # A range that begins within a step has one more, of which the range holds only a part.
    last = points[-MOST_POINTS:]
    return Curve(asked.measure.name, asked.measure.unit, step, last, source.note)


async def _points(asked: Asked, answer: Answer, ran: Mapping[int, object]) -> list[Point]:
    points: list[Point] = []
    for time, value in answer.points():
        if value is None:
            points.append((time, 0 if time in ran else None))
        else:
            points.append((time, asked.measure.value(value, asked.quantile)))
        if len(points) % _AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
    return points


async def _ran(asked: Asked, source: Source) -> Mapping[int, object]:
    """The steps in which nothing found means 0."""
    if not asked.measure.zero:
        return {}
    return (await source.read(asked.running())).groups.get((), {})


async def _users(asked: Asked, source: Source) -> list[Point]:
    first, end = asked.start // DAY, -(-asked.end // DAY)
    found = await source.users_by_day(first, end, asked.filters.get("feature", ""))
    return [(day * DAY, found.get(day)) for day in range(first, end)]


def as_json(found: Curve) -> AsyncIterator[bytes]:
    """The series as one JSON document, in pieces."""
    return in_pieces({**found.head(), "points": found.points})


async def as_csv(found: Curve) -> AsyncIterator[bytes]:
    """The series as CSV (RFC 4180), in pieces; a gap is an empty value."""
    yield b"time,epoch_seconds,value\r\n"
    for start in range(0, len(found.points), _ROWS_AT_ONCE):
        rows = found.points[start : start + _ROWS_AT_ONCE]
        yield "".join(f"{_iso(time)},{time},{_cell(value)}\r\n" for time, value in rows).encode()
        await anyio.lowlevel.checkpoint()


def _iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()


def _cell(value: Number | None) -> str:
    return "" if value is None else str(value)
