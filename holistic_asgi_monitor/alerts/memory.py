"""What a restart must not lose, as JSON and back.

Pure. Monotonic times do not outlive a process: they are written as UTC epoch seconds, and read as
if the clock had gone on; what would then lie ahead of now counts as now.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from holistic_asgi_monitor.alerts.channel import MOST_NOTICES, Doubt, Identity
from holistic_asgi_monitor.alerts.condition import Belief, Condition, Incident, Observation
from holistic_asgi_monitor.alerts.incidents import Reason, Snapshot, Told
from holistic_asgi_monitor.alerts.quiet import (
    MOST_MINUTES,
    MOST_WINDOWS,
    Orders,
    Silence,
    Window,
)
from holistic_asgi_monitor.model import Alert, Severity, Status
from holistic_asgi_monitor.notifiers.values import alert_from, as_json

__all__ = (
    "ChannelMemory",
    "Memory",
    "Moments",
    "UnreadableError",
    "read",
    "read_orders",
    "written",
    "written_orders",
)

VERSION = 1
DETAIL_CHARACTERS = 2_000
SUMMARY_CHARACTERS = 1_000
CONDITION_CHARACTERS = 500_000
NOTICE_CHARACTERS = 100_000
NOTIFIER_CHARACTERS = 250_000
LONGEST_CHARACTERS = 10_000_000
MOST_TITLES = 100
LONGEST_PAST = 400 * 86400.0

T = TypeVar("T")


class UnreadableError(ValueError):
    """What was kept cannot be used; the text completes "what was kept ..."."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Two clocks at the same moment: `now` in monotonic seconds, `time` in UTC."""

    now: float
    time: datetime

    def written(self, moment: float) -> float | None:
        """A monotonic time as UTC epoch seconds; None for one that never was."""
        return None if math.isinf(moment) else self.time.timestamp() + (moment - self.now)

    def past(self, value: Any) -> float:
        """The monotonic time of what has happened."""
        if value is None:
            return -math.inf
        return self.now + max(-LONGEST_PAST, min(0.0, self._ahead(value)))

    def future(self, value: Any, longest: float) -> float:
        """The monotonic time of what comes, at most `longest` seconds ahead."""
        return self.now + min(longest, self._ahead(value))

    def _ahead(self, value: Any) -> float:
        return _number(value) - self.time.timestamp()


@dataclass(frozen=True, slots=True)
class ChannelMemory:
    """What one channel has to remember: messages not delivered, letters in doubt.

    `notifier` is what its notifier gave, JSON values, or None.
    """

    notices: tuple[Alert, ...] = ()
    doubts: Mapping[Identity, Doubt] = field(default_factory=dict)
    notifier: Any = None


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a restart must not lose.

    `titles` says when a message of the user's own with that key last passed, `tellers` which
    instance told the alarm of a key that is not over.
    """

    snapshot: Snapshot
    channels: Mapping[str, ChannelMemory] = field(default_factory=dict)
    titles: Mapping[str, float] = field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    silences: Mapping[str, Silence] = field(default_factory=dict)
    tellers: Mapping[str, str] = field(default_factory=dict)

    def of(self, mine: Callable[[str], bool]) -> Memory:
        """What of it belongs to the keys that are `mine`: incidents, and not what people sent."""
        known = self.snapshot
        snapshot = Snapshot(
            conditions=_some(known.conditions, mine),
            told={channel: _some(told, mine) for channel, told in known.told.items()},
            recent=tuple(each for each in known.recent if mine(each[0])),
            parents=_some(known.parents, mine),
        )
        channels = {
            name: ChannelMemory((), _about(each.doubts, mine), each.notifier)
            for name, each in self.channels.items()
        }
        return Memory(snapshot, channels, tellers=_some(self.tellers, mine))


def _some(values: Mapping[str, T], mine: Callable[[str], bool]) -> dict[str, T]:
    return {key: value for key, value in values.items() if mine(key)}


def _about(doubts: Mapping[Identity, Doubt], mine: Callable[[str], bool]) -> dict[Identity, Doubt]:
    return {identity: doubt for identity, doubt in doubts.items() if mine(str(identity[0]))}


def written(memory: Memory, moments: Moments) -> dict[str, Any]:
    """The memory as JSON values, at most about a megabyte: the least grave is left out first."""
    conditions = dict(_kept(memory.snapshot.conditions, moments))
    told = {
        channel: {key: _told(each, moments) for key, each in of.items() if key in conditions}
        for channel, of in memory.snapshot.told.items()
    }
    return {
        "version": VERSION,
        "saved_at": moments.time.isoformat(),
        "conditions": conditions,
        "told": told,
        "recent": [[key, _incident(each, details=False)] for key, each in memory.snapshot.recent],
        "parents": {key: list(above) for key, above in memory.snapshot.parents.items()},
        "channels": {name: _channel(each, moments) for name, each in memory.channels.items()},
        "titles": {
            key: moments.written(moment)
            for key, moment in list(memory.titles.items())[-MOST_TITLES:]
            if len(key) <= SUMMARY_CHARACTERS
        },
        "windows": [_window(each, moments) for each in memory.windows if each.lasting],
        "silences": {key: _silence(each, moments) for key, each in memory.silences.items()},
        "tellers": {key: each for key, each in memory.tellers.items() if key in conditions},
    }


def read(values: Any, moments: Moments) -> Memory:
    """The memory that `written` wrote; `UnreadableError` where it did not, or a newer one did."""
    if not isinstance(values, dict) or not isinstance(values.get("version"), int):
        raise UnreadableError("is not what a monitor writes")
    if values["version"] != VERSION:
        raise UnreadableError(f"is of version {values['version']}, and this one reads {VERSION}")
    try:
        return _read(values, moments)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UnreadableError(f"is not what a monitor writes ({type(error).__name__})") from None


def _read(values: Mapping[str, Any], moments: Moments) -> Memory:
    told = {
        _text(channel): {_text(key): _told_from(each, moments) for key, each in of.items()}
        for channel, of in values["told"].items()
    }
    snapshot = Snapshot(
        conditions=_each(values["conditions"], lambda each: _condition_from(each, moments)),
        told=told,
        recent=tuple((_text(key), _ended(each)) for key, each in values["recent"]),
        parents=_each(values["parents"], lambda above: tuple(map(_text, above))),
    )
    return Memory(
        snapshot=snapshot,
        channels=_each(values["channels"], lambda each: _channel_from(each, moments)),
        titles=_each(values["titles"], moments.past),
        windows=tuple(_window_from(each, moments) for each in values["windows"]),
        silences=_each(values["silences"], lambda each: _silence_from(each, moments)),
        # What an earlier release wrote has none.
        tellers=_each(values.get("tellers", {}), _text),
    )


def _each(values: Mapping[str, Any], made: Callable[[Any], T]) -> dict[str, T]:
    return {_text(key): made(value) for key, value in values.items()}


def written_orders(orders: Orders, moments: Moments) -> dict[str, Any]:
    """What people have ordered to be quiet, as JSON values."""
    return {
        "version": VERSION,
        "windows": [_window(each, moments) for each in orders.windows],
        "silences": {key: _silence(each, moments) for key, each in orders.silences.items()},
    }


def read_orders(values: Any, moments: Moments) -> Orders:
    """What `written_orders` wrote; `UnreadableError` where it did not."""
    try:
        _must(values["version"] == VERSION)
        return Orders(
            tuple(_window_from(each, moments) for each in values["windows"][-MOST_WINDOWS:]),
            _each(values["silences"], lambda each: _silence_from(each, moments)),
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UnreadableError(f"is not what a monitor writes ({type(error).__name__})") from None


# --- conditions ---


def _kept(
    conditions: Mapping[str, Condition], moments: Moments
) -> Iterable[tuple[str, dict[str, Any]]]:
    """As many conditions as there is room for, the gravest first."""
    left: float = CONDITION_CHARACTERS
    for key, condition in sorted(conditions.items(), key=_gravity):
        values = _condition(condition, moments)
        left -= _length(values) + len(key)
        if left < 0:
            return
        yield key, values


def _gravity(item: tuple[str, Condition]) -> tuple[int, int]:
    current = item[1].current
    return (1, 0) if current is None else (0, -current.severity.gravity)


def _condition(condition: Condition, moments: Moments) -> dict[str, Any]:
    return {
        "bad": condition.bad,
        "good": condition.good,
        "row_began": _iso(condition.row_began),
        "recent": [_iso(each) for each in condition.recent],
        "milder": condition.milder,
        "serial": condition.serial,
        "open": condition.open and _incident(condition.open),
        "flapping": condition.flapping and _incident(condition.flapping),
        "ended": [_incident(each) for each in condition.ended],
        "last": condition.last and _incident(condition.last),
        "opened": [[moments.written(moment), _iso(time)] for moment, time in condition.opened],
        "changed": moments.written(condition.changed),
        "seen": moments.written(condition.seen),
        "latest": condition.latest and _observation(condition.latest),
    }


def _condition_from(values: Mapping[str, Any], moments: Moments) -> Condition:
    condition = Condition(
        bad=_count(values["bad"]),
        good=_count(values["good"]),
        row_began=_maybe(values["row_began"], _moment),
        recent=tuple(_maybe(each, _moment) for each in values["recent"]),
        milder=_count(values["milder"]),
        serial=_count(values["serial"]),
        open=_maybe(values["open"], _incident_from),
        flapping=_maybe(values["flapping"], _incident_from),
        ended=tuple(map(_ended, values["ended"])),
        last=_maybe(values["last"], _ended),
        opened=tuple((moments.past(each), _moment(time)) for each, time in values["opened"]),
        changed=moments.past(values["changed"]),
        seen=moments.past(values["seen"]),
        latest=_maybe(values["latest"], _observation_from),
    )
    in_row = condition.bad or condition.good
    _must(not (condition.bad and condition.good), not in_row or condition.row_began is not None)
    return condition


def _incident(incident: Incident, *, details: bool = True) -> dict[str, Any]:
    return {
        "serial": incident.serial,
        "started_at": _iso(incident.started_at),
        "ended_at": _iso(incident.ended_at),
        "severity": incident.severity.value,
        "status": incident.status.value,
        "summary": incident.summary[:SUMMARY_CHARACTERS],
        "details": _details(incident.details) if details else {},
        "by_ratio": incident.by_ratio,
        "silent": incident.silent,
        "times": incident.times,
        "worst": incident.worst and incident.worst.value,
        "worst_summary": incident.worst_summary[:SUMMARY_CHARACTERS],
    }


def _incident_from(values: Mapping[str, Any]) -> Incident:
    return Incident(
        serial=_count(values["serial"]),
        started_at=_moment(values["started_at"]),
        ended_at=_maybe(values["ended_at"], _moment),
        severity=Severity(values["severity"]),
        status=_bad(values["status"]),
        summary=_text(values["summary"]),
        details=MappingProxyType(dict(values["details"])),
        by_ratio=bool(values["by_ratio"]),
        silent=bool(values["silent"]),
        times=_count(values["times"]),
        # What an earlier release wrote has neither.
        worst=_maybe(values.get("worst"), _bad),
        worst_summary=_text(values.get("worst_summary", "")),
    )


def _bad(value: Any) -> Status:
    status = Status(value)
    _must(status > Status.HEALTHY)
    return status


def _ended(values: Mapping[str, Any]) -> Incident:
    incident = _incident_from(values)
    _must(incident.ended_at is not None)
    return incident


def _observation(observation: Observation) -> dict[str, Any]:
    return {
        "key": observation.key,
        "status": observation.status.value,
        "summary": observation.summary[:SUMMARY_CHARACTERS],
        "required": observation.required,
        "depends_on": list(observation.depends_on),
        "details": _details(observation.details),
    }


def _observation_from(values: Mapping[str, Any]) -> Observation:
    return Observation(
        key=_text(values["key"]),
        status=Status(values["status"]),
        summary=_text(values["summary"]),
        required=bool(values["required"]),
        depends_on=tuple(map(_text, values["depends_on"])),
        details=MappingProxyType(dict(values["details"])),
    )


# --- what was told, and is to be ---


def _told(told: Told, moments: Moments) -> dict[str, Any]:
    return {
        "belief": told.belief.value,
        "severity": told.severity.value,
        "serial": told.serial,
        "started_at": _iso(told.started_at),
        "alarmed": moments.written(told.alarmed),
        "last": moments.written(told.last),
        "reminders": told.reminders,
    }


def _told_from(values: Mapping[str, Any], moments: Moments) -> Told:
    told = Told(
        belief=Belief(values["belief"]),
        severity=Severity(values["severity"]),
        serial=_count(values["serial"]),
        started_at=_maybe(values["started_at"], _moment),
        alarmed=moments.past(values["alarmed"]),
        last=moments.past(values["last"]),
        reminders=_count(values["reminders"]),
    )
    _must(told.belief is Belief.CALM or told.started_at is not None)
    return told


def _channel(channel: ChannelMemory, moments: Moments) -> dict[str, Any]:
    notifier = channel.notifier
    return {
        "notices": _notices(channel.notices),
        "doubts": [
            [_identity(each), doubt.tries, moments.written(doubt.until)]
            for each, doubt in channel.doubts.items()
        ],
        "notifier": notifier if _length(notifier) <= NOTIFIER_CHARACTERS else None,
    }


def _channel_from(values: Mapping[str, Any], moments: Moments) -> ChannelMemory:
    doubts = {
        _identity_from(identity): Doubt(_count(tries), moments.future(until, LONGEST_PAST))
        for identity, tries, until in values["doubts"]
    }
    notices = tuple(map(alert_from, values["notices"][-MOST_NOTICES:]))
    _must(all(notice.started_at.tzinfo is not None for notice in notices))
    return ChannelMemory(notices, doubts, values["notifier"])


def _notices(notices: Sequence[Alert]) -> list[dict[str, Any]]:
    """As many of the newest messages as there is room for, in their order."""
    kept: list[dict[str, Any]] = []
    left: float = NOTICE_CHARACTERS
    for notice in reversed(notices):
        values = as_json(notice)
        left -= _length(values)
        if left < 0:
            break
        kept.append(values)
    return kept[::-1]


def _identity(identity: Identity) -> list[Any]:
    match identity:
        case (str(key), Reason() as reason, int(serial), Severity() as severity, int(reminders)):
            return [key, reason.value, serial, severity.value, reminders]
        case (str(key), datetime() as began):
            return [key, _iso(began)]
    raise TypeError(identity)


def _identity_from(values: Any) -> Identity:
    match values:
        case [key, reason, serial, severity, reminders]:
            known = Severity(severity)
            return _text(key), Reason(reason), _count(serial), known, _count(reminders)
        case [key, began]:
            return _text(key), _moment(began)
    raise ValueError


# --- quiet ---


def _window(window: Window, moments: Moments) -> dict[str, Any]:
    return {
        "reason": window.reason,
        "began": moments.written(window.began),
        "until": moments.written(window.until),
    }


def _window_from(values: Mapping[str, Any], moments: Moments) -> Window:
    until = moments.future(values["until"], MOST_MINUTES * 60)
    return Window(_text(values["reason"]), moments.past(values["began"]), until)


def _silence(silence: Silence, moments: Moments) -> dict[str, Any]:
    severity = silence.severity
    return {
        "until": moments.written(silence.until),
        "severity": None if severity is None else severity.value,
    }


def _silence_from(values: Mapping[str, Any], moments: Moments) -> Silence:
    until = moments.future(values["until"], MOST_MINUTES * 60)
    return Silence(until, _maybe(values["severity"], Severity))


# --- single values ---


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(value: Any) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    _must(moment.tzinfo is not None)
    return moment


def _maybe(value: Any, made: Callable[[Any], T]) -> T | None:
    return None if value is None else made(value)


def _text(value: Any) -> str:
    _must(isinstance(value, str))
    return str(value)


def _count(value: Any) -> int:
    _must(isinstance(value, int) and not isinstance(value, bool) and value >= 0)
    return int(value)


def _number(value: Any) -> float:
    _must(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
    return float(value)


def _must(*conditions: bool) -> None:
    if not all(conditions):
        raise ValueError


def _details(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details as JSON has them; nothing of what is too much."""
    values = dict(details)
    return values if _length(values) <= DETAIL_CHARACTERS else {}


def _length(value: object) -> float:
    """How many characters it takes; infinite for what JSON cannot hold."""
    try:
        return len(json.dumps(value, allow_nan=False))
    except (RecursionError, TypeError, ValueError):
        return math.inf
