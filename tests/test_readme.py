"""README.md keeps its word: its first command is run as a newcomer would run it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEFT_BEHIND = shutil.ignore_patterns(".git", ".venv", ".cache", "__pycache__", "*_cache")
SHOWN_SECONDS = 15
INSTALLED_WITHIN = 240.0


def commands() -> list[str]:
    """Return the commands of README's first code block."""
    block = re.search(r"```sh\n(.*?)```", README, re.DOTALL)
    assert block is not None
    return [line for line in block[1].splitlines() if line and not line.startswith("#")]


def newcomers_environment() -> dict[str, str]:
    """Return our environment as it was before the tests' own virtual environment."""
    python = Path(getattr(sys, "_base_executable", sys.executable))
    folders = [folder for folder in os.get_exec_path() if Path(folder) != Path(sys.prefix) / "bin"]
    path = os.pathsep.join([str(python.parent), *folders])
    environment = os.environ | {"PATH": path, "SSL_CERT_FILE": os.environ["HAM_SSL_CERT_FILE"]}
    return {name: value for name, value in environment.items() if value and name != "VIRTUAL_ENV"}


def fetch(url: str) -> tuple[int, str]:
    """Return the status and the text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until something answers there; give up when the process ends or takes too long."""
    give_up = time.monotonic() + INSTALLED_WITHIN
    while process.poll() is None and time.monotonic() < give_up:
        try:
            fetch(url)
        except OSError:
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def demo(tmp_path: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start README's first command in a fresh copy of the project, for a few seconds of demo."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=LEFT_BEHIND)
    command = f"{commands()[0]} --port {port} --seconds {SHOWN_SECONDS}"
    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(
            ["sh", "-c", command],
            cwd=copy,
            env=newcomers_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.once
@pytest.mark.timeout(360)
def test_the_first_command_installs_and_shows_the_demo(
    demo: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    """Its pages answer while it runs, and it ends by itself with exit code 0."""
    base = f"http://127.0.0.1:{port}"
    wait_for(f"{base}/api/health/live", demo)
    assert demo.poll() is None, (tmp_path / "output").read_text(encoding="utf-8")

    status, health = fetch(f"{base}/api/health")
    assert status in {200, 503}
    assert "traffic" in json.loads(health)["services"]
    assert fetch(f"{base}/api/health/live")[0] == 200
    status, stats = fetch(f"{base}/api/monitoring/stats")
    assert status == 200
    assert "windows" in json.loads(stats)["requests"]
    status, metrics = fetch(f"{base}/metrics")
    assert status == 200
    assert "# TYPE holisticos_requests_total counter" in metrics

    exit_code = demo.wait(timeout=SHOWN_SECONDS + 30)
    assert exit_code == 0, (tmp_path / "output").read_text(encoding="utf-8")


def test_the_readme_opens_with_two_commands() -> None:
    assert README.index("```sh") < README.index("\n## ")
    assert len(commands()) == 2


def test_the_second_command_is_what_ci_runs() -> None:
    """These very tests show that it works, so that it need not be started here."""
    script = ROOT / ".ci" / "run"
    assert commands()[1] in script.read_text(encoding="utf-8").splitlines()
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^):#]+)\)", README))))
def test_every_file_the_readme_links_to_exists(target: str) -> None:
    assert (ROOT / target).is_file()
