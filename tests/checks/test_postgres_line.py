"""The connection of our own: how it comes about, for how long it is kept, what it does not see."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from blockbuster import BlockBuster

from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.environment import Skipped, checks_from_environment
from holistic_asgi_monitor.checks.postgres import Postgres as Check
from holistic_asgi_monitor.checks.postgres_line import KEPT_SECONDS, Own
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.settings import Settings
from tests.servers.faults import Proxy
from tests.servers.postgres import Postgres

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

PATIENCE = 10.0
HOST = "127.0.0.1"
PASSWORD = "p#S3cret"


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def checking(
    url: str, *, limit: float = PATIENCE, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Check]:
    check = Check(url, timeout=limit)
    check._source = Own(Address.parse(url), clock)
    try:
        yield check
    finally:
        await check.aclose()


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """Make a user that must give PASSWORD."""
    postgres.add_role("clerk", PASSWORD)
    yield "clerk"
    postgres.query("DROP ROLE clerk")


def url_of(*hosts: str, query: str = "", user: str = "postgres") -> str:
    return f"postgresql://{user}@{','.join(hosts)}/postgres?{query}"


def at(server: Postgres | Proxy) -> str:
    return f"{HOST}:{server.port}"


FOREIGN = (
    "ssl=disable",
    "ssl=prefer",
    "prepared_statement_cache_size=0",
    "command_timeout=5&connect_timeout=5&channel_binding=prefer&gssencmode=disable",
    "keepalives=1&pgbouncer=true&schema=public&pool_size=5&connection_limit=5",
)


@pytest.mark.parametrize("query", FOREIGN)
async def test_parameters_of_other_drivers_do_not_matter(postgres: Postgres, query: str) -> None:
    async with checking(f"{postgres.url()}?{query}") as check:
        assert (await check()).status is Status.HEALTHY


@pytest.mark.parametrize("query", ["sslmode=bogus", "ssl=bogus", "target_session_attrs=bogus"])
async def test_a_wrong_parameter_is_refused_and_from_the_environment_skipped(query: str) -> None:
    url = f"postgresql://db/shop?{query}"
    with pytest.raises(ConfigurationError, match="The address of PostgreSQL has a wrong"):
        Check(url)

    made = checks_from_environment(Settings.from_env({"DATABASE_URL": url}))
    assert Skipped in [type(check) for check in made if check.name == "database"]


@pytest.mark.parametrize("way", ["missing", "no certificate", "of the user"])
async def test_a_file_for_tls_that_is_not_there_is_told_as_that(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    ca = tmp_path / "ca.pem"
    if way == "no certificate":
        ca.write_text("p#S3cret", encoding="utf-8")
    query = "sslmode=verify-full" + ("" if way == "of the user" else f"&sslrootcert={ca}")
    async with checking(f"{postgres.url()}?{query}") as check:
        result = await check()

    fault = "is missing" if way != "no certificate" else "holds no certificate or key that can"
    assert result.status is Status.CRITICAL
    assert result.message.startswith(
        f"PostgreSQL at {at(postgres)} was not asked: the file of sslrootcert {fault}"
    )


async def test_an_environment_that_the_driver_cannot_use_is_told(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", PASSWORD)
    async with checking(postgres.url()) as check:
        result = await check()

    assert result.message == (
        f"PostgreSQL at {at(postgres)} was not asked: its driver cannot use the address or a "
        "variable PG... (ClientConfigurationError)"
    )


async def test_the_connection_is_made_anew_once_a_minute(
    postgres: Postgres, proxy: Callable[[Postgres], Proxy]
) -> None:
    front, clock = proxy(postgres), Clock()
    async with checking(postgres.url(port=front.port), clock=clock) as check:
        for moment, accepted in ((0, 1), (KEPT_SECONDS - 1, 1), (KEPT_SECONDS, 2), (61, 2)):
            clock.now = moment
            assert (await check()).status is Status.HEALTHY
            assert front.accepted == accepted
        assert await sessions(postgres, 1) == 1
    assert await sessions(postgres, 0) == 0


CHANGES = {
    "a rotated password": (
        "ALTER ROLE clerk PASSWORD 'another'",
        "rejects the password of user clerk",
    ),
    "a user shut out": ("ALTER ROLE clerk NOLOGIN", "does not let user clerk in"),
    "a limit that is reached": (
        "ALTER ROLE clerk CONNECTION LIMIT 1",
        "has no connection left to give",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_keeps_new_connections_out_is_seen_within_a_minute(
    postgres: Postgres, role: str, change: str
) -> None:
    statement, sentence = CHANGES[change]
    clock = Clock()
    url = postgres.url(user=role, password=PASSWORD)
    async with checking(url, clock=clock) as check:
        assert (await check()).status is Status.HEALTHY
        postgres.query(statement)
        assert (await check()).status is Status.HEALTHY

        clock.now += KEPT_SECONDS
        assert (await check()).message == f"PostgreSQL at {at(postgres)} {sentence}"
    assert await sessions(postgres, 0) == 0


async def test_new_connections_that_are_refused_are_seen_within_a_minute(
    postgres: Postgres, proxy: Callable[[Postgres], Proxy]
) -> None:
    front, clock = proxy(postgres), Clock()
    async with checking(postgres.url(port=front.port), clock=clock) as check:
        await check()
        front.refuse()
        assert (await check()).status is Status.HEALTHY

        clock.now += KEPT_SECONDS
        result = await check()
        assert result.message == f"PostgreSQL at {at(front)} refuses connections"
        front.restore()
        assert (await check()).status is Status.HEALTHY


@pytest.mark.parametrize("others", ["this user's", "those of others"])
async def test_a_full_server_is_seen_on_the_connection_that_is_kept(
    postgres: Postgres, role: str, others: str
) -> None:
    postgres.restart(max_connections="7", superuser_reserved_connections="2")
    url = postgres.url(user=role, password=PASSWORD)
    holder = url
    if others == "those of others":
        postgres.add_role("other", PASSWORD)
        holder = postgres.url(user="other", password=PASSWORD)
    async with checking(url) as check:
        assert (await check()).status is Status.HEALTHY
        with ExitStack() as held:
            for _ in range(3):
                held.enter_context(contextlib.closing(psycopg.connect(holder)))
            assert (await check()).status is Status.HEALTHY
            held.enter_context(contextlib.closing(psycopg.connect(holder)))

            result = await check()

            where = f"{at(postgres)}/postgres"
            numbers = "has no connection left to give (5 of 5 in use)"
            assert result.status is Status.DEGRADED
            assert result.message == f"PostgreSQL at {where} {numbers}"
            assert result.details["server_connections"] == 5
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(url)
        assert await healthy(check)
    if others == "those of others":
        postgres.query("DROP ROLE other")


async def healthy(check: Check) -> bool:
    """Tell whether a check comes to be healthy: a server needs a moment to end a session."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if (await check()).status is Status.HEALTHY:
            return True
    return False


async def sessions(server: Postgres, expected: int) -> object:
    """Return how many sessions of ours the server has, once there are as many as expected."""
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holistic-asgi-monitor'"
    give_up = time.monotonic() + PATIENCE
    count = server.query(ours)[0][0]
    while count != expected and time.monotonic() < give_up:
        await asyncio.sleep(0.01)
        count = server.query(ours)[0][0]
    return count


@pytest.mark.parametrize("fault", ["silent", "refuses"])
async def test_the_second_host_answers_where_the_first_does_not(
    postgres: Postgres, proxy: Callable[[Postgres], Proxy], fault: str
) -> None:
    front = proxy(postgres)
    front.black_hole() if fault == "silent" else front.refuse()

    async with checking(url_of(at(front), at(postgres)), limit=2) as check:
        result = await check()

    assert result.status is Status.HEALTHY
    assert result.details["server"] == f"{at(front)},{at(postgres)}/postgres"
    assert await sessions(postgres, 0) == 0


async def test_a_password_that_is_rejected_is_told_without_asking_the_next(
    postgres: Postgres, proxy: Callable[[Postgres], Proxy], role: str
) -> None:
    front = proxy(postgres)
    url = url_of(at(postgres), at(front), user=f"{role}:wrong")

    async with checking(url) as check:
        assert "rejects the password of user clerk" in (await check()).message
    assert front.accepted == 0


@pytest.mark.parametrize(
    ("target", "asked", "status"),
    [
        ("any", 1, Status.HEALTHY),
        ("primary", 1, Status.HEALTHY),
        ("read-write", 1, Status.HEALTHY),
        ("prefer-standby", 2, Status.HEALTHY),
        ("standby", 1, Status.CRITICAL),
    ],
)
async def test_which_of_several_servers_will_do(
    postgres: Postgres,
    proxy: Callable[[Postgres], Proxy],
    target: str,
    asked: int,
    status: Status,
) -> None:
    first, second = proxy(postgres), proxy(postgres)
    url = url_of(at(first), at(second), query=f"target_session_attrs={target}")

    async with checking(url) as check:
        result = await check()

    assert result.status is status
    assert first.accepted == asked
    if status is Status.CRITICAL:
        where = f"{at(first)},{at(second)}"
        assert result.message == (
            f"of PostgreSQL at {where} none is what target_session_attrs asks for"
        )


def found(*places: tuple[str, int]) -> Callable[..., list[Any]]:
    """Return a `getaddrinfo` that finds these."""
    return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in places]


async def test_a_name_service_that_hangs_takes_no_thread_of_the_app(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, threads = threading.Event(), []
    real = found((HOST, 0))

    def hang(*given: Any, **options: Any) -> list[Any]:
        threads.append(threading.current_thread().name)
        gate.wait(PATIENCE)
        return real(*given, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with checking(url_of(f"shop.test:{postgres.port}"), limit=0.2) as check:
        for _ in range(3):
            result = await check()
            assert result.status is Status.CRITICAL
            assert result.message == (
                f"PostgreSQL at shop.test:{postgres.port} cannot be reached: "
                "the name service gave no answer within 0.2 s"
            )
        assert threads == ["check PostgreSQL at shop.test"]

        gate.set()
        check.timeout = PATIENCE
        assert (await check()).status is Status.HEALTHY


@pytest.mark.parametrize(
    ("number", "predicate"),
    [
        (socket.EAI_NONAME, "cannot be reached: its name is not known"),
        (socket.EAI_AGAIN, "cannot be reached: the name service gives no answer"),
    ],
)
async def test_a_name_that_does_not_resolve(
    monkeypatch: pytest.MonkeyPatch, number: int, predicate: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(number, PASSWORD)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with checking(url_of("shop.test")) as check:
        assert (await check()).message == f"PostgreSQL at shop.test:5432 {predicate}"


async def test_no_thread_to_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError(PASSWORD)

    async with checking(url_of("shop.test")) as check:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            result = await check()

    assert result.message == "this process cannot start another thread"
    assert result.details == {"server": "shop.test:5432/postgres"}


async def test_an_address_that_never_lets_in_leaves_time_for_the_next(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as sockets:
        # Linux drops what knocks at a full queue, as if the host were not there.
        place = ("127.0.0.2", postgres.port)
        full = sockets.enter_context(socket.create_server(place, backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", found(place, (HOST, postgres.port)))
        async with checking(url_of(f"shop.test:{postgres.port}"), limit=2) as check:
            assert (await check()).status is Status.HEALTHY


@asynccontextmanager
async def speaking_tls(certificate: trustme.LeafCert) -> AsyncIterator[int]:
    """Serve a PostgreSQL that agrees to TLS, and is starting; yield its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(context)
            await reader.readexactly(8)
            fields = b"SFATAL\0VFATAL\0C57P03\0Mstarting\0\0"
            writer.write(b"E" + struct.pack("!i", 4 + len(fields)) + fields)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("authorities", ["of a file", "of the system"])
@pytest.mark.parametrize(
    ("name", "predicate"),
    [
        ("shop.test", "is starting or stopping and takes no connections"),
        ("other.test", "has a certificate for another name"),
    ],
)
async def test_a_certificate_is_held_against_the_name_and_not_its_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    authorities: str,
    name: str,
    predicate: str,
) -> None:
    authority = trustme.CA()
    ca = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(ca)
    monkeypatch.setenv("SSL_CERT_FILE", ca)
    monkeypatch.setattr(socket, "getaddrinfo", found((HOST, 0)))
    query = f"sslmode=verify-full&sslrootcert={ca if authorities == 'of a file' else 'system'}"
    async with (
        speaking_tls(authority.issue_cert(name)) as port,
        checking(url_of(f"shop.test:{port}", query=query)) as check,
    ):
        result: CheckResult = await check()

    assert result.message == f"PostgreSQL at shop.test:{port} {predicate}"
