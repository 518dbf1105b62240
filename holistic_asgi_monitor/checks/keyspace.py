"""What a Redis or Valkey server says of itself in INFO: the figures of a check, and a judgement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("exhaustion", "figures", "parse", "product")

Info = Mapping[str, Any]

_PERCENT_DIGITS = 2


def parse(text: str) -> dict[str, str]:
    """The fields of an INFO, by name."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def product(info: Info) -> str:
    """What kind of server it is: Valkey says Redis 7.2.4 too, for the sake of old clients."""
    return "Valkey" if info.get("server_name") == "valkey" else "Redis"


def figures(info: Info, before: Info | None = None) -> dict[str, Any]:
    """The details of a check, of `info` and of what was said the round before.

    Sizes are bytes. `evicted_keys`, `rejected_connections` and `hit_rate_percent` are since the
    round before, and left out where there was none of this same server process; so is whatever
    the server does not say.
    """
    limit = _number(info, "maxmemory") or None
    hits, misses = _number(info, "keyspace_hits"), _number(info, "keyspace_misses")
    found = {
        "version": _version(info),
        "server_name": product(info).lower(),
        "role": info.get("role"),
        "loading": None if "loading" not in info else _number(info, "loading") != 0,
        "connected_clients": _number(info, "connected_clients"),
        "maxclients": _number(info, "maxclients"),
        "used_memory_bytes": _number(info, "used_memory"),
        "maxmemory_bytes": limit,
        "memory_percent": _percent(_number(info, "used_memory"), limit),
        "keyspace_hits": hits,
        "keyspace_misses": misses,
        "hit_rate_percent": _hit_rate(
            _since(info, before, "keyspace_hits"), _since(info, before, "keyspace_misses")
        ),
        "hit_rate_percent_total": _hit_rate(hits, misses),
        "evicted_keys": _since(info, before, "evicted_keys"),
        "rejected_connections": _since(info, before, "rejected_connections"),
    }
    return {name: value for name, value in found.items() if value is not None} if info else {}


def exhaustion(info: Info) -> str | None:
    """That it refuses writes for lack of memory, as a predicate; None while it does not."""
    limit, used = _number(info, "maxmemory"), _number(info, "used_memory")
    if not limit or used is None or info.get("maxmemory_policy") != "noeviction":
        return None
    # What replicas and the log are still to be sent counts as used, but not against the limit.
    used -= _number(info, "mem_not_counted_for_evict") or 0
    return "has no memory left, so it refuses writes" if used > limit else None


def _version(info: Info) -> str | None:
    version = info.get("valkey_version", info.get("redis_version"))
    return None if version is None else str(version)


def _number(info: Info, name: str) -> int | None:
    try:
        return int(info[name])
    except (KeyError, TypeError, ValueError):
        return None


def _since(info: Info, before: Info | None, name: str) -> int | None:
    """How much a counter has grown; None where it began anew."""
    if before is None or before.get("run_id") != info.get("run_id"):
        return None
    now, then = _number(info, name), _number(before, name)
    return None if now is None or then is None or now < then else now - then


def _hit_rate(hits: int | None, misses: int | None) -> float | None:
    return None if hits is None or misses is None else _percent(hits, hits + misses)


def _percent(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else round(100 * part / whole, _PERCENT_DIGITS)
