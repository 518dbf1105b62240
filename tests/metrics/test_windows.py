"""Rolling windows: what happened lately, on a clock that the test turns."""

import pytest

from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import Windows

BOUNDS = Bounds((0.1, 1.0))


class Clockwork:
    """Series and windows whose time only the test moves, sampled every five seconds."""

    def __init__(self):
        self.now = 1_000.0
        self.series = RequestSeries(BOUNDS, max_endpoints=100)
        self.windows = Windows(self.series, self.now)

    def request(self, status=200, milliseconds=10, endpoint="/a", *, streamed=False):
        found = self.series.find("GET", endpoint)
        self.series.observe(found, status, int(milliseconds * 1e6), streamed=streamed)
        return found

    async def pass_time(self, seconds, step=5.0):
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + step)
            await self.windows.sample(self.now)

    def window(self, seconds):
        return self.windows.window(seconds, self.now)

    async def day(self):
        return {row.endpoint: row.window.count async for row in self.windows.endpoints(self.now)}


@pytest.fixture
def clock():
    return Clockwork()


def test_requests_show_at_once_without_any_sample(clock):
    clock.request()

    assert clock.window(60.0).count == 1


@pytest.mark.parametrize("seconds", [60.0, 300.0, 3_600.0, 86_400.0])
async def test_a_request_leaves_a_window_when_it_is_older(clock, seconds):
    clock.request()
    spacing = 900.0 if seconds > 3_600 else 60.0
    await clock.pass_time(seconds - spacing, step=spacing)
    assert clock.window(seconds).count == 1
    await clock.pass_time(3 * spacing, step=spacing)
    assert clock.window(seconds).count == 0


async def test_a_window_reaches_only_a_sample_further_back(clock):
    for _ in range(100):
        clock.request()
        await clock.pass_time(5.0)

    window = clock.window(60.0)
    assert 12 <= window.count <= 13
    assert 60.0 <= window.seconds <= 65.0


async def test_rate_stands_on_the_time_that_was_really_seen(clock):
    await clock.pass_time(10.0)
    for _ in range(20):
        clock.request()

    assert clock.window(3_600.0).rate == pytest.approx(2.0)


def test_errors_are_5xx_and_broken_off_responses(clock):
    clock.request(200)
    clock.request(404)
    clock.request(503)
    clock.request(200).broken += 1

    window = clock.window(300.0)
    assert window.errors == 2
    assert window.error_percent == 50.0


def test_plain_quantiles_leave_streams_out(clock):
    for _ in range(9):
        clock.request(milliseconds=10)
    clock.request(milliseconds=9_000, streamed=True)

    window = clock.window(300.0)
    assert window.quantile_ms(0.99) == pytest.approx(10, rel=0.011)
    assert window.quantile_ms(1.0) == pytest.approx(9_000, rel=0.011)
    assert window.plain_quantile_ms(1.0) == pytest.approx(10, rel=0.011)


async def test_a_new_latency_shows_in_the_short_window_only(clock):
    for _ in range(50):
        clock.request(milliseconds=10)
    await clock.pass_time(600.0)
    clock.request(milliseconds=500)

    assert clock.window(60.0).quantile_ms(0.5) == pytest.approx(500, rel=0.011)
    assert clock.window(3_600.0).quantile_ms(0.5) == pytest.approx(10, rel=0.011)


async def test_an_endpoint_leaves_the_day_a_day_later(clock):
    clock.request(endpoint="/old")
    await clock.pass_time(12 * 3_600, step=900.0)
    clock.request(endpoint="/new")
    clock.request(endpoint="/old")
    assert await clock.day() == {"/old": 2, "/new": 1}

    await clock.pass_time(13 * 3_600, step=900.0)
    assert await clock.day() == {"/old": 1, "/new": 1}

    await clock.pass_time(12 * 3_600, step=900.0)
    assert await clock.day() == {}


async def test_snapshots_are_bounded(clock):
    for _ in range(30):
        clock.request()
        await clock.pass_time(3_600.0, step=60.0)

    kept = [len(ring.snapshots) for ring in clock.windows._rings]
    assert max(kept) <= 100


async def test_nothing_asked_gives_empty_windows(clock):
    window = clock.window(60.0)

    assert (window.count, window.error_percent, window.rate) == (0, 0.0, 0.0)
    assert window.quantile_ms(0.95) is None
    assert await clock.day() == {}
