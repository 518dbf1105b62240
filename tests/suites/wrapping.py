"""A pytest plugin that puts a Monitor before every app that a foreign test suite calls.

For `python -m pytest -p wrapping --manner outside` in the folder of that suite, with this folder on
PYTHONPATH. How many monitors there were and what they counted goes to the JUnit file as properties:
a run in which nothing was wrapped proves nothing.
"""

import functools
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.usage.tracking import Current

MANNERS = ("bare", "outside", "attach", "middleware", "disabled")
"""How an app gets its monitor; one that cannot have middleware gets it from outside."""

CALLERS = (
    "starlette.testclient.TestClient.__init__",
    "httpx.ASGITransport.__init__",
    "httpx2.ASGITransport.__init__",
    "falcon.testing.client.ASGIConductor.__init__",
    "falcon.testing.client._simulate_request_asgi",
    "asgiref.testing.ApplicationCommunicator.__init__",
)
"""What is given an app, as `app` or in the first place after `self`, to call it."""


class Wrapping:
    """Puts monitors before apps in one manner, and keeps them."""

    def __init__(self, manner: str) -> None:
        self.manner = manner
        self.monitors: list[Monitor] = []
        self.joined: list[Starlette] = []

    def install(self) -> None:
        """Have whatever calls an app call its monitor instead."""
        if self.manner == "bare":
            return
        _replace("holistic_asgi_monitor.Monitor.__init__", self._noting)
        for caller in CALLERS:
            _replace(caller, self._wrapping)

    def counted(self) -> dict[str, float]:
        """What all monitors have counted, over all labels."""
        sums: defaultdict[str, float] = defaultdict(float)
        for monitor in self.monitors:
            for family in monitor.registry.collect():
                for sample in family.samples:
                    sums[sample.name.removeprefix("holisticos_")] += sample.value
        return sums

    def _noting(self, init: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(init)
        def make(monitor: Monitor, *args: Any, **kwargs: Any) -> None:
            init(monitor, *args, **kwargs)
            self.monitors.append(monitor)

        return make

    def _wrapping(self, function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)
        first = next(name for name in signature.parameters if name != "self")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.arguments[first] = self._wrapped(given.arguments[first])
            return function(*given.args, **given.kwargs)

        return call

    def _wrapped(self, app: Any) -> Any:
        if isinstance(app, Monitor) or not _is_asgi3(app):
            return app
        if self.manner in {"outside", "disabled"} or not isinstance(app, Starlette):
            return self._outside(app)
        if not any(joined is app for joined in self.joined):
            if app.middleware_stack is not None:  # too late to become a part of it
                return self._outside(app)
            self._join(app)
        return app

    def _outside(self, app: Any) -> Monitor:
        monitor = Monitor(app, settings=Settings(enabled=self.manner != "disabled"))
        if self.manner == "outside":
            # As in a process that has had one monitor for long: the other manners go the way of
            # several.
            company = Current.company
            company.several, company.early, company.noting = False, 0, company.asked
        return monitor

    def _join(self, app: Starlette) -> None:
        self.joined.append(app)
        if self.manner == "attach":
            Monitor.attach(app, settings=Settings())
        else:
            app.add_middleware(Monitor, settings=Settings())


def _replace(path: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    owner, _, name = path.rpartition(".")
    place = pkgutil.resolve_name(owner)
    setattr(place, name, change(getattr(place, name)))


def _is_asgi3(app: Any) -> bool:
    if inspect.isclass(app):
        return False
    return inspect.iscoroutinefunction(getattr(app, "func", app)) or inspect.iscoroutinefunction(
        getattr(app, "__call__", None)  # noqa: B004 - it is the method that is asked about
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that says how to wrap."""
    parser.addoption("--manner", choices=MANNERS, default="outside")


def pytest_configure(config: pytest.Config) -> None:
    """Wrap from here on: test modules make their clients while they are collected."""
    config.stash[WRAPPING] = Wrapping(config.getoption("--manner"))
    config.stash[WRAPPING].install()


WRAPPING = pytest.StashKey[Wrapping]()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the JUnit file name each test as pytest's command line does."""
    item.user_properties.append(("nodeid", item.nodeid))


@pytest.fixture(scope="session", autouse=True)
def wrapping_results(
    pytestconfig: pytest.Config, record_testsuite_property: Callable[[str, object], None]
) -> Iterator[None]:
    """Tell the JUnit file how many monitors there were, and what they counted."""
    yield
    wrapping = pytestconfig.stash[WRAPPING]
    record_testsuite_property("monitors", len(wrapping.monitors))
    counted = wrapping.counted()
    record_testsuite_property("requests", int(counted["requests_total"]))
    record_testsuite_property("websockets", int(counted["websocket_connections_total"]))
    record_testsuite_property("faults", int(counted["monitor_faults_total"]))
