"""The check of what speaks HTTP: what it asks, what is a good answer, and every bad one."""

import gc
import json
import socket
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from operator import le
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, quote

import anyio
import pytest
import trustme
from anyio.lowlevel import checkpoint
from hypothesis import assume, given
from hypothesis import strategies as st

from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.checks.http import HTTP
from holistic_asgi_monitor.checks.probe import UnansweredError
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.settings import Settings

HOST = "127.0.0.1"
LIMIT = 0.5
LOADED = 0.25
"""What the machine may take on top of the promised 50 ms while other tests run."""
PATIENCE = 10.0
ROUNDS = 100
NO_FAREWELL = struct.pack("ii", 1, 0)

Script = Callable[[socket.socket], None]


class Service:
    """Answers each connection as a script says, in a thread of its own; None accepts none.

    It hears the request out before, unless it is `hasty`.
    """

    def __init__(
        self, script: Script | None, tls: ssl.SSLContext | None = None, *, hasty: bool = False
    ) -> None:
        self.script = script
        self._hasty = hasty
        self.requests: list[str] = []
        self._tls = tls
        self._listener = socket.create_server((HOST, 0), backlog=2 * ROUNDS)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]

    def __enter__(self) -> Self:
        if self.script is not None:
            self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(PATIENCE)
        self._listener.close()

    @property
    def url(self) -> str:
        return f"{'http' if self._tls is None else 'https'}://{HOST}:{self.port}/ping"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._answer, args=[connection])
                thread.start()
                self._threads.append(thread)

    def _answer(self, connection: socket.socket) -> None:
        script = self.script
        assert script is not None
        with connection, suppress(OSError):
            connection.settimeout(PATIENCE)
            if self._tls is None:
                self._read(connection)
                script(connection)
                return
            with self._tls.wrap_socket(connection, server_side=True) as secured:
                self._read(secured)
                script(secured)

    def _read(self, connection: socket.socket) -> None:
        request = b""
        if self._hasty:
            return
        while b"\r\n\r\n" not in request and (piece := connection.recv(10_000)):
            request += piece
        self.requests.append(request.decode("ascii"))


def saying(text: str) -> Script:
    return lambda connection: connection.sendall(text.encode())


def answering(status: int, body: str = "well") -> Script:
    return saying(f"HTTP/1.1 {status} Some\r\nContent-Length: {len(body)}\r\n\r\n{body}")


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_FAREWELL)


def drip(text: str, *, whole: int = 0) -> Script:
    """Say the text one byte at a time, never done within a test's limit; some at once before."""

    def say(connection: socket.socket) -> None:
        connection.sendall(text[:whole].encode())
        for sign in text[whole:]:
            connection.sendall(sign.encode())
            time.sleep(0.05)

    return say


def say_nothing(connection: socket.socket) -> None:
    """Wait until the other side has had enough."""
    connection.recv(1)


def pour(connection: socket.socket) -> None:
    """Send a body without an end, until the other side has had enough."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(65_536))


Serve = Callable[..., Service]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return what starts a service, which ends with the test."""
    with ExitStack() as services:
        yield lambda *arguments, **options: services.enter_context(Service(*arguments, **options))


def threads() -> int:
    """Return how many threads of checks are alive."""
    return sum(thread.name == "check pay" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    give_up = time.monotonic() + PATIENCE
    while threads() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert threads() == 0


@pytest.mark.parametrize("status", [200, 204, 206, 301, 302, 304, 399])
async def test_an_answer_of_two_or_three_hundred_is_healthy(serve: Serve, status: int) -> None:
    service = serve(answering(status))
    result = await HTTP(service.url, name="pay")()

    assert result.status is Status.HEALTHY
    assert result.message == f"{service.url} answered {status}"
    assert result.details == {"status_code": status, "ip_family": "IPv4"}
    assert 0 < (result.response_time_ms or 0) < 1000 * PATIENCE


@pytest.mark.parametrize("status", [101, 400, 401, 404, 429, 500, 503, 600])
@pytest.mark.parametrize(("required", "expected"), [(True, "critical"), (False, "degraded")])
async def test_any_other_answer_is_as_grave_as_the_check_is_needed(
    serve: Serve, status: int, required: bool, expected: str
) -> None:
    service = serve(answering(status))
    result = await HTTP(service.url, name="pay", required=required)()

    assert result.status.value == expected
    assert result.message == f"{service.url} answered {status}"
    assert result.details["status_code"] == status


@pytest.mark.parametrize("hints", [1, 3])
async def test_what_comes_before_the_answer_is_passed_over(serve: Serve, hints: int) -> None:
    early = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * hints
    service = serve(saying(f"{early}HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"))
    result = await HTTP(service.url, name="pay")()

    assert result.message == f"{service.url} answered 503"
    assert result.status is Status.DEGRADED


async def test_no_redirect_is_followed(serve: Serve) -> None:
    service = serve(saying("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"))
    await HTTP(service.url, name="pay")()

    assert len(service.requests) == 1


async def test_what_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    service = serve(answering(200))
    url = f"http://us%65r:p%40ss%E2%82%AC@{HOST}:{service.port}/a b/ü?key=hunter2hunter2&b=%20#part"
    check = HTTP(url.replace(" ", "%20"), name="pay")
    result = await check()

    head, *fields = service.requests[0].split("\r\n")
    expected = b64encode("user:p@ss€".encode()).decode()
    assert head == "GET /a%20b/%C3%BC?key=hunter2hunter2&b=%20 HTTP/1.1"
    assert f"Host: {HOST}:{service.port}" in fields
    assert f"User-Agent: holistic-asgi-monitor/{__version__}" in fields
    assert "Connection: close" in fields
    assert f"Authorization: Basic {expected}" in fields
    assert result.message == f"http://{HOST}:{service.port}/a%20b/%C3%BC answered 200"
    assert {"p%40ss%E2%82%AC", "p@ss€", expected, "hunter2hunter2"} <= set(check.secrets)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://pay.example", "https://pay.example/"),
        ("https://pay.example:443/a?b", "https://pay.example/a"),
        ("http://Pay.Example:8080/", "http://pay.example:8080/"),
        ("http://[::1]:8080/a", "http://[::1]:8080/a"),
        ("http://bücher.example", "http://xn--bcher-kva.example/"),
        ("HTTP://user@pay.example/a", "http://pay.example/a"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    message = str(HTTP(url, name="pay").unanswered(4.0))

    assert message == f"{shown} gave no answer within 4 s"


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "pay.example/hunter2",
        "ftp://:hunter2@pay.example",
        "http://",
        "http:///hunter2",
        "http://:hunter2@:80/",
        "http://user:hunter2#x@pay.example/",
        "http://user:80#hunter2@pay.example/",
        "http://user:hunter2/x@pay.example/",
        "http://pay.example:hunter2/",
        "http://pay.example:0/hunter2",
        "http://pay.example:99999/hunter2",
        "http://[hunter2]/",
        "http://pay.example/hunter2 HTTP/1.1",
        "http://pay.example/\r\nhunter2: x",
        f"http://{'hunter2' * 10}.example/",
        "http://hunter2..example/",
        "http://pay.example/hunter2\ud800",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="The URL of the check pay cannot be read") as no:
        HTTP(url, name="pay")

    assert "hunter2" not in str(no.value)
    assert no.value.__context__ is None


@given(st.sampled_from(["http", "https", "HTTP"]), st.text())
def test_any_text_is_taken_or_refused_in_our_words(scheme: str, rest: str) -> None:
    with suppress(ConfigurationError):
        HTTP(f"{scheme}://{rest}", name="pay")


@given(password=st.text(min_size=4), key=st.text(min_size=1).map("S3cret/{}".format))
def test_neither_password_nor_query_is_ever_shown(password: str, key: str) -> None:
    assume(password not in {"https", "ping", "example"})
    address = f"https://me:{quote(password, '')}@pay.example/ping?key={quote(key, '')}"
    check = HTTP(address, name="pay")

    assert str(check.unanswered(4.0)) == "https://pay.example/ping gave no answer within 4 s"
    assert {password, key} <= set(check.secrets)


@pytest.mark.parametrize(
    "value",
    [
        "sk-proj-0123456789",
        "deadbeefdeadbeef",
        "hunter2hunter2",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "xkcd-correct-horse-battery-staple",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_what_looks_like_a_key_in_the_query_is_a_secret(value: str) -> None:
    assert value in HTTP(f"http://pay.example/ping?key={value}", name="pay").secrets


@pytest.mark.parametrize(
    "query",
    [
        "h=127.0.0.1&q=refuses",
        "q=connections",
        "q=full-status",
        "host=db.internal.example:5432",
        "since=1764115200.5&a=-1,000",
        "at=2026-11-26+10:00",
        "path=pay.example/ping",
        "connections",
        "key=short1",
    ],
)
async def test_words_numbers_and_hosts_of_the_query_stay_readable(query: str) -> None:
    result = await HTTP(f"http://127.0.0.1:1/?{query}", name="pay")()

    assert result.message == "http://127.0.0.1:1/ refuses connections"
    values = {value for _, value in parse_qsl(query)}
    assert not values & set(HTTP(f"http://pay.example/ping?{query}", name="pay").secrets)


@pytest.mark.parametrize("password", ["http", "PING", "example", "pay", "abc"])
def test_a_password_that_is_shown_all_the_same_is_not_hidden(password: str) -> None:
    check = HTTP(f"http://me:{password}@pay.example/ping", name="pay")

    assert password not in check.secrets


FAULTS: dict[str, tuple[Script | None, str]] = {
    "no connection accepted": (None, "gave no answer within 0.5 s"),
    "no answer": (say_nothing, "gave no answer within 0.5 s"),
    "answer without an end of its head": (
        drip("HTTP/1.1 200 OK\r\nServer: very slow\r\n"),
        "gave no answer within 0.5 s",
    ),
    "body without an end in time": (
        drip("HTTP/1.1 200 OK\r\n\r\n" + "x" * 20, whole=19),
        "answered 200, but did not end within 0.5 s",
    ),
    "reset": (reset, "cut the connection"),
    "closed": (saying(""), "cut the connection"),
    "body cut off": (
        saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"),
        "answered 200, but cut its answer off",
    ),
    "piece cut off": (
        saying("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nx"),
        "answered 200, but cut its answer off",
    ),
    "another language": (saying("220 mail ready\r\n"), "gave an answer that is no HTTP"),
    "endless line": (saying("HTTP/1.1 200 " + "x" * 100_000), "gave an answer that is no HTTP"),
    "endless head": (
        saying("HTTP/1.1 200 OK\r\n" + "X-A: b\r\n" * 200),
        "gave an answer that is no HTTP",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_called_by_its_name_in_time_and_its_end_is_seen_at_once(
    serve: Serve, fault: str
) -> None:
    script, predicate = FAULTS[fault]
    service = serve(script)
    runner = Runner([HTTP(service.url, name="pay")], timeout=LIMIT)
    began = time.monotonic()
    result = (await runner.round())["pay"]

    assert result.message == f"{service.url} {predicate}"
    assert result.status is Status.DEGRADED
    assert time.monotonic() - began < LIMIT + 0.05 + LOADED
    if script is not None:
        service.script = answering(200)
        assert (await runner.round())["pay"].status is Status.HEALTHY


async def test_a_port_at_which_nobody_listens() -> None:
    result = await HTTP("http://127.0.0.1:1/", name="pay")()

    assert result.message == "http://127.0.0.1:1/ refuses connections"


async def test_a_body_without_an_end_is_read_no_further_than_needed(serve: Serve) -> None:
    service = serve(pour)

    assert (await HTTP(service.url, name="pay")()).status is Status.HEALTHY


@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 200000\r\n\r\n" + "x" * 200_000,
        "Transfer-Encoding: chunked\r\n\r\n4\r\nwell\r\n0\r\n\r\n",
        "Connection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        "\r\nuntil the end",
    ],
    ids=["long", "in pieces", "empty", "until closed"],
)
async def test_every_kind_of_body_is_read(serve: Serve, body: str) -> None:
    service = serve(saying(f"HTTP/1.1 200 OK\r\n{body}"))

    assert (await HTTP(service.url, name="pay")()).status is Status.HEALTHY


async def test_the_time_is_that_of_the_last_byte(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
        time.sleep(0.1)
        connection.sendall(b"x")

    result = await HTTP(serve(answer).url, name="pay")()

    assert result.status is Status.HEALTHY
    assert (result.response_time_ms or 0) >= 100


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
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "hunter2")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    result = await HTTP("http://pay.example/", name="pay")()

    assert result.message == f"http://pay.example/ {predicate}"


async def test_the_next_address_is_tried_where_one_fails(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(answering(200))
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*kind, (HOST, 1)), (*kind, (HOST, service.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert (await HTTP("http://pay.example/", name="pay")()).status is Status.HEALTHY


async def test_an_address_that_never_lets_in_leaves_time_for_the_next(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(answering(200))
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    with ExitStack() as sockets:
        # Linux drops what knocks at a full queue, as if the host were not there.
        full = sockets.enter_context(socket.create_server((HOST, 0), backlog=0))
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        found = [(*kind, full.getsockname()), (*kind, (HOST, service.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        result = await HTTP("http://pay.example/", name="pay", timeout=1)()

    assert result.status is Status.HEALTHY
    assert (result.response_time_ms or 0) > 400


async def test_an_answer_just_before_the_limit_counts(serve: Serve) -> None:
    def answer(connection: socket.socket) -> None:
        time.sleep(0.95)
        answering(200)(connection)

    service, messages = serve(answer), []
    for _ in range(5):
        # The machine may be loaded.
        messages.append((await HTTP(service.url, name="pay", timeout=1)()).message)
        if messages[-1].endswith(" answered 200"):
            return
    pytest.fail(f"no answer counted: {messages}")


async def asked_at_once(checks: Sequence[HTTP]) -> list[CheckResult]:
    results: list[CheckResult] = []

    async def ask(check: HTTP) -> None:
        results.append(await check())

    async with anyio.create_task_group() as group:
        for check in checks:
            group.start_soon(ask, check)
    return results


def slowly(connection: socket.socket) -> None:
    time.sleep(0.2)
    answering(200)(connection)


async def test_who_asks_while_somebody_else_does_waits_for_the_end_of_that(serve: Serve) -> None:
    service = serve(slowly)
    results = await asked_at_once([HTTP(service.url, name="pay")] * 3)

    assert {result.message for result in results} == {f"{service.url} answered 200"}
    assert len(service.requests) == 3


async def test_monitors_that_share_a_check_do_not_wait_for_each_other(serve: Serve) -> None:
    together = threading.Barrier(2)

    def answer(connection: socket.socket) -> None:
        together.wait(PATIENCE)
        answering(200)(connection)

    check = HTTP(serve(answer).url, name="pay")
    results = await asked_at_once([check.configured(Settings()) for _ in range(2)])

    assert [result.status for result in results] == [Status.HEALTHY] * 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_check_asks_in_two_threads_at_once(serve: Serve, backend: str) -> None:
    check = HTTP(serve(slowly).url, name="pay")
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(lambda: anyio.run(check, backend=backend)) for _ in range(2)]
        results = [future.result() for future in futures]

    assert [result.status for result in results] == [Status.HEALTHY] * 2


async def test_without_a_limit_from_outside_it_has_its_own(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holistic_asgi_monitor.checks.probe.TIMEOUT_SECONDS", 0.1)
    service = serve(None)

    began = time.monotonic()
    # The shield keeps off the limit that every test has.
    with anyio.CancelScope(shield=True), pytest.raises(UnansweredError):
        await HTTP(service.url, name="pay").unjudged()

    # Far below the four seconds that it would have otherwise, however busy the machine is.
    assert 0.05 < time.monotonic() - began < 2


async def test_a_name_service_that_hangs_holds_one_thread_and_no_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: gate.wait(PATIENCE) and [])
        service = serve(answering(200))
        check = HTTP(service.url, name="pay", timeout=0.2)
        first, second = await check(), await check()
        assert threads() == 1

    assert first.message == f"{service.url} gave no answer within 0.2 s"
    assert second.message.startswith("the request of 20")
    assert second.message.endswith(f" UTC to {service.url} has not ended, so none was made")
    gate.set()
    while threads():
        await anyio.sleep(0.01)
    assert (await check()).status is Status.HEALTHY


def left_over() -> tuple[int, int]:
    """Return how many open files and threads there are."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.parametrize("fault", ["no connection accepted", "refused", "reset", "none"])
async def test_a_hundred_rounds_leave_nothing_behind(serve: Serve, fault: str) -> None:
    script = {"reset": reset, "none": answering(200)}.get(fault)
    url = "http://127.0.0.1:1/" if fault == "refused" else serve(script).url
    runner = Runner([HTTP(url, name="pay")], timeout=0.02 if script is None else PATIENCE)
    await runner.round()
    before = await at_rest()
    for _ in range(ROUNDS):
        result = (await runner.round())["pay"]
        assert (result.status is Status.HEALTHY) is (fault == "none")
    # Threads of other tests may end meanwhile.
    assert all(map(le, await at_rest(), before))


async def at_rest() -> tuple[int, int]:
    """Return `left_over` once the threads of the service have ended too."""
    found, give_up = left_over(), time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        await anyio.sleep(0.05)
        if found == (found := left_over()):
            break
    return found


@pytest.mark.parametrize("moment", [0.0, 0.001, 0.02])
async def test_a_request_that_is_given_up_ends_its_thread(serve: Serve, moment: float) -> None:
    service = serve(say_nothing)
    check = HTTP(service.url, name="pay")
    for _ in range(10):
        with anyio.move_on_after(PATIENCE) as limit:
            async with anyio.create_task_group() as group:
                group.start_soon(check.unjudged)
                await (anyio.sleep(moment) if moment else checkpoint())
                group.cancel_scope.cancel()
        assert not limit.cancelled_caught
    began = time.monotonic()
    while threads():
        await anyio.sleep(0.001)
    # By itself it would have waited for four seconds.
    assert time.monotonic() - began < 2
    service.script = answering(200)
    assert (await check()).status is Status.HEALTHY


# TLS.


def context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(made)
    return made


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Return an authority that is trusted here."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return ca


async def test_a_certificate_is_verified_and_its_end_is_told(
    serve: Serve, authority: trustme.CA
) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20, hours=12)
    certificate = authority.issue_cert(HOST, not_after=expires)
    service = serve(answering(200), context(certificate))
    result = await HTTP(service.url, name="pay")()

    assert result.status is Status.HEALTHY
    assert result.message == f"{service.url} answered 200"
    assert result.details == {
        "status_code": 200,
        "ip_family": "IPv4",
        "certificate_expires_at": expires.isoformat(),
        "certificate_days_left": 20,
    }
    assert json.loads(json.dumps(result.details)) == result.details


async def test_a_certificate_is_told_of_a_bad_answer_too(
    serve: Serve, authority: trustme.CA
) -> None:
    service = serve(answering(503), context(authority.issue_cert(HOST)))
    result = await HTTP(service.url, name="pay")()

    assert result.message == f"{service.url} answered 503"
    assert result.details["certificate_days_left"] > 0


async def verdict(service: Service) -> CheckResult:
    return await HTTP(service.url, name="pay")()


async def test_an_expired_certificate(serve: Serve, authority: trustme.CA) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    service = serve(answering(200), context(authority.issue_cert(HOST, not_after=yesterday)))

    assert (await verdict(service)).message == (f"{service.url} has a certificate that has expired")


async def test_a_certificate_for_another_address(serve: Serve, authority: trustme.CA) -> None:
    service = serve(answering(200), context(authority.issue_cert("127.0.0.2")))

    assert (await verdict(service)).message == (
        f"{service.url} has a certificate for another address"
    )


async def test_a_certificate_for_another_name(serve: Serve, authority: trustme.CA) -> None:
    service = serve(answering(200), context(authority.issue_cert("pay.example")))
    url = service.url.replace(HOST, "localhost")

    assert (await HTTP(url, name="pay")()).message == (f"{url} has a certificate for another name")


async def test_a_certificate_of_an_unknown_authority(serve: Serve, authority: trustme.CA) -> None:
    service = serve(answering(200), context(trustme.CA().issue_cert(HOST)))

    assert (await verdict(service)).message == (
        f"{service.url} has a certificate from an authority that is not trusted here"
    )


async def test_a_self_signed_certificate(
    serve: Serve, authority: trustme.CA, tmp_path: Path
) -> None:
    stranger = trustme.CA()
    stranger.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    stranger.cert_pem.write_to_path(str(tmp_path / "key.pem"), append=True)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(tmp_path / "key.pem")
    service = serve(answering(200), made)

    assert (await verdict(service)).message == f"{service.url} has a self-signed certificate"


async def test_what_speaks_http_where_tls_is_wanted(serve: Serve) -> None:
    service = serve(saying("HTTP/1.1 400 Bad Request\r\n\r\n"), hasty=True)
    url = service.url.replace("http:", "https:")

    assert (await HTTP(url, name="pay")()).message == f"{url} does not speak TLS"


@pytest.mark.parametrize("caller", ["a round", "anybody"])
async def test_the_limit_is_told_and_not_what_waiting_left_of_it(serve: Serve, caller: str) -> None:
    class Late(HTTP):
        async def unjudged(self) -> CheckResult:
            await anyio.sleep(0.1)
            return await super().unjudged()

    service = serve(None)
    if caller == "a round":
        runner = Runner([Late(service.url, name="pay")], timeout=0.4)
        result = (await runner.round())["pay"]
    else:
        result = await Late(service.url, name="pay", timeout=0.4)()

    assert result.message == f"{service.url} gave no answer within 0.4 s"


async def test_a_handshake_that_does_not_end(serve: Serve, authority: trustme.CA) -> None:
    service = serve(None, context(authority.issue_cert(HOST)))
    result = await HTTP(service.url, name="pay", timeout=0.3)()

    assert result.message == f"{service.url} gave no answer within 0.3 s"
