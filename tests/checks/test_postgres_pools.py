"""The check on a pool that the app has: asyncpg's, psycopg's and SQLAlchemy's."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg_pool
import pytest
from blockbuster import BlockBuster
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from holistic_asgi_monitor.checks.pools import Connections
from holistic_asgi_monitor.checks.postgres import Postgres as Check
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from tests.servers.faults import Proxy
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

LIMIT = 0.5
IN_TIME = LIMIT + 0.05
LOADED = 0.25
ROUNDS = 100
LARGEST = 2
PASSWORD = "p#S3cret"


@dataclass
class App:
    """A pool of at most LARGEST connections, and how its app takes one of them."""

    pool: Any
    take: Callable[[AsyncExitStack], Awaitable[Any]]


@asynccontextmanager
async def asyncpg_app(dsn: str) -> AsyncIterator[App]:
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=LARGEST)
    try:
        yield App(pool, lambda stack: stack.enter_async_context(pool.acquire()))
    finally:
        pool.terminate()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def psycopg_app(dsn: str) -> AsyncIterator[App]:
    pool = psycopg_pool.AsyncConnectionPool(dsn, min_size=0, max_size=LARGEST, open=False)
    await pool.open()
    try:
        yield App(pool, lambda stack: stack.enter_async_context(pool.connection()))
    finally:
        await pool.close(0.1)


@asynccontextmanager
async def sqlalchemy_app(dsn: str, driver: str) -> AsyncIterator[App]:
    engine = create_async_engine(
        dsn.replace("postgresql", f"postgresql+{driver}"), pool_size=1, max_overflow=LARGEST - 1
    )
    try:
        yield App(engine, lambda stack: stack.enter_async_context(engine.connect()))
    finally:
        await engine.dispose()


APPS = {
    "asyncpg": asyncpg_app,
    "asyncpg, PostgreSQL 16": asyncpg_app,
    "psycopg": psycopg_app,
    "sqlalchemy on asyncpg": lambda dsn: sqlalchemy_app(dsn, "asyncpg"),
    "sqlalchemy on psycopg": lambda dsn: sqlalchemy_app(dsn, "psycopg"),
}


@pytest.fixture(params=APPS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def postgres(request: pytest.FixtureRequest, postgres: Postgres) -> Postgres:
    """Return the server that the kind of pool is tried on."""
    if "kind" not in request.fixturenames or "16" not in request.getfixturevalue("kind"):
        return postgres
    older: Postgres = request.getfixturevalue("postgres16")
    return older


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let the drivers look for files in the user's home, as they do whenever they connect."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


@pytest.fixture
def front(postgres: Postgres, proxy: Callable[[Postgres], Proxy]) -> Proxy:
    return proxy(postgres)


@asynccontextmanager
async def app_of(kind: str, postgres: Postgres, front: Proxy) -> AsyncIterator[App]:
    async with APPS[kind](postgres.url(port=front.port)) as app:
        try:
            yield app
        finally:
            front.restore()
            postgres.thaw()


async def timed(check: Check) -> tuple[CheckResult, float]:
    began = time.monotonic()
    result = await check()
    return result, time.monotonic() - began


async def connections(front: Proxy, expected: int) -> int:
    """Return how many clients the proxy has, once there are no more than expected."""
    give_up = time.monotonic() + 5
    while front.connections > expected and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    return front.connections


async def test_a_pool_that_is_well(kind: str, postgres: Postgres, front: Proxy) -> None:
    async with app_of(kind, postgres, front) as app, AsyncExitStack() as taken:
        check = Check(app.pool)
        await app.take(taken)

        result = await check()

        version = str(postgres.query("SHOW server_version")[0][0])
        where = f"127.0.0.1:{front.port}/postgres"
        assert (result.status, result.message) == (
            Status.HEALTHY,
            f"PostgreSQL {version} at {where} answers",
        )
        expected = {"server": where, "server_version": version, "in_use": 1, "max_size": LARGEST}
        assert expected.items() <= result.details.items()
        assert result.details["in_recovery"] is result.details["read_only"] is False
        assert "server_max_connections" not in result.details
        # It counts what is in use without the check.
        assert check.connections == Connections(1, 0, 1)


async def test_a_pool_is_given_back_what_was_taken(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool)
        for _ in range(5):
            assert (await check()).status is Status.HEALTHY

        # The check on psycopg's pool asks on a connection of its own, each time another.
        mine = kind == "psycopg"
        assert front.accepted == (5 if mine else 1)
        assert check.connections == (Connections(0, 0, 0) if mine else Connections(0, 1, 1))
        assert await connections(front, 0 if mine else 1) == (0 if mine else 1)
        idle = postgres.query(
            "SELECT state FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        assert idle == [] if mine else [("idle",)]


async def test_a_pool_with_all_in_use_is_degraded_though_one_comes_free(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app, AsyncExitStack() as taken:
        check = Check(app.pool, timeout=5)
        for _ in range(LARGEST):
            await app.take(taken)

        asking = asyncio.ensure_future(check())
        await asyncio.sleep(0.05)
        await taken.aclose()
        result = await asking

        assert (result.status, result.message) == (
            Status.DEGRADED,
            "all 2 connections of the pool are in use",
        )
        assert "server_version" in result.details
        assert check.connections == Connections(2, 0, 2)
        assert (await check()).status is Status.HEALTHY


async def test_a_pool_with_all_in_use_before_a_silent_server_is_critical(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, timeout=LIMIT)
        async with AsyncExitStack() as taken:
            for _ in range(LARGEST):
                await app.take(taken)
            postgres.freeze()
            result, seconds = await timed(check)
            postgres.thaw()

        assert seconds < IN_TIME + LOADED
        assert (result.status, result.message) == (
            # SQLAlchemy has no way past its pool.
            (
                Status.DEGRADED,
                "all 2 connections of the pool are in use; none came free within 0.5 s",
            )
            if "sqlalchemy" in kind
            else (
                Status.CRITICAL,
                f"PostgreSQL at 127.0.0.1:{front.port} gave no answer within 0.5 s",
            )
        )


async def test_a_pool_with_all_in_use_is_degraded_where_none_comes_free(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, timeout=LIMIT)
        async with AsyncExitStack() as taken:
            for _ in range(LARGEST):
                await app.take(taken)
            result, seconds = await timed(check)

        # SQLAlchemy has no way past its pool, so the question waits like everybody's.
        waited = "; none came free within 0.5 s" if "sqlalchemy" in kind else ""
        assert (result.status, result.message) == (
            Status.DEGRADED,
            f"all 2 connections of the pool are in use{waited}",
        )
        assert seconds < IN_TIME + LOADED
        assert (await check()).status is Status.HEALTHY
        assert await connections(front, LARGEST) <= LARGEST


@pytest.mark.parametrize("kind", ["asyncpg", "psycopg"], indirect=True)
async def test_those_who_wait_for_a_connection_are_counted(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app, AsyncExitStack() as waiting:
        check = Check(app.pool)
        async with AsyncExitStack() as taken:
            for _ in range(LARGEST):
                await app.take(taken)
            waits = asyncio.ensure_future(app.take(waiting))
            await asyncio.sleep(0.01)
            result = await check()
        await waits

        assert result.details["waiters"] == 1
        assert result.message == (
            "all 2 connections of the pool are in use, and callers wait for one: 1"
        )


FAULTS: dict[str, Callable[[Postgres, Proxy], None]] = {
    "black hole": lambda postgres, front: front.black_hole(),
    "frozen": lambda postgres, front: postgres.freeze(),
}


@pytest.mark.parametrize("known", [True, False], ids=["idle connection", "empty pool"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_silent_server_is_told_in_time_and_its_return_seen_at_once(
    kind: str, fault: str, known: bool, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, timeout=LIMIT)
        if known:
            assert (await check()).status is Status.HEALTHY

        FAULTS[fault](postgres, front)
        for _ in range(2):
            result, seconds = await timed(check)
            assert (result.status, result.message) == (
                Status.CRITICAL,
                f"PostgreSQL at 127.0.0.1:{front.port} gave no answer within 0.5 s",
            )
            assert seconds < IN_TIME + LOADED

        front.restore()
        postgres.thaw()
        result = await Check(app.pool)()
        assert (result.status, result.message[:10]) == (Status.HEALTHY, "PostgreSQL")


async def test_an_idle_connection_that_was_cut_is_made_anew(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool)
        await check()
        front.cut(after=1)

        assert (await check()).status is Status.HEALTHY
        assert front.accepted == (3 if kind == "psycopg" else 2)


async def test_a_restarted_server_is_seen_at_once(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool)
        await check()
        postgres.restart()

        assert (await check()).status is Status.HEALTHY


async def test_a_refusing_server_is_critical(kind: str, postgres: Postgres, front: Proxy) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, timeout=LIMIT)
        front.refuse()

        result, seconds = await timed(check)

        # What psycopg says of a connection that it does not get is a text alone.
        where = f"PostgreSQL at 127.0.0.1:{front.port}"
        assert result.status is Status.CRITICAL
        assert result.message == (
            f"there was no connection to {where}"
            if "psycopg" in kind
            else f"{where} refuses connections"
        )
        assert seconds < IN_TIME + LOADED


async def test_slow_is_degraded(kind: str, postgres: Postgres, front: Proxy) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, slow_ms=50, timeout=5)
        assert (await check()).status is Status.HEALTHY
        front.delay(0.06)

        result = await check()

        assert result.status is Status.DEGRADED
        assert "ms to answer; slow is above 50 ms" in result.message


def left_over() -> tuple[int, int]:
    gc.collect()
    return len(asyncio.all_tasks()), threading.active_count()


def files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
async def forgiving() -> AsyncIterator[None]:
    """Pass over what asyncpg itself leaves behind now and then.

    A pool of it that is cancelled in the first moment of a connection forgets a future, which is
    then told of the connection's end, and nobody asks for it.
    """
    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()

    def pass_over(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if "unexpected connection_lost() call" in str(context.get("exception")):
            return
        if handler is not None:
            handler(loop, context)

    loop.set_exception_handler(pass_over)
    yield
    loop.set_exception_handler(handler)


@pytest.mark.usefixtures("forgiving")
async def test_a_hundred_rounds_in_a_black_hole_leave_nothing_behind(
    kind: str, postgres: Postgres, front: Proxy
) -> None:
    async with app_of(kind, postgres, front) as app:
        check = Check(app.pool, timeout=0.02)
        patient = Check(app.pool, timeout=10)
        await patient()
        (tasks, threads), open_files = left_over(), files()
        for _ in range(ROUNDS // 2):
            front.black_hole()
            assert (await check()).status is Status.CRITICAL
            assert (await check()).status is Status.CRITICAL
            front.restore()
            assert (await patient()).status is Status.HEALTHY
        give_up = time.monotonic() + 5
        left = left_over()
        while (left[0] != tasks or left[1] > threads or files() > open_files) and (
            time.monotonic() < give_up
        ):
            await asyncio.sleep(0.01)
            left = left_over()
        assert left[0] == tasks
        # A thread of a test before this one may end meanwhile.
        assert left[1] <= threads
        assert files() <= open_files
        assert patient.connections is not None
        assert patient.connections.in_use == 0


async def test_a_password_is_in_no_answer_and_no_log(
    kind: str, postgres: Postgres, front: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = f"postgresql://clerk:p%23S3cret@127.0.0.1:{front.port}/postgres"
    postgres.add_role("clerk", "another")
    async with APPS[kind](address) as app:
        check = Check(app.pool, timeout=LIMIT)
        result = await check()
    postgres.query("DROP ROLE clerk")

    assert result.status is Status.CRITICAL
    assert "S3cret" not in f"{result} {caplog.text}"
    assert PASSWORD in check.secrets


async def test_pools_that_are_not_open_say_so(postgres: Postgres) -> None:
    pool = asyncpg.create_pool(postgres.url(), min_size=0)
    check = Check(pool)
    closed = "the pool of database connections is closed"
    assert (await check()).message == "the pool of database connections is not open yet"
    await pool
    assert (await check()).status is Status.HEALTHY
    await pool.close()
    result = await check()
    assert (result.status, result.message) == (Status.CRITICAL, closed)
    assert check.connections is None

    other = psycopg_pool.AsyncConnectionPool(postgres.url(), open=False)
    result = await Check(other)()
    assert (result.status, result.message) == (
        Status.CRITICAL,
        "the pool of database connections is not open",
    )


def test_a_pool_of_another_event_loop_is_unknown(postgres: Postgres, anyio_backend: str) -> None:
    async def opened() -> Any:
        return await asyncpg.create_pool(postgres.url(), min_size=0)

    check = Check(asyncio.run(opened()))

    result = asyncio.run(check())

    assert (result.status, result.message) == (
        Status.UNKNOWN,
        "the pool of database connections belongs to another event loop",
    )


async def test_an_engine_without_a_pool_has_no_numbers(postgres: Postgres) -> None:
    engine = create_async_engine(
        postgres.url().replace("postgresql", "postgresql+asyncpg"), poolclass=NullPool
    )
    check = Check(engine)

    result = await check()

    assert result.status is Status.HEALTHY
    assert "size" not in result.details
    assert check.connections is None


async def test_an_engine_that_asks_before_it_gives_is_told_in_time(
    postgres: Postgres, front: Proxy
) -> None:
    url = postgres.url(port=front.port).replace("postgresql", "postgresql+asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
    check = Check(engine, timeout=LIMIT)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    front.black_hole()

    result, seconds = await timed(check)

    assert result.status is Status.CRITICAL
    assert seconds < IN_TIME + LOADED
    front.restore()
    assert (await check()).status is Status.HEALTHY
    await engine.dispose()


async def test_an_engine_whose_driver_gives_up_first_is_told_in_time(
    postgres: Postgres, front: Proxy
) -> None:
    url = postgres.url(port=front.port).replace("postgresql", "postgresql+asyncpg")
    engine = create_async_engine(url, connect_args={"command_timeout": 0.2})
    check = Check(engine, timeout=LIMIT)
    await check()
    front.black_hole()

    result, seconds = await timed(check)

    assert (result.status, result.message) == (
        Status.CRITICAL,
        f"PostgreSQL at 127.0.0.1:{front.port} gave no answer in the time that its driver allows",
    )
    assert seconds < IN_TIME + LOADED
    front.restore()
    assert (await check()).status is Status.HEALTHY
    await engine.dispose()


async def test_a_pool_whose_driver_gives_up_first_is_told_in_time(
    postgres: Postgres, front: Proxy
) -> None:
    url = postgres.url(port=front.port)
    # With a smallest size, the pool itself would connect anew, into the black hole, for a minute.
    async with asyncpg.create_pool(url, min_size=0, max_size=1, command_timeout=0.2) as pool:
        check = Check(pool, timeout=LIMIT)
        assert (await check()).status is Status.HEALTHY
        front.black_hole()

        result, seconds = await timed(check)

        assert result.status is Status.CRITICAL
        assert result.message.endswith("gave no answer in the time that its driver allows")
        assert seconds < IN_TIME + LOADED
        front.restore()
        assert (await check()).status is Status.HEALTHY


async def test_a_pool_that_hides_its_address_is_checked_all_the_same(postgres: Postgres) -> None:
    async def connect(*_: Any, **options: Any) -> Any:
        return await asyncpg.connect(postgres.url(), **options)

    async with asyncpg.create_pool(min_size=0, connect=connect) as pool:
        result = await Check(pool)()

    assert result.status is Status.HEALTHY
    assert result.message.endswith("at the address of the pool answers")


@pytest.mark.parametrize("wrong", [None, 5, b"postgresql://db", object()])
def test_what_is_no_pool_is_refused(wrong: object, anyio_backend: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed are a postgresql:// address, an asyncpg"):
        Check(wrong)


def test_an_engine_for_another_database_is_refused(anyio_backend: str) -> None:
    class Dialect:
        name = "sqlite"

    engine = create_async_engine("postgresql+asyncpg://db/shop")
    engine.sync_engine.dialect = Dialect()  # type: ignore[assignment] # no driver of it is here

    with pytest.raises(ConfigurationError, match="engine for sqlite; allowed is one for Postg"):
        Check(engine)
