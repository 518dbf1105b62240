"""The parts of one monitor, put together in the order of the rooms."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Scope

from holistic_asgi_monitor import checks as check_room
from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.alerts.heartbeat import Heartbeat
from holistic_asgi_monitor.alerts.leases import leadership
from holistic_asgi_monitor.alerts.lookout import Lookout
from holistic_asgi_monitor.alerts.maintenance import Maintenance
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.voice import Scope as VoiceScope
from holistic_asgi_monitor.alerts.voice import Voice, local_keys
from holistic_asgi_monitor.business import Business, refuse_what_gives_no_id
from holistic_asgi_monitor.checks.environment import checks_from_environment
from holistic_asgi_monitor.checks.function import FunctionCheck
from holistic_asgi_monitor.checks.lag import LoopLag
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.checks.traffic import Traffic, TrafficWindow
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.opening import spare_store, to_store
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.exposition import Exposition, Page
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import WINDOWS, Windows
from holistic_asgi_monitor.model import Check, ConfigurationError, Notifier, Severity
from holistic_asgi_monitor.notifiers.environment import notifiers_from_environment
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.openai_news import News
from holistic_asgi_monitor.usage.tracking import Current
from holistic_asgi_monitor.watch import Watch
from holistic_asgi_monitor.web.endpoints import Endpoints, Sources
from holistic_asgi_monitor.web.history.source import Recorded
from holistic_asgi_monitor.web.lifespan import Lifespan
from holistic_asgi_monitor.web.orders import Orders
from holistic_asgi_monitor.web.requests import Exchange, RequestPath, UserId
from holistic_asgi_monitor.web.routes import Routes
from holistic_asgi_monitor.web.stats import Identity, Statistics
from holistic_asgi_monitor.web.trend import Trend, Trends

__all__ = ("Parts",)

_logger = logging.getLogger("holistic_asgi_monitor")

TRAFFIC_SECONDS = WINDOWS["5m"]
_REGISTRY = "a CollectorRegistry of prometheus_client, or None"


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
        _refuse_what_does_not_fit(app, settings, notifiers, registry, route)
        self.app = app
        self.settings = settings = settings if settings is not None else _from_environment()
        self.started = time.monotonic()
        self.draining = False
        self._announced = False
        self._ran = False
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
        self.business = Business(
            settings, self.catalogue, fault=self.paths.fault, endpoint=self._endpoint
        )
        self.tracker = self.business.tracker
        self._build_history()
        self._build_checks(checks)
        self._build_watch(notifiers)
        self._build_endpoints(_version(settings, app))

    def _build_history(self) -> None:
        """Nothing is opened here: a command may only look at the app."""
        settings = self.settings
        self.recorder = Recorder(
            to_store(settings) if settings.enabled else Off(),
            requests=self.catalogue.series,
            instance=settings.instance,
            flush_seconds=settings.flush_seconds,
            spare=lambda: spare_store(settings),
            keyed_users=self.business.activity.keyed,
        )
        self.history = Recorded(self.recorder)
        self.trends = Trends(self.history.read, lambda: self.recorder.now)
        self.business.keep_in(self.recorder, self.history.read, self._readable)

    def _build_checks(self, checks: Sequence[Check] | None) -> None:
        self.traffic = Traffic(self._traffic_window, self.settings)
        given = checks_from_environment(self.settings) if checks is None else _listed(checks)
        self.checks = chosen = [_configured(check, self.settings) for check in given]
        self.databases = [check for check in chosen if isinstance(check, check_room.Postgres)]
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
        self.outbox = Outbox(
            chosen,
            self.settings,
            secrets=self.runner.secrets,
            outcome=self._count_alert,
            voice=Voice(local_keys([self.system.name])),
        )
        keeper, leader = leadership(settings, self.recorder, self.outbox, lambda: self.runner.names)
        self.errands = self.business.speak_through(self.outbox)
        self.lookout = Lookout(
            settings,
            self.catalogue.series,
            self.windows,
            openai=self.business.calls,
            remembered=lambda: self.outbox.remembered,
            now=self.started,
        )
        self.watch = Watch(
            self.settings,
            self.runner,
            self.outbox,
            catalogue=self.catalogue,
            windows=self.windows,
            refresh=self._refresh,
            lag=self.lag,
            lag_check=self.system.name,
            recorder=self.recorder,
            lookout=self.lookout,
            keeper=keeper,
            leader=leader,
            heartbeat=self._heartbeat(),
            errands=self.errands,
        )
        self.outbox.look = self.watch.hasten
        asked = [check for check in self.checks if isinstance(check, check_room.OpenAI)]
        self.news = News(asked, self.watch.hasten, pause=settings.recheck_seconds)
        if asked:
            self.tracker.listeners.append(self.news)

    def _heartbeat(self) -> Heartbeat | None:
        url, interval = self.settings.heartbeat_url, self.settings.check_interval_seconds
        return None if url is None else Heartbeat(url, interval)

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
            database=self._database,
            audience=self.business.audience.now,
            openai=self.business.openai_figures,
            failures=lambda: list(self.paths.failures),
            alerts=self._alerts,
            trend=self._trend,
            summary=self.business.last_summary,
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
                page=self._page,
                stats=self.statistics.as_dict,
                history=self.history,
                alerts=self._alerts,
                ready=self._ready,
                orders=Orders(self.outbox, lambda: self.runner.names),
            ),
            root_path=self.routes.root_path,
            clock=lambda: self.recorder.now,
        )

    def way(self, app: ASGIApp, user_id: UserId | None) -> RequestPath:
        """The way of a request through the monitor to `app`."""
        way = self.paths
        way.app = app
        way.company = Current.company
        way.lifespan = Lifespan(way.pass_on, self.run, stopped=self._stopped)
        way.observed = "http" if self.settings.enabled else "nothing"
        way.endpoints, way.own = self.endpoints, self.endpoints.paths
        way.tracker = self.tracker
        way.note_user, way.user_id = self._note_user, user_id
        if user_id is not None:
            refuse_what_gives_no_id(user_id)
            # Where users are asked for, requests carry themselves from the first one on.
            Current.carry()
        return way

    async def run(self) -> None:
        """The monitor's own task: announce what holds, then watch."""
        if Current.company.resting:
            await anyio.sleep_forever()
        self._ran = True
        self.draining = False
        if not self._announced:
            self._announced = True
            _logger.info("%s", self.endpoints.explanation)
            self._warn_of_hidden_routes()
            self.warn_of_unknown_checks()
        self.news.settle()
        self.business.begin()
        try:
            await self.watch.run()
        finally:
            # Here and not after it, since nothing comes after it where the event loop ends.
            self.business.settle()
            await self.recorder.close()

    async def _stopped(self) -> None:
        """Write what was counted in a life too short for its own task to begin."""
        if not self.paths.lifespan.serving:
            self.business.end()
        if not self._ran and not Current.company.resting:
            await self.recorder.close()
        self._ran = False

    def add_check(self, function: Callable[..., Any], **options: Any) -> None:
        """Add an own check; a name that is taken is a `ConfigurationError`."""
        self.runner.add(FunctionCheck(function, **options))
        self.watch.wake()

    def notice(self, severity: Severity, title: str, details: Mapping[str, Any]) -> None:
        """Have one message of the user's own delivered."""
        if self.settings.enabled:
            self.outbox.notice(severity, title, details, now=time.monotonic())

    def maintenance(self, reason: str, minutes: float) -> Maintenance:
        """A window of maintenance that has not begun yet."""
        return Maintenance(self.outbox.quiet_times, reason, minutes)

    def _note_user(self, exchange: Exchange) -> None:
        self.business.note_user(exchange, self.paths.user_id)

    def _read_gauges(self) -> None:
        """Let the page, and whatever else reads the registry, ask at the time of the scrape."""
        families = self.catalogue
        families.memory_bytes.read = lambda: self.system.sample().memory_bytes
        families.memory_ratio.read = lambda: _ratio(self.system.sample().memory_percent)
        families.cpu_ratio.read = lambda: _ratio(self.system.sample().cpu_percent)
        families.active_connections.read = self._active_connections
        families.openai_attached.read = lambda: self.business.attached
        families.active_users.read = self.business.active_users
        tally = self.recorder.tally
        families.history_flush_seconds.read = lambda: tally.flush_seconds
        families.history_pending.read = lambda: tally.pending
        families.history_bytes.read = lambda: tally.bytes
        families.notifier_up.read = lambda: {
            (name,): float(self.outbox.up(name)) for name in self.outbox.names
        }
        families.leader.read = self._leads

    def _leads(self) -> Mapping[tuple[str, ...], float]:
        now = time.monotonic()
        return {(scope.value,): float(self.outbox.voice.has(scope, now)) for scope in VoiceScope}

    def _warn_of_hidden_routes(self) -> None:
        """Say which routes of the app ours stand before, where the app shows them."""
        for path in self.endpoints.paths:
            if not path.endswith("/") and self.routes.stands_at(path):
                _logger.warning(
                    "The app has a route at %s, where the monitor answers: move the monitor's "
                    "with MONITOR_HEALTH_PATH, MONITOR_METRICS_PATH or MONITOR_PREFIX",
                    path,
                )

    def warn_of_unknown_checks(self) -> None:
        """Say which checks are named that do not exist; own checks may still be added."""
        named = {
            "MONITOR_REQUIRED_CHECKS": self.settings.required_checks or (),
            "MONITOR_READY_CHECKS": self.settings.ready_checks,
            "depends_on": self.runner.parents,
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

    def _readable(self) -> bool:
        """Whether somebody will close what reading opens: the watch, or after it each reader."""
        return self.watch.running or self.paths.lifespan.serving or self.recorder.ended

    async def _traffic_window(self) -> TrafficWindow:
        await self.catalogue.series.fold_in_pieces()
        window = self.windows.window(TRAFFIC_SECONDS, time.monotonic())
        return TrafficWindow(
            count=window.count,
            errors=window.errors,
            timed=window.bounds.count(window.plain),
            p95_ms=window.plain_quantile_ms(0.95),
        )

    def _system(self) -> Mapping[str, Any]:
        sample, lag = self.system.sample(), self.lag.last
        return {
            "cpu_percent": sample.cpu_percent,
            "memory_bytes": sample.memory_bytes,
            "memory_percent": sample.memory_percent,
            "memory_limit_bytes": sample.memory_limit_bytes,
            "source": sample.source,
            "disk_percent": sample.disk_percent,
            "event_loop_lag_ms": None if lag is None else round(lag * 1000, 3),
        }

    def _database(self) -> Mapping[str, int] | None:
        """The connections of all checked databases together; None where nothing is known."""
        known = [each.connections for each in self.databases if each.connections is not None]
        if not known:
            return None
        return {
            "in_use": sum(each.in_use for each in known),
            "idle": sum(each.idle for each in known),
            "size": sum(each.size for each in known),
        }

    def _active_connections(self) -> float | None:
        database = self._database()
        return None if database is None else float(database["in_use"])

    async def _page(self, *args: Any, **options: Any) -> Page:
        """The page, with the calls that have ended unnoticed until now."""
        self.business.settle()
        await self.business.audience.now(features=False)
        return await self.exposition.page(*args, **options)

    def _endpoint(self, exchange: Exchange) -> str:
        """The label of a request that may still be underway."""
        status = 101 if exchange.scope["type"] == "websocket" else 200
        located = self.routes.locate(exchange.scope, exchange.path, exchange.root_path, status)
        return self.catalogue.series.label(located.endpoint)

    def _alerts(self) -> Mapping[str, Any]:
        return self.outbox.as_dict()

    def _count_alert(self, severity: Severity, outcome: str) -> None:
        self.catalogue.alerts.inc(severity.value, outcome)

    async def _trend(self) -> Trend | None:
        return await self.trends.now() if self._readable() else None

    def _refresh(self) -> None:
        self._note_system()
        self.business.settle()
        # A route that moved may have left its old name with its cells.
        if self.routes.refresh():
            self.paths.forget()

    def _note_system(self) -> None:
        sample = self.system.sample()
        self.recorder.ledger.note_system("cpu", sample.cpu_percent)
        self.recorder.ledger.note_system("memory", sample.memory_bytes)

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


def _refuse_what_does_not_fit(
    app: object, settings: object, notifiers: object, registry: object, route: object
) -> None:
    """Refuse arguments of Monitor that would only be found out later, or in words of others."""
    plain = route is None or (callable(route) and not inspect.iscoroutinefunction(route))
    for name, given, fits, allowed in (
        ("app", app, callable(app), "an ASGI app"),
        ("settings", settings, isinstance(settings, Settings | None), "Settings(...), or None"),
        ("notifiers", notifiers, isinstance(notifiers, Iterable | None), "a list, or None"),
        ("registry", registry, isinstance(registry, CollectorRegistry | None), _REGISTRY),
        ("route", route, plain, "a plain function that is called with the scope, or None"),
    ):
        if not fits:
            sentence = f"{name} is given a {type(given).__name__}; allowed is {allowed}"
            raise ConfigurationError(sentence)


def _listed(checks: object) -> list[Check]:
    if isinstance(checks, Sequence) and not isinstance(checks, str):
        return list(checks)
    raise ConfigurationError(
        f"checks is given a {type(checks).__name__}; allowed is a list of checks, or None"
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
