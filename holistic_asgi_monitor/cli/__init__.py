"""The command line: `holistic-asgi-monitor` and its commands, a module for each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.cli import check, demo, history, maintenance, serve, test_alert
from holistic_asgi_monitor.cli.arguments import EXITS, PROGRAM, Parser
from holistic_asgi_monitor.cli.bounds import end_soon
from holistic_asgi_monitor.cli.errors import CannotRunError, WrongArgumentError
from holistic_asgi_monitor.model import MonitorError

__all__ = ("build_parser", "main")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (None: the process's own) and return its exit status."""
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 0
    if arguments.run is None:
        parser.print_help(sys.stderr)
        return 2
    status = _run(arguments)
    if argv is None and arguments.bounded:
        end_soon(status)
    return status


def _run(arguments: argparse.Namespace) -> int:
    try:
        status: int = arguments.run(arguments)
    except WrongArgumentError as error:
        _say(arguments, f"{error} (see {PROGRAM} {arguments.command} --help)")
        return 2
    except (CannotRunError, MonitorError) as error:
        _say(arguments, str(error))
        return int(arguments.failed)
    except KeyboardInterrupt:
        return int(arguments.interrupted)
    return status


def _say(arguments: argparse.Namespace, sentence: str) -> None:
    print(f"{PROGRAM} {arguments.command}: {sentence}", file=sys.stderr)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands.

    Each leaves the function that runs it in `run`, its exit status where it could not run in
    `failed`, that after Ctrl-C in `interrupted`, and in `bounded` whether its end may not wait
    for threads that the app has left behind.
    """
    parser = Parser(
        prog=PROGRAM,
        description="Complete monitoring for any ASGI app in one line.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"{PROGRAM} {__version__}", help="print the version"
    )
    parser.set_defaults(run=None, failed=1, interrupted=0, bounded=False)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for command in (demo, serve, check, test_alert, history, maintenance):
        command.add_to(commands.add_parser)
    return parser
