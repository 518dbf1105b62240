"""Monitor: puts the parts together and sends each scope to its room."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Token
from time import perf_counter_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from holistic_asgi_monitor.alerts.maintenance import DEFAULT_MINUTES, DEFAULT_REASON, Maintenance
from holistic_asgi_monitor.model import Check, ConfigurationError, Notifier, Report, Severity
from holistic_asgi_monitor.parts import Parts
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.tracking import Company, Current, Underway
from holistic_asgi_monitor.web.requests import MARK, Exchange, RequestPath, UserId
from holistic_asgi_monitor.web.websockets import Connection

__all__ = ("Monitor",)

P = ParamSpec("P")
R = TypeVar("R")
_NOW_AND_THEN = 31
"""Where lifespan never comes, every 32nd request looks whether the event loop is another one."""

CheckFunction = TypeVar("CheckFunction", bound=Callable[..., Any])


class Monitor:
    """Complete monitoring for an ASGI app: `app = Monitor(app)`.

    `settings` default to the environment's, `checks` and `notifiers` to those it names,
    `registry` to an own one that is served together with prometheus_client's default one.
    `user_id` and `route` are asked with the scope after the app has run: who made the request,
    and under which name it counts. Without `user_id` it is the user whom Starlette's
    authentication has found.

    What the app sends, receives and raises stays the same. An attribute that Monitor lacks is
    the app's.
    """

    __slots__ = ("__weakref__", "_blocks", "_parts", "_target", "_way")
    __lends_attributes__ = True

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings | None = None,
        checks: Sequence[Check] | None = None,
        notifiers: Sequence[Notifier] | None = None,
        registry: CollectorRegistry | None = None,
        user_id: UserId | None = None,
        route: Callable[[Scope], str | None] | None = None,
    ) -> None:
        self._target = app
        self._blocks: list[AbstractAsyncContextManager[None]] = []
        self._parts = Parts(
            app, settings, checks=checks, notifiers=notifiers, registry=registry, route=route
        )
        self._way = self._parts.way(app, user_id)
        Current.entrance = Monitor.__call__.__code__
        _sign_requests_on_the_stack()

    @classmethod
    def attach(
        cls,
        app: Starlette,
        *,
        settings: Settings | None = None,
        checks: Sequence[Check] | None = None,
        notifiers: Sequence[Notifier] | None = None,
        registry: CollectorRegistry | None = None,
        user_id: UserId | None = None,
        route: Callable[[Scope], str | None] | None = None,
    ) -> Self:
        """Add a monitor to a Starlette or FastAPI app as middleware; `app` stays what it was.

        The app is served as before; what is returned is for `check`, `report` and the others.
        """
        if isinstance(app, type) or not callable(getattr(app, "add_middleware", None)):
            given = f"the class {app.__name__}" if isinstance(app, type) else type(app).__name__
            raise ConfigurationError(
                f"Monitor.attach takes a Starlette or FastAPI app, not {given}; "
                "around any ASGI app goes app = Monitor(app)"
            )
        monitor = cls(
            app,
            settings=settings,
            checks=checks,
            notifiers=notifiers,
            registry=registry,
            user_id=user_id,
            route=route,
        )
        app.add_middleware(monitor._take_place)
        return monitor

    async def __call__(  # noqa: C901 - in line, see the head of web/requests.py
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve one ASGI scope: count a request, answer our own paths, pass all else on."""
        # One look at ourselves: because of __getattr__ each of them is slow.
        way = self._way
        company = way.company
        noting = company.noting
        # Where there are several, there is something to be noted.
        if scope["type"] != way.observed or (noting and MARK in scope):
            await self._aside(scope, receive, send)
            return
        started = way.series.started
        if not started & _NOW_AND_THEN and not way.lifespan.serving:
            way.lifespan.ensure()
        try:
            path, root_path = scope["path"], scope["root_path"]
        except KeyError:
            # Every server gives both, though it need not give the latter.
            path, root_path = scope.get("path", ""), scope.get("root_path", "")
        if path in way.own or root_path:
            own = way.endpoints.find(path, root_path)
            if own is not None:
                await way.endpoints(own, scope, receive, send)
                return
        way.series.started = started + 1
        exchange = Exchange()
        exchange.paths, exchange.scope = way, scope
        exchange.server_receive, exchange.server_send = receive, send
        exchange.path, exchange.root_path = path, root_path
        exchange.status = 0
        token = _noted(company, exchange) if noting else None
        app = way.app  # In a step of its own: see Exchange.send.
        exchange.start = perf_counter_ns()
        try:
            await app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.broken(error)
            raise
        finally:
            if exchange.start:
                exchange.left_open()
            # A monitor that was made meanwhile has signed the request as well.
            if noting or company.noting:
                scope.pop(MARK, None)
                if token is not None:
                    Current.leave(token)
                if way.user_id is not None or "user" in scope:
                    way.note_user(exchange)
            elif "user" in scope:
                way.note_user(exchange)

    async def _aside(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is not a request to count: lifespan, WebSockets, what is observed already."""
        way, kind = self._way, scope["type"]
        own = None
        if way.observed == kind:
            # Another monitor counts this request; our own paths are still ours to answer.
            own = way.endpoints.find(scope.get("path", ""), scope.get("root_path", ""))
        if own is not None:
            await way.endpoints(own, scope, receive, send)
        elif way.observed != "http" or MARK in scope or kind not in {"lifespan", "websocket"}:
            await way.app(scope, receive, send)
        elif kind == "lifespan":
            await way.lifespan(scope, receive, send)
        else:
            await _serve_websocket(way, scope, receive, send)

    def _take_place(self, app: ASGIApp) -> Self:
        """Stand before `app` in the middleware stack; Starlette calls this when it builds it."""
        self._way.app = app
        return self

    @property
    def app(self) -> ASGIApp:
        """The wrapped application."""
        return self._target

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._parts.settings

    @property
    def registry(self) -> CollectorRegistry:
        """The registry that holds the monitor's metrics."""
        return self._parts.registry

    def check(
        self,
        name: str,
        *,
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Decorate a function, sync or async, that becomes the check `name`.

        It returns None or True (healthy), False, a `Status` or a `CheckResult`, or raises; False
        and an exception are critical if `required`, else degraded. `timeout` and `interval` are
        seconds, by default the settings'.
        """
        if callable(name):
            raise ConfigurationError(
                'monitor.check is given a function without a name; write @monitor.check("payments")'
            )

        def add(function: CheckFunction) -> CheckFunction:
            self._parts.add_check(
                function,
                name=name,
                required=required,
                timeout=timeout,
                interval=interval,
                depends_on=depends_on,
            )
            return function

        return add

    async def report(self, fresh: bool = False) -> Report:  # noqa: FBT001, FBT002 - interface.md
        """The last report, or, where there is none or `fresh` asks for it, that of a round now."""
        return await self._parts.watch.report(fresh=fresh)

    def drain(self) -> None:
        """Turn `ready` to 503, so that a load balancer sends no more requests (preStop hooks)."""
        self._parts.draining = True

    async def __aenter__(self) -> Self:
        """Watch without a server, for the time of a block; not where it is switched off."""
        if not self.settings.enabled:
            return self
        block = self._way.lifespan.running()
        await block.__aenter__()
        self._blocks.append(block)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the watch."""
        if self._blocks:
            await self._blocks.pop().__aexit__(kind, error, trace)

    def alert(
        self, severity: Severity, title: str, details: Mapping[str, Any] | None = None
    ) -> None:
        """Send one message of your own; one title at most once in each cooldown."""
        self._parts.notice(severity, title, details or {})

    def maintenance(
        self, reason: str = DEFAULT_REASON, minutes: float = DEFAULT_MINUTES
    ) -> Maintenance:
        """A window of maintenance, in which nothing is told: `async with monitor.maintenance():`.

        Outside of a block, `begin()` and `end()` it. It ends by itself after `minutes`, at most
        1440. What is so when it is over is then told, where it is not known.
        """
        return self._parts.maintenance(reason, minutes)

    def track_request(self, method: str, endpoint: str, status: int, duration: float) -> None:
        """Count a request that did not come through ASGI; `duration` is in seconds."""
        self._parts.tracker.track_request(method, endpoint, status, duration)

    def track_error(self, service: str, error_type: str) -> None:
        """Count an error of a service by its type."""
        self._parts.tracker.track_error(service, error_type)

    def track_feature(self, name: str) -> None:
        """Count one use of a feature."""
        self._parts.tracker.track_feature(name)

    def set_user(self, user: object) -> None:
        """Count a user as active; only a keyed hash is kept."""
        self._parts.tracker.set_user(user)

    def track_openai_call(
        self,
        model: str,
        status: str = "success",
        cost: float | None = None,
        *,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """Count one OpenAI call: its outcome, its cost in US dollars, its tokens."""
        self._parts.tracker.track_openai_call(model, status, cost, usage=usage)

    def track_endpoint_metrics(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a sync or async function: its calls are counted and timed as `name`."""
        return self._parts.tracker.track_endpoint_metrics(name)

    # To a type checker a misspelt method stays an error; at run time the rest is the app's.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in _OWN or (name.startswith("__") and name.endswith("__")):
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
            return getattr(self._target, name)

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _OWN:
                object.__setattr__(self, name, value)
            else:
                setattr(self._target, name, value)

        def __delattr__(self, name: str) -> None:
            delattr(self._target, name)


_OWN = frozenset(Monitor.__slots__)


def _noted(company: Company, exchange: Exchange) -> Token[Underway | None] | None:
    """Note what somebody needs to know of a request that nobody needs as a rule."""
    if company.several:
        exchange.scope[MARK] = True
    return Current.request.set(exchange) if company.carries() else None


async def _serve_websocket(way: RequestPath, scope: Scope, receive: Receive, send: Send) -> None:
    if not way.lifespan.serving:
        way.lifespan.ensure()
    if way.company.several:
        scope[MARK] = True
    exchange = Exchange()
    exchange.paths, exchange.scope = way, scope
    exchange.path, exchange.root_path = scope.get("path", ""), scope.get("root_path", "")
    token = Current.request.set(exchange)
    try:
        await Connection(way, scope, receive, send).run(way.app)
    finally:
        Current.leave(token)
        scope.pop(MARK, None)
        if "user" in scope or way.user_id is not None:
            way.note_user(exchange)


def _sign_requests_on_the_stack() -> None:
    """Let a monitor that is made while another serves a request know of that request.

    Starlette builds its middleware with the first request; without a lifespan before it, a
    monitor around the app has let that request in when there was no other monitor yet.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is Monitor.__call__.__code__:
            frame.f_locals["scope"][MARK] = True
        frame = frame.f_back
