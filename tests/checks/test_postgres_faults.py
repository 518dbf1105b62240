"""Everything that can happen to a PostgreSQL server, seen from a connection of our own.

What each fault is called, that it is called so in time, and that its end is seen at once.
"""

import asyncio
import gc
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from blockbuster import BlockBuster

from holistic_asgi_monitor.checks.postgres import Postgres as Check
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import CheckResult, Status
from tests.servers.faults import Proxy
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

LIMIT = 0.5
IN_TIME = LIMIT + 0.05
"""The promise, in seconds."""
LOADED = 0.25
"""What the machine may take on top of it while other tests run."""
ROUNDS = 100
PASSWORD = "p#S3cret"
"""Nobody quotes it, and nobody may read it."""


@dataclass
class Site:
    """A server, and the proxy in front of it."""

    server: Postgres
    front: Proxy

    @property
    def url(self) -> str:
        return self.server.url(port=self.front.port)

    def heal(self) -> None:
        self.front.restore()
        self.server.thaw()
        self.server.start()


@pytest.fixture(params=["postgres", "postgres16"])
def site(request: pytest.FixtureRequest, proxy: Callable[[Postgres], Proxy]) -> Site:
    server: Postgres = request.getfixturevalue(request.param)
    return Site(server, proxy(server))


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


class Rounds:
    """Rounds of one check, as the watch has them."""

    def __init__(self, check: Check, limit: float) -> None:
        self._runner = Runner([check], timeout=limit)
        self.seconds = 0.0

    async def next(self) -> CheckResult:
        began = time.monotonic()
        result = (await self._runner.round())["database"]
        self.seconds = time.monotonic() - began
        return result

    async def end(self) -> None:
        await self._runner.aclose()


@asynccontextmanager
async def rounds_of(check: Check, limit: float = LIMIT) -> AsyncIterator[Rounds]:
    rounds = Rounds(check, limit)
    try:
        yield rounds
    finally:
        await rounds.end()


def sessions(server: Postgres) -> int:
    """Return how many sessions of ours the server has."""
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holistic-asgi-monitor'"
    count = server.query(ours)[0][0]
    assert isinstance(count, int)
    return count


async def ended(server: Postgres) -> int:
    """Return `sessions` once there are none, or some seconds later."""
    give_up = time.monotonic() + 5
    while sessions(server) and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    return sessions(server)


def refuse(site: Site) -> None:
    site.front.refuse()
    site.front.cut()


FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "refused": (
        refuse,
        "PostgreSQL at HERE refuses connections",
    ),
    "black hole": (
        lambda site: site.front.black_hole(),
        "PostgreSQL at HERE gave no answer within 0.5 s",
    ),
    "frozen": (
        lambda site: site.server.freeze(),
        "PostgreSQL at HERE gave no answer within 0.5 s",
    ),
    "too slow to answer at all": (
        lambda site: site.front.delay(2),
        "PostgreSQL at HERE gave no answer within 0.5 s",
    ),
    "gone, behind a proxy that is there": (
        lambda site: site.server.kill(),
        "PostgreSQL at HERE cut the connection, and once more when asked again",
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["kept connection", "new connection"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_called_by_its_name_in_time_and_its_end_is_seen_at_once(
    site: Site, fault: str, known: bool
) -> None:
    strike, sentence = FAULTS[fault]
    async with rounds_of(Check(site.url)) as rounds:
        if known:
            assert (await rounds.next()).status is Status.HEALTHY

        strike(site)
        for _ in range(2):
            result = await rounds.next()
            assert result.message == sentence.replace("HERE", f"127.0.0.1:{site.front.port}")
            assert result.status is Status.CRITICAL
            assert rounds.seconds < IN_TIME + LOADED

        site.heal()
        assert (await rounds.next()).status is Status.HEALTHY


async def test_a_server_that_is_well(site: Site) -> None:
    async with rounds_of(Check(site.url)) as rounds:
        result = await rounds.next()

        version = str(site.server.query("SHOW server_version")[0][0])
        where = f"127.0.0.1:{site.front.port}/postgres"
        assert result.status is Status.HEALTHY
        assert result.message == f"PostgreSQL {version} at {where} answers"
        assert result.details == {
            "server": where,
            "server_version": version,
            "in_recovery": False,
            "read_only": False,
            "server_connections": 1,
            "server_max_connections": 97,
            "in_use": 0,
            "idle": 0,
            "size": 0,
        }
        assert result.response_time_ms is not None
        assert 0 < result.response_time_ms < 1000 * rounds.seconds


async def test_one_connection_serves_all_rounds(site: Site) -> None:
    async with rounds_of(Check(site.url)) as rounds:
        for _ in range(5):
            await rounds.next()

        assert site.front.accepted == 1
        assert sessions(site.server) == 1
    assert await ended(site.server) == 0


async def test_the_connection_says_whose_it_is_unless_the_address_does(site: Site) -> None:
    async with rounds_of(Check(f"{site.url}?application_name=shop")) as rounds:
        assert (await rounds.next()).status is Status.HEALTHY

        assert sessions(site.server) == 0


async def test_slow_is_degraded(site: Site) -> None:
    async with rounds_of(Check(site.url, slow_ms=100), limit=5) as rounds:
        assert (await rounds.next()).status is Status.HEALTHY
        site.front.delay(0.11)

        result = await rounds.next()

        assert result.status is Status.DEGRADED
        sentence = r"PostgreSQL at \S+/postgres took \d+ ms to answer; slow is above 100 ms"
        assert re.fullmatch(sentence, result.message)
        assert result.response_time_ms is not None
        assert result.response_time_ms > 100
        assert result.details["in_use"] == 0


@pytest.mark.parametrize("after", [1, 40], ids=["first byte", "in the answer"])
async def test_a_connection_that_is_cut_in_the_query_is_made_anew(site: Site, after: int) -> None:
    async with rounds_of(Check(site.url)) as rounds:
        await rounds.next()
        site.front.cut(after=after)

        assert (await rounds.next()).status is Status.HEALTHY
        assert site.front.accepted == 2


async def test_a_connection_that_is_cut_between_two_rounds_is_made_anew(site: Site) -> None:
    async with rounds_of(Check(site.url)) as rounds:
        await rounds.next()
        site.front.cut()

        assert (await rounds.next()).status is Status.HEALTHY


@pytest.mark.parametrize("way", ["restart", "crash"])
async def test_a_server_that_was_restarted_between_two_rounds_is_well(site: Site, way: str) -> None:
    async with rounds_of(Check(site.server.url())) as rounds:
        await rounds.next()
        if way == "crash":
            site.server.kill()
        site.server.stop() if way == "restart" else None
        assert (await rounds.next()).message.endswith("refuses connections")
        site.server.start()

        assert (await rounds.next()).status is Status.HEALTHY


async def test_a_session_that_an_administrator_ends_is_begun_anew(site: Site) -> None:
    async with rounds_of(Check(site.url)) as rounds:
        await rounds.next()
        ends = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name"
        site.server.query(f"{ends} = 'holistic-asgi-monitor'")

        assert (await rounds.next()).status is Status.HEALTHY
        assert site.front.accepted == 2


async def test_not_required_it_is_degraded(site: Site) -> None:
    site.front.refuse()

    async with rounds_of(Check(site.url, required=False)) as rounds:
        assert (await rounds.next()).status is Status.DEGRADED


@pytest.fixture
def role(site: Site) -> Iterator[str]:
    """Make a user that must give PASSWORD."""
    site.server.add_role("clerk", PASSWORD)
    yield "clerk"
    site.heal()
    site.server.query("DROP ROLE clerk")


def credentials(site: Site, user: str, password: str, database: str = "postgres") -> str:
    return f"postgresql://{user}:{password}@127.0.0.1:{site.front.port}/{database}"


async def test_a_password_that_nobody_quoted_opens_the_door(site: Site, role: str) -> None:
    async with rounds_of(Check(credentials(site, role, PASSWORD)), limit=5) as rounds:
        assert (await rounds.next()).status is Status.HEALTHY


async def test_a_wrong_password(site: Site, role: str) -> None:
    async with rounds_of(Check(credentials(site, role, "wrong#S3cret")), limit=5) as rounds:
        result = await rounds.next()

    where = f"127.0.0.1:{site.front.port}"
    assert result.status is Status.CRITICAL
    assert result.message == f"PostgreSQL at {where} rejects the password of user clerk"


async def test_a_user_that_does_not_exist(site: Site) -> None:
    async with rounds_of(Check(credentials(site, "nobody", "x"))) as rounds:
        result = await rounds.next()

    where = f"127.0.0.1:{site.front.port}"
    assert result.status is Status.CRITICAL
    assert result.message == f"PostgreSQL at {where} does not let user nobody in"


async def test_a_database_that_does_not_exist(site: Site) -> None:
    async with rounds_of(Check(credentials(site, "postgres", "x", "shop"))) as rounds:
        result = await rounds.next()

    assert result.status is Status.CRITICAL
    assert result.message == f"database shop does not exist on 127.0.0.1:{site.front.port}"


async def test_a_parameter_that_the_server_does_not_know(site: Site) -> None:
    async with rounds_of(Check(f"{site.url}?options=-c%20colour%3Dblue")) as rounds:
        result = await rounds.next()

    assert result.status is Status.CRITICAL
    assert result.message == (
        f"PostgreSQL at 127.0.0.1:{site.front.port} answered with an error, SQLSTATE 42704"
    )


async def test_a_server_that_has_no_connection_left(site: Site, role: str) -> None:
    site.server.query(f"ALTER ROLE {role} CONNECTION LIMIT 1")
    address = credentials(site, role, PASSWORD)
    with psycopg.connect(site.server.url(user=role, password=PASSWORD)):
        async with rounds_of(Check(address), limit=5) as rounds:
            result = await rounds.next()

    where = f"127.0.0.1:{site.front.port}"
    assert result.status is Status.DEGRADED
    assert result.message == f"PostgreSQL at {where} has no connection left to give"


async def test_sessions_of_this_user_in_this_database_are_counted(site: Site) -> None:
    database = site.server.new_database()
    url = site.server.url(database=database)
    check = Check(url, connections=2)
    with psycopg.connect(url) as first, psycopg.connect(url, autocommit=True) as second:
        first.execute("SELECT 1")
        second.execute("SELECT 1")
        async with rounds_of(check, limit=5) as rounds:
            result = await rounds.next()
            assert result.status is Status.HEALTHY
            assert result.details["max_size"] == 2
            assert [result.details[key] for key in ("in_use", "idle", "size")] == [1, 1, 2]
            assert check.connections is not None
            assert check.connections.in_use == 1

            second.autocommit = False
            second.execute("SELECT 1")
            result = await rounds.next()
            assert result.status is Status.DEGRADED
            where = f"127.0.0.1:{site.server.port}/{database}"
            assert result.message == f"all 2 connections of user postgres to {where} are in use"
            second.rollback()


async def test_numbers_are_not_known_of_a_server_that_is_away(site: Site) -> None:
    check = Check(site.url)
    async with rounds_of(check) as rounds:
        await rounds.next()
        assert check.connections is not None
        site.front.black_hole()
        await rounds.next()
        assert check.connections is None


async def test_a_server_that_does_not_show_its_sessions_is_well(site: Site, role: str) -> None:
    database = site.server.new_database()
    site.server.query("REVOKE SELECT ON pg_stat_activity FROM PUBLIC", database=database)
    address = credentials(site, role, PASSWORD, database)
    check = Check(address, connections=1)
    async with rounds_of(check, limit=5) as rounds:
        for _ in range(2):
            result = await rounds.next()
            assert result.status is Status.HEALTHY
            assert "in_use" not in result.details
            assert check.connections is None


def left_over() -> tuple[int, int, int]:
    """Return how many tasks, open files and threads there are."""
    gc.collect()
    return (
        len(asyncio.all_tasks()),
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
    )


async def settled(before: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return what is left over, once the proxy, which lives with us, has closed its own ends.

    A thread of a test before this one may end meanwhile: fewer are not left over.
    """
    give_up = time.monotonic() + 5
    while left_over()[1] > before[1] and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    tasks, files, threads = left_over()
    return tasks, max(files, before[1]), max(threads, before[2])


# What a client has left over does not depend on the version of a server that says nothing.
@pytest.mark.parametrize("site", ["postgres"], indirect=True)
@pytest.mark.parametrize("fault", ["black hole", "frozen", "refused"])
@pytest.mark.parametrize("known", [True, False], ids=["kept connection", "new connection"])
async def test_a_hundred_rounds_leave_nothing_behind(site: Site, fault: str, known: bool) -> None:
    check = Check(site.url)
    async with rounds_of(check, limit=0.02) as rounds:
        # The first ones are for what is made once.
        assert (await check()).status is Status.HEALTHY
        FAULTS[fault][0](site)
        await rounds.next()
        before = left_over()
        for _ in range(ROUNDS):
            if known:
                site.heal()
                assert (await check()).status is Status.HEALTHY
                FAULTS[fault][0](site)
            assert (await rounds.next()).status is Status.CRITICAL
        assert await settled(before) == before

        site.heal()
        assert (await check()).status is Status.HEALTHY
    assert await ended(site.server) == 0


async def test_a_hundred_rounds_leave_nothing_behind_where_all_is_well(site: Site) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        await rounds.next()
        before = left_over()
        for _ in range(ROUNDS):
            assert (await rounds.next()).status is Status.HEALTHY
        assert await settled(before) == before
    assert await ended(site.server) == 0


async def test_what_is_cancelled_at_any_moment_leaves_nothing_behind(site: Site) -> None:
    check = Check(site.url)
    before = left_over()
    for number in range(ROUNDS):
        asking = asyncio.ensure_future(check.unjudged())
        await asyncio.sleep(0.0001 * number)
        if asking.done():
            continue
        asking.cancel()
        await asyncio.wait([asking])
    await check.aclose()
    assert await settled(before) == before
    site.heal()
    assert await ended(site.server) == 0


@pytest.mark.parametrize("fault", [*FAULTS, "wrong password"])
async def test_a_password_is_in_no_answer_and_no_log(
    site: Site, role: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    password = "wrong" + PASSWORD if fault == "wrong password" else PASSWORD
    check = Check(credentials(site, role, password))
    async with rounds_of(check) as rounds:
        results = [await rounds.next()]
        FAULTS.get(fault, (lambda _: None, ""))[0](site)
        results += [await rounds.next(), await rounds.next()]

    assert results[-1].status is Status.CRITICAL
    assert "The check database raised" in caplog.text or "within" in results[-1].message
    assert "S3cret" not in f"{results} {caplog.text} {check!r}"
