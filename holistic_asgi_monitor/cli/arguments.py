"""What may stand on the command line, and the sentence about what may not."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

__all__ = (
    "EXITS",
    "PROGRAM",
    "AddCommand",
    "Parser",
    "add_factory",
    "add_port",
    "address",
    "limit",
    "seconds",
    "target",
)

PROGRAM = "holistic-asgi-monitor"
EXITS = "exit status: 0 it ended or was interrupted, 1 it could not run, 2 a wrong argument"
_LONGEST_SECONDS = 3600

AddCommand = Callable[..., argparse.ArgumentParser]


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong argument with one sentence instead of its usage."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and leave with status 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def add_port(command: argparse.ArgumentParser) -> None:
    """Give `command` the option `--port`."""
    command.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="the port to listen on, 0 for a free one (default: %(default)s)",
    )


def add_factory(command: argparse.ArgumentParser) -> None:
    """Give `command` the option `--factory`."""
    command.add_argument(
        "--factory",
        action="store_true",
        help="what is named is a function without arguments that returns the app",
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port, allowed are numbers from 0 to 65535")


def seconds(text: str) -> float:
    """A length of time, which may be as long as one likes."""
    length = _number(text)
    if 0 < length < math.inf:
        return length
    raise argparse.ArgumentTypeError(f"{text!r} is no length of time, allowed are numbers above 0")


def limit(text: str) -> float:
    """The longest time, in seconds, that something may take."""
    length = _number(text)
    if 0 < length <= _LONGEST_SECONDS:
        return length
    raise argparse.ArgumentTypeError(
        f"{text!r} is no limit, allowed are seconds above 0 and at most {_LONGEST_SECONDS}"
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def target(text: str) -> str:
    """The name of an app, as in `main:app`."""
    module, _, path = text.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        return text
    # Whoever forgets an option for an address may have written a password here.
    shown = re.sub(r"//\S*@", "//...@", text)
    raise argparse.ArgumentTypeError(f"{shown!r} names no app, write it as in main:app")


def address(text: str) -> SplitResult:
    """The parts of an http or https address; the sentence of a refusal does not repeat it.

    It may hold a password.
    """
    if text.isprintable() and not any(map(str.isspace, text)):
        try:
            parts = urlsplit(text)
            if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
                return parts
        except ValueError:
            pass
    raise argparse.ArgumentTypeError(
        "what is given is no address, write it as in http://127.0.0.1:8000/api/health"
    )
