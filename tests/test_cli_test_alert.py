"""`test-alert`: who gets the message, what is printed, and the exit statuses."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holistic_asgi_monitor.cli import main
from tests.notifiers.receiver import Receiver
from tests.notifiers.slack_stub import SECRET, Answer, SlackStub

Say = Callable[..., tuple[int, str, str]]

MINE = """
import asyncio, time
from starlette.applications import Starlette
from holistic_asgi_monitor import Monitor, Settings, notifiers

print("the app's own words")

class Own:
    def __init__(self, name, deed):
        self.name, self.timeout, self._deed = name, 0.2, deed
    async def send(self, alerts):
        self.alerts = alerts
        await self._deed()

async def well(): pass
async def bad(): raise ValueError("hunter2")
async def endless(): await asyncio.sleep(1000)
async def blocking(): time.sleep(1000)

given = [{given}]
settings = Settings(service="shop")
inner = Starlette()
{app}
"""
WRAPPED = "app = Monitor(inner, settings=settings, notifiers=given)"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Return a function that runs `test-alert` here: exit status, output, errors."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["test-alert", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that makes the module `mine` of the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def make(given: str, app: str = WRAPPED) -> None:
        (tmp_path / "mine.py").write_text(MINE.replace("{given}", given).replace("{app}", app))

    yield make
    sys.modules.pop("mine", None)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def slack() -> Iterator[SlackStub]:
    """Slack on this machine."""
    with SlackStub() as slack:
        yield slack


def lines(out: str) -> list[str]:
    """The lines, without how long it took."""
    return [line.partition(" in ")[0] for line in out.splitlines()]


def test_each_notifier_of_the_environment_gets_one_message(
    say: Say, receiver: Receiver, slack: SlackStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_SERVICE", "shop")
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
    monkeypatch.setenv("ALERTMANAGER_URL", f"{receiver.url}/am")
    monkeypatch.setenv("MONITOR_WEBHOOK_URL", f"{receiver.url}/{SECRET}")
    status, out, err = say()

    assert (status, err) == (0, "")
    delivered = ["slack: delivered", "alertmanager: delivered", "webhook: delivered"]
    assert lines(out) == delivered
    assert all(line.endswith(" ms") for line in out.splitlines())
    (message,) = slack.payloads
    assert "Test alert from shop" in message["text"]
    paths = {request.path: request.payload for request in receiver.received}
    assert set(paths) == {"/am/api/v2/alerts", f"/{SECRET}"}
    (alert,) = paths[f"/{SECRET}"]["alerts"]
    assert (alert["state"], alert["severity"], alert["service"]) == ("notice", "info", "shop")


def test_one_that_fails_is_a_sentence_and_status_1(
    say: Say, receiver: Receiver, slack: SlackStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK_URL", slack.url)
    monkeypatch.setenv("MONITOR_WEBHOOK_URL", f"{receiver.url}/{SECRET}")
    receiver.script = [Answer(401, "")]
    status, out, err = say()

    assert (status, err) == (1, "")
    assert lines(out) == ["slack: delivered", "webhook: not delivered: the webhook answered 401"]
    assert SECRET not in out
    assert len(receiver.received) == 1, "it is tried once"


def test_without_a_notifier_it_names_the_variables_and_ends_with_3(say: Say) -> None:
    status, out, err = say()

    assert (status, out, err.count("\n")) == (3, "", 1)
    assert err.startswith("holistic-asgi-monitor test-alert: no notifier is set up")
    for name in ("SLACK_WEBHOOK_URL", "SLACK_BOT_TOKEN and SLACK_CHANNEL", "ALERTMANAGER_URL"):
        assert name in err
    assert "MONITOR_WEBHOOK_URL" in err


def test_one_without_its_package_is_a_warning_and_nobody_is_told(
    say: Say, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "slack_sdk":
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.partition(".")[0] == "slack_sdk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"https://hooks.slack.com/{SECRET}")
    status, out, _ = say()

    assert (status, out) == (3, "")
    assert "pip install 'holistic-asgi-monitor[slack]'" in caplog.text
    assert SECRET not in caplog.text


def test_a_wrong_setting_is_one_sentence_and_status_3(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_WEBHOOK_URL", f"ftp://{SECRET}")
    status, out, err = say()

    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "MONITOR_WEBHOOK_URL" in err
    assert SECRET not in err


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (WRAPPED, ["mine:app"]),
        ("app = inner; Monitor.attach(app, settings=settings, notifiers=given)", ["mine:app"]),
        (
            "app = inner; app.add_middleware(Monitor, settings=settings, notifiers=given)",
            ["mine:app"],
        ),
        (f"def make():\n    {WRAPPED}\n    return app", ["mine:make", "--factory"]),
    ],
)
def test_an_apps_own_notifiers_are_found(
    say: Say, write: Callable[..., None], app: str, words: list[str]
) -> None:
    write("Own('mine', well), Own('mine', well), notifiers.Log()", app)
    status, out, err = say(*words)

    assert (status, err) == (0, "the app's own words\n")
    assert lines(out) == ["mine: delivered", "mine 2: delivered", "log: delivered"]
    (alert,) = sys.modules["mine"].given[0].alerts
    assert (alert.title, alert.service) == ("Test alert from shop", "shop")


def test_an_app_without_a_monitor_is_given_the_environments(
    say: Say, write: Callable[..., None], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITOR_WEBHOOK_URL", receiver.url)
    write("", "app = inner")
    assert lines(say("mine:app")[1]) == ["webhook: delivered"]


@pytest.mark.parametrize("given", ["", "notifiers.Log()"])
def test_an_app_with_nothing_but_the_log_ends_with_3(
    say: Say, write: Callable[..., None], given: str
) -> None:
    write(given)
    status, out, err = say("mine:app")

    assert (status, out) == (3, "")
    assert "mine:app has no notifier but the log: give Monitor notifiers, or set SLACK" in err


def test_what_goes_wrong_in_ones_own_is_told_without_its_text(
    say: Say, write: Callable[..., None]
) -> None:
    write("Own('bad', bad), Own('endless', endless), Own('well', well)")
    status, out, _ = say("mine:app")

    assert status == 1
    assert lines(out) == [
        "bad: not delivered: it raised ValueError",
        "endless: not delivered: it took longer than 1.2 s",
        "well: delivered",
    ]


def test_one_that_blocks_the_process_does_not_keep_it(
    write: Callable[..., None], tmp_path: Path
) -> None:
    write("Own('stuck', blocking)")
    command = [sys.executable, "-m", "holistic_asgi_monitor", "test-alert", "mine:app"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )

    assert done.returncode == 1
    assert done.stdout == "stuck: not delivered: it kept the process from going on\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["main"], "'main' names no app"),
        (["--factory"], "--factory: only allowed with module:app"),
        (["mine:app", "more"], "more"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(
    say: Say, words: list[str], named: str
) -> None:
    status, out, err = say(*words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert named in err


def test_an_app_that_cannot_be_had_is_status_3(say: Say, write: Callable[..., None]) -> None:
    write("1 / 0")
    status, out, err = say("mine:app")
    assert (status, out) == (3, "")
    assert "importing mine failed: ZeroDivisionError" in err
