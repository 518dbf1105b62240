"""Whole test suites of other projects pass with a Monitor around every app of theirs.

A test that fails wrapped is run again without a monitor; what passes then is ours. Each of the
three suites takes less than half a minute in the part that is chosen here. To run the whole of them
in each manner (see wrapping.py):

    HAM_SUITES=.cache/suites HAM_SUITES_WHOLE=1 .cache/test-3.11/bin/python -m pytest tests/suites
"""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import pytest

pytestmark = pytest.mark.once

WHOLE = bool(os.environ.get("HAM_SUITES_WHOLE"))
SECONDS = 600 if WHOLE else 300


@dataclass(frozen=True, slots=True)
class Suite:
    """A project, what of its tests is left out, and what was seen when they ran.

    Where the whole is wanted it runs in each of the `manners`, else these `parts` of it do in the
    first of them; `least` is how many tests pass then, and how many requests and WebSockets are
    counted. `meant` are the tests that a monitor is meant to fail.
    """

    name: str
    manners: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    parts: tuple[str, ...] = ("tests",)
    least: tuple[int, int, int] = (0, 0, 0)
    meant: frozenset[str] = frozenset()

    def options(self) -> tuple[str, ...]:
        """What pytest is to run."""
        return (*self.left_out, *(("tests",) if WHOLE else self.parts))


STARLETTE = Suite(
    "starlette",
    manners=("outside", "attach", "middleware", "disabled"),
    least=(1400, 1300, 120),
    meant=frozenset(
        {
            # It has a /metrics of its own: at our paths, ours answers.
            "tests/middleware/test_opentelemetry.py::test_excluded_urls",
            # It raises on lifespan: there the monitor completes the protocol itself.
            "tests/test_testclient.py::test_exception_in_middleware",
        }
    ),
)
FASTAPI = Suite(
    "fastapi",
    manners=("middleware", "attach", "outside", "disabled"),
    left_out=(
        # They need email-validator, logfire, pwdlib, pydantic-settings, pytest-codspeed,
        # sentry-sdk, sqlmodel or strawberry-graphql.
        "--ignore=tests/benchmarks",
        "--ignore=tests/memory_benchmarks",
        "--ignore=tests/test_telemetry",
        "--ignore=tests/test_tutorial/test_conditional_openapi",
        "--ignore=tests/test_tutorial/test_extra_models/test_tutorial001_tutorial002.py",
        "--ignore=tests/test_tutorial/test_graphql",
        "--ignore=tests/test_tutorial/test_response_model/test_tutorial002.py",
        "--ignore=tests/test_tutorial/test_response_model/test_tutorial003.py",
        "--ignore=tests/test_tutorial/test_response_model/test_tutorial003_01.py",
        "--ignore=tests/test_tutorial/test_security/test_tutorial004.py",
        "--ignore=tests/test_tutorial/test_security/test_tutorial005.py",
        "--ignore=tests/test_tutorial/test_settings",
        "--ignore=tests/test_tutorial/test_sql_databases",
    ),
    parts=(
        # Apps in apps, middleware, errors, streams: of the others there are many of a kind.
        *("tests/test_router_events.py", "tests/test_sse.py", "tests/test_ws_router.py"),
        *(
            f"tests/test_tutorial/test_{subject}"
            for subject in (
                *("additional_responses", "advanced_middleware", "async_tests"),
                *("background_tasks", "behind_a_proxy", "bigger_applications", "cors"),
                *("custom_request_and_route", "custom_response", "dependencies", "events"),
                *("handling_errors", "middleware", "openapi_callbacks", "response_directly"),
                *("server_sent_events", "static_files", "stream_data", "stream_json_lines"),
                *("sub_applications", "templates", "testing", "websockets", "wsgi"),
            )
        ),
    ),
    least=(390, 420, 20),
)
FALCON = Suite(
    "falcon",
    manners=("outside", "disabled"),
    left_out=(
        "--ignore=tests/asgi/test_asgi_servers.py",  # its servers are other processes
        # They wait for 19 seconds together.
        "--deselect=tests/asgi/test_sync.py::test_sync_helpers",
        "--deselect=tests/asgi/test_ws.py::test_echo",
        "--deselect=tests/asgi/test_ws.py::test_ws_enter_context_timeout",
    ),
    parts=("tests/asgi",),
    least=(540, 90, 200),
)

CASES = [
    (suite, manner)
    for suite in (STARLETTE, FASTAPI, FALCON)
    for manner in (suite.manners if WHOLE else suite.manners[:1])
]


@dataclass(frozen=True, slots=True)
class Run:
    """What came out of one run of pytest; tests go by what its command line calls them."""

    verdicts: dict[str, set[str]]
    properties: dict[str, int]

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read a JUnit file; what could not even be collected has no name of its own."""
        tree = ET.parse(file)
        verdicts: dict[str, set[str]] = {}
        for case in tree.iter("testcase"):
            name = case.find("properties/property[@name='nodeid']")
            test = case.get("name", "") if name is None else name.get("value", "")
            verdicts.setdefault(test, set()).update(child.tag for child in case)
        found = tree.iterfind("testsuite/properties/property")
        return cls(verdicts, {each.get("name", ""): int(each.get("value", "")) for each in found})

    @property
    def failed(self) -> set[str]:
        """The tests that failed."""
        return {test for test, tags in self.verdicts.items() if tags & {"failure", "error"}}

    @property
    def passed(self) -> set[str]:
        """The tests that passed."""
        return {
            test
            for test, tags in self.verdicts.items()
            if not tags & {"failure", "error", "skipped"}
        }


def run(suite: Suite, manner: str, folder: Path, file: Path, *options: str) -> Run:
    """Run tests of a suite in its folder, with its settings and warning filters."""
    ways = [
        Path(__file__).parent,
        folder / "tools",
        *os.environ.get("PYTHONPATH", "").split(os.pathsep),
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "wrapping"]
    command += ["--manner", manner, f"--junit-xml={file}", *options]
    done = subprocess.run(
        command,
        cwd=folder / suite.name,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, map(str, ways)))},
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
    )
    # 0 is that all passed, 1 that some failed; else there are no results.
    assert done.returncode in {0, 1}, done.stdout[-3000:] + done.stderr[-3000:]
    return Run.read(file)


def both(suite: Suite, manner: str, folder: Path, place: Path) -> tuple[Run, Run]:
    """Run a suite wrapped, and then bare what failed."""
    wrapped = run(suite, manner, folder, place / "wrapped.xml", *suite.options())
    if not wrapped.failed:
        return wrapped, Run({}, {})
    return wrapped, run(suite, "bare", folder, place / "bare.xml", *sorted(wrapped.failed))


@pytest.mark.timeout(3 * SECONDS)
@pytest.mark.parametrize(("suite", "manner"), CASES, ids=lambda each: getattr(each, "name", each))
def test_what_passes_bare_passes_wrapped(
    suite: Suite, manner: str, suites: Path, tmp_path: Path
) -> None:
    """Of a foreign suite only those tests fail with a monitor that are meant to."""
    wrapped, bare = both(suite, manner, suites, tmp_path)
    ours = wrapped.failed & bare.passed
    disabled = manner == "disabled"
    meant = frozenset() if disabled else suite.meant
    assert {test.partition("[")[0] for test in ours} == meant, sorted(ours)

    passed, requests, websockets = suite.least
    assert len(wrapped.passed) >= passed
    assert wrapped.properties["monitors"] > 100
    assert wrapped.properties["faults"] == 0
    assert disabled or wrapped.properties["requests"] >= requests
    assert disabled or wrapped.properties["websockets"] >= websockets


@pytest.mark.parametrize("name", ["falcon", "fastapi", "starlette"])
def test_the_suites_are_those_of_the_installed_versions(name: str, suites: Path) -> None:
    """Nothing else than the installed package is tested."""
    described = (suites / name / "PKG-INFO").read_text(encoding="utf-8")
    assert f"\nVersion: {version(name)}\n" in described
    assert not (suites / name / name).exists()
