"""Both benchmarks run to their end with tiny numbers, and catch whoever counts wrongly."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from benchmarks.requests import Outcome

ROOT = Path(__file__).parents[2]
PAGE = """# Benchmarks

<!-- requests: begin -->
old requests
<!-- requests: end -->

between

<!-- scrape: begin -->
old scrapes
<!-- scrape: end -->

after
"""
ADDED = re.compile(r"[+-]\d+\.\d\d")


@pytest.fixture(autouse=True)
def repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks` is importable whatever directory pytest was started in."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with a place for each table."""
    path = tmp_path / "benchmarks.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def command(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` from the repository's root, its state directory being `tmp_path`."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def table(text: str, name: str) -> list[list[str]]:
    """The cells of the table between the markers of `name`, its rule left out."""
    inside = text.partition(f"<!-- {name}: begin -->")[2].partition(f"<!-- {name}: end -->")[0]
    lines = [line for line in inside.splitlines() if line.startswith("|")]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line
    ]


def test_requests_writes_its_table_and_nothing_else(page: Path, tmp_path: Path) -> None:
    """Monitor's labels and numbers are right on every app, or there would be no table."""
    short = ("--only", "bare,empty,monitor", "--blocks", "2", "--calls", "4")
    done = command(tmp_path, "benchmarks.requests", *short, "--write", str(page))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    written = page.read_text(encoding="utf-8")
    head, bare, empty, monitor = table(written, "requests")
    assert [cell.partition(",")[0] for cell in head[1:]] == [*["Starlette"] * 3, "FastAPI"]
    assert all(cell.endswith(" in all") for cell in bare[1:])
    assert all(ADDED.fullmatch(cell) for cell in (*empty[1:], *monitor[1:]))
    assert "old requests" not in written
    assert (
        written.partition("<!-- requests: end -->")[2]
        == PAGE.partition("<!-- requests: end -->")[2]
    )


def test_scrape_writes_its_table_and_nothing_else(page: Path, tmp_path: Path) -> None:
    """Both pages hold the same numbers, or there would be no table."""
    short = ("--endpoints", "3,1200", "--scrapes", "1")
    done = command(tmp_path, "benchmarks.scrape", *short, "--write", str(page))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    written = page.read_text(encoding="utf-8")
    head, *rows = table(written, "scrape")
    assert [row[0] for row in rows] == ["3", "1,200"]
    assert all(len(row) == len(head) and "" not in row for row in rows)
    assert "old scrapes" not in written
    assert (
        written.partition("<!-- scrape: begin -->")[0]
        == PAGE.partition("<!-- scrape: begin -->")[0]
    )


def test_without_write_the_table_is_printed(tmp_path: Path) -> None:
    """The repository stays as it was."""
    short = ("--only", "empty", "--apps", "starlette-1", "--blocks", "1", "--calls", "1")
    before = (ROOT / "docs" / "benchmarks.md").read_bytes()
    done = command(tmp_path, "benchmarks.requests", *short)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| the bare app |") == 1
    assert (ROOT / "docs" / "benchmarks.md").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("benchmarks.requests", "--only", "nobody"), "there is no nobody; there are bare,"),
        (("benchmarks.requests", "--blocks", "0"), "0 is not a whole number of at least 1"),
        (("benchmarks.scrape", "--endpoints", "5,-1"), "-1 is not a whole number of at least 1"),
        (("benchmarks.requests", "--write", "no.md"), "there is no file no.md to put the table"),
        (("benchmarks.scrape", "--endpoints", "5,x"), "x is not a whole number of at least 1"),
    ],
)
def test_a_wrong_argument_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    """What, and what is allowed; exit 2, as for every command line."""
    done = command(tmp_path, *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


class Counting:
    """A contender that counts into a dict, with a fault of choice."""

    def __init__(self, app: ASGIApp, label: Callable[[Scope], str], every: int = 1) -> None:
        self.app = app
        self.label = label
        self.every = every
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            self.seen.append(self.label(scope))

    async def page(self) -> str:
        counts = {label: self.seen.count(label) // self.every for label in self.seen}
        lines = [f'seen_total{{at="{label}"}} {count}' for label, count in counts.items()]
        return "\n".join(["# TYPE seen counter", *lines, ""])


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    """Starts well, and raises on every request."""
    if scope["type"] == "http":
        raise KeyError("path")
    await living(receive, send)


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    """Starts well, and answers 500 to every request."""
    if scope["type"] == "http":
        await PlainTextResponse("no", 500)(scope, receive, send)
    else:
        await living(receive, send)


async def living(receive: Callable[[], Awaitable[object]], send: Send) -> None:
    """The whole of a lifespan."""
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


def outcome_of(wrap: Callable[[ASGIApp], ASGIApp]) -> Outcome:
    """What the benchmark makes of a contender put on by `wrap`."""
    from benchmarks.apps import cases
    from benchmarks.contenders import Contender, Counts, Mounted
    from benchmarks.requests import Plan, measure

    case = cases()[0]
    app = wrap(case.build())
    counts = Counts(app.page, "seen_total", "at") if isinstance(app, Counting) else None
    contender = Contender("one", "one", lambda _case: Mounted(app, counts))
    plan = Plan(cases=[case], chosen=[contender], blocks=2, calls=3)
    return asyncio.run(measure(case, plan))["one"]


def template(scope: Scope) -> str:
    """The label that the benchmark wants."""
    path: str = scope["route"].path
    return path


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda _app: raising, "answers nothing (KeyError)"),
        (lambda _app: failing, "answers 500"),
        (lambda app: Counting(app, lambda scope: scope["path"]), "wrong label: `/r0/7`"),
        (lambda app: Counting(app, template, every=2), "counts 3 of 6"),
    ],
)
def test_whoever_is_wrong_gets_words_instead_of_a_number(
    wrap: Callable[[ASGIApp], ASGIApp], words: str
) -> None:
    """The benchmark finds it out by itself, before anything is timed."""
    outcome = outcome_of(wrap)
    assert (outcome.wrong, outcome.seconds) == (words, 0.0)


def test_whoever_counts_rightly_gets_a_number() -> None:
    """All requests of the rehearsal and of the blocks are accounted for."""
    outcome = outcome_of(lambda app: Counting(app, template))
    assert outcome.wrong == ""
    assert outcome.seconds > 0


def test_counts_that_go_wrong_during_the_run_are_noticed() -> None:
    """A contender that is right for the first requests only loses its number afterwards."""
    requests = itertools.count(1)

    def label(scope: Scope) -> str:
        return template(scope) if next(requests) <= 6 else "late"

    assert outcome_of(lambda app: Counting(app, label)).wrong == "wrong label: `late`"


def numbers(**values: float) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a page says, as the scrape benchmark reads it."""
    return {(name, frozenset({("method", "GET")})): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("ours", "sentence"),
    [
        (numbers(a=2, b=1, more=1), "more {'method': 'GET'} is 1 with Monitor and 0.0 without"),
        (numbers(a=2, b=3), "b {'method': 'GET'} is 3 with Monitor and 1 without"),
        (numbers(a=2), "b {'method': 'GET'} is None with Monitor and 1 without"),
    ],
)
def test_pages_with_other_numbers_are_not_compared(
    ours: dict[tuple[str, frozenset[tuple[str, str]]], float], sentence: str
) -> None:
    """The sentence names the series that differs."""
    from benchmarks.scrape import demand_same

    with pytest.raises(SystemExit) as end:
        demand_same(ours, numbers(a=2, b=1))
    assert str(end.value) == sentence


def test_series_still_at_zero_may_be_more_than_the_other_page_has() -> None:
    """Monitor gives birth to some series before they are needed."""
    from benchmarks.scrape import demand_same

    demand_same(numbers(a=2, b=1, unborn=0), numbers(a=2, b=1))


def test_a_page_without_its_markers_is_left_alone(tmp_path: Path) -> None:
    """A table has only one place to go to."""
    from benchmarks.table import publish

    page = tmp_path / "page.md"
    page.write_text("nothing here", encoding="utf-8")
    with pytest.raises(SystemExit, match="lacks the lines"):
        publish("requests", "table", page)
    assert page.read_text(encoding="utf-8") == "nothing here"
