"""The parts of one monitor, put together in the order of the rooms."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Scope

from holistic_asgi_monitor import checks as check_room
from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.checks.function import FunctionCheck
from holistic_asgi_monitor.checks.lag import LoopLag
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.checks.traffic import Traffic, TrafficWindow
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.exposition import Exposition
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import WINDOWS, Windows
from holistic_asgi_monitor.model import Check, Notifier, Severity
from holistic_asgi_monitor.notifiers.environment import notifiers_from_environment
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.activity import Activity
from holistic_asgi_monitor.usage.tracking import Current, Tracker
from holistic_asgi_monitor.watch import Watch
from holistic_asgi_monitor.web.endpoints import Endpoints, Sources
from holistic_asgi_monitor.web.lifespan import Lifespan
from holistic_asgi_monitor.web.requests import RequestPath, UserId
from holistic_asgi_monitor.web.routes import Routes
from holistic_asgi_monitor.web.stats import Identity, Statistics

__all__ = ("Parts",)

_logger = logging.getLogger("holistic_asgi_monitor")

TRAFFIC_SECONDS = WINDOWS["5m"]
_NOT_YET = ("MONITOR_HEARTBEAT_URL",)


class Parts:
    """Everything that one monitor consists of, but for the way of a request through it."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings | None,
        *,
        checks: Sequence[Check] | None,
        notifiers: Sequence[Notifier] | None,
        registry: CollectorRegistry | None,
        route: Callable[[Scope], str | None] | None,
    ) -> None:
        self.app = app
        self.settings = settings = settings if settings is not None else _from_environment()
        self.started = time.monotonic()
        self.draining = False
        self._announced = False
        series = RequestSeries(
            Bounds(settings.bucket_bounds),
            max_endpoints=settings.max_endpoints,
            exclude=settings.exclude,
        )
        catalogue = Catalogue(settings.namespace, settings.constant_labels, series)
        # Switched off, nothing of ours shows in a registry that others read.
        own = registry if settings.enabled else CollectorRegistry()
        self.exposition, self.registry = Exposition.of(catalogue, own)
        self.catalogue = self.exposition.catalogue
        self.routes = Routes(app, route=route)
        self.paths = RequestPath(self.catalogue, self.routes)
        self.windows = Windows(self.catalogue.series, self.started)
        self._build_usage()
        self._build_checks(checks)
        self._build_watch(notifiers)
        self._build_endpoints(_version(settings, app))

    def _build_usage(self) -> None:
        self.activity = Activity(self.settings.user_hash_key or "")
        self.tracker = Tracker(self.catalogue, self.activity, fault=self.paths.fault)
        Current.born(self.tracker)

    def _build_checks(self, checks: Sequence[Check] | None) -> None:
        self.traffic = Traffic(self._traffic_window, self.settings)
        given = [check_room.System()] if checks is None else list(checks)
        chosen = [_configured(check, self.settings) for check in given]
        systems = [check for check in chosen if isinstance(check, check_room.System)]
        # The gauges and the statistics read the machine, whether or not it is checked.
        self.system = systems[0] if systems else check_room.System().configured(self.settings)
        self.lag = LoopLag()
        self.runner = Runner(
            [*chosen, self.traffic],
            timeout=self.settings.check_timeout_seconds,
            required=self.settings.required_checks,
            secrets=self.settings.secrets,
            lag=self.lag,
        )

    def _build_watch(self, notifiers: Sequence[Notifier] | None) -> None:
        settings = self.settings
        chosen = notifiers_from_environment(settings) if notifiers is None else list(notifiers)
        self.notifiers = tuple(chosen)
        self.outbox = Outbox(chosen, self.settings, outcome=self._count_alert)
        self.watch = Watch(
            self.settings,
            self.runner,
            self.outbox,
            catalogue=self.catalogue,
            windows=self.windows,
            refresh=self._refresh,
            lag=self.lag,
            lag_check=self.system.name,
        )

    def _build_endpoints(self, version: str) -> None:
        self.statistics = Statistics(
            identity=Identity(
                service=self.settings.service,
                environment=self.settings.environment,
                version=version,
                monitor_version=__version__,
                instance=self.settings.instance,
                started_at=datetime.now(UTC),
            ),
            catalogue=self.catalogue,
            windows=self.windows,
            clock=time.monotonic,
            started=self.started,
            report=self.watch.last_report,
            system=self._system,
            users=self._users,
            failures=lambda: list(self.paths.failures),
            alerts=self._alerts,
        )
        self._read_gauges()
        self.catalogue.app_info.set(
            self.settings.service, version, self.settings.environment, __version__, value=1
        )
        self.endpoints = Endpoints(
            self.settings,
            Sources(
                report=self.watch.report,
                last_report=self.watch.last_report,
                page=self.exposition.page,
                stats=self.statistics.as_dict,
                alerts=self._alerts,
                ready=self._ready,
            ),
        )

    def way(self, app: ASGIApp, user_id: UserId | None) -> RequestPath:
        """The way of a request through the monitor to `app`."""
        way = self.paths
        way.app = app
        way.company = Current.company
        way.lifespan = Lifespan(way.pass_on, self.run)
        way.observed = "http" if self.settings.enabled else "nothing"
        way.endpoints, way.own = self.endpoints, self.endpoints.paths
        way.tracker = self.tracker
        way.note_user, way.user_id = self.note_user, user_id
        return way

    async def run(self) -> None:
        """The monitor's own task: announce what holds, then watch."""
        if Current.company.resting:
            await anyio.sleep_forever()
        Current.started(self.tracker)
        self.draining = False
        if not self._announced:
            self._announced = True
            _logger.info("%s", self.endpoints.explanation)
            self._warn_of_hidden_routes()
            self._warn_of_unknown_checks()
        await self.watch.run()

    def add_check(self, function: Callable[..., Any], **options: Any) -> None:
        """Add an own check; a name that is taken is a `ConfigurationError`."""
        self.runner.add(FunctionCheck(function, **options))
        self.watch.wake()

    def notice(self, severity: Severity, title: str, details: Mapping[str, Any]) -> None:
        """Have one message of the user's own delivered."""
        if self.settings.enabled:
            self.outbox.notice(severity, title, details, now=time.monotonic())

    def note_user(self, user_id: UserId, scope: Scope) -> None:
        """Ask who made a request, and count the user; never raises."""
        try:
            self.activity.seen(user_id(scope), time.monotonic())
        except Exception:
            # The callable is the user's: whatever is wrong with it, the request is served.
            self.paths.fault("user_id")

    def _read_gauges(self) -> None:
        """Let the page, and whatever else reads the registry, ask at the time of the scrape."""
        families = self.catalogue
        families.memory_bytes.read = lambda: self.system.sample().memory_bytes
        families.memory_ratio.read = lambda: _ratio(self.system.sample().memory_percent)
        families.cpu_ratio.read = lambda: _ratio(self.system.sample().cpu_percent)
        families.active_users.read = lambda: {
            (window,): float(users) for window, users in self._users().items()
        }
        families.notifier_up.read = lambda: {
            (name,): float(self.outbox.up(name)) for name in self.outbox.names
        }

    def _warn_of_hidden_routes(self) -> None:
        """Say which routes of the app ours stand before, where the app shows them."""
        shown = _attribute(self.app, "routes")
        for route in shown if isinstance(shown, Sequence) else ():
            path = _attribute(route, "path")
            if isinstance(path, str) and path in self.endpoints.paths:
                _logger.warning(
                    "The app has a route at %s, where the monitor answers: move the monitor's "
                    "with MONITOR_HEALTH_PATH, MONITOR_METRICS_PATH or MONITOR_PREFIX",
                    path,
                )

    def _warn_of_unknown_checks(self) -> None:
        """Say which checks are named that do not exist; own checks may still be added."""
        named = {
            "MONITOR_REQUIRED_CHECKS": self.settings.required_checks or (),
            "MONITOR_READY_CHECKS": self.settings.ready_checks,
        }
        for variable, names in named.items():
            unknown = [name for name in names if name not in self.runner.names]
            if unknown:
                _logger.warning(
                    "%s names %s, and there is no such check now; the checks are %s",
                    variable,
                    ", ".join(unknown),
                    ", ".join(self.runner.names),
                )

    def _users(self) -> Mapping[str, int]:
        return self.activity.counts(time.monotonic())

    def _traffic_window(self) -> TrafficWindow:
        window = self.windows.window(TRAFFIC_SECONDS, time.monotonic())
        return TrafficWindow(
            count=window.count,
            errors=window.errors,
            timed=window.bounds.count(window.plain),
            p95_ms=window.plain_quantile_ms(0.95),
        )

    def _system(self) -> Mapping[str, Any]:
        sample = self.system.sample()
        return {
            "cpu_percent": sample.cpu_percent,
            "memory_bytes": sample.memory_bytes,
            "memory_percent": sample.memory_percent,
            "memory_limit_bytes": sample.memory_limit_bytes,
            "source": sample.source,
            "disk_percent": sample.disk_percent,
            "event_loop_lag_ms": round(self.lag.last * 1000, 3),
        }

    def _alerts(self) -> Mapping[str, Any]:
        return self.outbox.as_dict()

    def _count_alert(self, severity: Severity, outcome: str) -> None:
        self.catalogue.alerts.inc(severity.value, outcome)

    def _refresh(self) -> None:
        # A route that moved may have left its old name with its cells.
        if self.routes.refresh():
            self.paths.forget()

    def _ready(self) -> bool:
        if self.draining:
            return False
        report = self.watch.last_report()
        named = self.settings.ready_checks
        if report is None:
            return not named
        return all(
            result.status.serving for name, result in report.services.items() if name in named
        )


def _configured(check: Check, settings: Settings) -> Check:
    """The check with the values of `settings` for what it was not given."""
    return check.configured(settings) if isinstance(check, check_room.System | Probe) else check


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else percent / 100


def _from_environment() -> Settings:
    for name, closest in Settings.unknown_variables(os.environ):
        hint = f"; did you mean {closest}?" if closest else ""
        _logger.warning("The variable %s is not one of the monitor's%s", name, hint)
    for name in _NOT_YET:
        if os.environ.get(name):
            _logger.warning("%s is set, but this version does not use it yet", name)
    return Settings.from_env()


def _version(settings: Settings, app: ASGIApp) -> str:
    """The version that the settings name, else the app's own."""
    own = _attribute(app, "version")
    return settings.app_version or (own if isinstance(own, str) else "")


def _attribute(thing: object, name: str) -> object:
    """An attribute of something of the application's; None where it cannot be had."""
    try:
        return getattr(thing, name, None)
    except Exception:
        # A proxy that is not set up yet may raise anything.
        return None
