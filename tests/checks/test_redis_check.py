"""The check of Redis and Valkey: whom it asks, how, and what it makes of the answers."""

import asyncio
import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis as driver
import redis.asyncio as clients
import trustme
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ConstantBackoff, NoBackoff

from holistic_asgi_monitor.checks.redis import Redis as Check
from holistic_asgi_monitor.checks.redis_access import _Wire
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import (
    CheckResult,
    ConfigurationError,
    MissingExtraError,
    Status,
)
from holistic_asgi_monitor.settings import Settings
from tests.servers.faults import Proxy
from tests.servers.process import HOST, free_port
from tests.servers.redis_server import Redis

WITH_TLS = pytest.mark.parametrize("_redis", ["redis"], indirect=True)
LOADED = 0.25
"""What the machine may take on top of the promised 50 ms while other tests run."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Return the only one on which the driver works."""
    return "asyncio"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://user:hunter2@127.0.0.1:1/3", "Redis at 127.0.0.1:1 refuses connections"),
        ("redis://[::1]:1", "Redis at [::1]:1 "),
        ("unix:///nowhere/redis.sock?db=1", "Redis at /nowhere/redis.sock cannot be reached: "),
        ("redis://u:p@nowhere.invalid", "Redis at nowhere.invalid:6379 "),
        ("valkey://127.0.0.1:1", "Redis at 127.0.0.1:1 refuses connections"),
        ("VALKEYS://127.0.0.1:1", "Redis at 127.0.0.1:1 refuses connections"),
        ("rediss://127.0.0.1:1", "Redis at 127.0.0.1:1 refuses connections"),
        ("redis://:1#S3cret@127.0.0.1:1", "Redis at 127.0.0.1:1 refuses connections"),
        ("redis://user:2/abc@127.0.0.1:1", "Redis at 127.0.0.1:1 refuses connections"),
        (
            "redis://127.0.0.1:1?retry_on_timeout=yes&max_connections=0&socket_timeout=9&foo=bar",
            "Redis at 127.0.0.1:1 refuses connections",
        ),
    ],
)
async def test_a_url_leads_where_it_says(url: str, message: str) -> None:
    assert (await Check(url)()).message.startswith(message)


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        ("", "cannot be read"),
        ("localhost:6379", "cannot be read"),
        ("http://:hunter2@cache", "begins with http://"),
        ("redis+tls://:hunter2@cache", "begins with redis+tls://"),
        ("redis://:hunter2", "cannot be read"),
        ("redis://:hunter2@cache:port", "cannot be read"),
        ("redis://cache:6379?db=hunter2", "cannot be read"),
        ("rediss://cache?ssl_cert_reqs=hunter2", "parameters that cannot be used"),
        ("rediss://cache?ssl_ca_certs=/hunter2", "parameters that cannot be used"),
        ("redis://cache?ssl_ca_certs=/hunter2", "parameters that cannot be used"),
        (driver.Redis(password="hunter2"), "given a Redis; allowed are a URL and a client of"),
        (None, "given a NoneType; allowed"),
    ],
)
def test_what_is_no_server_is_refused_without_its_secret(server: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Check(server, name="cache")

    assert sentence in str(refused.value)
    assert "cache" in str(refused.value)
    assert "hunter2" not in repr(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@given(st.sampled_from(["redis", "rediss", "unix", "Valkey", "http"]), st.text())
def test_any_text_is_taken_or_refused_in_our_words(scheme: str, rest: str) -> None:
    with suppress(ConfigurationError):
        Check(f"{scheme}://{rest}")


def test_a_missing_driver_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'holistic-asgi-monitor\[redis\]'"):
        Check("redis://cache")


@pytest.mark.parametrize(
    ("server", "secrets"),
    [
        ("redis://:p%40ss@cache", {"p%40ss", "p@ss", "redis://:p%40ss@cache"}),
        ("unix:///run/redis.sock?password=hunter2", {"hunter2"}),
        (clients.Redis(password="hunter2"), {"hunter2"}),
    ],
)
def test_secrets_are_known(server: Any, secrets: set[str]) -> None:
    check = Check(server)

    assert secrets <= set(check.secrets)


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize(("lenient", "status"), [(False, "unknown"), (True, "skipped")])
async def test_on_trio_it_is_not_checked(lenient: bool, status: str) -> None:
    check = Check("redis://127.0.0.1:1")
    check.lenient = lenient
    result = await check()

    assert result.status.value == status
    assert result.message == "not checked: the driver of Redis needs asyncio, and this is trio"


async def test_what_a_real_server_says_of_itself(redis: Redis) -> None:
    with driver.Redis(port=redis.port) as client:
        client.config_set("maxmemory", "64mb")
        check = Check(redis.url())
        first = await check()
        client.set("key", "value")
        for key in ("key", "key", "key", "none"):
            client.get(key)
        second = await check()
        third = await check()
        await check.aclose()
        said = client.info()

    product, version = ("valkey", "9.") if "valkey_version" in said else ("redis", "7.")
    details = dict(second.details)
    assert second.status is Status.HEALTHY
    assert second.message == f"{product.capitalize()} at 127.0.0.1:{redis.port} answers"
    assert json.loads(json.dumps(details)) == details
    assert details["server_name"] == product
    assert details["version"].startswith(version)
    assert details["role"] == "master"
    assert details["loading"] is False
    assert details["connected_clients"] == 2
    assert details["maxclients"] == said["maxclients"]
    assert details["maxmemory_bytes"] == 64 << 20
    assert 0 < details["memory_percent"] < 100
    assert details["used_memory_bytes"] > 100_000
    assert details["keyspace_hits"] == said["keyspace_hits"]
    assert details["hit_rate_percent"] == 75.0
    assert details["rejected_connections"] == 0
    assert "hit_rate_percent" not in first.details
    assert "hit_rate_percent" not in third.details
    assert 0 < (second.response_time_ms or 0) < 5000


async def test_a_replica_is_well(redis: Redis) -> None:
    with driver.Redis(port=redis.port) as client:
        client.replicaof("127.0.0.1", "1")
    check = Check(redis.url())
    result = await check()
    await check.aclose()

    assert (result.status, result.details["role"]) == (Status.HEALTHY, "slave")


async def test_a_unix_socket(redis: Redis, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    redis.restart(unixsocket=str(path), requirepass="hunter2")
    check = Check(f"unix://{path}?password=hunter2")
    result = await check()
    await check.aclose()
    wrong = await Check(f"unix://:hunter3@{path}")()

    assert result.status is Status.HEALTHY
    assert result.message.endswith(f" at {path} answers")
    assert wrong.message == f"Redis at {path} rejects the password"


def test_it_follows_from_one_event_loop_to_another(redis: Redis) -> None:
    check = Check(redis.url())

    async def once(*, closed: bool) -> CheckResult:
        result = await check()
        if closed:
            await check.aclose()
        return result

    results = [asyncio.run(once(closed=True)) for _ in range(3)]
    assert [result.status for result in results] == [Status.HEALTHY] * 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_ended_without_a_word_takes_its_connection_along(redis: Redis) -> None:
    check = Check(redis.url())
    first = asyncio.run(check())

    async def again() -> CheckResult:
        result = await check()
        await check.aclose()
        return result

    second = asyncio.run(again())
    # asyncio itself complains of what its loop left open.
    gc.collect()
    assert [first.status, second.status] == [Status.HEALTHY] * 2


async def test_calls_at_the_same_time_do_not_disturb_each_other(redis: Redis) -> None:
    check = Check(redis.url())
    results = await asyncio.gather(*(check() for _ in range(20)))
    await check.aclose()

    assert {result.status for result in results} == {Status.HEALTHY}


async def rounds(check: Check, count: int) -> list[CheckResult]:
    """Return the results of some rounds of a monitor that is given the check."""
    configured = check.configured(Settings())
    results = [await configured() for _ in range(count)]
    await configured.aclose()
    return results


def test_one_check_in_two_monitors_asks_in_two_threads_at_once(redis: Redis) -> None:
    check = Check(redis.url())
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(asyncio.run, rounds(check, 60)) for _ in range(2)]
        results = [result for future in futures for result in future.result()]

    assert {result.status for result in results} == {Status.HEALTHY}


def test_one_and_the_same_check_asks_in_two_threads_at_once(redis: Redis) -> None:
    check = Check(redis.url())

    async def ask() -> set[Status]:
        found = {(await check()).status for _ in range(60)}
        await check.aclose()
        return found

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(asyncio.run, ask()) for _ in range(2)]
        found = [future.result() for future in futures]

    assert found == [{Status.HEALTHY}] * 2


async def test_monitors_that_share_a_check_share_no_connection(
    redis: Redis, proxy: Callable[[Redis], Proxy]
) -> None:
    front = proxy(redis)
    check = Check(redis.url(port=front.port))
    first, second = (check.configured(Settings()) for _ in range(2))
    await asyncio.gather(first(), second())
    await first.aclose()

    assert front.accepted == 2
    assert (await second()).status is Status.HEALTHY
    assert front.accepted == 2
    await second.aclose()


KNOWN = ("cache.example", "other.example")
look_up = socket.getaddrinfo


class Names:
    """A name service that has these addresses for names of ours, once the gate is open."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.gate = threading.Event()
        self.gate.set()
        self.askers: list[str] = []

    def __call__(self, host: str, *rest: Any, **options: Any) -> Any:
        if host not in KNOWN:
            return look_up(host, *rest, **options)
        self.askers.append(threading.current_thread().name)
        self.gate.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 0)) for each in self.addresses]


async def test_the_next_address_is_tried_where_one_fails(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = redis.url().replace(HOST, "cache.example")
    monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.2", HOST))
    check = Check(url)
    result = await check()
    await check.aclose()

    assert result.status is Status.HEALTHY
    assert result.message.endswith(f" at cache.example:{redis.port} answers")


async def test_what_a_server_says_is_told_though_it_has_another_address(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.restart(requirepass="s3cret")
    monkeypatch.setattr(socket, "getaddrinfo", Names(HOST, "127.0.0.2"))
    result = await Check(f"redis://:wr0ng@cache.example:{redis.port}")()

    assert result.message == f"Redis at cache.example:{redis.port} rejects the password"


async def test_a_name_service_that_hangs_holds_one_thread_that_is_not_the_app_s(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(HOST)
    monkeypatch.setattr(socket, "getaddrinfo", names)
    check = Check(redis.url().replace(HOST, "cache.example"), timeout=0.1)
    names.gate.clear()
    messages = [(await check()).message for _ in range(4)]
    asked = list(names.askers)
    names.gate.set()

    where = f"Redis at cache.example:{redis.port}"
    assert messages[0] == f"{where} gave no answer within 0.1 s"
    assert set(messages[1:]) == {f"{where} cannot be reached: the name service gives no answer"}
    assert asked == ["check redis"]
    with anyio.fail_after(10):
        while any(thread.name == "check redis" for thread in threading.enumerate()):
            await asyncio.sleep(0.001)
    assert (await check()).status is Status.HEALTHY
    await check.aclose()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


@pytest.fixture
def secured(redis: Redis, authority: trustme.CA, tmp_path: Path) -> Iterator[Proxy]:
    """Return a proxy before the port at which the server speaks TLS."""
    certificate = authority.issue_cert("127.0.0.1", "cache.example")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    port = free_port()
    redis.restart(
        **{
            "tls-port": str(port),
            "tls-cert-file": str(tmp_path / "cert.pem"),
            "tls-key-file": str(tmp_path / "key.pem"),
            "tls-ca-cert-file": str(tmp_path / "ca.pem"),
            "tls-auth-clients": "no",
        }
    )
    with Proxy(port) as front:
        yield front


@WITH_TLS
async def test_tls(secured: Proxy, tmp_path: Path) -> None:
    trusting = f"rediss://127.0.0.1:{secured.port}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    where = f"Redis at 127.0.0.1:{secured.port}"
    check = Check(trusting, timeout=0.5)

    assert (await check()).status is Status.HEALTHY
    secured.black_hole()
    for _ in range(2):
        assert (await check()).message == f"{where} gave no answer within 0.5 s"
    # Nobody waits for the farewell that TLS would have.
    with anyio.fail_after(5):
        while secured.connections:
            await asyncio.sleep(0.01)
    secured.restore()
    assert (await check()).status is Status.HEALTHY
    await check.aclose()
    strict = Check(f"rediss://127.0.0.1:{secured.port}")
    assert (await strict()).message == (
        f"{where} has a certificate from an authority that is not trusted here"
    )


@WITH_TLS
@pytest.mark.parametrize(
    ("host", "says"),
    [("cache.example", "answers"), ("other.example", "has a certificate for another name")],
)
async def test_the_certificate_is_that_of_the_name_and_not_of_its_address(
    secured: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, says: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names("127.0.0.1"))
    trusting = f"ssl_ca_certs={tmp_path / 'ca.pem'}&ssl_check_hostname=true"
    check = Check(f"rediss://{host}:{secured.port}?{trusting}")
    result = await check()
    await check.aclose()

    assert result.message == f"Redis at {host}:{secured.port} {says}"


async def test_what_is_no_redis(anyio_backend: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await Check(f"redis://127.0.0.1:{port}")()

    assert result.message == (f"Redis at 127.0.0.1:{port} does not speak the language of Redis")


# What servers say that is hard to bring about, by the driver's own reading of it.
WIRE = {
    "-DENIED Redis is running in protected mode because ...": (
        "refuses this host: it is in protected mode"
    ),
    "-READONLY You can't write against a read only replica.": "is a replica that refuses writes",
    "-CLUSTERDOWN The cluster is down": "belongs to a cluster that is down",
    "-OOM command not allowed when used memory > 'maxmemory'.": (
        "has no memory left, so it refuses writes"
    ),
    "-ERR unknown command 'PING'": "could not be asked",
}


@pytest.mark.parametrize("line", WIRE)
async def test_an_error_of_the_server_is_told_in_our_words(line: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(f"{line}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await Check(f"redis://127.0.0.1:{port}")()

    assert result.message == f"Redis at 127.0.0.1:{port} {WIRE[line]}"


# Clients of the app's own.


@pytest.fixture(
    params=[
        {"decode_responses": True},
        {"decode_responses": False},
        {"single_connection_client": True, "protocol": 2},
    ],
    ids=["text", "bytes", "one connection"],
)
def client(
    request: pytest.FixtureRequest, redis: Redis, proxy: Callable[[Redis], Proxy]
) -> tuple[clients.Redis, Proxy]:
    front = proxy(redis)
    return clients.Redis(host=HOST, port=front.port, retry=patience(), **request.param), front


def patience() -> Retry:
    """Return what has a client try again much later, as the driver's own does in the end."""
    return Retry(ConstantBackoff(30), 3)


async def test_a_client_of_the_app_is_used_and_never_closed(
    client: tuple[clients.Redis, Proxy],
) -> None:
    ours, front = client
    check = Check(ours)
    result = await check()
    await check.aclose()

    assert result.status is Status.HEALTHY
    assert result.message.endswith(f" at 127.0.0.1:{front.port} answers")
    assert result.details["connected_clients"] == 1
    assert front.connections == 1
    assert await ours.ping()
    assert front.accepted == 1
    await ours.aclose()


@pytest.mark.parametrize(
    ("strike", "predicate"),
    [
        (lambda front: front.refuse(), "refuses connections"),
        (lambda front: front.black_hole(), "gave no answer within 0.3 s"),
    ],
    ids=["refused", "black hole"],
)
async def test_a_client_that_tries_again_and_again_is_not_waited_for(
    client: tuple[clients.Redis, Proxy], strike: Callable[[Proxy], None], predicate: str
) -> None:
    ours, front = client
    runner = Runner([Check(ours)], timeout=0.3)
    strike(front)
    began = time.monotonic()
    result = (await runner.round())["redis"]

    assert result.message == f"Redis at 127.0.0.1:{front.port} {predicate}"
    assert time.monotonic() - began < 0.35 + LOADED
    front.restore()
    assert (await runner.round())["redis"].status is Status.HEALTHY
    await ours.aclose()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Redis at 127.0.0.1:PORT asks for a password, and none is given"),
        ({"password": "wr0ng"}, "Redis at 127.0.0.1:PORT rejects the password"),
        (
            {"username": "shop", "password": "wr0ng"},
            "Redis at 127.0.0.1:PORT rejects the password of user shop",
        ),
        ({"password": "s3cret", "db": 99}, "database 99 does not exist on 127.0.0.1:PORT"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_that_is_not_let_in(
    redis: Redis, options: dict[str, Any], sentence: str, protocol: int
) -> None:
    redis.restart(requirepass="s3cret")
    ours = clients.Redis(host=HOST, port=redis.port, protocol=protocol, retry=patience(), **options)
    result = await Check(ours, timeout=0.5)()

    assert result.status is Status.DEGRADED
    assert result.message == sentence.replace("PORT", str(redis.port))
    await ours.aclose()


async def test_a_client_whose_question_was_cancelled_reads_its_own_answers(
    client: tuple[clients.Redis, Proxy],
) -> None:
    ours, front = client
    check = Check(ours)
    await ours.mset({f"key{number}": number for number in range(20)})
    for number in range(20):
        front.delay(0.05)
        with anyio.move_on_after(0.005 * number):
            await check.unjudged()
        front.restore()
        assert int(await ours.get(f"key{number}") or -1) == number
    await ours.aclose()


@pytest.mark.parametrize("blocking", [False, True], ids=["refusing pool", "waiting pool"])
@pytest.mark.parametrize("required", [False, True])
async def test_a_pool_without_a_free_connection_is_degraded(
    redis: Redis, blocking: bool, required: bool
) -> None:
    kind = clients.BlockingConnectionPool if blocking else clients.ConnectionPool
    pool = kind.from_url(redis.url(), max_connections=2)
    held = [await pool.get_connection() for _ in range(2)]
    check = Check(clients.Redis(connection_pool=pool), required=required, timeout=0.2)
    result = await check()

    assert result.status is Status.DEGRADED
    assert result.message == (f"all 2 connections of the pool to 127.0.0.1:{redis.port} are in use")
    await pool.release(held.pop())
    assert (await check()).status is Status.HEALTHY
    await pool.release(held.pop())
    await pool.aclose()


async def test_a_hundred_rounds_take_nothing_from_the_pool_of_the_app(
    redis: Redis, proxy: Callable[[Redis], Proxy]
) -> None:
    front = proxy(redis)
    pool = clients.ConnectionPool.from_url(redis.url(port=front.port), max_connections=2)
    check = Check(clients.Redis(connection_pool=pool), timeout=0.01)
    front.black_hole()
    for _ in range(100):
        assert (await check()).status is Status.DEGRADED
    front.restore()
    held = [await pool.get_connection() for _ in range(2)]
    for connection in held:
        await pool.release(connection)
    await pool.aclose()
    assert len(asyncio.all_tasks()) <= 2


@pytest.mark.parametrize(
    ("role", "sentence"),
    [
        ("master_for", "Redis at orders has no primary that Sentinel knows of"),
        ("slave_for", "Redis at orders has no replica that Sentinel knows of"),
    ],
)
async def test_a_client_by_sentinel_is_called_by_its_service(role: str, sentence: str) -> None:
    once = Retry(NoBackoff(), 0)
    sentinel = Sentinel([(HOST, 1)], sentinel_kwargs={"retry": once})
    # Introducing itself, the driver would read the metadata of its package in the event loop.
    ours = getattr(sentinel, role)("orders", retry=once, driver_info=None)
    result = await Check(ours)()

    assert result.status is Status.DEGRADED
    assert result.message == sentence


async def test_a_client_with_a_time_limit_of_its_own(
    redis: Redis, proxy: Callable[[Redis], Proxy]
) -> None:
    front = proxy(redis)
    front.black_hole()
    ours = clients.Redis(
        host=HOST, port=front.port, socket_timeout=0.05, retry=Retry(NoBackoff(), 0)
    )
    result = await Check(ours)()

    assert result.message == (
        f"Redis at {HOST}:{front.port} gave no answer within the client's own time limit"
    )
    await ours.aclose()


async def test_a_cluster(redis: Redis) -> None:
    # By default a cluster's own port lies 10,000 above, where anybody may listen.
    redis.restart(**{"cluster-enabled": "yes", "cluster-port": str(free_port())})
    with driver.Redis(port=redis.port) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        while client.cluster("INFO")["cluster_state"] != "ok":
            await asyncio.sleep(0.01)
    cluster = clients.RedisCluster(host="127.0.0.1", port=redis.port)
    check = Check(cluster)
    result = await check()
    assert result.status is Status.HEALTHY
    assert result.message.endswith(f" at 127.0.0.1:{redis.port} answers")
    assert result.details["connected_clients"] >= 1
    assert await cluster.set("key", "value")
    redis.stop()
    result = await Check(cluster, timeout=0.5)()
    assert result.status is Status.DEGRADED
    await cluster.aclose()


async def test_a_connection_that_ended_with_something_left_to_send_can_be_dropped() -> None:
    """Python's transport has no event loop any longer, and fails where it is asked to abort."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
    _, writer = await asyncio.open_connection(sock=near)
    rest = 3_000_000
    writer.write(bytes(rest))
    writer.close()
    while rest:
        rest -= len(await asyncio.get_running_loop().sock_recv(far, rest))
    await writer.wait_closed()
    far.close()

    wire = _Wire(clients.Connection(), None)
    wire._transport = writer.transport
    await wire.drop()

    assert wire._transport is None
