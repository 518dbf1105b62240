"""The command line: `holistic-asgi-monitor demo` and `holistic-asgi-monitor serve module:app`."""

from __future__ import annotations

import argparse
import copy
import errno
import functools
import importlib
import inspect
import math
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.demo.run import run_demo
from holistic_asgi_monitor.demo.screen import Screen
from holistic_asgi_monitor.model import MissingExtraError, MonitorError
from holistic_asgi_monitor.monitor import Monitor

__all__ = ("build_parser", "main")

_PROGRAM = "holistic-asgi-monitor"
_EXITS = "exit status: 0 it ended or was interrupted, 1 it could not run, 2 a wrong argument"


class _CannotRunError(Exception):
    """The command cannot run; the sentence says why and what to do."""


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
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    try:
        arguments.run(arguments)
    except (_CannotRunError, MonitorError) as error:
        print(f"{_PROGRAM} {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that answers a wrong argument with one sentence instead of its usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each leaves the function that runs it in `run`."""
    parser = _Parser(
        prog=_PROGRAM,
        description="Complete monitoring for any ASGI app in one line.",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--version", action="version", version=f"{_PROGRAM} {__version__}", help="print the version"
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    _add_demo(commands.add_parser)
    _add_serve(commands.add_parser)
    return parser


def _add_demo(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    command = add_command(
        "demo",
        help="a sample app under real traffic, with a dependency that fails and comes back",
        description="Run a small shop under real traffic, watched by Monitor, with a payments"
        " service that fails and comes back; print its addresses, how it goes, and every alert.",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    _add_port(command)
    command.add_argument(
        "--seconds",
        type=_seconds,
        metavar="N",
        help="end after N seconds (default: when interrupted)",
    )
    command.set_defaults(run=_demo)


def _add_serve(add_command: Callable[..., argparse.ArgumentParser]) -> None:
    command = add_command(
        "serve",
        help="your app wrapped in Monitor, without touching its code",
        description="Serve an ASGI app with uvicorn, wrapped in Monitor, without touching its code;"
        " settings come from the environment.",
        epilog=_EXITS,
        allow_abbrev=False,
    )
    command.add_argument(
        "app",
        type=_target,
        metavar="module:app",
        help="the module to import, from the current directory or installed, and the app in it",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    _add_port(command)
    command.add_argument(
        "--factory",
        action="store_true",
        help="what is named is a function without arguments that returns the app",
    )
    command.set_defaults(run=_serve)


def _add_port(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="the port to listen on, 0 for a free one (default: %(default)s)",
    )


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port, allowed are numbers from 0 to 65535")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if 0 < seconds < math.inf:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is no length of time, allowed are numbers above 0")


def _target(text: str) -> str:
    module, _, path = text.partition(":")
    if all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} names no app, write it as in main:app")


def _demo(arguments: argparse.Namespace) -> None:
    with _listening("127.0.0.1", arguments.port) as listener:
        screen = Screen.on(sys.stdout, os.environ)
        run_demo(listener, seconds=arguments.seconds, screen=screen, environ=os.environ)


def _serve(arguments: argparse.Namespace) -> None:
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("The command `serve`", "serve") from None
    app = _app(arguments.app, factory=arguments.factory)
    monitor = app if isinstance(app, Monitor) else Monitor(app)
    with _listening(arguments.host, arguments.port) as listener:
        print(f"{arguments.app}, wrapped in Monitor, at {_url(listener)}", file=sys.stderr)
        log = _with_our_lines(uvicorn.config.LOGGING_CONFIG)
        try:
            uvicorn.Server(uvicorn.Config(monitor, log_config=log)).run(sockets=[listener])
        except SystemExit:
            raise _CannotRunError("the app failed in its startup; the log says where") from None


def _with_our_lines(uvicorn_log: dict[str, Any]) -> dict[str, Any]:
    """The logging of uvicorn, and beside it Monitor's own lines: they say who may see what."""
    config = copy.deepcopy(uvicorn_log)
    ours = {"handlers": ["default"], "level": "INFO", "propagate": False}
    config["loggers"]["holistic_asgi_monitor"] = ours
    return config


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise _CannotRunError(_why_not_listening(host, port, error)) from None


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port, or --port 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not open to this user; choose another with --port"
    return f"{host} is no address of this machine that could be listened on"


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _app(target: str, *, factory: bool) -> Any:
    """The app that `target`, as in `module:app`, names; made by it where it is a factory."""
    sys.path.insert(0, str(Path.cwd()))
    module, _, path = target.partition(":")
    found = _attribute(_imported(module), path)
    if factory:
        found = _made_by(found, target)
    elif inspect.isfunction(found) and not inspect.signature(found).parameters:
        raise _CannotRunError(f"{target} takes no arguments, so it is no app; is it a --factory?")
    if not callable(found):
        kind = type(found).__name__
        raise _CannotRunError(f"{target} gives no ASGI app but a {kind}, which cannot be called")
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, name):
            places = f"looked in {Path.cwd()} and among the installed packages"
            raise _CannotRunError(f"there is no module {error.name}; {places}") from None
        raise _CannotRunError(f"importing {name} failed: {_place(error)}") from None


def _is_part(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _place(error: Exception) -> str:
    """The class of `error` and where it was raised; its text may hold a secret and stays out."""
    kind = type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        kind = f"{kind} ({error.name})"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} in {error.filename}, line {error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ")
    ]
    return f"{kind} in {frames[-1].filename}, line {frames[-1].lineno}"


def _attribute(module: ModuleType, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        known = [name for name, value in vars(module).items() if _looks_like_an_app(name, value)]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise _CannotRunError(f"module {module.__name__} has no {path}{hint}") from None


def _looks_like_an_app(name: str, value: object) -> bool:
    is_kind = inspect.isroutine(value) or inspect.isclass(value)
    return callable(value) and not is_kind and not name.startswith("_")


def _made_by(factory: Any, target: str) -> Any:
    if not callable(factory):
        raise _CannotRunError(f"{target} cannot be called, so it is no factory")
    try:
        return factory()
    except Exception as error:
        raise _CannotRunError(f"calling {target} failed: {_place(error)}") from None
