"""The request path: one object per request that adds its numbers to the cells.

This is the one place where nanoseconds are counted (benchmarks/requests measures it), so the
common way is written out in line: no call of ours that is not needed, no lock, no allocation
beyond the object and one key. Everything uncommon is a method further down.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import perf_counter_ns
from types import CodeType
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holistic_asgi_monitor.failures import described, own_place
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.series import METHODS, PENDING_LENGTH, Target
from holistic_asgi_monitor.usage.tracking import Company, Tracker, Visit
from holistic_asgi_monitor.web.endpoints import Endpoints
from holistic_asgi_monitor.web.lifespan import Lifespan
from holistic_asgi_monitor.web.routes import Routes

__all__ = ("LEFT", "MARK", "Exchange", "Failure", "RequestPath", "UserId", "client_left")

_logger = logging.getLogger("holistic_asgi_monitor")

MARK = "holistic_asgi_monitor"
"""The key that tells an inner monitor that this scope is already being observed."""

UserId = Callable[[Scope], str | None]
"""Asked with the scope, after the app, who made a request."""

FAILURES_KEPT = 100

_TRAILERS = "http.response.trailers"
_ENDS = frozenset(("http.response.pathsend", "http.response.zerocopysend", _TRAILERS))
LEFT = 499
_LONGEST_CHAIN = 10


def mark_coroutine_function(function: Callable[..., Any]) -> None:
    """Have `iscoroutinefunction` say yes of a function that returns another's coroutine."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    # What asyncio's and asgiref's question looked for before there was a public way.
    vars(function)["_is_coroutine"] = getattr(asyncio.coroutines, "_is_coroutine", True)


def client_left(error: BaseException) -> bool:
    """Whether what a server's `send` raised means that the client is gone.

    The ASGI specification has servers raise an `OSError`; some raise a class of their own.
    """
    return (
        isinstance(error, OSError | anyio.BrokenResourceError | anyio.ClosedResourceError)
        or "Disconnect" in type(error).__name__
    )


def raised_by_leaving(error: BaseException, send: Send) -> bool:
    """Whether `error`, or what it was raised from, came out of the server's `send`.

    An application has connections of its own that break with the same exceptions; only the frame
    of `send` in the traceback tells which one it was. A `send` not written in Python has none: what
    comes out of it counts as the application's.
    """
    code = _code(send)
    return all(_came_from(code, leaf) for leaf in _leaves(error))


def _came_from(code: CodeType | None, error: BaseException) -> bool:
    link: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if link is None:
            return False
        if client_left(link) and code in _codes(link):
            return True
        link = link.__cause__ or link.__context__
    return False


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that a group holds, or the one exception itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def ended_by_force(error: BaseException) -> bool:
    """Whether `error` is a cancellation or the end of the process, and no failure."""
    return not any(isinstance(leaf, Exception) for leaf in _leaves(error))


def _code(send: object) -> CodeType | None:
    """The code that runs when `send` is awaited, below partial objects and other callables."""
    while isinstance(send, partial):
        send = send.func
    code = getattr(send, "__code__", None) or getattr(type(send).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _codes(error: BaseException) -> set[CodeType]:
    return {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of the application: when (UTC), where, and its type; never its text.

    `place` is the last line of the application's own code that it passed, empty where unknown.
    """

    time: datetime
    method: str
    endpoint: str
    type: str
    place: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The failure as JSON values."""
        return {
            "time": self.time.isoformat(),
            "method": self.method,
            "endpoint": self.endpoint,
            "type": self.type,
            "message": f"{self.type} at {self.place}" if self.place else self.type,
        }


class RequestPath:
    """What all requests of one monitor share: the series, their names, and what is known of both.

    `known` leads from the identity of a route object, a method and a status straight to where the
    request is counted; it keeps the route alive, so that its identity stays its own. The status is
    negative for responses sent in several messages, whose durations are kept apart. `last` is the
    short way to it: most requests are like the one before on the same route.

    What the way of a request needs at hand stands here as well, since each further object that it
    looks at is one more that is not in the processor's cache.
    """

    __slots__ = (
        "_faulty",
        "_routes_known",
        "app",
        "catalogue",
        "company",
        "endpoints",
        "failures",
        "known",
        "last",
        "lifespan",
        "note_user",
        "observed",
        "own",
        "routes",
        "series",
        "tracker",
        "user_id",
    )

    app: ASGIApp
    """The app at the end of the way, or the middleware that stands before it."""

    company: Company
    endpoints: Endpoints
    lifespan: Lifespan
    observed: str
    """The type of scope that is counted: none where the monitor is switched off."""

    own: Container[str]
    """Our own paths."""

    tracker: Tracker
    user_id: UserId | None
    note_user: Callable[[Exchange], None]

    def __init__(self, catalogue: Catalogue, routes: Routes) -> None:
        self.catalogue = catalogue
        self.series = catalogue.series
        self.routes = routes
        self.known: dict[tuple[int, str | None, int], Target] = {}
        self.last: dict[int, Target] = {}
        self._routes_known: dict[int, object] = {}
        self.failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)
        self._faulty = False

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app that stands behind the monitor now."""
        await self.app(scope, receive, send)

    def known_or_found(self, exchange: Exchange, status: int) -> Target:
        """Where a request is counted that is not like the last one of its route."""
        route = exchange.scope.get("route")
        target = self.known.get((id(route), exchange.scope.get("method"), status))
        if target is None:
            return self.find(exchange, status)
        self.last[id(route)] = target
        return target

    def find(self, exchange: Exchange, status: int) -> Target:
        """Where a request is counted that is not known yet; remembered where that is safe."""
        scope = exchange.scope
        located = self.routes.locate(scope, exchange.path, exchange.root_path, abs(status))
        method = scope.get("method", "")
        found = self.series.find(method, located.endpoint)
        target = self.series.target(found, _bounded(abs(status)), streamed=status < 0)
        route = located.route
        if route is not None and method in METHODS:
            self._routes_known[id(route)] = route
            self.known[id(route), method, status] = target
        return target

    def forget(self) -> None:
        """Ask again for every route: the tree has changed."""
        self.known.clear()
        self.last.clear()
        self._routes_known.clear()

    def open_websockets(self, change: int) -> None:
        """Move the number of open WebSocket connections; never raises."""
        try:
            self.catalogue.websocket_open.add(change)
        except Exception:
            # The connection goes on.
            self.fault("websockets")

    def failed(self, error: BaseException, method: str, endpoint: str | None) -> None:
        """Count an exception of the application by its type, and remember where it came from."""
        kind = type(error).__name__
        self.catalogue.errors.inc("app", kind)
        where = self.series.label(endpoint)
        self.failures.append(Failure(datetime.now(UTC), method, where, kind, own_place(error)))

    def fault(self, part: str) -> None:
        """Count and, once, log a failure of our own that was kept from a request; never raises."""
        with suppress(Exception):
            self.catalogue.faults.inc(part)
        if not self._faulty:
            self._faulty = True
            _logger.error(
                "The monitor failed in its part '%s' (%s); requests go on unchanged, and further "
                "failures only count in monitor_faults_total",
                part,
                described(sys.exception()),
            )


def _bounded(status: int) -> int:
    """The status to count: 500 where none was sent, 0 for what is no HTTP status."""
    if not status:
        return 500
    return status if 100 <= status <= 999 else 0


class Exchange:
    """One HTTP request on its way through: stands between the application and the server.

    Whoever makes one fills in its slots: a constructor would cost as much as all the counting.
    `start` is the time of arrival in nanoseconds, negative while trailers are to come, and 0 once
    the request has been counted; `status` is 0 before the response, and negative once there is
    more than one body message. `visit` is set where somebody tells of the user or a feature, `gone`
    once the application has heard that the client left.
    """

    __slots__ = (
        "gone",
        "path",
        "paths",
        "root_path",
        "scope",
        "server_receive",
        "server_send",
        "start",
        "status",
        "visit",
    )

    gone: bool
    path: str
    paths: RequestPath
    root_path: str
    scope: Scope
    server_receive: Receive
    server_send: Send
    start: int
    status: int
    visit: Visit

    async def receive(self) -> Message:
        """Pass a message on to the application; notes that the client left."""
        message = await self.server_receive()
        if message["type"] == "http.disconnect" and self.start:
            self.gone = True
            if not self.status:
                # Whatever is sent from now on, nobody reads it.
                self.status = LEFT
        return message

    def send(self, message: Message) -> Awaitable[None]:  # noqa: C901 - in line, see the head
        """Pass a message on to the server; the one with the last byte ends the request.

        Not a coroutine function, so that no second frame stands in the way of each message.
        """
        try:
            kind = message["type"]
            if kind == "http.response.body":
                if "more_body" in message and message["more_body"]:  # noqa: RUF019 - half of a get
                    if self.status > 0:
                        self.status = -self.status
                elif self.start > 0:
                    took = perf_counter_ns() - self.start
                    self.start = 0
                    scope, status = self.scope, self.status
                    target = self.paths.last.get(id(scope.get("route")))
                    if (
                        target is None
                        or target.signed != status
                        or target.method != scope["method"]
                    ):
                        target = self.paths.known_or_found(self, status)
                    pending = target.pending
                    pending.append(took)
                    if len(pending) >= PENDING_LENGTH:
                        self.paths.series.fold_in(target)
            elif kind == "http.response.start":
                if not self.status:
                    self.status = message["status"]
                if "trailers" in message and message["trailers"]:  # noqa: RUF019 - as above
                    self.start = -self.start
            elif kind in _ENDS:
                self._sent_otherwise(kind, message)
        except Exception:
            # Nothing that goes wrong in counting may reach the application.
            self._lose()
        # In two steps: Python 3.11 takes longer to call what a slot holds.
        send = self.server_send
        return send(message)

    # Who asks whether `send` is a coroutine function (asgiref does) must hear yes.
    mark_coroutine_function(send)

    def _sent_otherwise(self, kind: str, message: Message) -> None:
        """End with trailers, or with a body that the server reads from a file."""
        more = message.get("more_trailers" if kind == _TRAILERS else "more_body")
        if not more and (kind == _TRAILERS or self.start > 0):
            self.finish(self.status)

    def finish(self, status: int) -> None:
        """Count the request unless it has been counted."""
        if self.start:
            took = perf_counter_ns() - abs(self.start)
            self.start = 0
            self.paths.series.write(self.paths.find(self, status), took)

    def broken(self, error: BaseException) -> None:
        """Take in what the application raised; never raises itself."""
        try:
            if ended_by_force(error) or self._gone():
                self.finish(self.status or LEFT)
            elif raised_by_leaving(error, self.server_send):
                # Without a body message on its way, it was the start that could not be sent.
                self.finish(self.status if self.status < 0 else LEFT)
            else:
                self._failed(error, self.status or 500)
        except Exception:
            # See send.
            self._lose()

    def _gone(self) -> bool:
        """Whether the application has heard that the client left."""
        return getattr(self, "gone", False)

    def _failed(self, error: BaseException, status: int) -> None:
        """Count a failure: by its type, and in the error rate where the status does not tell."""
        self.finish(status)
        paths, method = self.paths, self.scope.get("method", "")
        located = paths.routes.locate(self.scope, self.path, self.root_path, abs(status))
        found = paths.series.find(method, located.endpoint)
        if paths.series.excludes(found):
            return
        paths.failed(error, found.method, located.endpoint)
        if abs(status) < 500:
            found.broken += 1

    def left_open(self) -> None:
        """Take in that the application returned without ending its response; never raises."""
        try:
            self.finish(self.status or (LEFT if self._gone() else 500))
        except Exception:
            # See send.
            self._lose()

    def _lose(self) -> None:
        """Give up a request that could not be counted: it is in progress no longer."""
        if not self.start:
            self.paths.series.started -= 1
        self.paths.fault("requests")
