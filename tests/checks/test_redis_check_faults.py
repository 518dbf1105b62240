"""Everything that can happen to a Redis or Valkey server, seen from a connection of our own.

What each fault is called, that it is called so in time, and that its end is seen at once.
"""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import le
from pathlib import Path

import pytest
import redis as driver

from holistic_asgi_monitor.checks.redis import Redis as Check
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import CheckResult, Status
from tests.servers.faults import Proxy
from tests.servers.redis_server import Redis

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

LIMIT = 0.5
IN_TIME = LIMIT + 0.05
"""The promise, in seconds."""
LOADED = 0.25
"""What the machine may take on top of it while other tests run."""
ROUNDS = 100
PASSWORD = "p#S3cret:@/"


@dataclass
class Site:
    """A server, and the proxy in front of it."""

    server: Redis
    front: Proxy

    @property
    def url(self) -> str:
        return self.server.url(port=self.front.port)

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.front.port}"

    def refuse(self) -> None:
        self.front.refuse()
        self.front.cut()

    def heal(self) -> None:
        self.front.restore()
        self.server.thaw()
        self.server.start()


@pytest.fixture
def site(redis: Redis, proxy: Callable[[Redis], Proxy]) -> Site:
    return Site(redis, proxy(redis))


class Rounds:
    """Rounds of one check, as the watch has them."""

    def __init__(self, check: Check, limit: float) -> None:
        self._runner = Runner([check], timeout=limit)
        self.seconds = 0.0

    async def next(self) -> CheckResult:
        began = time.monotonic()
        result = (await self._runner.round())["redis"]
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


def clients(server: Redis, password: str | None = None) -> list[str]:
    """Return the names of the clients that the server has, the asking one left out."""
    with driver.Redis(port=server.port, password=password, client_name="asking") as client:
        names = [str(each["name"]) for each in client.client_list()]
    return sorted(name for name in names if name != "asking")


async def ended(server: Redis) -> list[str]:
    """Return `clients` once there are none, or some seconds later."""
    give_up = time.monotonic() + 5
    while clients(server) and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    return clients(server)


def product(server: Redis, *, known: bool) -> str:
    """Return what a server is called, which only those know who have asked it."""
    if not known:
        return "Redis"
    with driver.Redis(port=server.port) as client:
        return "Valkey" if client.info("server").get("server_name") == "valkey" else "Redis"


FAULTS: dict[str, tuple[Callable[[Site], None], str]] = {
    "refused": (lambda site: site.refuse(), "refuses connections"),
    "black hole": (lambda site: site.front.black_hole(), "gave no answer within 0.5 s"),
    "frozen": (lambda site: site.server.freeze(), "gave no answer within 0.5 s"),
    "too slow to answer at all": (
        lambda site: site.front.delay(2),
        "gave no answer within 0.5 s",
    ),
    "gone, behind a proxy that is there": (
        lambda site: site.server.kill(),
        "cut the connection",
    ),
}


@pytest.mark.parametrize("known", [True, False], ids=["kept connection", "new connection"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_called_by_its_name_in_time_and_its_end_is_seen_at_once(
    site: Site, fault: str, known: bool
) -> None:
    strike, predicate = FAULTS[fault]
    name = product(site.server, known=known)
    async with rounds_of(Check(site.url)) as rounds:
        if known:
            assert (await rounds.next()).status is Status.HEALTHY
        strike(site)
        result = await rounds.next()
        assert result.message == f"{name} at {site.where} {predicate}"
        assert result.status is Status.DEGRADED
        assert rounds.seconds < IN_TIME + LOADED
        site.heal()
        assert (await rounds.next()).status is Status.HEALTHY


async def test_a_slow_server_is_well_and_its_time_is_the_real_one(site: Site) -> None:
    site.front.delay(0.05)
    async with rounds_of(Check(site.url), limit=5) as rounds:
        result = await rounds.next()

    assert result.status is Status.HEALTHY
    assert result.response_time_ms is not None
    assert 50 <= result.response_time_ms < 1000 * rounds.seconds


async def test_a_connection_cut_between_rounds_is_no_fault(site: Site) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        await rounds.next()
        site.front.cut()
        assert (await rounds.next()).status is Status.HEALTHY
        assert site.front.accepted == 2


@pytest.mark.parametrize("size", [1, 40, 2000])
async def test_a_connection_cut_in_mid_answer_is_made_anew_within_the_round(
    site: Site, size: int
) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        await rounds.next()
        site.front.cut(after=size)
        assert (await rounds.next()).status is Status.HEALTHY
        assert site.front.accepted == 2


async def test_a_new_connection_cut_in_mid_answer_is_a_fault(site: Site) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        site.front.cut(after=1)
        result = await rounds.next()
        assert result.status is Status.DEGRADED
        assert result.message == f"Redis at {site.where} cut the connection"
        assert (await rounds.next()).status is Status.HEALTHY


async def test_a_restart_is_no_fault(site: Site) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        await rounds.next()
        site.server.restart()
        assert (await rounds.next()).status is Status.HEALTHY


@pytest.mark.parametrize(("required", "status"), [(True, "critical"), (False, "degraded")])
async def test_a_fault_is_as_grave_as_the_check_is_needed(
    site: Site, required: bool, status: str
) -> None:
    site.front.refuse()

    assert (await Check(site.url, required=required)()).status.value == status


async def test_a_database_that_is_not_there(site: Site) -> None:
    result = await Check(site.server.url(port=site.front.port, db=99))()

    assert result.status is Status.DEGRADED
    assert result.message == f"database 99 does not exist on {site.where}"


@pytest.mark.parametrize(
    ("user", "password", "predicate"),
    [
        ("", "wr0ng-S3cret", "rejects the password"),
        ("shop", "wr0ng-S3cret", "rejects the password of user shop"),
        ("", None, "asks for a password, and none is given"),
    ],
)
async def test_a_wrong_password_is_told_and_never_shown(
    site: Site,
    user: str,
    password: str | None,
    predicate: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site.server.restart(requirepass=PASSWORD)
    url = site.server.url(port=site.front.port, user=user, password=password)
    result = await Check(url)()

    assert result.status is Status.DEGRADED
    assert result.message == f"Redis at {site.where} {predicate}"
    assert "S3cret" not in caplog.text + repr(result)


async def test_a_password_that_no_one_asks_for(site: Site) -> None:
    result = await Check(site.server.url(port=site.front.port, password="s3cret"))()

    assert result.message == (
        f"Redis at {site.where} has no password for its default user, but one is given"
    )


async def test_the_right_password_opens(site: Site) -> None:
    site.server.restart(requirepass=PASSWORD)
    check = Check(site.server.url(port=site.front.port, password=PASSWORD))
    async with rounds_of(check, limit=5) as rounds:
        assert (await rounds.next()).status is Status.HEALTHY
        assert clients(site.server, PASSWORD) == ["holistic-asgi-monitor"]


def allow(server: Redis, *rules: str) -> str:
    """Add a user shop with these rights, and return its password."""
    with driver.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "shop", "on", ">s3cret", *rules)
    return "s3cret"


@pytest.mark.parametrize("rules", [["+ping", "+info"], ["+ping"]])
async def test_a_user_who_may_do_little_is_enough(site: Site, rules: list[str]) -> None:
    password = allow(site.server, *rules)
    url = site.server.url(port=site.front.port, user="shop", password=password)
    async with rounds_of(Check(url), limit=5) as rounds:
        for _ in range(2):
            result = await rounds.next()
            assert result.status is Status.HEALTHY
            assert result.message.endswith(f" at {site.where} answers")
            assert bool(result.details) is ("+info" in rules)
        assert site.front.accepted == 1


async def test_a_user_who_may_not_even_ping(site: Site) -> None:
    password = allow(site.server, "+info")
    result = await Check(site.server.url(port=site.front.port, user="shop", password=password))()

    assert result.message == f"Redis at {site.where} does not allow its user the command PING"


async def test_a_server_that_cannot_save_refuses_writes(site: Site, tmp_path: Path) -> None:
    site.server.restart(dir=str(tmp_path), dbfilename="dump")
    # A folder where the dump should be written: even root cannot do that.
    (tmp_path / "dump" / "within").mkdir(parents=True)
    with driver.Redis(port=site.server.port) as client:
        client.config_set("save", "3600 1000")
        client.set("key", "value")
        client.bgsave()
        while client.info("persistence")["rdb_last_bgsave_status"] != "err":
            await asyncio.sleep(0.01)
    result = await Check(site.url)()

    assert result.status is Status.DEGRADED
    assert result.message == f"Redis at {site.where} refuses writes, since it cannot save to disk"


async def test_a_server_that_is_loading_its_data(site: Site) -> None:
    site.server.restart(
        **{
            "enable-debug-command": "yes",
            "key-load-delay": "2000",
            "loading-process-events-interval-bytes": "1024",
        }
    )
    with driver.Redis(port=site.server.port) as client:
        client.mset({f"key{number}": "x" * 1000 for number in range(500)})
        thread = threading.Thread(target=client.execute_command, args=["DEBUG", "RELOAD"])
        thread.start()
        async with rounds_of(Check(site.url), limit=5) as rounds:
            while (result := await rounds.next()).status is Status.HEALTHY:
                await asyncio.sleep(0.01)
        thread.join(10)

    # Called what it is only where a round before the loading was told.
    _, _, said = result.message.partition(" ")
    assert said == f"at {site.where} is still loading its data into memory"


async def test_a_server_without_memory_left_refuses_writes(site: Site) -> None:
    with driver.Redis(port=site.server.port) as client:
        client.set("key", "x" * 3_000_000)
        client.config_set("maxmemory", "1mb")
    name = product(site.server, known=True)
    async with rounds_of(Check(site.url), limit=5) as rounds:
        result = await rounds.next()

    assert result.status is Status.DEGRADED
    assert result.message == f"{name} at {site.where} has no memory left, so it refuses writes"
    assert result.details["maxmemory_bytes"] == 1 << 20
    assert result.details["memory_percent"] > 100


async def test_a_server_with_a_script_that_does_not_end(site: Site) -> None:
    site.server.restart(**{"lua-time-limit": "1"})
    hog = driver.Redis(port=site.server.port, socket_timeout=30)
    thread = threading.Thread(target=run_endless_script, args=[hog])
    thread.start()
    try:
        async with rounds_of(Check(site.url), limit=5) as rounds:
            await asyncio.sleep(0.1)
            result = await rounds.next()
    finally:
        with driver.Redis(port=site.server.port) as client:
            client.script_kill()
        thread.join(10)
        hog.close()

    assert result.message == f"Redis at {site.where} is busy with a script"


def run_endless_script(client: driver.Redis) -> None:
    with pytest.raises(driver.ResponseError):
        client.eval("while true do end", 0)


async def test_a_server_that_has_room_for_no_client(site: Site) -> None:
    site.server.restart(maxclients="1")
    with driver.Redis(port=site.server.port) as client:
        client.ping()
        result = await Check(site.url)()

    assert result.message == (
        f"Redis at {site.where} has no room for another client: its limit maxclients is reached"
    )


async def test_a_replica_without_its_primary(site: Site) -> None:
    site.server.restart(**{"replica-serve-stale-data": "no"})
    with driver.Redis(port=site.server.port) as client:
        client.replicaof("127.0.0.1", "1")
    result = await Check(site.url)()

    assert result.message == f"Redis at {site.where} is a replica that has lost its primary"


Leftover = tuple[int, int, int]


def left_over() -> Leftover:
    """Return how many tasks, open files and threads there are, the proxy's included."""
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir()))
    return len(asyncio.all_tasks()), files, threading.active_count()


async def at_rest(site: Site, *, connections: int = 0) -> Leftover:
    """Return `left_over` once the proxy has closed what its clients have left."""
    give_up = time.monotonic() + 5
    while site.front.connections != connections and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
    found = left_over()
    while found != (await asyncio.sleep(0.05, left_over())) and time.monotonic() < give_up:
        found = left_over()
    return found


# What a client has left over does not depend on which server it is that says nothing.
@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)
@pytest.mark.parametrize("fault", ["black hole", "frozen", "refused"])
@pytest.mark.parametrize("known", [True, False], ids=["kept connection", "new connection"])
async def test_a_hundred_rounds_leave_nothing_behind(site: Site, fault: str, known: bool) -> None:
    async with rounds_of(Check(site.url), limit=0.02) as rounds:
        # The first one is for what is made once.
        FAULTS[fault][0](site)
        await rounds.next()
        before = await at_rest(site)
        for _ in range(ROUNDS):
            if known and fault != "frozen":
                site.heal()
                await rounds.next()
                FAULTS[fault][0](site)
            # Unknown where this machine itself stood still.
            assert (await rounds.next()).status in {Status.DEGRADED, Status.UNKNOWN}
        # Threads of other tests may end meanwhile.
        assert all(map(le, await at_rest(site), before))

        site.heal()
    async with rounds_of(Check(site.url), limit=5) as rounds:
        assert (await rounds.next()).status is Status.HEALTHY
    assert await ended(site.server) == []


async def test_a_hundred_rounds_have_one_connection_where_all_is_well(site: Site) -> None:
    async with rounds_of(Check(site.url), limit=5) as rounds:
        await rounds.next()
        before = await at_rest(site, connections=1)
        for _ in range(ROUNDS):
            assert (await rounds.next()).status is Status.HEALTHY
        assert all(map(le, await at_rest(site, connections=1), before))
        assert clients(site.server) == ["holistic-asgi-monitor"]
        assert site.front.accepted == 1
    assert await ended(site.server) == []


async def test_what_is_cancelled_in_mid_question_leaves_nothing_behind(site: Site) -> None:
    check = Check(site.url)
    await check()
    site.front.delay(5)
    before = left_over()
    for _ in range(ROUNDS):
        asking = asyncio.ensure_future(check.unjudged())
        await asyncio.sleep(0.002)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
    assert left_over()[0] == before[0]
    site.heal()
    await check.aclose()
    assert await ended(site.server) == []
