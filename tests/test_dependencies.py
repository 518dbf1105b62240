"""An app with all its services, seen through Monitor alone: the environment names them, the
network fails, and what is answered, told and logged holds no secret."""

import asyncio
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from blockbuster import BlockBuster
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holistic_asgi_monitor import Monitor, Settings, Severity, Status, checks, notifiers
from holistic_asgi_monitor.checks.environment import Skipped, checks_from_environment
from tests.servers.faults import Proxy
from tests.servers.openai_stub import HANG, SERVER_ERROR, OpenAIStub, invalid_key
from tests.servers.postgres import Postgres
from tests.servers.redis_server import Redis
from tests.web.exchanges import get

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
VALKEY = pytest.mark.parametrize("_redis", ["valkey"], indirect=True)

DATABASE_PASSWORD = "p#S3cret"
REDIS_PASSWORD = "hunter2S3cret"
API_KEY = "sk-proj-S3cretS3cretS3cret"
TOKEN = "tokenS3cret"
HOOK = "T0S3cret/B0S3cret/xyzS3cret"
LIMIT = 0.4


@dataclass
class World:
    """The services of an app, each behind a proxy that can break the network."""

    postgres: Postgres
    database: Proxy
    redis: Redis
    cache: Proxy
    openai: OpenAIStub
    role: str
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """What the app is started with; nobody has quoted the password."""
        role, port = self.role, self.database.port
        return {
            "MONITOR_SERVICE": "shop",
            "MONITOR_TOKEN": TOKEN,
            "MONITOR_CHECK_TIMEOUT_SECONDS": str(LIMIT),
            "MONITOR_STARTUP_GRACE_SECONDS": "0",
            "MONITOR_FAILURES_BEFORE_ALERT": "1",
            "MONITOR_HISTORY_URL": "off",
            "SLACK_WEBHOOK_URL": f"http://127.0.0.1:9/services/{HOOK}",
            "DATABASE_URL": f"postgresql+asyncpg://{role}:{DATABASE_PASSWORD}@127.0.0.1:{port}/postgres",
            "REDIS_URL": f"redis://:{REDIS_PASSWORD}@127.0.0.1:{self.cache.port}/0",
            "OPENAI_API_KEY": API_KEY,
            "OPENAI_BASE_URL": self.openai.url,
            **self.more,
        }

    def black_hole(self) -> None:
        self.database.black_hole()
        self.cache.black_hole()
        self.openai.answer(HANG)

    def refuse(self) -> None:
        for front in (self.database, self.cache):
            front.refuse()
            front.cut()
        self.openai.answer(SERVER_ERROR)

    def reject(self) -> None:
        self.more = {
            "DATABASE_URL": self.environ["DATABASE_URL"].replace("p#S3cret", "w#S3cret"),
            "REDIS_URL": self.environ["REDIS_URL"].replace("hunter2", "hunter3"),
        }
        self.openai.answer(invalid_key(API_KEY))

    def cut(self) -> None:
        self.database.cut(after=20)
        self.cache.cut(after=3)
        self.openai.answer(HANG)


@pytest.fixture
def world(postgres: Postgres, redis: Redis, proxy: Callable[..., Proxy]) -> Iterator[World]:
    role = f"dependencies_{uuid.uuid4().hex}"
    postgres.add_role(role, DATABASE_PASSWORD)
    redis.restart(requirepass=REDIS_PASSWORD)
    with OpenAIStub() as stub:
        yield World(postgres, proxy(postgres), redis, proxy(redis), stub, role)
    redis.restart()


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import what monitors import when they are built: an app builds its own before it serves."""
    checks.OpenAI(api_key=API_KEY)
    checks.Redis("redis://cache")


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let drivers look for files in the user's home when they connect, as they do."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


async def item(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def shop(environ: dict[str, str]) -> tuple[Monitor, notifiers.Memory]:
    memory = notifiers.Memory()
    settings = Settings.from_env(environ)
    app = Starlette(routes=[Route("/items/{item_id}", item)])
    return Monitor(app, settings=settings, notifiers=[memory, notifiers.Log()]), memory


@asynccontextmanager
async def closing(monitor: Monitor) -> AsyncIterator[Monitor]:
    try:
        yield monitor
    finally:
        await monitor._parts.runner.aclose()


AUTHORISED = [(b"authorization", f"Bearer {TOKEN}".encode())]
PAGES = (
    "/api/health",
    "/api/health/simple",
    "/api/health/ready",
    "/metrics",
    "/api/monitoring/stats",
    "/api/monitoring/alerts",
)


async def pages(monitor: Monitor, headers: list[tuple[bytes, bytes]]) -> str:
    answers = [await get(monitor, path, headers=headers) for path in PAGES]
    return "\n".join(answer.body.decode() for answer in answers)


@ASYNCIO
async def test_the_environment_alone_has_every_service_checked(world: World) -> None:
    monitor, _ = shop(world.environ)
    async with closing(monitor):
        report = await monitor.report(fresh=True)
        stats = json.loads((await get(monitor, "/api/monitoring/stats", headers=AUTHORISED)).body)
        metrics = (await get(monitor, "/metrics", headers=AUTHORISED)).body.decode()

    assert list(report.services) == ["system", "database", "redis", "openai", "traffic"]
    assert {
        name: result.status for name, result in report.services.items() if name != "system"
    } == dict.fromkeys(("database", "redis", "openai", "traffic"), Status.HEALTHY)
    assert report.required == {"database"}
    assert stats["database"]["in_use"] + stats["database"]["idle"] == stats["database"]["size"]
    assert f"holisticos_active_connections {stats['database']['in_use']}.0\n" in metrics


@ASYNCIO
@VALKEY
@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("black_hole", {"database": "critical", "redis": "degraded", "openai": "degraded"}),
        ("refuse", {"database": "critical", "redis": "degraded", "openai": "degraded"}),
        ("reject", {"database": "critical", "redis": "degraded", "openai": "critical"}),
        ("cut", {}),
    ],
)
async def test_after_every_fault_no_secret_is_anywhere(
    world: World, fault: str, statuses: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    getattr(world, fault)()
    with caplog.at_level(logging.DEBUG):
        monitor, memory = shop(world.environ)
        monitor.alert(
            Severity.ERROR, f"mail with {API_KEY}", {"dsn": world.environ["DATABASE_URL"]}
        )
        async with closing(monitor), monitor:
            report = await monitor.report(fresh=True)
            await until(lambda: len(memory.alerts) > len(statuses))
            seen = await pages(monitor, AUTHORISED) + await pages(monitor, [])
    seen += repr(memory.alerts) + repr(monitor.settings) + caplog.text
    seen += "".join(repr(vars(record)) for record in caplog.records)

    assert {name: report.services[name].status.value for name in statuses} == statuses
    assert re.findall(".{0,40}S3cret.{0,40}", seen) == []


@ASYNCIO
@VALKEY
async def test_simple_answers_at_once_while_every_service_is_silent(world: World) -> None:
    world.black_hole()
    monitor, _ = shop(world.environ)
    took: list[float] = []

    async def call() -> None:
        began = time.monotonic()
        answer = await get(monitor, "/api/health/simple")
        took.append(time.monotonic() - began)
        assert answer.status in {200, 503}

    async with closing(monitor), anyio.create_task_group() as group:
        group.start_soon(monitor.report)
        await anyio.sleep(LIMIT / 4)
        async with anyio.create_task_group() as callers:
            for _ in range(200):
                callers.start_soon(call)
        assert monitor._parts.watch.last_report() is None, "the round was to be under way"

    assert len(took) == 200
    assert max(took) < 0.05


@ASYNCIO
@VALKEY
async def test_checks_of_silent_services_do_not_hold_up_the_loop(
    world: World, blockbuster: BlockBuster
) -> None:
    world.black_hole()
    monitor, _ = shop(world.environ)
    monitor.check("sync")(lambda: time.sleep(LIMIT / 2))
    worst = []
    async with closing(monitor):
        await monitor.report(fresh=True)
        for _ in range(5):
            worst.append(await longest_work_during(monitor.report(fresh=True)))

    # The quietest of five rounds: a collection of garbage is not the checks' doing.
    assert min(worst) < 0.02


async def longest_work_during(work: Any) -> float:
    """The longest time for which the loop's thread worked in one turn while `work` was done.

    Processor time: waiting is what the guard against blocking calls would report, and what other
    programs on this machine do is not ours.
    """
    task = asyncio.ensure_future(work)
    last, longest = time.thread_time(), 0.0
    while not task.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest, last = max(longest, now - last), now
    await task
    return longest


@pytest.mark.parametrize(
    ("variable", "value", "name", "why"),
    [
        ("DATABASE_URL", "mysql://shop:S3cret@db/shop", "database", "mysql://"),
        ("DATABASE_URL", "sqlite:///S3cret.db", "database", "sqlite://"),
        ("REDIS_URL", "memcached://:S3cret@cache", "redis", ""),
        ("REDIS_URL", "S3cret", "redis", ""),
        ("OPENAI_BASE_URL", "not an address S3cret", "openai", ""),
    ],
)
async def test_what_cannot_be_checked_is_skipped_with_one_warning(
    variable: str, value: str, name: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"MONITOR_SERVICE": "shop", "MONITOR_HISTORY_URL": "off", variable: value}
    if variable == "OPENAI_BASE_URL":
        environ["OPENAI_API_KEY"] = API_KEY
    monitor, _ = shop(environ)
    report = await monitor.report(fresh=True)
    await monitor.report(fresh=True)

    (warning,) = [each.getMessage() for each in caplog.records if "is not checked" in each.msg]
    assert report.services[name].status is Status.SKIPPED
    assert report.overall_status is not Status.CRITICAL
    assert why in warning
    assert "S3cret" not in warning + json.dumps(report.as_dict())


@pytest.mark.parametrize(
    ("variable", "value", "module", "extra"),
    [
        ("DATABASE_URL", "postgresql://db/shop", "asyncpg", "postgres"),
        ("REDIS_URL", "redis://cache", "redis", "redis"),
        ("OPENAI_API_KEY", API_KEY, "openai", "openai"),
    ],
)
def test_a_missing_package_is_named_with_how_to_get_it(
    variable: str,
    value: str,
    module: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = [each for each in sys.modules if each.startswith(f"{module}.")]
    for name in (module, *known):
        monkeypatch.setitem(sys.modules, name, None)
    made = checks_from_environment(Settings.from_env({variable: value}))

    assert [type(check) for check in made if check.name != "system"] == [Skipped]
    assert f"pip install 'holistic-asgi-monitor[{extra}]'" in caplog.text


def test_without_any_variable_only_the_system_is_checked() -> None:
    assert [check.name for check in checks_from_environment(Settings(service="x"))] == ["system"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_where_the_drivers_cannot_run_their_checks_are_skipped() -> None:
    environ = {
        "DATABASE_URL": "postgresql://db/shop",
        "REDIS_URL": "redis://cache",
        "MONITOR_SERVICE": "shop",
        "MONITOR_HISTORY_URL": "off",
    }
    monitor, _ = shop(environ)
    report = await monitor.report(fresh=True)

    assert report.services["database"].status is Status.SKIPPED
    assert report.services["redis"].status is Status.SKIPPED
    assert "asyncio" in report.services["redis"].message


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)
