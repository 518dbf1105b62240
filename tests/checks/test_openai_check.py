"""The check of OpenAI against a server that speaks its wire format, over every kind of client."""

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import anyio
import openai
import pytest

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.names import Resolver
from holistic_asgi_monitor.checks.openai import OpenAI
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import (
    Check,
    CheckResult,
    ConfigurationError,
    MissingExtraError,
    Status,
)
from holistic_asgi_monitor.settings import Settings
from tests.servers import openai_stub as wire
from tests.servers.openai_stub import Answer, OpenAIStub
from tests.servers.process import free_port

KEY = "sk-proj-Fq7abcdefghijklmnopqrstuvwxyz0123456789zQ4W"
THREAD = "check openai"
SOON = 0.2

type_of_client = pytest.mark.parametrize("kind", ["own", "async", "sync"])


@pytest.fixture(scope="module", autouse=True)
def everything_read() -> None:
    """Have `openai` and `httpx2` read themselves, which they do as they are first needed."""
    OpenAI(api_key=KEY)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as server:
        yield server
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(5)
    assert check_threads() == 0


def check_threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


@contextlib.asynccontextmanager
async def checking(kind: str, url: str, **options: Any):
    """A check over that kind of client, all of which is closed afterwards."""
    options.setdefault("timeout", 5.0)
    if kind == "own":
        check = OpenAI(api_key=KEY, base_url=url, **options)
        yield check
        await check.aclose()
    elif kind == "async":
        async with openai.AsyncOpenAI(api_key=KEY, base_url=url) as client:
            yield OpenAI(client, **options)
    else:
        with openai.OpenAI(api_key=KEY, base_url=url) as client:
            yield OpenAI(client, **options)


def client_of(check: OpenAI) -> Any:
    """The client that the check calls."""
    line: Any = check._line
    return line._client if hasattr(line, "_client") else line._clients.known()


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not holds():
            await anyio.sleep(0.01)


FAULTS = [
    pytest.param(
        wire.invalid_key(KEY), Status.CRITICAL, "OpenAI rejects the API key", "auth_error", id="401"
    ),
    pytest.param(
        wire.FORBIDDEN, Status.CRITICAL, "OpenAI rejects the API key", "auth_error", id="403"
    ),
    pytest.param(
        wire.QUOTA, Status.CRITICAL, "the OpenAI quota is used up", "quota_exceeded", id="quota"
    ),
    pytest.param(
        wire.RATE_LIMITED,
        Status.DEGRADED,
        "OpenAI limits the rate of calls",
        "rate_limited",
        id="rate",
    ),
    pytest.param(
        wire.SERVER_ERROR,
        Status.DEGRADED,
        "OpenAI at {host} answers with an error (500)",
        "server_error",
        id="500",
    ),
    pytest.param(
        wire.OVERLOADED,
        Status.DEGRADED,
        "OpenAI at {host} answers with an error (503)",
        "server_error",
        id="503",
    ),
    pytest.param(
        wire.BROKEN,
        Status.DEGRADED,
        "OpenAI at {host} answers something that is not JSON",
        "server_error",
        id="broken",
    ),
    pytest.param(
        wire.PORTAL,
        Status.DEGRADED,
        "OpenAI at {host} answers something that is not JSON",
        "server_error",
        id="portal",
    ),
    pytest.param(
        Answer(body="fine"),
        Status.DEGRADED,
        "OpenAI at {host} answers something that is no list of models",
        "server_error",
        id="text",
    ),
    pytest.param(
        wire.CLOSE,
        Status.DEGRADED,
        "OpenAI at {host} cut the connection",
        "connection_error",
        id="close",
    ),
    pytest.param(
        wire.CUT,
        Status.DEGRADED,
        "OpenAI at {host} cut the connection",
        "connection_error",
        id="cut",
    ),
]


@type_of_client
async def test_a_good_answer_is_healthy_and_tells_its_figures(stub: OpenAIStub, kind: str) -> None:
    async with checking(kind, stub.url) as check:
        result = await check()

    assert isinstance(check, Check)
    assert (result.status, result.message) == (
        Status.HEALTHY,
        "OpenAI answers and accepts the API key",
    )
    assert result.details == {"host": stub.host, "models": wire.MODELS}
    assert result.response_time_ms is not None
    assert 0 < result.response_time_ms < 5_000
    [request] = stub.requests
    assert (request.method, request.path, request.body) == ("GET", "/v1/models", b"")
    assert request.headers["authorization"] == f"Bearer {KEY}"


@type_of_client
@pytest.mark.parametrize(("answer", "status", "sentence", "outcome"), FAULTS)
async def test_each_fault_has_its_status_and_its_sentence(
    stub: OpenAIStub, kind: str, answer: Answer, status: Status, sentence: str, outcome: str
) -> None:
    stub.answer(answer)
    async with checking(kind, stub.url) as check:
        result = await check()

    assert (result.status, result.message) == (status, sentence.format(host=stub.host))
    assert (result.details["host"], result.details["outcome"]) == (stub.host, outcome)
    assert len(stub.requests) == 1, "the check must not try again"


@pytest.mark.parametrize(
    "answer", [wire.RATE_LIMITED, wire.SERVER_ERROR, wire.CLOSE, wire.BROKEN, wire.DRIBBLE]
)
async def test_a_passing_fault_is_degraded_where_the_app_needs_openai_too(
    stub: OpenAIStub, answer: Answer
) -> None:
    stub.answer(answer)
    async with checking("own", stub.url, required=True, timeout=SOON) as check:
        result = await check()

    assert result.status is Status.DEGRADED


@type_of_client
async def test_refused_connections_are_degraded(kind: str) -> None:
    port = free_port()
    async with checking(kind, f"http://127.0.0.1:{port}/v1") as check:
        result = await check()

    assert (result.status, result.message) == (
        Status.DEGRADED,
        f"OpenAI at 127.0.0.1:{port} refuses connections",
    )


@type_of_client
@pytest.mark.parametrize("answer", [wire.HANG, wire.DRIBBLE, Answer(delay=20)])
async def test_silence_ends_with_the_timeout_and_50_ms(
    stub: OpenAIStub, kind: str, answer: Answer
) -> None:
    stub.answer(answer)
    took = []
    for _ in range(3):
        # The best of three: the machine may be loaded.
        async with checking(kind, stub.url, timeout=SOON) as check:
            began = time.monotonic()
            result = (await Runner([check], timeout=9).round())["openai"]
            took.append(time.monotonic() - began)
        assert (result.status, result.message) == (
            Status.DEGRADED,
            f"OpenAI at {stub.host} gave no answer within 0.2 s",
        )
        assert result.details == {"host": stub.host, "outcome": "timeout"}
    assert min(took) < SOON + 0.05


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (wire.NO_SCOPE, "OpenAI at {host} answers; this API key may not list the models"),
        (
            Answer(404, {"detail": "Not Found"}),
            "OpenAI at {host} answers; it lists no models there, so the API key is untried",
        ),
        (Answer(body=[{"id": "one"}]), "OpenAI answers and accepts the API key"),
        (Answer(body={"object": "list", "data": None}), "OpenAI answers and accepts the API key"),
    ],
)
async def test_a_server_or_a_key_without_a_list_of_models_is_healthy(
    stub: OpenAIStub, answer: Answer, sentence: str
) -> None:
    stub.answer(answer)
    async with checking("own", stub.url) as check:
        result = await check()

    assert (result.status, result.message) == (Status.HEALTHY, sentence.format(host=stub.host))


@pytest.mark.parametrize("azure", [openai.AsyncAzureOpenAI, openai.AzureOpenAI])
@pytest.mark.parametrize("deployment", [None, "shop"])
async def test_azure_is_asked_for_the_models_of_the_resource(
    stub: OpenAIStub, azure: type[Any], deployment: str | None
) -> None:
    client = azure(
        azure_endpoint=f"http://{stub.host}",
        azure_deployment=deployment,
        api_version="2024-10-21",
        azure_ad_token="ey-token",
    )
    result = await OpenAI(client)()
    await client.close() if azure is openai.AsyncAzureOpenAI else client.close()

    assert result.status is Status.HEALTHY
    [request] = stub.requests
    assert (request.path, request.query) == ("/openai/models", "api-version=2024-10-21")
    assert request.headers["authorization"] == "Bearer ey-token"


@type_of_client
async def test_a_healthy_result_is_kept_for_fifty_seconds_and_tells_its_age(
    stub: OpenAIStub, clock: Clock, kind: str
) -> None:
    async with checking(kind, stub.url, clock=clock) as check:
        first = await check()
        stub.answer(wire.SERVER_ERROR)
        clock.now += 49.9
        kept = await check()
        clock.now += 0.1
        fresh = await check()

    assert kept.details == {**first.details, "age_seconds": 49.9}
    assert (kept.status, kept.response_time_ms) == (Status.HEALTHY, first.response_time_ms)
    assert fresh.status is Status.DEGRADED
    assert len(stub.requests) == 2


@type_of_client
@pytest.mark.parametrize(
    "answer", [wire.invalid_key(KEY), wire.SERVER_ERROR, wire.BROKEN, wire.CLOSE]
)
async def test_a_bad_result_is_never_told_a_second_time(
    stub: OpenAIStub, clock: Clock, kind: str, answer: Answer
) -> None:
    """Told again it would count as a second failure, and alarm after one request."""
    stub.answer(answer, wire.OK)
    async with checking(kind, stub.url, clock=clock) as check:
        first, second = await check(), await check()

    assert first.status > Status.HEALTHY
    assert second.status is Status.HEALTHY
    assert "age_seconds" not in second.details
    assert len(stub.requests) == 2


async def test_silence_is_not_told_a_second_time_either(stub: OpenAIStub, clock: Clock) -> None:
    stub.answer(wire.DRIBBLE)
    async with checking("own", stub.url, clock=clock, timeout=SOON) as check:
        first = await check()
        stub.answer(wire.OK)
        second = await check()

    assert (first.status, second.status) == (Status.DEGRADED, Status.HEALTHY)


async def asked_at_once(*checks: OpenAI) -> list[CheckResult]:
    results: list[CheckResult] = []

    async def ask(check: OpenAI) -> None:
        results.append(await check())

    async with anyio.create_task_group() as group:
        for check in checks:
            group.start_soon(ask, check)
    return results


@type_of_client
@pytest.mark.parametrize("status", [200, 500])
async def test_those_who_ask_at_the_same_time_share_one_request(
    stub: OpenAIStub, kind: str, status: int
) -> None:
    answer = wire.OK if status == 200 else wire.SERVER_ERROR
    stub.answer(replace(answer, delay=0.1))
    async with checking(kind, stub.url) as check:
        results = await asked_at_once(check, check, check)

    assert len(stub.requests) == 1
    expected = Status.HEALTHY if status == 200 else Status.DEGRADED
    assert [result.status for result in results] == [expected] * 3


@type_of_client
async def test_monitors_that_share_a_check_ask_each_for_itself(stub: OpenAIStub, kind: str) -> None:
    stub.answer(replace(wire.OK, delay=0.1))
    async with checking(kind, stub.url) as check:
        await check()
        configured = [check.configured(Settings()) for _ in range(2)]
        results = await asked_at_once(*configured)
        for each in configured:
            await each.aclose()

    assert [result.status for result in results] == [Status.HEALTHY] * 2
    assert len(stub.requests) == 3


@pytest.mark.parametrize("kind", ["own", "sync"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_check_asks_in_two_threads_at_once(stub: OpenAIStub, kind: str, backend: str) -> None:
    stub.answer(replace(wire.OK, delay=0.1))
    with openai.OpenAI(api_key=KEY, base_url=stub.url) as client:
        check = OpenAI(client) if kind == "sync" else OpenAI(api_key=KEY, base_url=stub.url)
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(lambda: anyio.run(check, backend=backend)) for _ in range(2)]
            results = [future.result() for future in futures]

    assert [result.status for result in results] == [Status.HEALTHY] * 2


async def test_a_name_service_that_hangs_holds_one_thread_that_is_not_the_app_s(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, look_up, asking = threading.Event(), socket.getaddrinfo, list[str]()

    def hang(host: Any, *rest: Any, **options: Any) -> Any:
        # anyio asks by bytes.
        if host not in {"llm.example", b"llm.example"}:
            return look_up(host, *rest, **options)
        asking.append(threading.current_thread().name)
        gate.wait(30)
        return look_up("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    url = stub.url.replace("127.0.0.1", "llm.example")
    async with checking("own", url, timeout=SOON) as check:
        first, *others = [await check() for _ in range(3)]
        assert asking == [THREAD]
        gate.set()
        await until(lambda: check_threads() == 0)
        last = await check()

    where = stub.host.replace("127.0.0.1", "llm.example")
    assert first.message == f"OpenAI at {where} gave no answer within 0.2 s"
    for other in others:
        assert other.message.startswith(f"OpenAI at {where} has given no answer since 20")
    assert last.status is Status.HEALTHY


@pytest.mark.parametrize("variable", ["https_proxy", "http_proxy", "all_proxy"])
async def test_the_name_of_the_server_is_left_to_a_proxy(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It may know names that nobody else does."""
    asked: list[Any] = []
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(Resolver, "addresses", lambda *_: asked.append(True))
    check = OpenAI(api_key=KEY, base_url="http://llm.example/v1", timeout=SOON)
    monkeypatch.delenv(variable)
    result = await check()
    await check.aclose()

    assert result.status is Status.DEGRADED
    assert asked == []


@pytest.mark.parametrize("key", ["openai", "OPENAI", "example", "llm", "abc"])
def test_a_key_that_is_shown_all_the_same_is_not_hidden(key: str) -> None:
    assert OpenAI(api_key=key, base_url="http://llm.example/v1").secrets == ()


@pytest.mark.parametrize(("given", "interval"), [(None, 60.0), (5.0, 5.0), (600.0, 600.0)])
def test_it_is_due_every_minute_unless_told_otherwise(given: float | None, interval: float) -> None:
    check = OpenAI(api_key=KEY, interval=given)

    assert check.interval == interval
    assert check.configured(Settings(check_interval_seconds=7.0)).interval == interval


@type_of_client
async def test_rounds_leave_no_task_no_thread_and_no_connection(
    stub: OpenAIStub, clock: Clock, kind: str
) -> None:
    stub.answer(*[wire.OK, wire.SERVER_ERROR, wire.CLOSE, wire.BROKEN] * 26)
    async with checking(kind, stub.url, clock=clock) as check:
        runner = Runner([check], timeout=9)
        await runner.round()
        tasks, threads = len(anyio.get_running_tasks()), threading.active_count()
        for _ in range(100):
            clock.now += 61
            await runner.round()
        if kind == "own":
            await until(lambda: stub.connections == 0)
        assert stub.connections <= 1
        assert len(anyio.get_running_tasks()) <= tasks
        # The stub has a thread for each connection.
        await until(lambda: threading.active_count() <= threads + stub.connections)
        await runner.aclose()
    assert len(stub.requests) == 101


@type_of_client
async def test_cancelled_rounds_leave_no_task_no_thread_and_no_connection(
    stub: OpenAIStub, kind: str
) -> None:
    stub.answer(Answer(delay=0.2))
    async with checking(kind, stub.url) as check:
        tasks = len(anyio.get_running_tasks())
        for number in range(20):
            with anyio.move_on_after(0.004 * number), contextlib.suppress(UnwellError):
                await check.unjudged()
        assert len(anyio.get_running_tasks()) == tasks
        assert check_threads() <= 1
        await until(lambda: check_threads() == 0)
        if kind != "sync":
            await until(lambda: stub.connections == 0)
        stub.answer(wire.OK)
        assert (await check()).status is Status.HEALTHY


async def test_a_sync_client_that_does_not_return_is_called_once(
    stub: OpenAIStub, clock: Clock
) -> None:
    stub.answer(wire.DRIBBLE)
    async with checking("sync", stub.url, timeout=SOON, clock=clock) as check:
        for _ in range(3):
            result = await check()
            clock.now += 61
            assert check_threads() == 1

    assert result.status is Status.DEGRADED
    assert result.message.startswith(f"OpenAI at {stub.host} has given no answer since 20")
    assert len(stub.requests) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_client_of_the_user_s_stays_open_and_as_it_is(stub: OpenAIStub, kind: str) -> None:
    stub.answer(wire.SERVER_ERROR)
    async with checking(kind, stub.url) as check:
        client = client_of(check)
        await check()
        await check.aclose()

        assert not client.is_closed()
        assert (client.max_retries, client.timeout.read) == (2, 600)


async def test_the_own_client_is_closed_and_may_be_used_again(
    stub: OpenAIStub, clock: Clock
) -> None:
    check = OpenAI(api_key=KEY, base_url=stub.url, clock=clock)
    await check()
    client = client_of(check)
    await check.aclose()
    assert client.is_closed()
    await check.aclose()
    clock.now += 61

    assert (await check()).status is Status.HEALTHY
    assert len(stub.requests) == 2
    await check.aclose()


def test_one_check_works_in_one_event_loop_after_another(stub: OpenAIStub, clock: Clock) -> None:
    check = OpenAI(api_key=KEY, base_url=stub.url, clock=clock)
    for backend in ("trio", "asyncio", "asyncio", "trio", "trio"):
        clock.now += 61
        assert anyio.run(check, backend=backend).status is Status.HEALTHY

    assert len(stub.requests) == 5


def test_a_loop_that_ended_in_the_middle_of_a_probe_is_left_behind(
    stub: OpenAIStub, clock: Clock
) -> None:
    check = OpenAI(api_key=KEY, base_url=stub.url, clock=clock)
    stub.answer(wire.HANG, wire.OK)

    async def leave() -> None:
        task = asyncio.ensure_future(check())
        while not stub.requests:
            await asyncio.sleep(0.01)
        assert not task.done()

    asyncio.run(leave())

    assert asyncio.run(check()).status is Status.HEALTHY


SECRETS = (KEY, KEY[:10], KEY[-6:], "S3cret")


@type_of_client
@pytest.mark.parametrize(
    "answer", [wire.OK, wire.invalid_key(KEY), wire.SERVER_ERROR, wire.BROKEN, wire.CLOSE]
)
async def test_no_secret_is_in_a_result_a_repr_or_a_log_line_at_any_level(
    stub: OpenAIStub, kind: str, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.NOTSET)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    stub.answer(answer)
    # A client that somebody else made with a password in its address logs that by itself.
    url = stub.url.replace("//", "//user:S3cret@") if kind == "own" else stub.url
    async with checking(kind, url) as check:
        result = await check()
        report = (await Runner([check], timeout=9).round())["openai"]
        texts = [repr(result), repr(report), repr(check), str(check), caplog.text]

    assert {record.name.partition(".")[0] for record in caplog.records} >= {"httpcore2", "openai"}
    assert KEY in check.secrets
    for secret in SECRETS:
        assert all(secret not in text for text in texts)


async def test_a_fault_is_logged_once_by_its_class_and_its_place(
    stub: OpenAIStub, caplog: pytest.LogCaptureFixture
) -> None:
    stub.answer(wire.invalid_key(KEY))
    async with checking("own", stub.url) as check:
        runner = Runner([check], timeout=9)
        for _ in range(9):
            await runner.round()

    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].startswith("The check openai raised AuthenticationError at ")
    assert len(stub.requests) == 9


async def test_user_and_password_of_the_address_are_sent_and_not_shown(stub: OpenAIStub) -> None:
    url = stub.url.replace("//", "//user:S3cret%21@")
    async with checking("own", url) as check:
        result = await check()

    assert result.details["host"] == stub.host
    assert {"S3cret%21", "S3cret!"} <= set(check.secrets)
    # "user:S3cret!" in base64.
    assert stub.requests[0].headers["authorization"] == "Basic dXNlcjpTM2NyZXQh"


async def test_without_any_key_it_is_skipped() -> None:
    check = OpenAI()

    result = await check()
    assert (result.status, result.message) == (Status.SKIPPED, "no OPENAI_API_KEY")
    await check.aclose()


async def test_key_and_address_come_from_the_environment(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    check = OpenAI()

    assert (await check()).status is Status.HEALTHY
    assert stub.requests[0].headers["authorization"] == f"Bearer {KEY}"
    await check.aclose()


async def test_what_is_given_wins_over_the_settings_and_these_over_the_environment(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    settings = Settings(openai_api_key="sk-of-the-settings", openai_base_url=stub.url)
    for check in (OpenAI(), OpenAI(api_key=KEY)):
        configured = check.configured(settings)
        assert (await configured()).status is Status.HEALTHY
        await configured.aclose()

    assert [request.headers["authorization"] for request in stub.requests] == [
        "Bearer sk-of-the-settings",
        f"Bearer {KEY}",
    ]
    assert "sk-of-the-settings" in OpenAI().configured(settings).secrets


async def test_the_settings_timeout_holds_for_a_sync_client_too(stub: OpenAIStub) -> None:
    stub.answer(wire.HANG)
    with openai.OpenAI(api_key=KEY, base_url=stub.url) as client:
        check = OpenAI(client).configured(Settings(check_timeout_seconds=SOON))
        result = await check()

    assert result.message == f"OpenAI at {stub.host} gave no answer within 0.2 s"


@pytest.mark.parametrize(
    "url",
    [
        "S3cret",
        "ftp://user:S3cret@host/v1",
        "https://user:S3cret@:443/v1",
        "http://user:S3cret@host:99999/v1",
        "http://user:S3cret@[::1/v1",
        "https://host/v1?key=S3cret",
        "https://host/v1#S3cret",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"The check llm has a base URL") as caught:
        OpenAI(api_key=KEY, base_url=url, name="llm")

    assert "S3cret" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("key", ["sk-S3cret\nline", "sk-S3cret blank", "sk-S3cretä"])
def test_a_key_that_no_header_can_hold_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ConfigurationError, match="The check openai has an API key") as caught:
        OpenAI(api_key=key)

    assert "S3cret" not in str(caught.value)


def test_a_client_with_a_line_break_in_its_key_is_refused() -> None:
    with (
        openai.OpenAI(api_key=f"{KEY}\n") as client,
        pytest.raises(ConfigurationError, match="The check openai has an API key"),
    ):
        OpenAI(client)


@pytest.mark.parametrize("client", [openai, object(), "sk-S3cret"])
def test_what_is_no_client_is_refused(client: Any) -> None:
    kind = type(client).__name__
    with pytest.raises(ConfigurationError, match=f"is given a {kind} as its client") as caught:
        OpenAI(client)

    assert "S3cret" not in str(caught.value)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)

    with pytest.raises(
        MissingExtraError, match=r"checks\.OpenAI .*holistic-asgi-monitor\[openai\]"
    ):
        OpenAI()


async def test_a_quota_that_real_calls_found_used_up_is_critical_though_the_models_are_listed(
    stub: OpenAIStub, clock: Clock
) -> None:
    async with checking("own", stub.url, clock=clock) as check:
        await check()
        check.saw("quota_exceeded", clock.now)
        used_up = await check()
        check.saw("success", clock.now)
        well = await check()

    assert (used_up.status, used_up.message) == (
        Status.CRITICAL,
        "the OpenAI quota is used up, as the app's own calls show",
    )
    assert used_up.details["calls_5m"] == {"calls": 1, "quota_exceeded": 1}
    assert used_up.details["models"] == wire.MODELS
    assert (well.status, well.message) == (
        Status.HEALTHY,
        "OpenAI answers and accepts the API key",
    )
    assert well.details["calls_5m"] == {"calls": 2, "quota_exceeded": 1}
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("answer", "calls", "status", "sentence"),
    [
        (wire.SERVER_ERROR, ["auth_error"], Status.CRITICAL, "of the app's own calls"),
        (wire.QUOTA, ["auth_error"], Status.CRITICAL, "the OpenAI quota is used up"),
        (wire.QUOTA, ["timeout"] * 5, Status.CRITICAL, "the OpenAI quota is used up"),
        (wire.SERVER_ERROR, ["timeout"] * 5, Status.DEGRADED, "with an error (500)"),
        (wire.SERVER_ERROR, ["success"] * 5, Status.DEGRADED, "with an error (500)"),
        (wire.OK, ["rate_limited"] * 5, Status.DEGRADED, "100 % of 5 OpenAI calls"),
    ],
)
async def test_the_worse_of_probe_and_real_calls_is_told(
    stub: OpenAIStub,
    clock: Clock,
    answer: Answer,
    calls: list[str],
    status: Status,
    sentence: str,
) -> None:
    stub.answer(answer)
    async with checking("own", stub.url, clock=clock) as check:
        for call in calls:
            check.saw(call, clock.now)
        result = await check()

    assert result.status is status
    assert sentence in result.message
    assert result.details["calls_5m"]["calls"] == len(calls)


async def test_real_calls_join_a_silent_probe(stub: OpenAIStub, clock: Clock) -> None:
    stub.answer(wire.HANG)
    async with checking("own", stub.url, clock=clock, timeout=SOON) as check:
        check.saw("quota_exceeded", clock.now)
        result = await check()

    assert result.status is Status.CRITICAL


async def test_real_calls_are_judged_where_the_check_itself_has_no_key(clock: Clock) -> None:
    check = OpenAI(clock=clock)
    check.saw("success", clock.now)
    assert (await check()).status is Status.SKIPPED
    check.saw("quota_exceeded", clock.now)
    assert (await check()).status is Status.CRITICAL


async def test_what_is_seen_by_the_check_as_given_is_known_to_the_configured_one(
    stub: OpenAIStub, clock: Clock
) -> None:
    check = OpenAI(api_key=KEY, base_url=stub.url, clock=clock)
    configured = check.configured(Settings())
    check.saw("auth_error", clock.now)

    assert (await configured()).status is Status.CRITICAL
    await configured.aclose()
