"""From what a call of a check returned or raised to its result."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from traceback import walk_tb
from typing import Any, Protocol, runtime_checkable

from holistic_asgi_monitor.model import CheckResult, MonitorError, Status
from holistic_asgi_monitor.plain import plain_details, shortened
from holistic_asgi_monitor.redaction import Redaction

__all__ = ("Answers", "Unjudged", "UnwellError", "failure")

_logger = logging.getLogger("holistic_asgi_monitor")

_ALLOWED = "allowed are None, True, False, a Status or a CheckResult"
_HERE = str(Path(__file__).parent)
_TRAIL_FRAMES = 3
LONGEST_MESSAGE = 1_000


@runtime_checkable
class Unjudged(Protocol):
    """A check that can leave the judgement to its runner, who knows whether it is required."""

    async def unjudged(self) -> object:
        """Call once, and return or raise what the user's function does."""
        ...


class UnwellError(MonitorError):
    """What a check of ours found wrong: one safe sentence, how bad it is, and JSON values.

    Without a `status` it is as grave as the check is needed: critical if required, else degraded.
    """

    def __init__(
        self,
        sentence: str,
        *,
        status: Status | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        self.details = details or {}


def failure(*, required: bool) -> Status:
    """The status of a check that gave no good answer."""
    return Status.CRITICAL if required else Status.DEGRADED


class Answers:
    """Judges what the calls of the check `name` give.

    No text of an exception is passed on: it may hold a secret. Its type goes into the result, and
    with the place where it was raised into the log, once until something else happens. Whatever a
    check says itself passes through `redaction`.
    """

    def __init__(self, name: str, redaction: Redaction | None = None) -> None:
        self._name = name
        self.redaction = Redaction() if redaction is None else redaction
        self._logged: tuple[str, str] | None = None

    def returned(self, value: object, *, required: bool) -> CheckResult:
        """The result of a call that returned `value`."""
        self._logged = None
        if value is None or value is True:
            return CheckResult(Status.HEALTHY, f"{self._name} is healthy")
        if value is False:
            return CheckResult(failure(required=required), f"{self._name} returned False")
        if isinstance(value, Status):
            return CheckResult(value, f"{self._name} is {value.value}")
        if isinstance(value, CheckResult):
            return self._checked(value)
        return self._refused(f"{_a(value)}; {_ALLOWED}")

    def raised(self, error: BaseException, *, required: bool) -> CheckResult:
        """The result of a call that raised `error`."""
        error = _innermost(error)
        if isinstance(error, UnwellError):
            return self._unwell(error, required=required)
        kind = type(error).__name__
        self._log(kind, " > ".join(_trail(error)))
        return CheckResult(failure(required=required), f"{self._name} raised {kind}")

    def _unwell(self, error: UnwellError, *, required: bool) -> CheckResult:
        status = error.status or failure(required=required)
        result = self._checked(CheckResult(status, str(error), error.details))
        cause = error.__cause__
        if cause is not None:
            self._log(type(cause).__name__, " > ".join(_trail(cause)))
        return result

    def hanging(self, since: datetime, *, required: bool) -> CheckResult:
        """The result where the call before has not returned; it began at `since`."""
        sentence = f"still running since {since:%Y-%m-%d %H:%M:%S} UTC, so not started again"
        return CheckResult(failure(required=required), sentence)

    def _checked(self, result: CheckResult) -> CheckResult:
        """`result` with details that are JSON values; a wrong field makes it a refused answer."""
        allowed = {"status": Status, "message": str, "details": Mapping}
        for field, kind in allowed.items():
            value = getattr(result, field)
            if not isinstance(value, kind):
                return self._refused(
                    f"a CheckResult whose {field} is {_a(value)}; allowed is a {kind.__name__}"
                )
        plain = replace(
            result,
            message=shortened(result.message, LONGEST_MESSAGE),
            details=plain_details(result.details),
            response_time_ms=_milliseconds(result.response_time_ms),
        )
        return self.redaction.result(plain)

    def _refused(self, what: str) -> CheckResult:
        return CheckResult(Status.DEGRADED, f"{self._name} returned {what}")

    def _log(self, kind: str, trail: str) -> None:
        if self._logged != (kind, trail):
            self._logged = (kind, trail)
            _logger.warning("The check %s raised %s at %s", self._name, kind, trail or "its call")


def _a(value: object) -> str:
    """The kind of `value`, for a sentence."""
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"


def _innermost(error: BaseException) -> BaseException:
    """What a group holds where it holds one thing only."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _trail(error: BaseException) -> Iterator[str]:
    """File and line of the last frames that `error` came through, ours left out."""
    places = [
        (Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)
    ]
    theirs = [f"{file.name}:{line}" for file, line in places if str(file.parent) != _HERE]
    yield from theirs[-_TRAIL_FRAMES:]


def _milliseconds(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
