"""The table as Markdown, the line above it, and its place in the docs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import holistic_asgi_monitor

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def conditions(distributions: Iterable[str], measured: str) -> str:
    """The line above a table: machine, Python, versions, and what was `measured`."""
    versions = [f"{name} {version(name)}" for name in distributions]
    here = f"{os.cpu_count()} x {_processor()}, {platform.system()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    ours = f"holistic-asgi-monitor {holistic_asgi_monitor.__version__}"
    return f"{here}; {python}; {', '.join([ours, *versions])}; {measured}."


def publish(name: str, text: str, target: Path | None) -> None:
    """Put `text` between the markers of `name` in `target`, or print it where that is None."""
    if target is None:
        print(text)
        return
    page = target.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = page.partition(begin)
    _old, ended, after = rest.partition(end)
    if not (found and ended):
        raise SystemExit(f"{target} lacks the lines {begin} and {end}")
    target.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()
