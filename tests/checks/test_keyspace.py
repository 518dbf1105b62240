"""INFO as several servers say it: the figures of a check, and when a server refuses writes."""

from typing import Any

import pytest

from holistic_asgi_monitor.checks.keyspace import exhaustion, figures, parse, product

VALKEY = """# Server\r
redis_version:7.2.4\r
server_name:valkey\r
valkey_version:9.1.2\r
run_id:aaaa\r
# Clients\r
connected_clients:3\r
maxclients:10000\r
# Memory\r
used_memory:1048576\r
maxmemory:4194304\r
maxmemory_policy:noeviction\r
# Persistence\r
loading:0\r
# Stats\r
rejected_connections:1\r
evicted_keys:7\r
keyspace_hits:30\r
keyspace_misses:10\r
# Replication\r
role:master\r
"""
OLD = "redis_version:5.0.14\r\nrole:slave\r\nused_memory:2048\r\nmaxmemory:0\r\n"


def test_the_figures_of_valkey() -> None:
    assert figures(parse(VALKEY)) == {
        "version": "9.1.2",
        "server_name": "valkey",
        "role": "master",
        "loading": False,
        "connected_clients": 3,
        "maxclients": 10000,
        "used_memory_bytes": 1 << 20,
        "maxmemory_bytes": 4 << 20,
        "memory_percent": 25.0,
        "keyspace_hits": 30,
        "keyspace_misses": 10,
        "hit_rate_percent_total": 75.0,
    }


def test_what_a_server_does_not_say_is_left_out() -> None:
    assert figures(parse(OLD)) == {
        "version": "5.0.14",
        "server_name": "redis",
        "role": "slave",
        "used_memory_bytes": 2048,
    }
    assert figures({}) == {}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (
            {"keyspace_hits": "33", "keyspace_misses": "11", "evicted_keys": "9"},
            {"hit_rate_percent": 75.0, "evicted_keys": 2, "rejected_connections": 0},
        ),
        ({}, {"evicted_keys": 0, "rejected_connections": 0}),
        # Counters that were reset, and another process.
        ({"keyspace_hits": "1", "evicted_keys": "0"}, {"rejected_connections": 0}),
        ({"run_id": "bbbb", "keyspace_hits": "99"}, {}),
    ],
    ids=["more", "nothing asked", "reset", "restarted"],
)
def test_what_happened_since_the_round_before(
    now: dict[str, str], expected: dict[str, Any]
) -> None:
    before = parse(VALKEY)
    found = figures({**before, **now}, before)

    recent = ("hit_rate_percent", "evicted_keys", "rejected_connections")
    assert {name: found[name] for name in recent if name in found} == expected


@pytest.mark.parametrize(
    ("change", "exhausted"),
    [
        ({}, False),
        ({"used_memory": "4194305"}, True),
        ({"used_memory": "4194304"}, False),
        ({"used_memory": "4194305", "maxmemory_policy": "allkeys-lru"}, False),
        ({"used_memory": "4194305", "mem_not_counted_for_evict": "100"}, False),
        ({"used_memory": "4194305", "maxmemory": "0"}, False),
        ({"used_memory": "many"}, False),
    ],
)
def test_writes_are_refused_where_nothing_may_be_evicted(
    change: dict[str, str], exhausted: bool
) -> None:
    assert (exhaustion({**parse(VALKEY), **change}) is not None) is exhausted


def test_the_values_that_a_client_has_read_are_understood_too() -> None:
    info = {"redis_version": 7.2, "maxmemory": 100, "used_memory": 50, "loading": 1}

    assert figures(info) == {
        "version": "7.2",
        "server_name": "redis",
        "loading": True,
        "used_memory_bytes": 50,
        "maxmemory_bytes": 100,
        "memory_percent": 50.0,
    }


def test_valkey_is_called_by_its_name() -> None:
    assert [product(parse(text)) for text in (VALKEY, OLD)] == ["Valkey", "Redis"]
