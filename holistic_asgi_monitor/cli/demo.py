"""The command `demo`: a sample app under real traffic."""

from __future__ import annotations

import argparse
import os
import sys

from holistic_asgi_monitor.cli.arguments import EXITS, AddCommand, add_port, seconds
from holistic_asgi_monitor.cli.listening import listening
from holistic_asgi_monitor.demo.run import run_demo
from holistic_asgi_monitor.demo.screen import Screen

__all__ = ("add_to",)


def add_to(add_command: AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "demo",
        help="a sample app under real traffic, with a dependency that fails and comes back",
        description="Run a small shop under real traffic, watched by Monitor, with a payments"
        " service that fails and comes back; print its addresses, how it goes, and every alert.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    add_port(command)
    command.add_argument(
        "--seconds",
        type=seconds,
        metavar="N",
        help="end after N seconds (default: when interrupted)",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    with listening("127.0.0.1", arguments.port) as listener:
        screen = Screen.on(sys.stdout, os.environ)
        run_demo(listener, seconds=arguments.seconds, screen=screen, environ=os.environ)
    return 0
