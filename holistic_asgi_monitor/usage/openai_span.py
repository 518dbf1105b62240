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
from holistic_asgi_monitor.usage.openai_reading import Report, of_answer, of_event, status_of
from holistic_asgi_monitor.usage.prices import Prices
from holistic_asgi_monitor.usage.tracking import Tracker

__all__ = ("Account", "Lost", "Span", "word_for")

_BILLED = frozenset({"success", "abandoned", "cancelled", "connection_error", "timeout"})
"""How a call may end that had begun to be answered, and is therefore paid for."""

_NO_CHOICES = re.compile(r'"choices"\s*:\s*\[\s*\]')


@dataclass(frozen=True, slots=True)
class Account:
    """What one monitor knows of models: their prices and their labels."""

    prices: Prices
    names: Names


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
    """A call of an `operation` at a `host` that is underway; nothing that it does raises.

    `injected` says that the usage of the stream was asked for by us, `reading` that a part of it
    is being waited for, `answered` that OpenAI has begun to answer. `release` undoes what was
    changed for the time of the call.
    """

    __slots__ = (
        "_account",
        "_asked_model",
        "_asked_tier",
        "_began",
        "_done",
        "_ended",
        "_feature",
        "_model",
        "_request",
        "_started_at",
        "_status",
        "_tier",
        "_tracker",
        "_usage",
        "answered",
        "host",
        "injected",
        "operation",
        "reading",
        "release",
    )

    def __init__(
        self, tracker: Tracker, account: Account, operation: Operation, host: str, body: object
    ) -> None:
        self._tracker = tracker
        self._account = account
        self.operation = operation
        self.host = host
        self._asked_model, self._asked_tier = _asked(body)
        self._request, self._feature = tracker.origin()
        self._model: str | None = None
        self._tier = ""
        self._usage: Usage | None = None
        self._status: str | None = None
        self._done = False
        self._ended: float | None = None
        self.injected = self.reading = self.answered = False
        self.release: Callable[[], object] | None = None
        self._started_at, self._began = time.time(), time.perf_counter()

    @property
    def has_usage(self) -> bool:
        """Whether the tokens are known."""
        return self._usage is not None

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
            elif self._model is None or _get(part, "usage") is not None:
                report = of_answer(part, images=self.operation.images)
            else:
                report = None
            if report is not None:
                self.take(report)
        except Exception:
            # As in saw_answer.
            self.fault()
        return self.injected and self._is_extra(part)

    def took_extra(self, event: Any) -> bool:
        """Take in an event of a stream if it is there for its usage alone; whether it was."""
        try:
            data = event.data
            if _NO_CHOICES.search(data) is None:
                return False
            fields = json.loads(data)
            if fields["choices"] or fields.get("usage") is None or fields.get("error"):
                return False
            self.take(of_answer(fields))
        except Exception:
            # What it is instead is for the package to say.
            return False
        return True

    def _is_extra(self, part: Any) -> bool:
        """Whether a part is there for its usage alone; takes an empty usage out of the others."""
        try:
            if _get(part, "usage") is not None:
                return not _get(part, "choices")
            _hide_usage(part)
        except Exception:
            # As in saw_answer.
            self.fault()
        return False

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
        try:
            if self.release is not None:
                self.release()
            self._tracker.openai_call(self._call(status))
        except Exception:
            # Nothing of ours may reach the caller, nor the garbage collector.
            self.fault()

    def _call(self, status: str) -> Call:
        seconds = (self._ended or time.perf_counter()) - self._began
        if self._status is not None and status == "success":
            status = self._status
        cost = self._cost()
        billed = self._usage is not None or (self.answered and status in _BILLED)
        return Call(
            model=self._label(status),
            status=status,
            seconds=seconds,
            usage=self._usage,
            cost=cost,
            priced=cost is not None or not billed,
            endpoint=self._tracker.place(self._request),
            feature=self._feature,
            tier=self._tier or self._asked_tier,
            started_at=self._started_at,
        )

    def _cost(self) -> Decimal | None:
        if self._usage is None:
            return Decimal(0) if self.operation.free and self.answered else None
        return self._account.prices.cost(
            (self._model, self._asked_model),
            self._usage,
            tier=self._tier or self._asked_tier,
            host=self.host,
            at=self._started_at,
        )

    def _label(self, status: str) -> str:
        names = self._account.names
        if self._model is not None or status == "success":
            return names.answered(self._asked_model, self._model)
        return names.failed(self._asked_model)


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


def _asked(body: object) -> tuple[str | None, str]:
    """The model and the tier that a call asks for."""
    if not isinstance(body, dict):
        return None, ""
    model, tier = body.get("model"), body.get("service_tier")
    return model if isinstance(model, str) else None, tier if isinstance(tier, str) else ""


def _get(part: Any, name: str) -> Any:
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _hide_usage(chunk: Any) -> None:
    """Take out the empty usage that comes with each part once usage was asked for."""
    if isinstance(chunk, dict):
        chunk.pop("usage", None)
    else:
        chunk.model_fields_set.discard("usage")
