"""The check's options, and what it keeps from one event loop to the next."""

import asyncio
import sys
import threading
import time
from typing import Any

import asyncpg
import pytest
from blockbuster import BlockBuster

from holistic_asgi_monitor.checks.postgres import Postgres as Check
from holistic_asgi_monitor.model import (
    Check as Protocol,
)
from holistic_asgi_monitor.model import (
    ConfigurationError,
    MissingExtraError,
    Status,
)
from holistic_asgi_monitor.settings import Settings
from tests.servers.postgres import Postgres

NOWHERE = "postgresql://shop:p#S3cret@db/orders"


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


def test_it_has_the_protocol_and_its_options() -> None:
    check: Protocol = Check(
        NOWHERE, name="orders", required=False, timeout=2, interval=9.5, depends_on=("net",)
    )

    assert isinstance(check, Protocol)
    assert (check.name, check.required, check.timeout) == ("orders", False, 2)
    assert (check.interval, check.depends_on) == (9.5, ("net",))


def test_its_name_is_database_and_it_is_required() -> None:
    check = Check(NOWHERE)

    assert (check.name, check.required, check.connections) == ("database", True, None)


def test_it_knows_its_secrets_and_shows_none() -> None:
    check = Check(NOWHERE)

    assert {NOWHERE, "p#S3cret"} <= set(check.secrets)
    assert "S3cret" not in repr(check)


def test_a_password_that_is_shown_all_the_same_is_not_hidden() -> None:
    assert "shop" not in Check("postgresql://shop:shop@db/orders").secrets


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), "3000", True])
def test_a_wrong_threshold_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"The check database has slow_ms=.* above 0"):
        Check(NOWHERE, slow_ms=wrong)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "10", True])
def test_a_wrong_number_of_connections_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"The check database has connections=.* above 0"):
        Check(NOWHERE, connections=wrong)


def test_an_address_of_something_else_is_refused_without_its_secret() -> None:
    with pytest.raises(ConfigurationError, match="begins with mysql://; allowed is") as raised:
        Check("mysql://shop:S3cret@db/orders")

    assert "S3cret" not in str(raised.value)


def test_an_address_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(MissingExtraError, match=r"checks.Postgres needs an extra: pip install '.*"):
        Check(NOWHERE)


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize(("lenient", "status"), [(True, Status.SKIPPED), (False, Status.UNKNOWN)])
async def test_on_trio_it_says_that_it_cannot(*, lenient: bool, status: Status) -> None:
    check = Check(NOWHERE)
    check.lenient = lenient

    result = await check()

    assert (result.status, result.message) == (
        status,
        "not checked: the drivers of PostgreSQL need asyncio, and this is trio",
    )
    await check.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_settings_fill_in_what_was_not_given(postgres: Postgres) -> None:
    settings = Settings(database_slow_ms=0.001, database_connections=7)

    result = await _once(Check(postgres.url()).configured(settings))
    assert result.status is Status.DEGRADED
    assert "slow is above 0.001 ms" in result.message
    assert result.details["max_size"] == 7

    given = Check(postgres.url(), name="orders", slow_ms=5000, connections=9).configured(settings)
    result = await _once(given)
    assert given.name == "orders"
    assert result.status is Status.HEALTHY
    assert result.details["max_size"] == 9


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_is_configured_has_a_connection_of_its_own(postgres: Postgres) -> None:
    check = Check(postgres.url())
    others = [check.configured(Settings()), check.configured(Settings())]
    for each in (check, *others):
        assert (await each()).status is Status.HEALTHY

    assert _sessions(postgres) == 3
    for each in (check, *others):
        await each.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_statement_has_a_name_that_a_bouncer_might_not_know(postgres: Postgres) -> None:
    check = Check(postgres.url())
    for _ in range(3):
        await check()

    source: Any = check._source
    named = "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"
    assert await source._kept.connection.fetchval(named) == 0
    await check.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_can_be_asked_again_after_its_end(postgres: Postgres) -> None:
    check = Check(postgres.url())
    for _ in range(3):
        assert (await check()).status is Status.HEALTHY
        await check.aclose()
        await check.aclose()

    assert _ended(postgres)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_those_who_ask_at_once_are_all_answered(postgres: Postgres) -> None:
    check = Check(postgres.url())

    results = await asyncio.gather(*(check() for _ in range(5)))

    assert {result.status for result in results} == {Status.HEALTHY}
    assert await asyncio.to_thread(_falls_to, postgres, 1)
    await check.aclose()


def test_it_goes_on_in_another_event_loop(postgres: Postgres) -> None:
    check = Check(postgres.url())

    for _ in range(3):
        assert asyncio.run(_once(check)).status is Status.HEALTHY
    assert _ended(postgres)


def test_a_connection_of_a_loop_that_still_runs_is_ended_there(postgres: Postgres) -> None:
    check = Check(postgres.url())
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        first = asyncio.run_coroutine_threadsafe(check(), other).result(10)
        assert first.status is Status.HEALTHY
        assert asyncio.run(_once(check)).status is Status.HEALTHY
        assert _ended(postgres)
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


def test_a_connection_of_a_loop_that_has_ended_is_given_up(postgres: Postgres) -> None:
    check = Check(postgres.url())

    assert asyncio.run(check()).status is Status.HEALTHY
    source: Any = check._source
    transport = source._kept.connection._transport
    assert asyncio.run(_once(check)).status is Status.HEALTHY

    assert _ended(postgres)
    # asyncio lets nobody close a transport whose loop has ended, and complains that nobody did.
    transport._sock.close()
    transport._sock = None


def test_a_hundred_loops_leave_no_connection(postgres: Postgres) -> None:
    check = Check(postgres.url())

    for _ in range(100):
        asyncio.run(_once(check))

    assert _ended(postgres)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_pool_stays_open_when_the_watch_ends(postgres: Postgres) -> None:
    async with asyncpg.create_pool(postgres.url(), min_size=1, max_size=1) as pool:
        check = Check(pool)
        await check()
        await check.aclose()

        assert await pool.fetchval("SELECT 1") == 1


async def _once(check: Check) -> Any:
    try:
        return await check()
    finally:
        await check.aclose()


def _sessions(server: Postgres) -> object:
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holistic-asgi-monitor'"
    return server.query(ours)[0][0]


def _falls_to(server: Postgres, number: int) -> bool:
    """Tell whether the server comes to have that many sessions of ours."""
    give_up = time.monotonic() + 5
    while _sessions(server) != number and time.monotonic() < give_up:
        time.sleep(0.01)
    return _sessions(server) == number


def _ended(server: Postgres) -> bool:
    return _falls_to(server, 0)
