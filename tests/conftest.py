"""What every test stands on: both event loops, nothing blocks them, nothing is skipped."""

import asyncio
import contextlib
import functools
import gc
import importlib.util
import inspect
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import genai_prices.data  # noqa: F401 - an app reads it when it is built, and not while a loop runs
import pytest
import trustme
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

from tests.servers.alertmanager import movable
from tests.servers.faults import Proxy
from tests.servers.postgres import Postgres
from tests.servers.process import Server
from tests.servers.redis_server import Redis, valkey_program

FOREIGN_SETTINGS = frozenset(
    {
        "ALERTMANAGER_URL",
        "DATABASE_URL",
        "ENVIRONMENT",
        "FLY_APP_NAME",
        "K_SERVICE",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OTEL_SERVICE_NAME",
        "PROMETHEUS_MULTIPROC_DIR",
        "REDIS_URL",
        "RENDER_GIT_COMMIT",
        "RENDER_SERVICE_NAME",
        "SLACK_BOT_TOKEN",
        "SLACK_CHANNEL",
        "SLACK_WEBHOOK_URL",
    }
)

CONNECTING = "tests/history/test_history_postgres_faults.py::test_who_gives_up_while_it_connects"
ON_EVERY_PYTHON = (
    # What stands between the server and the app.
    *("tests/test_fastapi_run.py", "tests/test_monitor.py", "tests/web/test_access.py"),
    *("tests/web/test_endpoints.py", "tests/web/test_hidden_routes.py"),
    *("tests/web/test_leaving.py", "tests/web/test_lifespan", "tests/web/test_requests.py"),
    *("tests/web/test_routes_", "tests/web/test_websockets.py"),
    # Tasks, threads, processes, frames, and connections that are given up.
    *("tests/checks/test_function_check.py", "tests/checks/test_lag.py"),
    *("tests/checks/test_per_loop.py", "tests/checks/test_probe.py", "tests/checks/test_runner.py"),
    *(
        "tests/history/test_forked.py",
        "tests/history/test_pace.py",
        "tests/history/test_threads.py",
    ),
    *("tests/test_dependencies.py", "tests/test_failures.py", "tests/test_turns.py"),
    *("tests/test_watch.py", "tests/test_watchdog.py", "tests/usage/test_openai_requests.py"),
    CONNECTING,
    # What Python's own modules do: numbers, text, arguments, times, SQLite.
    *("tests/history/test_sqlite_file.py", "tests/history/test_wallclock.py"),
    *("tests/history/test_codec.py", "tests/history/test_opening.py", "tests/metrics/"),
    *("tests/history/test_recorder.py", "tests/history/test_stores.py", "tests/test_cli.py"),
    *("tests/test_exports.py", "tests/test_model.py", "tests/test_plain.py"),
    "tests/test_redaction.py",
)
"""What is found in the names of tests that run on each Python: what they show may differ there. The
others are about our own rules, and about servers and drivers; they run on one Python only."""

COSTLY = (
    *("postgres16", "[redis", "-redis-", "-redis]", "tests/web/test_routes_old_versions.py"),
    *("below_its_cap", "given_back_to_the_disk", "log_of_the_file_stays_short"),
    *("log_of_events_count_in_the_cap", "clock_that_is_far_ahead"),
)
"""What is found in the names of those that run on one Python only all the same."""

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", parent=settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Register our marker, and shut out what the caller's environment would change."""
    config.addinivalue_line("markers", "once: runs on one Python only: see ON_EVERY_PYTHON")
    for name in list(os.environ):
        if name.startswith("MONITOR_") or name.removesuffix("_FILE") in FOREIGN_SETTINGS:
            del os.environ[name]
    # Where no test says otherwise, history is kept in the state directory of the user.
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="state-")
    trust_nobody(Path(os.environ["XDG_STATE_HOME"], "authority.pem"))
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1,localhost"]))


def trust_nobody(file: Path) -> None:
    """Have all clients trust one authority of ours, which certifies nobody, in place of the many.

    No test goes beyond this machine, and to read the many takes longer than most tests do. What
    was trusted before is in HAM_SSL_CERT_FILE.
    """
    trustme.CA().cert_pem.write_to_path(str(file))
    os.environ.setdefault("HAM_SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE", ""))
    os.environ["SSL_CERT_FILE"] = str(file)


def pytest_unconfigure() -> None:
    """Remove what was kept in place of the user's state directory."""
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even read modules of which no test is wanted."""
    if config.option.markexpr != "not once" or collection_path.is_dir():
        return None
    module = collection_path.relative_to(config.rootpath).as_posix()
    # Of some only single tests are wanted.
    wanted = any(module in each or each in module for each in ON_EVERY_PYTHON)
    return None if wanted and module not in COSTLY else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on one Python only."""
    for item in items:
        if _is_once(item.nodeid):
            item.add_marker("once")


def _is_once(name: str) -> bool:
    anywhere = any(each in name for each in ON_EVERY_PYTHON)
    return not anywhere or any(each in name for each in COSTLY)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Have `gc.collect()`, which many tests call, pass over all modules and tests from here on."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let an async test that hangs fail by itself, before pytest-timeout strikes.

    The signal of pytest-timeout ends no task: the runner would wait for it for ever.
    """
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(item.config.getini("timeout") or 60)
        item.obj = _limited(item.obj, 0.8 * seconds)


def _limited(
    test: Callable[..., Awaitable[None]], seconds: float
) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(**arguments: Any) -> None:
        where = None
        with anyio.move_on_after(seconds) as limit:
            try:
                await test(**arguments)
            except anyio.get_cancelled_exc_class() as cancelled:
                where = cancelled
                raise
        if limit.cancelled_caught:
            message = f"The test took more than {seconds:g} seconds."
            raise TimeoutError(message) from where

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a skipped test as failed; an expected failure stays what it is."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, and a skip is a failure here: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Report a module that skips itself as failed."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"Skipped, and a skip is a failure here: {report.longrepr}"
    return report


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run every async test on both event loops."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def _own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the history of each test apart: a monitor goes on from what the last one told."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def blockbuster(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockBuster]:
    """Raise BlockingError where the package, or what it calls, blocks an event loop.

    A test that stalls the loop on purpose asks for this fixture and deactivates it.
    """
    package = importlib.util.find_spec("holistic_asgi_monitor")
    assert package is not None
    # blockbuster knows asyncio's loop only; this lets it see trio's as well.
    loops = SimpleNamespace(get_running_loop=_running_loop)
    monkeypatch.setattr("blockbuster.blockbuster.asyncio", loops)
    # Made but not executed: its folder is all that is wanted here.
    watch = BlockBuster(importlib.util.module_from_spec(package))
    watch.activate()
    yield watch
    watch.deactivate()


def _running_loop() -> object:
    """Return something if a task runs on this thread's event loop, else raise RuntimeError."""
    import trio

    if trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.get_running_loop()


@pytest.fixture(scope="session")
def old_fastapi() -> Path:
    """Return the folder of a FastAPI before 0.137, to be put first on PYTHONPATH."""
    return _prepared("HAM_OLD_FASTAPI")


@pytest.fixture(scope="session")
def old_starlette() -> Path:
    """Return the folder of a Starlette that names no route in the scope."""
    return _prepared("HAM_OLD_STARLETTE")


@pytest.fixture(scope="session", params=["1", "2"])
def old_openai(request: pytest.FixtureRequest) -> Path:
    """Return the folder of an `openai` on httpx, in its two older versions one after the other."""
    return _prepared(f"HAM_OLD_OPENAI_{request.param}")


@pytest.fixture(scope="session")
def _postgres18() -> Iterator[Postgres]:
    with Postgres(18) as server:
        yield server


@pytest.fixture(scope="session")
def _postgres16() -> Iterator[Postgres]:
    with Postgres(16) as server:
        yield server


@pytest.fixture(scope="session", params=["valkey", "redis"])
def _redis(request: pytest.FixtureRequest) -> Iterator[Redis]:
    valkey = request.param == "valkey"
    program = valkey_program() if valkey else _prepared("HAM_REDIS") / "usr/bin/redis-server"
    with Redis(program) as server:
        yield server


@pytest.fixture
def postgres(_postgres18: Postgres) -> Iterator[Postgres]:
    """Return a running PostgreSQL 18, which the test may freeze, kill or start otherwise.

    One serves the whole run, in good order again after each test; what a test writes it puts
    into a database of its own (`new_database`).
    """
    yield _postgres18
    _postgres18.heal()


@pytest.fixture
def postgres16(_postgres16: Postgres) -> Iterator[Postgres]:
    """Return a running PostgreSQL 16, as `postgres` does."""
    yield _postgres16
    _postgres16.heal()


@pytest.fixture
def redis(_redis: Redis) -> Iterator[Redis]:
    """Return a running, empty server, which the test may freeze, kill or start otherwise.

    The test runs twice: on Valkey 9, and on the Redis of the distribution. For one of them
    only: `@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)`.
    """
    yield _redis
    _redis.heal()


@pytest.fixture(scope="session")
def alertmanager_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Alertmanager of the distribution, for `tests.servers.alertmanager`."""
    return movable(_prepared("HAM_ALERTMANAGER"), tmp_path_factory.mktemp("alertmanager"))


@pytest.fixture
def proxy() -> Iterator[Callable[[Server], Proxy]]:
    """Return what puts a proxy in front of a server: `proxy(postgres).black_hole()`.

    Clients reach the server through it at `postgres.url(port=front.port)`.
    """
    with contextlib.ExitStack() as proxies:
        yield lambda server: proxies.enter_context(Proxy(server.port))


def _prepared(variable: str) -> Path:
    folder = os.environ.get(variable, "")
    if not folder or not Path(folder).is_dir():
        pytest.fail(
            f"{variable} names no folder: start the tests with `python3 tests/run.py`, "
            "which prepares it.",
            pytrace=False,
        )
    return Path(folder)
