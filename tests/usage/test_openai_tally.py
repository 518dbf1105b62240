"""Calls that wait are counted before anybody reads, each once."""

import gc
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from holistic_asgi_monitor.history.ledger import Ledger
from holistic_asgi_monitor.history.values import Kind, Series, Sum
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.exposition import Collector
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.usage.activity import Activity
from holistic_asgi_monitor.usage.openai_call import Call, Usage
from holistic_asgi_monitor.usage.openai_tally import MOST_WAITING, Tally
from holistic_asgi_monitor.usage.tracking import Tracker

NANO = 1_000_000_000


def a_call(**fields: Any) -> Call:
    usual: dict[str, Any] = {
        "model": "gpt",
        "status": "success",
        "seconds": 0.5,
        "usage": Usage(10, 5, cached=4, reasoning=3),
        "cost": Decimal("0.25"),
        "priced": True,
        "endpoint": "/chat",
        "feature": "search",
        "tier": "",
        "started_at": 0.0,
    }
    return Call(**{**usual, **fields})


def ended(**fields: Any) -> Callable[[], Call]:
    return partial(a_call, **fields)


class Books:
    """Everything that calls are counted in."""

    def __init__(self) -> None:
        series = RequestSeries(Bounds((0.1, 1.0)), max_endpoints=10)
        self.catalogue = Catalogue("x", {}, series)
        self.ledger = Ledger("web-1")
        self.faults: list[str] = []
        self.tally = Tally(self.catalogue, self.faults.append)
        self.tally.keep_in(self.ledger)


def test_a_call_is_in_every_family_and_in_the_ledger() -> None:
    books = Books()
    books.tally.note(ended())
    books.tally.note(ended(status="timeout", usage=None, cost=None, seconds=None))
    books.tally.note(ended(usage=None, cost=None, priced=False))
    sums, _ = books.ledger.take()
    found = sums[Series(Kind.SPEND, ("gpt", "/chat", "search"))]

    assert (found.count, found.errors, found.total) == (3, 1, NANO // 4)
    assert found.extra == {
        "input": 10,
        "output": 5,
        "cached": 4,
        "reasoning": 3,
        "status:success": 2,
        "status:timeout": 1,
        "unpriced": 1,
    }
    families = books.catalogue
    assert families.openai_calls.values == {("gpt", "success"): 2, ("gpt", "timeout"): 1}
    assert families.openai_cost.values == {("gpt",): 0.25}
    assert families.openai_tokens.values == {("gpt", "input"): 10, ("gpt", "output"): 5}
    assert families.openai_cached.values == {("gpt",): 4}
    assert families.openai_reasoning.values == {("gpt",): 3}
    assert families.openai_unpriced.values == {("gpt",): 1}
    assert families.openai_duration.bounds.count(families.openai_duration.cells[("gpt",)]) == 2


@pytest.mark.parametrize(
    "read",
    [
        lambda books: books.catalogue.gather(),
        lambda books: books.ledger.take(),
        lambda books: len(books.ledger),
        lambda books: list(books.ledger.look(0, lambda _: True)),
    ],
    ids=["families", "take", "length", "look"],
)
def test_who_reads_has_all_counted_before(read: Any) -> None:
    books = Books()
    books.tally.note(ended())
    assert books.catalogue.openai_calls.values == {}

    read(books)
    assert books.catalogue.openai_calls.values == {("gpt", "success"): 1}


def test_a_registry_that_is_collected_has_them() -> None:
    books, registry = Books(), CollectorRegistry()
    Collector.shared(registry, books.catalogue)
    books.tally.note(ended())

    labels = {"model": "gpt", "status": "success"}
    assert registry.get_sample_value("x_openai_calls_total", labels) == 1


def test_some_tens_wait_at_most() -> None:
    books = Books()
    for _ in range(MOST_WAITING - 1):
        books.tally.note(ended())
    assert books.catalogue.openai_calls.values == {}

    books.tally.note(ended())
    assert books.catalogue.openai_calls.values == {("gpt", "success"): MOST_WAITING}


def test_who_notes_a_call_never_waits_for_who_counts() -> None:
    """It may be the same thread: the garbage collector runs the application's `finally` anywhere."""
    books = Books()

    def note() -> None:
        for _ in range(2 * MOST_WAITING):
            books.tally.note(ended())

    with books.tally._settling:
        thread = threading.Thread(target=note, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    books.tally.note(ended())

    assert books.catalogue.openai_calls.values == {("gpt", "success"): 2 * MOST_WAITING + 1}


@pytest.mark.parametrize("odd", [{"cost": 1e300}, {"cost": 1.0, "usage": {"input": 10**400}}])
def test_a_number_beyond_all_measure_spoils_no_sum(odd: dict[str, Any]) -> None:
    books = Books()
    tracker = Tracker(books.catalogue, Activity(""), fault=books.faults.append)
    for fields in (odd, {"cost": 0.5, "usage": {"input": 10}}):
        tracker.track_openai_call("gpt", **fields)
    books.catalogue.gather()

    assert books.catalogue.openai_calls.values == {("gpt", "success"): 2}
    assert books.catalogue.openai_cost.values[("gpt",)] in {0.5, 1.5}
    assert books.catalogue.openai_tokens.values == {("gpt", "input"): 10}
    assert books.faults == []


def test_what_cannot_be_counted_keeps_the_others_from_nothing() -> None:
    books = Books()
    books.tally.note(ended(status=["odd"]))
    books.tally.note(ended(cost=Decimal("NaN"), model="odd"))
    books.tally.note(ended())
    books.catalogue.gather()

    assert books.catalogue.openai_calls.values[("gpt", "success")] == 1
    assert books.faults == ["tracking"] * 3


def test_several_tallies_of_one_catalogue_are_asked_until_they_are_gone() -> None:
    books = Books()
    other = Tally(books.catalogue, books.faults.append)
    other.note(ended())
    books.tally.note(ended())
    books.catalogue.gather()
    assert books.catalogue.openai_calls.values == {("gpt", "success"): 2}

    other.note(ended())
    del other
    gc.collect()
    books.catalogue.gather()
    assert books.catalogue.openai_calls.values == {("gpt", "success"): 2}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**9)), max_size=40))
def test_the_sums_are_those_of_each_call_alone(calls: list[tuple[str, int]]) -> None:
    books = Books()
    for model, nano in calls:
        books.tally.note(ended(model=model, cost=Decimal(nano) / NANO))
    sums, _ = books.ledger.take()

    for model in "ab":
        costs = [nano for each, nano in calls if each == model]
        found = sums.get(Series(Kind.SPEND, (model, "/chat", "search")), Sum())
        assert (found.count, found.total) == (len(costs), sum(costs))


def test_threads_that_note_and_read_at_once_lose_and_double_nothing() -> None:
    books = Books()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            books.catalogue.gather()

    def work() -> None:
        for _ in range(2000):
            books.tally.note(ended())

    reader = threading.Thread(target=read)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for thread in (reader, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    reader.join()
    books.catalogue.gather()

    assert books.catalogue.openai_calls.values == {("gpt", "success"): 8000}
    assert books.faults == []
