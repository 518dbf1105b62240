"""Values, rows and batches to write."""

from __future__ import annotations

import random
import threading

from holistic_asgi_monitor.history import pace
from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.store import Batch, Query
from holistic_asgi_monitor.history.values import Kind, Row, Series, Value
from holistic_asgi_monitor.metrics.latency import exponent

MIDNIGHT = 20_000 * 86_400
NOON = MIDNIGHT + 12 * 3600
ITEMS = Series(Kind.REQUESTS, ("GET", "/items/{id}"))
ORDERS = Series(Kind.REQUESTS, ("POST", "/orders"))


def timed(count=1, milliseconds=100.0, errors=0):
    """So many requests of the same duration."""
    nanoseconds = round(milliseconds * 1e6)
    cells = {exponent(nanoseconds): count}
    return Value(count, errors, count * nanoseconds, 0, cells, {"500": errors} if errors else {})


def spread(count, seed=1, middle=0.04):
    """So many requests with durations spread as in life."""
    draw = random.Random(seed)
    cells: dict[int, int] = {}
    total = 0
    for _ in range(count):
        nanoseconds = int(draw.lognormvariate(0, 0.8) * middle * 1e9)
        total += nanoseconds
        index = exponent(nanoseconds)
        cells[index] = cells.get(index, 0) + 1
    return Value(count, 0, total, 0, cells)


def row(time, value=None, series=ITEMS):
    return Row(series, time, pack(timed() if value is None else value))


def batch(*rows, number=0, run="run-a", instance="web-1", users=()):
    return Batch(run, number, instance, tuple(rows), tuple(users))


def counts(answer, group=()):
    """What an answer counts, by the start of its stretches; gaps left out."""
    return {time: value.count for time, value in answer.points(group) if value is not None}


async def lived(store, now):
    """The last day before `now` is looked after: a store takes no clock's word for less."""
    for hours in range(25, -1, -1):
        await store.maintain(now - hours * 3600)


def of_requests(start, end, step=60, **options):
    return Query(Kind.REQUESTS, start, end, step, **options)


def stretches(monkeypatch):
    """Grows with each stretch of work on the event loop, where every piece takes too long."""
    begun, renew = [], pace.Stretch.renew

    def note(stretch):
        if threading.current_thread() is threading.main_thread():
            begun.append(1)
        renew(stretch)

    monkeypatch.setattr(pace, "STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(pace.Stretch, "renew", note)
    return begun
