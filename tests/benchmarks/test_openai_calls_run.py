"""The benchmark of calls of OpenAI runs to its end with tiny numbers, and counts every call."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBERS = re.compile(r"\| [\w ,]+ \| -?\d+\.\d \| [+-]\d+\.\d \| [+-]\d+\.\d \|")


@pytest.fixture(autouse=True)
def _repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks` is importable whatever directory pytest was started in."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_it_writes_its_table_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- openai: begin -->\nold\n<!-- openai: end -->\nafter\n", "utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "benchmarks.openai_calls"),
            *("--rounds", "1", "--write", str(page)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    written = page.read_text("utf-8")

    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "old" not in written
    assert len(NUMBERS.findall(written)) == 6


def test_a_call_that_is_not_counted_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import openai_calls
    from holistic_asgi_monitor.usage.tracking import Tracker

    monkeypatch.setattr(Tracker, "openai_ended", lambda self, status, call: None)
    # openai asks for it in a thread of its own, which outlives the run, by a process of its own.
    platform.processor()
    with pytest.raises(SystemExit, match=r"not every call was counted and priced: \{\}"):
        openai_calls.main(["--rounds", "1"])


def test_a_further_part_is_the_difference_of_long_and_short() -> None:
    from benchmarks.openai_calls import PARTS, _rows

    short = (1e-3, 1e-3, 2e-3)
    long = (1e-3 + PARTS * 5e-6, 1e-3 + PARTS * 4e-6, 2e-3 + PARTS * 7e-6)
    rows = _rows([short, short, short, long, short, long])

    assert rows[0] == ("a call", "1000.0", "+0.0", "+1000.0")
    assert rows[4] == ("each further part", "5.0", "-1.0", "+2.0")
