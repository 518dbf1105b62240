"""Who leaves before the answer is there is read nothing for; who stays is answered as ever."""

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.web.leaving import unless_left
from holistic_asgi_monitor.web.orders import ClientGoneError
from tests.web.exchanges import Exchange, get, http_scope

BODY = {"type": "http.request", "body": b"", "more_body": False}
PART = {"type": "http.request", "body": b"x", "more_body": True}
GONE = {"type": "http.disconnect"}


def server(*messages):
    """What a server says, and then nothing; an exception is raised."""
    said = list(messages)

    async def receive():
        if not said:
            await anyio.sleep_forever()
        message = said.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    return receive


async def soon():
    await anyio.wait_all_tasks_blocked()
    return "answer"


@pytest.mark.parametrize(
    "messages",
    [(), (BODY,), (PART, PART, BODY), (BODY, BODY), (RuntimeError("over"),), (BODY, OSError())],
    ids=["silent", "body", "parts", "twice", "over", "broken"],
)
async def test_who_stays_is_answered(anyio_backend, messages):
    assert await unless_left(soon, server(*messages)) == "answer"


@pytest.mark.parametrize("messages", [(GONE,), (BODY, GONE), (PART, PART, BODY, GONE)])
async def test_work_for_who_leaves_is_cancelled(anyio_backend, messages):
    with anyio.fail_after(20), pytest.raises(ClientGoneError):
        await unless_left(anyio.sleep_forever, server(*messages))


async def test_what_the_work_raises_is_raised_as_it_is(anyio_backend):
    async def fail():
        raise ValueError("this")

    with pytest.raises(ValueError, match="this"):
        await unless_left(fail, server(BODY))


async def test_a_cancelled_request_stays_cancelled(anyio_backend):
    with anyio.move_on_after(0.01) as limit:
        await unless_left(anyio.sleep_forever, server(BODY))

    assert limit.cancelled_caught


async def test_a_reading_of_history_ends_with_its_client(anyio_backend, monkeypatch):
    monitor = Monitor(
        Starlette(), settings=Settings(access="open", history_url="memory:"), checks=[]
    )
    begun, ended = anyio.Event(), []

    async def hang(query, now):
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    async def leave(exchange):
        await begun.wait()
        return GONE

    async with monitor:
        await monitor._parts.recorder.store.open()
        path = "/api/monitoring/history?metric=requests"
        with monkeypatch.context() as patch:
            patch.setattr(monitor._parts.recorder.store, "read", hang)
            patch.setattr(Exchange, "receive", leave)
            with anyio.fail_after(20):
                exchange = await Exchange().run(monitor, http_scope(path))
        assert (exchange.sent, ended) == ([], [1])

        assert (await get(monitor, path)).status == 200
