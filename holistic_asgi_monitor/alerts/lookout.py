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
from holistic_asgi_monitor.checks.traffic import TrafficWindow
from holistic_asgi_monitor.metrics.recent import EndpointLately, Recent, Stretch
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.metrics.windows import WINDOWS, Window, Windows
from holistic_asgi_monitor.model import CheckResult
from holistic_asgi_monitor.settings import Settings

__all__ = ("Lookout",)

P95 = 0.95
FEWEST_ERRORS = 5
FEWEST_CALLS = 3
HALF_PERCENT = 50.0
_KEPT_SECONDS = WINDOWS["24h"]


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
        further = list(rules.certificates(results))
        if rules.TRAFFIC in results:
            live = await self._endpoints(now) + await self._objectives(now)
            bad = frozenset(each.key for each in live if each.severity is not None)
            self.restless = not bad <= self._bad
            self._bad = bad
            further += live
        every = [*observations, *further]
        named = await self._suffering(now) if any(map(_is_bad, every)) else []
        return [rules.explained(each, named) for each in every]

    async def _endpoints(self, now: float) -> list[Observation]:
        remembered = [key for key in self._remembered() if key.startswith(rules.key_of(""))]
        seen = [
            self._traffic(each)
            async for each in self._recent.endpoints(now, self._settings.minimum_requests)
            if self._is_suspect(each.lately) or rules.key_of(each.name) in remembered
        ]
        settled = self._recent.is_settled(now)
        observed = rules.endpoints(seen, remembered, self._settings, settled=settled)
        return self._causes.given(observed, now)

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
        minute = rules.Minute(latest.count, latest.errors, latest.timed, latest.slow)
        cause_over = self._causes.are_over(rules.key_of(each.name))
        return rules.EndpointTraffic(each.name, window, minute, cause_over=cause_over)

    async def _objectives(self, now: float) -> list[Observation]:
        if not self._promised:
            return []
        lengths = {length for rule in budget.RULES for length in (rule.long, rule.short)}
        windows = {}
        for seconds in lengths:
            # What is longer is not kept in memory, and its rules say nothing.
            if seconds <= _KEPT_SECONDS:
                windows[seconds] = self._windows.window(seconds, now)
                await anyio.lowlevel.checkpoint()
        judged = [
            budget.judged(objective, self._spent(windows, slow_ms).get)
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
