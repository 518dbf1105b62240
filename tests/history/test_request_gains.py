"""What was gained since the last time: all of it, once, while others go on counting."""

import threading

import anyio
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.requests import RequestGains
from holistic_asgi_monitor.history.values import Kind, Sum, statuses
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries

BOUNDS = Bounds((0.005, 0.1, 1.0))
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["/a", "/b"]),
        st.sampled_from([200, 201, 404, 500]),
        st.integers(0, 10**10),
        st.booleans(),
    ),
    max_size=20,
)


class Book:
    """Adds up what it is told."""

    def __init__(self):
        self.sums = {}

    def __call__(self, series, value):
        self.sums.setdefault(series, Sum()).add(value)

    def whole(self):
        (found,) = [sum_ for series, sum_ in self.sums.items() if series.kind is Kind.TRAFFIC]
        return found.value()


@given(st.lists(REQUESTS, max_size=6))
def test_however_often_it_is_asked_the_gains_add_up_to_everything(rounds):
    series = RequestSeries(BOUNDS, max_endpoints=10)
    gains, book = RequestGains(series), Book()

    async def live():
        for requests in rounds:
            for endpoint, status, nanoseconds, streamed in requests:
                found = series.find("GET", endpoint)
                series.observe(found, status, nanoseconds, streamed=streamed)
            await gains.tell(book)

    anyio.run(live)
    every = [each for requests in rounds for each in requests]
    if not every:
        assert book.sums == {}
        return
    whole = book.whole()
    assert whole.count == len(every)
    assert whole.errors == sum(status == 500 for _, status, _, _ in every)
    assert whole.total == sum(nanoseconds for _, _, nanoseconds, _ in every)
    assert sum(whole.cells.values()) == len(every)
    for status in (200, 201, 404, 500):
        assert statuses(whole).get(str(status), 0) == sum(each[1] == status for each in every)
    cells = [cell for _, found in series.one_by_one() for cell in found.durations()]
    exact = Sum()
    for each in cells:
        for index, count in BOUNDS.sparse(each).items():
            exact.cells[index] = exact.cells.get(index, 0) + count
    assert whole.cells == exact.cells


async def test_threads_that_count_meanwhile_lose_nothing():
    series = RequestSeries(BOUNDS, max_endpoints=100)
    gains, book = RequestGains(series), Book()

    def count():
        for number in range(5_000):
            found = series.find("GET", f"/{number % 40}")
            series.observe(found, 200, 10**7, streamed=number % 3 == 0)

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await gains.tell(book)
    for thread in threads:
        thread.join()
    await gains.tell(book)

    whole = book.whole()
    assert (whole.count, sum(whole.cells.values())) == (15_000, 15_000)
    assert whole.total == 15_000 * 10**7


async def test_nothing_new_is_not_told():
    series = RequestSeries(BOUNDS, max_endpoints=10)
    gains, book = RequestGains(series), Book()
    series.observe(series.find("GET", "/a"), 200, 5, streamed=False)
    await gains.tell(book)
    book.sums.clear()
    await gains.tell(book)

    assert book.sums == {}
