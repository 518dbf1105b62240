"""One round of an app's checks, with the app started for it and nothing told to anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp, Message

from holistic_asgi_monitor.cli.importing import place_of
from holistic_asgi_monitor.model import MonitorError, Report
from holistic_asgi_monitor.monitor import Monitor
from holistic_asgi_monitor.usage.tracking import Current
from holistic_asgi_monitor.web.requests import MARK

__all__ = ("Probe", "is_monitored", "nothing_told")

GOODBYE_SECONDS = 2.0
_LONGEST_CHAIN = 50


@contextmanager
def nothing_told() -> Iterator[None]:
    """Let no monitor of this process watch: no alert is sent, no sample taken, nothing kept.

    An app may start its monitor by itself, `async with monitor`, in its startup.
    """
    company = Current.company
    company.resting = True
    try:
        yield
    finally:
        company.resting = False


class Probe:
    """Starts `app`, runs all checks once, and stops it; what came of it is left here.

    `report` is there as soon as the checks have answered; until then `waiting_for` is a clause
    about what holds it up, `failed` says how the app's startup has failed, and `refusal` is the
    sentence of a setting that is wrong. They may be read from any thread.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.report: Report | None = None
        self.failed = ""
        self.refusal = ""
        self.waiting_for = "the app was still in its startup"
        self._app = app
        # Before the app is started: a wrong setting is found without that.
        self._monitor = monitor_of(app) or (None if _will_have_one(app) else Monitor(app))

    async def run(self, seconds: float, ending: Callable[[], None]) -> None:
        """Do it in `seconds` at most, and say goodbye to the app for two more.

        `ending` is called before the goodbye.
        """
        life = _Life(self._app)
        async with anyio.create_task_group() as group:
            group.start_soon(life.run)
            with anyio.move_on_after(seconds):
                await life.decided.wait()
                await self._ask(life)
            ending()
            life.dismissed.set()
            # An app that has not started yet does not hear of an end.
            with anyio.move_on_after(GOODBYE_SECONDS if life.decided.is_set() else 0.0):
                await life.over.wait()
            group.cancel_scope.cancel()

    async def _ask(self, life: _Life) -> None:
        if life.failed:
            self.failed = f"failed in its startup{life.where}"
            return
        self.waiting_for = "the checks were still running"
        try:
            # Starlette builds its middleware with the first message that it is given.
            monitor = self._monitor or monitor_of(self._app) or Monitor(self._app)
        except MonitorError as error:
            self.refusal = str(error)
            return
        # The watch, which says this otherwise, is not begun.
        monitor._parts.warn_of_unknown_checks()  # noqa: SLF001 - the package's own command
        self.report = await monitor.report(fresh=True)


class _Life:
    """The lifespan conversation with an app, as a server leads it.

    An app that does not know lifespan is served without, as servers do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.decided, self.dismissed, self.over = anyio.Event(), anyio.Event(), anyio.Event()
        self.failed = False
        self.where = ""
        self._app = app
        self._kinds = iter(("lifespan.startup", "lifespan.shutdown"))

    async def run(self) -> None:
        """Lead it until the app returns."""
        version = {"version": "3.0", "spec_version": "2.0"}
        # The mark keeps a monitor on the way from starting its watch.
        scope = {"type": "lifespan", "asgi": version, "state": {}, MARK: True}
        try:
            await self._app(scope, self._receive, self._send)
        except (Exception, SystemExit) as error:
            # By the specification an app that raises here does without lifespan; one that fails
            # in its startup says so first.
            self.failed = self.failed or isinstance(error, SystemExit)
            self.where = f": {place_of(error)}"
        finally:
            self.decided.set()
            self.over.set()

    async def _receive(self) -> Message:
        kind = next(self._kinds, None)
        if kind is None:
            await anyio.sleep_forever()
        if kind == "lifespan.shutdown":
            await self.dismissed.wait()
        return {"type": kind}

    async def _send(self, message: Message) -> None:
        if message["type"] == "lifespan.startup.failed":
            self.failed = True
        self.decided.set()


def is_monitored(app: object) -> bool:
    """Whether `app` has a monitor already, or will have one."""
    return monitor_of(app) is not None or _will_have_one(app)


def monitor_of(app: object) -> Monitor | None:
    """The monitor that `app` is, stands behind or carries as middleware; None where none shows."""
    for layer in _layers(app):
        if isinstance(layer, Monitor):
            return layer
        for added in _added(layer):
            # What Monitor.attach adds is a method of its monitor.
            monitor = _attribute(added, "__self__")
            if isinstance(monitor, Monitor):
                return monitor
    return None


def _will_have_one(app: object) -> bool:
    """Whether Monitor itself was added as middleware, of which Starlette makes one later."""
    return any(added is Monitor for layer in _layers(app) for added in _added(layer))


def _layers(app: object) -> Iterator[object]:
    """`app` and what it wraps, from outside, as far as it shows."""
    layer = app
    for _ in range(_LONGEST_CHAIN):
        if layer is None:
            return
        yield layer
        inner = _attribute(layer, "middleware_stack")
        layer = _attribute(layer, "app") if inner is None else inner


def _added(layer: object) -> Iterable[Any]:
    """The middleware that was added to a Starlette app."""
    entries = _attribute(layer, "user_middleware")
    for entry in entries if isinstance(entries, list) else ():
        yield _attribute(entry, "cls")


def _attribute(thing: object, name: str) -> Any:
    try:
        return getattr(thing, name, None)
    except Exception:
        # It is the app's: a proxy that is not set up yet may raise anything.
        return None
