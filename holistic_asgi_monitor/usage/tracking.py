"""What the application tells the monitor by itself: errors, features, users, calls, OpenAI."""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, ParamSpec, TypeVar, cast

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.series import OTHER
from holistic_asgi_monitor.metrics.text import safe_label
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.usage.activity import Activity

__all__ = (
    "OPENAI_OUTCOMES",
    "Company",
    "Current",
    "Tracker",
    "set_user",
    "track_endpoint_metrics",
    "track_error",
    "track_feature",
    "track_openai_call",
)

P = ParamSpec("P")
R = TypeVar("R")

OPENAI_OUTCOMES = frozenset(
    (
        "success",
        "auth_error",
        "quota_exceeded",
        "rate_limited",
        "timeout",
        "connection_error",
        "server_error",
        "bad_request",
        "cancelled",
        "abandoned",
    )
)


class Tracker:
    """Takes in what the application reports; a wrong argument is never the application's error."""

    def __init__(
        self,
        catalogue: Catalogue,
        activity: Activity,
        *,
        clock: Callable[[], float] = time.monotonic,
        fault: Callable[[str], None],
    ) -> None:
        self._catalogue = catalogue
        self._activity = activity
        self._clock = clock
        self._fault = fault

    def track_request(self, method: str, endpoint: str, status: int, duration: float) -> None:
        """Count a request that did not come through ASGI; `duration` is in seconds."""
        with self._guarded():
            series = self._catalogue.series
            nanoseconds, code = max(0, round(duration * 1e9)), int(status)
            found = series.find(method, safe_label(str(endpoint)))
            series.observe(found, code, nanoseconds, streamed=False)

    def track_error(self, service: str, error_type: str) -> None:
        """Count an error of a service by its type."""
        with self._guarded():
            self._catalogue.errors.inc(str(service), str(error_type))

    def track_feature(self, name: str) -> None:
        """Count one use of a feature."""
        with self._guarded():
            self._catalogue.feature_uses.inc(str(name))

    def set_user(self, user: object) -> None:
        """Count a user as active; only a keyed hash is kept."""
        with self._guarded():
            self._activity.seen(user, self._clock())

    def track_openai_call(
        self,
        model: str,
        status: str = "success",
        cost: float | None = None,
        *,
        usage: Mapping[str, int] | None = None,
    ) -> None:
        """Count one OpenAI call: its outcome, its cost in US dollars, its tokens.

        `usage` has any of `input`, `output`, `cached` and `reasoning`. A successful call without
        a cost counts as unpriced, never as free.
        """
        with self._guarded():
            families = self._catalogue
            families.openai_calls.inc(model, status if status in OPENAI_OUTCOMES else OTHER)
            if cost is not None:
                families.openai_cost.inc(model, by=float(cost))
            elif status == "success":
                families.openai_unpriced.inc(model)
            for kind, tokens in (usage or {}).items():
                self._count_tokens(model, kind, tokens)

    def track_endpoint_metrics(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a sync or async function: its calls are counted and timed as `name`."""
        return functools.partial(_decorate, name, lambda: self)

    def call_ended(self, name: str, outcome: str, seconds: float) -> None:
        """Count one call of a decorated function."""
        with self._guarded():
            self._catalogue.calls.inc(name, outcome)
            self._catalogue.call_duration.observe(seconds, name)

    def _count_tokens(self, model: str, kind: str, tokens: int) -> None:
        families = self._catalogue
        if kind in {"input", "output"}:
            families.openai_tokens.inc(model, kind, by=tokens)
        elif kind == "cached":
            families.openai_cached.inc(model, by=tokens)
        elif kind == "reasoning":
            families.openai_reasoning.inc(model, by=tokens)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            # A wrong argument, or a fault of ours, must not break the function that reports.
            self._fault("tracking")


@dataclass(slots=True)
class Company:
    """What the monitors of a process have in common.

    `several` monitors mean that requests must show whose they are; `asked` says that somebody
    wanted to know whose request he is in, which until then nobody misses. While they are
    `resting`, none of them begins to watch.
    """

    several: bool = False
    asked: bool = False
    resting: bool = False


class Current:
    """Which tracker the functions below act on: the request's, else the one started last."""

    request: ClassVar[ContextVar[Tracker | None]] = ContextVar(
        "holistic_asgi_monitor", default=None
    )
    company: ClassVar[Company] = Company()
    _living: ClassVar[weakref.WeakSet[Tracker]] = weakref.WeakSet()
    _last: ClassVar[weakref.ref[Tracker] | None] = None

    @classmethod
    def born(cls, tracker: Tracker) -> None:
        """Note that there is a tracker."""
        cls._living.add(tracker)
        if cls._latest() is None:
            cls._last = weakref.ref(tracker)
        cls.company.several = cls.company.several or len(cls._living) > 1

    @classmethod
    def started(cls, tracker: Tracker) -> None:
        """Make `tracker` the one that was started last."""
        cls._last = weakref.ref(tracker)

    @classmethod
    def tracker(cls) -> Tracker | None:
        """The tracker to act on, or None where no monitor has been started."""
        if cls.company.several and not cls.company.asked:
            cls.company.asked = True
            cls.request.set(cls._of_the_request_on_the_stack())
        return cls.request.get() or cls._latest()

    @classmethod
    def _latest(cls) -> Tracker | None:
        return cls._last() if cls._last is not None else None

    @staticmethod
    def _of_the_request_on_the_stack() -> Tracker | None:
        """The tracker of the request that is being served here, before requests carry it."""
        frame = inspect.currentframe()
        while frame is not None:
            way = frame.f_locals.get("way") if frame.f_code.co_name == "__call__" else None
            tracker = getattr(way, "tracker", None)
            if isinstance(tracker, Tracker):
                return tracker
            frame = frame.f_back
        return None


def track_error(service: str, error_type: str) -> None:
    """Count an error of a service by its type."""
    if tracker := Current.tracker():
        tracker.track_error(service, error_type)


def track_feature(name: str) -> None:
    """Count one use of a feature."""
    if tracker := Current.tracker():
        tracker.track_feature(name)


def set_user(user: object) -> None:
    """Count a user as active; only a keyed hash is kept."""
    if tracker := Current.tracker():
        tracker.set_user(user)


def track_openai_call(
    model: str,
    status: str = "success",
    cost: float | None = None,
    *,
    usage: Mapping[str, int] | None = None,
) -> None:
    """Count one OpenAI call; see `Tracker.track_openai_call`."""
    if tracker := Current.tracker():
        tracker.track_openai_call(model, status, cost, usage=usage)


def track_endpoint_metrics(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a sync or async function: its calls are counted and timed as `name`."""
    return functools.partial(_decorate, name, Current.tracker)


def _decorate(
    name: str, tracker: Callable[[], Tracker | None], function: Callable[P, R]
) -> Callable[P, R]:
    @contextmanager
    def timed() -> Iterator[None]:
        start = time.perf_counter()
        outcome = "error"
        try:
            yield
            outcome = "success"
        finally:
            if found := tracker():
                found.call_ended(name, outcome, time.perf_counter() - start)

    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        message = f"track_endpoint_metrics({name!r}) decorates functions, and this is a generator"
        raise ConfigurationError(message)
    called = getattr(function, "__call__", None)  # noqa: B004 - an instance may be awaitable
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called):
        awaited = cast("Callable[P, Awaitable[Any]]", function)

        @functools.wraps(function)
        async def asynchronous(*args: P.args, **kwargs: P.kwargs) -> Any:
            with timed():
                return await awaited(*args, **kwargs)

        return cast("Callable[P, R]", asynchronous)

    @functools.wraps(function)
    def synchronous(*args: P.args, **kwargs: P.kwargs) -> R:
        with timed():
            return function(*args, **kwargs)

    return synchronous
