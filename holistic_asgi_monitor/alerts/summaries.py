"""Sends the summary of each day and week, once for the whole service.

The latest one that is due is sent, until the next takes its place: an app that slept through the
time sends it when it wakes, and never one for each day that it slept. What was said last is kept
in the store, for the statistics.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from holistic_asgi_monitor.alerts.bulletins import Bulletin, Bulletins
from holistic_asgi_monitor.alerts.chronicle import Chronicle
from holistic_asgi_monitor.alerts.spending import budgets_of
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.history.tiers import MINUTE
from holistic_asgi_monitor.model import Severity
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.threads import own_threads
from holistic_asgi_monitor.usage.calendar import Due, Period, due_day, due_week, zone_of
from holistic_asgi_monitor.usage.summaries import Outage, summary_of
from holistic_asgi_monitor.usage.summary_figures import Reader, is_known, is_used, read_facts

__all__ = ("KINDS", "Summaries")

_logger = logging.getLogger("holistic_asgi_monitor")

GRACE_SECONDS = 30.0
STATE_SECONDS = 1.0
FRESH_SECONDS = 60.0
MOST_CHARACTERS = 100_000
KINDS: Mapping[str, str] = {"day": "daily", "week": "weekly"}


@dataclass(frozen=True, slots=True)
class _Calendar:
    """Which summaries are wanted, and when each is due."""

    zone: Any
    at: time
    wanted: Mapping[str, bool | None]

    def due(self, now: float) -> Iterator[Due]:
        """The latest of each kind that may be wanted."""
        if self.wanted["day"] is not False:
            yield due_day(now, self.zone, self.at)
        if self.wanted["week"] is not False:
            yield due_week(now, self.zone, self.at)


class Summaries:
    """Says what is due through `bulletins`; an instance is to be called about once a minute.

    `attached` tells whether calls of OpenAI are seen, None where there can be none.
    """

    def __init__(
        self,
        settings: Settings,
        recorder: Recorder,
        bulletins: Bulletins,
        chronicle: Chronicle,
        *,
        attached: Callable[[], bool | None],
    ) -> None:
        self._recorder = recorder
        self._bulletins = bulletins
        self._chronicle = chronicle
        self._attached = attached
        self._calendar = _calendar(settings)
        self._budgets = budgets_of(settings)
        # By then every process has closed its last minute of a period, and written it.
        self._settled = MINUTE + settings.flush_seconds + GRACE_SECONDS
        self._reader = Reader(recorder.read, recorder.users)
        self._done: dict[str, str] = {}
        self._last: Mapping[str, Any] = dict.fromkeys(KINDS.values())
        self._asked = float("-inf")
        self._failing = False
        self._warned = False

    async def __call__(self) -> None:
        """Say what is due, and not said yet. Never raises for a store that cannot be reached."""
        now = self._recorder.now
        if isinstance(self._recorder.store, Off):
            self._warn_of_no_history()
            return
        for due in self._calendar.due(now):
            period = due.period
            ready = now >= max(due.at, period.end + self._settled)
            if not ready or self._done.get(period.kind) == period.name:
                continue
            # What was done may have been of another day, by a clock that was wrong.
            self._done.pop(period.kind, None)
            try:
                await self._see_to(period)
            except StoreError:
                # The store says by itself that it cannot be reached; the next minute comes.
                continue
            except Exception as error:
                self._note_failure(error)

    async def last(self, *, ask: bool = True) -> Mapping[str, Any]:
        """What was said last by any process, as JSON values: `daily` and `weekly`, None if none.

        It may be a minute old, and older where the store cannot be read or, without `ask`, may
        not be.
        """
        now = self._recorder.now
        if not ask or 0 <= now - self._asked < FRESH_SECONDS:
            return self._last
        try:
            with anyio.fail_after(STATE_SECONDS):
                self._last = {kind: await self._said(kind) for kind in KINDS.values()}
                self._asked = now
        except Exception:
            # The statistics show what is known.
            return self._last
        return self._last

    async def _see_to(self, period: Period) -> None:
        key = f"{KINDS[period.kind]} {period.name}"
        if self._bulletins.is_settled(key):
            return
        if await self._is_worth_it(period):
            await self._bulletins.say_what(key, partial(self._compose, period))
        else:
            self._done[period.kind] = period.name

    async def _is_worth_it(self, period: Period) -> bool:
        """Whether it is to be said: never of a time before anything was recorded."""
        if self._calendar.wanted[period.kind] is None:
            return await is_used(self._reader, period)
        return await is_known(self._reader, period)

    async def _compose(self, period: Period) -> Bulletin:
        facts = await read_facts(
            self._reader,
            period,
            self._calendar.zone,
            self._recorder.now,
            budgets=self._budgets,
            attached=self._attached(),
        )
        chapters = await self._chronicle.read(period.start, period.end)
        outages = [Outage(each.key, each.severity.value, each.start, each.end) for each in chapters]
        # Of a thousand endpoints it takes longer than the event loop may be held.
        summary = await anyio.to_thread.run_sync(
            summary_of, facts, outages, limiter=own_threads("summaries", 1)
        )
        await self._keep(period, summary.title, summary.text, summary.figures)
        return Bulletin(Severity.INFO, summary.title, summary.text, summary.figures)

    async def _keep(
        self, period: Period, title: str, text: str, figures: Mapping[str, Any]
    ) -> None:
        said = {
            "period": period.name,
            "said_at": datetime.fromtimestamp(self._recorder.now, UTC).isoformat(),
            "title": title,
            "text": text,
            "figures": figures,
        }
        text = json.dumps(said, separators=(",", ":"))
        try:
            await self._recorder.put_state(_state(KINDS[period.kind]), text)
        except StoreError:
            # It is said all the same; the statistics show the one before.
            return

    async def _said(self, kind: str) -> dict[str, Any] | None:
        text = await self._recorder.get_state(_state(kind))
        if text is None or len(text) > MOST_CHARACTERS:
            return None
        said = json.loads(text)
        return said if isinstance(said, dict) else None

    def _warn_of_no_history(self) -> None:
        if True in self._calendar.wanted.values() and not self._warned:
            self._warned = True
            _logger.warning(
                "Summaries are asked for and cannot be made: MONITOR_HISTORY_URL is off"
            )

    def _note_failure(self, error: Exception) -> None:
        if not self._failing:
            _logger.error("A summary could not be made, and is tried again: %s", described(error))
        self._failing = True


def _state(kind: str) -> str:
    return f"summary {kind}"


def _calendar(settings: Settings) -> _Calendar:
    return _Calendar(
        zone_of(settings.timezone),
        time.fromisoformat(settings.summary_time),
        {"day": settings.daily_summary, "week": settings.weekly_summary},
    )
