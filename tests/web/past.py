"""What is found in a history that a test has written itself."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.store import Batch, Store, UsersSeen
from holistic_asgi_monitor.history.values import Kind, Row, Series, Value
from holistic_asgi_monitor.metrics.latency import exponent

_NUMBERS = count()


def value(durations: Iterable[float] = (), *, errors: int = 0) -> Value:
    """Requests of these durations in seconds, so many of which failed."""
    cells: dict[int, int] = {}
    for duration in durations:
        index = exponent(round(duration * 1e9))
        cells[index] = cells.get(index, 0) + 1
    return Value(count=sum(cells.values()), errors=errors, cells=cells)


def row(kind: Kind, labels: tuple[str, ...], time: float, what: Value) -> Row:
    return Row(Series(kind, labels), int(time // 60) * 60, pack(what))


async def write(
    store: Store, *rows: Row, instance: str = "web-1", users: tuple[UsersSeen, ...] = ()
) -> None:
    await store.write(Batch(instance, next(_NUMBERS), instance, tuple(rows), users))


def requests(time: float, endpoint: str, what: Value, method: str = "GET") -> list[Row]:
    """The rows of requests in one minute: of the endpoint, and of the whole."""
    return [
        row(Kind.REQUESTS, (method, endpoint), time, what),
        row(Kind.TRAFFIC, (), time, what),
    ]


def ran(time: float, instance: str = "web-1") -> Row:
    """The row of a minute in which the service ran."""
    return row(Kind.LAG, (instance,), time, value([0.001]))
