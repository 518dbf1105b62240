"""Which lease there is by the settings, and what a monitor shows of it."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor import Monitor, Settings, notifiers
from holistic_asgi_monitor.alerts import leases
from holistic_asgi_monitor.alerts.leading import HostLease, Leader, RedisPlace
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


async def test_of_two_monitors_of_a_service_one_leads_until_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostLease, "_kin", list)
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


def told_apart(made: Monitor) -> set[str]:
    """The names of the files that it would lock."""
    return {path.name for path in leader_of(made)._host._lease._paths()}


class TestNobodyTellsForOthersThatAreNotTheSame:
    """Two voices are better than none."""

    async def test_several_monitors_of_a_process_tell_each(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/shop.sqlite"
        one, other = monitor(history_url=url), monitor(history_url=url)
        async with other:
            async with one:
                await until(lambda: voices(one, other) == ["all", "all"])
            assert voices(one, other) == ["none", "all"]
            await leader_of(other).step()
            assert voices(other) == ["all"]

    def test_those_that_watch_the_same_have_one_voice(self) -> None:
        assert told_apart(monitor()) == told_apart(monitor())

    def test_those_that_watch_something_else_have_voices_of_their_own(self) -> None:
        one, other = monitor(), monitor()
        other.check("payments")(lambda: True)
        assert not told_apart(one) & told_apart(other)
        one.check("payments")(lambda: False)
        assert told_apart(one) == told_apart(other)

    def test_those_that_tell_elsewhere_have_voices_of_their_own(self) -> None:
        """As the tests of an app on the machine where it runs."""
        settings = Settings(service="shop")
        other = Monitor(nothing, settings=settings, checks=[], notifiers=[notifiers.Log()])
        assert not told_apart(monitor()) & told_apart(other)

    def test_a_name_that_is_only_that_of_a_directory_is_not_enough(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for number in "12":
            directory = tmp_path / number / "backend"
            directory.mkdir(parents=True)
            monkeypatch.chdir(directory)
            found.append([told_apart(built(name)) for name in ("backend", "shop")])
        (one, one_shop), (other, other_shop) = found
        assert not one & other
        assert one_shop == other_shop

    def test_containers_that_are_all_called_app_are_told_apart_by_their_databases(self) -> None:
        found = [
            told_apart(built("app", database_url=f"postgresql://u:{password}@db/{name}"))
            for name, password in (("shop", "one"), ("shop", "two"), ("bank", "one"))
        ]
        assert found[0] == found[1]
        assert not found[0] & found[2]

    def test_a_directory_that_is_gone_and_an_odd_address_are_no_fault(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        made = built("app", redis_url="redis://h:port", history_url="off")
        assert told_apart(made)

    def test_where_nothing_can_be_written_a_monitor_is_built(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def nowhere() -> str:
            raise FileNotFoundError

        monkeypatch.setattr(tempfile, "gettempdir", nowhere)
        monkeypatch.setattr(leases, "default_path", lambda *_: None)
        assert told_apart(monitor(history_url="memory:")) == set()

    def test_leases_among_hosts_are_told_apart_as_well(self) -> None:
        one, other = (monitor(redis_url="redis://127.0.0.1") for _ in range(2))
        place, place_of_other = (leader_of(each)._service for each in (one, other))
        assert isinstance(place, RedisPlace)
        assert isinstance(place_of_other, RedisPlace)
        assert place._lease._leader == place_of_other._lease._leader
        other.check("payments")(lambda: True)
        assert place._lease._leader != place_of_other._lease._leader


def built(service: str, **settings: Any) -> Monitor:
    chosen = Settings(service=service, **settings)
    return Monitor(nothing, settings=chosen, checks=[], notifiers=[notifiers.Memory()])


def voices(*monitors: Monitor) -> list[str]:
    return [str(made._parts.outbox.as_dict()["voice"]) for made in monitors]


async def until(condition: Any) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.01)
