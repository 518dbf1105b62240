"""The command `history`: prints or exports a series, or the trend, from where history is kept."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import anyio

from holistic_asgi_monitor.cli.arguments import EXITS, AddCommand
from holistic_asgi_monitor.cli.errors import CannotRunError, WrongArgumentError
from holistic_asgi_monitor.cli.output import encoding_of, put
from holistic_asgi_monitor.cli.tables import (
    curve_table,
    drawable,
    trend_csv,
    trend_json,
    trend_table,
)
from holistic_asgi_monitor.history.bounds import TooMuchError
from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.opening import to_store
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.sqlite.looking import fault_of
from holistic_asgi_monitor.history.store import Store, StoreError
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.web.history.asking import Asked, WrongParameterError, asked
from holistic_asgi_monitor.web.history.curve import as_csv, as_json, curve
from holistic_asgi_monitor.web.history.measures import MEASURES
from holistic_asgi_monitor.web.history.source import Stored
from holistic_asgi_monitor.web.trend import Where, read_trend

__all__ = ("add_to",)

FORMATS = ("table", "json", "csv")
_PARAMETERS = {
    "quantile": ("Q", "of latency, response_time and event_loop_lag (default: 0.95)"),
    "method": ("METHOD", "only requests with this method"),
    "endpoint": ("ROUTE", "only requests for this route template, as in /items/{id}"),
    "service": ("NAME", "only this check, of health and response_time"),
    "model": ("NAME", "only this model, of cost and tokens"),
    "feature": ("NAME", "only this feature"),
    "instance": ("NAME", "only this instance"),
    "from": ("TIME", "now, -24h, seconds since 1970 or an ISO time (default: -24h)"),
    "to": ("TIME", "the same (default: now)"),
    "step": ("SECONDS", "the length of a step (default: 300)"),
}
_OF_A_TREND = ("method", "endpoint")
_ANOTHER = "--url or MONITOR_HISTORY_URL names another place"


def add_to(add_command: AddCommand) -> None:
    """Add the command to those of a parser."""
    command = add_command(
        "history",
        help="print or export a series of the history, or the trend",
        description="Print one series of the history of a service, or its trend. It reads where"
        " the service writes, also while that runs, and changes nothing there.",
        epilog=EXITS,
        allow_abbrev=False,
    )
    # Python before 3.14 takes the -24h of `--from -24h` for an option.
    command._negative_number_matcher = re.compile(r"-[0-9]")  # noqa: SLF001 - no public way
    command.add_argument("metric", nargs="?", metavar="METRIC", help=f"{', '.join(MEASURES)}")
    command.add_argument(
        "--trend",
        action="store_true",
        help="in place of a series: the last hour against a day and a week before",
    )
    for name, (metavar, text) in _PARAMETERS.items():
        command.add_argument(f"--{name}", metavar=metavar, help=text)
    command.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        metavar="FORM",
        help="table, json or csv (default: %(default)s)",
    )
    command.add_argument(
        "--url", metavar="URL", help="where history is kept (default: MONITOR_HISTORY_URL)"
    )
    command.set_defaults(run=_history)


def _history(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    work = _work(arguments, Stored(store, time.time))
    if isinstance(store, SQLite) and store.path and (fault := fault_of(store.path)):
        raise CannotRunError(f"{fault}; {_ANOTHER}")
    text = anyio.run(partial(_read, store, work))
    put(drawable(text, encoding_of(sys.stdout)), sys.stdout)
    return 0


def _store(arguments: argparse.Namespace) -> Store:
    settings = Settings.from_env()
    if arguments.url is None:
        store = to_store(settings)
    else:
        try:
            store = to_store(replace(settings, history_url=arguments.url))
        except ConfigurationError as error:
            # It begins with the setting, which is not what was wrong here.
            allowed = str(error).partition(": ")[2] or str(error)
            raise WrongArgumentError(f"argument --url: {allowed}".rstrip(".")) from None
    if isinstance(store, Off) or "in memory" in store.describe():
        raise CannotRunError(f"history is kept {store.describe()}; {_ANOTHER}")
    return store


def _work(arguments: argparse.Namespace, source: Stored) -> Callable[[], Awaitable[str]]:
    """What is to be read and written; `WrongArgumentError` where that is not said well."""
    given = {name: vars(arguments)[name] for name in ("metric", *_PARAMETERS)}
    given = {name: text for name, text in given.items() if text is not None}
    if arguments.trend:
        for name in given:
            if name not in _OF_A_TREND:
                raise WrongArgumentError(f"argument --trend: not allowed with {_written(name)}")
        return partial(_trend, arguments.format, given, source)
    if arguments.metric is None:
        raise WrongArgumentError("the following arguments are required: METRIC, or --trend")
    try:
        wanted = asked(given.items(), time.time())
    except WrongParameterError as error:
        raise WrongArgumentError(str(error).rstrip(".")) from None
    return partial(_curve, arguments.format, wanted, source)


def _written(name: str) -> str:
    return "METRIC" if name == "metric" else f"--{name}"


async def _read(store: Store, work: Callable[[], Awaitable[str]]) -> str:
    try:
        return await work()
    except TooMuchError as error:
        raise CannotRunError(str(error)) from None
    except StoreError as error:
        raise CannotRunError(f"{error}; {_ANOTHER}") from None
    finally:
        await store.close()


async def _curve(form: str, wanted: Asked, source: Stored) -> str:
    found = await curve(wanted, source)
    if form == "table":
        return curve_table(wanted, found)
    pieces = (as_csv if form == "csv" else as_json)(found)
    text = b"".join([piece async for piece in pieces]).decode()
    return text if form == "csv" else f"{text}\n"


async def _trend(form: str, given: Mapping[str, str], source: Stored) -> str:
    found = await read_trend(source.read, time.time())
    wanted = [where for where in found.wheres() if _is_wanted(where, given)]
    return {"table": trend_table, "json": trend_json, "csv": trend_csv}[form](found, wanted)


def _is_wanted(where: Where, given: Mapping[str, str]) -> bool:
    """Whether a method and endpoint, or the whole, is among those asked for."""
    if not where:
        return not given
    named = dict(zip(_OF_A_TREND, where, strict=True))
    return all(named[name] == text for name, text in given.items())
