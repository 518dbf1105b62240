"""The demo as a user runs it: its pages answer, the story is told, it ends as it should."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

Demo = subprocess.Popen[str]


@contextmanager
def demo(folder: Path, *options: str) -> Iterator[Demo]:
    """Start the demo on a free port, its two outputs in files of `folder`."""
    command = [sys.executable, "-m", "holistic_asgi_monitor", "demo", "--port", "0", *options]
    with (
        (folder / "out").open("w") as out,
        (folder / "err").open("w") as err,
        subprocess.Popen(command, text=True, stdout=out, stderr=err) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_for(folder: Path, pattern: str, process: Demo) -> re.Match[str]:
    """Wait until the demo has written something that matches `pattern`."""
    give_up = time.monotonic() + 40
    while time.monotonic() < give_up:
        found = re.search(pattern, (folder / "out").read_text())
        if found:
            return found
        assert process.poll() is None, (folder / "err").read_text()
        time.sleep(0.05)
    pytest.fail(f"nothing like {pattern} in {(folder / 'out').read_text()}")


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def address(folder: Path, process: Demo) -> str:
    return wait_for(folder, r"shop +(http://127\.0\.0\.1:\d+)/\n", process)[1]


def health(base: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(fetch(f"{base}/api/health")[1])
    return report


def test_the_story_is_told_and_the_run_ends_by_itself(tmp_path: Path) -> None:
    """Traffic, a degraded report, an alert and its all-clear, with the pages at each stage."""
    with demo(tmp_path, "--seconds", "20") as process:
        base = address(tmp_path, process)
        assert "shop" in fetch(f"{base}/")[1]
        assert "payments" in health(base)["services"]

        wait_for(tmp_path, r"ALERT \(.*payments", process)
        report = health(base)
        assert report["services"]["payments"]["status"] == "degraded"
        assert report["overall_status"] == "degraded"

        wait_for(tmp_path, r"ALL-CLEAR .*payments", process)
        assert health(base)["services"]["payments"]["status"] == "healthy"

        stats = json.loads(fetch(f"{base}/api/monitoring/stats")[1])
        asked = {(row["method"], row["endpoint"]): row for row in stats["requests"]["endpoints"]}
        assert asked["POST", "/checkout"]["errors"] > 0
        assert asked["GET", "/items/{item_id}"]["count"] > 100
        metrics = fetch(f"{base}/metrics")[1]
        for labels in (
            'endpoint="/items/{item_id}",method="GET",status="200"',
            'endpoint="/items/{item_id}",method="GET",status="404"',
            'endpoint="/items/{item_id}",method="DELETE",status="405"',
            'endpoint="/checkout",method="POST",status="503"',
            'endpoint="_unmatched",method="GET",status="404"',
        ):
            assert f"holisticos_requests_total{{{labels}}}" in metrics
        assert "holisticos_websocket_connections_total{" in metrics

        assert process.wait(30) == 0

    out = (tmp_path / "out").read_text()
    assert re.search(r"requests/s .*p95 .*errors .*health degraded \(.*payments", out)
    [(requests, alerts, clears)] = re.findall(
        r"The end: ([\d,]+) requests, (\d+) alerts? delivered, (\d+) all-clears?\.\n$", out
    )
    assert int(requests.replace(",", "")) > 300
    assert int(alerts) >= 1
    assert int(clears) >= 1
    assert "\x1b" not in out
    assert (tmp_path / "err").read_text() == ""


def test_a_run_too_short_for_the_story_ends_well(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", "2") as process:
        assert process.wait(30) == 0

    assert "The end: " in (tmp_path / "out").read_text()
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_sums_up_and_ends_well(tmp_path: Path, name: str) -> None:
    with demo(tmp_path) as process:
        wait_for(tmp_path, "requests/s", process)
        process.send_signal(signal.Signals[name])

        assert process.wait(15) == 0

    assert "The end: " in (tmp_path / "out").read_text()
    assert (tmp_path / "err").read_text() == ""


def test_a_terminal_sees_colours_and_one_line_of_progress(tmp_path: Path) -> None:
    """On a terminal the progress is rewritten in place, and Ctrl-C is typed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "holistic_asgi_monitor", "demo", "--port", "0"]
    environ = {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [*command, "--seconds", "5"], env=os.environ | environ, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = _everything(ours)

        assert process.wait(30) == 0
    # How often depends on what else the machine does; a second and a third time in the same line.
    assert re.search("(\r\x1b\\[K[^\n]+){2}", shown)
    assert "\x1b[36mapp = Monitor(app)\x1b[0m" in shown
    assert shown.endswith(".\x1b[0m\r\n")


def _everything(descriptor: int) -> str:
    shown = b""
    while True:
        try:
            more = os.read(descriptor, 4096)
        except OSError:  # Linux says so when the other end is closed
            more = b""
        if not more:
            os.close(descriptor)
            return shown.decode()
        shown += more


def test_a_reader_that_goes_away_ends_the_run(tmp_path: Path) -> None:
    """As in `demo | head -3`: no traceback, no demo that runs on unseen."""
    command = [sys.executable, "-m", "holistic_asgi_monitor", "demo", "--port", "0"]
    with subprocess.Popen(
        [*command, "--seconds", "60"], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()

        assert process.wait(40) == 0
        assert process.stderr.read() == ""
