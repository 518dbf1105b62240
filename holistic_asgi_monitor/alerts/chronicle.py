"""The log of incidents in the store: when each that somebody was told of began, and ended."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

import anyio

from holistic_asgi_monitor.alerts.incidents import Reason
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Event
from holistic_asgi_monitor.model import Alert, AlertState, Severity

__all__ = ("Chapter", "Chronicle", "merged")

TOPIC = "incidents"
STORE_SECONDS = 10.0
LONGEST_SECONDS = 14 * 86_400.0
SPARE_SECONDS = 3600.0
MOST_WAITING, MOST_READ, MOST_KNOWN = 200, 1_000, 1_000
SUMMARY_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Chapter:
    """An incident: UTC epoch seconds of its beginning and its end, None while it lasts.

    `told` is when it was told of last.
    """

    key: str
    severity: Severity
    start: float
    end: float | None
    told: float = 0.0


class Chronicle:
    """Notes what `outbox` has told; `write` is to be called about once a minute, and never raises.

    Who tells nobody notes nothing: so of several processes that see the same, one notes it.
    `reminders` are the seconds after which at the latest there is a reminder of what goes on.
    """

    def __init__(self, recorder: Recorder, outbox: Outbox, *, reminders: float) -> None:
        self._recorder = recorder
        self._longest_silence = 1.25 * reminders + SPARE_SECONDS
        self._waiting: deque[Event] = deque(maxlen=MOST_WAITING)
        self._known: dict[tuple[str, datetime, str], None] = {}
        outbox.delivered.append(self.note)

    def note(self, alert: Alert) -> None:
        """Take in an alert that was delivered; messages that are of no incident are left out."""
        mark = (alert.key, alert.started_at, f"{alert.state.value} {alert.severity.value}")
        # A reminder says that it goes on; of several notifiers one is enough for the rest.
        repeated = mark in self._known and alert.reason != Reason.REMIND.value
        if alert.state is AlertState.NOTICE or repeated:
            return
        self._known[mark] = None
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._waiting.append(_event(alert, self._recorder.now))

    async def write(self) -> None:
        """Write what waits into the log."""
        try:
            with anyio.fail_after(STORE_SECONDS):
                while self._waiting:
                    await self._recorder.add_event(self._waiting[0])
                    self._waiting.popleft()
        except Exception:
            # The store says by itself that it cannot be reached; it waits for the next minute.
            return

    async def read(self, start: float, end: float) -> list[Chapter]:
        """The incidents that were there between two times; `StoreError` if that fails."""
        await self.write()
        events = await self._recorder.events(
            TOPIC, start - LONGEST_SECONDS, self._recorder.now + STORE_SECONDS, MOST_READ
        )
        now, silence = self._recorder.now, self._longest_silence
        found = [_as_known(each, now, silence) for each in merged(_chapters(events), silence)]
        return [each for each in found if _touches(each, start, end)]


def merged(chapters: Iterable[Chapter], silence: float = math.inf) -> list[Chapter]:
    """Each incident once, whoever noted it and how often, the first one first.

    What several processes saw of one key at the same time is one incident. One that was not told
    of for more than `silence` seconds is another one than what comes then.
    """
    ended: dict[tuple[str, float], Chapter] = {}
    for each in chapters:
        known = ended.get((each.key, each.start))
        ended[each.key, each.start] = each if known is None else _joined(known, each)
    found: dict[str, list[Chapter]] = {}
    for each in sorted(ended.values(), key=_order):
        of_key = found.setdefault(each.key, [])
        of_key += _both(of_key.pop(), each, silence) if of_key else [each]
    return sorted((each for of in found.values() for each in of), key=_order)


def _both(one: Chapter, later: Chapter, silence: float) -> list[Chapter]:
    """Two of one key, joined where the first one went on until the later one began."""
    known = _as_known(one, later.start, silence)
    goes_on = known.end is None or later.start <= known.end
    return [_joined(known, later)] if goes_on else [known, later]


def _as_known(chapter: Chapter, moment: float, silence: float) -> Chapter:
    """Of what was not told of for too long nobody knows the end: who knew it may be gone."""
    silent = moment - chapter.told > silence
    return replace(chapter, end=chapter.told) if chapter.end is None and silent else chapter


def _order(chapter: Chapter) -> tuple[float, str]:
    return chapter.start, chapter.key


def _joined(one: Chapter, other: Chapter) -> Chapter:
    """Both as one, as grave as the graver; an end that is known counts, the later one of two."""
    ends = [each.end for each in (one, other) if each.end is not None]
    return replace(
        one,
        severity=max(one.severity, other.severity),
        end=max(ends, default=None),
        told=max(one.told, other.told),
    )


def _touches(chapter: Chapter, start: float, end: float) -> bool:
    return chapter.start < end and (chapter.end is None or chapter.end > start)


def _event(alert: Alert, now: float) -> Event:
    values = {
        "severity": alert.severity.value,
        "start": alert.started_at.timestamp(),
        "end": None if alert.ended_at is None else alert.ended_at.timestamp(),
        "summary": alert.summary[:SUMMARY_CHARACTERS],
    }
    return Event(uuid4().hex, now, TOPIC, alert.key, json.dumps(values))


def _chapters(events: Sequence[Event]) -> Iterator[Chapter]:
    """What the log says; an entry that cannot be read is left out."""
    for event in reversed(events):
        try:
            values = json.loads(event.text)
            end = None if values["end"] is None else float(values["end"])
            severity, start = Severity(values["severity"]), float(values["start"])
            yield Chapter(event.key, severity, start, end, event.time)
        except (LookupError, RecursionError, TypeError, ValueError):
            continue
