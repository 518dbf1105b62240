"""`maintenance`: what it orders of a running app, what it prints, and to whom it gives the token."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest
import uvicorn
from hypercorn.config import Config
from hypercorn.trio import serve as serve_on_trio
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.cli import asking, main
from tests.servers.process import free_port

TOKEN = "hunter2-token"

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Return a function that runs `maintenance` here: exit status, output, errors."""
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["maintenance", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def app() -> Monitor:
    settings = Settings(service="shop", token=TOKEN, history_url="off")
    return Monitor(Starlette(), settings=settings, checks=[], notifiers=[notifiers.Memory()])


@contextmanager
def on_asyncio(monitor: Monitor) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(monitor, log_config=None, timeout_keep_alive=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def on_trio(monitor: Monitor) -> Iterator[str]:
    port, ended = free_port(), threading.Event()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = None

    async def end() -> None:
        while not ended.is_set():
            await anyio.sleep(0.02)

    async def run() -> None:
        await serve_on_trio(monitor, config, shutdown_trigger=end)  # type: ignore[arg-type]  # ASGI

    thread = threading.Thread(target=lambda: anyio.run(run, backend="trio"))
    thread.start()
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        ended.set()
        thread.join()


def _wait_for(port: int) -> None:
    for _ in range(1000):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            threading.Event().wait(0.01)
        else:
            return
    raise AssertionError


@pytest.mark.parametrize("serving", [on_asyncio, on_trio])
def test_a_window_begins_and_ends_on_a_real_server(say: Say, serving: Any) -> None:
    monitor = app()
    with serving(monitor) as url:
        status, out, err = say("begin", "--url", url, "--minutes", "30", "--reason", "deploy 1.2")
        assert (status, err) == (0, "")
        assert re.fullmatch(r"maintenance until 20\S+\+00:00: deploy 1\.2\n", out)
        assert monitor._parts.outbox.as_dict()["maintenance"]["reason"] == "deploy 1.2"

        status, out, err = say("end", "--url", f"{url}/", "--reason", "another")
        assert (status, out.endswith(": deploy 1.2\n"), err) == (0, True, "")
        assert say("end", "--url", url) == (0, "no maintenance\n", "")
        assert say("end", "--url", url) == (0, "no maintenance\n", "")


def test_a_wrong_token_is_one_sentence_and_status_1(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_TOKEN", "another")
    with on_asyncio(app()) as url:
        status, out, err = say("begin", "--url", url)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"holistic-asgi-monitor maintenance: {url}/api/monitoring/maintenance")
    assert "answered 401: This needs the token that MONITOR_TOKEN holds" in err
    assert "another" not in err


class Page:
    """Something that answers POST as it is told, and remembers what it was sent."""

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"maintenance": null}'
        self.received: list[tuple[str, dict[str, str], Any]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.page = self  # type: ignore[attr-defined]  # for its handlers
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        page: Page = self.server.page  # type: ignore[attr-defined]  # set by the page
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        page.received.append((self.path, dict(self.headers), order))
        if not page.status:
            page.released.wait(30)
            return
        self.send_response(page.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    thread = threading.Thread(target=page.server.serve_forever, args=(0.01,))
    thread.start()
    yield page
    page.released.set()
    page.server.shutdown()
    thread.join()
    page.server.server_close()


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (["begin"], {}),
        (["begin", "--minutes", "90"], {"minutes": 90}),
        (["begin", "--reason", "näxt"], {"reason": "näxt"}),
        (["end"], {"end": True}),
        (["end", "--reason", "deploy"], {"end": True, "reason": "deploy"}),
    ],
)
def test_what_is_ordered(say: Say, page: Page, words: list[str], order: dict[str, Any]) -> None:
    assert say(*words, "--url", page.url)[0] == 0
    ((_, headers, sent),) = page.received
    assert sent == order
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("", "/api/monitoring/maintenance"),
        ("/", "/api/monitoring/maintenance"),
        ("/shop/", "/shop/api/monitoring/maintenance"),
        ("/api/monitoring/maintenance", "/api/monitoring/maintenance"),
        ("/?a=1", "/api/monitoring/maintenance"),
    ],
)
def test_where_it_is_ordered(say: Say, page: Page, given: str, asked: str) -> None:
    assert say("end", "--url", f"{page.url}{given}")[0] == 0
    assert page.received[0][0] == asked


def test_another_prefix_is_a_setting(say: Say, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR_PREFIX", "/watch")
    say("end", "--url", page.url)
    assert page.received[0][0] == "/watch/maintenance"

    monkeypatch.setenv("MONITOR_PREFIX", "")
    status, _, err = say("end", "--url", page.url)
    assert (status, "MONITOR_PREFIX is empty" in err) == (1, True)


def test_a_password_in_the_address_goes_before_the_token_and_is_not_shown(
    say: Say, page: Page
) -> None:
    page.status = 500
    url = page.url.replace("//", "//me:S3cret@")
    status, out, err = say("end", "--url", url)
    assert page.received[0][1]["Authorization"].startswith("Basic ")
    assert status == 1
    assert "S3cret" not in out + err


def test_the_token_goes_to_near_peers_only(
    say: Say, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "is_near", lambda _: False)
    status, _, err = say("begin", "--url", page.url)
    assert (status, page.received) == (1, [])
    assert "is neither https nor near: the token is not sent there" in err


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (403, b'{"error": "It is closed."}', "answered 403: It is closed"),
        (404, b"<html>", "answered 404"),
        (302, b"", "answered 302"),
        (200, b"<html>", "answered something else than a monitor does"),
        (200, b"[]", "answered something else than a monitor does"),
        (200, b'{"maintenance": {"reason": 1}}', "answered something else than a monitor does"),
        (0, b"", "did not answer within 0.3 s"),
    ],
)
def test_what_is_no_success_is_one_sentence_and_status_1(
    say: Say, page: Page, status: int, body: bytes, sentence: str
) -> None:
    page.status, page.body = status, body
    ended, out, err = say("begin", "--url", page.url, "--timeout", "0.3" if not status else "10")
    assert (ended, out) == (1, "")
    assert (
        err
        == f"holistic-asgi-monitor maintenance: {page.url}/api/monitoring/maintenance {sentence}\n"
    )
    assert len(page.received) == 1


def test_nobody_there_is_one_sentence_and_status_1(say: Say) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    status, _, err = say("begin", "--url", url)
    assert (status, "refused the connection" in err) == (1, True)


def test_an_unknown_host_is_one_sentence_and_status_1(say: Say) -> None:
    status, _, err = say("begin", "--url", "http://nobody.invalid/")
    assert (status, "the name 'nobody.invalid' cannot be resolved" in err) == (1, True)


def test_what_an_answer_holds_writes_nothing_but_text(say: Say, page: Page) -> None:
    reason = "deploy\x1b[31m\n\N{RIGHT-TO-LEFT OVERRIDE}x"
    page.body = json.dumps({"maintenance": {"reason": reason, "until": "now"}}).encode()
    assert say("begin", "--url", page.url) == (0, "maintenance until now: deploy[31mx\n", "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["begin"], "--url"),
        (["pause", "--url", "http://x"], "'pause'"),
        (["--url", "http://x"], "ORDER"),
        (["begin", "--url", "x"], "argument --url"),
        (["begin", "--url", "http://x", "--minutes", "0"], "'0' is no number of minutes"),
        (["begin", "--url", "http://x", "--minutes", "1441"], "above 0 and at most 1440"),
        (["begin", "--url", "http://x", "--minutes", "nan"], "'nan'"),
        (
            ["end", "--url", "http://x", "--minutes", "5"],
            "argument --minutes: not allowed with end",
        ),
        (["begin", "--url", "http://x", "--reason", " "], "argument --reason: it is empty"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(
    say: Say, words: list[str], sentence: str
) -> None:
    status, out, err = say(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
