"""The last minutes of each endpoint: slots, the hour before, on a clock that the test turns."""

import pytest

from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.recent import Recent
from holistic_asgi_monitor.metrics.series import RequestSeries

BOUNDS = Bounds((0.1, 1.0, 5.0))


class Clockwork:
    """Series and their last minutes, whose time only the test moves."""

    def __init__(self):
        self.now = 1_000.0
        self.series = RequestSeries(BOUNDS, max_endpoints=100)
        self.recent = Recent(self.series, 5_000.0, self.now)

    def request(self, endpoint="/a", status=200, milliseconds=10, times=1, *, streamed=False):
        found = self.series.find("GET", endpoint)
        for _ in range(times):
            self.series.observe(found, status, round(milliseconds * 1e6), streamed=streamed)
        return found

    async def pass_time(self, seconds):
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 5.0)
            await self.recent.sample(self.now)

    async def seen(self, endpoint="/a", least=1):
        found = [each async for each in self.recent.endpoints(self.now, least)]
        (one,) = [each for each in found if each.endpoint == endpoint]
        return one

    async def names(self, least=1):
        return {each.name async for each in self.recent.endpoints(self.now, least)}


@pytest.fixture
def clock():
    return Clockwork()


async def test_a_request_shows_at_once(clock):
    clock.request(status=503)

    seen = await clock.seen()
    assert (seen.name, seen.lately.count, seen.lately.errors) == ("GET /a", 1, 1)
    assert seen.lately.error_percent == 100.0
    assert seen.before.count == 0


@pytest.mark.parametrize("before", [0.0, 5.0, 29.0, 100.0])
async def test_after_five_minutes_and_a_slot_it_belongs_to_the_hour_before(clock, before):
    await clock.pass_time(before)
    clock.request()
    await clock.pass_time(295.0)
    assert (await clock.seen()).lately.count == 1

    await clock.pass_time(40.0)
    clock.request("/a", times=3)
    seen = await clock.seen()
    assert (seen.lately.count, seen.before.count) == (3, 1)


async def test_after_the_hour_it_is_gone(clock):
    clock.request()
    await clock.pass_time(3_700.0)
    clock.request()
    assert (await clock.seen()).before.count == 1

    await clock.pass_time(600.0)
    clock.request()
    assert (await clock.seen()).before.count == 1, "the first is gone, the second one is there"


async def test_the_latest_is_the_last_minute_to_a_minute_and_a_half(clock):
    for number in range(100):
        clock.request(times=2)
        await clock.pass_time(5.0)
        if number > 20:
            latest = (await clock.seen()).latest
            assert 2 * 60 / 5 <= latest.count + 2 <= 2 * 90 / 5 + 2


async def test_nothing_is_lost_between_the_minutes_and_the_hour(clock):
    sent = 0
    for _ in range(700):
        clock.request(times=2)
        sent += 2
        await clock.pass_time(5.0)
        seen = await clock.seen()
        assert seen.lately.count + seen.before.count == sent or sent > 1_400
        assert seen.lately.count <= 2 * (330 / 5 + 1)


async def test_errors_are_5xx_and_broken_off_responses(clock):
    clock.request(status=404)
    clock.request(status=499)
    clock.request(status=500)
    clock.request().broken += 1
    await clock.pass_time(60.0)
    clock.request().broken += 1

    assert (await clock.seen()).lately.errors == 3


async def test_streams_count_but_are_not_timed(clock):
    clock.request(times=9)
    clock.request(milliseconds=60_000, streamed=True)
    await clock.pass_time(35.0)

    lately = (await clock.seen()).lately
    assert (lately.count, lately.timed, lately.slow) == (10, 9, 0)
    assert lately.quantile_ms(BOUNDS, 1.0) == pytest.approx(10, rel=0.011)


@pytest.mark.parametrize(("milliseconds", "slow"), [(4_999, 0), (5_000, 0), (5_001, 1)])
async def test_slow_is_above_the_threshold_and_not_at_it(clock, milliseconds, slow):
    clock.request(milliseconds=milliseconds)

    assert (await clock.seen()).lately.slow == slow


async def test_quantiles_join_slots_and_what_is_still_open(clock):
    for milliseconds in (10, 20, 30, 40):
        clock.request(milliseconds=milliseconds)
        await clock.pass_time(30.0)
    clock.request(milliseconds=50)

    lately = (await clock.seen()).lately
    assert lately.quantile_ms(BOUNDS, 0.5) == pytest.approx(30, rel=0.011)
    assert lately.quantile_ms(BOUNDS, 1.0) == pytest.approx(50, rel=0.011)


async def test_the_hour_before_keeps_its_own_latency(clock):
    for _ in range(60):
        clock.request(milliseconds=20)
        await clock.pass_time(30.0)
    await clock.pass_time(330.0)
    clock.request(milliseconds=900)

    seen = await clock.seen()
    assert seen.before.quantile_ms(BOUNDS, 0.95) == pytest.approx(20, rel=0.011)
    assert seen.lately.quantile_ms(BOUNDS, 0.95) == pytest.approx(900, rel=0.011)


async def test_only_endpoints_with_enough_requests_are_given(clock):
    clock.request("/often", times=5)
    clock.request("/seldom", times=4)

    assert await clock.names(least=5) == {"GET /often"}
    await clock.pass_time(400.0)
    assert await clock.names() == set()


async def test_what_is_kept_of_an_endpoint_is_bounded(clock):
    for number in range(1_000):
        clock.request(milliseconds=1 + number % 40)
        await clock.pass_time(30.0)

    record = clock.recent._record(("GET", "/a"))
    assert len(record.slots) <= 11
    assert len(record.blocks) <= 14
    assert max(len(each.gain.cells) for each in record.blocks) == 1
    assert all(len(each.gain.cells[0]) <= 2 * BOUNDS.size for each in record.blocks)


async def test_five_minutes_have_to_be_seen_first(clock):
    assert not clock.recent.is_settled(clock.now + 299.0)
    assert clock.recent.is_settled(clock.now + 300.0)


async def test_nothing_asked_gives_no_quantile(clock):
    clock.request(streamed=True)

    assert (await clock.seen()).lately.quantile_ms(BOUNDS, 0.95) is None


@pytest.mark.parametrize(
    ("status", "streamed", "failed"),
    [(500, False, 1), (503, True, 1), (599, False, 1), (200, False, 0), (404, True, 0)],
)
def test_failed_requests_are_counted_before_they_are_folded(clock, status, streamed, failed):
    clock.request(status=status, streamed=streamed)
    assert clock.series.failed == failed

    clock.series.fold()
    assert clock.series.failed == failed


def test_a_status_sent_in_both_ways_is_counted_once(clock):
    clock.request(status=500)
    clock.request(status=500, streamed=True)
    clock.series.fold()
    clock.request(status=500, streamed=True).broken += 1

    assert clock.series.failed == sum(each.errors for each in clock.series.endpoints.values()) == 4


def test_what_is_excluded_fails_unseen():
    import re

    series = RequestSeries(BOUNDS, max_endpoints=10, exclude=re.compile("^/static"))
    series.observe(series.find("GET", "/static/x"), 500, 1_000, streamed=False)

    assert series.failed == 0
