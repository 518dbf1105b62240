"""What the app's own calls of OpenAI say about it: the quota shows nowhere else."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from holistic_asgi_monitor.model import CheckResult, Status

__all__ = ("WINDOW_SECONDS", "RealCalls")

WINDOW_SECONDS = 300.0
SLOT_SECONDS = 10.0
FEWEST_CALLS = 5
SHARE = 0.5

_LASTING: Mapping[str, str] = {
    "auth_error": "OpenAI rejects the API key of the app's own calls",
    "quota_exceeded": "the OpenAI quota is used up, as the app's own calls show",
}
_PASSING: Mapping[str, str] = {
    "rate_limited": "over the rate limit",
    "server_error": "errors of the server",
    "timeout": "no answer in time",
    "connection_error": "no connection",
}
_NEUTRAL = frozenset({"success", "bad_request", "abandoned"})
_COUNTED = frozenset({*_LASTING, *_PASSING, *_NEUTRAL})


@dataclass(frozen=True, slots=True)
class _Slot:
    """The calls of ten seconds, by status."""

    number: int
    calls: Counter[str] = field(default_factory=Counter)


class RealCalls:
    """Judges the calls of the last five minutes, in a memory that does not grow with them.

    Statuses are those of the metric openai_calls_total; a cancelled call says nothing of OpenAI
    and is passed over. `now` is in seconds, from the same clock everywhere. Calls may come from
    any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: deque[_Slot] = deque()
        self._refusal: tuple[str, float] | None = None

    def saw(self, status: str, now: float) -> None:
        """Note that a call ended with `status`."""
        if status not in _COUNTED:
            return
        with self._lock:
            self._current(now).calls[status] += 1
            if status in _LASTING:
                self._refusal = (status, now)
            elif status == "success":
                self._refusal = None

    def judged(self, now: float) -> CheckResult:
        """Critical, degraded or healthy, with the numbers of calls as details (none: empty)."""
        with self._lock:
            self._forget(now)
            calls = sum((slot.calls for slot in self._slots), Counter[str]())
            refusal = self._refusal
        details = _figures(calls)
        if refusal is not None and now - refusal[1] <= WINDOW_SECONDS:
            return CheckResult(Status.CRITICAL, _LASTING[refusal[0]], details)
        failing = sum(calls[status] for status in _PASSING)
        if calls.total() < FEWEST_CALLS or failing <= SHARE * calls.total():
            return CheckResult(Status.HEALTHY, "", details)
        return CheckResult(Status.DEGRADED, _sentence(calls, failing), details)

    def _current(self, now: float) -> _Slot:
        number = int(now // SLOT_SECONDS)
        # A thread may come with a time from just before that of the one ahead of it.
        if not self._slots or self._slots[-1].number < number:
            self._forget(now)
            self._slots.append(_Slot(number))
        return self._slots[-1]

    def _forget(self, now: float) -> None:
        oldest = int((now - WINDOW_SECONDS) // SLOT_SECONDS)
        while self._slots and self._slots[0].number < oldest:
            self._slots.popleft()


def _figures(calls: Counter[str]) -> dict[str, int]:
    """The number of calls, and of those that did not end well by their status."""
    if not calls:
        return {}
    failed = {status: calls[status] for status in sorted(calls) if status != "success"}
    return {"calls": calls.total(), **failed}


def _sentence(calls: Counter[str], failing: int) -> str:
    total = calls.total()
    most = max(_PASSING, key=lambda status: calls[status])
    return (
        f"{100 * failing / total:.0f} % of {total:,} OpenAI calls of the app in 5 min failed, "
        f"most of them: {_PASSING[most]}"
    )
