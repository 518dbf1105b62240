"""The lifespan protocol on real servers: what they serve, how they end, what they say."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

import holistic_asgi_monitor

PATIENCE = 20.0

SERVED = '''
"""An app that writes down its life; VARIANT says how it answers lifespan."""

import os

import anyio

from holistic_asgi_monitor.web.lifespan import Lifespan


def note(entry):
    with open(os.environ["JOURNAL"], "a") as journal:
        journal.write(entry + "\\n")


async def run():
    note("run started")
    try:
        while True:
            await anyio.sleep(0.05)
    finally:
        note("run ended")


async def stopped():
    note("stopped")


async def answer(scope, receive, send):
    variant = os.environ["VARIANT"]
    if variant == "raises":
        raise ValueError("no lifespan here")
    if variant == "returns":
        return
    if variant == "answers_http":
        await hello(send)
        return
    await receive()
    if variant == "fails":
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise OSError("no database")
    note("app startup")
    scope["state"]["pool"] = "the pool"
    await send({"type": "lifespan.startup.complete"})
    if variant == "leaves_early":
        return
    await receive()
    note("app shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def hello(send, text="hello"):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


async def inner(scope, receive, send):
    if scope["type"] == "lifespan":
        await answer(scope, receive, send)
    else:
        await hello(send, scope.get("state", {}).get("pool", "hello"))


lifespan = Lifespan(inner, run, stopped=stopped)


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    if not lifespan.serving:
        lifespan.ensure()
    await inner(scope, receive, send)
'''

GUNICORN = ["--bind=127.0.0.1:{port}", "--no-control-socket"]

SERVERS = {
    "uvicorn": ["uvicorn", "--port={port}"],
    "uvicorn-on": ["uvicorn", "--port={port}", "--lifespan=on"],
    "uvicorn-off": ["uvicorn", "--port={port}", "--lifespan=off"],
    "hypercorn": ["hypercorn", "--bind=127.0.0.1:{port}"],
    "hypercorn-trio": ["hypercorn", "--bind=127.0.0.1:{port}", "--worker-class=trio"],
    "granian": ["granian", "--interface=asgi", "--port={port}"],
    "daphne": ["daphne", "--port={port}"],
    "gunicorn": ["gunicorn", *GUNICORN, "--worker-class=uvicorn_worker.UvicornWorker"],
    "gunicorn-asgi": ["gunicorn", *GUNICORN, "--worker-class=asgi"],
}


@dataclass(frozen=True)
class Running:
    """A server in a process of its own, and the files into which it and the app write."""

    process: subprocess.Popen[bytes]
    port: int
    journal: Path
    log: Path

    def get(self) -> str | None:
        """The app's answer, or None as long as no server listens."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def first_answer(self) -> str | None:
        """The first answer, or None where the server ends without one."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if (answer := self.get()) is not None:
                return answer
            time.sleep(0.02)
        return None

    def end(self, number: signal.Signals) -> None:
        """Ask the server to end, and wait until it has."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def entries(self) -> list[str]:
        """What the app has written down so far."""
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def wait_for(self, entry: str) -> None:
        """Return when the app has written `entry`."""
        deadline = time.monotonic() + PATIENCE
        while entry not in self.entries() and time.monotonic() < deadline:
            time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(server: str, variant: str, folder: Path) -> Iterator[Running]:
    """The served app under `server`, whose processes are gone after the block."""
    (folder / "served.py").write_text(SERVED)
    port, log, journal = free_port(), folder / "log", folder / "journal"
    package = Path(holistic_asgi_monitor.__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{package}",
        "JOURNAL": str(journal),
        "VARIANT": variant,
    }
    module, *options = SERVERS[server]
    command = [sys.executable, "-m", module, *options, "served:app"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in command],
            cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield Running(process, port, journal, log)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)


LIVED = ["run started", "run ended", "stopped"]
FULL_LIFE = ["app startup", "run started", "run ended", "app shutdown", "stopped"]

WITH_LIFESPAN = [server for server in SERVERS if server not in {"uvicorn-off", "daphne"}]

# gunicorn's master waits half a minute for this worker after SIGINT, with or without us.
INTERRUPTIBLE = [server for server in WITH_LIFESPAN if server != "gunicorn"]


def assert_quiet(server: Running) -> None:
    """The log holds no word of a task that was forgotten, nor any traceback."""
    said = server.log.read_text()
    for word in ("Traceback", "was never", "destroyed", "Exception ignored"):
        assert word not in said, said


@pytest.mark.parametrize("server", WITH_LIFESPAN)
def test_run_lives_within_the_life_of_the_app(server: str, tmp_path: Path) -> None:
    """In this order on every server, and requests see the app's own state."""
    with serving(server, "supports", tmp_path) as running:
        assert running.first_answer() == "the pool"
        running.end(signal.SIGTERM)
    assert running.entries() == FULL_LIFE
    assert_quiet(running)


@pytest.mark.parametrize("server", INTERRUPTIBLE)
def test_an_app_that_raises_on_lifespan_is_served(server: str, tmp_path: Path) -> None:
    """Even where the server insists on lifespan, and until somebody interrupts it."""
    with serving(server, "raises", tmp_path) as running:
        assert running.first_answer() == "hello"
        running.end(signal.SIGINT)
    assert running.entries() == LIVED
    assert running.process.returncode == 0
    assert_quiet(running)


@pytest.mark.parametrize(
    ("server", "variant"),
    [
        ("hypercorn-trio", "returns"),
        ("granian", "returns"),
        ("uvicorn-on", "answers_http"),
        ("hypercorn", "answers_http"),
    ],
)
def test_an_app_that_ignores_lifespan_is_served(server: str, variant: str, tmp_path: Path) -> None:
    """Hypercorn on trio would crash when the app returns, uvicorn end at a wrong answer."""
    with serving(server, variant, tmp_path) as running:
        assert running.first_answer() == "hello"
        running.end(signal.SIGTERM)
    assert running.entries() == LIVED
    assert_quiet(running)


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn-trio"])
def test_an_app_that_leaves_early_is_served(server: str, tmp_path: Path) -> None:
    """The conversation goes on without it."""
    with serving(server, "leaves_early", tmp_path) as running:
        assert running.first_answer() == "the pool"
        running.end(signal.SIGINT)
    assert running.entries() == ["app startup", *LIVED]
    assert_quiet(running)


@pytest.mark.parametrize("server", WITH_LIFESPAN)
def test_a_failed_startup_does_not_serve(server: str, tmp_path: Path) -> None:
    """The server ends by itself, with the app's message, and no watch was begun."""
    with serving(server, "fails", tmp_path) as running:
        assert running.first_answer() is None
        code = running.process.wait(PATIENCE)
    said = running.log.read_text()
    assert code == 0 if server.startswith("hypercorn") else code in {1, 3}
    assert "no database" in said
    assert "destroyed" not in said
    assert running.entries() == []


@pytest.mark.parametrize(
    ("server", "number"),
    [
        ("uvicorn-off", signal.SIGTERM),
        ("uvicorn-off", signal.SIGINT),
        ("daphne", signal.SIGTERM),
    ],
)
def test_the_first_request_starts_run_where_lifespan_never_comes(
    server: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Half a second later it lives, once; it ends without a word, with the loop or the process."""
    with serving(server, "supports", tmp_path) as running:
        assert running.first_answer() == "hello"
        assert running.get() == "hello"
        running.wait_for("run started")
        running.end(number)
    assert [entry for entry in running.entries() if entry != "run ended"] == ["run started"]
    assert_quiet(running)


@pytest.mark.parametrize("server", ["uvicorn-off", "daphne"])
def test_a_short_life_without_lifespan_leaves_no_word(server: str, tmp_path: Path) -> None:
    """A server that ends right after its first request has nothing to clean up."""
    with serving(server, "supports", tmp_path) as running:
        assert running.first_answer() == "hello"
        running.end(signal.SIGINT)
    assert_quiet(running)
