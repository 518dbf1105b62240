"""One call of OpenAI from its start to its end, however it ends; it is counted once."""

from __future__ import annotations

import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

from holistic_asgi_monitor.checks.openai_faults import outcome
from holistic_asgi_monitor.usage.openai_call import Call, Usage
from holistic_asgi_monitor.usage.openai_names import Names
from holistic_asgi_monitor.usage.openai_operations import Operation
from holistic_asgi_monitor.usage.openai_reading import (
    Figures,
    Report,
    counted,
    fields_of,
    of_answer,
    of_body,
    of_event,
    status_of,
)
from holistic_asgi_monitor.usage.prices import Prices
from holistic_asgi_monitor.usage.tracking import Tracker, Underway

__all__ = ("Account", "Hosts", "Lost", "Span", "word_for")

_BILLED = frozenset({"success", "abandoned", "cancelled", "connection_error", "timeout"})
"""How a call may end that had begun to be answered, and is therefore paid for."""

_HOSTS_LIMIT = 100
_NO_CHOICES = re.compile(r'"choices"\s*:\s*\[\s*\]')
_USAGE_ALONE = re.compile(r'\{[^{}\[\]\\]*"choices"\s*:\s*\[\s*\][^{}\[\]\\]*"usage"\s*:\s*\{\s*"')
"""The usual event that is there for its usage alone: before the usage there is nothing nested, and
no text with a quote in it, so that both keys are the event's own. Others are parsed to find out."""
_KEPT_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Account:
    """What one monitor knows of models: their prices, their labels, and where they are asked."""

    prices: Prices
    names: Names
    hosts: Hosts


class Hosts:
    """What the base URLs of clients lead to, which takes such a URL long to say."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}

    def at(self, url: Any) -> str:
        """The host, with the port where one is given."""
        known = self._known.get(id(url))
        if known is not None and known[0] is url:
            return known[1]
        if len(self._known) >= _HOSTS_LIMIT:
            self._known.clear()
        host: str = url.netloc.decode().lower()
        self._known[id(url)] = url, host
        return host


class Lost:
    """Calls whose answers were closed or thrown away before their end.

    The garbage collector does both at any moment, also while this thread holds a lock that
    counting needs, so they are only noted then, and counted when somebody calls `settle`.
    """

    _waiting: ClassVar[deque[Callable[[], object]]] = deque()

    @classmethod
    def note(cls, count: Callable[[], object]) -> None:
        """Have `count` called later."""
        cls._waiting.append(count)

    @classmethod
    def settle(cls) -> None:
        """Count those that were lost."""
        while cls._waiting:
            try:
                count = cls._waiting.popleft()
            except IndexError:
                # Another thread was quicker.
                return
            count()


class Span:
    """A call of an `operation` at a `url` that is underway, and then `call`, as it is counted.

    Nothing that it does while somebody waits raises. `injected` says that the usage of the stream
    was asked for by us, `reading` that a part of it is being waited for, `answered` that OpenAI has
    begun to answer. `release` undoes what was changed for the time of the call.
    """

    __slots__ = (
        "_account",
        "_asked_model",
        "_asked_tier",
        "_began",
        "_done",
        "_ended",
        "_extra",
        "_feature",
        "_model",
        "_place",
        "_request",
        "_started_at",
        "_status",
        "_tier",
        "_tracker",
        "_url",
        "_usage",
        "answered",
        "injected",
        "operation",
        "reading",
        "release",
    )

    def __init__(
        self,
        tracker: Tracker,
        account: Account,
        operation: Operation,
        *,
        url: object,
        body: object,
        request: Underway | None,
        feature: str,
    ) -> None:
        self._tracker = tracker
        self._account = account
        self.operation = operation
        self._url = url
        asked = body if isinstance(body, dict) else {}
        self._asked_model, self._asked_tier = asked.get("model"), asked.get("service_tier")
        self._request, self._feature = request, feature
        self._place = ""
        self._model: str | None = None
        self._tier = ""
        self._usage: Figures | None = None
        self._extra = ""
        self._status: str | None = None
        self._done = False
        self._ended: float | None = None
        self.injected = self.reading = self.answered = False
        self.release: Callable[[], object] | None = None
        self._started_at, self._began = time.time(), time.perf_counter()

    @property
    def host(self) -> str:
        """Where it goes, with the port where one is given."""
        return self._account.hosts.at(self._url)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._done

    @property
    def has_usage(self) -> bool:
        """Whether the tokens are known."""
        return self._usage is not None or self._extra != ""

    def fault(self) -> None:
        """Note that something of ours failed."""
        self._tracker.fault("openai")

    def saw_answer(self, answer: object) -> None:
        """Take in a whole answer."""
        try:
            self.take(of_answer(answer, images=self.operation.images))
        except Exception:
            # The answer is its receiver's, whatever it is made of.
            self.fault()

    def saw(self, part: Any) -> bool:
        """Take in a part of a stream; whether it is one that only we have asked for."""
        try:
            if self.operation.events:
                report = of_event(part)
                if report is not None:
                    self.take(report)
                return False
            fields = fields_of(part)
            if fields.get("usage") is not None:
                self.take(of_answer(fields, images=self.operation.images))
                return self.injected and not fields.get("choices")
            if self._model is None:
                # The first part of Azure's has an empty one.
                self._model = _text(fields.get("model")) or None
                self._tier = self._tier or _text(fields.get("service_tier")) or ""
            if self.injected:
                _hide_usage(part)
        except Exception:
            # As in saw_answer.
            self.fault()
        return False

    def took_extra(self, event: Any) -> bool:
        """Take in an event of a stream if it is there for its usage alone; whether it was."""
        try:
            data = event.data
            if _NO_CHOICES.search(data) is None:
                return False
            if self._usage is None and _is_usual(data):
                self._extra = data
                return True
            fields = json.loads(data)
            if fields["choices"] != [] or fields.get("usage") is None or fields.get("error"):
                return False
            self.take(of_answer(fields))
        except Exception:
            # What it is instead is for the package to say.
            return False
        return True

    def take(self, report: Report) -> None:
        """Keep what an answer says of itself."""
        self.answered = True
        self._model = report.model or self._model
        self._tier = report.tier or self._tier
        self._usage = report.usage or self._usage
        self._status = report.status or self._status

    def failed(self, error: BaseException) -> None:
        """End with an exception, which may only concern what is made of a good answer."""
        try:
            word = word_for(error)
        except Exception:
            # Protects the exception, which goes on its way.
            self.fault()
            word = "bad_request"
        # `parse` refuses answers that do not fit, and these are paid for.
        self.finish("success" if self.has_usage and word == "bad_request" else word)

    def lost(self, count: Callable[[], object]) -> None:
        """Have `count` end this later, with the duration that it has now."""
        if not self._done:
            self._ended = self._ended or time.perf_counter()
            Lost.note(count)

    def finish(self, status: str = "success") -> None:
        """End, as far as it has not ended; an answer that says that it failed knows better."""
        if self._done:
            return
        self._done = True
        if self._ended is None:
            self._ended = time.perf_counter()
        if status != "success" or self._status is None:
            self._status = status
        try:
            release, self.release = self.release, None
            if release is not None:
                release()
            request, self._request = self._request, None
            self._place = self._tracker.place(request)
            self._tracker.openai_ended(self._status, self.call)
        except Exception:
            # Nothing of ours may reach the caller, nor the garbage collector.
            self.fault()

    def call(self) -> Call:
        """What is counted, once it has ended; this takes longer than all the rest."""
        if self._extra and self._usage is None:
            self.take(of_body(self._extra))
        status, ended = str(self._status), self._ended or self._began
        asked = _text(self._asked_model)
        tier = self._tier or _text(self._asked_tier) or ""
        usage = None if self._usage is None else counted(self._usage)
        cost = self._cost(usage, asked, tier)
        billed = usage is not None or (self.answered and status in _BILLED)
        return Call(
            model=self._label(status, asked),
            status=status,
            seconds=ended - self._began,
            usage=usage,
            cost=cost,
            priced=cost is not None or not billed,
            endpoint=self._place,
            feature=self._feature,
            tier=tier,
            started_at=self._started_at,
        )

    def _cost(self, usage: Usage | None, asked: str | None, tier: str) -> Decimal | None:
        if usage is None:
            return Decimal(0) if self.operation.free and self.answered else None
        return self._account.prices.cost(
            (self._model, asked),
            usage,
            tier=tier,
            host=self.host,
            at=self._started_at,
        )

    def _label(self, status: str, asked: str | None) -> str:
        names = self._account.names
        if self._model is not None or status == "success":
            return names.answered(asked, self._model)
        return names.failed(asked)


def word_for(error: BaseException) -> str:
    """The status of openai_calls_total for a call that ended with `error`."""
    import openai

    if not isinstance(error, Exception):
        return "abandoned" if isinstance(error, GeneratorExit) else "cancelled"
    word = outcome(error)
    if word is not None:
        return word
    if isinstance(error, openai.APIError):
        return status_of(error.code, error.type)
    # Below 3, a stream that breaks off raises what httpx does; its classes are told by name.
    names = {kind.__name__ for kind in type(error).__mro__}
    if "TransportError" in names:
        return "timeout" if "TimeoutException" in names else "connection_error"
    # Whatever else is raised, OpenAI was never reached, or its answer did not please.
    return "bad_request"


def _is_usual(event: str) -> bool:
    """Whether an event needs no parsing to tell that it is there for its usage alone."""
    alone = _USAGE_ALONE.match(event) is not None
    return alone and '"error"' not in event and len(event) <= _KEPT_LENGTH


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _hide_usage(chunk: Any) -> None:
    """Take out the empty usage that comes with each part once usage was asked for."""
    if isinstance(chunk, dict):
        chunk.pop("usage", None)
    else:
        chunk.model_fields_set.discard("usage")
