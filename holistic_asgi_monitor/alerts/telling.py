"""The words: from a draft to the alert that people read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from holistic_asgi_monitor.alerts.condition import NO_REQUESTS, Condition, Incident
from holistic_asgi_monitor.alerts.incidents import Draft, Reason
from holistic_asgi_monitor.model import Alert, AlertState, Severity, Status

__all__ = ("alert_of",)

_DASH = "\N{EN DASH}"
_WORD = {
    Severity.INFO: "well",
    Severity.WARNING: "degraded",
    Severity.ERROR: "unhealthy",
    Severity.CRITICAL: "critical",
}


def alert_of(draft: Draft) -> Alert:
    """The alert that a draft stands for; where it comes from is for the outbox to add."""
    if draft.condition.current is not None:
        return _going_on(draft, draft.condition.current)
    if draft.reason is Reason.CLEAR:
        return _cleared(draft)
    return _was_down(draft, draft.condition.ended_since(draft.told.serial))


def _going_on(draft: Draft, incident: Incident) -> Alert:
    began = incident.started_at
    if draft.reason in {Reason.ESCALATE, Reason.EASE, Reason.REMIND}:
        began = draft.told.started_at or began
    return Alert(
        key=draft.key,
        severity=draft.severity,
        state=AlertState.FIRING,
        title=f"{draft.key} {_predicate(draft, incident)}",
        summary=incident.summary,
        started_at=began,
        details={**incident.details, **dict(_remarks(draft, incident))},
        reason=draft.reason.value,
    )


def _predicate(draft: Draft, incident: Incident) -> str:
    """What is so with the key, as the end of a sentence that begins with its name."""
    reason = draft.reason
    before = f" (was {_WORD[draft.told.severity]})"
    if draft.condition.flapping is not None:
        still = "still " if reason is Reason.REMIND else ""
        worse = f", now {_WORD[incident.severity]}{before}" if reason is Reason.ESCALATE else ""
        return f"{still}keeps failing and recovering{worse}"
    if incident.status is Status.UNKNOWN:
        return "still cannot be judged" if reason is Reason.REMIND else "cannot be judged"
    state = incident.status.value
    if reason is Reason.ESCALATE:
        return f"is now {state}{before}"
    if reason is Reason.EASE:
        return f"is still {state}{before}"
    return f"is still {state}" if reason is Reason.REMIND else f"is {state}"


def _remarks(draft: Draft, incident: Incident) -> Iterator[tuple[str, Any]]:
    """What a reader should know besides: what it means, what it draws along, what went before."""
    latest = draft.condition.latest
    if latest is not None and latest.required and incident.severity >= Severity.ERROR:
        yield "impact", "the app cannot serve without it"
    if draft.affected:
        yield "affected", ", ".join(draft.affected)
    if draft.condition.flapping is not None:
        yield "incidents", incident.times
    elif unknown := draft.condition.ended_since(draft.told.serial):
        yield "earlier", f"{_went(unknown)}, which could not be delivered"


def _cleared(draft: Draft) -> Alert:
    last, latest = draft.condition.last, draft.condition.latest
    details = {} if last is None else {"was": _state_and_summary(last)}
    return Alert(
        key=draft.key,
        severity=draft.severity,
        state=AlertState.RESOLVED,
        title=f"{draft.key} {_ending(draft.condition)}",
        summary="" if latest is None else latest.summary,
        started_at=_beginning(draft),
        ended_at=None if last is None else last.ended_at,
        details=details,
        reason=draft.reason.value,
    )


def _ending(condition: Condition) -> str:
    now = _now(condition)
    if now == "healthy":
        return "is healthy again"
    return f"has {now}" if now == NO_REQUESTS else f"is {now}"


def _beginning(draft: Draft) -> datetime:
    began = draft.told.started_at
    assert began is not None
    return began


def _was_down(draft: Draft, unknown: Sequence[Incident]) -> Alert:
    last = unknown[-1]
    return Alert(
        key=draft.key,
        severity=draft.severity,
        state=AlertState.RESOLVED,
        title=f"{draft.key} {_went(unknown)}",
        summary=last.summary,
        started_at=unknown[0].started_at,
        ended_at=last.ended_at,
        details={"was": last.status.value, "now": _now(draft.condition)},
        reason=draft.reason.value,
    )


def _went(incidents: Sequence[Incident]) -> str:
    """`was down 12:01-12:05 UTC`, for several incidents with their number."""
    times = sum(incident.times for incident in incidents)
    often = f"{times} times, " if times > 1 else ""
    first, last = incidents[0], incidents[-1]
    return f"was down {often}{_period(first.started_at, last.ended_at or last.started_at)}"


def _now(condition: Condition) -> str:
    latest = condition.latest
    if latest is not None and latest.status is not Status.SKIPPED:
        return "healthy"
    has_none = latest is not None and latest.summary == NO_REQUESTS
    return NO_REQUESTS if has_none else "no longer checked"


def _state_and_summary(incident: Incident) -> str:
    """The worst of it: the last may have been half an end."""
    if incident.worst is None:
        return f"{incident.status.value}: {incident.summary}".removesuffix(": ")
    return f"{incident.worst.value}: {incident.worst_summary}".removesuffix(": ")


def _period(start: datetime, end: datetime) -> str:
    """From when to when: minutes where they tell it apart, seconds else; the day if it is two."""
    if start.date() != end.date():
        return f"{start:%Y-%m-%d %H:%M} {_DASH} {end:%Y-%m-%d %H:%M} UTC"
    exact = "%H:%M" if f"{start:%H:%M}" != f"{end:%H:%M}" else "%H:%M:%S"
    return f"{start:{exact}}{_DASH}{end:{exact}} UTC"
