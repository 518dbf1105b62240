"""What one monitor knows of the business: calls of OpenAI, users and features, and their sums."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from holistic_asgi_monitor.alerts.bulletins import Bulletins
from holistic_asgi_monitor.alerts.chronicle import Chronicle
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.spending import SpendWatch
from holistic_asgi_monitor.alerts.summaries import Summaries
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import Answer, Query
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.activity import Activity, Remembered
from holistic_asgi_monitor.usage.audience import Audience
from holistic_asgi_monitor.usage.calendar import zone_of
from holistic_asgi_monitor.usage.openai import OpenAITracking
from holistic_asgi_monitor.usage.spending import Account, Spending
from holistic_asgi_monitor.usage.tracking import Current, Tracker
from holistic_asgi_monitor.web.requests import Exchange, UserId
from holistic_asgi_monitor.web.spend import SpendStats
from holistic_asgi_monitor.web.visitors import signed_in

__all__ = ("Business", "refuse_what_gives_no_id")

_FAILURES = frozenset(
    (
        *("auth_error", "quota_exceeded", "rate_limited"),
        *("timeout", "connection_error", "server_error"),
    )
)

Read = Callable[[Query], Awaitable[Answer]]


class Business:
    """Takes in what the app does and reports, has it kept, and reads what it came to.

    It is put together in three steps, since what comes between them needs what is there already:
    made, told where it is kept, told who speaks of it.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        fault: Callable[[str], None],
        endpoint: Callable[[Exchange], str],
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._fault = fault
        self.activity = Activity(settings.user_hash_key or "")
        self.tracker = Tracker(catalogue, self.activity, fault=fault, endpoint=endpoint)
        Current.born(self.tracker)
        self.openai: OpenAITracking | None = None
        if settings.enabled and settings.track_openai:
            self.openai = OpenAITracking(self.tracker, settings.openai_prices)
            self.openai.begin()

    def keep_in(self, recorder: Recorder, read: Read, readable: Callable[[], bool]) -> None:
        """Have all of it kept by `recorder`; `read` asks history.

        `readable` says whether somebody will close what reading opens.
        """
        self._recorder, self._readable = recorder, readable
        self._off = isinstance(recorder.store, Off)
        self.tracker.feature_listeners.append(recorder.ledger.note_feature)
        self._build_audience()
        self._build_spending(read)

    def _build_audience(self) -> None:
        """Users go where they are counted: into history, or where there is none into memory."""
        ledger = self._recorder.ledger
        remembered = Remembered(time.monotonic, ledger.drop_user) if self._off else None
        note = ledger.note_user if remembered is None else remembered.note
        if self._settings.enabled:
            self.activity.listeners.append(note)
        self.audience = Audience(
            self._recorder,
            uses=self._feature_uses,
            watched=self._readable,
            remembered=remembered,
        )

    def _build_spending(self, read: Read) -> None:
        """Spend is read from history, or where there is none from what memory knows."""
        ledger = self._recorder.ledger
        if self._off:
            account = Account(self._now)
            ledger, read = account.ledger, account.read
        self.tracker.tally.keep_in(ledger)
        self._spending = Spending(read, self._now, zone_of(self._settings.timezone))
        self._spend_stats = SpendStats(self._spending_now)

    def speak_through(self, outbox: Outbox) -> list[Callable[[], Awaitable[None]]]:
        """Have what is to be said said by `outbox`; what the watch is to do once a minute."""
        recorder = self._recorder
        bulletins = Bulletins(recorder, outbox)
        chronicle = Chronicle(recorder, outbox, reminders=outbox.longest_reminder)
        self._summaries = Summaries(
            self._settings, recorder, bulletins, chronicle, attached=self._attached
        )
        tally = self.tracker.tally
        spend_watch = SpendWatch(
            self._settings, self._spending, recorder, bulletins, used=lambda: tally.used
        )
        return [
            bulletins.tend,
            chronicle.write,
            self._summaries,
            self.audience.refresh,
            spend_watch,
        ]

    def begin(self) -> None:
        """See calls of OpenAI from now on."""
        Current.started(self.tracker)
        if self.openai is not None:
            self.openai.begin()

    def settle(self) -> None:
        """Count the calls that have ended unnoticed until now."""
        if self.openai is not None:
            self.openai.settle()

    def end(self) -> None:
        """See calls of OpenAI no more."""
        if self.openai is not None:
            self.openai.end()

    def note_user(self, exchange: Exchange, user_id: UserId | None) -> None:
        """Find out who made a request, and count the user; never raises."""
        try:
            self.tracker.found_user(exchange, (user_id or signed_in)(exchange.scope))
        except Exception:
            # The callable is the user's: whatever is wrong with it, the request is served.
            self._fault("user_id")

    @property
    def attached(self) -> bool:
        """Whether calls of OpenAI are seen."""
        return self.openai is not None and self.openai.attached

    def active_users(self) -> Mapping[tuple[str, ...], float]:
        """The users of the last day, week and month, as they were counted last."""
        return {(window,): float(users) for window, users in self.audience.last.users.items()}

    def calls(self) -> tuple[int, int]:
        """How many calls of OpenAI have failed so far by no fault of the caller, and of how many.

        What a check makes of them is its affair; these numbers only say when to ask it.
        """
        self._catalogue.gather()
        calls = list(self._catalogue.openai_calls.values.items())
        failed = sum(count for (_, status), count in calls if status in _FAILURES)
        return int(failed), int(sum(count for _, count in calls))

    async def openai_figures(self) -> Mapping[str, Any]:
        """What was called and what it cost, for the statistics."""
        self.settle()
        return await self._spend_stats.as_dict()

    async def last_summary(self) -> Mapping[str, Any]:
        """The summary that was said last, for the statistics."""
        return await self._summaries.last(ask=self._readable())

    def _now(self) -> float:
        return self._recorder.now

    def _feature_uses(self) -> Mapping[str, int]:
        """How often each feature was used since the start."""
        uses = list(self._catalogue.feature_uses.values.items())
        return {feature: int(count) for (feature,), count in uses}

    def _spending_now(self) -> Spending:
        """Where spend is read: what waits to be written, where nobody closes what is opened."""
        if self._off or self._readable():
            return self._spending
        return Spending(self._recorder.read_waiting, self._now, self._spending.zone)

    def _attached(self) -> bool | None:
        """The same; None where the app has not imported the package."""
        return self.attached if "openai" in sys.modules else None


def refuse_what_gives_no_id(user_id: UserId) -> None:
    """Raise ConfigurationError for what cannot be called with a scope, or only awaited."""
    called = getattr(user_id, "__call__", None)  # noqa: B004 - an instance may be awaitable
    if inspect.iscoroutinefunction(user_id) or inspect.iscoroutinefunction(called):
        given = "a coroutine function"
    elif called is None:
        given = f"a {type(user_id).__name__}"
    else:
        return
    raise ConfigurationError(
        f"user_id is given {given}; allowed is a function that is called with the scope and "
        "returns the user's id, or None"
    )
