"""From requests to messages, on a virtual clock: single endpoints, objectives, who suffers."""

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.alerts import budget
from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.alerts.lookout import Lookout
from holistic_asgi_monitor.checks.traffic import Traffic, TrafficWindow
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import Windows
from holistic_asgi_monitor.model import CheckResult, Status
from tests.alerts.rounds import Reader

SECOND_LOOK = 5.0
INTERVAL = 30.0
CHECKOUT = "traffic GET /checkout"


class Shop:
    """An app with its traffic, second by second, and a reader of what the rounds tell."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(service="shop", **settings)
        self.now = 0.0
        self.series = RequestSeries(Bounds(self.settings.bucket_bounds), max_endpoints=1_000)
        self.windows = Windows(self.series, self.now)
        self.reader = Reader()
        self.calls = (0, 0)
        self.lookout = Lookout(
            self.settings,
            self.series,
            self.windows,
            openai=lambda: self.calls,
            remembered=lambda: self.reader.incidents.remembered,
            now=self.now,
        )
        self.traffic = Traffic(self._window, self.settings)
        self.database = CheckResult(Status.HEALTHY, "fine")
        self.bursts: list[float] = []
        self.observed: list[Observation] = []
        self._due = INTERVAL

    async def _window(self) -> TrafficWindow:
        window = self.windows.window(300.0, self.now)
        return TrafficWindow(
            window.count,
            window.errors,
            window.bounds.count(window.plain),
            window.plain_quantile_ms(0.95),
        )

    def request(
        self, endpoint: str, status: int = 200, milliseconds: float = 10, *, streamed: bool = False
    ) -> None:
        found = self.series.find("GET", endpoint)
        self.series.observe(found, status, round(milliseconds * 1e6), streamed=streamed)

    async def run(self, seconds: float, each_second: Callable[[int], None]) -> None:
        """Let time pass as in the watch: a look each second, a sample in five, rounds."""
        for second in range(round(seconds)):
            each_second(second)
            self.now += 1.0
            if self.lookout.burst(self.now):
                self.bursts.append(self.now)
            if self.now % 5 == 0:
                await self.windows.sample(self.now)
                await self.lookout.sample(self.now)
            if self.now >= self._due:
                await self.round()

    async def round(self) -> None:
        self._due = self.now + INTERVAL
        results = {"traffic": await self.traffic(), "database": self.database}
        seen = [Observation(name, each.status, each.message) for name, each in results.items()]
        self.observed = await self.lookout.look(seen, results, self.now)
        self.reader.round(self.now, self.observed)
        if self.lookout.restless:
            self._due = self.now + SECOND_LOOK

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(alert.key, alert.reason) for alert in self.reader.alerts]


def busy(shop: Shop, failing: Callable[[int], bool] = lambda _: False) -> Callable[[int], None]:
    """A busy app: 20 requests a second at `/`, and two at an item, of which some may fail."""

    def each_second(second: int) -> None:
        for _ in range(20):
            shop.request("/")
        for half in (0, 1):
            number = 2 * second + half
            shop.request("/items/{item_id}", 500 if failing(number) else 200)

    return each_second


class TestOneEndpointOfABusyApp:
    async def test_ten_percent_errors_are_one_alarm_that_names_it_and_one_all_clear(self) -> None:
        shop = Shop()
        await shop.run(600, busy(shop))
        await shop.run(900, busy(shop, lambda number: number % 10 == 0))
        await shop.run(900, busy(shop))
        alarm, *_, all_clear = shop.reader.alerts

        key = "traffic GET /items/{item_id}"
        assert [told for told in shop.told if told[1] != "remind"] == [
            (key, "fire"),
            (key, "clear"),
        ]
        assert alarm.title == f"{key} is degraded"
        assert alarm.summary == "6.07 % of 610 requests in 5 min failed (threshold 5 %)"
        assert alarm.details["endpoints"] == ["GET /items/{item_id} 6.07 % failed (was 0 %)"]
        assert all_clear.title == f"{key} is healthy again"
        await shop.run(3_600, busy(shop))
        assert shop.reader.incidents.remembered == ()
        assert not [each for each in shop.observed if each.key == key]

    async def test_one_that_fails_entirely_is_told_although_the_whole_is_well(self) -> None:
        shop = Shop(error_rate_percent=20)
        await shop.run(600, busy(shop))
        await shop.run(400, busy(shop, lambda _: True))

        assert shop.told[0] == ("traffic GET /items/{item_id}", "fire")
        assert ("traffic", "fire") not in shop.told
        (whole,) = [each for each in shop.observed if each.key == "traffic"]
        assert whole.status is Status.HEALTHY

    async def test_a_second_look_comes_soon(self) -> None:
        shop = Shop(error_rate_percent=20)
        await shop.run(600, busy(shop))
        first_bad = None
        for _ in range(120):
            await shop.run(1, busy(shop, lambda _: True))
            bad = any(each.severity for each in shop.observed)
            first_bad = first_bad or (shop.now if bad else None)
            if shop.told:
                break

        assert first_bad is not None
        assert shop.now - first_bad == SECOND_LOOK

    async def test_while_the_whole_is_in_trouble_endpoints_are_its_details(self) -> None:
        shop = Shop()

        def failing(_: int) -> None:
            for number in range(20):
                shop.request(f"/{number % 4}", 503)

        await shop.run(600, busy(shop))
        await shop.run(600, failing)
        keys = {key for key, _ in shop.told}

        assert keys == {"traffic"}
        details = shop.reader.alerts[-1].details
        assert "traffic GET /0" in details["affected"]
        assert all("% failed (was 0 %)" in each for each in details["endpoints"])

    async def test_client_errors_are_none_of_the_apps(self) -> None:
        shop = Shop()

        def refused(_: int) -> None:
            for status in (404, 422, 499, 401):
                shop.request("/a", status)

        await shop.run(600, refused)
        assert shop.told == []
        assert shop.bursts == []

    async def test_a_slow_endpoint_is_told_and_a_slow_stream_is_not(self) -> None:
        shop = Shop()

        def slow(_: int) -> None:
            for _ in range(40):
                shop.request("/")
            shop.request("/report", milliseconds=7_000)
            shop.request("/events", milliseconds=90_000, streamed=True)

        await shop.run(300, slow)
        assert shop.told == [("traffic GET /report", "fire")]
        assert "requests in 5 min took over 6,9" in shop.reader.alerts[0].summary

    async def test_fewer_requests_than_it_takes_are_not_judged(self) -> None:
        shop = Shop()

        def seldom(second: int) -> None:
            for _ in range(20):
                shop.request("/")
            if second % 20 == 0:
                shop.request("/seldom", 500)

        await shop.run(900, seldom)
        assert shop.told == []


class TestAtTheThreshold:
    @pytest.mark.parametrize("per_five_minutes", [18, 20, 24])
    async def test_a_little_traffic_that_fails_entirely_is_one_incident(
        self, per_five_minutes: int
    ) -> None:
        shop, chance = Shop(error_rate_percent=20), random.Random(3)

        def little(_: int) -> None:
            for _ in range(20):
                shop.request("/")
            if chance.random() < per_five_minutes / 300:
                shop.request("/checkout", 500)

        await shop.run(2 * 3_600, little)
        assert [each for each in shop.told if each[1] != "remind"] == [(CHECKOUT, "fire")]

    @pytest.mark.parametrize("endpoints", [1, 4])
    async def test_an_error_rate_about_the_threshold_is_one_incident(self, endpoints: int) -> None:
        """Of one endpoint among many, and of the whole."""
        shop, chance = Shop(), random.Random(5)

        def about(_: int) -> None:
            for number in range(8):
                failing = number < 2 * endpoints and chance.random() < 0.05
                shop.request(f"/{number % 4}", 500 if failing else 200)

        await shop.run(2 * 3_600, about)
        reasons = [reason for _, reason in shop.told if reason != "remind"]
        assert reasons.count("clear") <= 1
        assert len(reasons) <= 6

    async def test_when_nobody_asks_any_more_that_is_what_is_told(self) -> None:
        shop = Shop(error_rate_percent=20)

        def gone(second: int) -> None:
            for _ in range(20):
                shop.request("/")
            if second < 400:
                shop.request("/checkout", 500)

        await shop.run(400 + 300 + 850, gone)
        assert [each for each in shop.told if each[1] != "remind"] == [(CHECKOUT, "fire")]
        await shop.run(400, lambda _: gone(9_999))
        assert shop.reader.alerts[-1].title == f"{CHECKOUT} has no requests any more"

    async def test_the_whole_is_over_early_where_the_last_minute_shows_it(self) -> None:
        shop = Shop()
        await shop.run(600, busy(shop))

        def failing(_: int) -> None:
            for _ in range(20):
                shop.request("/", 503)

        await shop.run(240, failing)
        assert ("traffic", "fire") in shop.told
        began = shop.now
        while ("traffic", "clear") not in shop.told:
            await shop.run(10, busy(shop))
            assert shop.now - began < 200
        (whole,) = [each for each in shop.observed if each.key == "traffic"]
        assert "requests in the last minute failed" in whole.summary


class TestWithTheChecks:
    @staticmethod
    async def outage(shop: Shop, seconds_before: float) -> None:
        """The database fails, some time before an endpoint does; both come back at once."""
        await shop.run(1_200, busy(shop))
        shop.database = CheckResult(Status.CRITICAL, "gone")
        await shop.run(seconds_before, busy(shop))
        await shop.run(240, busy(shop, lambda number: number % 3 == 0))
        shop.database = CheckResult(Status.HEALTHY, "fine")
        await shop.run(900, busy(shop))

    async def test_what_fails_with_a_check_is_told_with_it_alone(self) -> None:
        shop = Shop()
        await self.outage(shop, 0)

        assert shop.told == [("database", "fire"), ("database", "clear")]

    async def test_the_whole_that_fails_with_a_check_is_told_with_it_alone(self) -> None:
        shop = Shop()

        def down(_: int) -> None:
            for number in range(20):
                shop.request(f"/{number % 4}", 503)

        await shop.run(1_200, busy(shop))
        shop.database = CheckResult(Status.CRITICAL, "gone")
        await shop.run(300, down)
        shop.database = CheckResult(Status.HEALTHY, "fine")
        await shop.run(900, busy(shop))

        assert shop.told == [("database", "fire"), ("database", "clear")]
        assert "traffic" in shop.reader.alerts[0].details["affected"]

    async def test_what_fails_seldom_is_no_late_alarm_when_the_check_is_well_again(self) -> None:
        shop = Shop()

        def seldom(second: int) -> None:
            for _ in range(20):
                shop.request("/")
            if second % 6 == 0:
                down = shop.database.status is Status.CRITICAL
                shop.request("/seldom", 500 if down else 200)

        await shop.run(900, seldom)
        shop.database = CheckResult(Status.CRITICAL, "gone")
        await shop.run(120, seldom)
        shop.database = CheckResult(Status.HEALTHY, "fine")
        await shop.run(600, seldom)

        assert shop.told == [("database", "fire"), ("database", "clear")]

    async def test_a_milder_check_does_not_hide_a_worse_endpoint(self) -> None:
        shop = Shop(error_rate_percent=20)
        await shop.run(600, busy(shop))
        shop.database = CheckResult(Status.DEGRADED, "slow")
        await shop.run(300, busy(shop, lambda _: True))

        assert ("traffic GET /items/{item_id}", "fire") in shop.told

    async def test_what_fails_long_after_a_check_is_told_on_its_own(self) -> None:
        shop = Shop()
        await self.outage(shop, 600)

        endpoint = "traffic GET /items/{item_id}"
        assert [each for each in shop.told if each[1] != "remind"] == [
            ("database", "fire"),
            (endpoint, "fire"),
            ("database", "clear"),
            (endpoint, "clear"),
        ]

    async def test_what_still_fails_when_the_check_is_well_again_is_told(self) -> None:
        shop = Shop()
        await shop.run(600, busy(shop))
        shop.database = CheckResult(Status.CRITICAL, "gone")
        await shop.run(120, busy(shop, lambda _: True))
        assert {key for key, _ in shop.told} == {"database"}
        shop.database = CheckResult(Status.HEALTHY, "fine")
        await shop.run(300, busy(shop, lambda number: number % 3 == 0))

        assert shop.told[-1][0].startswith("traffic")


class TestObjectives:
    async def test_they_say_nothing_unless_they_are_set(self) -> None:
        shop = Shop()
        await shop.run(300, busy(shop, lambda _: True))

        assert not [each for each in shop.observed if each.key.startswith("slo")]

    async def test_a_budget_that_burns_too_fast_is_a_page_and_ends_with_the_failures(self) -> None:
        shop = Shop(slo_availability_percent=99.9)
        await shop.run(3_600, busy(shop))
        # Of 22 requests a second 2 fail: under a tenth of all, ninety times what may.
        await shop.run(900, busy(shop, lambda _: True))
        about = [alert for alert in shop.reader.alerts if alert.key == "slo availability"]

        assert about[0].reason == "fire"
        assert about[-1].severity.value == "critical"
        assert "the error budget of 30 days (99.9 %) is burning" in about[-1].summary

        await shop.run(2_400, busy(shop))
        last = [alert for alert in shop.reader.alerts if alert.key == "slo availability"][-1]
        assert (last.reason, last.title) == ("clear", "slo availability is healthy again")

    @pytest.mark.parametrize("share", [20, 120])
    async def test_a_restart_is_no_all_clear_while_it_burns(self, share: int) -> None:
        shop = Shop(slo_availability_percent=99.9)
        number = itertools.count()

        def burning(_: int) -> None:
            for _ in range(10):
                shop.request("/", 500 if next(number) % share == 0 else 200)

        await shop.run(5 * 3_600 if share > 100 else 1_800, burning)
        assert shop.told[0] == ("slo availability", "fire")
        before = shop.reader.incidents.snapshot()
        shop = Shop(slo_availability_percent=99.9)
        shop.reader.incidents.restore(before, shop.now)
        await shop.run(1_800, burning)

        assert [told for told in shop.told if told[1] != "remind"] == []
        assert "slo availability" in shop.reader.incidents.remembered

    async def test_once_the_fault_is_mended_nothing_is_told_but_the_end(self) -> None:
        shop = Shop(slo_availability_percent=99.9)
        await shop.run(3_600, busy(shop))
        await shop.run(3_000, busy(shop, lambda _: True))
        told = len([key for key, _ in shop.told if key == "slo availability"])
        await shop.run(8_100, busy(shop))
        later = [reason for key, reason in shop.told if key == "slo availability"][told:]

        assert later == ["clear"]

    @pytest.mark.parametrize("endpoint", ["/", "/quiet"])
    async def test_a_single_failure_never_pages(self, endpoint: str) -> None:
        shop = Shop(slo_availability_percent=99.999)

        def one(second: int) -> None:
            if second == 400:
                shop.request(endpoint, 500)
            elif second % 100 == 0:
                shop.request("/quiet")

        await shop.run(1_200, one)
        assert shop.told == []

    async def test_latency_has_a_budget_of_its_own(self) -> None:
        shop = Shop(slo_latency_ms=300)

        def slow(second: int) -> None:
            for number in range(10):
                shop.request("/", milliseconds=400 if number < 3 else 20)
            shop.request("/stream", milliseconds=60_000, streamed=True)

        await shop.run(3_700, slow)
        assert shop.told[0] == ("slo latency", "fire")
        (now,) = [each for each in shop.observed if each.key == "slo latency"]
        assert "(99 % within 300 ms) is burning 30 times too fast: 30 % of" in now.summary
        assert "requests took longer in the last hour" in now.summary

    @pytest.mark.parametrize(
        "seconds",
        sorted({each for rule in budget.RULES for each in (rule.long, rule.short)}),
    )
    async def test_memory_keeps_each_window_that_the_rules_need(self, seconds: float) -> None:
        """A window reaches back a snapshot too far at most: 5 s, 1 min or 15 min."""
        series = RequestSeries(Bounds((0.1,)), max_endpoints=10)
        windows, now = Windows(series, 0.0), 0.0
        while now < 25 * 3_600:
            now += 5.0 if now > 24 * 3_600 else 60.0
            await windows.sample(now)
        spacing = 5.0 if seconds <= 300 else 60.0 if seconds <= 3_600 else 900.0

        assert seconds <= windows.window(seconds, now).seconds <= seconds + spacing + 5.0


class TestBursts:
    async def test_a_burst_is_seen_within_a_second(self) -> None:
        shop = Shop()
        await shop.run(60, busy(shop))

        def down(_: int) -> None:
            for _ in range(10):
                shop.request("/", 503)

        await shop.run(20, down)
        assert shop.bursts == [61.0, 66.0, 76.0]

    async def test_failing_calls_of_openai_are_one_too(self) -> None:
        shop = Shop()

        def calls(second: int) -> None:
            failed, total = shop.calls
            shop.calls = (failed + (second >= 10), total + 1)

        await shop.run(15, calls)
        assert shop.bursts == [13.0], "three have failed, of five in five seconds"

    async def test_nothing_is_folded_for_it(self) -> None:
        shop = Shop()
        shop.lookout.burst(1.0)
        for _ in range(10):
            shop.request("/", 500)
        (target,) = shop.series._targets.values()

        assert shop.lookout.burst(2.0)
        assert len(target.pending) == 10


class TestWhoSuffers:
    async def test_a_failing_check_names_the_endpoints_that_rose_with_it(self) -> None:
        shop = Shop()

        def well(_: int) -> None:
            for _ in range(5):
                shop.request("/", milliseconds=20)
                shop.request("/static")

        def slow(_: int) -> None:
            for _ in range(5):
                shop.request("/", milliseconds=1_900)
                shop.request("/static")

        await shop.run(1_200, well)
        shop.database = CheckResult(Status.CRITICAL, "gone")
        await shop.run(120, slow)
        alarm = shop.reader.alerts[0]

        assert (alarm.key, alarm.reason) == ("database", "fire")
        (named,) = alarm.details["endpoints"]
        assert named.startswith("GET / p95 1,")
        assert named.endswith("ms (was 20 ms)")

    async def test_while_all_is_well_nobody_is_asked(self, monkeypatch) -> None:
        shop = Shop()
        asked: list[float] = []
        monkeypatch.setattr(shop.lookout, "_suffering", asked.append)
        await shop.run(300, busy(shop))

        assert asked == []


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def monitored() -> tuple[Any, Clock]:
    """The parts of a monitor, and the clock of its watch."""
    monitor = Monitor(
        nothing, settings=Settings(service="shop"), notifiers=[notifiers.Memory()], checks=[]
    )
    parts = monitor._parts
    clock = Clock(parts.started)
    parts.watch._clock, parts.watch._jitter = clock, lambda: 0.0
    return parts, clock


class TestInTheWatch:
    async def test_rounds_tell_of_endpoints_and_look_again_soon(self) -> None:
        parts, clock = monitored()
        await parts.watch.round()
        assert parts.watch._due["traffic"] == clock.now + INTERVAL
        clock.now += INTERVAL
        for status, times in ((200, 1_000), (500, 30)):
            for _ in range(times):
                parts.tracker.track_request("GET", "/fails" if status == 500 else "/", status, 0.01)
        for _ in range(2):
            await parts.watch.round()
            assert parts.watch._due["traffic"] <= clock.now + INTERVAL
            clock.now += SECOND_LOOK

        (row,) = parts.outbox.as_dict()["open"]
        assert (row["key"], row["status"]) == ("traffic GET /fails", "unhealthy")

    async def test_a_burst_makes_all_checks_due_now(self) -> None:
        parts, clock = monitored()
        await parts.watch.round()
        await parts.watch._look_out()
        assert set(parts.watch._due.values()) == {clock.now + INTERVAL}
        for _ in range(10):
            parts.tracker.track_request("GET", "/", 503, 0.01)
        clock.now += 1.0
        await parts.watch._look_out()

        assert set(parts.watch._due.values()) == {clock.now}

    async def test_calls_of_openai_count_as_failed_by_no_fault_of_the_caller(self) -> None:
        parts, _ = monitored()
        for status in ("success", "bad_request", "cancelled", "auth_error", "timeout"):
            parts.tracker.track_openai_call("gpt", status)

        assert parts.business.calls() == (2, 5)

    async def test_what_checks_saw_is_told_where_the_look_fails(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts, _ = monitored()

        async def broken(*_: object) -> None:
            raise RuntimeError("S3cret")

        monkeypatch.setattr(parts.lookout, "look", broken)
        for _ in range(100):
            parts.tracker.track_request("GET", "/", 503, 0.01)
        for _ in range(2):
            await parts.watch.round()

        assert [row["key"] for row in parts.outbox.as_dict()["open"]] == ["traffic"]
        assert parts.catalogue.faults.values["lookout",] == 2
        assert "S3cret" not in caplog.text
