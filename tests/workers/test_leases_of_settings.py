"""Which lease there is by the settings, and what a monitor shows of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.alerts import leases
from holistic_asgi_monitor.alerts.leading import Leader, RedisPlace
from holistic_asgi_monitor.workers.postgres_lease import PostgresLease


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that nobody asks."""


def monitor(**settings: Any) -> Monitor:
    chosen = Settings(service="shop", startup_grace_seconds=0, **settings)
    return Monitor(nothing, settings=chosen, checks=[], notifiers=[notifiers.Memory()])


def leader_of(made: Monitor) -> Leader:
    leader = made._parts.watch._leader
    assert leader is not None
    return leader


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, type(None)),
        ({"history_url": "memory:"}, type(None)),
        ({"history_url": "postgresql://u@127.0.0.1/shop"}, PostgresLease),
        (
            {"history_url": "postgresql://u@127.0.0.1/shop", "redis_url": "redis://127.0.0.1"},
            PostgresLease,
        ),
        ({"redis_url": "redis://127.0.0.1"}, RedisPlace),
        ({"redis_url": "Valkeys://127.0.0.1", "history_url": "off"}, RedisPlace),
        ({"redis_url": "memcached://127.0.0.1"}, type(None)),
    ],
)
def test_hosts_have_one_voice_where_they_share_a_place(
    settings: dict[str, str], kind: type[object]
) -> None:
    assert isinstance(leader_of(monitor(**settings))._service, kind)


def test_without_the_driver_redis_is_no_such_place(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(leases, "find_spec", lambda name: None if name == "redis" else found(name))
    assert leader_of(monitor(redis_url="redis://127.0.0.1"))._service is None


async def test_of_two_monitors_of_a_service_one_leads_until_its_end(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.sqlite"
    one, other = monitor(history_url=url), monitor(history_url=url)

    def voices() -> list[str]:
        return sorted(str(made._parts.outbox.as_dict()["voice"]) for made in (one, other))

    async with one, other:
        await until(lambda: voices() == ["all", "none"])
        leads = [made._parts._leads() for made in (one, other)]
        assert sum(each["host",] for each in leads) == 1.0
        assert sum(each["service",] for each in leads) == 1.0
    assert voices() == ["none", "none"]


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)
