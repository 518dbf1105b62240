"""Every metric that the package exports, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from weakref import WeakMethod

from holistic_asgi_monitor.metrics.families import (
    FEATURES_LIMIT,
    Counter,
    Durations,
    Family,
    Gauge,
    Histogram,
    Reading,
    Requests,
)
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries

__all__ = ("Catalogue",)


class Catalogue:
    """The families of one monitor: `families` by their names without the namespace."""

    def __init__(self, namespace: str, constant: Mapping[str, str], series: RequestSeries) -> None:
        self.namespace = namespace
        self.constant = dict(constant)
        self.series = series
        self.families: dict[str, Family] = {}
        self._gatherers: list[WeakMethod[Callable[[], object]]] = []
        self._requests()
        self._dependencies()
        self._tracking()
        self._openai()
        self._system()
        self._monitor()

    def gather_by(self, method: Callable[[], object]) -> None:
        """Have `method` called by `gather`, for as long as its object lives."""
        self._gatherers = [each for each in self._gatherers if each() is not None]
        self._gatherers.append(WeakMethod(method))

    def gather(self) -> None:
        """To be called before families are read: have what was kept back counted in them."""
        for each in self._gatherers:
            method = each()
            if method is not None:
                method()

    def __iter__(self) -> Iterator[Family]:
        return iter(self.families.values())

    @property
    def names(self) -> list[str]:
        """The names of all samples, as registries know them."""
        return [name for family in self for name in family.exposed_names]

    def _requests(self) -> None:
        text = "Requests by method, route template and status."
        requests = Requests(
            self._name("requests"), text, constant=self.constant, series=self.series
        )
        self.families["requests"] = requests
        text = "Time to the last byte of the response body."
        self.families["request_duration_seconds"] = Durations(
            self._name("request_duration_seconds"), text, constant=self.constant, series=self.series
        )
        self._gauge(
            "requests_in_progress",
            "Requests whose last byte has not left yet.",
            read=lambda: self.series.in_progress,
        )
        self.errors = self._counter(
            "errors",
            "Errors by service and type; unhandled exceptions of requests have service app.",
            "service",
            "error_type",
        )
        self.websocket_connections = self._counter(
            "websocket_connections",
            "WebSocket connections ended, by route template and close code.",
            "endpoint",
            "code",
        )
        self.websocket_open = self._gauge("websocket_connections_open", "WebSocket connections.")
        self.websocket_open.add(0)

    def _dependencies(self) -> None:
        self.active_connections = self._gauge("active_connections", "Database connections in use.")
        self.health_status = self._gauge(
            "health_status",
            "Last status of a check: 0 healthy, 1 degraded or unknown, 2 unhealthy, 3 critical.",
            "check",
        )
        self.health_check_duration = self._histogram(
            "health_check_duration_seconds", "Time a check took.", "check"
        )
        self.health_last_success = self._gauge(
            "health_last_success_timestamp_seconds", "When a check was last healthy.", "check"
        )
        self.alerts = self._counter(
            "alerts", "Alerts by severity and what became of them.", "severity", "outcome"
        )

    def _tracking(self) -> None:
        self.calls = self._counter(
            "calls", "Calls of decorated functions by outcome.", "name", "outcome"
        )
        self.call_duration = self._histogram(
            "call_duration_seconds", "Time decorated functions took.", "name"
        )
        self.feature_uses = self._counter("feature_uses", "Uses of a feature.", "feature")
        self.feature_uses.limit = FEATURES_LIMIT
        self.active_users = self._gauge(
            "active_users", "Distinct users of the last 1, 7 and 30 days.", "window"
        )

    def _openai(self) -> None:
        self.openai_calls = self._counter(
            "openai_calls", "OpenAI calls by model and outcome.", "model", "status"
        )
        self.openai_cost = self._counter("openai_cost", "OpenAI cost in US dollars.", "model")
        self.openai_tokens = self._counter(
            "openai_tokens", "OpenAI tokens, input and output.", "model", "kind"
        )
        self.openai_cached = self._counter(
            "openai_cached_tokens", "Input tokens that were cached, part of input.", "model"
        )
        self.openai_reasoning = self._counter(
            "openai_reasoning_tokens", "Output tokens of reasoning, part of output.", "model"
        )
        self.openai_duration = self._histogram(
            "openai_call_duration_seconds", "Time OpenAI calls took.", "model"
        )
        self.openai_unpriced = self._counter(
            "openai_unpriced_calls", "OpenAI calls whose price is not known.", "model"
        )
        self.openai_attached = self._gauge(
            "openai_tracking_attached", "Whether OpenAI calls are tracked by themselves."
        )

    def _system(self) -> None:
        self.memory_bytes = self._gauge("memory_usage_bytes", "Resident memory of the process.")
        self.memory_ratio = self._gauge(
            "memory_usage_ratio", "Memory in use, of the container's limit or the host's memory."
        )
        self.cpu_ratio = self._gauge("cpu_usage_ratio", "CPU in use, of the cores allowed.")
        self.loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop ran a timer."
        )
        self.app_info = self._gauge(
            "app_info", "Always 1.", "service", "version", "environment", "monitor_version"
        )

    def _monitor(self) -> None:
        self.snapshot_age = self._gauge(
            "monitor_snapshot_age_seconds", "Time since the last round of checks ended."
        )
        self.loop_stalls = self._gauge(
            "monitor_event_loop_stalls", "How often the event loop was stuck for five seconds."
        )
        self.loop_longest_stall = self._gauge(
            "monitor_event_loop_longest_stall_seconds", "The longest time the loop was stuck."
        )
        self.notifier_up = self._gauge(
            "monitor_notifier_up", "Whether the last delivery of a notifier worked.", "notifier"
        )
        self.leader = self._gauge(
            "monitor_leader", "Whether this process tells of alerts, by scope.", "scope"
        )
        self._history()
        self.overflowed = self._gauge(
            "monitor_series_cap_reached",
            "Endpoints that were counted as _overflow because of MONITOR_MAX_ENDPOINTS.",
            read=lambda: self.series.overflowed,
        )
        self.faults = self._counter(
            "monitor_faults", "Failures inside the monitor that were kept from requests.", "part"
        )

    def _history(self) -> None:
        self.history_flush_seconds = self._gauge(
            "monitor_history_flush_seconds", "Time the last write of history took."
        )
        self.history_failures = self._counter(
            "monitor_history_failures",
            "Writes of history, or its upkeep, that failed, and files that could not be kept.",
        )
        self.history_dropped = self._counter(
            "monitor_history_dropped", "Rows of history, and users, that could not be kept."
        )
        self.history_pending = self._gauge(
            "monitor_history_pending", "Batches of history that are still to be written."
        )
        self.history_bytes = self._gauge("monitor_history_bytes", "What history takes on the disk.")

    def _name(self, name: str) -> str:
        return f"{self.namespace}_{name}"

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        family = Counter(self._name(name), text, labels, constant=self.constant)
        self.families[name] = family
        return family

    def _gauge(
        self, name: str, text: str, *labels: str, read: Callable[[], Reading] | None = None
    ) -> Gauge:
        family = Gauge(self._name(name), text, labels, constant=self.constant, read=read)
        self.families[name] = family
        return family

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        family = Histogram(
            self._name(name), text, labels, constant=self.constant, bounds=self._bounds()
        )
        self.families[name] = family
        return family

    def _bounds(self) -> Bounds:
        return self.series.bounds
