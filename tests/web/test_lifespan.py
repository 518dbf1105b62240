"""The lifespan protocol with every kind of app, by a server in memory; and the lazy start."""

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holistic_asgi_monitor.web import lifespan as module
from holistic_asgi_monitor.web.lifespan import Background, Lifespan

STARTED = "lifespan.startup.complete"
START_FAILED = "lifespan.startup.failed"
ENDED = "lifespan.shutdown.complete"
END_FAILED = "lifespan.shutdown.failed"

FACTORIES: list[Any] = [None, lambda loop, coro: asyncio.Task(coro, loop=loop)]
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


async def turns(count: int = 100) -> None:
    """Let the loop turn often enough for all that waits for nothing but its turn."""
    for _ in range(count):
        await checkpoint()


class Journal(list[str]):
    """What happened, in order; `run` and `stopped` of a monitor write into it."""

    async def run(self) -> None:
        self.append("run started")
        try:
            await anyio.sleep_forever()
        finally:
            self.append("run ended")

    async def stopped(self) -> None:
        await checkpoint()
        self.append("stopped")

    def over(self, app: ASGIApp) -> Lifespan:
        return Lifespan(app, self.run, stopped=self.stopped)


class Server:
    """A server's half of one lifespan conversation, which writes down what the app answers."""

    def __init__(self, app: ASGIApp, journal: list[str]) -> None:
        self.scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self.answers: list[Message] = []
        self.error: BaseException | None = None
        self.ended = anyio.Event()
        self._app = app
        self._journal = journal
        self._sink, self._source = anyio.create_memory_object_stream[Message](2)

    async def converse(self) -> None:
        try:
            await self._app(self.scope, self._source.receive, self._send)
        except Exception as error:
            self.error = error
            self._journal.append(f"raised {type(error).__name__}")
        finally:
            self.ended.set()
            self._sink.close()
            self._source.close()

    async def _send(self, message: Message) -> None:
        # A task that the app's side has started shows here that it lives.
        await turns(10)
        self._journal.append(message["type"])
        self.answers.append(message)

    async def tell(self, kind: str) -> None:
        """Send a message of `kind`, and wait until the app has done with it."""
        if not self.ended.is_set():
            await self._sink.send({"type": kind})
        await turns()


@asynccontextmanager
async def served(app: ASGIApp, journal: list[str]) -> AsyncIterator[Server]:
    """A conversation whose startup is done; the block's end cancels what is left of it."""
    async with anyio.create_task_group() as tasks:
        server = Server(app, journal)
        tasks.start_soon(server.converse)
        await server.tell("lifespan.startup")
        yield server
        tasks.cancel_scope.cancel()


async def whole_conversation(app: ASGIApp, journal: list[str]) -> Server:
    """Startup, and shutdown if startup has been answered with success."""
    async with served(app, journal) as server:
        if any(answer["type"] == STARTED for answer in server.answers):
            await server.tell("lifespan.shutdown")
        assert server.ended.is_set()
    return server


class Failure(Exception):
    """An app's own exception."""


def an_app(variant: str, journal: list[str]) -> ASGIApp:
    """An app that answers lifespan as `variant` says."""

    async def supports(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        journal.append("app startup")
        await send({"type": STARTED})
        assert (await receive())["type"] == "lifespan.shutdown"
        journal.append("app shutdown")
        await send({"type": ENDED})

    async def raises_before_receive(scope: Scope, receive: Receive, send: Send) -> None:
        raise Failure

    async def raises_after_receive(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise Failure

    async def returns(scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def returns_after_receive(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def answers_http(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    async def answers_http_in_any_case(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await answers_http(scope, receive, send)
        except RuntimeError:
            journal.append("app caught it")

    async def answers_the_wrong_question(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": ENDED})

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": START_FAILED, "message": "no database"})

    async def fails_and_raises(scope: Scope, receive: Receive, send: Send) -> None:
        await fails(scope, receive, send)
        raise Failure

    async def leaves_early(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": STARTED})

    async def leaves_at_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
        await leaves_early(scope, receive, send)
        await receive()

    async def breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
        await leaves_early(scope, receive, send)
        raise Failure

    async def raises_in_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
        await leaves_at_shutdown(scope, receive, send)
        raise Failure

    async def fails_in_shutdown(scope: Scope, receive: Receive, send: Send) -> None:
        await leaves_at_shutdown(scope, receive, send)
        await send({"type": END_FAILED, "message": "no farewell"})
        raise Failure

    async def answers_twice(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": STARTED})
        await supports_end(receive, send)

    async def supports_end(receive: Receive, send: Send) -> None:
        await send({"type": STARTED})
        await receive()
        await send({"type": ENDED})

    app: ASGIApp = locals()[variant]
    return app


LIVED = ["run started", STARTED, "run ended", "stopped", ENDED]

MATRIX: dict[str, list[str]] = {
    "supports": [
        "app startup", "run started", STARTED, "run ended", "app shutdown", "stopped", ENDED,
    ],
    "raises_before_receive": LIVED,
    "raises_after_receive": LIVED,
    "returns": LIVED,
    "returns_after_receive": LIVED,
    "answers_http": LIVED,
    "answers_http_in_any_case": ["app caught it", *LIVED],
    "answers_the_wrong_question": LIVED,
    "leaves_early": LIVED,
    "leaves_at_shutdown": LIVED,
    "answers_twice": ["run started", STARTED, STARTED, "run ended", "stopped", ENDED],
    "fails": [START_FAILED],
    "fails_and_raises": [START_FAILED, "raised Failure"],
    "breaks_off": ["run started", STARTED, "raised Failure", "run ended"],
    "raises_in_shutdown": ["run started", STARTED, "run ended", "stopped", "raised Failure"],
    "fails_in_shutdown": [
        "run started", STARTED, "run ended", "stopped", END_FAILED, "raised Failure",
    ],
}  # fmt: skip

COMPLETED = {
    "raises_before_receive": "raised Failure",
    "raises_after_receive": "raised Failure",
    "returns": "returned without an answer",
    "returns_after_receive": "returned without an answer",
    "answers_http": "answered 'http.response.start'",
    "answers_http_in_any_case": "answered 'http.response.start'",
    "answers_the_wrong_question": "answered 'lifespan.shutdown.complete'",
    "leaves_early": "returned before the shutdown was complete",
    "leaves_at_shutdown": "returned before the shutdown was complete",
}


@pytest.fixture(autouse=True)
def no_word_of_asyncio(caplog: pytest.LogCaptureFixture) -> Any:
    """No test may end with a task destroyed, an exception never retrieved or the like."""
    caplog.set_level(logging.INFO)
    yield
    gc.collect(1)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def ours(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    """The messages of our logger at `level`."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "holistic_asgi_monitor" and record.levelno == level
    ]


@pytest.mark.parametrize("variant", MATRIX)
async def test_every_kind_of_app_in_its_order(variant: str) -> None:
    """`run` lives between the app's startup and shutdown; what the app says passes on."""
    journal = Journal()
    await whole_conversation(journal.over(an_app(variant, journal)), journal)
    assert journal == MATRIX[variant]


@pytest.mark.parametrize("variant", [variant for variant in MATRIX if variant not in COMPLETED])
async def test_the_same_exceptions_and_messages_as_without_us(variant: str) -> None:
    """Where the app answers lifespan itself, the server sees no difference."""
    bare = await whole_conversation(an_app(variant, []), [])
    journal = Journal()
    wrapped = await whole_conversation(journal.over(an_app(variant, [])), journal)
    assert wrapped.answers == bare.answers
    assert type(wrapped.error) is type(bare.error)


@pytest.mark.parametrize("variant", MATRIX)
async def test_a_completed_protocol_is_said_once(
    variant: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names what the app did, at the first conversation only."""
    lifespan = Journal().over(an_app(variant, []))
    for _ in range(2):
        await whole_conversation(lifespan, [])
    expected = [COMPLETED[variant]] if variant in COMPLETED else []
    assert ours(caplog) == [
        f"On lifespan the app {what}; the monitor completes it in its place." for what in expected
    ]


@pytest.mark.parametrize("variant", ["supports", "raises_before_receive", "returns"])
async def test_a_second_conversation_starts_again(variant: str) -> None:
    """As Mangum does on every invocation, and a TestClient that is entered twice."""
    journal = Journal()
    lifespan = journal.over(an_app(variant, journal))
    for _ in range(2):
        await whole_conversation(lifespan, journal)
    assert journal == 2 * MATRIX[variant]


@pytest.mark.parametrize("variant", ["fails_and_raises", "breaks_off"])
async def test_no_await_between_the_exception_of_the_app_and_ours(variant: str) -> None:
    """Hypercorn looks one step after the answer whether the startup has failed."""
    failure = Failure()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": STARTED if variant == "breaks_off" else START_FAILED})
        raise failure

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        return

    conversation: Coroutine[Any, Any, None] = Journal().over(app)(
        {"type": "lifespan"}, receive, send
    )
    with pytest.raises(Failure) as caught:
        conversation.send(None)
    assert caught.value is failure
    await turns()


async def test_a_server_that_raises_on_the_answer_stops_run() -> None:
    """Hypercorn's `send` raises on a failure; what it raises passes through the app."""
    journal = Journal()

    async def send(message: Message) -> None:
        raise Failure

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    lifespan = journal.over(an_app("supports", journal))
    with pytest.raises(Failure):
        await lifespan({"type": "lifespan"}, receive, send)
    await turns()
    assert not lifespan.serving
    assert journal.count("run started") == journal.count("run ended")


async def test_the_scope_passes_unchanged() -> None:
    """The app sees the server's own dict and state, and no trace of us is left in it."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        scope["state"]["db"] = "pool"

    server = await whole_conversation(Journal().over(app), [])
    assert seen[0] is server.scope
    assert server.scope == {
        "type": "lifespan", "asgi": {"version": "3.0"}, "state": {"db": "pool"},
    }  # fmt: skip


@pytest.mark.parametrize("variant", MATRIX)
async def test_of_nested_monitors_only_the_outer_one_runs(variant: str) -> None:
    """The inner one passes the conversation on, and starts nothing at requests either."""
    journal, inner_journal = Journal(), Journal()
    inner = inner_journal.over(an_app(variant, journal))
    await whole_conversation(journal.over(inner), journal)
    inner.ensure()
    assert journal == MATRIX[variant]
    assert inner_journal == []


async def test_serving_while_started_through_lifespan() -> None:
    """`serving` is true from the end of the app's startup to the shutdown."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        seen.append(lifespan.serving)
        await send({"type": STARTED})
        seen.append(lifespan.serving)
        await receive()
        seen.append(lifespan.serving)
        await send({"type": ENDED})

    lifespan = Journal().over(app)
    await whole_conversation(lifespan, [])
    assert seen == [False, True, False]


@pytest.mark.parametrize("phase", ["startup", "serving", "shutdown"])
@pytest.mark.parametrize("answers", [True, False])
async def test_cancellation_ends_run_and_goes_on(phase: str, answers: bool) -> None:
    """Whatever the conversation waits for, a cancellation leaves no task behind."""
    journal = Journal()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if phase == "startup":
            await anyio.sleep_forever()
        if not answers:
            raise Failure
        await send({"type": STARTED})
        await receive()
        await anyio.sleep_forever()

    async with served(journal.over(app), journal) as server:
        if phase == "shutdown" and answers:
            await server.tell("lifespan.shutdown")
        assert not server.ended.is_set()
    assert server.error is None
    lived = ["run started", STARTED, "run ended", "stopped"]
    assert journal == ([] if phase == "startup" else lived)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("factory", FACTORIES)
async def test_cancellation_as_asyncio_itself_does_it(factory: Any) -> None:
    """Hypercorn cancels the task of the conversation, without any cancel scope."""
    journal = Journal()
    asyncio.get_running_loop().set_task_factory(factory)
    server = Server(journal.over(an_app("supports", journal)), journal)
    task = asyncio.create_task(server.converse())
    await server.tell("lifespan.startup")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    asyncio.get_running_loop().set_task_factory(None)
    assert journal == ["app startup", "run started", STARTED, "run ended", "stopped"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancellation_while_run_ends_still_does_the_last_work() -> None:
    """The end is awaited, then `stopped`, and then the cancellation goes on."""
    journal = Journal()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": STARTED})
        await send({"type": ENDED})

    lifespan = Lifespan(app, lambda: slow_to_end(journal), stopped=journal.stopped)
    server = Server(lifespan, journal)
    task = asyncio.create_task(server.converse())
    await server.tell("lifespan.startup")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal == [STARTED, "ended", "stopped"]


def test_a_loop_closed_over_a_conversation(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can be awaited or cancelled any more, and nothing is tried."""
    journal = Journal()
    loop = asyncio.new_event_loop()
    messages: list[Message] = [{"type": "lifespan.startup"}]

    async def receive() -> Message:
        if not messages:
            await asyncio.sleep(3600)
        return messages.pop()

    async def send(message: Message) -> None:
        journal.append(message["type"])

    async def main() -> None:
        lifespan = journal.over(an_app("supports", journal))
        asyncio.ensure_future(lifespan({"type": "lifespan"}, receive, send))  # noqa: RUF006 - lost
        await turns()

    loop.run_until_complete(main())
    loop.close()
    del loop
    gc.collect()
    assert journal == ["app startup", STARTED, "run started", "run ended"]
    assert all("destroyed" in record.getMessage() for record in caplog.records)
    caplog.clear()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("factory", FACTORIES)
async def test_any_task_factory_will_do(factory: Any) -> None:
    """An eager factory runs the first step at once; an old one knows no context."""
    journal = Journal()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    await whole_conversation(journal.over(an_app("supports", journal)), journal)
    loop.set_task_factory(None)
    assert journal == MATRIX["supports"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_task_that_cannot_be_started_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The app starts all the same."""

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **_: Any) -> Any:
        if coro.__name__ == "_guarded":
            raise Failure
        return asyncio.Task(coro, loop=loop)

    journal = Journal()
    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    await whole_conversation(journal.over(an_app("supports", journal)), journal)
    loop.set_task_factory(None)
    assert journal == ["app startup", STARTED, "app shutdown", "stopped", ENDED]
    assert "ended with Failure" in ours(caplog, logging.ERROR)[0]


async def test_a_failing_run_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged by type and place, without its text."""
    journal = Journal()

    async def run() -> None:
        raise Failure("postgres://user:secret@host")

    lifespan = Lifespan(an_app("supports", journal), run)
    await whole_conversation(lifespan, journal)
    assert journal == ["app startup", STARTED, "app shutdown", ENDED]
    (said,) = ours(caplog, logging.ERROR)
    assert said.startswith("The task 'holistic-asgi-monitor' ended with Failure")
    assert "in run" in said
    assert "secret" not in caplog.text


async def test_a_failing_last_work_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The shutdown is complete all the same."""

    async def stopped() -> None:
        raise Failure

    journal = Journal()
    lifespan = Lifespan(an_app("supports", journal), journal.run, stopped=stopped)
    await whole_conversation(lifespan, journal)
    assert journal == [entry for entry in MATRIX["supports"] if entry != "stopped"]
    assert len(ours(caplog, logging.ERROR)) == 1


async def test_endless_last_work_is_given_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown must not hang on us."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    journal = Journal()
    lifespan = Lifespan(an_app("supports", []), journal.run, stopped=anyio.sleep_forever)
    with anyio.fail_after(5):
        async with served(lifespan, journal) as server:
            await server.tell("lifespan.shutdown")
            await server.ended.wait()
    assert journal[-1] == ENDED
    assert ours(caplog, logging.WARNING) == [
        "The monitor's last work was given up after 0.01 seconds."
    ]


async def test_two_servers_in_one_loop_share_one_run() -> None:
    """It starts with the first conversation and ends with the last."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", []))
    async with served(lifespan, []) as first:
        async with served(lifespan, []) as second:
            await second.tell("lifespan.shutdown")
            assert second.ended.is_set()
        assert lifespan.serving
        await first.tell("lifespan.shutdown")
    assert journal == ["run started", "run ended", "stopped"]
    assert not lifespan.serving


async def test_running_without_a_server() -> None:
    """A block keeps `run` alive, and a lifespan within it starts no second one."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", []))
    async with lifespan.running():
        await turns()
        assert lifespan.serving
        await whole_conversation(lifespan, [])
        assert journal == ["run started"]
    assert journal == ["run started", "run ended", "stopped"]
    assert not lifespan.serving


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(
    script=st.lists(
        st.sampled_from(
            ["receive", "raise", STARTED, START_FAILED, ENDED, END_FAILED, "http.body"]
        ),
        max_size=8,
    )
)
def test_whatever_an_app_does_run_begins_and_ends(backend: str, script: list[str]) -> None:
    """Once at most, never after a failed startup; and the server always has its answers."""
    journal = Journal()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for step in script:
            if step == "receive":
                await receive()
            elif step == "raise":
                raise Failure
            else:
                await send({"type": step})

    async def conversation() -> None:
        async with served(journal.over(app), journal) as server:
            if STARTED in journal:
                await server.tell("lifespan.shutdown")
            left = server.ended.is_set()
        answers = [answer["type"] for answer in server.answers]
        if answers[:1] == [START_FAILED]:
            assert "run started" not in journal
        elif left and server.error is None:
            assert answers[0] == STARTED
            assert {ENDED, END_FAILED} & set(answers)
            assert "stopped" in journal
        assert journal.count("run started") == journal.count("run ended") <= 1
        assert journal.count("stopped") <= journal.count("run ended")

    in_a_new_loop(backend, conversation)


# The lazy start


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lazy start waits for one turn of the loop instead of half a second."""
    monkeypatch.setattr(module, "_DELAY", 0)


async def settled() -> None:
    """Return when a start that `soon` has shortened has taken place."""
    await anyio.sleep(0.01)
    await turns()


def in_a_new_loop(backend: str, *work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` in a loop of its own."""

    async def main() -> None:
        for step in work:
            await step()

    if backend == "asyncio":
        asyncio.run(main())
    else:
        anyio.run(main, backend=backend)


both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def nothing() -> None:
    """Take one turn of the loop."""
    await checkpoint()


def ensuring(lifespan: Lifespan, times: int = 3) -> Callable[[], Awaitable[None]]:
    """So many requests."""

    async def requests() -> None:
        for _ in range(times):
            lifespan.ensure()
            await checkpoint()

    return requests


@both
@pytest.mark.usefixtures("soon")
def test_requests_start_run_once_per_loop(backend: str) -> None:
    """The end of the loop ends it quietly, and a new loop starts it again."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", journal))
    for _ in range(3):
        in_a_new_loop(backend, ensuring(lifespan), settled, ensuring(lifespan), settled)
    assert journal == 3 * ["run started", "run ended"]
    assert not lifespan.serving


@pytest.mark.usefixtures("soon")
def test_one_library_after_the_other() -> None:
    """The loop of another library is another loop."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", journal))
    for backend in ("asyncio", "trio", "asyncio", "trio"):
        in_a_new_loop(backend, ensuring(lifespan), settled)
    assert journal == 4 * ["run started", "run ended"]


@both
def test_a_short_lived_loop_sees_nothing(backend: str) -> None:
    """No task is started, none destroyed, and a dead loop is forgotten."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", journal))
    loops: list[weakref.ref[object]] = []

    async def keep() -> None:
        loops.append(weakref.ref(module._loop_getter()()))

    for _ in range(3):
        in_a_new_loop(backend, keep, ensuring(lifespan))
    gc.collect()
    assert journal == []
    assert [loop() for loop in loops] == [None, None, None]
    assert len(lifespan._posts) == 0


@both
@pytest.mark.usefixtures("soon")
def test_a_loop_in_which_run_lived_is_forgotten_too(backend: str) -> None:
    """The ended task does not keep it."""
    lifespan = Journal().over(an_app("supports", []))
    in_a_new_loop(backend, ensuring(lifespan), settled)
    gc.collect()
    assert len(lifespan._posts) == 0


@both
@pytest.mark.usefixtures("soon")
def test_a_loop_in_every_thread(backend: str) -> None:
    """Several threads, each with a loop, start `run` once each."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", journal))
    together = threading.Barrier(3)

    async def meet() -> None:
        await anyio.to_thread.run_sync(together.wait)

    work = (meet, ensuring(lifespan, 50), settled, ensuring(lifespan, 50), settled, meet)
    threads = [threading.Thread(target=in_a_new_loop, args=(backend, *work)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(journal) == 3 * ["run ended"] + 3 * ["run started"]


@pytest.mark.usefixtures("soon")
async def test_nothing_is_started_lazily_where_lifespan_came() -> None:
    """Neither while the app starts, nor while it serves, nor after the shutdown."""
    journal = Journal()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        lifespan.ensure()
        await settled()
        journal.append("slow startup")
        await an_app("supports", journal)(scope, receive, send)

    lifespan = journal.over(app)
    async with served(lifespan, journal) as server:
        await anyio.sleep(0.02)
        await turns()
        await ensuring(lifespan)()
        await server.tell("lifespan.shutdown")
    await ensuring(lifespan)()
    await settled()
    assert journal == ["slow startup", *MATRIX["supports"]]


@pytest.mark.usefixtures("soon")
async def test_nothing_is_started_lazily_after_a_failed_startup() -> None:
    """A server that serves on all the same gets no watch."""
    journal = Journal()
    lifespan = journal.over(an_app("fails_and_raises", journal))
    await whole_conversation(lifespan, journal)
    await ensuring(lifespan)()
    await settled()
    assert journal == MATRIX["fails_and_raises"]


@pytest.mark.usefixtures("soon")
async def test_a_startup_that_fails_forestalls_a_lazy_start() -> None:
    """A request that came earlier starts nothing any more."""
    journal = Journal()
    lifespan = journal.over(an_app("fails_and_raises", journal))
    lifespan.ensure()
    await whole_conversation(lifespan, journal)
    await settled()
    assert journal == MATRIX["fails_and_raises"]


@pytest.mark.usefixtures("soon")
async def test_a_request_after_a_broken_lifespan_starts_run_again() -> None:
    """Servers go on serving an app that raises in the middle of its lifespan."""
    journal = Journal()
    lifespan = journal.over(an_app("breaks_off", journal))
    for _ in range(2):
        await ensuring(lifespan)()
        await settled()
        await whole_conversation(lifespan, journal)
        assert not lifespan.serving
    await ensuring(lifespan)()
    await settled()
    assert journal == [*2 * MATRIX["breaks_off"], "run started"]


@pytest.mark.parametrize("wait", [nothing, settled])
@pytest.mark.usefixtures("soon")
async def test_lifespan_takes_a_lazy_start_over(wait: Callable[[], Awaitable[None]]) -> None:
    """Whether it has taken place already or not, there is one `run`, and lifespan ends it."""
    journal = Journal()
    lifespan = journal.over(an_app("supports", []))
    lifespan.ensure()
    await wait()
    async with served(lifespan, []) as server:
        await settled()
        assert journal == ["run started"]
        assert lifespan.serving
        await server.tell("lifespan.shutdown")
    assert journal == ["run started", "run ended", "stopped"]


class Looking(Lifespan):
    """Counts how often it looks closer at the running loop."""

    looks = 0

    def _ensure_here(self) -> None:
        self.looks += 1
        super()._ensure_here()


async def test_only_the_first_request_looks_closer() -> None:
    """All others pay for a comparison."""
    lifespan = Looking(an_app("supports", []), Journal().run)
    await ensuring(lifespan, 100)()
    assert lifespan.looks == 1


def test_ensure_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Outside any loop there is nothing to start; the log says it once."""
    lifespan = Journal().over(an_app("supports", []))
    for _ in range(3):
        lifespan.ensure()
    assert len(ours(caplog, logging.ERROR)) == 1


class Hello:
    """An app that answers every request, with the lifespan room before it."""

    def __init__(self, journal: Journal) -> None:
        self.lifespan = journal.over(an_app("supports", journal))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
            return
        if not self.lifespan.serving:
            self.lifespan.ensure()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})


@both
def test_test_client_without_lifespan(backend: Any) -> None:
    """Each request has a loop of its own, and none of them sees a task."""
    journal = Journal()
    app = Hello(journal)
    client = TestClient(app, backend=backend)
    for _ in range(3):
        assert client.get("/").text == "hello"
    gc.collect()
    assert journal == []
    assert len(app.lifespan._posts) == 0


@both
def test_test_client_with_lifespan(backend: Any) -> None:
    """Entered twice, `run` lives twice."""
    journal = Journal()
    app = Hello(journal)
    for _ in range(2):
        with TestClient(app, backend=backend) as client:
            assert client.get("/").text == "hello"
            assert app.lifespan.serving
    assert [entry for entry in journal if "lifespan" not in entry] == 2 * [
        "app startup", "run started", "run ended", "app shutdown", "stopped",
    ]  # fmt: skip


@pytest.mark.usefixtures("soon")
@both
def test_a_transport_that_knows_no_lifespan(backend: str) -> None:
    """httpx's transport sends requests only."""
    import httpx2

    journal = Journal()
    app = Hello(journal)

    async def requests() -> None:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            for _ in range(3):
                assert (await client.get("/")).text == "hello"
        await settled()

    in_a_new_loop(backend, requests)
    assert journal == ["run started", "run ended"]


# The detached task


async def test_background_stops_and_waits() -> None:
    """It is alive until `stop` returns; a second `stop` does no harm."""
    journal = Journal()
    background = Background.start(journal.run, name="test")
    await turns()
    alive = [background.alive]
    await background.stop()
    alive.append(background.alive)
    await background.stop()
    assert alive == [True, False]
    assert journal == ["run started", "run ended"]


async def test_background_stops_before_its_first_step() -> None:
    """A start and a stop in one breath leave nothing behind."""
    journal = Journal()
    background = Background.start(journal.run, name="test")
    await background.stop()
    assert not background.alive
    assert journal.count("run started") == journal.count("run ended")


async def test_background_that_returns_is_not_alive() -> None:
    """Not only `stop` ends it."""
    background = Background.start(checkpoint, name="test")
    await turns()
    assert not background.alive
    await background.stop()


async def test_background_stopped_by_many() -> None:
    """Each waits for the end, and the task is cancelled once."""
    journal = Journal()

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
                journal.append("cleaned up")

    background = Background.start(run, name="test")
    await turns()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(background.stop)
            await turns()
        await background.stop()
        assert journal == ["cleaned up"]


async def slow_to_end(journal: Journal) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
        journal.append("ended")


async def test_a_cancelled_stop_waits_for_the_end_first() -> None:
    """The cancellation is kept back, and then goes on."""
    journal = Journal()
    background = Background.start(lambda: slow_to_end(journal), name="test")
    await turns()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await background.stop()
        journal.append("stopped")
        await checkpoint()
    assert scope.cancelled_caught
    assert journal == ["ended", "stopped"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stop_cancelled_by_asyncio_waits_too() -> None:
    """However often the task that waits is cancelled."""
    journal = Journal()
    background = Background.start(lambda: slow_to_end(journal), name="test")
    await turns()
    waiting = asyncio.create_task(background.stop())
    for _ in range(3):
        await asyncio.sleep(0.01)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert journal == ["ended"]


async def test_a_task_that_does_not_end_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shutdown must not hang on it."""
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    let_go = anyio.Event()

    async def run() -> None:
        with anyio.CancelScope(shield=True):
            while not let_go.is_set():
                with suppress(asyncio.CancelledError):
                    await let_go.wait()

    background = Background.start(run, name="stubborn")
    await turns()
    with anyio.fail_after(5):
        await background.stop()
    assert background.alive
    assert ours(caplog, logging.WARNING) == ["The task 'stubborn' has not ended in 0.01 seconds."]
    let_go.set()
    await turns()
    await background.stop()
    assert len(ours(caplog, logging.WARNING)) == 1


FAILURES = [
    (Failure("secret"), "Failure"),
    (SystemExit("secret"), "SystemExit"),
    (ExceptionGroup("secret", [Failure("secret")]), "ExceptionGroup"),
    (BaseExceptionGroup("secret", [SystemExit("secret")]), "BaseExceptionGroup"),
]


@pytest.mark.parametrize(("failure", "name"), FAILURES)
async def test_an_exception_is_logged_and_not_raised(
    failure: BaseException, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In trio it would end the whole loop."""

    async def run() -> None:
        await checkpoint()
        raise failure

    background = Background.start(run, name="test")
    await turns()
    assert not background.alive
    (said,) = ours(caplog, logging.ERROR)
    assert said.startswith(f"The task 'test' ended with {name}:")
    assert "secret" not in caplog.text


async def test_an_exception_while_stopping_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """`stop` returns, and does not raise it."""

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Failure

    background = Background.start(run, name="test")
    await turns()
    await background.stop()
    assert len(ours(caplog, logging.ERROR)) == 1


async def test_groups_of_cancellations_are_no_failures(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a task group inside `run` makes of its end, it is an end."""

    async def run() -> None:
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as error:
            raise BaseExceptionGroup("", [error]) from None

    background = Background.start(run, name="test")
    await turns()
    await background.stop()
    assert ours(caplog, logging.ERROR) == []


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="empty")


@both
@pytest.mark.parametrize("lazily", [True, False])
@pytest.mark.usefixtures("soon")
def test_the_context_of_the_task_is_empty(backend: str, lazily: bool) -> None:
    """The first request's user, or span, must not stick to every round."""
    seen: list[str] = []

    async def run() -> None:
        seen.append(VARIABLE.get())

    async def request() -> None:
        VARIABLE.set("of the request")
        if lazily:
            Lifespan(an_app("supports", []), run).ensure()
        else:
            Background.start(run, name="test")

    def program() -> None:
        VARIABLE.set("of the program")
        in_a_new_loop(backend, request, settled)

    contextvars.copy_context().run(program)
    assert seen == ["empty"]


@both
def test_the_end_of_the_loop_is_quiet(
    backend: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A task that nobody stops is ended by the loop, without a word."""
    journal = Journal()

    async def main() -> None:
        Background.start(journal.run, name="test")
        await turns()

    in_a_new_loop(backend, main)
    gc.collect()
    assert journal == ["run started", "run ended"]
    assert caplog.records == []
    assert capfd.readouterr().err == ""
