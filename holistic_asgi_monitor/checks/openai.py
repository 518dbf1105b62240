"""The check of OpenAI, or of a server that speaks like it: network, server and key.

The list of models costs nothing and proves these three; a used-up quota shows in real calls only,
so what those saw joins in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.loops import StillRunningError
from holistic_asgi_monitor.checks.network import hideable
from holistic_asgi_monitor.checks.openai_calls import RealCalls
from holistic_asgi_monitor.checks.openai_client import Line, lent, own
from holistic_asgi_monitor.checks.openai_faults import hides_models, silent, unwell
from holistic_asgi_monitor.checks.per_loop import Sharing
from holistic_asgi_monitor.checks.probe import TIMEOUT_SECONDS, Probe
from holistic_asgi_monitor.model import CheckResult, MissingExtraError, Status
from holistic_asgi_monitor.settings import Settings

if TYPE_CHECKING:
    import openai

__all__ = ("OpenAI",)

_Found = tuple[CheckResult, Exception | None]

INTERVAL_SECONDS = 60.0
# Rounds come a tenth earlier or later, and each of them is to ask.
KEPT_SECONDS = 50.0


class OpenAI(Probe):
    """Asks OpenAI for its models, once a minute, and joins what real calls saw.

    `client` is an async or a sync client of the `openai` package, which stays its owner's;
    without one, the check makes its own for `api_key` and `base_url`, else for those of the
    settings or the environment; without any key it is skipped. A rejected key and a used-up quota
    are critical, everything else that goes wrong is degraded, also where it is `required`: that
    OpenAI has a bad minute is no reason to take the app out of service.

    A healthy result is kept for 50 seconds. Another one is not: told again it would be taken for
    a second failure. Those who ask at the same time share one request. `clock` gives monotonic
    seconds.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI | openai.OpenAI | None = None,
        *,
        name: str = "openai",
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
        api_key: str | None = None,
        base_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            name=name,
            required=required,
            timeout=timeout,
            interval=INTERVAL_SECONDS if interval is None else interval,
            depends_on=depends_on,
        )
        _import_sdk()
        self._clock = clock
        self._calls = RealCalls()
        self._kept: _Kept | None = None
        self._patience = TIMEOUT_SECONDS if timeout is None else timeout
        self._probes = Sharing[_Found]()
        self._client = client
        self._given = api_key, base_url
        self._line: Line | None = None
        self._connect(api_key, base_url)

    def configured(self, settings: Settings) -> Self:
        """The same check, with key, address and timeout of `settings` where it has none."""
        same = copy(self)
        same._configure(settings)  # noqa: SLF001 - its own class
        return same

    def _configure(self, settings: Settings) -> None:
        # Two monitors may live in two event loops: each has probes of its own.
        self._probes, self._kept = Sharing[_Found](), None
        if self.timeout is None:
            self._patience = settings.check_timeout_seconds
        key, url = self._given
        self._connect(key or settings.openai_api_key, url or settings.openai_base_url)

    def _connect(self, key: str | None, url: str | None) -> None:
        client = self._client
        self._line = (
            own(key, url, name=self.name) if client is None else lent(client, name=self.name)
        )
        known, host = ((), "") if self._line is None else (self._line.secrets, self._line.host)
        self.secrets = hideable(known, host, self.name, "openai", "http", "https")

    def saw(self, status: str, now: float) -> None:
        """Note how a real call ended: a status of openai_calls_total, `now` by the check's clock.

        It may come from any thread.
        """
        self._calls.saw(status, now)

    async def unjudged(self) -> CheckResult:
        """Ask for the models, unless the last answer still holds; see `Probe`."""
        if self._line is None:
            return self._joined(CheckResult(Status.SKIPPED, "no OPENAI_API_KEY"))
        line, kept = self._line, self._kept
        if kept is not None and (result := kept.at(self._clock())) is not None:
            return self._joined(result)
        try:
            result, cause = await self._probes(lambda: self._probed(line))
        except StillRunningError as running:
            result, cause = _unreturned(running, line.host), None
        if result.status is Status.HEALTHY:
            return self._joined(result)
        raise _error(self._joined(result)) from cause

    def unanswered(self, seconds: float) -> UnwellError:
        """No answer within `seconds`."""
        if self._line is None:
            return super().unanswered(seconds)
        return _error(self._joined(_result(silent(self._line.host, seconds))))

    async def aclose(self) -> None:
        """Close the check's own client; one that was given stays open."""
        if self._line is not None:
            await self._line.aclose()

    async def _probed(self, line: Line) -> _Found:
        """What one request finds, and the exception where there is one."""
        began = time.perf_counter()
        try:
            body = await line.models(self._patience)
        except Exception as error:
            result = _refused(error, line.host, self._patience)
            if result is None:
                raise
            fault = None if result.status is Status.HEALTHY else error
        else:
            result, fault = _answered(body, line.host), None
        milliseconds = round((time.perf_counter() - began) * 1000, 3)
        result = replace(result, response_time_ms=milliseconds)
        self._kept = _Kept(result, self._clock()) if result.status is Status.HEALTHY else None
        return result, fault

    def _joined(self, result: CheckResult) -> CheckResult:
        """The result with what real calls saw."""
        calls = self._calls.judged(self._clock())
        if not calls.details:
            return result
        details = {**result.details, "calls_5m": dict(calls.details)}
        if calls.status <= max(result.status, Status.HEALTHY):
            return replace(result, details=details)
        return replace(result, status=calls.status, message=calls.message, details=details)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A healthy result, and the time in seconds when it was had."""

    result: CheckResult
    had: float

    def at(self, now: float) -> CheckResult | None:
        """The result with its age, as long as it holds."""
        age = now - self.had
        if age >= KEPT_SECONDS:
            return None
        details = {**self.result.details, "age_seconds": round(age, 1)}
        return replace(self.result, details=details)


def _import_sdk() -> None:
    try:
        import openai  # noqa: F401 - read now rather than in the first round
    except ImportError:
        raise MissingExtraError("checks.OpenAI", "openai") from None


def _answered(body: bytes, host: str) -> CheckResult:
    """The result of an answer that is no error: a list of models, however it is wrapped."""
    details: dict[str, Any] = {"host": host}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        sentence = f"OpenAI at {host} answers something that is not JSON"
        return CheckResult(Status.DEGRADED, sentence, {**details, "outcome": "server_error"})
    models = value.get("data") if isinstance(value, dict) else value
    if isinstance(models, list):
        details["models"] = len(models)
    elif not isinstance(value, dict):
        sentence = f"OpenAI at {host} answers something that is no list of models"
        return CheckResult(Status.DEGRADED, sentence, {**details, "outcome": "server_error"})
    return CheckResult(Status.HEALTHY, "OpenAI answers and accepts the API key", details)


def _refused(error: Exception, host: str, seconds: float) -> CheckResult | None:
    """The result of an exception; None where it is not about OpenAI."""
    harmless = hides_models(error, host)
    if harmless is not None:
        return CheckResult(Status.HEALTHY, harmless, {"host": host})
    fault = unwell(error, host, seconds)
    return None if fault is None else _result(fault)


def _unreturned(running: StillRunningError, host: str) -> CheckResult:
    return CheckResult(
        Status.DEGRADED,
        f"OpenAI at {host} has given no answer since {running.since:%Y-%m-%d %H:%M:%S} UTC",
        {"host": host, "outcome": "timeout"},
    )


def _result(fault: UnwellError) -> CheckResult:
    return CheckResult(fault.status or Status.DEGRADED, str(fault), fault.details)


def _error(result: CheckResult) -> UnwellError:
    return UnwellError(result.message, status=result.status, details=result.details)
