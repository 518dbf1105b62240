"""The Redis and Valkey servers of the tests: each starts, answers, and fails as told."""

import socket

import pytest

from tests.servers.process import HOST
from tests.servers.redis_server import Redis


def ask(server: Redis, *commands: str, seconds: float = 30) -> list[str]:
    """Return the first line of the answer to each command."""
    with socket.create_connection((HOST, server.port), seconds) as client:
        lines = client.makefile("rw", encoding="utf-8", newline="\r\n")
        answers = []
        with lines:
            for command in commands:
                print(command, file=lines, flush=True)
                answers.append(lines.readline().strip())
    return answers


def test_it_is_valkey_and_redis_in_turn(redis: Redis, request: pytest.FixtureRequest) -> None:
    with socket.create_connection((HOST, redis.port)) as client:
        client.sendall(b"INFO server\r\n")
        is_valkey = b"valkey_version:9." in client.recv(65_536)
    assert is_valkey is ("[valkey]" in request.node.name)


@pytest.mark.parametrize("end", [Redis.stop, Redis.kill])
def test_it_comes_back_on_its_port_and_empty(redis: Redis, end) -> None:
    port = redis.port
    assert ask(redis, "SET key value", "EXISTS key") == ["+OK", ":1"]
    end(redis)
    assert not redis.running
    with pytest.raises(ConnectionRefusedError):
        ask(redis, "PING")
    redis.start()
    assert (redis.port, ask(redis, "EXISTS key")) == (port, [":0"])


def test_a_frozen_server_leaves_its_clients_waiting_until_it_thaws(redis: Redis) -> None:
    redis.freeze()
    with pytest.raises(TimeoutError):
        ask(redis, "PING", seconds=0.2)
    redis.thaw()
    assert ask(redis, "PING") == ["+PONG"]


@pytest.mark.parametrize("damage", [Redis.freeze, Redis.stop, Redis.kill])
def test_it_is_healed_whatever_a_test_did(redis: Redis, damage) -> None:
    redis.restart(requirepass="secret")
    assert ask(redis, "GET key", "AUTH secret", "SET key value") == [
        "-NOAUTH Authentication required.",
        "+OK",
        "+OK",
    ]
    damage(redis)
    redis.heal()
    assert ask(redis, "EXISTS key") == [":0"]


def test_a_server_that_cannot_start_says_why(redis: Redis) -> None:
    redis.stop()
    with pytest.raises(RuntimeError, match=r"Redis did not start:\n(?s:.)*no-such-setting"):
        redis.start(**{"no-such-setting": "1"})
