"""What the statistics say of OpenAI: exact, of the month, and the same after a restart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.history.ledger import Ledger
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Answer, Query, StoreError
from holistic_asgi_monitor.history.values import Kind, Sum, Value
from holistic_asgi_monitor.usage.spend import DOLLAR
from holistic_asgi_monitor.usage.spending import Account, Spending, spent, total_of
from holistic_asgi_monitor.web.spend import SpendStats
from tests.web.exchanges import get
from tests.web.past import row, write

NOTHING = {"input": 0, "output": 0, "cached": 0, "reasoning": 0}
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()
DAY, HOUR = 86_400, 3600
# Where it is about noon now: no test runs over midnight there. Zones are read before a loop runs.
MIDDAY = ZoneInfo(f"Etc/GMT{datetime.now(UTC).hour - 12:+d}")
BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")


def monitored(url: str) -> Monitor:
    return Monitor(
        Starlette(),
        settings=Settings(service="shop", history_url=url, access="open", timezone=MIDDAY.key),
        checks=[],
        notifiers=[],
    )


async def stats(monitor: Monitor) -> Any:
    exchange = await get(monitor, "/api/monitoring/stats")
    assert exchange.status == 200
    return json.loads(exchange.body)["openai"]


def call(monitor: Monitor) -> None:
    """Two models, one of which has no price."""
    usage = {"input": 1000, "output": 50, "cached": 200, "reasoning": 7}
    for _ in range(3):
        monitor.track_openai_call("gpt", cost=0.1, usage=usage)
    monitor.track_openai_call("gpt", "rate_limited")
    monitor.track_openai_call("whisper", "success")


EXACT = {
    "calls": 5,
    "errors": 1,
    "tokens": {"input": 3000, "output": 150, "cached": 600, "reasoning": 21},
    "unpriced_calls": 1,
    "cost_usd": {"today": 0.3, "last_7_days": 0.3, "month": 0.3, "projected_month": None},
    "models": [
        {
            "model": "gpt",
            "calls": 4,
            "errors": 1,
            "tokens": {"input": 3000, "output": 150, "cached": 600, "reasoning": 21},
            "unpriced_calls": 0,
            "cost_usd": 0.3,
        },
        {
            "model": "whisper",
            "calls": 1,
            "errors": 0,
            "tokens": NOTHING,
            "unpriced_calls": 1,
            "cost_usd": None,
        },
    ],
}


async def test_calls_are_there_at_once_and_after_a_restart(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/history.sqlite"
    first = monitored(url)
    async with first:
        call(first)
        assert await stats(first) == EXACT
    again = monitored(url)
    async with again:
        assert await stats(again) == EXACT
        call(again)
        assert (await stats(again))["calls"] == 10


async def test_where_history_is_off_it_is_what_memory_knows() -> None:
    monitor = monitored("off")
    call(monitor)
    assert await stats(monitor) == EXACT
    async with monitor:
        call(monitor)
        assert (await stats(monitor))["cost_usd"]["month"] == 0.6


async def test_without_a_call_all_is_nothing() -> None:
    monitor = monitored("memory:")
    async with monitor:
        found = await stats(monitor)

    assert found == {
        "calls": 0,
        "errors": 0,
        "tokens": NOTHING,
        "unpriced_calls": 0,
        "cost_usd": {"today": 0, "last_7_days": 0, "month": 0, "projected_month": None},
        "models": [],
    }


async def test_where_nobody_watches_it_is_what_waits_and_nothing_is_opened(tmp_path: Any) -> None:
    """As in a test of the app whose client sends no lifespan."""
    file = tmp_path / "history.sqlite"
    monitor = monitored(f"sqlite:///{file}")
    call(monitor)
    assert await stats(monitor) == EXACT
    assert not file.exists()
    async with monitor:
        call(monitor)
        assert (await stats(monitor))["calls"] == 10
    assert (await stats(monitor))["calls"] == 10


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), "free", 10**400])
async def test_what_cannot_be_a_cost_is_no_price(cost: Any) -> None:
    monitor = monitored("memory:")
    async with monitor:
        monitor.track_openai_call("gpt", cost=1.5)
        monitor.track_openai_call("gpt", cost=cost, usage={"input": -5, "output": 7})
        found = await stats(monitor)
        metrics = monitor._parts.catalogue

    assert (found["calls"], found["unpriced_calls"]) == (2, 1)
    assert found["cost_usd"]["month"] == 1.5
    assert found["tokens"] == {**NOTHING, "output": 7}
    assert metrics.openai_calls.values == {("gpt", "success"): 2}
    assert metrics.openai_cost.values == {("gpt",): 1.5}
    assert metrics.openai_unpriced.values == {("gpt",): 1}
    assert metrics.openai_tokens.values == {("gpt", "output"): 7}


async def test_ten_thousand_tiny_calls_add_up_exactly() -> None:
    monitor = monitored("memory:")
    async with monitor:
        for _ in range(10_000):
            monitor.track_openai_call("nano", cost=0.000000005, usage={"input": 1})
        found = await stats(monitor)

    assert found["cost_usd"]["today"] == found["models"][0]["cost_usd"] == 0.00005
    assert found["calls"] == found["tokens"]["input"] == 10_000


async def test_what_is_free_costs_nothing_and_has_a_price() -> None:
    monitor = monitored("memory:")
    async with monitor:
        monitor.track_openai_call("house", cost=0)
        found = await stats(monitor)

    assert found["cost_usd"]["today"] == found["models"][0]["cost_usd"] == 0
    assert found["unpriced_calls"] == 0


@pytest.mark.parametrize(
    ("days_ago", "today", "last_7_days"), [(0.1, None, 1.0), (5, 0.0, 1.0), (15, 0.0, 1.0)]
)
async def test_a_day_of_calls_without_a_price_is_not_known(
    store: SQLite, days_ago: float, today: float | None, last_7_days: float
) -> None:
    """Though the month is."""
    unpriced = Value(1, 0, 0, 0, {}, {"unpriced": 1})
    paid = row(Kind.SPEND, ("gpt", "", ""), NOON - 2 * DAY, costing(1.0))
    await write(store, paid, row(Kind.SPEND, ("new", "", ""), NOON - days_ago * DAY, unpriced))
    cost = (await SpendStats(lambda: spending_of(store, NOON)).as_dict())["cost_usd"]

    assert (cost["today"], cost["last_7_days"], cost["month"]) == (today, last_7_days, 1.0)


async def test_a_month_of_calls_without_a_price_has_no_projection(store: SQLite) -> None:
    unpriced = Value(1, 0, 0, 0, {}, {"unpriced": 1})
    times = [NOON - days * DAY for days in range(10)]
    await write(store, *(row(Kind.SPEND, ("new", "", ""), time, unpriced) for time in times))
    cost = (await SpendStats(lambda: spending_of(store, NOON)).as_dict())["cost_usd"]

    assert cost == dict.fromkeys(("today", "last_7_days", "month", "projected_month"))


@pytest.mark.parametrize(("days_ago", "last_7_days"), [(5, None), (15, 0.0)])
async def test_a_week_of_calls_without_a_price_is_not_known(
    store: SQLite, days_ago: float, last_7_days: float | None
) -> None:
    unpriced = Value(1, 0, 0, 0, {}, {"unpriced": 1})
    paid = row(Kind.SPEND, ("gpt", "", ""), NOON - 20 * DAY, costing(1.0))
    await write(store, paid, row(Kind.SPEND, ("new", "", ""), NOON - days_ago * DAY, unpriced))
    cost = (await SpendStats(lambda: spending_of(store, NOON)).as_dict())["cost_usd"]

    assert (cost["today"], cost["last_7_days"], cost["month"]) == (0.0, last_7_days, 1.0)


async def test_what_only_calls_without_a_price_cost_is_not_known() -> None:
    monitor = monitored("memory:")
    async with monitor:
        monitor.track_openai_call("whisper")
        found = await stats(monitor)

    assert found["cost_usd"]["month"] is found["cost_usd"]["today"] is None
    assert found["unpriced_calls"] == 1


# The calendar


@pytest.fixture
async def store(anyio_backend: str) -> AsyncIterator[SQLite]:
    made = SQLite(None, max_mb=50)
    await made.open()
    yield made
    await made.close()


def costing(dollars: float) -> Value:
    return Value(1, 0, round(dollars * DOLLAR), 0, {}, {"input": 10, "status:success": 1})


async def costs(
    store: SQLite, times: dict[float, float], now: float = NOON, zone: tzinfo = UTC
) -> Any:
    """What is shown at a time of what was spent at these times."""
    rows = [
        row(Kind.SPEND, ("gpt", "", ""), time, costing(dollars)) for time, dollars in times.items()
    ]
    await write(store, *rows)
    return (await SpendStats(lambda: spending_of(store, now, zone)).as_dict())["cost_usd"]


def spending_of(store: SQLite, now: float, zone: tzinfo = UTC) -> Spending:
    return Spending(lambda query: store.read(query, now), lambda: now, zone)


def moment(text: str, zone: tzinfo = UTC) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


async def test_today_and_the_month_are_those_of_the_calendar(store: SQLite) -> None:
    found = await costs(
        store,
        {
            moment("2026-10-31T23:59"): 100,
            moment("2026-11-01T00:00"): 1,
            moment("2026-11-18T10:59"): 2,
            moment("2026-11-18T12:00"): 4,
            moment("2026-11-24T23:59"): 8,
            moment("2026-11-25T00:00"): 16,
        },
    )

    assert (found["today"], found["last_7_days"], found["month"]) == (16, 28, 31)


@pytest.mark.parametrize(
    ("zone", "midnight"), [(BERLIN, "2026-10-31T23:00"), (KOLKATA, "2026-10-31T18:30")]
)
async def test_they_begin_in_the_zone_of_the_settings(
    store: SQLite, zone: tzinfo, midnight: str
) -> None:
    begin = moment(midnight)
    found = await costs(store, {begin - 60: 1, begin: 2}, now=begin + 90, zone=zone)
    assert (found["today"], found["month"]) == (2, 2)

    later = SpendStats(lambda: spending_of(store, begin + 25 * HOUR, zone))
    cost = (await later.as_dict())["cost_usd"]
    assert (cost["today"], cost["month"], cost["last_7_days"]) == (0, 2, 3)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
async def test_a_day_of_summer_time_change_is_whole(store: SQLite, day: str, hours: int) -> None:
    begin = moment(day, BERLIN)
    times = {begin + hour * HOUR: 1.0 for hour in range(-1, hours + 1)}
    found = await costs(store, times, now=begin + hours * HOUR - 1, zone=BERLIN)

    assert found["today"] == hours


async def test_it_goes_on_over_months_with_what_it_has_read(store: SQLite) -> None:
    clock = [moment("2026-11-30T22:10")]
    spending = Spending(lambda query: store.read(query, clock[0]), lambda: clock[0], UTC)
    shown = SpendStats(lambda: spending)
    for hour in range(6):
        now = clock[0] = moment("2026-11-30T22:10") + hour * HOUR
        await write(store, row(Kind.SPEND, ("gpt", "", ""), now, costing(1)))
        found = await shown.as_dict()
        since_midnight = hour + 1 if hour < 2 else hour - 1
        assert found["cost_usd"]["month"] == found["cost_usd"]["today"] == since_midnight
        assert found["calls"] == since_midnight
        assert found["cost_usd"]["last_7_days"] == hour + 1


async def test_a_projection_comes_with_the_days(store: SQLite) -> None:
    times = {NOON - number * DAY: 2.0 for number in range(10)}
    found = await costs(store, times)

    # 20 so far, 5 more days, and nothing more today: it comes at noon, half of that hour is over.
    assert found["projected_month"] == pytest.approx(20 + 5 * 2 + 2, abs=2.1)


# What can go wrong


async def shown_after(read: Callable[[Query], Awaitable[Answer]]) -> list[Any]:
    reads: list[Callable[[Query], Awaitable[Answer]]] = [_two_dollars, read]
    place = [0]

    async def either(query: Query) -> Answer:
        return await reads[place[0]](query)

    spending = Spending(either, lambda: NOON + place[0] * 2 * DAY, UTC)
    shown = SpendStats(lambda: spending, 0.05)
    first = await shown.as_dict()
    place[0] = 1
    return [first, await shown.as_dict()]


async def _two_dollars(query: Query) -> Answer:
    labels = tuple("gpt" for _ in query.by)
    groups = {labels: {int(NOON): costing(2.0)}} if query.start <= NOON < query.end else {}
    return Answer(query.start, query.end, HOUR, groups)


async def _refused(_: Query) -> Answer:
    raise StoreError("the store cannot be reached")


async def _silent(_: Query) -> Answer:
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("read", [_refused, _silent])
async def test_where_history_cannot_be_read_the_last_figures_stand(
    read: Callable[[Query], Awaitable[Answer]],
) -> None:
    first, second = await shown_after(read)

    assert first["cost_usd"]["today"] == 2
    assert second == first


async def test_days_whose_hours_are_lost_are_spread_over_them() -> None:
    async def read(query: Query) -> Answer:
        """Of days that are over only the whole is known."""
        start = query.start // DAY * DAY
        if query.end > NOON // DAY * DAY:
            return Answer(query.start, query.end, HOUR, {})
        return Answer(start, start + DAY, DAY, {(): {start: costing(24.0)}})

    stand = await Spending(read, lambda: NOON, UTC).stand()

    assert {day.hours for day in stand.past.days} == {(DOLLAR,) * 24}
    assert len(stand.past.days) == 63


async def test_figures_add_up_by_any_label(store: SQLite) -> None:
    for number, labels in enumerate((("a", "/x", "f"), ("a", "/y", "f"), ("b", "/x", ""))):
        await write(store, row(Kind.SPEND, labels, NOON, costing(number + 1)))

    async def read(query: Query) -> Answer:
        return await store.read(query, NOON)

    async def nano(*by: str) -> dict[tuple[str, ...], int]:
        figures = await spent(read, int(NOON) - HOUR, int(NOON) + HOUR, by)
        return {group: each.nano_usd // DOLLAR for group, each in figures.items()}

    assert await nano() == {(): 6}
    assert await nano("model") == {("a",): 3, ("b",): 3}
    assert await nano("endpoint") == {("/x",): 4, ("/y",): 2}
    figures = await spent(read, int(NOON), int(NOON) + HOUR, ("feature",))
    assert total_of(figures.values()).by_status == {"success": 3}
    assert total_of(figures.values()).tokens == {**NOTHING, "input": 30}


# The account of memory


def noted(ledger: Ledger, model: str = "gpt", dollars: float = 1.0) -> None:
    ledger.note_spend(model, status="success", nano_usd=round(dollars * DOLLAR), tokens={})


async def test_the_account_forgets_what_nobody_asks_for() -> None:
    now = [NOON]
    account = Account(lambda: now[0])
    noted(account.ledger)
    query = Query(Kind.SPEND, int(NOON) - HOUR, int(NOON) + HOUR, by=("model",))
    assert (await account.read(query)).groups.keys() == {("gpt",)}
    now[0] += 64 * DAY
    assert (await account.read(query)).groups == {}


async def test_a_long_memory_does_not_hold_up_the_event_loop() -> None:
    """Nor is all of it looked through for each day."""
    now = [NOON - 40 * DAY]
    account, seen = Account(lambda: now[0]), list[int]()
    while now[0] < NOON:
        noted(account.ledger)
        account.settle()
        now[0] += 6 * HOUR
    spending = Spending(account.read, lambda: now[0], UTC)

    async def others() -> None:
        while True:
            await anyio.lowlevel.checkpoint()
            seen.append(len(seen))

    async with anyio.create_task_group() as group:
        group.start_soon(others)
        stand = await spending.stand()
        group.cancel_scope.cancel()

    assert len(stand.past.days) == 40
    assert len(seen) >= 40


async def test_the_account_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holistic_asgi_monitor.usage.spending.MOST_ENTRIES", 5)
    now = [NOON]
    account = Account(lambda: now[0])
    for hour in range(10):
        now[0] = NOON + hour * HOUR
        noted(account.ledger)
        account.settle()

    answer = await account.read(Query(Kind.SPEND, int(NOON), int(NOON) + DAY))
    assert Sum.of(answer.groups[()].values()).count == 5
    assert account.dropped == 5
