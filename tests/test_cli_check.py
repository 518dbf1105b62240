"""`check`: what it prints, its exit statuses, and that it ends by itself and tells nobody."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from holistic_asgi_monitor import CheckResult, Monitor, Settings, Status
from holistic_asgi_monitor.cli import asking, main
from holistic_asgi_monitor.cli.verdict import judged

ROOT = Path(__file__).parent.parent
TOKEN = "hunter2-token"
BARE = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
"""
ENDLESS = """
async def app(scope, receive, send):
    while True:
        await receive()
        await send({"type": "lifespan.startup.complete"})
"""
STUCK_AT_THE_END = """
import time
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    time.sleep(1000)
"""
WATCHED = """
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from holistic_asgi_monitor import CheckResult, Monitor, Settings, Status, checks, notifiers

opened = []

@asynccontextmanager
async def life(app):
    print("the app's own words")
    opened.append("pool")
    yield {"pool": opened}
    opened.append("closed")

inner = Starlette(lifespan=life)
{monitor}

@monitor.check("mine", required=True)
async def mine():
    return {answer}
"""
WRAPPED = "app = monitor = Monitor(inner)"

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs `check` here: exit status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["check", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return a function that makes a text the module `mine` of the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def make(source: str) -> Path:
        (tmp_path / "mine.py").write_text(source)
        return tmp_path

    yield make
    sys.modules.pop("mine", None)


def watched(answer: str, monitor: str = WRAPPED) -> str:
    return WATCHED.replace("{monitor}", monitor).replace("{answer}", answer)


def rows(out: str) -> dict[str, str]:
    """The second word of each line by the first."""
    return {line.split()[0].rstrip(":"): line.split()[1] for line in out.splitlines()}


@pytest.mark.parametrize(
    ("answer", "required", "whole", "status", "strict"),
    [
        ("True", True, "healthy", 0, 0),
        ("False", True, "critical", 1, 1),
        ("False", False, "degraded", 0, 1),
        ("Status.DEGRADED", True, "degraded", 0, 1),
        ("Status.UNKNOWN", True, "degraded", 0, 1),
        ("Status.UNHEALTHY", False, "unhealthy", 1, 1),
        ("Status.SKIPPED", True, "healthy", 0, 0),
        ("1 / 0", True, "critical", 1, 1),
        ("1 / 0", False, "degraded", 0, 1),
    ],
)
def test_the_exit_status_is_that_of_the_whole(
    say: Say,
    write: Callable[[str], Path],
    answer: str,
    required: bool,
    whole: str,
    status: int,
    strict: int,
) -> None:
    source = watched(answer, "app = monitor = Monitor(inner, checks=[])")
    for words, expected in (((), status), (("--strict",), strict)):
        write(source.replace("required=True", f"required={required}"))
        ended, out, _ = say("mine:app", *words)

        assert ended == expected
        assert out.splitlines()[-1] == f"overall: {whole}"
        assert list(rows(out)) == ["traffic", "mine", "overall"]
        sys.modules.pop("mine")


def test_each_service_is_one_line_with_status_time_and_message(
    say: Say, write: Callable[[str], Path]
) -> None:
    r"""Its message stays on that line, and holds no escape sequence."""
    message = r"'slow\n\x1b[31mtoday'"
    write(
        watched(f"CheckResult(Status.DEGRADED, {message}, response_time_ms=12.34)").replace(
            "Monitor(inner)", "Monitor(inner, checks=[])"
        )
    )
    status, out, err = say("mine:app")

    assert status == 0
    assert err == "the app's own words\n", "what the app prints is not the command's output"
    traffic, mine, whole = out.splitlines()
    assert traffic.startswith("traffic  healthy ")
    assert mine.startswith("mine     degraded  12.3 ms  slow")
    assert mine.endswith("today")
    assert "\x1b" not in out
    assert whole == "overall: degraded"


@pytest.mark.parametrize(
    "monitor",
    [
        "app = monitor = Monitor(inner)",
        "app = inner; monitor = Monitor.attach(app)",
        "monitor = Monitor(inner); app = CORSMiddleware(monitor)",
        "app = Starlette(); monitor = Monitor.attach(inner); app = CORSMiddleware(inner)",
    ],
)
def test_the_monitor_that_the_app_carries_is_found_and_the_app_is_started_for_it(
    say: Say, write: Callable[[str], Path], monitor: str
) -> None:
    write(watched("opened == ['pool']", monitor))
    status, out, _ = say("mine:app")

    assert (status, rows(out)["mine"]) == (0, "healthy")
    assert sys.modules["mine"].opened == ["pool", "closed"], "it was stopped again"


def test_a_monitor_added_as_middleware_is_found(say: Say, write: Callable[[str], Path]) -> None:
    write(
        "from starlette.applications import Starlette\n"
        "from holistic_asgi_monitor import Monitor, checks\n"
        "app = Starlette()\n"
        "app.add_middleware(Monitor, checks=[checks.System(name='by_middleware')])\n"
    )
    status, out, _ = say("mine:app")

    assert (status, list(rows(out))) == (0, ["by_middleware", "traffic", "overall"])


def test_a_monitor_that_cannot_be_made_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starlette would make it in the app's startup only."""
    monkeypatch.setenv("MONITOR_CHECK_INTERVAL_SECONDS", "often")
    write(
        "from starlette.applications import Starlette\n"
        "from holistic_asgi_monitor import Monitor\n"
        "app = Starlette()\n"
        "app.add_middleware(Monitor)\n"
    )
    status, out, err = say("mine:app")

    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "MONITOR_CHECK_INTERVAL_SECONDS" in err


def test_an_app_that_breaks_the_event_loop_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path]
) -> None:
    write("async def app(scope, receive, send):\n    raise BaseException('hunter2')")
    status, out, err = say("mine:app")

    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "mine:app broke off the event loop: BaseExceptionGroup" in err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (BARE, ["mine:app"]),
        (BARE + "\ndef make():\n    return app\n", ["mine:make", "--factory"]),
        ("async def app(scope, receive, send):\n    await receive()\n", ["mine:app"]),
        (
            ENDLESS,
            ["mine:app"],
        ),
    ],
)
def test_an_app_without_monitor_is_wrapped_and_may_ignore_lifespan(
    say: Say, write: Callable[[str], Path], source: str, words: list[str]
) -> None:
    write(source)
    status, out, err = say(*words)

    assert (status, err) == (0, "")
    assert list(rows(out)) == ["system", "traffic", "overall"]


@pytest.mark.parametrize(
    "start",
    [
        "raise ValueError('hunter2')",
        "raise SystemExit(0)",
        "await receive(); await send({'type': 'lifespan.startup.failed', 'message': 'hunter2'})",
    ],
)
def test_a_failing_startup_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path], start: str
) -> None:
    """What Starlette makes of an exception, a bare exit, and the answer of any other app."""
    write(
        "from starlette.applications import Starlette\n"
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\n"
        "async def life(app):\n"
        f"    {start if 'raise' in start else 'pass'}\n"
        "    yield\n"
        "starlette = Starlette(lifespan=life)\n"
        "async def raw(scope, receive, send):\n"
        f"    {start}\n" + ("app = starlette" if "Value" in start else "app = raw")
    )
    status, out, err = say("mine:app")

    assert (status, out) == (3, "")
    kind = start.removeprefix("raise ").partition("(")[0]
    where = f": {kind} in {Path.cwd() / 'mine.py'}, line " if "raise" in start else "\n"
    assert err.startswith(f"holistic-asgi-monitor check: mine:app failed in its startup{where}")
    assert err.count("\n") == 1
    assert "hunter2" not in err


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (None, "absent:app", "there is no module absent"),
        ("x = 1", "mine:app", "module mine has no app"),
        ("app = 7", "mine:app", "mine:app gives no ASGI app but a int"),
        ("raise ValueError('hunter2')", "mine:app", "importing mine failed: ValueError in"),
        ("raise SystemExit(0)", "mine:app", "importing mine failed: SystemExit in"),
        ("def app():\n raise SystemExit(0)", "mine:app --factory", "calling mine:app failed: Syst"),
    ],
)
def test_an_app_that_cannot_be_had_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path], source: str | None, target: str, sentence: str
) -> None:
    write(source or "")
    status, out, err = say(*target.split())

    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith(f"holistic-asgi-monitor check: {sentence}")
    assert "hunter2" not in err


def test_a_wrong_setting_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(BARE)
    monkeypatch.setenv("MONITOR_CHECK_INTERVAL_SECONDS", "often")
    for words in (["mine:app"], ["--url", "http://127.0.0.1:1"]):
        status, out, err = say(*words)

        assert (status, out, err.count("\n")) == (3, "", 1)
        assert "MONITOR_CHECK_INTERVAL_SECONDS" in err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("", "module:app"),
        ("mine:app --url http://127.0.0.1", "not allowed with argument"),
        ("--url http://127.0.0.1 --factory", "--factory: not allowed with argument --url"),
        ("--url ftp://127.0.0.1", "--url: what is given is no address"),
        ("--url http://", "no address"),
        ("--url http://user:hunter2@[", "no address"),
        ("--url http://user:hunter2@shop:0", "no address"),
        ("--url http://user:hunter2@shop:port", "no address"),
        ("--url 127.0.0.1:8000", "no address"),
        ("http://user:hunter2@shop", "names no app"),
        ("mine:app --timeout 0", "--timeout: '0' is no limit"),
        ("mine:app --timeout 3601", "allowed are seconds above 0 and at most 3600"),
        ("mine:app --timeout nan", "'nan' is no limit"),
        ("mine:app --timeout soon", "'soon' is no limit"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(say: Say, line: str, named: str) -> None:
    status, out, err = say(*line.split())

    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("holistic-asgi-monitor check: ")
    assert err.endswith("(see holistic-asgi-monitor check --help)\n")
    assert named in err
    assert "hunter2" not in err


def test_nothing_is_told_to_anybody(say: Say, write: Callable[[str], Path]) -> None:
    """Not from a critical check, nor where the app starts its monitor and sends by itself."""
    write(
        watched(
            "False",
            "memory = notifiers.Memory()\n"
            "async def app(scope, receive, send):\n"
            "    async with monitor:\n"
            "        monitor.alert(Severity.CRITICAL, 'hello')\n"
            "        await inner(scope, receive, send)\n"
            "settings = Settings(service='shop', failures_before_alert=1, startup_grace_seconds=0)\n"
            "monitor = Monitor(app, settings=settings, notifiers=[memory])\n",
        ).replace("import CheckResult", "import CheckResult, Severity")
    )
    status, out, _ = say("mine:monitor")

    assert (status, rows(out)["mine"]) == (1, "critical")
    assert sys.modules["mine"].opened == ["pool", "closed"]
    assert sys.modules["mine"].memory.alerts == []


def test_a_monitor_watches_again_after_a_check(say: Say, write: Callable[[str], Path]) -> None:
    """The command leaves nothing behind in the process that called it."""
    from holistic_asgi_monitor.parts import Parts

    before = Parts.run
    write(BARE)
    say("mine:app")

    assert Parts.run is before


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "import anyio\nasync def app(scope, receive, send):\n    await anyio.sleep_forever()",
            "mine:app gave no verdict within 2 s: the app was still in its startup;",
        ),
        (
            BARE + "from holistic_asgi_monitor import Monitor\nimport anyio\napp = Monitor(app)\n"
            "app.check('slow', timeout=60)(anyio.sleep_forever)",
            "mine:app gave no verdict within 2 s: the checks were still running;",
        ),
    ],
)
def test_what_hangs_is_one_sentence_and_status_3(
    say: Say, write: Callable[[str], Path], source: str, sentence: str
) -> None:
    write(source)
    status, out, err = say("mine:app", "--timeout", "2")

    assert (status, out) == (3, "")
    assert err == f"holistic-asgi-monitor check: {sentence} see --timeout\n"


def test_a_check_that_does_not_answer_is_a_result(say: Say, write: Callable[[str], Path]) -> None:
    write(
        watched("await anyio.sleep_forever()", "import anyio\n" + WRAPPED).replace(
            "required=True", "required=True, timeout=0.1"
        )
    )
    status, out, _ = say("mine:app")

    assert (status, rows(out)["mine"]) == (1, "critical")
    assert "no answer within 0.1 s" in out


def test_ctrl_c_is_no_verdict(
    say: Say, write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("raise KeyboardInterrupt")
    assert say("mine:app") == (3, "", "")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("holistic_asgi_monitor.cli.check.ask", interrupted)
    assert say("--url", "http://127.0.0.1:1") == (3, "", "")


def process(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "holistic_asgi_monitor", "check", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("source", "status", "out", "err"),
    [
        ("import time\ntime.sleep(1000)", 3, "", "mine:app could not be imported within 0.5 s\n"),
        (
            "import time\nasync def app(scope, receive, send):\n    time.sleep(1000)",
            3,
            "",
            "mine:app gave no verdict within 0.5 s: the app was still in its startup; see",
        ),
        (
            STUCK_AT_THE_END,
            0,
            "overall: healthy\n",
            "",
        ),
        (
            BARE + "\nimport threading, time\n"
            "threading.Thread(target=time.sleep, args=(1000,)).start()",
            0,
            "overall: healthy\n",
            "",
        ),
    ],
    ids=["import", "startup", "shutdown", "thread"],
)
def test_the_process_ends_by_itself_whatever_blocks_it(
    tmp_path: Path, source: str, status: int, out: str, err: str
) -> None:
    """What was found before is told all the same."""
    (tmp_path / "mine.py").write_text(source)
    limit = "0.5" if status else "20"
    # Where only the end hangs, the checks get the time that a busy machine needs.
    with process(tmp_path, "mine:app", "--timeout", limit) as running:
        printed, said = running.communicate(timeout=50)

    assert running.returncode == status
    assert printed.endswith(out)
    assert err in said
    assert "Traceback" not in said


def test_a_process_that_is_interrupted_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import anyio\nasync def app(scope, receive, send):\n"
        "    print('started', flush=True)\n    await anyio.sleep_forever()"
    )
    with process(tmp_path, "mine:app", "--timeout", "50") as running:
        assert running.stderr is not None
        assert running.stderr.readline() == "started\n"
        running.send_signal(signal.SIGINT)
        printed, said = running.communicate(timeout=50)

    assert (running.returncode, printed, said) == (3, "", "")


class Page:
    """A foreign server on loopback: what it answers by path, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, dict[str, str]]] = {}
        self.asked: list[tuple[str, str | None]] = []
        page = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page.asked.append((self.path, self.headers["Authorization"]))
                code, body, headers = page.answers.get(self.path, (404, "", {}))
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Page]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


@pytest.fixture
def page() -> Iterator[Page]:
    with Page().serving() as serving:
        yield serving


@contextlib.contextmanager
def monitored(*, answer: Status, token: str | None = None) -> Iterator[str]:
    """Serve an app with one required check by uvicorn; yield its address."""
    settings = Settings(service="shop", environment="production", token=token)
    monitor = Monitor(Starlette(), settings=settings, checks=[])

    @monitor.check("database", required=True)
    async def database() -> CheckResult:
        return CheckResult(answer, "all about it")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(monitor, log_config=None, timeout_keep_alive=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    ("answer", "status", "strict"),
    [
        (Status.HEALTHY, 0, 0),
        (Status.DEGRADED, 0, 1),
        (Status.UNHEALTHY, 1, 1),
        (Status.CRITICAL, 1, 1),
    ],
)
def test_our_own_report_is_understood(say: Say, answer: Status, status: int, strict: int) -> None:
    """An address without a path is asked for the report."""
    with monitored(answer=answer) as url:
        ended, out, err = say("--url", url)
        code = 200 if status == 0 else 503

        assert (ended, err) == (status, "")
        assert rows(out)["database"] == answer.value
        assert out.splitlines()[-1] == f"overall: {answer.value} (HTTP {code})"
        assert "all about it" not in out, "a stranger is not given the messages"
        assert say("--url", f"{url}/api/health", "--strict")[0] == strict


@pytest.mark.parametrize(("path", "status"), [("simple", 1), ("ready", 0), ("live", 0)], ids=str)
def test_our_own_words_are_understood(say: Say, path: str, status: int) -> None:
    with monitored(answer=Status.CRITICAL) as url:
        say("--url", url)  # so that there has been a round
        ended, out, _ = say("--url", f"{url}/api/health/{path}")

    word = "unhealthy (HTTP 503)" if status else "healthy (HTTP 200)"
    assert (ended, out) == (status, f"overall: {word}\n")


@pytest.mark.parametrize("twin", [False, True])
def test_the_token_opens_the_messages_and_is_never_shown(
    say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twin: bool
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    name, value = (
        ("MONITOR_TOKEN_FILE", str(tmp_path / "token")) if twin else ("MONITOR_TOKEN", TOKEN)
    )
    monkeypatch.setenv(name, value)
    with monitored(answer=Status.DEGRADED, token=TOKEN) as url:
        status, out, err = say("--url", url)

    assert status == 0
    assert "all about it" in out
    assert TOKEN not in out + err


def test_the_token_goes_to_near_peers_only(
    say: Say, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over plain HTTP the peer's address decides, whatever the name of the host says."""
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    page.answers["/"] = (200, '{"status": "healthy"}', {})
    say("--url", f"http://localhost:{page.port}/")
    monkeypatch.setattr(asking, "is_near", lambda peer: peer != ("127.0.0.1", page.port))
    say("--url", f"{page.url}/")

    assert page.asked == [("/", f"Bearer {TOKEN}"), ("/", None)]


def test_a_password_in_the_address_is_sent_and_not_shown(
    say: Say, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    _, out, err = say("--url", f"http://me:hunter2%21@127.0.0.1:{page.port}/page?key=hunter2")
    assert page.asked == [("/page?key=hunter2", "Basic bWU6aHVudGVyMiE=")]
    assert "hunter2" not in out + err

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    status, out, err = say("--url", f"http://me:hunter2@127.0.0.1:{port}/page?key=hunter2")
    refused = f"overall: unhealthy (http://127.0.0.1:{port}/page refused the connection)\n"
    assert (status, out, err) == (1, refused, "")


@pytest.mark.parametrize(
    ("code", "body", "status"),
    [
        (200, "<h1>Welcome</h1>", 0),
        (204, "", 0),
        (200, '{"status": "heal', 0),
        (200, '{"status": 7}', 0),
        (200, '["healthy"]', 0),
        (200, "[" * 100_000, 0),
        (401, "", 1),
        (404, "", 1),
        (500, "Oops", 1),
        (503, "{}", 1),
    ],
)
def test_a_foreign_page_is_judged_by_its_status_code_and_that_is_said(
    say: Say, page: Page, code: int, body: str, status: int
) -> None:
    page.answers["/"] = (code, body, {})
    word = "unhealthy" if status else "healthy"
    sentence = f"HTTP {code}, judged by that alone: the page is no health report"

    assert say("--url", f"{page.url}/") == (status, f"overall: {word} ({sentence})\n", "")


IETF_CHECKS = {
    "database:responseTime": [
        {"status": "pass", "observedValue": 1.5, "observedUnit": "ms"},
        {"status": "warn", "observedValue": 900, "observedUnit": "ms", "output": "slow today"},
    ],
    "uptime": [{"status": "pass", "observedValue": 7, "observedUnit": "s"}],
}


@pytest.mark.parametrize(
    ("code", "word", "whole", "status"),
    [
        (200, "pass", "healthy", 0),
        (200, "UP", "healthy", 0),
        (200, "warn", "degraded", 0),
        (503, "fail", "unhealthy", 1),
        (200, "down", "unhealthy", 1),
        (503, "pass", "unhealthy", 1),
    ],
)
def test_the_ietf_form_is_understood_and_the_worse_of_code_and_word_counts(
    say: Say, page: Page, code: int, word: str, whole: str, status: int
) -> None:
    page.answers["/"] = (code, json.dumps({"status": word, "checks": IETF_CHECKS}), {})
    ended, out, _ = say("--url", f"{page.url}/")

    assert (ended, out.splitlines()) == (
        status,
        [
            "database  degraded  900.0 ms  slow today",
            "uptime    healthy   -",
            f"overall: {whole} (HTTP {code})",
        ],
    )


def test_our_own_ietf_form_is_understood(say: Say, page: Page) -> None:
    with monitored(answer=Status.CRITICAL) as url:
        accept = {"Accept": "application/health+json"}
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/health", headers=accept))
        with answer.value as error:
            page.answers["/"] = (error.code, error.read().decode(), {})
    status, out, _ = say("--url", f"{page.url}/")

    assert (status, rows(out)) == (
        1,
        {"traffic": "healthy", "database": "unhealthy", "overall": "unhealthy"},
    )


def test_a_redirect_on_the_host_is_followed_and_the_token_stays_at_its_address(
    say: Say, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    with Page().serving() as other:
        page.answers["/old"] = (308, "", {"Location": "/new"})
        page.answers["/new"] = (307, "", {"Location": f"{other.url}/health"})
        other.answers["/health"] = (200, '{"status": "warn"}', {})
        status, out, _ = say("--url", f"{page.url}/old", "--strict")

        assert (status, out) == (1, "overall: degraded (HTTP 200)\n")
        assert page.asked == [("/old", f"Bearer {TOKEN}"), ("/new", f"Bearer {TOKEN}")]
        assert other.asked == [("/health", None)], "another port is another address"


@pytest.mark.parametrize("place", ["http://localhost:{port}/", "https://[", "ftp://127.0.0.1/"])
def test_a_redirect_that_leads_elsewhere_is_the_answer(say: Say, page: Page, place: str) -> None:
    page.answers["/"] = (302, "", {"Location": place.format(port=page.port)})
    status, out, _ = say("--url", f"{page.url}/")

    assert (status, len(page.asked)) == (0, 1)
    assert out.startswith("overall: healthy (HTTP 302, judged by that alone")


def test_a_redirect_in_a_circle_is_unhealthy(say: Say, page: Page) -> None:
    page.answers["/"] = (302, "", {"Location": "/"})
    status, out, _ = say("--url", f"{page.url}/")

    assert (status, len(page.asked)) == (1, 6)
    assert out == f"overall: unhealthy ({page.url}/ redirected more than 5 times)\n"


@contextlib.contextmanager
def talker(*pieces: bytes, pause: float = 0.0, then: float = 0.0) -> Iterator[str]:
    """A server that says `pieces`, with a pause before each, to whoever comes; its address."""
    ended = threading.Event()

    def talk(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                for piece in pieces:
                    ended.wait(pause)
                    client.sendall(piece)
                ended.wait(then)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize(
    ("pieces", "sentence"),
    [
        ([], "closed the connection without an answer"),
        ([b"220 mail ready\r\n"], "does not speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"], "broke off its answer"),
    ],
)
def test_no_answer_is_unhealthy(say: Say, pieces: list[bytes], sentence: str) -> None:
    with talker(*pieces) as url:
        assert say("--url", url) == (1, f"overall: unhealthy ({url} {sentence})\n", "")


@pytest.mark.parametrize("pieces", [[], [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 500]])
def test_an_answer_that_takes_too_long_is_unhealthy(say: Say, pieces: list[bytes]) -> None:
    """Also where it comes a little at a time."""
    with talker(*pieces, pause=0.1, then=60) as url:
        began = time.monotonic()
        ended = say("--url", url, "--timeout", "0.5")

        assert ended == (1, f"overall: unhealthy ({url} did not answer within 0.5 s)\n", "")
        assert time.monotonic() - began < 20


def test_a_name_that_cannot_be_resolved_is_status_3(say: Say) -> None:
    for host in ("nowhere.invalid", "a" * 70):
        status, out, err = say("--url", f"http://me:hunter2@{host}/")

        assert (status, out) == (3, "")
        assert err == f"holistic-asgi-monitor check: the name {host!r} cannot be resolved\n"


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Page, Path]]:
    """Return a server that speaks TLS with a certificate of its own, and that certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    hosts: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(pem, *private))
    (tmp_path / "certificate").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    page = Page()
    page.server.socket = context.wrap_socket(
        page.server.socket, server_side=True, do_handshake_on_connect=False
    )
    page.url = page.url.replace("http:", "https:")
    page.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes
    with page.serving():
        yield page, tmp_path / "certificate"


def test_https_needs_a_trusted_certificate_and_carries_the_token_anywhere(
    say: Say, secure: tuple[Page, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page, certificate = secure
    monkeypatch.setenv("MONITOR_TOKEN", TOKEN)
    monkeypatch.setattr(asking, "is_near", lambda peer: False)
    page.answers["/"] = (200, '{"status": "healthy"}', {})
    status, out, _ = say("--url", f"{page.url}/")
    assert (status, page.asked) == (1, [])
    assert out.endswith("has a certificate that is not trusted here)\n")

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert say("--url", f"{page.url}/") == (0, "overall: healthy (HTTP 200)\n", "")
    assert page.asked == [("/", f"Bearer {TOKEN}")]


def test_https_is_never_left_for_http(
    say: Say, secure: tuple[Page, Path], page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))
    secure[0].answers["/"] = (302, "", {"Location": f"{page.url}/"})
    status, out, _ = say("--url", f"{secure[0].url}/")

    assert (status, page.asked) == (0, [])
    assert out.startswith("overall: healthy (HTTP 302, judged")


def test_tls_with_a_server_that_has_none_is_unhealthy(say: Say, page: Page) -> None:
    url = page.url.replace("http:", "https:")

    status, out, err = say("--url", f"{url}/")
    assert (status, err) == (1, "")
    assert out == f"overall: unhealthy ({url}/ does not speak TLS as it should)\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
WORDS = st.sampled_from(["healthy", "critical", "unknown", "skipped", "pass", "WARN", "fail"])
PAGES = st.fixed_dictionaries(
    {},
    optional={
        "overall_status": WORDS | JSON,
        "status": WORDS | JSON,
        "services": st.dictionaries(
            st.text(),
            st.fixed_dictionaries({"status": WORDS | JSON, "response_time_ms": JSON}) | JSON,
        ),
        "checks": st.dictionaries(
            st.text(), st.lists(st.fixed_dictionaries({"status": WORDS})) | JSON
        )
        | JSON,
    },
)


@given(code=st.integers(100, 599), page=PAGES | JSON, strict=st.booleans())
def test_any_page_has_a_verdict_of_plain_lines(code: int, page: Any, strict: bool) -> None:
    """An answer that is no success is never well, whatever its page says."""
    verdict = judged(code, json.dumps(page).encode())
    lines = verdict.lines()

    assert all(line.isprintable() for line in lines)
    assert lines[-1].startswith(f"overall: {verdict.status.value} (HTTP {code}")
    assert verdict.exit_status(strict=strict) == (
        verdict.status > (Status.HEALTHY if strict else Status.DEGRADED)
    )
    if code not in range(200, 400):
        assert verdict.exit_status(strict=False) == 1


@given(st.binary())
def test_any_bytes_are_judged_by_the_code_alone(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        json.loads(body)
        return
    assert judged(200, body).status is Status.HEALTHY
    assert judged(500, body).status is Status.UNHEALTHY


def test_numbers_that_are_too_large_and_reports_that_are_too_long_are_borne() -> None:
    services: dict[str, dict[str, object]] = {
        f"s{number}": {"status": "healthy"} for number in range(150)
    }
    services["s0"] = {"status": "healthy", "response_time_ms": 10**400, "message": "x" * 5000}
    body = json.dumps({"overall_status": "healthy", "services": services}).encode()
    lines = judged(200, body).lines()

    assert len(lines) == 102
    assert lines[-2:] == ["and 50 more", "overall: healthy (HTTP 200)"]
    assert max(map(len, lines)) < 250
