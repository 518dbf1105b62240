"""Who is compared: each put on a fresh app the way its documentation says, with its own registry.

Every contender can be asked what it counted, so that a number in the table is never that of a
package which counted something else.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter_ns
from typing import Any
from uuid import uuid4

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.apps import Case
from benchmarks.driving import metrics_page
from holistic_asgi_monitor import Monitor


@dataclass(frozen=True, slots=True)
class Counts:
    """Where a contender shows its counts: its page, the sample in it and the endpoint's label."""

    page: Callable[[], Awaitable[str]]
    sample: str
    label: str

    async def read(self) -> Mapping[str, int]:
        """Requests by endpoint label, endpoints without requests left out."""
        counts: dict[str, int] = defaultdict(int)
        for family in text_string_to_metric_families(await self.page()):
            for sample in family.samples:
                if sample.name == self.sample and sample.value:
                    counts[sample.labels.get(self.label, "")] += int(sample.value)
        return counts


@dataclass(frozen=True, slots=True)
class Mounted:
    """A contender on its app; without `counts` it is one that counts nothing on purpose."""

    app: ASGIApp
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table.

    `distribution` is what pip installs for it, empty where nothing needs to be; `only_on` names
    the one framework that it knows, empty for any. `around` says that it leaves the app as it is,
    so that all such contenders can stand around the same one: two apps that are built alike differ
    by a microsecond or two, from where their parts lie in memory.
    """

    key: str
    title: str
    put_on: Callable[[Case], Mounted]
    distribution: str = ""
    only_on: str = ""
    around: bool = False


def contenders() -> tuple[Contender, ...]:
    """Every contender, in the order of the table's rows; the first is the measure of the others."""
    return (
        Contender("bare", "the bare app", _bare, around=True),
        Contender("again", "the bare app, once more (the noise)", _bare, around=True),
        Contender("empty", "an empty wrapper", _empty, around=True),
        Contender("least", "a wrapper that keeps status and duration", _least, around=True),
        Contender("monitor", "**Monitor**, all defaults", _monitor, around=True),
        Contender(
            "instrumentator",
            "prometheus-fastapi-instrumentator",
            _instrumentator,
            "prometheus-fastapi-instrumentator",
        ),
        Contender("exporter", "starlette_exporter", _exporter, "starlette-exporter"),
        Contender("asgi-monitor", "asgi-monitor", _asgi_monitor, "asgi-monitor"),
        Contender("aioprometheus", "aioprometheus (no latency)", _aioprometheus, "aioprometheus"),
        Contender(
            "opentelemetry",
            "OpenTelemetry ASGI, Prometheus reader",
            _opentelemetry,
            "opentelemetry-instrumentation-asgi",
        ),
        Contender(
            "native",
            "FastAPI's own metrics, Prometheus reader",
            _native,
            "opentelemetry-exporter-prometheus",
            "fastapi",
        ),
    )


def _bare(case: Case) -> Mounted:
    return Mounted(case.build())


class _Empty:
    """The least that any ASGI middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def _empty(case: Case) -> Mounted:
    return Mounted(_Empty(case.build()))


class _Least:
    """The least that knows a request's status and duration: it counts nothing, and labels none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.kept: deque[tuple[int, int]] = deque(maxlen=256)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        def passing(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        start = perf_counter_ns()
        await self.app(scope, receive, passing)
        self.kept.append((status, perf_counter_ns() - start))


def _least(case: Case) -> Mounted:
    return Mounted(_Least(case.build()))


def _monitor(case: Case) -> Mounted:
    monitor = Monitor(case.build())

    async def page() -> str:
        return (await metrics_page(monitor)).decode()

    return Mounted(monitor, Counts(page, "holisticos_requests_total", "endpoint"))


def _instrumentator(case: Case) -> Mounted:
    instrumentator = import_module("prometheus_fastapi_instrumentator").Instrumentator
    app, registry = case.build(), CollectorRegistry()
    instrumentator(registry=registry).instrument(app)
    return Mounted(app, _registry_counts(registry, "http_requests_total", "handler"))


def _exporter(case: Case) -> Mounted:
    middleware = import_module("starlette_exporter").PrometheusMiddleware
    # It knows the default registry only, and keeps its metrics by name for the whole process.
    app, prefix = case.build(), f"bench_{uuid4().hex[:8]}"
    app.add_middleware(middleware, prefix=prefix)
    return Mounted(app, _registry_counts(REGISTRY, f"{prefix}_requests_total", "path"))


def _asgi_monitor(case: Case) -> Mounted:
    package = import_module(f"asgi_monitor.integrations.{case.framework}")
    app, registry = case.build(), CollectorRegistry(auto_describe=True)
    package.setup_metrics(app, package.MetricsConfig(app_name="bench", registry=registry))
    return Mounted(app, _registry_counts(registry, f"{case.framework}_requests_total", "path"))


def _aioprometheus(case: Case) -> Mounted:
    package, renderer = import_module("aioprometheus"), import_module("aioprometheus.renderer")
    app, registry = case.build(), package.Registry()
    app.add_middleware(package.MetricsMiddleware, registry=registry)

    async def page() -> str:
        text: str = renderer.render(registry, [])[0].decode()
        return text

    # Reading a page, prometheus_client gives every counter's name its `_total`.
    return Mounted(app, Counts(page, "requests_total_counter_total", "path"))


def _opentelemetry(case: Case) -> Mounted:
    middleware = import_module("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware
    provider, registry = _meter_provider()
    app = middleware(case.build(), meter_provider=provider)
    return Mounted(
        app, _registry_counts(registry, "http_server_duration_milliseconds_count", "http_target")
    )


def _native(case: Case) -> Mounted:
    provider, registry = _meter_provider()
    app = case.build(telemetry={"meter_provider": provider})
    return Mounted(
        app, _registry_counts(registry, "http_server_request_duration_seconds_count", "http_route")
    )


def _meter_provider() -> tuple[Any, CollectorRegistry]:
    registry = CollectorRegistry()
    reader = import_module("opentelemetry.exporter.prometheus").PrometheusMetricReader(
        registry=registry
    )
    provider = import_module("opentelemetry.sdk.metrics").MeterProvider(metric_readers=[reader])
    return provider, registry


def _registry_counts(registry: CollectorRegistry, sample: str, label: str) -> Counts:
    async def page() -> str:
        return generate_latest(registry).decode()

    return Counts(page, sample, label)
