"""The lease in a real PostgreSQL: one row, compared and refreshed in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.postgres.line import Line
from holistic_asgi_monitor.history.postgres.schema import SCHEMA
from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.workers.postgres_lease import PostgresLease
from tests.servers.postgres import Postgres

Made = Callable[..., PostgresLease]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def make(postgres: Postgres, anyio_backend: str) -> AsyncIterator[Made]:
    """What makes a lease in a database with the tables of history."""
    url = postgres.url(database=postgres.new_database())
    store = PostgreSQL(url, service="shop")
    await store.open()
    await store.close()
    lines: list[Line] = []

    def made(seconds: float = 600.0, service: str = "shop", database: str = url) -> PostgresLease:
        line = Line(Address.parse(database), patience=5.0)
        lines.append(line)
        return PostgresLease(
            line.ask,
            line.close,
            table=f"{SCHEMA}.state",
            service=service,
            key=lambda: "leader of alerts in production",
            seconds=seconds,
        )

    yield made
    for line in lines:
        await line.close()


async def test_one_holder_has_it_and_refreshes_it(make: Made) -> None:
    one, other = make(), make()
    found = [await each.hold(name) for each, name in ((one, "a"), (other, "b")) for _ in range(2)]
    assert found == [True, True, False, False]
    assert await other.hold("a")
    await one.release("a")
    assert await other.hold("b")
    assert not await one.hold("a")


async def test_of_many_at_once_one_has_it(make: Made) -> None:
    leases = [make() for _ in range(8)]
    names = map(str, range(8))
    found = await asyncio.gather(
        *(each.hold(name) for each, name in zip(leases, names, strict=True))
    )
    assert sum(found) == 1


async def test_it_ends_by_itself_by_the_clock_of_the_database(make: Made) -> None:
    one, other = make(seconds=0.2), make()
    assert await one.hold("a")
    with anyio.fail_after(20):
        while not await other.hold("b"):
            await anyio.sleep(0.02)
    assert not await one.hold("a")


async def test_only_its_holder_gives_it_back_and_each_service_has_its_own(make: Made) -> None:
    one, other, bank = make(), make(), make(service="bank")
    assert await one.hold("a")
    assert await bank.hold("b")
    await other.release("b")
    assert not await other.hold("b")


async def test_where_there_are_no_tables_or_no_server_nobody_can_say(
    make: Made, postgres: Postgres
) -> None:
    empty = make(database=postgres.url(database=postgres.new_database()))
    with pytest.raises(StoreError, match="holds no history"):
        await empty.hold("a")
    held = make()
    assert await held.hold("a")
    postgres.kill()
    with pytest.raises(StoreError):
        await held.hold("a")
    postgres.start()
    assert await held.hold("a")
