"""The command line that both benchmarks share, and the clean surroundings that they start from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.table import DOCS


class Keyed(Protocol):
    """Something that the command line names by its key."""

    @property
    def key(self) -> str:
        """The name on the command line."""
        ...


KeyedT = TypeVar("KeyedT", bound=Keyed)


def new_parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m program` that knows `--write`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}", description=(description or "").partition("\n")[0]
    )
    parser.add_argument(
        "--write",
        type=page,
        nargs="?",
        const=DOCS,
        metavar="FILE",
        help="put the table between its markers in docs/benchmarks.md, or in FILE",
    )
    return parser


def page(text: str) -> Path:
    """A page that is there: who measures for minutes must not learn only then that it is not."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text} to put the table into")
    return Path(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def positives(text: str) -> list[int]:
    """Whole numbers of at least 1, with commas."""
    return [positive(part) for part in listed(text)]


def listed(text: str) -> list[str]:
    """The parts of a text with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def keys(known: Iterable[Keyed]) -> str:
    """What `--only` and the like accept, for a sentence."""
    return ", ".join(one.key for one in known)


def chosen(
    parser: argparse.ArgumentParser, known: Sequence[KeyedT], wanted: Iterable[str] | None
) -> tuple[KeyedT, ...]:
    """Those of `known` whose key is `wanted`, in their own order; all where nothing is."""
    wished = {one.key for one in known} if wanted is None else set(wanted)
    strange = wished - {one.key for one in known}
    if strange:
        parser.error(f"there is no {', '.join(sorted(strange))}; there are {keys(known)}")
    return tuple(one for one in known if one.key in wished)


def demand_installed(parser: argparse.ArgumentParser, distributions: Iterable[str]) -> None:
    """End with one sentence where one of `distributions` is missing."""
    for distribution in distributions:
        try:
            version(distribution)
        except PackageNotFoundError:
            parser.error(
                f"{distribution} is not installed: pip install 'holistic-asgi-monitor[benchmark]',"
                " or leave it out with --only"
            )


def forget_settings() -> None:
    """Take out of this process's environment what would change the defaults of anyone here."""
    others = ("DATABASE_URL", "REDIS_URL", "ALERTMANAGER_URL", "PROMETHEUS_MULTIPROC_DIR")
    prefixes = ("MONITOR_", "OPENAI_", "SLACK_", "OTEL_", "FASTAPI_OTEL_")
    for name in [name for name in os.environ if name in others or name.startswith(prefixes)]:
        del os.environ[name]
