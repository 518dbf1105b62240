"""The command line: its sentences, its exit statuses, its document, and `serve` for real."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holistic_asgi_monitor import __version__
from holistic_asgi_monitor.cli import build_parser, main

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "commands.md"
PLAIN_APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"mine"})

def create_app():
    return app
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs a command line here: exit status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the current directory of this test, whose modules are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parsers of all commands by name."""
    [action] = [
        action
        for action in build_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(action.choices)


def test_the_version_is_the_packages(say: Say) -> None:
    assert say("--version") == (0, f"holistic-asgi-monitor {__version__}\n", "")


def test_without_a_command_the_help_is_printed(say: Say) -> None:
    status, out, err = say()

    assert (status, out) == (2, "")
    assert err == build_parser().format_help()


@pytest.mark.parametrize("command", [[], *([name] for name in commands())])
def test_every_command_has_help(say: Say, command: list[str]) -> None:
    status, out, err = say(*command, "--help")

    assert (status, err) == (0, "")
    assert out.startswith(" ".join(["usage: holistic-asgi-monitor", *command]))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nonsense", "'nonsense'"),
        ("--nonsense", "--nonsense"),
        ("demo more", "more"),
        ("demo --por 1", "--por"),
        ("demo --port", "--port"),
        ("demo --port http", "--port: 'http' is no port, allowed are numbers from 0 to 65535"),
        ("demo --port 65536", "'65536' is no port"),
        ("demo --port -1", "'-1' is no port"),
        ("demo --port \u0661", "'\u0661' is no port"),
        ("demo --seconds 0", "--seconds: '0' is no length of time, allowed are numbers above 0"),
        ("demo --seconds soon", "'soon' is no length of time"),
        ("demo --seconds nan", "'nan' is no length of time"),
        ("demo --seconds inf", "'inf' is no length of time"),
        ("serve", "module:app"),
        ("serve main", "'main' names no app, write it as in main:app"),
        ("serve :app", "':app' names no app"),
        ("serve main:", "'main:' names no app"),
        ("serve main.py:app:app", "'main.py:app:app' names no app"),
        ("serve ./main:app", "'./main:app' names no app"),
        ("serve http://me:hunter2@shop", "'http://...@shop' names no app"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(say: Say, line: str, named: str) -> None:
    status, out, err = say(*line.split())

    assert (status, out) == (2, "")
    assert named in err
    assert err.startswith("holistic-asgi-monitor")
    assert err.count("\n") == 1


@pytest.mark.parametrize("line", ["demo --port {port}", "serve json:dumps --port {port}"])
def test_a_port_in_use_is_one_sentence_and_status_1(say: Say, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = say(*line.format(port=port).split())

    assert status == 1
    assert f"port {port} on 127.0.0.1 is in use; choose another with --port" in err
    assert err.count("\n") == 1


def test_a_strange_host_is_one_sentence_and_status_1(say: Say) -> None:
    status, _, err = say("serve", "json:dumps", "--host", "192.0.2.1", "--port", "0")

    assert (status, err.count("\n")) == (1, 1)
    assert "192.0.2.1 is no address of this machine" in err


@pytest.mark.parametrize(
    ("package", "line", "extra"),
    [
        ("uvicorn", "serve json:dumps", "serve"),
        ("uvicorn", "demo --port 0", "demo"),
        ("httpx2", "demo --port 0", "demo"),
        ("websockets.asyncio.client", "demo --port 0", "demo"),
    ],
)
def test_a_missing_extra_is_named_with_its_pip_install(
    say: Say, monkeypatch: pytest.MonkeyPatch, package: str, line: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, _, err = say(*line.split())

    assert (status, err.count("\n")) == (1, 1)
    assert f"pip install 'holistic-asgi-monitor[{extra}]'" in err


def test_a_wrong_setting_is_one_sentence_and_status_1(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_CHECK_INTERVAL_SECONDS", "often")
    status, _, err = say("serve", "json:dumps", "--port", "0")

    assert (status, err.count("\n")) == (1, 1)
    assert "MONITOR_CHECK_INTERVAL_SECONDS" in err


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        (None, "absent:app", "there is no module absent; looked in {folder} and among the"),
        (None, "absent.deeper:app", "there is no module absent; looked in {folder}"),
        ("", "mine.deeper:app", "there is no module mine.deeper; looked in {folder}"),
        (
            "import absent_dependency",
            "mine:app",
            "importing mine failed: ModuleNotFoundError (absent_dependency) in {folder}/mine.py",
        ),
        (
            "x = 1\nraise ValueError('hunter2')",
            "mine:app",
            "importing mine failed: ValueError in {folder}/mine.py, line 2",
        ),
        ("x = (", "mine:app", "importing mine failed: SyntaxError in {folder}/mine.py, line 1"),
        ("x = 1", "mine:app", "module mine has no app"),
        ("class A:\n def __call__(self): ...\nasgi = A()", "mine:app", "no app; it has asgi"),
        ("app = 7", "mine:app", "mine:app gives no ASGI app but a int, which cannot be called"),
        (PLAIN_APP, "mine:create_app", "mine:create_app takes no arguments, so it is no app; is"),
        ("app = 7", "mine:app --factory", "mine:app cannot be called, so it is no factory"),
        ("def app(): ...", "mine:app --factory", "gives no ASGI app but a NoneType"),
        (
            "def app():\n raise ValueError('hunter2')",
            "mine:app --factory",
            "calling mine:app failed: ValueError in {folder}/mine.py, line 2",
        ),
    ],
)
def test_an_app_that_cannot_be_had_is_one_sentence_and_status_1(
    say: Say, folder: Path, source: str | None, target: str, sentence: str
) -> None:
    """It says what was tried and where, and never the text of the app's own exceptions."""
    if source is not None:
        (folder / "mine.py").write_text(source)
    status, _, err = say("serve", *target.split(), "--port", "0")

    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("holistic-asgi-monitor serve: ")
    assert sentence.format(folder=folder) in err
    assert "hunter2" not in err


ATTACHED_APP = """
from starlette.applications import Starlette
from holistic_asgi_monitor import Monitor
app = Starlette()
Monitor.attach(app).check("own")(lambda: None)
"""


@contextmanager
def served(
    folder: Path, *words: str, source: str = PLAIN_APP
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve an app of `folder` on a free port; yield the process and its address."""
    (folder / "mine.py").write_text(source)
    command = [sys.executable, "-m", "holistic_asgi_monitor", "serve", *words, "--port", "0"]
    environ = os.environ | {"ENVIRONMENT": "development", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        found = re.search(r"wrapped in Monitor, at (http://\S+)", process.stderr.readline())
        try:
            assert found is not None
            yield process, found[1]
        finally:
            process.kill()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.once
@pytest.mark.parametrize("words", [["mine:app"], ["mine:create_app", "--factory"]])
def test_an_app_is_served_and_watched_untouched(tmp_path: Path, words: list[str]) -> None:
    """It answers as before, Monitor's pages answer beside it, and Ctrl-C ends both well."""
    with served(tmp_path, *words) as (process, base):
        assert fetch(f"{base}/anything") == "mine"
        assert json.loads(fetch(f"{base}/api/health/simple")) == {"status": "healthy"}
        assert "holisticos_requests_total{" in fetch(f"{base}/metrics")

        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        log = process.stderr.read()
        assert process.wait(15) == 0
    assert "local" in log, "Monitor's own lines are in the log: which access mode holds"
    assert "Traceback" not in log


@pytest.mark.once
def test_an_app_that_carries_a_monitor_is_served_with_that_one(tmp_path: Path) -> None:
    with served(tmp_path, "mine:app", source=ATTACHED_APP) as (_, base):
        assert "own" in json.loads(fetch(f"{base}/api/health"))["services"]


def test_the_document_has_every_command_and_option_of_the_parser() -> None:
    """The same options with the same words, and nothing else."""
    text = DOCUMENT.read_text(encoding="utf-8")
    head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    documented = {section.split("\n", 1)[0]: section for section in sections}

    assert list(documented) == list(commands())
    assert _table(head, "option") == _options(build_parser())
    for name, parser in commands().items():
        assert _table(documented[name], "option") == _options(parser)


def test_the_document_has_the_exit_statuses_that_help_names() -> None:
    """Those of a command are in its section, or at the head where they are everyone's."""
    head, *sections = re.split(r"^## ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    own = {section.split("\n", 1)[0]: section for section in sections if "| exit status" in section}

    assert list(own) == ["check", "test-alert"]
    for name, parser in {"": build_parser(), **commands()}.items():
        documented = _table(own.get(name, head), "exit status")
        sentence = ", ".join(f"{status} {meaning}" for status, meaning in documented.items())
        assert parser.epilog == f"exit status: {sentence}"


def _table(text: str, first_column: str) -> dict[str, str]:
    """The first table whose first column has that title: first cell to last, without backticks."""
    rows = text.split(f"| {first_column} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [[cell.strip().strip("`") for cell in row.strip("| ").split(" | ")] for row in rows]
    return {row[0]: row[-1] for row in cells}


def _options(parser: argparse.ArgumentParser) -> dict[str, str]:
    return {
        _written(action): (action.help or "") % {"default": action.default}
        for action in parser._actions
        if not isinstance(action, argparse._SubParsersAction)
    }


def _written(action: argparse.Action) -> str:
    """An option as it is typed: `--port PORT`."""
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return metavar
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} {metavar}"
