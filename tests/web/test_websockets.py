"""WebSocket connections pass untouched and are counted on their own."""

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from holistic_asgi_monitor import Monitor, Settings
from tests.web.exchanges import Exchange, counted, errors

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}


def watched(app):
    return Monitor(app, settings=Settings(service="test"), checks=[])


def scope(path="/ws/7"):
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


def connections(monitor):
    return dict(monitor._parts.catalogue.websocket_connections.values)


def still_open(monitor):
    return monitor._parts.catalogue.websocket_open.values[()]


def saying(*messages, then=None, reads=1):
    async def app(scope, receive, send):
        for _ in range(reads):
            await receive()
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return app


async def test_a_connection_has_its_template_and_its_close_code():
    async def echo(websocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(code=1001)

    monitor = watched(Starlette(routes=[WebSocketRoute("/ws/{room}", echo)]))
    incoming = [CONNECT, {"type": "websocket.receive", "text": "hello"}]
    exchange = await Exchange(incoming=incoming).run(monitor, scope())

    assert [message["type"] for message in exchange.sent] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert connections(monitor) == {("/ws/{room}", "1001"): 1}
    assert still_open(monitor) == 0
    assert counted(monitor) == {}


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([ACCEPT, {"type": "websocket.close"}], "1000"),
        ([ACCEPT, {"type": "websocket.close", "code": 4001}], "4001"),
        ([{"type": "websocket.close"}], "403"),
        ([{"type": "websocket.http.response.start", "status": 401, "headers": []}], "401"),
        ([ACCEPT], "1006"),
    ],
    ids=["closed", "own code", "refused", "refused with a status", "left open"],
)
async def test_the_code_says_how_the_application_ended_it(messages, code):
    monitor = watched(saying(*messages))
    await Exchange(incoming=[CONNECT]).run(monitor, scope())

    assert [key[1] for key in connections(monitor)] == [code]


@pytest.mark.parametrize(
    ("code", "label"), [(1000, "1000"), (1001, "1001"), (None, "1005"), (3999, "_OTHER")]
)
async def test_codes_that_the_client_chooses_are_bounded(code, label):
    monitor = watched(saying(ACCEPT, reads=2))
    incoming = [CONNECT, {"type": "websocket.disconnect", "code": code}]
    await Exchange(incoming=incoming).run(monitor, scope())

    assert [key[1] for key in connections(monitor)] == [label]


async def test_an_exception_is_1011_and_an_error_and_passes_unchanged():
    bug = ValueError("secret")
    monitor = watched(saying(ACCEPT, then=bug))
    with pytest.raises(ValueError, match="secret") as caught:
        await Exchange(incoming=[CONNECT]).run(monitor, scope())

    assert caught.value is bug
    assert [key[1] for key in connections(monitor)] == ["1011"]
    assert errors(monitor) == {("app", "ValueError"): 1}


async def test_a_send_to_a_client_that_left_is_no_error():
    async def on_send(message):
        if message["type"] == "websocket.send":
            raise OSError

    monitor = watched(saying(ACCEPT, {"type": "websocket.send", "text": "x"}))
    with pytest.raises(OSError, match=r"^$"):
        await Exchange(incoming=[CONNECT], on_send=on_send).run(monitor, scope())

    assert [key[1] for key in connections(monitor)] == ["1006"]
    assert errors(monitor) == {}


async def test_a_cancelled_connection_is_1006_and_closed_in_the_gauge():
    accepted = anyio.Event()

    async def app(scope, receive, send):
        await send(ACCEPT)
        accepted.set()
        await anyio.sleep_forever()

    monitor = watched(app)
    async with anyio.create_task_group() as group:
        group.start_soon(Exchange(incoming=[CONNECT]).run, monitor, scope())
        await accepted.wait()
        assert still_open(monitor) == 1
        group.cancel_scope.cancel()

    assert [key[1] for key in connections(monitor)] == ["1006"]
    assert still_open(monitor) == 0


async def test_a_failure_of_the_monitor_does_not_touch_the_connection(monkeypatch):
    def raising(*arguments):
        raise RuntimeError

    monitor = watched(saying(ACCEPT, {"type": "websocket.close"}))
    monkeypatch.setattr(type(monitor._parts.routes), "locate", raising)
    exchange = await Exchange(incoming=[CONNECT]).run(monitor, scope())

    assert len(exchange.sent) == 2


async def test_two_monitors_count_a_connection_once():
    inner = watched(saying(ACCEPT, {"type": "websocket.close"}))
    outer = watched(inner)
    await Exchange(incoming=[CONNECT]).run(outer, scope())

    assert len(connections(outer)) == 1
    assert connections(inner) == {}
