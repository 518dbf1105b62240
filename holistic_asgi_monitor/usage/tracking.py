"""What the application tells the monitor by itself: errors, features, users, calls, OpenAI."""

from __future__ import annotations

import functools
import inspect
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from decimal import Decimal
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, cast

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.series import OTHER
from holistic_asgi_monitor.metrics.text import safe_label
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.usage.activity import Activity
from holistic_asgi_monitor.usage.openai_call import MOST, OPENAI_OUTCOMES, Call, Usage
from holistic_asgi_monitor.usage.openai_tally import Tally

if TYPE_CHECKING:
    from holistic_asgi_monitor.usage.openai_span import Account

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


class Way(Protocol):
    """What the requests of one monitor have in common."""

    @property
    def tracker(self) -> Tracker:
        """The monitor's tracker."""
        ...


class Underway(Protocol):
    """A request that is being served."""

    visit: Visit
    """What is known of its user; not set before anybody has told something."""

    @property
    def paths(self) -> Way:
        """Its way through the monitor."""
        ...


class Visit:
    """Who makes a request, and the features that were used in it before that was known.

    `feature` is the one named last.
    """

    __slots__ = ("feature", "features", "user")

    def __init__(self) -> None:
        self.feature = ""
        self.user: bytes | None = None
        self.features: set[str] = set()


class Tracker:
    """Takes in what the application reports; a wrong argument is never the application's error.

    `fault` is told which part of ours failed; `endpoint` says which label a request has. The
    `tally` counts calls of OpenAI, with the `account` while they are seen. The `listeners` get the
    status of each of them, in whatever thread it ended, and `feature_listeners` the name of each
    feature that is used.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        activity: Activity,
        *,
        fault: Callable[[str], None],
        endpoint: Callable[[Any], str] = lambda _: "",
    ) -> None:
        self._catalogue = catalogue
        self._activity = activity
        self._endpoint = endpoint
        self._beginning = threading.Lock()
        self.fault = fault
        self.tally = Tally(catalogue, fault)
        self.account: Account | None = None
        self.listeners: list[Callable[[str], object]] = []
        self.feature_listeners: list[Callable[[str], object]] = []

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
        """Count one use of a feature; a name that is empty is none."""
        # In history an empty one stands for the whole service.
        if name is None or name == "":
            return
        with self._guarded():
            (feature,) = self._catalogue.feature_uses.inc(str(name))
            request = Current.underway()
            Current.company.named = True
            Current.feature.set((request, feature))
            for listener in self.feature_listeners:
                listener(feature)
            self._used(request, feature)

    def set_user(self, user: object) -> None:
        """Count a user as active; only a keyed hash is kept."""
        with self._guarded():
            self._found(Current.underway(), user, begin=True)

    def found_user(self, request: Underway, user: object) -> None:
        """Count the user of a request that is over, and as a user of the features used in it."""
        # What runs on after it uses features of his only where requests are carried along.
        self._found(request, user, begin=Current.company.asked)

    def _found(self, request: Underway | None, user: object, *, begin: bool) -> None:
        """Count a user, who is also the one who uses what follows in his request."""
        found = self._activity.hashed(user)
        if found is None:
            return
        self._activity.note(found)
        visit = self._visit(request, begin=begin)
        if visit is not None:
            features, visit.features, visit.user = visit.features, set(), found
            for feature in tuple(features):
                self._activity.note(found, feature)

    def _used(self, request: Underway | None, feature: str) -> None:
        visit = self._visit(request, begin=True)
        if visit is None:
            return
        visit.feature = feature
        if visit.user is None:
            visit.features.add(feature)
        # It may have become known meanwhile, in another thread.
        if visit.user is not None:
            self._activity.note(visit.user, feature)

    def _visit(self, request: Underway | None, *, begin: bool) -> Visit | None:
        """What is known of the user of a request; None where it is none of ours."""
        if request is None or request.paths.tracker is not self:
            return None
        with self._beginning:
            visit: Visit | None = getattr(request, "visit", None)
            if visit is None and begin:
                visit = request.visit = Visit()
        return visit

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
            _, request, feature = Current.origin()
            dollars = _dollars(cost)
            call = Call(
                model=str(model),
                status=status if status in OPENAI_OUTCOMES else OTHER,
                seconds=None,
                usage=None if usage is None else _usage(usage),
                cost=dollars,
                priced=dollars is not None or status != "success",
                endpoint=self.place(request),
                feature=feature,
                tier="",
                started_at=time.time(),
            )
            self.openai_ended(call.status, lambda: call)

    def openai_ended(self, status: str, call: Callable[[], Call]) -> None:
        """Tell the listeners that an OpenAI call has ended, and have `call` counted before long."""
        self.tally.note(call)
        for listener in self.listeners:
            try:
                listener(status)
            except Exception:
                # What one of them does wrong is neither the caller's nor the others' affair.
                self.fault("tracking")

    def place(self, request: Underway | None) -> str:
        """The endpoint of a request, empty where there is none."""
        return "" if request is None else self._endpoint(request)

    def track_endpoint_metrics(self, name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Decorate a sync or async function: its calls are counted and timed as `name`."""
        return _decorator(name, lambda: self)

    def call_ended(self, name: str, outcome: str, seconds: float) -> None:
        """Count one call of a decorated function."""
        with self._guarded():
            self._catalogue.calls.inc(name, outcome)
            self._catalogue.call_duration.observe(seconds, name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            # A wrong argument, or a fault of ours, must not break the function that reports.
            self.fault("tracking")


@dataclass(slots=True)
class Company:
    """What the monitors of a process have in common.

    `several` monitors mean that requests must show whose they are; `asked` says that somebody
    wanted to know which request he is in, which until then nobody misses. The first ones are
    carried in any case, `early` more of them; `missed` says that some after these were not.
    `noting` says that there is something to be done for a request, as always where there are
    `several`; `named` that there ever was a feature. While they are `resting`, none of them begins
    to watch.
    """

    several: bool = False
    asked: bool = False
    early: int = 1000
    missed: bool = False
    named: bool = False
    noting: bool = True
    resting: bool = False

    @property
    def searches(self) -> bool:
        """Whether a request that is not carried here may be on the stack.

        That takes a while: so not for one that runs its code in a context of its own, as long as
        all have the same monitor.
        """
        return self.missed or self.several

    def carries(self) -> bool:
        """Whether a request that begins is to carry itself along."""
        if not self.asked and self.early > 0:
            self.early -= 1
            self.noting = self.early > 0 or self.several
            return True
        return self.asked


class Current:
    """Which tracker the functions below act on: the request's, else the one started last."""

    request: ClassVar[ContextVar[Underway | None]] = ContextVar(
        "holistic_asgi_monitor", default=None
    )
    feature: ClassVar[ContextVar[tuple[Underway | None, str] | None]] = ContextVar(
        "holistic_asgi_monitor_feature", default=None
    )
    company: ClassVar[Company] = Company()
    entrance: ClassVar[CodeType | None] = None
    """The code that serves requests, where each of them is the variable `exchange`."""

    _living: ClassVar[weakref.WeakSet[Tracker]] = weakref.WeakSet()
    _last: ClassVar[weakref.ref[Tracker] | None] = None

    @classmethod
    def born(cls, tracker: Tracker) -> None:
        """Note that there is a tracker."""
        cls._living.add(tracker)
        if cls._latest() is None:
            cls._last = weakref.ref(tracker)
        company = cls.company
        company.several = company.several or len(cls._living) > 1
        company.noting = company.noting or company.several

    @classmethod
    def started(cls, tracker: Tracker) -> None:
        """Make `tracker` the one that was started last."""
        cls._last = weakref.ref(tracker)

    @classmethod
    def tracker(cls) -> Tracker | None:
        """The tracker to act on, or None where no monitor has been started."""
        request = cls.underway() if cls.company.several else cls.request.get()
        return cls._latest() if request is None else request.paths.tracker

    @classmethod
    def origin(cls) -> tuple[Tracker | None, Underway | None, str]:
        """The tracker to act on, and where this is called: in which request and which feature.

        That is the one named last in this task or thread, else in another one of the request, as
        a dependency or the endpoint itself is where Starlette calls it in a thread.
        """
        request = cls.underway()
        tracker = cls._latest() if request is None else request.paths.tracker
        if not cls.company.named:
            return tracker, request, ""
        named = cls.feature.get()
        if named is not None and named[0] is request:
            return tracker, request, named[1]
        visit: Visit | None = getattr(request, "visit", None)
        return tracker, request, "" if visit is None else visit.feature

    @classmethod
    def underway(cls) -> Underway | None:
        """The request that is being served here, in this task or thread, or one it came from.

        From the first time that somebody asks, requests carry themselves along; those that came
        before are found where they are on the stack.
        """
        request = cls.request.get()
        if not cls.company.asked:
            cls.carry()
        if request is None and cls.company.searches:
            return cls._on_the_stack()
        return request

    @classmethod
    def carry(cls) -> None:
        """Have requests carry themselves along from now on."""
        company = cls.company
        if not company.asked:
            company.missed = company.early <= 0
        company.asked = company.noting = True

    @classmethod
    def leave(cls, token: Token[Underway | None]) -> None:
        """Carry a request no longer; never raises."""
        try:
            cls.request.reset(token)
        except ValueError:
            # Whoever drives the request has gone on in another context, and there it is not.
            return

    @classmethod
    def _latest(cls) -> Tracker | None:
        return cls._last() if cls._last is not None else None

    @classmethod
    def _on_the_stack(cls) -> Underway | None:
        """The request that is being served by a caller of this, before requests are carried."""
        frame, entrance = inspect.currentframe(), cls.entrance
        while frame is not None:
            if frame.f_code is entrance:
                request: Underway | None = frame.f_locals.get("exchange")
                # Before it is made, a caller further out may be serving another one.
                if request is not None:
                    return request
            frame = frame.f_back
        return None


def _dollars(cost: Any) -> Decimal | None:
    """The cost of a call; None where there is none, or where it cannot be one."""
    try:
        dollars = Decimal(str(float(cost)))
    except (OverflowError, TypeError, ValueError):
        return None
    return dollars if dollars.is_finite() and 0 <= dollars <= MOST else None


def _usage(numbers: Mapping[str, int]) -> Usage | None:
    """The tokens of a call; None where they cannot be read, which is no reason to lose the call."""
    kinds = ("input", "output", "cached", "reasoning")
    try:
        counts = {kind: max(0, int(numbers.get(kind) or 0)) for kind in kinds}
    except (AttributeError, OverflowError, TypeError, ValueError):
        return None
    return Usage(**counts) if max(counts.values()) <= MOST else None


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
    return _decorator(name, Current.tracker)


def _decorator(
    name: str, tracker: Callable[[], Tracker | None]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    if callable(name):
        raise ConfigurationError(
            "track_endpoint_metrics is given a function without a name; "
            'write @track_endpoint_metrics("checkout")'
        )
    return functools.partial(_decorate, name, tracker)


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

    given: object = function
    if not callable(given):
        message = f"track_endpoint_metrics({name!r}) decorates functions, not {given!r:.80}"
        raise ConfigurationError(message)
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
