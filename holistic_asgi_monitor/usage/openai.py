"""Sees every call of the `openai` package, by the one method that all of them pass.

`SyncAPIClient.request` and `AsyncAPIClient.request` are called once for each call of the
application, with the retries inside, whatever client, resource or helper it uses. They are
replaced once in a process, however many monitors want it, and put back with the last of them.
Whatever goes wrong here, the application's call goes through as if nobody watched.
"""

from __future__ import annotations

import inspect
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache, wraps
from typing import Any, ClassVar

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.usage.openai_arrival import Arrival
from holistic_asgi_monitor.usage.openai_names import Names
from holistic_asgi_monitor.usage.openai_operations import operation_at
from holistic_asgi_monitor.usage.openai_span import Account, Hosts, Lost, Span
from holistic_asgi_monitor.usage.openai_streams import watch_answer
from holistic_asgi_monitor.usage.prices import Override, Prices
from holistic_asgi_monitor.usage.tracking import Current, Tracker

__all__ = ("OpenAITracking", "base_of")

_logger = logging.getLogger("holistic_asgi_monitor")

MODULE = "openai._base_client"
_CLASSES = ("SyncAPIClient", "AsyncAPIClient")
_RAW_HEADER = "x-stainless-raw-response"
_FIRST_AZURE_VERSION = "2024-09-01"
_REFUSALS = frozenset({400, 422})
_HOSTS_LIMIT = 100


class OpenAITracking:
    """What one monitor does to see the calls of OpenAI; `attached` once it does.

    `overrides` are the user's prices. Where `openai` is not imported yet, it waits for that.
    """

    def __init__(self, tracker: Tracker, overrides: Mapping[str, Override]) -> None:
        self._tracker = weakref.ref(tracker)
        prices = Prices(overrides)
        self._account = Account(prices, Names(prices.knows), Hosts())

    @property
    def attached(self) -> bool:
        """Whether calls are seen."""
        tracker = self._tracker()
        return tracker is not None and Hook.serves(tracker)

    def begin(self) -> None:
        """See calls from now on, or from when the application imports `openai`."""
        tracker = self._tracker()
        if tracker is not None:
            Hook.join(tracker, self._account)

    def settle(self) -> None:
        """Count the calls that have ended, however; to be called now and then."""
        Lost.settle()
        Hook.look()
        if (tracker := self._tracker()) is not None:
            tracker.tally.settle()

    def end(self) -> None:
        """See calls no more."""
        Lost.settle()
        tracker = self._tracker()
        if tracker is not None:
            Hook.leave(tracker)


class Hook:
    """The replaced methods, and the monitors that want to know of calls."""

    _members: ClassVar[weakref.WeakSet[Tracker]] = weakref.WeakSet()
    _arrival: ClassVar[Arrival | None] = None
    _replaced: ClassVar[dict[type, tuple[Any, Any]]] = {}
    _attached: ClassVar[bool] = False
    _warned: ClassVar[bool] = False
    _refusing: ClassVar[set[str]] = set()
    _lock: ClassVar[threading.RLock] = threading.RLock()

    @classmethod
    def join(cls, tracker: Tracker, account: Account) -> None:
        """Tell `tracker` of calls; never raises."""
        with cls._lock:
            if tracker not in cls._members:
                weakref.finalize(tracker, cls._orphaned).atexit = False
            cls._members.add(tracker)
            tracker.account = account
            if hasattr(sys.modules.get(MODULE), _CLASSES[-1]):
                cls._attach()
            elif cls._arrival is None:
                cls._arrival = Arrival(MODULE, cls._attach)
                cls._arrival.await_it()

    @classmethod
    def leave(cls, tracker: Tracker) -> None:
        """Tell `tracker` no more; with the last one, everything is as it was."""
        with cls._lock:
            cls._members.discard(tracker)
            tracker.account = None
            cls._let_go()

    @classmethod
    def look(cls) -> None:
        """Attach where an import was not noticed: one that had begun already, for example."""
        if cls._arrival is not None and hasattr(sys.modules.get(MODULE), _CLASSES[-1]):
            cls._attach()

    @classmethod
    def serves(cls, tracker: Tracker) -> bool:
        """Whether calls are seen, and told to `tracker`."""
        return cls._attached and tracker in cls._members

    @classmethod
    def _attach(cls) -> None:
        with cls._lock:
            if cls._arrival is not None:
                cls._arrival.give_up()
                cls._arrival = None
            try:
                for tracker in list(cls._members):
                    if tracker.account is not None:
                        tracker.account.prices.load()
                if not cls._attached:
                    cls._replace(sys.modules[MODULE])
                    cls._attached = True
                    # Calls will ask, and from a worker thread only what is carried is found.
                    Current.carry()
            except Exception as error:
                # The application does without being tracked.
                cls._put_back()
                cls._warn(error)

    @classmethod
    def _replace(cls, module: Any) -> None:
        _demand_known(module)
        for kind in [getattr(module, name) for name in _CLASSES]:
            held = cls._replaced.get(kind)
            if held is not None and kind.request is not held[0]:
                # Somebody has wrapped ours, which therefore stayed in its place.
                continue
            original = vars(kind)["request"]
            ours = _watching(original)
            kind.request = ours
            cls._replaced[kind] = original, ours

    @classmethod
    def _orphaned(cls) -> None:
        """Let go where a monitor has been thrown away; the collector may not wait for a lock."""
        if cls._lock.acquire(blocking=False):
            try:
                cls._let_go()
            finally:
                cls._lock.release()

    @classmethod
    def _let_go(cls) -> None:
        with cls._lock:
            # Listed, since one that has died may still be counted.
            if list(cls._members):
                return
            if cls._arrival is not None:
                cls._arrival.give_up()
                cls._arrival = None
            cls._put_back()
            cls._warned = False

    @classmethod
    def _put_back(cls) -> None:
        cls._attached = False
        for kind, (original, ours) in list(cls._replaced.items()):
            # Where somebody has wrapped ours, taking it out would take out his as well.
            if vars(kind).get("request") is ours:
                kind.request = original  # type: ignore[attr-defined]  # a class of openai's
                del cls._replaced[kind]

    @classmethod
    def _warn(cls, error: Exception) -> None:
        if not cls._warned:
            cls._warned = True
            _logger.warning(
                "OpenAI calls are not tracked, since this version of the openai package is not "
                "built as expected (%s); track_openai_call counts them all the same",
                described(error),
            )

    @classmethod
    def may_ask_usage(cls, span: Span) -> bool:
        """Whether a host has not refused the option that asks for the usage of a stream."""
        return not cls._refusing or span.host not in cls._refusing

    @classmethod
    def refused(cls, host: str) -> None:
        """Note that a host refuses that option."""
        if len(cls._refusing) < _HOSTS_LIMIT:
            cls._refusing.add(host)


def base_of(client: Any) -> Any:
    """The URL that a client sends its calls to."""
    # The property imports something each time.
    kind: Any = type(client)
    return (_asks_nobody(kind) and vars(client).get("_base_url")) or client.base_url


@lru_cache(maxsize=_HOSTS_LIMIT)
def _asks_nobody(kind: type) -> bool:
    """Whether the base URL of such a client is what it keeps: some say a new one at any time."""
    says = getattr(getattr(kind, "base_url", None), "fget", None)
    return getattr(says, "__module__", "").startswith("openai._")


def _demand_known(module: Any) -> None:
    """Raise TypeError where streams are not as expected: what we ask for must be taken out."""
    for step in (module.Stream.__next__, module.AsyncStream.__anext__):
        if "_iterator" not in step.__code__.co_names:
            raise TypeError("streams keep no _iterator")


def _watching(original: Callable[..., Any]) -> Callable[..., Any]:
    """The method that stands in for `original`; TypeError where that is not as expected."""
    if "options" not in inspect.signature(original).parameters:
        raise TypeError("request has no parameter options")
    return _asynchronous(original) if inspect.iscoroutinefunction(original) else _plain(original)


def _plain(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def request(client: Any, *args: Any, **kwargs: Any) -> Any:
        span, asked, options = _begun(client, args, kwargs)
        if span is None:
            return original(client, *args, **kwargs)
        try:
            answer = original(client, *asked, **options)
        except BaseException as error:
            if not _again(span, error):
                span.failed(error)
                raise
        else:
            return watch_answer(span, answer)
        return watch_answer(span, _second(span, original, client, args, kwargs))

    return request


def _second(span: Span, original: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
    """The call as the application made it."""
    try:
        return original(client, *args, **kwargs)
    except BaseException as error:
        span.failed(error)
        raise


def _asynchronous(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    async def request(client: Any, *args: Any, **kwargs: Any) -> Any:
        span, asked, options = _begun(client, args, kwargs)
        if span is None:
            return await original(client, *args, **kwargs)
        try:
            answer = await original(client, *asked, **options)
        except BaseException as error:
            if not _again(span, error):
                span.failed(error)
                raise
        else:
            return watch_answer(span, answer)
        try:
            answer = await original(client, *args, **kwargs)
        except BaseException as error:
            span.failed(error)
            raise
        return watch_answer(span, answer)

    return request


def _begun(
    client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Span | None, tuple[Any, ...], dict[str, Any]]:
    """A span, where the call is to be counted, and the arguments to go on with; never raises."""
    try:
        options = kwargs["options"] if "options" in kwargs else args[1]
        operation = operation_at(str(options.url))
        # The check's own calls are none of these either.
        if operation is None or options.method.lower() != "post":
            return None, args, kwargs
        Lost.settle()
        tracker, request, feature = Current.origin()
        if tracker is None or tracker.account is None:
            return None, args, kwargs
        span = Span(
            tracker,
            tracker.account,
            operation,
            url=base_of(client),
            body=options.json_data,
            request=request,
            feature=feature,
        )
        if operation.chat and kwargs.get("stream"):
            span.injected = _lacks_usage(client, options, span)
        if not span.injected and not callable(options.post_parser):
            return span, args, kwargs
        changed = _changed(options, span)
        if "options" in kwargs:
            return span, args, {**kwargs, "options": changed}
        return span, (args[0], changed, *args[2:]), kwargs
    except Exception:
        # The call is made all the same, and nobody counts it.
        _fault()
        return None, args, kwargs


def _changed(options: Any, span: Span) -> Any:
    """The options, asking for the usage of a stream, and showing an answer before it is parsed."""
    changed, parse = copy(options), options.post_parser
    # Set as the fields that they are: the setters of such an object take long.
    fields = vars(changed)
    if span.injected:
        asked = dict(options.json_data.get("stream_options") or {}, include_usage=True)
        fields["json_data"] = {**options.json_data, "stream_options": asked}
    if callable(parse):

        def parsing(answer: Any) -> Any:
            span.saw_answer(answer)
            return parse(answer)

        fields["post_parser"] = parsing
    return changed


def _fault() -> None:
    tracker = Current.tracker()
    if tracker is not None:
        tracker.fault("openai")


def _lacks_usage(client: Any, options: Any, span: Span) -> bool:
    """Whether this is a stream that will not say its usage, and may be asked to.

    Who reads the stream raw would see what comes in addition, so raw ones are left as they are.
    """
    body, more = options.json_data, options.extra_json
    if not isinstance(body, dict) or body.get("stream") is not True:
        return False
    if "include_usage" in (body.get("stream_options") or {}):
        return False
    if more and isinstance(more, Mapping) and "stream_options" in more:
        return False
    headers = options.headers
    if headers and isinstance(headers, Mapping) and _asks_raw(headers):
        return False
    version = getattr(client, "_api_version", None)
    old = isinstance(version, str) and version[:1].isdigit() and version < _FIRST_AZURE_VERSION
    return not old and Hook.may_ask_usage(span)


def _asks_raw(headers: Mapping[Any, Any]) -> bool:
    return any(str(name).lower() == _RAW_HEADER for name in headers)


def _again(span: Span, error: BaseException) -> bool:
    """Whether a call failed only because we asked for its usage; never raises."""
    try:
        if not span.injected or getattr(error, "status_code", None) not in _REFUSALS:
            return False
        if "stream_options" not in f"{error} {getattr(error, 'body', '')}":
            return False
        span.injected = False
        Hook.refused(span.host)
        return True
    except Exception:
        # The error goes to the caller as it is.
        span.fault()
        return False
