"""The command `serve`: an app wrapped in Monitor, without touching its code."""

from __future__ import annotations

import argparse
import copy
import sys
from typing import Any

from holistic_asgi_monitor.cli.arguments import EXITS, AddCommand, add_factory, add_port, target
from holistic_asgi_monitor.cli.errors import CannotRunError
from holistic_asgi_monitor.cli.importing import named_app
from holistic_asgi_monitor.cli.listening import listening, url_of
from holistic_asgi_monitor.cli.round import is_monitored
from holistic_asgi_monitor.model import MissingExtraError
from holistic_asgi_monitor.monitor import Monitor

__all__ = ("add_to",)


def add_to(add_command: AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "serve",
        help="your app wrapped in Monitor, without touching its code",
        description="Serve an ASGI app with uvicorn, wrapped in Monitor, without touching its code;"
        " settings come from the environment.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    command.add_argument(
        "app",
        type=target,
        metavar="module:app",
        help="the module to import, from the current directory or installed, and the app in it",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    add_port(command)
    add_factory(command)
    command.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("The command `serve`", "serve") from None
    app = named_app(arguments.app, factory=arguments.factory)
    served = app if is_monitored(app) else Monitor(app)
    with listening(arguments.host, arguments.port) as listener:
        print(f"{arguments.app}, wrapped in Monitor, at {url_of(listener)}", file=sys.stderr)
        log = _with_our_lines(uvicorn.config.LOGGING_CONFIG)
        try:
            uvicorn.Server(uvicorn.Config(served, log_config=log)).run(sockets=[listener])
        except SystemExit:
            raise CannotRunError("the app failed in its startup; the log says where") from None
    return 0


def _with_our_lines(uvicorn_log: dict[str, Any]) -> dict[str, Any]:
    """The logging of uvicorn, and beside it Monitor's own lines: they say who may see what."""
    config = copy.deepcopy(uvicorn_log)
    ours = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config["loggers"]["holistic_asgi_monitor"] = ours
    return config
