"""One history of several processes: exact sums over all of them, and of each by its name."""

from __future__ import annotations

import json
import random
from itertools import chain
from urllib.parse import urlencode

import anyio
import anyio.to_thread
import pytest
from blockbuster import BlockBuster
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.cli import main
from tests.web.exchanges import get

PER_REPLICA = 300


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.sqlite"
    server = request.getfixturevalue("postgres")
    return server.url(database=server.new_database())


def replica(url, instance):
    return Monitor(
        Starlette(),
        settings=Settings(service="shop", history_url=url, access="open", instance=instance),
        checks=[],
    )


async def values(monitor, **parameters):
    query = urlencode({"from": "-20m", "step": 86_400, **parameters})
    exchange = await get(monitor, f"/api/monitoring/history?{query}")
    assert exchange.status == 200, exchange.body
    return [point for _, point in json.loads(exchange.body)["points"] if point is not None]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asyncpg knows no other
async def test_every_replica_tells_the_whole_and_each_by_name(url):
    dice = random.Random(7)
    names = ("web-1", "web-2", "web-3")
    durations = {name: [dice.lognormvariate(-3, 1) for _ in range(PER_REPLICA)] for name in names}

    async def serve(name):
        monitor = replica(url, name)
        async with monitor:
            for number, duration in enumerate(durations[name]):
                status = 500 if number % 10 == 0 else 200
                monitor.track_request("GET", "/a", status, duration)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(serve, name)
    reader = replica(url, "web-4")
    async with reader:
        assert await values(reader, metric="requests") == [3 * PER_REPLICA]
        assert await values(reader, metric="errors", endpoint="/a") == [3 * PER_REPLICA // 10]
        assert await values(reader, metric="error_rate") == [10.0]
        both = {"metric": "latency", "quantile": 0.95}
        merged = sorted(chain.from_iterable(durations.values()))
        exact = merged[int(0.95 * (len(merged) - 1))]
        assert await values(reader, **both) == [pytest.approx(exact, rel=0.011)]
        for name in names:
            found = await values(reader, metric="requests", instance=name, step=1200)
            assert sum(found) == PER_REPLICA
        assert sum(await values(reader, metric="requests", instance="web-9", step=1200)) == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asyncpg knows no other
async def test_the_statistics_wait_a_second_for_a_database_that_is_silent(postgres):
    """And no longer: the bound is far above that, and far below the patience with a database."""
    monitor = replica(postgres.url(database=postgres.new_database()), "web-1")
    async with monitor:
        await values(monitor, metric="requests")
        await anyio.to_thread.run_sync(postgres.freeze)
        try:
            with anyio.fail_after(12):
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(get, monitor, "/api/monitoring/stats")
                exchange = await get(monitor, "/api/monitoring/stats")
        finally:
            await anyio.to_thread.run_sync(postgres.thaw)

    assert exchange.status == 200
    assert json.loads(exchange.body)["trend"] is None


def test_the_command_line_reads_it_and_makes_nothing(url, capsys, monkeypatch):
    monkeypatch.setenv("MONITOR_SERVICE", "shop")

    async def serve():
        monitor = replica(url, "web-1")
        async with monitor:
            monitor.track_request("GET", "/a", 200, 0.1)

    words = ["history", "requests", "--from", "-20m", "--format", "json", "--url", url]
    assert main(words) == 1
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    anyio.run(serve)
    assert main(words) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert sum(value or 0 for _, value in points) == 1
