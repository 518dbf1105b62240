"""The package's door: which names it has, and what passing it costs."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

import holistic_asgi_monitor

PACKAGE = Path(holistic_asgi_monitor.__file__).parent
EXPORTS = {
    "Alert",
    "Check",
    "CheckResult",
    "ConfigurationError",
    "MissingExtraError",
    "Monitor",
    "MonitorError",
    "Notifier",
    "Report",
    "Settings",
    "Severity",
    "Status",
    "__version__",
    "checks",
    "notifiers",
    "set_user",
    "track_endpoint_metrics",
    "track_error",
    "track_feature",
    "track_openai_call",
}
EXTRAS = {
    "asyncpg",
    "genai_prices",
    "httpx2",
    "openai",
    "psutil",
    "redis",
    "slack_sdk",
    "trio",
    "uvicorn",
    "websockets",
}
# An import that is tried and fails leaves no trace in sys.modules, hence the finder.
RECORD_IMPORTS = """
import json, sys

class Recorder:
    asked = set()

    def find_spec(self, name, path=None, target=None):
        self.asked.add(name.partition(".")[0])

sys.meta_path.insert(0, Recorder())
import holistic_asgi_monitor
print(json.dumps(sorted(Recorder.asked)))
"""


def test_the_root_exports_are_these() -> None:
    assert set(holistic_asgi_monitor.__all__) == EXPORTS


@pytest.mark.parametrize("name", sorted(EXPORTS))
def test_every_export_exists_and_says_what_it_is(name: str) -> None:
    assert getattr(holistic_asgi_monitor, name).__doc__


def test_importing_the_package_asks_for_no_extra() -> None:
    recorded = subprocess.run(
        [sys.executable, "-c", RECORD_IMPORTS], capture_output=True, check=True, text=True
    )
    asked = set(json.loads(recorded.stdout))
    assert "holistic_asgi_monitor" in asked
    assert asked & EXTRAS == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()


def test_the_version_is_written_in_one_place() -> None:
    version = importlib.metadata.version("holistic-asgi-monitor")
    assert holistic_asgi_monitor.__version__ == version
    holders = [
        file.name
        for file in [*PACKAGE.rglob("*.py"), PACKAGE.parent / "pyproject.toml"]
        if f'"{version}"' in file.read_text(encoding="utf-8")
    ]
    assert holders == ["_version.py"]
