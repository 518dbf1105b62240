"""What is said of spend, by several processes on one store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from blockbuster import BlockBuster
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.alerts.spending import SpendWatch, told
from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Answer, Batch, Query
from holistic_asgi_monitor.history.values import Kind, Row, Series, Value
from holistic_asgi_monitor.history.wallclock import WallClock
from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.blocks import message
from holistic_asgi_monitor.usage.calendar import day_of, month_of, zone_of
from holistic_asgi_monitor.usage.spend import DOLLAR, Finding, Verdict
from holistic_asgi_monitor.usage.spending import Cause, Spending
from tests.alerts.fleet import Fleet, Member
from tests.alerts.virtual_time import eventually
from tests.history.postgres_stores import Stores

NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
DAY, HOUR = 86_400, 3600
# Read once, before any loop runs.
BERLIN = ZoneInfo("Europe/Berlin")


class Process:
    """One process of a fleet, with what it spends, and its watch."""

    def __init__(self, fleet: Fleet, **settings: Any) -> None:
        self.member: Member = fleet.member(**settings)
        self.queries: list[Query] = []
        self.used = False
        zone = zone_of(self.member.settings.timezone)
        self.spending = Spending(self._read, lambda: self.member.recorder.now, zone)
        self.watch = SpendWatch(
            self.member.settings,
            self.spending,
            self.member.recorder,
            self.member.bulletins,
            used=lambda: self.used,
        )

    async def _read(self, query: Query) -> Answer:
        self.queries.append(query)
        return await self.member.recorder.read(query)

    def spend(self, dollars: float, model: str = "gpt", endpoint: str = "/chat") -> None:
        self.member.recorder._began = self.member.recorder.now
        self.member.recorder.ledger.note_spend(
            model,
            status="success",
            nano_usd=round(dollars * DOLLAR),
            tokens={"input": 10, "output": 5},
            endpoint=endpoint,
            feature="search",
        )
        self.used = True

    async def flush(self) -> None:
        """Write what was spent, as it happens once a minute."""
        await self.member.recorder._settle_in()
        await self.member.recorder._open()
        await self.member.recorder._close_minute(self.member.recorder.now)
        await self.member.recorder._write_all()


@pytest.fixture
async def fleet(anyio_backend: str) -> AsyncIterator[Fleet]:
    async with Fleet(NOON).running() as made:
        yield made


async def look(fleet: Fleet, *processes: Process, minutes: int = 1) -> None:
    """Each of them looks at the same time, every minute."""
    for _ in range(minutes):
        await fleet.pass_by(1)
        async with anyio.create_task_group() as group:
            for each in processes:
                group.start_soon(each.watch)
        await fleet.settle()


async def remember(
    fleet: Fleet, dollars: float, days: int = 35, *, model: str = "gpt", last: float | None = None
) -> None:
    """Let the service have spent that on each day before today, in even hours."""
    await fleet.store.open()
    midnight = int(fleet.now // DAY) * DAY
    rows = []
    for number in range(1, days + 1):
        amount = last if number == 1 and last is not None else dollars
        for hour in range(24):
            nano = round(amount * DOLLAR / 24)
            series = Series(Kind.SPEND, (model, "/chat", "search"))
            value = Value(1, 0, nano, 0, {}, {"status:success": 1})
            rows.append(Row(series, midnight - number * DAY + hour * HOUR, pack(value)))
    await fleet.store.write(Batch("before", days, "web-0", tuple(rows)))


def keys(fleet: Fleet) -> list[str]:
    return [alert.key.removeprefix("bulletin: ") for alert in fleet.channel.alerts]


def only(fleet: Fleet) -> Alert:
    (alert,) = fleet.channel.alerts
    return alert


async def test_of_four_processes_one_says_that_a_budget_is_spent(fleet: Fleet) -> None:
    processes = [Process(fleet, openai_daily_budget_usd=10.0) for _ in range(4)]
    for process in processes:
        process.spend(2.5)
        await process.flush()
    await look(fleet, *processes, minutes=15)

    alert = only(fleet)
    assert alert.severity is Severity.ERROR
    assert alert.title == "OpenAI spend has reached the daily budget"
    assert alert.summary == (
        "$10.00 of $10.00 (100 %) on 25 November until 12:01 (UTC). November so far: $10.00."
    )
    assert dict(alert.details) == {
        "model": "gpt, $10.00 (100 %)",
        "endpoint": "/chat, $10.00 (100 %)",
        "feature": "search, $10.00 (100 %)",
        "spent_usd": 10.0,
        "budget_usd": 10.0,
    }


async def test_each_step_is_said_as_it_is_reached(fleet: Fleet) -> None:
    process = Process(fleet, openai_daily_budget_usd=10.0)
    for dollars in (4.9, 0.2, 2.0, 0.8, 1.9, 0.3, 5.0):
        process.spend(dollars)
        await look(fleet, process, minutes=3)

    assert [alert.title for alert in fleet.channel.alerts] == [
        "OpenAI spend has reached 50 % of the daily budget",
        "OpenAI spend has reached 80 % of the daily budget",
        "OpenAI spend is over the daily budget",
    ]
    assert [alert.severity.value for alert in fleet.channel.alerts] == ["info", "warning", "error"]


async def test_what_is_graver_was_said_by_one_who_knew_more(fleet: Fleet) -> None:
    """The others do not see yet what it is still to write."""
    first, other = (Process(fleet, openai_daily_budget_usd=10.0) for _ in range(2))
    first.spend(6.0)
    await first.flush()
    first.spend(5.0)
    await first.watch()
    await look(fleet, other, minutes=3)

    assert keys(fleet) == ["spend budget day 2026-11-25 100 of 10.00"]


async def test_a_restart_says_nothing_again(fleet: Fleet) -> None:
    first = Process(fleet, openai_daily_budget_usd=10.0, openai_monthly_budget_usd=100.0)
    first.spend(9.0)
    await first.flush()
    await look(fleet, first)
    first.member.kill()
    again = Process(fleet, openai_daily_budget_usd=10.0, openai_monthly_budget_usd=100.0)
    await look(fleet, again, minutes=12)
    again.spend(1.0)
    await look(fleet, again)

    assert keys(fleet) == [
        "spend budget day 2026-11-25 80 of 10.00",
        "spend budget day 2026-11-25 100 of 10.00",
    ]


async def test_another_budget_is_watched_from_its_beginning(fleet: Fleet) -> None:
    first = Process(fleet, openai_daily_budget_usd=10.0)
    first.spend(11.0)
    await first.flush()
    await look(fleet, first)
    first.member.kill()
    again = Process(fleet, openai_daily_budget_usd=20.0)
    await look(fleet, again, minutes=3)

    assert keys(fleet) == [
        "spend budget day 2026-11-25 100 of 10.00",
        "spend budget day 2026-11-25 50 of 20.00",
    ]


async def test_the_next_day_has_a_budget_of_its_own(fleet: Fleet) -> None:
    process = Process(fleet, openai_daily_budget_usd=10.0)
    for _ in range(2):
        process.spend(6.0)
        await process.flush()
        await look(fleet, process)
        await fleet.time.pass_by(DAY)
        await look(fleet, process)

    assert keys(fleet) == [
        "spend budget day 2026-11-25 50 of 10.00",
        "spend budget day 2026-11-26 50 of 10.00",
    ]


async def test_what_comes_in_after_midnight_still_counts_for_the_day_before(fleet: Fleet) -> None:
    first, other = (Process(fleet, openai_daily_budget_usd=10.0) for _ in range(2))
    await fleet.time.pass_by(12 * HOUR - 60)
    other.spend(12.0)
    await look(fleet, first)
    # It was spent before midnight, and is written after it.
    other.member.recorder._began = fleet.now - 60
    await other.flush()
    await look(fleet, first, minutes=2)

    assert keys(fleet) == ["spend budget day 2026-11-25 100 of 10.00"]
    assert "on 25 November." in only(fleet).summary


async def test_a_day_that_costs_far_too_much_names_what_it_is_due_to(fleet: Fleet) -> None:
    await remember(fleet, 24.0)
    await remember(fleet, 2.4, days=34, model="small")
    process = Process(fleet)
    process.spend(40.0, "gpt", "/chat")
    process.spend(45.0, "new", "/export")
    await look(fleet, process, minutes=3)

    hours = only(fleet)
    assert hours.severity is Severity.ERROR
    assert hours.title == "OpenAI spend is 26 times the usual"
    assert hours.summary.startswith(
        "$85.00 from 10:00 to 12:01 on 25 November (UTC); these hours usually cost $3.30."
    )
    assert " November is going to cost about $" in hours.summary
    assert hours.details["model"] == "new, $45.00, usually nothing"
    assert hours.details["endpoint"] == "/export, $45.00, usually nothing"
    assert hours.details["feature"].startswith("search, $85.00, usually $3.30 ")
    assert hours.details["expected_usd"] == pytest.approx(3.3, abs=0.05)


@pytest.mark.usefixtures("anyio_backend")
async def test_a_day_is_said_where_no_hour_is() -> None:
    async with Fleet(NOON + timedelta(hours=10)).running() as fleet:
        await remember(fleet, 24.0)
        midnight = int(fleet.now // DAY) * DAY
        series = Series(Kind.SPEND, ("gpt", "", ""))
        value = Value(1, 0, round(2.9 * DOLLAR), 0, {}, {"status:success": 1})
        rows = [Row(series, midnight + hour * HOUR, pack(value)) for hour in range(22)]
        await fleet.store.write(Batch("today", 1, "web-0", tuple(rows)))
        process = Process(fleet, timezone="Europe/Berlin")
        process.used = True
        await look(fleet, process, minutes=2)

    day = only(fleet)
    assert day.severity is Severity.WARNING
    assert day.title == "OpenAI spend is 2.7 times the usual"
    assert day.summary.startswith(
        "$64.80 on 25 November until 23:01 (Europe/Berlin); a Wednesday usually costs $24.00. "
    )
    assert dict(list(day.details.items())[:2]) == {
        "model": "gpt, $64.80, usually $24.00 (2.7 times)",
        "endpoint": "outside of requests, $63.80, usually nothing",
    }
    assert "feature" not in day.details


async def test_a_month_that_is_going_to_cost_more_is_said_once(fleet: Fleet) -> None:
    await remember(fleet, 10.0, days=24)
    process = Process(fleet, openai_monthly_budget_usd=280.0)
    await look(fleet, process, minutes=20)

    projected, budget = fleet.channel.alerts
    if "heading" not in projected.title:
        projected, budget = budget, projected
    assert projected.title == "OpenAI spend is heading over the monthly budget"
    assert projected.summary.startswith("November is going to cost about $29")
    assert "of its budget" not in projected.summary
    assert "more than its budget of $280.00. November so far: $240.00." in projected.summary
    assert projected.severity is budget.severity is Severity.WARNING


async def test_nothing_is_read_where_nothing_is_spent_and_no_budget_is_set(fleet: Fleet) -> None:
    process = Process(fleet)
    await look(fleet, process, minutes=3)
    assert process.queries == []
    process.spend(0.1)
    await look(fleet, process)

    assert process.queries


async def test_what_is_over_is_not_read_again_each_minute(fleet: Fleet) -> None:
    await remember(fleet, 10.0)
    process = Process(fleet, openai_monthly_budget_usd=2800.0)
    await look(fleet, process)
    process.queries.clear()
    await look(fleet, process, minutes=10)

    assert len(process.queries) == 10
    assert {query.end - query.start for query in process.queries} <= set(range(3 * HOUR))


async def test_what_others_write_late_is_seen_within_the_hour(fleet: Fleet) -> None:
    first, other = (Process(fleet, openai_daily_budget_usd=10.0) for _ in range(2))
    other.spend(6.0)
    other.member.recorder._began = fleet.now - 5 * HOUR
    await look(fleet, first)
    await other.flush()
    assert keys(fleet) == []
    await look(fleet, first, minutes=61)

    assert keys(fleet) == ["spend budget day 2026-11-25 50 of 10.00"]


async def test_hours_over_midnight_name_both_days(fleet: Fleet) -> None:
    await remember(fleet, 24.0)
    await fleet.time.pass_by(11 * HOUR + 20 * 60)
    process = Process(fleet, timezone="Europe/Berlin")
    process.spend(40.0)
    await look(fleet, process)

    between = "from 22:00 on 25 November to 00:21 on 26 November (Europe/Berlin)"
    assert between in only(fleet).summary


async def test_an_app_that_starts_every_hour_says_nothing_twice(fleet: Fleet) -> None:
    """Over midnight, and with what is unusual on both days."""
    await remember(fleet, 24.0)
    budgets = {"openai_daily_budget_usd": 50.0, "openai_monthly_budget_usd": 700.0}
    for _ in range(30):
        process = Process(fleet, **budgets)
        process.spend(8.0)
        await look(fleet, process, minutes=3)
        await process.flush()
        process.member.kill()
        await fleet.time.pass_by(57 * 60)

    said = keys(fleet)
    assert len(said) == len(set(said))
    assert "spend hours day 2026-11-25 unusual" in said
    assert "spend budget day 2026-11-26 100 of 50.00" in said


async def test_clocks_that_differ_by_a_minute_say_nothing_twice() -> None:
    """One of them is a day ahead for that minute, at the end of a month."""
    async with Fleet(datetime(2026, 11, 30, 23, 55, tzinfo=UTC)).running() as fleet:
        await remember(fleet, 24.0)
        budgets = {"openai_daily_budget_usd": 10.0, "openai_monthly_budget_usd": 10.0}
        ahead, behind = (Process(fleet, **budgets) for _ in range(2))
        ahead.member.recorder._time = WallClock(fleet.time.clock, lambda: fleet.now + 60)
        for _ in range(8):
            for process in (ahead, behind):
                process.spend(2.0)
            await look(fleet, behind, ahead)
            for process in (ahead, behind):
                await process.flush()
        await look(fleet, ahead, behind, minutes=20)

    said = keys(fleet)
    assert len(said) == len(set(said))
    assert "spend budget day 2026-12-01 100 of 10.00" in said
    assert "spend budget month 2026-12 100 of 10.00" in said


async def test_a_service_is_judged_by_its_own_spend(tmp_path: Path) -> None:
    """Two of them, in one file."""
    path = tmp_path / "both.sqlite"
    shop, other = (SQLite(path, max_mb=50, service=name) for name in ("shop", "other"))
    async with Fleet(NOON, other).running() as theirs, Fleet(NOON, shop).running() as ours:
        spender, idle = (Process(each, openai_daily_budget_usd=10.0) for each in (theirs, ours))
        spender.spend(11.0)
        await spender.flush()
        await look(ours, idle, minutes=2)
        assert keys(ours) == []
        await look(theirs, spender)
        idle.spend(6.0)
        await look(ours, idle)

    assert keys(theirs) == ["spend budget day 2026-11-25 100 of 10.00"]
    assert keys(ours) == ["spend budget day 2026-11-25 50 of 10.00"]


async def test_a_store_that_can_only_be_read_keeps_nobody_from_saying_it(fleet: Fleet) -> None:
    process = Process(fleet, openai_daily_budget_usd=10.0, openai_monthly_budget_usd=10.0)
    process.member.store.stuck = True
    process.spend(12.0)
    await look(fleet, process, minutes=20)

    assert sorted(keys(fleet)) == [
        "spend budget day 2026-11-25 100 of 10.00",
        "spend budget month 2026-11 100 of 10.00",
    ]


async def test_what_costs_nothing_says_nothing(fleet: Fleet) -> None:
    """Free calls, and those whose price nobody knows."""
    process = Process(fleet, openai_daily_budget_usd=0.01, openai_monthly_budget_usd=0.01)
    process.spend(0.0)
    note = process.member.recorder.ledger.note_spend
    note("whisper", status="success", nano_usd=0, tokens={}, unpriced=1)
    await look(fleet, process, minutes=3)

    assert keys(fleet) == []


async def test_a_store_that_cannot_be_read_makes_no_noise(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(fleet, openai_daily_budget_usd=10.0)
    process.spend(20.0)
    process.member.store.lost = True
    await look(fleet, process, minutes=3)
    assert (keys(fleet), caplog.records) == ([], [])
    process.member.store.lost = False
    await look(fleet, process)

    assert keys(fleet) == ["spend budget day 2026-11-25 100 of 10.00"]


@pytest.mark.parametrize("url", ["off", "memory:"])
async def test_a_monitor_says_it_by_itself(anyio_backend: str, url: str) -> None:
    """Where history is off, it goes by what memory knows."""
    slack = notifiers.Memory()
    settings = Settings(service="shop", history_url=url, openai_daily_budget_usd=1.0)
    monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[slack])
    monitor.track_openai_call("gpt", cost=0.9)
    async with monitor:
        await eventually(lambda: slack.alerts)

    (alert,) = slack.alerts
    assert alert.title == "OpenAI spend has reached 80 % of the daily budget"
    assert alert.details["model"] == "gpt, $0.90 (100 %)"


# Four processes on PostgreSQL


@pytest.fixture
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


@asynccontextmanager
async def on(stores: Stores) -> AsyncIterator[Fleet]:
    fleet = Fleet(NOON, stores.make())
    async with fleet.running():
        yield fleet


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asyncpg knows no other
async def test_four_replicas_on_one_postgresql_say_it_once(postgres: Any) -> None:
    stores = Stores(postgres)
    stores.now = NOON.timestamp()
    async with on(stores) as fleet:
        await remember(fleet, 2.4)
        processes = [Process(fleet, openai_daily_budget_usd=100.0) for _ in range(4)]
        for number, process in enumerate(processes):
            for call in range(25):
                process.spend(0.8 + number / 100, f"model-{call % 3}")
            await process.flush()
        await look(fleet, *processes, minutes=3)
        stands = [await process.spending.stand() for process in processes]
        models = [await process.spending.models() for process in processes]

    assert sorted(keys(fleet)) == [
        "spend budget day 2026-11-25 80 of 100.00",
        "spend hours day 2026-11-25 runaway",
    ]
    exact = round(25 * (4 * 0.8 + 0.06) * DOLLAR)
    assert {stand.today.spent for stand in stands} == {exact}
    assert all(
        sum(each.calls for each in found.values()) == 100 + 24 * 24 and found == models[0]
        for found in models
    )


# Words


def test_the_page_shows_what_slack_would() -> None:
    start = int(datetime(2026, 11, 25, 12, tzinfo=BERLIN).timestamp())
    day = day_of(start, BERLIN)
    end = start + 2 * HOUR + 1200
    finding = Finding("hours", day, "unusual", 12.6 * DOLLAR, 3.0 * DOLLAR, start, end)
    causes = [
        Cause("model", "gpt-4o", round(11.9 * DOLLAR), 2.1 * DOLLAR),
        Cause("endpoint", "/export", round(9.8 * DOLLAR), 0.0),
        Cause("feature", "report", round(9.8 * DOLLAR), 0.0),
    ]
    verdict = Verdict(round(20 * DOLLAR), round(81.0 * DOLLAR), 131.0 * DOLLAR, (finding,))
    said = told(finding, verdict, causes, zone=BERLIN, budget=100 * DOLLAR)
    alert = Alert(
        "bulletin: spend",
        said.severity,
        AlertState.NOTICE,
        said.title,
        said.summary,
        NOON,
        details=said.details,
        service="shop",
        environment="production",
    )
    text = message([alert], NOON)["blocks"][0]["text"]["text"].replace("*", "")

    assert text in (Path(__file__).parents[2] / "docs" / "spend.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("level", "spent", "title"),
    [
        ("50", 5.0, "OpenAI spend has reached 50 % of the daily budget"),
        ("100", 10.0, "OpenAI spend has reached the daily budget"),
        ("100", 10.01, "OpenAI spend is over the daily budget"),
    ],
)
def test_the_title_says_how_far_a_budget_is_spent(level: str, spent: float, title: str) -> None:
    day = day_of(NOON.timestamp(), UTC)
    finding = Finding("budget", day, level, spent * DOLLAR, 10 * DOLLAR, day.start, day.start + 60)
    said = told(finding, Verdict(0, 0, None, (finding,)), [], zone=UTC)

    assert said.title == title


def test_a_month_that_is_over_names_no_hour() -> None:
    month = month_of(NOON.timestamp(), BERLIN)
    finding = Finding(
        "budget", month, "100", 120 * DOLLAR, 100 * DOLLAR, month.start, month.end - 1
    )
    verdict = Verdict(0, 120 * DOLLAR, 120.0 * DOLLAR, (finding,))
    said = told(finding, verdict, [], zone=BERLIN, budget=100 * DOLLAR)

    assert said.summary == "$120.00 of $100.00 (120 %) in November."


def test_where_nothing_is_usual_no_ratio_is_said() -> None:
    day = day_of(NOON.timestamp(), UTC)
    start = day.start + 10 * HOUR
    finding = Finding("hours", day, "unusual", 5 * DOLLAR, 0.0, start, start + 3 * HOUR)
    causes = [
        Cause("model", "gpt", 5 * DOLLAR, 0.0),
        Cause("endpoint", "", 5 * DOLLAR, 0.0),
        Cause("feature", "", 5 * DOLLAR, 0.0),
    ]
    said = told(finding, Verdict(0, 7 * DOLLAR, None, ()), causes, zone=UTC)

    assert said.title == "OpenAI spend where there usually is none"
    assert said.summary == (
        "$5.00 from 10:00 to 13:00 on 25 November (UTC); these hours usually cost $0.00. "
        "November so far: $7.00."
    )
    assert said.details == {
        "model": "gpt, $5.00, usually nothing",
        "endpoint": "outside of requests, $5.00, usually nothing",
        "spent_usd": 5.0,
        "expected_usd": 0.0,
    }
    assert timedelta(seconds=finding.end - finding.start) == timedelta(hours=3)
