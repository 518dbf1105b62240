"""What the checks of other services have in common: a time limit, a judgement, an end."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Self

import anyio

from holistic_asgi_monitor.checks.answers import Answers, UnwellError
from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.redaction import Redaction
from holistic_asgi_monitor.settings import Settings

__all__ = ("Probe", "UnansweredError", "seconds_left")

TIMEOUT_SECONDS = 4.0


def seconds_left() -> float:
    """How many seconds the caller of a check gives it; 4 where there is no limit."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    return left if math.isfinite(left) else TIMEOUT_SECONDS


class UnansweredError(Exception):
    """A check's time ran out, by its own clock; its caller, who knows the limit, says so."""


class Probe(Options, ABC):
    """A check of another service, over a network that may do anything.

    The runner calls `unjudged` under its own time limit and asks `unanswered` what to say when
    that has passed; anybody else calls the check itself, which then does the same. `lenient` says
    that nobody asked for this very check in code: what it cannot do here is skipped.
    """

    lenient = False

    @abstractmethod
    async def unjudged(self) -> CheckResult:
        """Probe once; raises `UnwellError` for what is wrong, `UnansweredError` for no answer.

        May be cancelled at any await and must then leave nothing behind: no task, thread or
        connection.
        """

    def unanswered(self, seconds: float) -> UnwellError:
        """What to say when there was no answer within `seconds`."""
        return UnwellError(f"no answer within {seconds:g} s")

    def configured(self, settings: Settings) -> Self:
        """The same check, with the values of `settings` for what it was not given."""
        return self

    async def aclose(self) -> None:
        """Let go of what is kept from one call to the next; it may be called again afterwards."""

    async def __call__(self) -> CheckResult:
        """Probe once, within the check's own timeout or four seconds, and judge."""
        answers = Answers(self.name, Redaction(self.secrets))
        seconds = TIMEOUT_SECONDS if self.timeout is None else self.timeout
        began = time.monotonic()
        answer: CheckResult | None = None
        with anyio.move_on_after(seconds):
            answer = await self._judged(answers)
        if answer is None:
            answer = answers.raised(self.unanswered(seconds), required=self.required)
        if answer.response_time_ms is None and answer.status is not Status.SKIPPED:
            elapsed = (time.monotonic() - began) * 1000
            answer = replace(answer, response_time_ms=round(elapsed, 3))
        return answer

    async def _judged(self, answers: Answers) -> CheckResult | None:
        try:
            return answers.returned(await self.unjudged(), required=self.required)
        except UnansweredError:
            return None
        except Exception as error:
            # Protects the caller: whatever a driver throws is a result.
            return answers.raised(error, required=self.required)
