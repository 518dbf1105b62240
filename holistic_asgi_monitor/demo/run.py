"""The run itself: the shop, its payments service, its customers and its monitor, in one process."""

from __future__ import annotations

import importlib
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from holistic_asgi_monitor import notifiers
from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.demo.announcer import Announcer
from holistic_asgi_monitor.demo.load import customers
from holistic_asgi_monitor.demo.payments import PaymentsDownError, PaymentsService, Till
from holistic_asgi_monitor.demo.progress import Gauge
from holistic_asgi_monitor.demo.screen import Colour, Screen, warnings_on
from holistic_asgi_monitor.demo.script import Script
from holistic_asgi_monitor.demo.serving import serving
from holistic_asgi_monitor.demo.shop import shop
from holistic_asgi_monitor.model import CheckResult, MissingExtraError, Notifier, Status
from holistic_asgi_monitor.monitor import Monitor
from holistic_asgi_monitor.settings import Settings

if TYPE_CHECKING:
    import httpx2

__all__ = ("run_demo",)

_NEEDED = ("uvicorn", "httpx2", "websockets.asyncio.client")
_PAGES = {
    "shop": "/",
    "health": "/api/health",
    "metrics": "/metrics",
    "stats": "/api/monitoring/stats",
}


def run_demo(
    listener: socket.socket, *, seconds: float | None, screen: Screen, environ: Mapping[str, str]
) -> None:
    """Run the demo on `listener`, a listening socket, for `seconds` (None: until interrupted).

    `environ` may name a Slack webhook (`SLACK_WEBHOOK_URL`), which then gets the alerts too;
    nothing else of it is used. MissingExtraError where the extra `demo` is not installed.
    """
    for package in _NEEDED:
        _require(package)
    announcer = Announcer(screen)
    slack_url = environ.get("SLACK_WEBHOOK_URL")
    slack = [notifiers.Slack(slack_url)] if slack_url else []
    with warnings_on(screen):
        anyio.run(_run, listener, seconds, screen, announcer, slack)


def _require(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError:
        raise MissingExtraError("The demo", "demo") from None


async def _run(
    listener: socket.socket,
    seconds: float | None,
    screen: Screen,
    announcer: Announcer,
    more: Sequence[Notifier],
) -> None:
    script = Script.lasting(seconds)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with _payments() as (service, till):
        monitor = _watched(till, script, [announcer, *more])
        async with serving(monitor, listener), _client(base_url) as http:
            _greet(screen, base_url, script)
            gauge = Gauge(monitor, http, screen)
            await _Play(http, gauge, service, script, screen).go_on_for(seconds)
            await gauge.read()
    _sum_up(screen, gauge.requests, announcer)


@asynccontextmanager
async def _payments() -> AsyncIterator[tuple[PaymentsService, Till]]:
    service = PaymentsService()
    async with anyio.create_task_group() as tasks:
        yield service, Till(await tasks.start(service.serve))
        tasks.cancel_scope.cancel()


def _client(base_url: str) -> httpx2.AsyncClient:
    """A client of the shop: no proxy of the environment, no authorities to load for plain HTTP."""
    import httpx2

    no_authorities = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.AsyncClient(base_url=base_url, timeout=10, trust_env=False, verify=no_authorities)


def _watched(till: Till, script: Script, channels: Sequence[Notifier]) -> Monitor:
    """The shop with the one line, and a check of its payments."""
    monitor = Monitor(shop(till), settings=_settings(script), notifiers=channels)

    @monitor.check("payments", timeout=1.5)
    async def payments() -> CheckResult:
        try:
            await till.ping()
        except PaymentsDownError:
            return CheckResult(Status.DEGRADED, "Payments do not answer, so checkouts fail")
        return CheckResult(Status.HEALTHY, "Payments answer")

    return monitor


def _settings(script: Script) -> Settings:
    return Settings(
        service="demo-shop",
        environment="development",
        check_interval_seconds=script.interval,
        recheck_seconds=script.interval / 2,
        startup_grace_seconds=script.interval,
        # Each demo begins anew: alerts of the last one are not to be ended in this one.
        history_url="memory:",
    )


@dataclass(frozen=True, slots=True)
class _Play:
    """Everybody who acts while the demo runs."""

    http: httpx2.AsyncClient
    gauge: Gauge
    service: PaymentsService
    script: Script
    screen: Screen

    async def go_on_for(self, seconds: float | None) -> None:
        """Act until the time is over, a signal comes, or nobody looks any more."""
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as stage:
                stage.start_soon(_stop_on_signal, stage.cancel_scope)
                stage.start_soon(self._break_and_mend)
                stage.start_soon(customers, self.http)
                await self.gauge.show(every=self.script.lines)
                stage.cancel_scope.cancel()
        self.screen.end_progress()

    async def _break_and_mend(self) -> None:
        await anyio.sleep(self.script.fails_at)
        self.service.answering = False
        self.screen.say("The payments service fails now, as planned.", Colour.DIM)
        await anyio.sleep(self.script.returns_at - self.script.fails_at)
        self.service.answering = True
        self.screen.say("The payments service is back.", Colour.DIM)


async def _stop_on_signal(stop: anyio.CancelScope) -> None:
    if sys.platform == "win32":
        return
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            stop.cancel()


def _greet(screen: Screen, base_url: str, script: Script) -> None:
    title = screen.paint(f"holistic-asgi-monitor {__version__}", Colour.BOLD)
    one_line = screen.paint("app = Monitor(app)", Colour.CYAN)
    screen.write(f"{title}: a small shop under real traffic, watched by one line, {one_line}\n")
    for name, path in _PAGES.items():
        screen.write(f"  {name:<8} {screen.paint(base_url + path, Colour.CYAN)}")
    screen.write(
        f"\nAfter {script.fails_at:.0f} s the shop's payments service fails,"
        f" after {script.returns_at:.0f} s it is back.\n"
        "Look out for the alert and the all-clear. Ctrl-C ends the demo.\n"
    )
    screen.start_clock()


def _sum_up(screen: Screen, requests: int, announcer: Announcer) -> None:
    screen.say(
        f"The end: {_counted(requests, 'request')},"
        f" {_counted(announcer.alerts, 'alert')} delivered,"
        f" {_counted(announcer.all_clears, 'all-clear')}.",
        Colour.BOLD,
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
