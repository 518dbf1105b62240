"""Calls are watched while a monitor wants it: attached once, taken out again, never in the way."""

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from openai import _base_client

import holistic_asgi_monitor
from holistic_asgi_monitor import Monitor, Settings, checks
from holistic_asgi_monitor.usage import openai as hook
from holistic_asgi_monitor.usage.openai import Hook, base_of
from holistic_asgi_monitor.usage.openai_span import Hosts
from holistic_asgi_monitor.usage.tracking import Current
from tests.apps.openai_scenarios import KEY, chat, client_of, nothing, tracked
from tests.servers.openai_stub import OK, OpenAIStub
from tests.web.exchanges import get, sample

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(holistic_asgi_monitor.__file__).absolute().parents[1]
CLASSES = (_base_client.SyncAPIClient, _base_client.AsyncAPIClient)


@pytest.fixture(autouse=True)
def _originals() -> Iterator[None]:
    """Nothing is replaced before a test, and nothing after it."""
    gc.collect()
    # Monitors of other tests that something still holds.
    for tracker in list(Hook._members):
        Hook.leave(tracker)
    before = methods()
    assert not Hook._attached
    yield
    gc.collect()
    assert methods() == before


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def stub(server: OpenAIStub) -> OpenAIStub:
    server.reset(OK)
    return server


def methods() -> list[Any]:
    return [vars(kind)["request"] for kind in CLASSES]


def watched(app: Any = nothing, **settings: Any) -> Monitor:
    return Monitor(app, settings=Settings(service="test", history_url="off", **settings), checks=[])


def calls_of(monitor: Monitor) -> int:
    monitor._parts.catalogue.gather()
    return int(sum(monitor._parts.catalogue.openai_calls.values.values()))


async def attached(monitor: Monitor) -> list[str]:
    page = await get(monitor, "/metrics")
    return sample(page.body.decode(), "holisticos_openai_tracking_attached")


def call(stub: OpenAIStub) -> None:
    with client_of(stub) as client:
        assert chat()(client).choices[0].message.content == '{"name": "Ada"}'


async def test_the_gauge_says_whether_calls_are_seen() -> None:
    assert await attached(watched()) == ["1.0"]
    assert await attached(watched(track_openai=False)) == ["0.0"]


@pytest.mark.parametrize("settings", [{"track_openai": False}, {"enabled": False}])
def test_switched_off_nothing_is_touched(stub: OpenAIStub, settings: dict[str, Any]) -> None:
    before = methods()
    monitor = watched(**settings)
    Current.started(monitor._parts.tracker)
    call(stub)

    assert methods() == before
    assert calls_of(monitor) == 0


def test_any_number_of_monitors_replace_the_methods_once(stub: OpenAIStub) -> None:
    before = methods()
    first = watched()
    replaced = methods()
    second = watched()

    assert methods() == replaced
    assert [method.__wrapped__ for method in replaced] == before
    Current.started(second._parts.tracker)
    call(stub)
    assert (calls_of(first), calls_of(second)) == (0, 1)
    del second
    gc.collect()
    assert methods() == replaced
    del first
    gc.collect()
    assert methods() == before


async def test_the_end_of_the_app_puts_the_methods_back() -> None:
    before = methods()
    monitor = watched()
    async with monitor:
        assert methods() != before
    assert methods() == before
    async with monitor:
        with anyio.fail_after(5):
            while methods() == before:
                await anyio.sleep(0.001)
        assert await attached(monitor) == ["1.0"]
    assert methods() == before


def test_a_monitor_that_does_not_want_it_is_told_nothing(stub: OpenAIStub) -> None:
    other = watched()
    deaf = watched(track_openai=False)
    Current.started(deaf._parts.tracker)
    call(stub)

    assert (calls_of(other), calls_of(deaf)) == (0, 0)


def test_who_wraps_the_method_after_us_stays(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    with tracked() as calls:
        ours = vars(CLASSES[0])["request"]

        def theirs(*args: Any, **kwargs: Any) -> Any:
            seen.append(kwargs)
            return ours(*args, **kwargs)

        monkeypatch.setattr(CLASSES[0], "request", theirs)
        call(stub)
    call(stub)
    assert (len(seen), len(calls)) == (2, 1)
    assert vars(CLASSES[0])["request"] is theirs

    with tracked() as more:
        call(stub)
    assert (len(seen), len(more)) == (3, 1)
    monkeypatch.undo()
    with tracked() as last:
        call(stub)
    assert len(last) == 1


class Strange:
    """An `openai` that nobody has seen yet."""

    class SyncAPIClient:
        def request(self, what: object) -> None: ...

    class AsyncAPIClient:
        async def request(self, what: object) -> None: ...


class Bare:
    """One without the method."""

    class SyncAPIClient:
        pass

    class AsyncAPIClient:
        pass


class Half:
    """One that is as expected by half."""

    class SyncAPIClient:
        def request(self, cast_to: object, options: object) -> None: ...

    class AsyncAPIClient:
        pass


class Streaming:
    """Streams that keep what they iterate over under another name."""

    def __next__(self) -> None:
        self._parts.__next__()  # type: ignore[attr-defined] # never called

    async def __anext__(self) -> None:
        await self._parts.__anext__()  # type: ignore[attr-defined] # never called


@pytest.mark.parametrize("name", ["Stream", "AsyncStream"])
async def test_streams_that_are_not_as_expected_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setattr(_base_client, name, Streaming)

    assert await attached(watched()) == ["0.0"]
    assert "OpenAI calls are not tracked" in caplog.text


@pytest.mark.parametrize("module", [Strange, Bare, Half])
async def test_what_is_not_as_expected_is_left_alone_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: Any
) -> None:
    monkeypatch.setitem(sys.modules, hook.MODULE, module)
    before = vars(module.SyncAPIClient).get("request")
    with caplog.at_level(logging.WARNING):
        monitors = [watched() for _ in range(3)]

    assert await attached(monitors[0]) == ["0.0"]
    assert vars(module.SyncAPIClient).get("request") is before
    (record,) = [each for each in caplog.records if "OpenAI" in each.getMessage()]
    assert "track_openai_call counts them all the same" in record.getMessage()


SAYS = """
import json, sys
from holistic_asgi_monitor import Monitor, Settings

async def app(scope, receive, send): pass

def state():
    import importlib
    openai = sys.modules.get("openai._base_client")
    return {
        "attached": monitor._parts.business.openai.attached,
        "imported": openai is not None,
        "prices": "genai_prices" in sys.modules,
        "finders": sum(type(each).__name__ == "Arrival" for each in sys.meta_path),
    }

monitor = Monitor(app, settings=Settings(service="x", history_url="off"), checks=[])
second = Monitor(app, settings=Settings(service="x", history_url="off"), checks=[])
states = [state()]
"""


def said(script: str, **variables: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", SAYS + script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), str(ROOT)]), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    return json.loads(run.stdout)


def test_an_import_that_comes_later_is_noticed(stub: OpenAIStub) -> None:
    before, after, calls = said(
        f"""
import openai
from openai import _base_client as module
states.append(state() | {{"loaders": [type(module.__loader__).__name__,
                                     type(module.__spec__.loader).__name__]}})
client = openai.OpenAI(api_key={KEY!r}, base_url={stub.url!r})
client.chat.completions.create(model="gpt-4o", messages=[])
monitor._parts.catalogue.gather()
print(json.dumps([*states, monitor._parts.catalogue.openai_calls.values[
    ("gpt-4o-2024-08-06", "success")]]))
"""
    )

    assert before == {"attached": False, "imported": False, "prices": False, "finders": 1}
    assert after == {
        "attached": True,
        "imported": True,
        "prices": True,
        "finders": 0,
        "loaders": ["SourceFileLoader"] * 2,
    }
    assert calls == 1


def test_where_there_is_no_openai_nothing_happens() -> None:
    before, after = said(
        """
sys.modules["openai"] = None
try:
    import openai._base_client
except ImportError:
    states.append(state())
print(json.dumps(states))
"""
    )

    assert before == after | {"finders": 1}
    assert after["attached"] is False


def test_with_the_last_monitor_nobody_waits_for_the_import_any_more() -> None:
    assert (
        said(
            """
import gc, weakref
del monitor, second
gc.collect()
print(json.dumps(sum(type(each).__name__ == "Arrival" for each in sys.meta_path)))
"""
        )
        == 0
    )


def test_an_import_that_fails_fails_as_it_would(tmp_path: Path) -> None:
    folder = tmp_path / "openai"
    folder.mkdir()
    (folder / "__init__.py").write_text("from openai import _base_client")
    (folder / "_base_client.py").write_text("raise RuntimeError('broken')")
    path = os.pathsep.join([str(tmp_path), str(PACKAGE), str(ROOT)])
    outcome = said(
        """
try:
    import openai
except RuntimeError as error:
    states.append(str(error))
print(json.dumps(states))
""",
        PYTHONPATH=path,
    )

    assert outcome[1] == "broken"


@pytest.fixture
def check(stub: OpenAIStub) -> checks.OpenAI:
    return checks.OpenAI(api_key=KEY, base_url=stub.url)


async def test_the_calls_of_our_own_check_are_left_out(
    stub: OpenAIStub, check: checks.OpenAI
) -> None:
    with tracked() as calls:
        await check()
        await check.aclose()

    assert len(stub.requests) == 1
    assert calls == []


def test_an_import_that_had_begun_before_is_noticed_later(
    monkeypatch: pytest.MonkeyPatch, stub: OpenAIStub
) -> None:
    whole = sys.modules[hook.MODULE]
    monkeypatch.setitem(sys.modules, hook.MODULE, object())
    monitor = watched()
    tracking = monitor._parts.business.openai
    assert tracking is not None
    Current.started(monitor._parts.tracker)
    states = []
    for module in (object(), whole):
        monkeypatch.setitem(sys.modules, hook.MODULE, module)
        tracking.settle()
        states.append(tracking.attached)
    call(stub)

    assert states == [False, True]
    assert calls_of(monitor) == 1


class Broken(Exception):
    pass


def breaks(*_: Any, **__: Any) -> Any:
    raise Broken


@pytest.mark.parametrize(
    ("where", "counted"),
    [
        ("holistic_asgi_monitor.usage.openai_span.Span.__init__", 0),
        ("holistic_asgi_monitor.usage.openai.base_of", 0),
        ("holistic_asgi_monitor.usage.openai._changed", 0),
        ("holistic_asgi_monitor.usage.openai_span.of_answer", 2),
        ("holistic_asgi_monitor.usage.openai_span.Span.call", 0),
        ("holistic_asgi_monitor.usage.prices.Prices.cost", 0),
        ("holistic_asgi_monitor.usage.openai_tally.Tally._count", 0),
        ("holistic_asgi_monitor.usage.tracking.Tracker.place", 0),
        ("holistic_asgi_monitor.usage.tracking.Current.origin", 0),
    ],
)
def test_whatever_of_ours_fails_the_call_is_as_it_was(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch, where: str, counted: int
) -> None:
    with client_of(stub) as client:
        plain = [part.to_json() for part in chat(stream=True)(client)]
    monitor = watched()
    Current.started(monitor._parts.tracker)
    monkeypatch.setattr(where, breaks)
    with client_of(stub) as client:
        assert [part.to_json() for part in chat(stream=True)(client)][: len(plain)] == plain
        if not where.endswith("_changed"):
            call(stub)

    assert calls_of(monitor) in {counted, counted - 1}
    assert monitor._parts.catalogue.faults.values


class Unhashable(str):
    """A path that cannot be looked up."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]


def test_a_path_of_an_odd_kind_is_counted_all_the_same(stub: OpenAIStub) -> None:
    monitor = watched()
    Current.started(monitor._parts.tracker)
    body = {"model": "gpt-4o", "messages": []}
    with client_of(stub) as client:
        client.post(Unhashable("/chat/completions"), body=body, cast_to=object)

    assert calls_of(monitor) == 1
    assert monitor._parts.catalogue.faults.values == {}


def test_a_client_that_moves_is_asked_each_time_where_it_leads() -> None:
    """As that of the module does where `openai.base_url` is set."""
    places = ["http://a.example/v1", "http://B.example:81/v1"]

    class Moving(openai.OpenAI):
        @property  # type: ignore[misc]  # it is not set, only asked
        def base_url(self) -> Any:
            return type(self._base_url)(places[0])

    with openai.DefaultHttpxClient(verify=False) as http:
        client, hosts = Moving(api_key=KEY, http_client=http), Hosts()
        assert hosts.at(base_of(client)) == "a.example"
        places.pop(0)
        assert hosts.at(base_of(client)) == "b.example:81"


def test_a_failing_exception_stays_the_callers(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holistic_asgi_monitor.usage.openai_span.outcome", breaks)
    monitor = watched()
    Current.started(monitor._parts.tracker)
    with client_of(stub) as client, pytest.raises(openai.NotFoundError):
        client.post("/videos", body={"model": "sora-2"}, cast_to=object)

    assert monitor._parts.catalogue.faults.values == {("openai",): 1}
    assert calls_of(monitor) == 1


def test_a_listener_that_fails_keeps_the_call_from_nobody(stub: OpenAIStub) -> None:
    monitor = watched()
    seen: list[Any] = []
    monitor._parts.tracker.listeners[:] = [breaks, seen.append]
    Current.started(monitor._parts.tracker)
    call(stub)

    assert calls_of(monitor) == len(seen) == 1
    assert monitor._parts.catalogue.faults.values == {("tracking",): 1}


def test_what_its_caller_makes_of_an_answer_is_not_counted(stub: OpenAIStub) -> None:
    """Agents add up the usage of their steps in the first one of them."""
    monitor = watched()
    Current.started(monitor._parts.tracker)
    with client_of(stub) as client:
        answer = chat()(client)
    answer.usage.prompt_tokens += 5000
    answer.usage.prompt_tokens_details.cached_tokens = 0
    monitor._parts.catalogue.gather()

    assert monitor._parts.catalogue.openai_cost.values == {("gpt-4o-2024-08-06",): 0.00725}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_waits_to_be_counted_keeps_no_answer(stub: OpenAIStub, stream: bool) -> None:
    monitor = watched()
    Current.started(monitor._parts.tracker)
    with client_of(stub) as client:
        answer = chat(**({"stream": True} if stream else {}))(client)
        for _ in answer:
            pass
    gone = weakref.ref(answer)
    del answer
    gc.collect()

    assert gone() is None
    assert calls_of(monitor) == 1


def test_many_threads_lose_no_call(stub: OpenAIStub) -> None:
    monitor = watched()
    Current.started(monitor._parts.tracker)
    with client_of(stub) as client:

        def work() -> None:
            for _ in range(10):
                chat()(client)
                list(chat(stream=True)(client))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert calls_of(monitor) == 80
    assert monitor._parts.catalogue.openai_calls.values == {("gpt-4o-2024-08-06", "success"): 80}
    assert monitor._parts.catalogue.openai_cost.values == {
        ("gpt-4o-2024-08-06",): pytest.approx(80 * 0.00725)
    }
