"""What real calls see reaches the check of OpenAI, and a used-up quota does not wait."""

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import openai
import pytest

from holistic_asgi_monitor import Monitor, Settings, Status, checks, notifiers
from holistic_asgi_monitor.usage.openai_news import News
from holistic_asgi_monitor.usage.tracking import Current
from tests.apps.openai_scenarios import KEY, again, async_client_of, chat, client_of, nothing
from tests.servers.openai_stub import OK, QUOTA, RATE_LIMITED, OpenAIStub, invalid_key
from tests.web.exchanges import get, sample

# With and without us: openai leaves its own generators unread, of which trio warns.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator .* was garbage:ResourceWarning")
PATIENCE = 5.0


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as server:
        yield server


@pytest.fixture
def check(stub: OpenAIStub) -> checks.OpenAI:
    return checks.OpenAI(api_key=KEY, base_url=stub.url)


@pytest.fixture
def monitor(check: checks.OpenAI) -> Monitor:
    # Rounds come so seldom that one which comes is one that was called for.
    settings = Settings(service="test", history_url="off", check_interval_seconds=3600)
    made = Monitor(nothing, settings=settings, checks=[check], notifiers=[notifiers.Memory()])
    # It counts the calls outside of requests from the start, and not from its first step on.
    Current.started(made._parts.tracker)
    return made


async def status(monitor: Monitor) -> Status:
    return (await monitor.report()).services["openai"].status


@pytest.mark.parametrize("answer", [again(QUOTA), invalid_key(KEY)], ids=["quota", "key"])
@pytest.mark.parametrize("where", ["task", "thread"])
async def test_a_refusal_shows_at_once(
    monitor: Monitor, stub: OpenAIStub, answer: Any, where: str
) -> None:
    async with monitor, async_client_of(stub) as client:
        with anyio.fail_after(PATIENCE):
            while await status(monitor) is not Status.HEALTHY:
                await anyio.sleep(0.01)
            stub.answer(answer, route="/chat/completions")
            with client_of(stub) as sync, pytest.raises(openai.APIStatusError):
                await (
                    chat()(client) if where == "task" else anyio.to_thread.run_sync(chat(), sync)
                )
            while await status(monitor) is not Status.CRITICAL:
                await anyio.sleep(0.01)


async def test_rate_limits_and_successes_are_told_and_wake_nobody(
    monitor: Monitor, stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    rang = []
    monkeypatch.setattr(monitor._parts.news, "_ring", lambda: rang.append(1))
    async with monitor, async_client_of(stub, max_retries=0) as client:
        await chat()(client)
        stub.answer(RATE_LIMITED, route="/chat/completions")
        with pytest.raises(openai.RateLimitError):
            await chat()(client)
        await anyio.sleep(0.05)
        found = (await monitor.report(fresh=True)).services["openai"]

    assert found.status is Status.HEALTHY
    assert found.details["calls_5m"] == {"calls": 2, "rate_limited": 1}
    assert rang == []


async def test_it_rings_once_in_a_while(check: checks.OpenAI) -> None:
    now, rang = [100.0], []
    news = News([check], lambda: rang.append(now[0]), pause=5, clock=lambda: now[0])
    news.settle()
    for moment in (100.0, 101.0, 104.9, 105.0, 109.9, 200.0):
        now[0] = moment
        news("quota_exceeded")
        await anyio.sleep(0.02)

    assert rang == [100.0, 105.0, 200.0]


async def test_without_a_check_nobody_is_woken() -> None:
    rang: list[int] = []
    news = News([], lambda: rang.append(1), pause=5)
    news.settle()
    news("auth_error")
    await anyio.sleep(0.02)

    assert rang == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_that_has_ended_is_no_trouble(check: checks.OpenAI, backend: str) -> None:
    rang: list[int] = []
    news = News([check], lambda: rang.append(1), pause=0)
    news("auth_error")

    async def settle() -> None:
        news.settle()

    anyio.run(settle, backend=backend)
    news("auth_error")
    thread = threading.Thread(target=news, args=["auth_error"])
    thread.start()
    thread.join()

    assert rang == []


async def test_a_stream_that_was_left_is_on_the_next_page(
    monitor: Monitor, stub: OpenAIStub
) -> None:
    async with async_client_of(stub) as client:
        stream = await chat(stream=True)(client)
        await stream.close()
    page = await get(monitor, "/metrics")

    found = sample(page.body.decode(), "holisticos_openai_calls_total", ['status="abandoned"'])
    assert found == ["1.0"]


async def test_a_call_of_the_app_is_in_every_family(monitor: Monitor, stub: OpenAIStub) -> None:
    stub.answer(OK)
    async with monitor, async_client_of(stub) as client:
        await chat()(client)
    families = monitor._parts.catalogue
    families.gather()

    model = "gpt-4o-2024-08-06"
    assert families.openai_calls.values == {(model, "success"): 1}
    assert families.openai_cost.values == {(model,): 0.00725}
    assert families.openai_tokens.values == {(model, "input"): 1000, (model, "output"): 500}
    assert families.openai_cached.values == {(model,): 200}
    assert families.openai_unpriced.values == {}
    assert families.openai_duration.cells.keys() == {(model,)}


async def test_a_stream_that_was_left_is_counted_by_the_watch(
    monitor: Monitor, stub: OpenAIStub
) -> None:
    async with async_client_of(stub) as client:
        stream = await chat(stream=True)(client)
        await stream.close()
    monitor._parts._refresh()

    assert [status for _, status in monitor._parts.catalogue.openai_calls.values] == ["abandoned"]
