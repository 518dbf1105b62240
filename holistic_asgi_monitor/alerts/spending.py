"""Watches what OpenAI costs: looks once a minute, and says each thing once for all processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from types import MappingProxyType
from typing import Any

from holistic_asgi_monitor.alerts.bulletins import Bulletin, Bulletins
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.model import Severity
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.amounts import named, percent, usd
from holistic_asgi_monitor.usage.calendar import MONTHS, WEEKDAYS
from holistic_asgi_monitor.usage.spend import DOLLAR, Budgets, Finding, Verdict
from holistic_asgi_monitor.usage.spending import Cause, Spending, Stand

__all__ = ("SpendWatch", "budgets_of", "told")

LATE_SECONDS = 600
"""How long after midnight the day before is looked at again: others may write a minute late."""
RATIO_IN_WHOLES = 10

_SEVERITY: Mapping[str, Severity] = MappingProxyType(
    {
        "50": Severity.INFO,
        "80": Severity.WARNING,
        "100": Severity.ERROR,
        "over": Severity.WARNING,
        "unusual": Severity.WARNING,
        "runaway": Severity.ERROR,
    }
)
_NAMELESS = MappingProxyType({"endpoint": "outside of requests"})


class SpendWatch:
    """Judges the spend by its rules, and has what it finds said through `bulletins`.

    An instance is to be called about once a minute. Where there is no budget, and no call either
    as `used` says, it reads nothing.
    """

    def __init__(
        self,
        settings: Settings,
        spending: Spending,
        recorder: Recorder,
        bulletins: Bulletins,
        *,
        used: Callable[[], bool],
    ) -> None:
        self._spending = spending
        self._recorder = recorder
        self._bulletins = bulletins
        self._budgets = budgets_of(settings)
        self._used = used

    async def __call__(self) -> None:
        """Look, and say what there is to say."""
        if self._budgets == Budgets() and not self._used():
            return
        try:
            stand = await self._spending.stand()
            for each in self._stands(stand):
                await self._look(each)
        except StoreError:
            # The store says by itself that it cannot be reached; the next minute comes.
            return

    def _stands(self, now: Stand) -> list[Stand]:
        early = now.now < now.today.period.start + LATE_SECONDS
        before = now.before(self._spending.zone) if early else None
        return [now] if before is None else [before, now]

    async def _look(self, stand: Stand) -> None:
        verdict = stand.judged(self._budgets)
        for finding in verdict.findings:
            if await self._is_outdone(finding):
                continue
            compose = partial(self._compose, finding, stand, verdict)
            if await self._bulletins.say_what(finding.key, compose):
                await self._recorder.put_state(finding.topic, finding.key)

    async def _is_outdone(self, finding: Finding) -> bool:
        """Whether something graver of the same was said: another process may know a bit more."""
        graver = finding.graver
        if not graver:
            return False
        topic = graver[0].rpartition(f" {finding.period.name} ")[0]
        return await self._recorder.get_state(topic) in graver

    async def _compose(self, finding: Finding, stand: Stand, verdict: Verdict) -> Bulletin:
        try:
            causes = await self._spending.causes(finding, stand.past)
        except StoreError:
            # The sum alone is worth saying.
            causes = []
        budget = self._budgets.month
        return told(finding, verdict, causes, zone=self._spending.zone, budget=budget)


def budgets_of(settings: Settings) -> Budgets:
    """The budgets of the settings, in nano-dollars."""
    day, month = settings.openai_daily_budget_usd, settings.openai_monthly_budget_usd
    return Budgets(
        None if day is None else round(day * DOLLAR),
        None if month is None else round(month * DOLLAR),
    )


def told(
    finding: Finding,
    verdict: Verdict,
    causes: Sequence[Cause],
    *,
    zone: tzinfo,
    budget: int | None = None,
) -> Bulletin:
    """A finding in words; `budget` is that of the month."""
    title, sentence = _WORDS[finding.kind](finding, zone)
    outlook = _outlook(finding, verdict, budget, zone)
    return Bulletin(
        severity=_SEVERITY[finding.level],
        title=title,
        summary=" ".join(filter(None, (sentence, outlook))),
        details=_details(finding, verdict, causes),
    )


def _of_budget(finding: Finding, zone: tzinfo) -> tuple[str, str]:
    what = f"the {'daily' if finding.period.kind == 'day' else 'monthly'} budget"
    if finding.level != "100":
        reached = f"has reached {finding.level} % of {what}"
    else:
        reached = f"is over {what}" if finding.excess > 0 else f"has reached {what}"
    share = percent(finding.spent, finding.expected)
    amounts = f"{usd(finding.spent)} of {usd(finding.expected)} ({share})"
    return f"OpenAI spend {reached}", f"{amounts} {_in(finding, zone)}."


def _projected(finding: Finding, zone: tzinfo) -> tuple[str, str]:
    month = _month(finding, zone)
    over = f"{percent(finding.excess, finding.expected)} more than its budget"
    sentence = f"{month} is going to cost about {usd(finding.spent)}, {over}"
    return (
        "OpenAI spend is heading over the monthly budget",
        f"{sentence} of {usd(finding.expected)}.",
    )


def _of_day(finding: Finding, zone: tzinfo) -> tuple[str, str]:
    weekday = WEEKDAYS[_local(finding.start, zone).weekday()]
    usual = f"a {weekday} usually costs {usd(finding.expected)}"
    return f"OpenAI spend {_times(finding)}", f"{usd(finding.spent)} {_in(finding, zone)}; {usual}."


def _of_hours(finding: Finding, zone: tzinfo) -> tuple[str, str]:
    start, end = (_local(time, zone).strftime("%H:%M") for time in (finding.start, finding.end))
    first, last = (_date(time, zone) for time in (finding.start, finding.end - 1))
    since = start if first == last else f"{start} on {first}"
    between = f"from {since} to {end} on {last} ({zone})"
    usual = f"these hours usually cost {usd(finding.expected)}"
    return f"OpenAI spend {_times(finding)}", f"{usd(finding.spent)} {between}; {usual}."


_WORDS = MappingProxyType(
    {"budget": _of_budget, "projected": _projected, "day": _of_day, "hours": _of_hours}
)


def _times(finding: Finding) -> str:
    ratio = finding.ratio
    if ratio is None:
        return "where there usually is none"
    return f"is {_number(ratio)} times the usual"


def _number(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= RATIO_IN_WHOLES else f"{ratio:.1f}"


def _in(finding: Finding, zone: tzinfo) -> str:
    """In which period, and until when it is known."""
    clock = _local(finding.end, zone).strftime("%H:%M")
    over = finding.end >= finding.period.end - 1
    if finding.period.kind == "day":
        day = f"on {_date(finding.start, zone)}"
        return day if over else f"{day} until {clock} ({zone})"
    month = f"in {_month(finding, zone)}"
    return month if over else f"{month} until {_date(finding.end, zone)}, {clock} ({zone})"


def _outlook(finding: Finding, verdict: Verdict, budget: int | None, zone: tzinfo) -> str:
    """What the month is, and will be."""
    month = _month(finding, zone)
    so_far = f"{month} so far: {usd(verdict.month)}"
    if finding.kind == "projected":
        return f"{so_far}."
    if finding.period.kind == "month" and finding.end >= finding.period.end - 1:
        return ""
    if verdict.projected is None:
        return f"{so_far}." if finding.period.kind == "day" else ""
    share = f", {percent(verdict.projected, budget)} of its budget" if budget else ""
    return f"{month} is going to cost about {usd(verdict.projected)}{share}."


def _details(finding: Finding, verdict: Verdict, causes: Sequence[Cause]) -> dict[str, Any]:
    against = "expected_usd" if finding.kind in {"day", "hours"} else "budget_usd"
    spent = verdict.month if finding.kind == "projected" else finding.spent
    projected = verdict.projected
    return {
        **{cause.label: line for cause in causes if (line := _line(cause, finding))},
        "spent_usd": _dollars(spent),
        against: _dollars(finding.expected),
        **({} if projected is None else {"projected_month_usd": _dollars(projected)}),
    }


def _line(cause: Cause, finding: Finding) -> str:
    """A cause in words, empty where there is nothing to name."""
    name = cause.name or _NAMELESS.get(cause.label, "")
    if not name or not cause.spent:
        return ""
    if cause.expected is None:
        share = "" if finding.kind == "projected" else f" ({percent(cause.spent, finding.spent)})"
        return f"{named(name)}, {usd(cause.spent)}{share}"
    if not cause.expected:
        return f"{named(name)}, {usd(cause.spent)}, usually nothing"
    times = f"{_number(cause.spent / cause.expected)} times"
    return f"{named(name)}, {usd(cause.spent)}, usually {usd(cause.expected)} ({times})"


def _dollars(nano: float) -> float:
    return round(nano / DOLLAR, 6)


def _local(time: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(time, zone)


def _date(time: float, zone: tzinfo) -> str:
    moment = _local(time, zone)
    return f"{moment.day} {MONTHS[moment.month - 1]}"


def _month(finding: Finding, zone: tzinfo) -> str:
    # Of hours that began on the day before, it is the month of the day that they are said of.
    return MONTHS[_local(finding.period.start, zone).month - 1]
