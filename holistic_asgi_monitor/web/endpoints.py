"""Our own paths: which there are, who may see them, and how they are answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.bounds import TooMuchError
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.metrics.exposition import Page
from holistic_asgi_monitor.model import Report, Status
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.web.access import Access, Area, Verdict
from holistic_asgi_monitor.web.documents import in_pieces, written
from holistic_asgi_monitor.web.history.asking import WrongParameterError, asked, parameters_of
from holistic_asgi_monitor.web.history.curve import Curve, Source, as_csv, as_json, curve
from holistic_asgi_monitor.web.leaving import unless_left
from holistic_asgi_monitor.web.negotiation import accepts, format_of_metrics
from holistic_asgi_monitor.web.orders import (
    ClientGoneError,
    Orders,
    RefusedError,
    ordered,
    refuse_foreign_page,
)

__all__ = ("Answer", "Endpoints", "Sources")

_logger = logging.getLogger("holistic_asgi_monitor")

_READING = ("GET", "HEAD")
_ORDERING = ("POST",)
_IETF = "application/health+json"
_IETF_STATUS = {
    Status.HEALTHY: "pass",
    Status.SKIPPED: "pass",
    Status.UNKNOWN: "warn",
    Status.DEGRADED: "warn",
    Status.UNHEALTHY: "fail",
    Status.CRITICAL: "fail",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its body in pieces, its headers besides the common ones."""

    status: int
    pieces: tuple[bytes, ...]
    content_type: str = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, values: Any, status: int = 200, content_type: str = "application/json") -> Answer:
        """A response of JSON values."""
        return cls(status, (written(values),), content_type)

    @classmethod
    def sentence(
        cls, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> Answer:
        """A response of one sentence, as JSON."""
        answer = cls.of({"error": text}, status)
        return cls(status, answer.pieces, headers=headers)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the endpoints read: each is asked at the time of the request."""

    report: Callable[[], Awaitable[Report]]
    last_report: Callable[[], Report | None]
    page: Callable[..., Awaitable[Page]]
    stats: Callable[[], Awaitable[Mapping[str, Any]]]
    history: Source
    alerts: Callable[[], Mapping[str, Any]]
    ready: Callable[[], bool]
    orders: Orders


@dataclass(frozen=True, slots=True)
class _Route:
    """One of our paths: what it falls under, and what answers.

    What may take `long` is left off where the client leaves. One with an `order` takes POST, and
    gives what came of the JSON object that was sent.
    """

    area: Area
    respond: Callable[[Scope, Verdict], Awaitable[Answer]] | None = None
    long: bool = False
    order: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None


class Endpoints:
    """Answers our own paths; `paths` holds each of them, with and without a trailing slash.

    They are there a second time below `root_path`, which is one that the app sets for itself and
    the server knows nothing of. `clock` gives UTC epoch seconds.
    """

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        *,
        root_path: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._access = Access(settings)
        self._sources = sources
        self._clock = clock
        self.paths: dict[str, _Route] = {}
        self._add_health(settings.health_path)
        if settings.metrics_path:
            self._add(settings.metrics_path, Area.METRICS, self._metrics)
        if settings.prefix:
            self._add(f"{settings.prefix}/stats", Area.PRIVATE, self._stats)
            self._add(f"{settings.prefix}/history", Area.PRIVATE, self._history, long=True)
            self._add(f"{settings.prefix}/alerts", Area.PRIVATE, self._alerts)
            self._add_order(f"{settings.prefix}/maintenance", sources.orders.maintenance)
            self._add_order(f"{settings.prefix}/silence", sources.orders.silence)
        self._bare = frozenset(self.paths)
        self.paths |= {f"{root_path}{path}": route for path, route in self.paths.items()}

    @property
    def explanation(self) -> str:
        """One sentence for the log: which access mode holds, and what it means."""
        return self._access.explanation()

    def find(self, path: str, root_path: str) -> str | None:
        """Our path that `path` asks for, also below `root_path`; None where it is not ours."""
        try:
            root = root_path.rstrip("/")
            # By the specification the path holds the root path; some servers leave it out.
            if root and path.startswith(f"{root}/"):
                below = path[len(root) :]
                return below if below in self._bare else None
        except (AttributeError, TypeError):
            # Whatever stands in a scope in the place of text, it is the application's to judge.
            return None
        return path if path in self.paths else None

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request for `path`, one of `paths`."""
        with suppress(ClientGoneError):
            await _respond(await self._answer(self.paths[path], scope, receive), scope, send)

    async def _answer(self, route: _Route, scope: Scope, receive: Receive) -> Answer:
        allowed = _READING if route.order is None else _ORDERING
        if scope["method"] not in allowed:
            allow = ((b"allow", ", ".join(allowed).encode()),)
            only = " and ".join(allowed) + (" is" if len(allowed) == 1 else " are")
            return Answer.sentence(405, f"Only {only} allowed here.", allow)
        try:
            verdict = self._access.judge(scope, route.area)
            if not verdict.allowed:
                return Answer.sentence(verdict.status, verdict.sentence, verdict.headers)
            if route.order is not None:
                return await _carried_out(route.order, scope, receive)
            assert route.respond is not None
            if route.long:
                return await unless_left(partial(route.respond, scope, verdict), receive)
            return await route.respond(scope, verdict)
        except ClientGoneError:
            raise
        except Exception as error:
            # The page is ours, the application behind it is not to know.
            _logger.error("The monitor could not answer a page: %s", described(error))
            return Answer.sentence(500, "The monitor could not answer; its log says why.")

    def _add_health(self, path: str) -> None:
        if path:
            self._add(path, Area.HEALTH, self._health)
            self._add(f"{path}/simple", Area.STATUS, self._simple)
            self._add(f"{path}/live", Area.STATUS, self._live)
            self._add(f"{path}/ready", Area.STATUS, self._ready)

    def _add(
        self,
        path: str,
        area: Area,
        respond: Callable[[Scope, Verdict], Awaitable[Answer]],
        *,
        long: bool = False,
    ) -> None:
        self.paths[path] = self.paths[f"{path}/"] = _Route(area, respond, long)

    def _add_order(
        self, path: str, order: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    ) -> None:
        self.paths[path] = self.paths[f"{path}/"] = _Route(Area.PRIVATE, order=order)

    async def _health(self, scope: Scope, verdict: Verdict) -> Answer:
        report = await self._sources.report()
        status = 200 if report.overall_status.serving else 503
        if accepts(_header(scope, b"accept"), _IETF):
            return Answer.of(_ietf(report, full=verdict.full), status, _IETF)
        return Answer.of(report.as_dict(public=not verdict.full), status)

    async def _simple(self, scope: Scope, verdict: Verdict) -> Answer:
        report = self._sources.last_report()
        return _word(serving=report is None or report.serving)

    async def _live(self, scope: Scope, verdict: Verdict) -> Answer:
        return _word(serving=True)

    async def _ready(self, scope: Scope, verdict: Verdict) -> Answer:
        return _word(serving=self._sources.ready())

    async def _metrics(self, scope: Scope, verdict: Verdict) -> Answer:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        page = await self._sources.page(
            format_of_metrics(_header(scope, b"accept")),
            frozenset(query.get("name[]", ())),
            compress=accepts(_header(scope, b"accept-encoding"), "gzip"),
        )
        headers = [(b"vary", b"Accept, Accept-Encoding")]
        if page.compressed:
            headers.append((b"content-encoding", b"gzip"))
        return Answer(200, tuple(page.pieces), page.content_type, tuple(headers))

    async def _stats(self, scope: Scope, verdict: Verdict) -> Answer:
        stats = await self._sources.stats()
        return Answer(200, (b"".join([piece async for piece in in_pieces(stats)]),))

    async def _history(self, scope: Scope, verdict: Verdict) -> Answer:
        try:
            wanted = asked(parameters_of(scope.get("query_string", b"")), self._clock())
            found = await curve(wanted, self._sources.history)
        except WrongParameterError as error:
            return Answer.sentence(400, str(error))
        except TooMuchError as error:
            return Answer.sentence(400, f"History cannot answer this: {error}.")
        except StoreError as error:
            return Answer.sentence(503, f"History cannot be read now: {error}.")
        return await (_csv if wanted.format == "csv" else _json)(found)

    async def _alerts(self, scope: Scope, verdict: Verdict) -> Answer:
        return Answer.of(self._sources.alerts())


async def _carried_out(
    order: Callable[[Mapping[str, Any]], Mapping[str, Any]], scope: Scope, receive: Receive
) -> Answer:
    """What comes of the order that a request carries; `ClientGoneError` where its client left."""
    try:
        refuse_foreign_page(_header(scope, b"sec-fetch-site"))
        return Answer.of(order(await ordered(receive, _header(scope, b"content-type"))))
    except RefusedError as error:
        return Answer.sentence(error.status, str(error))


async def _json(found: Curve) -> Answer:
    return Answer(200, (b"".join([piece async for piece in as_json(found)]),))


async def _csv(found: Curve) -> Answer:
    name = f'attachment; filename="{found.metric}.csv"'.encode()
    body = b"".join([piece async for piece in as_csv(found)])
    return Answer(200, (body,), "text/csv; charset=utf-8", ((b"content-disposition", name),))


def _word(*, serving: bool) -> Answer:
    return Answer.of({"status": "healthy" if serving else "unhealthy"}, 200 if serving else 503)


def _header(scope: Scope, name: bytes) -> str:
    values = [value for key, value in scope.get("headers", ()) if key.lower() == name]
    return b",".join(values).decode("latin-1")


def _ietf(report: Report, *, full: bool) -> dict[str, Any]:
    """The report in the form of draft-inadarei-api-health-check."""
    checks = {
        f"{name}:responseTime": [_ietf_check(name, report, full=full)] for name in report.services
    }
    return {
        "status": _IETF_STATUS[report.overall_status],
        "serviceId": report.service,
        "description": f"health of {report.service}",
        "checks": checks,
    }


def _ietf_check(name: str, report: Report, *, full: bool) -> dict[str, Any]:
    result = report.services[name]
    check: dict[str, Any] = {
        "componentId": name,
        "status": _IETF_STATUS[result.status],
        "time": report.timestamp.isoformat(),
    }
    if result.response_time_ms is not None:
        check |= {"observedValue": result.response_time_ms, "observedUnit": "ms"}
    if full and result.status is not Status.HEALTHY:
        check["output"] = result.message
    return check


async def _respond(answer: Answer, scope: Scope, send: Send) -> None:
    length = sum(map(len, answer.pieces))
    headers = [
        (b"content-type", answer.content_type.encode("latin-1")),
        (b"content-length", str(length).encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    pieces = () if scope["method"] == "HEAD" else answer.pieces
    for piece in pieces[:-1]:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": pieces[-1] if pieces else b""})
