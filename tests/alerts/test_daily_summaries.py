"""When a summary is sent, by whom, and what becomes of it: never two, and none of nothing."""

from __future__ import annotations

import json
import threading
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.store import UsersSeen
from holistic_asgi_monitor.history.values import Kind, Value
from holistic_asgi_monitor.model import Alert, AlertState, Severity
from holistic_asgi_monitor.notifiers.blocks import message
from holistic_asgi_monitor.usage import summaries
from holistic_asgi_monitor.usage.spend import DOLLAR
from holistic_asgi_monitor.usage.summaries import Summary
from tests.alerts.fleet import Fleet, Member
from tests.web.past import ran, requests, row, value, write

BERLIN = ZoneInfo("Europe/Berlin")
MIDNIGHT = datetime(2026, 11, 26, 0, 0, tzinfo=BERLIN)
NINE = MIDNIGHT + timedelta(hours=9)
ZONE = "Europe/Berlin"


def started(moment: datetime, **options: Any) -> AbstractAsyncContextManager[Fleet]:
    return Fleet(moment, **options).running()


async def spend(fleet: Fleet, moment: datetime, dollars: float = 1.0, calls: int = 10) -> None:
    """Calls of a model in one minute, in which the service ran."""
    extra = {"input": 1000 * calls, "output": 100 * calls, "status:success": calls}
    what = Value(calls, 0, round(dollars * DOLLAR), extra=extra)
    labels = ("gpt-4o", "/chat", "assistant")
    time = moment.timestamp()
    await write(fleet.store, row(Kind.SPEND, labels, time, what), ran(time))


async def run(fleet: Fleet, minutes: float, *, every: int = 1) -> None:
    """Let time pass, with the summaries of every process each so many minutes."""
    for _ in range(int(minutes / every)):
        await fleet.time.pass_by(60 * every)
        await errands(fleet)


async def errands(fleet: Fleet) -> None:
    for member in fleet.members:
        await member.bulletins.tend()
        await member.chronicle.write()
        await member.summaries()
    await fleet.settle()


def members(fleet: Fleet, count: int = 1, **settings: Any) -> list[Member]:
    return [fleet.member(**{"timezone": ZONE, **settings}) for _ in range(count)]


async def test_the_day_before_is_said_at_its_time_once_by_four(anyio_backend: str) -> None:
    async with started(NINE - timedelta(minutes=5)) as fleet:
        await spend(fleet, NINE - timedelta(days=1), 12.5)
        members(fleet, 4)
        await run(fleet, 4)
        assert fleet.said == []
        await run(fleet, 20)

        (alert,) = fleet.channel.alerts
        assert alert.title == "Summary of Wednesday, 25 November 2026"
        assert (alert.key, alert.severity) == ("bulletin: daily 2026-11-25", Severity.INFO)
        assert "OpenAI spend\n$12.50\n" in alert.summary
        assert alert.details["openai"]["usd"] == 12.5


async def test_the_next_day_has_its_own(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1), 2)
        members(fleet, 2)
        await run(fleet, 3)
        await spend(fleet, NINE + timedelta(hours=1), 3)
        await run(fleet, 25 * 60, every=20)

        assert fleet.said == [
            "Summary of Wednesday, 25 November 2026",
            "Summary of Thursday, 26 November 2026",
        ]
        assert "$3.00, 50 % more than the day before ($2.00)" in fleet.channel.alerts[1].summary


async def test_on_mondays_there_is_one_of_the_week_as_well(anyio_backend: str) -> None:
    monday = datetime(2026, 11, 30, 9, 0, tzinfo=BERLIN)
    async with started(monday) as fleet:
        for days in range(14, 0, -1):
            await spend(fleet, monday - timedelta(days=days), days)
        members(fleet, 2)
        await run(fleet, 10)

        assert sorted(fleet.said) == [
            "Summary of Sunday, 29 November 2026",
            "Summary of week 48, 23 November to 29 November 2026",
        ]
        (week,) = (each for each in fleet.channel.alerts if "week 48" in each.title)
        assert "$28.00, 64 % less than the week before ($77.00)" in week.summary
        assert "Most on Monday ($7.00), least on Sunday ($1.00)" in week.summary


@pytest.mark.parametrize("slept", [3, 24 * 5])
async def test_an_app_that_slept_says_the_latest_alone_when_it_wakes(
    anyio_backend: str, slept: int
) -> None:
    """Three hours late, or days: one message, and none for the days between."""
    wakes = NINE + timedelta(hours=slept)
    async with started(NINE - timedelta(minutes=10)) as fleet:
        for days in range(-7, 8):
            await spend(fleet, NINE - timedelta(days=days, hours=1))
        members(fleet, weekly_summary=False)
        await errands(fleet)
        first = len(fleet.said)
        await fleet.time.pass_by((wakes - NINE).total_seconds() + 600)
        for _ in range(5):
            await errands(fleet)
            await fleet.time.pass_by(60)

        yesterday = wakes - timedelta(days=1)
        assert len(fleet.said) - first == 1
        assert f"{yesterday.day} November" in fleet.said[-1]


@pytest.mark.parametrize(
    ("day", "at", "due"),
    [
        # 02:30 is not there that day; then it is there twice.
        ("2026-03-29", "02:30", "2026-03-29T01:00"),
        ("2026-10-25", "02:30", "2026-10-25T00:30"),
        ("2026-03-30", "09:00", "2026-03-30T07:00"),
        ("2026-10-26", "09:00", "2026-10-26T08:00"),
    ],
)
async def test_summer_time_changes_nothing_but_the_hour(
    anyio_backend: str, day: str, at: str, due: str
) -> None:
    moment = datetime.fromisoformat(due).replace(tzinfo=UTC)
    async with started(moment - timedelta(minutes=2)) as fleet:
        await spend(fleet, moment - timedelta(hours=8, days=1), 5)
        await spend(fleet, moment - timedelta(hours=10), 5)
        members(fleet, 2, summary_time=at, weekly_summary=False)
        await run(fleet, 1)
        before = len(fleet.said)
        await run(fleet, 150, every=2)

        yesterday = datetime.fromisoformat(day) - timedelta(days=1)
        assert len(fleet.said) - before == 1
        assert f"{yesterday.day} {yesterday:%B} 2026" in fleet.said[-1]


async def test_a_day_of_23_hours_counts_every_one_of_them(anyio_backend: str) -> None:
    start = datetime(2026, 3, 29, 0, 0, tzinfo=BERLIN).astimezone(UTC)
    async with started(start + timedelta(hours=32)) as fleet:
        for hour in range(-1, 24):
            await spend(fleet, start + timedelta(hours=hour, minutes=30))
        members(fleet, weekly_summary=False)
        await run(fleet, 3)

        (alert,) = fleet.channel.alerts
        assert "a day of 23 hours" in alert.summary
        assert "OpenAI spend\n$23.00" in alert.summary


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (datetime(2026, 12, 1, 9, 1, tzinfo=BERLIN), "November in all: $30.00"),
        (datetime(2026, 12, 2, 9, 1, tzinfo=BERLIN), "December so far: $2.00"),
        (datetime(2026, 3, 1, 9, 1, tzinfo=BERLIN), "February in all: $28.00"),
        (datetime(2027, 1, 1, 9, 1, tzinfo=BERLIN), "December in all: $31.00"),
    ],
)
async def test_the_month_is_the_one_of_the_day(
    anyio_backend: str, now: datetime, words: str
) -> None:
    async with started(now) as fleet:
        for days in range(-1, 50):
            await spend(fleet, now - timedelta(days=days, hours=2))
        members(fleet, weekly_summary=False)
        await run(fleet, 2)

        (alert,) = fleet.channel.alerts
        assert words in alert.summary


async def test_budgets_and_projection_are_told(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        for days in range(1, 40):
            await spend(fleet, NINE - timedelta(days=days), 4)
        budgets = {"openai_daily_budget_usd": 5, "openai_monthly_budget_usd": 100}
        members(fleet, **budgets)
        await run(fleet, 2)

        (alert,) = (each for each in fleet.channel.alerts if "Wednesday" in each.title)
        assert "80 % of the daily budget of $5.00" in alert.summary
        assert (
            "November so far: $100.00, 100 % of its budget of $100.00; on course" in alert.summary
        )


async def test_at_midnight_it_waits_for_what_the_last_minute_brought(anyio_backend: str) -> None:
    """Others write once a minute: asked at once, the last minutes would be missing."""
    async with started(MIDNIGHT - timedelta(minutes=1)) as fleet:
        await spend(fleet, MIDNIGHT - timedelta(minutes=3))
        members(fleet, 2, summary_time="00:00", weekly_summary=False)
        await fleet.time.pass_by(61)
        await errands(fleet)
        before = len(fleet.said)
        await spend(fleet, MIDNIGHT - timedelta(seconds=20), 4)
        await run(fleet, 5)

        assert len(fleet.said) - before == 1
        assert "OpenAI spend\n$5.00" in fleet.channel.alerts[-1].summary


@pytest.mark.parametrize("wanted", [True, None])
async def test_where_nothing_was_recorded_it_says_so_if_it_is_to(
    anyio_backend: str, wanted: bool | None
) -> None:
    async with started(NINE) as fleet:
        await write(fleet.store, ran((NINE - timedelta(days=1)).timestamp()))
        members(fleet, 2, daily_summary=wanted, weekly_summary=False)
        await run(fleet, 15)

        said = [alert.summary for alert in fleet.channel.alerts]
        nothing = "Nothing was recorded on this day: no request, no user, no call of OpenAI."
        when = f"Midnight to midnight, time zone {ZONE}"
        assert said == ([f"{nothing}\n\n{when}"] if wanted else [])
        for alert in fleet.channel.alerts:
            # Slack shows the sentence, and not the figures that are for machines.
            assert "{" not in "".join(
                block["text"]["text"]
                for block in message([alert], datetime.fromtimestamp(fleet.now, UTC))["blocks"]
                if block["type"] == "section"
            )


async def test_where_calls_could_not_be_seen_it_says_that(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        fleet.attached = False
        await write(fleet.store, ran((NINE - timedelta(days=1)).timestamp()))
        members(fleet, daily_summary=True)
        await run(fleet, 3)

        (alert,) = fleet.channel.alerts
        assert alert.summary.endswith("\n\nOpenAI tracking is not attached.")


@pytest.mark.parametrize("wanted", [True, None])
async def test_a_new_service_says_nothing_of_the_time_before_it(
    anyio_backend: str, wanted: bool | None
) -> None:
    async with started(NINE - timedelta(hours=1)) as fleet:
        await spend(fleet, NINE - timedelta(minutes=50))
        members(fleet, daily_summary=wanted, weekly_summary=wanted)
        await run(fleet, 100, every=5)

        assert fleet.said == []


async def test_once_it_is_said_nothing_is_read_any_more(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        await write(fleet.store, ran((NINE - timedelta(days=6)).timestamp()))
        both = members(fleet, 2)
        await run(fleet, 4)
        assert len(fleet.said) == 1

        asked: list[object] = []

        async def read(query: object, _: float) -> Any:
            asked.append(query)
            raise OSError

        for member in both:
            monkeypatch.setattr(member.store, "read", read, raising=False)
        await run(fleet, 4)

        assert asked == []


@pytest.mark.parametrize("hours", [-2, 24, 24 * 40])
async def test_a_clock_that_is_wrong_for_a_while_neither_doubles_nor_loses_one(
    anyio_backend: str, hours: int
) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        members(fleet, 2, weekly_summary=False)
        await run(fleet, 5)
        fleet.turn_clock(hours)
        await run(fleet, 20)
        fleet.turn_clock(-hours)
        await run(fleet, 5)
        await spend(fleet, NINE + timedelta(hours=8))
        await run(fleet, 25 * 60, every=20)

        assert fleet.said == [
            "Summary of Wednesday, 25 November 2026",
            "Summary of Thursday, 26 November 2026",
        ]


async def test_switched_off_it_says_nothing(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        members(fleet, daily_summary=False, weekly_summary=False)
        await run(fleet, 10)

        assert fleet.said == []


@pytest.mark.parametrize("wanted", [True, None])
async def test_without_history_there_is_nothing_to_say(
    anyio_backend: str, wanted: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(NINE, store=Off()) as fleet:
        (member,) = members(fleet, daily_summary=wanted)
        member.recorder.store = fleet.store
        await run(fleet, 10)

        assert fleet.said == []
        assert caplog.text.count("Summaries are asked for") == int(wanted is True)


@pytest.mark.parametrize("what", ["users", "feature"])
async def test_users_or_features_alone_are_worth_it(anyio_backend: str, what: str) -> None:
    yesterday = (NINE - timedelta(days=1)).timestamp()
    day = int(yesterday // 86_400)
    hashes = frozenset(bytes([number]) * 8 for number in range(3))
    used = row(Kind.FEATURES, ("export",), yesterday, Value(7))
    async with started(NINE) as fleet:
        users = (UsersSeen(day, "", hashes),) if what == "users" else ()
        rows = [used] if what == "feature" else []
        await write(fleet.store, ran(yesterday), *rows, users=users)
        members(fleet, 2)
        await run(fleet, 3)

        (alert,) = fleet.channel.alerts
        words = "3 active users" if what == "users" else "Features used: export 7"
        assert words in alert.summary


async def test_users_of_a_day_that_is_not_over_in_utc_are_not_called_fewer(
    anyio_backend: str,
) -> None:
    sydney = ZoneInfo("Australia/Sydney")
    nine = datetime(2026, 11, 26, 9, 0, tzinfo=sydney)
    day = (
        datetime(2026, 11, 25, tzinfo=UTC).toordinal()
        - datetime(1970, 1, 1, tzinfo=UTC).toordinal()
    )
    async with started(nine) as fleet:
        for days, count in ((-1, 9), (0, 5)):
            hashes = frozenset(bytes([number]) * 8 for number in range(count))
            seen = UsersSeen(day + days, "", hashes)
            noon = (nine + timedelta(days=days - 1, hours=3)).timestamp()
            await write(fleet.store, ran(noon), users=(seen,))
        members(fleet, timezone="Australia/Sydney", weekly_summary=False)
        await run(fleet, 3)

        (alert,) = fleet.channel.alerts
        assert alert.summary.endswith("Users\n5 active users (of the UTC day, which is not over)")


async def test_the_event_loop_does_not_wait_for_the_text(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand endpoints it takes tens of milliseconds."""
    threads: list[bool] = []

    def summary_of(*args: Any) -> Summary:
        threads.append(threading.current_thread() is threading.main_thread())
        return summaries.summary_of(*args)

    monkeypatch.setattr("holistic_asgi_monitor.alerts.summaries.summary_of", summary_of)
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        members(fleet)
        await run(fleet, 3)

        assert (len(fleet.said), threads) == (1, [False])


async def test_four_that_lose_the_store_for_a_moment_say_it_once(anyio_backend: str) -> None:
    """As while a database is failed over: it can be read, and next it cannot be written."""
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        four = members(fleet, 4)
        for member in four:
            member.store.stuck = True
        await run(fleet, 2)
        assert fleet.said == []
        for member in four:
            member.store.stuck = False
        await run(fleet, 15)

        assert len(fleet.said) == 1


async def test_where_nothing_can_be_written_for_long_it_is_said_all_the_same(
    anyio_backend: str,
) -> None:
    """As on a full disk: each process that can read it says it."""
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        (member,) = members(fleet)
        member.store.stuck = True
        await run(fleet, 60)

        assert len(fleet.said) == 1


async def test_a_store_that_comes_back_late_delays_it(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        (member,) = members(fleet)
        member.store.lost = True
        await run(fleet, 30)
        assert fleet.said == []
        member.store.lost = False
        await run(fleet, 3)

        assert len(fleet.said) == 1


async def test_who_dies_while_composing_is_followed(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> Any:
        raise RuntimeError("S3cret")

    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1))
        first, _ = members(fleet, 2)
        monkeypatch.setattr(first.chronicle, "read", broken)
        await run(fleet, 15)

        assert len(fleet.said) == 1
        assert "S3cret" not in caplog.text


async def test_requests_endpoints_and_incidents_are_in_it(anyio_backend: str) -> None:
    yesterday = NINE - timedelta(days=1)
    async with started(yesterday) as fleet:
        (member,) = members(fleet, daily_summary=True)
        time = yesterday.timestamp()
        slow = requests(time, "/reports/{id}", value([2.0] * 30, errors=3))
        await write(fleet.store, ran(time), *slow)
        for start, end in ((0, 60), (300, 1500)):
            for ended in (None, end):
                member.chronicle.note(incident("redis", yesterday, start, ended))
        await member.chronicle.write()
        await fleet.time.pass_by(24 * 3600)
        await errands(fleet)

        text = fleet.channel.alerts[-1].summary
        assert "30 requests\n3 (10 %) failed" in text
        assert "Slowest (p95): GET /reports/{id} 2 s" in text
        assert "Most failures: GET /reports/{id} 3 (10 %)" in text
        assert "2 incidents; the longest: redis (error), 20 min from 09:05 on" in text


def incident(key: str, time: datetime, start: float, end: float | None) -> Alert:
    return Alert(
        key,
        Severity.ERROR,
        AlertState.FIRING if end is None else AlertState.RESOLVED,
        f"{key} is down",
        "",
        time + timedelta(seconds=start),
        None if end is None else time + timedelta(seconds=end),
    )


async def test_what_was_said_last_is_known_to_all_and_after_a_restart(anyio_backend: str) -> None:
    async with started(NINE) as fleet:
        await spend(fleet, NINE - timedelta(days=1), 12.5)
        first, other = members(fleet, 2)
        assert await other.summaries.last() == {"daily": None, "weekly": None}
        await run(fleet, 3)
        for member in (other, *members(fleet)):
            said = await member.summaries.last()
            assert said["weekly"] is None
            assert said["daily"]["period"] == "2026-11-25"
            assert said["daily"]["title"] == fleet.said[0]
            assert said["daily"]["text"] == fleet.channel.alerts[0].summary
            assert said["daily"]["figures"]["openai"]["usd"] == 12.5
        first.store.lost = other.store.lost = True
        await fleet.time.pass_by(120)
        assert (await other.summaries.last())["daily"]["period"] == "2026-11-25"


@pytest.mark.parametrize("text", ["", "[]", "{", 100_001 * " ", json.dumps("daily")])
async def test_what_nobody_can_read_counts_as_nothing(anyio_backend: str, text: str) -> None:
    async with started(NINE) as fleet:
        (member,) = members(fleet)
        await member.recorder.put_state("summary daily", text)

        assert await member.summaries.last() == {"daily": None, "weekly": None}


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "America/New_York"])
async def test_a_day_ends_to_the_minute_in_any_zone(anyio_backend: str, zone: str) -> None:
    place = ZoneInfo(zone)
    midnight = datetime(2026, 11, 25, 0, 0, tzinfo=place)
    async with started(midnight + timedelta(hours=33, minutes=1)) as fleet:
        for minutes in (-1, 0, 24 * 60 - 1, 24 * 60):
            await spend(fleet, midnight + timedelta(minutes=minutes))
        members(fleet, timezone=zone, weekly_summary=False)
        await run(fleet, 2)

        (alert,) = fleet.channel.alerts
        assert alert.title == "Summary of Wednesday, 25 November 2026"
        assert "OpenAI spend\n$2.00, 100 % more than the day before ($1.00)" in alert.summary
