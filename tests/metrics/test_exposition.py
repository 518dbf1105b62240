"""The page: the same numbers as prometheus_client writes, without holding the loop."""

import gzip
import math
import re
import sys
import threading
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.exposition import Exposition
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import ConfigurationError

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BOUNDS = Bounds((0.005, 0.1, 1.0, 30.0))


def catalogue(namespace="holisticos", constant=None):
    series = RequestSeries(BOUNDS, max_endpoints=10_000)
    return Catalogue(namespace, constant or {}, series)


def alone(families):
    """A page over a registry of its own, without prometheus_client's default one."""
    return Exposition.of(families, CollectorRegistry())


def fill(families, endpoints=3):
    series = families.series
    for number in range(endpoints):
        found = series.find("GET", f"/items/{number}/{{id}}")
        for status, nanoseconds in ((200, 3_000_000), (200, 90_000_000), (404, 40_000_000_000)):
            series.observe(found, status, nanoseconds, streamed=False)
    series.observe(series.find("POST", "/stream"), 200, 7_000_000_000, streamed=True)
    series.observe(series.find("POST", "/stream"), 200, 8_000_000, streamed=False)
    families.errors.inc("app", "ValueError")
    families.health_check_duration.observe(0.02, "database")
    families.health_status.set("database", value=2)


async def text(page, *arguments, **options):
    rendered = await page.page(*arguments, **options)
    return b"".join(rendered.pieces).decode()


async def test_the_page_is_what_prometheus_client_writes_of_the_same_collector():
    families = catalogue(constant={"team": "a", "region": "eu"})
    page, registry = alone(families)
    fill(families)

    assert await text(page) == generate_latest(registry).decode()


async def test_the_page_stays_right_while_numbers_change_between_scrapes():
    """The shortcut over unused buckets must notice durations outside the ones known so far."""
    families = catalogue()
    page, registry = alone(families)
    found = families.series.find("GET", "/a")
    for nanoseconds in (3_000_000, 90_000_000, 10, 10**12, 500_000_000):
        families.series.observe(found, 200, nanoseconds, streamed=False)
        assert await text(page) == generate_latest(registry).decode()
    families.series.observe(found, 200, 2_000_000_000, streamed=True)
    assert await text(page) == generate_latest(registry).decode()


async def test_openmetrics_is_written_when_asked_for_and_ends_properly():
    families = catalogue()
    page, registry = alone(families)
    fill(families)
    rendered = await page.page(OPENMETRICS)

    assert rendered.content_type.startswith("application/openmetrics-text")
    body = b"".join(rendered.pieces).decode()
    assert body == openmetrics_latest(registry).decode()
    assert body.endswith("# EOF\n")
    assert len(list(parse_openmetrics(body))) == len(list(families))


async def test_every_family_has_its_help_and_type_from_the_start():
    families = catalogue()
    page, _ = alone(families)
    body = await text(page)

    for family in families:
        assert re.search(rf"^# HELP {family.exposed_names[0]} \S", body, re.MULTILINE)
        assert re.search(rf"^# TYPE {family.exposed_names[0]} {family.kind}$", body, re.MULTILINE)


LABELS = st.text(max_size=40)


@given(LABELS, LABELS)
def test_any_label_value_gives_a_page_that_parses(service, kind):
    families = catalogue()
    _, registry = alone(families)
    families.errors.inc(service, kind)
    families.call_duration.observe(0.5, service)
    body = b"".join(
        family.head(openmetrics=False) + b"".join(family.blocks()) for family in families
    ).decode()

    assert len(list(parse_text(body))) == len(list(families))
    assert body == generate_latest(registry).decode()


async def test_names_filter_to_samples_and_to_whole_families():
    families = catalogue()
    page, _ = alone(families)
    fill(families)

    only = await text(page, "", {"holisticos_requests_total"})
    lines = [line for line in only.splitlines() if not line.startswith("#")]
    assert lines
    assert all(line.startswith("holisticos_requests_total{") for line in lines)
    buckets = await text(page, "", {"holisticos_request_duration_seconds_bucket"})
    assert "_bucket{" in buckets
    assert "_sum{" not in buckets
    whole = await text(page, "", {"holisticos_request_duration_seconds"})
    assert "_sum{" in whole
    assert not (await text(page, "", {"no_such_metric"}))


async def test_the_page_is_compressed_when_asked():
    families = catalogue()
    page, _ = alone(families)
    fill(families)
    rendered = await page.page(compress=True)

    assert rendered.compressed
    assert gzip.decompress(b"".join(rendered.pieces)).decode() == await text(page)


async def test_the_users_metrics_of_the_default_registry_stand_on_the_page():
    page, _ = Exposition.of(catalogue("default_registry_test"), None)

    assert "python_info" in await text(page)


async def test_a_passed_registry_is_served_alone():
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc(3)
    page, same = Exposition.of(catalogue(), registry)

    body = await text(page)
    assert same is registry
    assert "orders_total 3.0" in body
    assert "python_info" not in body


def test_a_clash_in_the_passed_registry_is_an_error_at_construction():
    registry = CollectorRegistry()
    Counter("holisticos_requests", "Mine.", registry=registry)

    with pytest.raises(ConfigurationError, match="MONITOR_NAMESPACE"):
        Exposition.of(catalogue(), registry)


def test_a_clash_in_the_default_registry_is_an_error_at_construction():
    from prometheus_client import REGISTRY

    mine = Gauge("clashing_app_info", "Mine.")
    try:
        with pytest.raises(ConfigurationError, match="default registry"):
            Exposition.of(catalogue("clashing"), None)
    finally:
        REGISTRY.unregister(mine)


async def test_a_clash_that_appears_later_is_left_out_with_one_warning(caplog):
    class Late:
        def collect(self):
            metric = Metric("holisticos_requests", "Mine.", "counter")
            metric.add_sample("holisticos_requests_total", {}, 99.0)
            return [metric]

    registry = CollectorRegistry()
    page, _ = Exposition.of(catalogue(), registry)
    registry.register(Late())

    for _ in range(3):
        assert "99.0" not in await text(page)
    assert sum("holisticos_requests" in record.getMessage() for record in caplog.records) == 1


async def test_two_monitors_on_one_registry_share_their_cells():
    registry = CollectorRegistry()
    first, _ = Exposition.of(catalogue(), registry)
    second, _ = Exposition.of(catalogue(), registry)
    for page in (first, second):
        series = page.catalogue.series
        series.observe(series.find("GET", "/a"), 200, 1_000_000, streamed=False)

    expected = 'holisticos_requests_total{endpoint="/a",method="GET",status="200"} 2.0'
    assert expected in await text(first)
    assert expected in generate_latest(registry).decode()


def test_two_monitors_with_other_buckets_on_one_registry_are_refused():
    registry = CollectorRegistry()
    Exposition.of(catalogue(), registry)
    other = Catalogue("holisticos", {}, RequestSeries(Bounds((1.0,)), max_endpoints=5))

    with pytest.raises(ConfigurationError, match="MONITOR_BUCKETS"):
        Exposition.of(other, registry)


class Raising:
    def collect(self):
        raise RuntimeError("the application's collector")


class Unwritable:
    def collect(self):
        metric = Metric("odd", "Odd.", "counter")
        metric.add_sample("odd_total", cast("Any", {"label": object()}), 1.0)
        return [metric]


@pytest.mark.parametrize("collector", [Raising, Unwritable])
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_a_failing_collector_of_the_application_costs_only_itself(collector, accept, caplog):
    families = catalogue()
    registry = CollectorRegistry()
    page, _ = Exposition.of(families, registry)
    fill(families)
    registry.register(collector())

    for _ in range(2):
        body = await text(page, accept)
        assert "holisticos_requests_total{" in body
    assert body.endswith("# EOF\n") == bool(accept)
    assert len(caplog.records) == 1


async def test_other_tasks_run_while_a_large_page_is_rendered():
    families = catalogue()
    page, _ = alone(families)
    fill(families, endpoints=600)
    turns = 0
    done = False

    async def other():
        nonlocal turns
        while not done:
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await anyio.lowlevel.checkpoint()
        before = turns
        await page.page()
        done = True
    assert turns - before >= 5


async def test_the_users_collectors_run_off_the_loop():
    seen = []

    class Where:
        def collect(self):
            seen.append(threading.get_ident())
            return []

    registry = CollectorRegistry()
    page, _ = Exposition.of(catalogue(), registry)
    registry.register(Where())
    seen.clear()
    await page.page()

    assert seen
    assert threading.get_ident() not in seen


def test_a_gauge_is_read_at_the_time_of_the_scrape():
    families = catalogue()
    values = iter([1.5, None, {("day",): 3.0}])
    families.active_users.read = lambda: next(values)
    families.active_users.labels = ()
    assert b"".join(families.active_users.blocks()) == b"holisticos_active_users 1.5\n"
    assert b"".join(families.active_users.blocks()) == b""
    families.active_users.labels = ("window",)
    blocks = b"".join(families.active_users.blocks())
    assert blocks == b'holisticos_active_users{window="day"} 3.0\n'


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.0, -1.5, 1e-9])
def test_odd_numbers_are_written_as_prometheus_does(value):
    families = catalogue()
    _, registry = alone(families)
    families.memory_ratio.set(value=value)
    line = b"".join(families.memory_ratio.blocks())

    assert line in generate_latest(registry)


def test_families_stop_growing_at_their_limit(caplog):
    families = catalogue()
    for number in range(3_000):
        families.errors.inc("app", f"Error{number}")
        families.call_duration.observe(0.1, f"name{number}")

    assert len(families.errors.values) == 1_001
    assert families.errors.values["_overflow", "_overflow"] == 2_000
    assert len(families.call_duration.cells) == 1_001
    assert sum("1000 series" in record.getMessage() for record in caplog.records) == 1


def test_sums_are_seconds():
    families = catalogue()
    families.health_check_duration.observe(0.25, "x")

    block = b"".join(families.health_check_duration.blocks())
    assert b'holisticos_health_check_duration_seconds_sum{check="x"} 0.25\n' in block


async def test_a_collector_that_hangs_costs_its_metrics_and_nothing_else(monkeypatch, caplog):
    """Neither the page nor the application's worker threads wait for it."""
    release = threading.Event()

    class Hanging:
        def collect(self):
            release.wait(10)
            return []

    monkeypatch.setattr("holistic_asgi_monitor.metrics.exposition.PATIENCE_SECONDS", 0.05)
    registry = CollectorRegistry()
    page, _ = Exposition.of(catalogue(), registry)
    registry.register(Hanging())
    try:
        for _ in range(6):
            assert "holisticos_requests_in_progress 0.0" in await text(page)
        free = anyio.to_thread.current_default_thread_limiter().available_tokens
        assert free == anyio.to_thread.current_default_thread_limiter().total_tokens
    finally:
        release.set()
    assert sum("did not answer" in record.getMessage() for record in caplog.records) == 1


async def test_one_malformed_family_costs_only_itself():
    registry = CollectorRegistry()
    page, _ = Exposition.of(catalogue(), registry)
    registry.register(Unwritable())
    Counter("orders", "Orders.", registry=registry).inc()

    assert "orders_total 1.0" in await text(page)
    assert "orders_total 1.0" in await text(page, OPENMETRICS)


async def test_a_family_of_ours_that_cannot_be_read_costs_only_itself(caplog):
    families = catalogue()
    page, _ = alone(families)
    families.memory_bytes.read = lambda: 1 / 0
    body = await text(page)

    assert "holisticos_requests_in_progress 0.0" in body
    assert 'holisticos_monitor_faults_total{part="exposition"} 1.0' in body
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("by", [-1.0, math.nan, math.inf])
def test_a_counter_never_goes_back_nor_out_of_the_numbers(by):
    families = catalogue()
    with pytest.raises(ValueError, match="cannot grow"):
        families.errors.inc("a", "b", by=by)

    assert families.errors.values == {}


def test_counters_and_histograms_are_exact_over_threads():
    families = catalogue()

    def work():
        for _ in range(3_000):
            families.feature_uses.inc("x")
            families.call_duration.observe(0.01, "x")

    threads = [threading.Thread(target=work) for _ in range(6)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert families.feature_uses.values == {("x",): 18_000}
    assert BOUNDS.count(families.call_duration.cells["x",]) == 18_000
