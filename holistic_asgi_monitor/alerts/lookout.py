"""Looks at the live traffic beside the checks, and has `rules` judge what it sees.

It reads what requests have left, and costs them nothing: every five seconds slots are closed, with
a round all is judged, and every second a few numbers say whether a round should start at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence

import anyio.lowlevel

from holistic_asgi_monitor.alerts import budget, rules
from holistic_asgi_monitor.alerts.burst import Burst, Pace
from holistic_asgi_monitor.alerts.causes import Causes
from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.alerts.suffering import FEWEST_REQUESTS, Pain, suffering
from holistic_asgi_monitor.alerts.verdicts import Known, Minute
from holistic_asgi_monitor.checks.traffic import TrafficWindow
from holistic_asgi_monitor.metrics.recent import EndpointLately, Recent, Stretch
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import Window, Windows
from holistic_asgi_monitor.model import CheckResult
from holistic_asgi_monitor.settings import Settings

__all__ = ("Lookout",)

P95 = 0.95
FEWEST_ERRORS = 5
FEWEST_CALLS = 3
HALF_PERCENT = 50.0
PATIENT_SECONDS = 900.0
JUDGED_AT_ONCE = 50
_EMPTY = TrafficWindow(0, 0, 0, None)


class Lookout:
    """Sees what the requests of `series` and the calls of OpenAI meet.

    `openai` gives how many calls have failed so far, and how many there were; `remembered` the keys
    of which something is open. `now` is monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        series: RequestSeries,
        windows: Windows,
        *,
        openai: Callable[[], tuple[int, int]],
        remembered: Callable[[], Collection[str]],
        now: float,
    ) -> None:
        self._settings = settings
        self._series = series
        self._bounds = series.bounds
        self._windows = windows
        self._openai = openai
        self._remembered = remembered
        self._recent = Recent(series, settings.response_time_ms, now)
        self._promised = rules.objectives(settings)
        percent = settings.error_rate_percent
        self._errors = Burst(fewest=FEWEST_ERRORS, percent=percent)
        self._calls = Burst(fewest=FEWEST_CALLS, percent=HALF_PERCENT)
        self._pace = Pace()
        self._bad: frozenset[str] = frozenset()
        self._causes = Causes()
        self._patience: dict[str, float] = {}
        self.restless = False
        """Whether the last look at traffic saw something begin: a second one should come soon."""

    async def sample(self, now: float) -> None:
        """Take note of what passed; cheap to call often."""
        await self._recent.sample(now)

    def burst(self, now: float) -> bool:
        """Whether a round is to be started at once; to be asked every second."""
        errors = self._errors.seen(self._series.failed, self._series.started, now)
        calls = self._calls.seen(*self._openai(), now)
        return self._pace.may_start(now, burst=errors or calls)

    async def look(
        self, observations: Sequence[Observation], results: Mapping[str, CheckResult], now: float
    ) -> list[Observation]:
        """What a round saw by its checks, explained, and what is seen besides.

        Single endpoints and objectives are judged in the rounds of the check `traffic`.
        """
        # What endpoints have in common with the whole is said of it anyway.
        others = {name: each for name, each in results.items() if name != rules.TRAFFIC}
        self._causes.note(others, now)
        remembered = frozenset(self._remembered())
        every = [*observations, *rules.certificates(results, remembered)]
        if rules.TRAFFIC in results:
            # Where it could not be asked, that says nothing of the traffic.
            asked = "count" in results[rules.TRAFFIC].details
            every = await self._live(every, remembered, now, asked=asked)
        named = await self._suffering(now) if any(map(_is_bad, every)) else []
        return [rules.explained(each, named) for each in every]

    async def _live(
        self,
        observations: Sequence[Observation],
        remembered: frozenset[str],
        now: float,
        *,
        asked: bool,
    ) -> list[Observation]:
        """The same observations, with what the traffic shows."""
        checks = [each for each in observations if each.key != rules.TRAFFIC]
        traffic = [each for each in observations if each.key == rules.TRAFFIC]
        if asked and (rules.TRAFFIC in remembered or any(map(_is_bad, traffic))):
            traffic = [self._whole(each, remembered, now) for each in traffic]
        found = await self._endpoints(remembered, now)
        self._patience = {key: at for key, at in self._patience.items() if key in remembered}
        live = found + await self._objectives(remembered, now)
        bad = frozenset(each.key for each in live if each.severity is not None)
        self.restless = not bad <= self._bad
        self._bad = bad
        # One cause is one message, whether all endpoints together suffer of it or a single one.
        caused = self._causes.given([*traffic, *found], now)
        return [*checks, *caused, *live[len(found) :]]

    def _whole(
        self, observation: Observation, remembered: frozenset[str], now: float
    ) -> Observation:
        spans = {seconds: self._windows.window(seconds, now) for seconds in (300.0, 60.0)}
        lately, latest = spans[300.0], self._timed(spans, self._settings.response_time_ms)[60.0]
        timed = self._bounds.count(lately.plain)
        p95_ms = lately.plain_quantile_ms(P95)
        key = observation.key
        window = TrafficWindow(lately.count, lately.errors, timed, p95_ms)
        known = Known(
            key in remembered,
            self._is_patient(key, window, now),
            self._causes.are_over(key),
        )
        minute = Minute(spans[60.0].count, spans[60.0].errors, latest.count, latest.bad)
        return rules.whole(observation, window, minute, self._settings, known)

    def _is_patient(self, key: str, window: TrafficWindow, now: float) -> bool:
        """Whether it was judged, or was seen to fail, not long ago."""
        if window.errors or window.count >= self._settings.minimum_requests:
            self._patience[key] = now
        return now - self._patience.setdefault(key, now) < PATIENT_SECONDS

    async def _endpoints(self, every: frozenset[str], now: float) -> list[Observation]:
        remembered = [key for key in every if key.startswith(rules.key_of(""))]
        # Of one that is known a few requests say something too.
        fewest = self._settings.minimum_requests
        seen = [
            self._traffic(each)
            async for each in self._recent.endpoints(now, 1 if remembered else fewest)
            if rules.key_of(each.name) in remembered
            or (each.lately.count >= fewest and self._is_suspect(each.lately))
        ]
        settled = self._recent.is_settled(now)
        windows = {rules.key_of(each.name): each.window for each in seen}
        patient = {
            key for key in remembered if self._is_patient(key, windows.get(key, _EMPTY), now)
        }
        asked = rules.to_judge(seen, remembered, self._settings, settled=settled, patient=patient)
        judged = {}
        for number, (key, each) in enumerate(asked.items(), 1):
            judged[key] = each.verdict(self._settings)
            if number % JUDGED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
        return rules.observed(judged, asked, remembered)

    def _is_suspect(self, lately: Stretch) -> bool:
        """Whether it may be bad: a quantile is worked out for few."""
        many = lately.error_percent > min(self._settings.error_rate_percent, HALF_PERCENT)
        return many or lately.slow > (1 - P95) * lately.timed

    def _traffic(self, each: EndpointLately) -> rules.EndpointTraffic:
        lately = each.lately
        window = TrafficWindow(
            lately.count, lately.errors, lately.timed, lately.quantile_ms(self._bounds, P95)
        )
        latest = each.latest
        minute = Minute(latest.count, latest.errors, latest.timed, latest.slow)
        cause_over = self._causes.are_over(rules.key_of(each.name))
        return rules.EndpointTraffic(each.name, window, minute, cause_over=cause_over)

    async def _objectives(self, remembered: frozenset[str], now: float) -> list[Observation]:
        if not self._promised:
            return []
        lengths = {length for rule in budget.RULES for length in (rule.long, rule.short)}
        windows = {}
        for seconds in lengths:
            windows[seconds] = self._windows.window(seconds, now)
            await anyio.lowlevel.checkpoint()
        judged = [
            budget.judged(
                objective,
                self._spent(windows, slow_ms).__getitem__,
                known=objective.key in remembered,
            )
            for objective, slow_ms in self._promised
        ]
        return [each for each in judged if each is not None]

    def _spent(
        self, windows: Mapping[float, Window], slow_ms: float | None
    ) -> dict[float, budget.Spent]:
        """What was bad in each window: what failed, or what was slower than so many ms."""
        if slow_ms is None:
            return {
                seconds: budget.Spent(window.seconds, window.count, window.errors)
                for seconds, window in windows.items()
            }
        return self._timed(windows, slow_ms)

    def _timed(self, windows: Mapping[float, Window], slow_ms: float) -> dict[float, budget.Spent]:
        """What was slower than so many ms, of what was answered in one piece."""
        slow_from = bisect_left(self._bounds.upper, round(slow_ms * 1e6)) + 1
        return {
            seconds: budget.Spent(
                window.seconds, self._bounds.count(window.plain), sum(window.plain[slow_from:-1])
            )
            for seconds, window in windows.items()
        }

    async def _suffering(self, now: float) -> list[str]:
        return suffering(
            [self._pain(each) async for each in self._recent.endpoints(now, FEWEST_REQUESTS)]
        )

    def _pain(self, each: EndpointLately) -> Pain:
        lately, before = each.lately, each.before
        return Pain(
            each.name,
            lately.count,
            lately.error_percent,
            lately.quantile_ms(self._bounds, P95),
            before.count,
            before.error_percent,
            before.quantile_ms(self._bounds, P95),
        )


def _is_bad(observation: Observation) -> bool:
    return observation.severity is not None
