"""`history`: what it prints and exports, from a store that a service may be writing to."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.cli import main
from holistic_asgi_monitor.history import bounds
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.values import Kind, Value
from tests.web.past import ran, requests, row, value, write

Say = Callable[..., tuple[int, str, str]]
HOUR, DAY = 3600, 86_400


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
def say(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Return a function that runs `history` here: exit status, output, errors."""
    monkeypatch.setenv("MONITOR_HISTORY_URL", f"sqlite:///{file}")
    monkeypatch.setenv("MONITOR_SERVICE", "shop")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(["history", *words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def past(file: Path) -> int:
    """Write what happened in the five minutes from the time on that is returned."""
    began = int(time.time()) // 300 * 300 - 600
    hour_ended = int(time.time()) // 300 * 300

    async def fill() -> None:
        store = SQLite(file, max_mb=8, service="shop")
        await store.open()
        await write(
            store,
            *requests(began, "/items/{id}", value([0.1] * 8, errors=2)),
            *requests(began + 60, "/items/{id}", value([0.2] * 4), "PUT"),
            *requests(hour_ended - DAY - 600, "/items/{id}", value([0.05] * 3)),
            ran(began),
            row(Kind.SPEND, ("gpt", "", ""), began, Value(2, total=2_500_000_000)),
            row(Kind.HEALTH, ("database",), began, Value(1, peak=5)),
        )
        await store.close()

    anyio.run(fill)
    return began


def of_last_hour(*words: str) -> tuple[str, ...]:
    return (*words, "--from", "-30m")


def test_a_table_has_a_line_for_each_step_with_a_bar(say: Say, past: int) -> None:
    status, out, err = say(*of_last_hour("requests", "--step", "60"))
    head, *lines = out.splitlines()
    moments = {line[:16]: line[16:].split() for line in lines}
    first, second = (
        time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment)) for moment in (past, past + 60)
    )

    assert (status, err) == (0, "")
    assert head == "requests in requests, each 60 s from (UTC)"
    assert moments[first] == ["8", "█" * 40]
    assert moments[second] == ["4", "█" * 20]
    assert len(lines) in {30, 31}
    assert lines[0].endswith("  -")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("requests",), 12),
        (("requests", "--method", "PUT"), 4),
        (("requests", "--endpoint", "/items/{id}"), 12),
        (("errors",), 2),
        (("error_rate", "--method", "GET"), 25.0),
        (("latency", "--quantile", "1"), pytest.approx(0.2, rel=0.011)),
        (("latency", "--quantile", "0", "--method", "GET"), pytest.approx(0.1, rel=0.011)),
        (("cost", "--model", "gpt"), 2.5),
        (("health", "--service", "database"), 3),
    ],
)
def test_every_option_reaches_what_is_asked(
    say: Say, past: int, words: tuple[str, ...], expected: float
) -> None:
    status, out, _ = say(*of_last_hour(*words, "--format", "json"))
    document = json.loads(out)

    assert status == 0
    assert document["step_seconds"] == 300
    assert [point for _, point in document["points"] if point] == [expected]
    assert [past, expected] in document["points"]


def test_great_numbers_are_written_out(say: Say, file: Path) -> None:
    async def fill() -> None:
        store = SQLite(file, max_mb=8, service="shop")
        times = Value(12_345_678, total=4_567_890_120_000_000)
        await write(store, *requests(time.time(), "/items", times))
        await write(store, row(Kind.SPEND, ("gpt", "", ""), time.time(), times))
        await store.close()

    anyio.run(fill)
    day = ("--from", "-1d", "--step", "86400")

    assert say("requests", *day)[1].splitlines()[-1].split()[2] == "12345678"
    assert say("cost", *day)[1].splitlines()[-1].split()[2] == "4567890.12"


def test_csv_is_what_a_spreadsheet_reads(say: Say, past: int) -> None:
    _, out, _ = say(*of_last_hour("requests", "--format", "csv"))
    rows = list(csv.DictReader(io.StringIO(out)))

    assert sum(int(row["value"] or 0) for row in rows) == 12
    assert str(past) in {row["epoch_seconds"] for row in rows}


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "-30m"),
        ("--from=-30m",),
        ("--from", str(int(time.time()) - 1800)),
        ("--from", "1999-01-01", "--to", "-30m", "--step", "86400"),
    ],
)
def test_times_are_written_as_in_the_address(say: Say, past: int, words: tuple[str, ...]) -> None:
    assert say("cpu", *words)[0] == 0


def test_where_nothing_was_recorded_it_says_so(say: Say, past: int) -> None:
    status, out, _ = say("cpu", "--from", "-10m")

    assert status == 0
    assert out.splitlines()[-1] == "nothing is recorded of this time"


def test_the_trend_stands_in_a_table(say: Say, past: int) -> None:
    status, out, _ = say("--trend")
    title, head, *rows = (line.split() for line in out.splitlines())

    assert status == 0
    assert title[:4] == ["trend", "of", "the", "hour"]
    assert head[:5] == ["requests", "day", "ago", "week", "ago"]
    assert rows[0][:4] == ["whole", "12", "3", "-"]
    assert rows[0][4:7] == ["16.67", "%", "0.00"]
    assert [row[:3] for row in rows[1:]] == [
        ["GET", "/items/{id}", "8"],
        ["PUT", "/items/{id}", "4"],
    ]


def test_the_trend_of_one_endpoint_is_that_alone(say: Say, past: int) -> None:
    _, out, _ = say("--trend", "--method", "PUT")

    assert [line.split()[:3] for line in out.splitlines()[2:]] == [["PUT", "/items/{id}", "4"]]
    assert len(say("--trend", "--endpoint", "/nowhere")[1].splitlines()) == 2


def test_the_trend_is_exported(say: Say, past: int) -> None:
    document = json.loads(say("--trend", "--format", "json")[1])
    rows = list(csv.DictReader(io.StringIO(say("--trend", "--format", "csv")[1])))

    assert document["now"]["count"] == 12
    assert document["week_ago"] is None
    assert document["endpoints"][0]["trend"]["day_ago"]["count"] == 3
    assert [(row["method"], row["hour"], row["count"]) for row in rows[:4]] == [
        ("", "now", "12"),
        ("", "day_ago", "3"),
        ("", "week_ago", ""),
        ("GET", "now", "8"),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "the following arguments are required: METRIC, or --trend"),
        (("speed",), "The parameter metric is 'speed'; allowed: requests, errors"),
        (("latency", "--quantile", "7"), "The parameter quantile is '7'; allowed: a number from 0"),
        (("cpu", "--method", "GET"), "does not apply to the metric cpu; allowed: instance"),
        (("latency", "--trend"), "argument --trend: not allowed with METRIC"),
        (("--trend", "--step", "60"), "argument --trend: not allowed with --step"),
        (("cpu", "--format", "xml"), "argument --format: invalid choice: 'xml'"),
        (
            ("cpu", "--url", "mysql://user:hunter2@host/x"),
            "argument --url: it must be sqlite:///path, postgresql://user@host/database",
        ),
        (
            ("cpu", "--url", "postgresql://user:hunter2@host:x/x"),
            "argument --url: its port must be a whole number from 1 to 65535",
        ),
        (
            ("cpu", "--url", "sqlite://nowhere"),
            "argument --url: it must be sqlite:///relative/path or sqlite:////absolute/path",
        ),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(
    say: Say, file: Path, words: tuple[str, ...], sentence: str
) -> None:
    status, out, err = say(*words)

    assert (status, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert "hunter2" not in err
    assert "MONITOR_HISTORY_URL" not in err
    assert "secret" not in err
    assert not file.exists()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("off", "history is kept nowhere: MONITOR_HISTORY_URL is off"),
        ("memory:", "history is kept in memory only"),
        ("sqlite:////no/such/file.sqlite", "there is no such file as /no/such/file.sqlite"),
        ("sqlite:////", "/ is a folder"),
    ],
)
def test_where_nothing_can_be_read_it_is_one_sentence_and_status_1(
    say: Say, url: str, sentence: str
) -> None:
    status, out, err = say("cpu", "--url", url)

    assert (status, out) == (1, "")
    assert sentence in err
    assert "--url or MONITOR_HISTORY_URL names another place" in err
    assert err.count("\n") == 1


def test_nothing_is_written_where_there_is_no_history(say: Say, file: Path) -> None:
    assert say("requests")[0] == 1
    assert list(file.parent.iterdir()) == []


def test_another_programs_database_is_not_read(say: Say, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE users (id)")

    status, out, err = say("requests")
    assert (status, out) == (1, "")
    assert f"{file} is the database of another program; --url or" in err
    assert err.count("\n") == 1


def test_what_is_no_database_is_named(say: Say, file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)

    status, out, err = say("requests")
    assert (status, out) == (1, "")
    assert f"the history file {file} is damaged" in err


def test_a_question_that_is_made_of_too_much_is_one_sentence(
    say: Say, past: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MOST_VALUES", 1)

    status, out, err = say("requests", "--endpoint", "/items/{id}", "--from", "-30m")
    assert (status, out) == (1, "")
    assert "the question takes more than 1 stored values; allowed: a shorter range" in err
    assert "names another place" not in err


def test_it_reads_while_the_service_runs(say: Say, file: Path) -> None:
    async def app(scope, receive, send):
        raise AssertionError

    async def serve() -> tuple[int, str, str]:
        monitor = Monitor(
            app, settings=Settings(service="shop", history_url=f"sqlite:///{file}"), checks=[]
        )
        async with monitor:
            for _ in range(5):
                monitor.track_request("GET", "/a", 200, 0.1)
            recorder = monitor._parts.recorder
            await recorder.step()
            await recorder._close_minute(recorder.now)
            await recorder._flush(recorder.now)
            return await anyio.to_thread.run_sync(
                say, "requests", "--from", "-10m", "--format", "json"
            )

    status, out, _ = anyio.run(serve)
    assert status == 0
    assert sum(point or 0 for _, point in json.loads(out)["points"]) == 5


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_process_of_its_own_prints_in_any_encoding(file: Path, past: int, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holistic_asgi_monitor", "history", "requests", "--from", "-30m"],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "MONITOR_HISTORY_URL": f"sqlite:///{file}",
            "MONITOR_SERVICE": "shop",
            "PYTHONIOENCODING": encoding,
        },
        timeout=50,
    )

    assert done.stderr == b""
    bar = "#" if encoding == "ascii" else "█"
    assert (bar * 40).encode(encoding) in done.stdout
    assert b"?" not in done.stdout
