"""What a probe found: a status, from a report or from whatever an address answered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from holistic_asgi_monitor.model import CheckResult, Report, Status

__all__ = ("Verdict", "judged")

_LONGEST_CELL = 200
_MOST_SERVICES = 100
_IETF = {
    **dict.fromkeys(("pass", "ok", "up"), Status.HEALTHY),
    "warn": Status.DEGRADED,
    **dict.fromkeys(("fail", "error", "down"), Status.UNHEALTHY),
}
_OURS = {status.value: status for status in Status}
_GOOD = range(200, 400)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status of the whole and of each service; `note` says where it comes from, or why."""

    status: Status
    services: Mapping[str, CheckResult] = field(default_factory=dict)
    note: str = ""

    @classmethod
    def of(cls, report: Report) -> Verdict:
        """What a report of our own says."""
        return cls(report.overall_status, report.services)

    def exit_status(self, *, strict: bool) -> int:
        """0 where all is well or, unless `strict`, degraded; else 1."""
        worst = Status.HEALTHY if strict else Status.DEGRADED
        return 0 if self.status <= worst else 1

    def lines(self) -> list[str]:
        """One line for each service, and the whole at the end."""
        shown = list(self.services.items())[:_MOST_SERVICES]
        rows = [_row(name, result) for name, result in shown]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        if len(shown) < len(self.services):
            lines.append(f"and {len(self.services) - len(shown)} more")
        note = f" ({self.note})" if self.note else ""
        return [*lines, f"overall: {self.status.value}{note}"]


def _row(name: str, result: CheckResult) -> tuple[str, str, str, str]:
    took = result.response_time_ms
    time = "-" if took is None else f"{took:.1f} ms"
    return _cell(name), result.status.value, time, _cell(result.message)


def _cell(text: str) -> str:
    """`text` on one line and of a bearable length; a foreign page may send anything."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return line if len(line) <= _LONGEST_CELL else f"{line[:_LONGEST_CELL]}..."


def judged(code: int, body: bytes) -> Verdict:
    """What an answer with the status code `code` says.

    Understood are our report and our one word, and the IETF form; the worse of code and body
    counts. Anything else is judged by its code alone.
    """
    by_code = Status.HEALTHY if code in _GOOD else Status.UNHEALTHY
    told = _told(body)
    if told is None:
        return Verdict(
            by_code, note=f"HTTP {code}, judged by that alone: the page is no health report"
        )
    return Verdict(max(told.status, by_code), told.services, f"HTTP {code}")


def _told(body: bytes) -> Verdict | None:
    try:
        page = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match page:
        case {"overall_status": str(word), "services": dict(services)} if word in _OURS:
            return Verdict(_whole(_OURS[word]), {n: _our_result(r) for n, r in services.items()})
        case {"status": str(word)} if word in _OURS:
            return Verdict(_whole(_OURS[word]))
        case {"status": str(word), **rest} if word.lower() in _IETF:
            return Verdict(_IETF[word.lower()], _ietf_results(rest.get("checks")))
    return None


def _whole(status: Status) -> Status:
    return Status.whole([status])


def _our_result(page: Any) -> CheckResult:
    match page:
        case {"status": str(word), **rest}:
            status = _OURS.get(word, Status.UNKNOWN)
            return _result(status, rest.get("message"), rest.get("response_time_ms"))
    return CheckResult(Status.UNKNOWN)


def _ietf_results(checks: Any) -> dict[str, CheckResult]:
    """The worst of each check's entries, under its name without our `:responseTime`."""
    results: dict[str, CheckResult] = {}
    for name, entries in checks.items() if isinstance(checks, dict) else ():
        found = [_ietf_result(entry) for entry in (entries if isinstance(entries, list) else ())]
        if found:
            worst = max(found, key=lambda result: result.status.gravity)
            results[name.removesuffix(":responseTime")] = worst
    return results


def _ietf_result(entry: Any) -> CheckResult:
    match entry:
        case {"status": str(word), **rest}:
            took = rest.get("observedValue") if rest.get("observedUnit") == "ms" else None
            return _result(_IETF.get(word.lower(), Status.UNKNOWN), rest.get("output"), took)
    return CheckResult(Status.UNKNOWN)


def _result(status: Status, message: Any, took: Any) -> CheckResult:
    text = message if isinstance(message, str) else ""
    return CheckResult(status, text, response_time_ms=_milliseconds(took))


def _milliseconds(took: Any) -> float | None:
    if isinstance(took, bool) or not isinstance(took, int | float):
        return None
    try:
        return float(took)
    except OverflowError:
        return None
