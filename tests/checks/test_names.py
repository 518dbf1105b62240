"""Names are looked up in a thread that holds up nobody."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.checks.loops import StillRunningError
from holistic_asgi_monitor.checks.names import Resolver

STREAM = (socket.SOCK_STREAM, 6, "")
V6, V4 = (socket.AF_INET6, *STREAM), (socket.AF_INET, *STREAM)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the threads that asked, in place of the name service."""
    threads: list[str] = []

    def answer(host: str, *_: Any, **__: Any) -> list[Any]:
        threads.append(f"{threading.current_thread().name} {threading.current_thread().daemon}")
        return [(*V6, ("::1", 0, 0, 0)), (*V4, ("127.0.0.1", 0)), (*V4, ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return threads


async def test_the_addresses_of_a_name_come_once_each_in_their_order(asked: list[str]) -> None:
    assert await Resolver("cache.example", "cache").addresses() == ["::1", "127.0.0.1"]
    assert asked == ["check cache True"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_address_is_not_looked_up(asked: list[str], host: str) -> None:
    assert await Resolver(host, "cache").addresses() == [host]
    assert asked == []


async def test_what_is_not_found_is_told_as_the_name_service_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "hunter2")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror):
        await Resolver("cache.example", "cache").addresses()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return what lets the name service answer, which hangs until then."""
    event = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        event.wait(20)
        return [(*V4, ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield event
    event.set()


async def test_a_name_service_that_hangs_is_asked_once(gate: threading.Event) -> None:
    resolver = Resolver("cache.example", "cache")
    for _ in range(3):
        with anyio.move_on_after(0.01), pytest.raises(StillRunningError):
            await resolver.addresses()
    assert sum(thread.name == "check cache" for thread in threading.enumerate()) == 1
    gate.set()
    with anyio.fail_after(10):
        while any(thread.name == "check cache" for thread in threading.enumerate()):
            await anyio.sleep(0.001)

    assert await resolver.addresses() == ["127.0.0.1"]
