"""From MONITOR_HISTORY_URL to a store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

from holistic_asgi_monitor.history.off import Off
from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Store
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import Settings

__all__ = ("default_path", "spare_store", "to_store")

MOST_MEMORY_MB = 64
LONGEST_NAME, HASH_LENGTH = 100, 12
"""In letters: file systems take 255, and others are made of it."""


def to_store(settings: Settings, environ: Mapping[str, str] | None = None) -> Store:
    """The store that the settings name; nothing is opened yet."""
    url = settings.history_url
    if url is None:
        path = default_path(settings.service, os.environ if environ is None else environ)
        return spare_store(settings) if path is None else _file(path, settings)
    if url.lower() == "off":
        return Off()
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "memory":
        return spare_store(settings)
    if scheme.lower() == "sqlite":
        return _sqlite(rest, settings)
    return PostgreSQL(url, service=settings.service)


def spare_store(settings: Settings) -> Store:
    """History in memory: what `memory:` asks for, and what takes the place of an unusable file."""
    return SQLite(
        None, max_mb=min(settings.history_max_mb, MOST_MEMORY_MB), service=settings.service
    )


def default_path(service: str, environ: Mapping[str, str]) -> Path | None:
    """The file of this service in the user's state directory; None where there is no home."""
    named = environ.get("XDG_STATE_HOME", "")
    if Path(named).is_absolute():
        folder = Path(named)
    else:
        home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
        if not Path(home).is_absolute():
            return None
        folder = Path(home) / ".local" / "state"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", service).strip("-.") or "app"
    if len(name) > LONGEST_NAME:
        ending = sha256(service.encode("utf-8", "backslashreplace")).hexdigest()[:HASH_LENGTH]
        name = f"{name[: LONGEST_NAME - HASH_LENGTH - 1]}-{ending}"
    return folder / "holistic-asgi-monitor" / f"{name}.sqlite"


def _sqlite(rest: str, settings: Settings) -> Store:
    """The store on the file that `rest`, what follows `sqlite:`, names.

    Three slashes stand before a relative path, four before an absolute one.
    """
    path = unquote(rest.removeprefix("//").removeprefix("/"))
    if path in {"", ":memory:"}:
        return spare_store(settings)
    if "?" in path or not rest.startswith("///"):
        raise ConfigurationError(
            "MONITOR_HISTORY_URL (field history_url) begins with sqlite:, but is no file: it must "
            "be sqlite:///relative/path or sqlite:////absolute/path, without a ?."
        )
    return _file(Path(path), settings)


def _file(path: Path, settings: Settings) -> Store:
    # Made absolute now: an app may change its working directory later.
    absolute = path if path.is_absolute() else Path(os.fsdecode(os.getcwdb())) / path  # noqa: PTH109 - blockbuster takes os.getcwd for blocking
    return SQLite(absolute, max_mb=settings.history_max_mb, service=settings.service)
