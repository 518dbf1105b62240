"""Which leases and which places of memory the settings give: one host's, and those of all hosts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holistic_asgi_monitor.alerts.keeping import HistoryShelf, Keeper, Shelf
from holistic_asgi_monitor.alerts.leading import (
    HostLease,
    Leader,
    Lease,
    RedisPlace,
    lease_seconds,
)
from holistic_asgi_monitor.alerts.ordering import SharedOrders
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.checks.redis_address import Address as RedisAddress
from holistic_asgi_monitor.history.opening import default_path
from holistic_asgi_monitor.history.postgres import PostgreSQL
from holistic_asgi_monitor.history.postgres.address import Address
from holistic_asgi_monitor.history.postgres.line import Line
from holistic_asgi_monitor.history.postgres.schema import SCHEMA
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.history.sqlite import SQLite
from holistic_asgi_monitor.history.store import Store
from holistic_asgi_monitor.history.values import key_of, plain
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.workers.lease import DIGEST_LENGTH, lock_paths
from holistic_asgi_monitor.workers.postgres_lease import PostgresLease
from holistic_asgi_monitor.workers.redis_lease import RedisLease

__all__ = ("leadership",)

PATIENCE_SECONDS = 2.0
_REDIS = re.compile(r"\s*(redis|rediss|valkey|valkeys|unix)://", re.IGNORECASE)


def leadership(
    settings: Settings,
    recorder: Recorder,
    outbox: Outbox,
    watched: Callable[[], Iterable[str]],
) -> tuple[Keeper, Leader]:
    """What keeps the memory of alerts, and what says whether this process tells of them.

    No process tells for another that has other checks, which `watched` names, or other notifiers.

    Both, and what people order to be quiet, go by PostgreSQL where history is there, else by Redis
    where REDIS_URL names one: then all hosts have one voice. On one host that is so by a file.
    """
    lease: Lease | None
    shared: Shelf | None
    environment, store = settings.environment, recorder.store
    place_of_its_own = _place(settings)

    def apart() -> str:
        known = sorted(watched()), sorted(outbox.names), place_of_its_own
        return sha256(json.dumps(known).encode()).hexdigest()[:DIGEST_LENGTH]

    orders: Shelf = HistoryShelf(recorder, f"quiet in {environment}")
    if isinstance(store, PostgreSQL):
        own, lease = f"{settings.instance} in {environment}", _in_postgres(settings, apart)
        shared = HistoryShelf(recorder, f"everywhere in {environment}")
    else:
        # A file is one host's, and so is its lock: whoever shares it has one voice.
        own = f"here in {environment}"
        lease = place = _in_redis(settings, apart)
        shared = None if place is None else place.shelf("alerts")
        orders = orders if place is None else place.shelf("quiet")
    keeper = Keeper(outbox, HistoryShelf(recorder, own, settings.instance), shared)
    file = _lasting_file(settings, store)
    host = HostLease(lambda: lock_paths(settings.service, environment, file, apart()))
    return keeper, Leader(
        outbox,
        keeper,
        host,
        lease,
        orders=SharedOrders(outbox, orders),
        interval=settings.check_interval_seconds,
    )


def _lasting_file(settings: Settings, store: Store) -> Path | None:
    """The file beside which the lock belongs: where history is, or would be."""
    path = store.path if isinstance(store, SQLite) else None
    return default_path(settings.service, os.environ) if path is None else path


def _place(settings: Settings) -> list[str | int | None]:
    """What tells apart services whose name is only that of a directory: in containers it is `app`.

    Where each is in its own directory, that; where all are in `/app`, their databases do.
    """
    try:
        directory = os.fsdecode(os.getcwdb())  # noqa: PTH109 - blockbuster takes os.getcwd for blocking
    except OSError:
        directory = ""
    if settings.service not in {Path(directory).name, "app"}:
        return []
    return [directory, *_peer(settings.database_url), *_peer(settings.redis_url)]


def _peer(url: str | None) -> list[str | int | None]:
    """Whose database it is, without a secret."""
    try:
        parts = urlsplit(url or "")
        return [parts.hostname, parts.port, parts.path]
    except ValueError:
        return []


def _in_postgres(settings: Settings, apart: Callable[[], str]) -> PostgresLease:
    address = Address.parse(settings.history_url or "")
    line = Line(address, patience=PATIENCE_SECONDS, silent=PATIENCE_SECONDS)
    return PostgresLease(
        line.ask,
        line.close,
        table=f"{SCHEMA}.state",
        service=plain(settings.service),
        key=lambda: key_of(f"leader of alerts in {settings.environment} {apart()}"),
        seconds=lease_seconds(settings.check_interval_seconds),
    )


def _in_redis(settings: Settings, apart: Callable[[], str]) -> RedisPlace | None:
    """The place in Redis; None where there is no server, or no driver for it."""
    url = settings.redis_url
    if url is None or _REDIS.match(url) is None or find_spec("redis") is None:
        return None

    def options() -> Mapping[str, Any]:
        # In the thread, since it imports the driver.
        return RedisAddress.parse(url, "redis").options

    start = f"holistic-asgi-monitor:{settings.service}:{settings.environment}"
    seconds = lease_seconds(settings.check_interval_seconds)
    return RedisPlace(RedisLease(options, start, seconds, apart))
