"""Work is cut into stretches by the time that it takes, whatever the number of its pieces."""

import threading

import anyio
import pytest

from holistic_asgi_monitor.history import pace
from holistic_asgi_monitor.history.pace import STRETCH_SECONDS, Stretch, giving_way
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.values import Kind, Series
from tests.history.samples import NOON, batch, lived, of_requests, row, spread

MANY = [Series(Kind.REQUESTS, ("GET", f"/{number}")) for number in range(50)]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def pauses(monkeypatch):
    """The threads that gave way, where every piece of work takes too long."""
    made = []
    monkeypatch.setattr(pace, "STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(pace, "give_way", lambda: made.append(threading.current_thread().name))
    return made


def test_a_stretch_is_over_once_its_time_is():
    clock = Clock()
    stretch = Stretch(clock)
    seen = []
    for _ in range(4):
        clock.now += 0.4 * STRETCH_SECONDS
        seen.append(stretch.over)
    stretch.renew()

    assert seen == [False, False, True, True]
    assert not stretch.over


@pytest.mark.parametrize(("cost", "pauses_made"), [(0.1, 0), (0.25, 2), (1.0, 9)])
def test_the_more_a_piece_takes_the_fewer_are_done_at_a_stretch(monkeypatch, cost, pauses_made):
    clock, pauses = Clock(), []
    monkeypatch.setattr(pace, "give_way", lambda: pauses.append(clock.now))

    for _ in giving_way(range(10), Stretch(clock)):
        clock.now += cost * STRETCH_SECONDS * 1.001

    assert len(pauses) == pauses_made


@pytest.mark.parametrize(
    "work", ["write", "write known names", "roll up", "read", "read names", "delete"]
)
async def test_all_that_is_done_for_many_series_lets_others_in(
    tmp_path, anyio_backend, pauses, work
):
    store = SQLite(tmp_path / "history.sqlite", max_mb=50, clock=lambda: NOON)
    rows = [row(NOON, spread(20), series) for series in MANY]
    await store.write(batch(*rows))
    later = NOON + 900
    if work == "delete":
        await store.maintain(later)
    written = len(pauses)
    pauses.clear()
    if work == "write known names":
        await store.write(batch(*rows, number=1))
    elif work == "roll up":
        await store.maintain(later)
    elif work == "delete":
        await lived(store, later + 50 * 3600)
    elif work == "read":
        await store.read(of_requests(NOON, NOON + 60, by=("endpoint",)), later)
    elif work == "read names":
        await store.read(of_requests(NOON, NOON + 60, where={"endpoint": "/none"}), later)
    await store.close()

    assert (written if work == "write" else len(pauses)) >= len(MANY)
    assert "MainThread" not in pauses


async def test_a_reading_that_nobody_waits_for_any_longer_is_not_finished(
    tmp_path, anyio_backend, monkeypatch
):
    store, release, pieces = SQLite(tmp_path / "history.sqlite", max_mb=50), threading.Event(), []
    await store.write(batch(*(row(NOON + 60 * minute, spread(20)) for minute in range(300))))
    query = of_requests(NOON, NOON + 300 * 60)
    await store.read(query, NOON)

    def wait():
        pieces.append(1)
        release.wait(20)

    monkeypatch.setattr(pace, "STRETCH_SECONDS", 0.0)
    monkeypatch.setattr(pace, "give_way", wait)
    async with anyio.create_task_group() as group:
        group.start_soon(store.read, query, NOON)
        with anyio.fail_after(20):
            while len(pieces) < 1:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    release.set()
    await store.get_state("what is asked next is done next")
    await store.close()

    assert len(pieces) < 10
