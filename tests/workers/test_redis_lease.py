"""The lease in a real Redis and a real Valkey: compare and refresh, expiry, servers that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from holistic_asgi_monitor.checks.redis_address import Address
from holistic_asgi_monitor.workers.redis_lease import RedisLease
from tests.servers.faults import Proxy
from tests.servers.process import Server
from tests.servers.redis_server import Redis

START = "holistic-asgi-monitor:shop:production"
LONG = 600.0


def lease(url: str, seconds: float = LONG) -> RedisLease:
    return RedisLease(lambda: Address.parse(url, "redis").options, START, seconds)


def client(redis: Redis) -> Any:
    from redis import Redis as Client

    return Client.from_url(redis.url(), decode_responses=True)


def test_one_holder_has_it_and_refreshes_it(redis: Redis) -> None:
    one, other = lease(redis.url()), lease(redis.url())
    assert [one.hold("a"), other.hold("b"), one.hold("a"), other.hold("b")] == [
        *(True, False, True, False)
    ]
    with client(redis) as asked:
        asked.pexpire(f"{START}:leader", 10_000)
        assert one.hold("a")
        assert asked.pttl(f"{START}:leader") > 10_000
    # The same host by another process.
    assert other.hold("a")
    one.release("a")
    other.release("a")


def test_it_ends_by_itself_and_then_it_is_whoever_asks_first(redis: Redis) -> None:
    one, other = lease(redis.url(), 0.2), lease(redis.url())
    assert one.hold("a")
    deadline = time.monotonic() + 30
    while not other.hold("b"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not one.hold("a")
    one.release("a")
    assert other.hold("b")
    other.release("b")


def test_only_its_holder_gives_it_back(redis: Redis) -> None:
    one, other = lease(redis.url()), lease(redis.url())
    one.hold("a")
    other.hold("b")
    other.release("b")
    assert not other.hold("b")
    one.release("a")
    assert other.hold("b")
    other.release("b")


def test_what_was_never_asked_for_is_given_back_without_a_word(redis: Redis) -> None:
    redis.kill()
    lease(redis.url()).release("a")


def test_a_text_is_kept_for_all_of_them_and_not_for_ever(redis: Redis) -> None:
    one, other = lease(redis.url()), lease(redis.url())
    assert one.load("alerts") is None
    one.save("alerts", "first")
    one.save("alerts", "zweitens: ä")
    assert other.load("alerts") == "zweitens: ä"
    with client(redis) as asked:
        assert 0 < asked.ttl(f"{START}:alerts") <= 30 * 86400
    one.release("a")
    other.release("b")


def test_a_server_that_is_gone_raises_and_one_that_is_back_is_asked_anew(redis: Redis) -> None:
    one = lease(redis.url())
    assert one.hold("a")
    redis.kill()
    for _ in range(2):
        with pytest.raises(Exception, match="onnect"):
            one.hold("a")
    redis.start()
    assert one.hold("a")
    one.release("a")


@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)
def test_a_server_that_says_nothing_is_left_after_moments(
    redis: Redis, proxy: Callable[[Server], Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holistic_asgi_monitor.workers.redis_lease.TIMEOUT_SECONDS", 0.2)
    front = proxy(redis)
    one = lease(redis.url(port=front.port))
    assert one.hold("a")
    front.black_hole()
    with pytest.raises(Exception, match="imeout"):
        one.hold("a")
    with pytest.raises(Exception, match="imeout"):
        one.release("a")


@pytest.mark.parametrize("_redis", ["valkey"], indirect=True)
def test_a_password_with_signs_in_it_lets_us_in(redis: Redis) -> None:
    redis.restart(requirepass="p@ss:w/rd")
    one = lease("redis://:p@ss:w/rd@" + redis.url().partition("//")[2])
    assert one.hold("a")
    one.release("a")
