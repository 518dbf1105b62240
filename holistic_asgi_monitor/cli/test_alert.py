"""The command `test-alert`: one message through each notifier, and what became of it."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import anyio

from holistic_asgi_monitor.alerts.outbox import SEND_SECONDS, Outbox, hand_over
from holistic_asgi_monitor.cli import arguments as words
from holistic_asgi_monitor.cli.bounds import Bound
from holistic_asgi_monitor.cli.errors import CannotRunError, WrongArgumentError
from holistic_asgi_monitor.cli.importing import named_app
from holistic_asgi_monitor.cli.output import put
from holistic_asgi_monitor.cli.round import monitor_of
from holistic_asgi_monitor.model import Alert, AlertState, Notifier, Severity
from holistic_asgi_monitor.monitor import Monitor
from holistic_asgi_monitor.notifiers import DeliveryError, Log
from holistic_asgi_monitor.notifiers.environment import notifiers_from_environment
from holistic_asgi_monitor.settings import Settings

__all__ = ("EXITS", "add_to")

EXITS = (
    "exit status: 0 delivered by all, 1 one of them did not, 2 a wrong argument, 3 there is none"
    " but the log, or it could not run"
)
_VARIABLES = (
    "SLACK_WEBHOOK_URL, SLACK_BOT_TOKEN and SLACK_CHANNEL, ALERTMANAGER_URL or MONITOR_WEBHOOK_URL"
)
_GRACE_SECONDS = 1.0
_END_SECONDS = 3.0


def add_to(add_command: words.AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "test-alert",
        help="one message through each notifier",
        description="Send one message through each notifier that the environment names, or that an"
        " app has, and print what became of it.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    command.add_argument(
        "app",
        nargs="?",
        type=words.target,
        metavar="module:app",
        help="the app whose notifiers are meant, instead of those of the environment",
    )
    words.add_factory(command)
    command.set_defaults(run=_test_alert, failed=3, interrupted=3, bounded=True)


def _test_alert(arguments: argparse.Namespace) -> int:
    if arguments.factory and arguments.app is None:
        raise WrongArgumentError("argument --factory: only allowed with module:app")
    output = sys.stdout
    # Whatever the app prints is not our output, which may be read by a machine.
    with redirect_stdout(sys.stderr):
        notifiers, settings = _found(arguments)
        if all(isinstance(notifier, Log) for notifier in notifiers):
            raise CannotRunError(_nobody(arguments.app))
        trial = _Trial(notifiers, settings, output)
        with Bound(trial.longest + _END_SECONDS, trial.outcome):
            anyio.run(trial.run)
    return trial.outcome()


def _found(arguments: argparse.Namespace) -> tuple[Sequence[Notifier], Settings]:
    if arguments.app is None:
        settings = Settings.from_env()
        return notifiers_from_environment(settings), settings
    monitor = _monitor(named_app(arguments.app, factory=arguments.factory))
    return monitor._parts.notifiers, monitor.settings  # noqa: SLF001 - the house's own command


def _monitor(app: Any) -> Monitor:
    """The app's monitor; Starlette makes one that was added as middleware only when it serves."""
    found = monitor_of(app)
    if found is None and hasattr(app, "build_middleware_stack"):
        found = monitor_of(app.build_middleware_stack())
    return found or Monitor(app)


def _nobody(app: str | None) -> str:
    if app is None:
        return f"no notifier is set up, so alerts go to the log only: set {_VARIABLES}"
    return f"{app} has no notifier but the log: give Monitor notifiers, or set {_VARIABLES}"


class _Trial:
    """One message through each of `notifiers`, all at once; `output` takes a line for each."""

    def __init__(
        self, notifiers: Sequence[Notifier], settings: Settings, output: TextIO | None
    ) -> None:
        outbox = Outbox(notifiers, settings, outcome=lambda *_: None)
        self._notifiers = dict(zip(outbox.names, notifiers, strict=True))
        self._alert = outbox.addressed(_alert(settings.service))
        self._output = output
        self._delivered: dict[str, float] = {}
        self._failures: dict[str, str] = {}

    @property
    def longest(self) -> float:
        """The longest time that any of them may take, in seconds."""
        return max(map(_patience, self._notifiers.values()))

    async def run(self) -> None:
        """Send to all, and wait for each as long as the outbox would."""
        async with anyio.create_task_group() as group:
            for name, notifier in self._notifiers.items():
                group.start_soon(self._try, name, notifier)

    def outcome(self) -> int:
        """Print what became of each, and return the exit status."""
        # The status is what counts, whether or not there is somebody to read the rest.
        with suppress(CannotRunError):
            put("".join(map(self._line, self._notifiers)), self._output)
        return int(len(self._delivered) < len(self._notifiers))

    def _line(self, name: str) -> str:
        return f"{name}: {self._said(name)}\n"

    def _said(self, name: str) -> str:
        if name in self._delivered:
            return f"delivered in {self._delivered[name] * 1000:.0f} ms"
        return f"not delivered: {self._failures.get(name, 'it kept the process from going on')}"

    async def _try(self, name: str, notifier: Notifier) -> None:
        began, patience = time.perf_counter(), _patience(notifier)
        try:
            with anyio.move_on_after(patience):
                await hand_over(notifier, [self._alert])
                self._delivered[name] = time.perf_counter() - began
                return
            self._failures[name] = f"it took longer than {patience:g} s"
        except DeliveryError as error:
            self._failures[name] = str(error)
        except Exception as error:
            # Its text may hold a secret.
            self._failures[name] = f"it raised {type(error).__name__}"


def _alert(service: str) -> Alert:
    title = f"Test alert from {service}"
    return Alert(
        key=f"notice: {title}",
        severity=Severity.INFO,
        state=AlertState.NOTICE,
        title=title,
        summary="Nothing is wrong: somebody wanted to see that alerts arrive here.",
        started_at=datetime.now(UTC),
        reason="notice",
    )


def _patience(notifier: Notifier) -> float:
    own: object = getattr(notifier, "timeout", None)
    if isinstance(own, bool) or not isinstance(own, int | float) or not 0 < own < math.inf:
        return SEND_SECONDS
    return own + _GRACE_SECONDS
