"""The command `maintenance`: begins or ends a window of a running app, by its address."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult

from holistic_asgi_monitor.alerts.maintenance import DEFAULT_MINUTES, DEFAULT_REASON
from holistic_asgi_monitor.alerts.quiet import MOST_MINUTES
from holistic_asgi_monitor.cli import arguments as words
from holistic_asgi_monitor.cli.asking import post, shown
from holistic_asgi_monitor.cli.errors import CannotRunError, WrongArgumentError
from holistic_asgi_monitor.cli.output import put
from holistic_asgi_monitor.settings import Settings

__all__ = ("add_to",)

_SENTENCE_CHARACTERS = 300


def add_to(add_command: words.AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "maintenance",
        help="begin or end a maintenance window",
        description="Begin or end a window of maintenance of a running app, in which its alerts are"
        " held back.",
        epilog=words.EXITS,
        allow_abbrev=False,
    )
    command.add_argument("order", choices=("begin", "end"), metavar="ORDER", help="begin or end")
    command.add_argument(
        "--url",
        type=words.address,
        required=True,
        metavar="URL",
        help="the address of the app, as in https://shop.example/",
    )
    command.add_argument(
        "--minutes",
        type=_minutes,
        metavar="N",
        help=f"the window ends by itself after N minutes (default: {DEFAULT_MINUTES:g})",
    )
    command.add_argument(
        "--reason",
        metavar="TEXT",
        help=f"why (default: {DEFAULT_REASON}); with end, only windows with this reason end",
    )
    _add_timeout(command)
    command.set_defaults(run=_maintenance)


def _add_timeout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--timeout",
        type=words.limit,
        default=10.0,
        metavar="SECONDS",
        help="the longest time that it may take (default: %(default)g)",
    )


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if 0 < minutes <= MOST_MINUTES:
        return minutes
    raise argparse.ArgumentTypeError(
        f"{text!r} is no number of minutes, allowed are those above 0 and at most {MOST_MINUTES}"
    )


def _maintenance(arguments: argparse.Namespace) -> int:
    order = _order(arguments)
    settings = Settings.from_env()
    if not settings.prefix:
        raise CannotRunError("MONITOR_PREFIX is empty, so there is no address for maintenance")
    address = _address(arguments.url, settings.prefix)
    body = json.dumps(order).encode()
    status, answer = post(address, settings.token, body, seconds=arguments.timeout)
    if status != 200:
        raise CannotRunError(f"{shown(address)} answered {status}{_error(answer)}")
    _print(_said(answer, address))
    return 0


def _order(arguments: argparse.Namespace) -> dict[str, Any]:
    given = {"reason": arguments.reason, "minutes": arguments.minutes}
    if arguments.reason is not None and not arguments.reason.strip():
        raise WrongArgumentError("argument --reason: it is empty")
    if arguments.order == "end":
        if arguments.minutes is not None:
            raise WrongArgumentError("argument --minutes: not allowed with end")
        given["end"] = True
    return {name: value for name, value in given.items() if value is not None}


def _address(url: SplitResult, prefix: str) -> SplitResult:
    """Where the order goes; the URL may be that of an app below a path, or name our own."""
    own = f"{prefix}/maintenance"
    path = url.path.rstrip("/")
    return url._replace(path=path if path.endswith(own) else f"{path}{own}", query="", fragment="")


def _said(answer: bytes, address: SplitResult) -> str:
    match _json(answer):
        case {"maintenance": None}:
            return "no maintenance"
        case {"maintenance": {"reason": str(reason), "until": str(until)}}:
            return f"maintenance until {until}: {reason}"
    raise CannotRunError(f"{shown(address)} answered something else than a monitor does")


def _error(answer: bytes) -> str:
    """The sentence of the answer, to go on with; empty without one."""
    match _json(answer):
        case {"error": str(sentence)}:
            return f": {sentence[:_SENTENCE_CHARACTERS]}".rstrip(".")
    return ""


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (RecursionError, ValueError):
        return None


def _print(line: str) -> None:
    printable = "".join(letter for letter in line if letter.isprintable())
    # The order has been carried out, whether or not there is somebody to read it.
    with suppress(CannotRunError):
        put(f"{printable}\n", sys.stdout)
