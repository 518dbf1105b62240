"""The command `check`: one round for probes, of an app or of a health address."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import TextIO

import anyio

from holistic_asgi_monitor.cli import arguments as words
from holistic_asgi_monitor.cli.asking import ask
from holistic_asgi_monitor.cli.bounds import Bound
from holistic_asgi_monitor.cli.errors import CannotRunError, WrongArgumentError
from holistic_asgi_monitor.cli.importing import named_app
from holistic_asgi_monitor.cli.output import put
from holistic_asgi_monitor.cli.round import GOODBYE_SECONDS, Probe, nothing_told
from holistic_asgi_monitor.cli.verdict import Verdict
from holistic_asgi_monitor.settings import Settings

__all__ = ("EXITS", "add_to")

EXITS = (
    "exit status: 0 healthy or degraded, 1 unhealthy, critical or without an answer (with --strict"
    " degraded too), 2 a wrong argument, 3 it could not run or was interrupted"
)
_DEFAULT_PATH = "/api/health"
_END_SECONDS = GOODBYE_SECONDS + 1.0


def add_to(add_command: words.AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "check",
        help="one round of checks for probes: the exit status says how it is",
        description="Start an ASGI app, run its checks once and stop it, or ask a health address;"
        " print what was found. Nothing is sent to anybody, and nothing is kept.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "app",
        nargs="?",
        type=words.target,
        metavar="module:app",
        help="the module to import, from the current directory or installed, and the app in it",
    )
    what.add_argument(
        "--url",
        type=words.address,
        metavar="URL",
        help=f"the health address to ask; without a path {_DEFAULT_PATH} is asked",
    )
    _add_options(command)
    command.set_defaults(run=_check, failed=3, interrupted=3, bounded=True)


def _add_options(command: argparse.ArgumentParser) -> None:
    words.add_factory(command)
    command.add_argument("--strict", action="store_true", help="degraded is status 1 too")
    command.add_argument(
        "--timeout",
        type=words.limit,
        default=10.0,
        metavar="SECONDS",
        help="the longest time that all of it may take (default: %(default)g)",
    )


def _check(arguments: argparse.Namespace) -> int:
    if arguments.url is None:
        return _check_app(arguments)
    if arguments.factory:
        raise WrongArgumentError("argument --factory: not allowed with argument --url")
    address = arguments.url
    if not address.path:
        address = address._replace(path=_DEFAULT_PATH)
    verdict = ask(address, Settings.from_env().token, seconds=arguments.timeout)
    return _told(verdict, sys.stdout, strict=arguments.strict)


def _check_app(arguments: argparse.Namespace) -> int:
    round_ = _Round(arguments, sys.stdout)
    bound = Bound(arguments.timeout + _END_SECONDS, round_.last_words)
    # Whatever the app prints is not our output, which may be read by a machine.
    with redirect_stdout(sys.stderr), nothing_told(), bound:
        round_.run(lambda: bound.shorten(_END_SECONDS))
    return round_.outcome()


class _Round:
    """One round of the app that `arguments` name; `output` takes what was found."""

    def __init__(self, arguments: argparse.Namespace, output: TextIO | None) -> None:
        self._arguments = arguments
        self._output = output
        self._probe: Probe | None = None
        self._broken = ""

    def run(self, ending: Callable[[], None]) -> None:
        """Import the app and look at it, calling `ending` when there is nothing more to see.

        CannotRunError where there is no such app.
        """
        began = time.monotonic()
        app = named_app(self._arguments.app, factory=self._arguments.factory)
        self._probe = Probe(app)
        left = self._arguments.timeout - (time.monotonic() - began)
        try:
            anyio.run(partial(self._probe.run, max(0.0, left), ending))
        except (Exception, BaseExceptionGroup) as error:
            # The app may throw anything into its event loop, and the report may be there before.
            self._broken = type(error).__name__

    def outcome(self) -> int:
        """Print what was found and return the exit status; CannotRunError without a report."""
        if self._probe is None or self._probe.report is None:
            raise CannotRunError(self._obstacle())
        verdict = Verdict.of(self._probe.report)
        return _told(verdict, self._output, strict=self._arguments.strict)

    def last_words(self) -> int:
        """The same for a process that ends now."""
        try:
            return self.outcome()
        except CannotRunError as error:
            print(f"{words.PROGRAM} check: {error}", file=sys.stderr)
            return 3

    def _obstacle(self) -> str:
        name, limit = self._arguments.app, f"within {self._arguments.timeout:g} s"
        if self._probe is None:
            return f"{name} could not be imported {limit}"
        if self._probe.failed:
            return f"{name} {self._probe.failed}"
        if self._probe.refusal:
            return self._probe.refusal
        if self._broken:
            return f"{name} broke off the event loop: {self._broken}"
        return f"{name} gave no verdict {limit}: {self._probe.waiting_for}; see --timeout"


def _told(verdict: Verdict, output: TextIO | None, *, strict: bool) -> int:
    """Print the verdict, and return the exit status."""
    # The status is what a probe asks for, whether or not there is somebody to read the rest.
    with suppress(CannotRunError):
        put("".join(f"{line}\n" for line in verdict.lines()), output)
    return verdict.exit_status(strict=strict)
