"""What the proxy does to connections, on both loops, before a server that really answers."""

import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream

from tests.servers.faults import Proxy
from tests.servers.process import HOST, Server
from tests.servers.redis_server import Redis

pytestmark = pytest.mark.parametrize("_redis", ["valkey"], indirect=True)


@pytest.fixture
def front(proxy: Callable[[Server], Proxy], redis: Redis) -> Proxy:
    """Return a proxy in front of a server."""
    return proxy(redis)


@asynccontextmanager
async def client(front: Proxy) -> AsyncIterator[SocketStream]:
    """Connect through the proxy, and see that it has come to know."""
    before = front.accepted
    async with await anyio.connect_tcp(HOST, front.port) as stream:
        while front.accepted == before:
            await anyio.sleep(0.001)
        yield stream


async def ping(stream: SocketStream) -> bytes:
    """Return what the server answers."""
    await stream.send(b"PING\r\n")
    return await stream.receive()


async def hears_nothing(stream: SocketStream) -> bool:
    """Tell whether a question stays unanswered, for a while."""
    with anyio.move_on_after(0.2) as limit:
        await ping(stream)
    return limit.cancelled_caught


async def test_it_passes_everything_on_at_first(front: Proxy) -> None:
    async with client(front) as stream:
        assert await ping(stream) == b"+PONG\r\n"


async def test_it_counts_the_connections_that_are_open_and_that_ever_were(front: Proxy) -> None:
    async with client(front), client(front):
        assert (front.connections, front.accepted) == (2, 2)
    while front.connections:
        await anyio.sleep(0.001)
    assert front.accepted == 2


async def test_large_answers_and_the_servers_farewell_arrive_whole(front: Proxy) -> None:
    text = b"x" * 5_000_000
    async with client(front) as stream:
        await stream.send(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%b\r\nQUIT\r\n" % (len(text), text))
        heard = b"".join([piece async for piece in stream])
    assert heard == b"$%d\r\n%b\r\n+OK\r\n" % (len(text), text)


async def test_a_delay_comes_before_each_answer_until_it_is_lifted(front: Proxy) -> None:
    front.delay(0.2)
    async with client(front) as stream:
        start = time.monotonic()
        assert await ping(stream) == b"+PONG\r\n"
        assert time.monotonic() - start >= 0.2
        front.restore()
        assert await ping(stream) == b"+PONG\r\n"


async def test_a_client_that_does_not_wait_for_a_delayed_answer_is_gone(front: Proxy) -> None:
    front.delay(1000)
    async with client(front) as stream:
        assert await hears_nothing(stream)
    while front.connections:
        await anyio.sleep(0.001)


async def test_a_black_hole_takes_connections_in_and_answers_none(front: Proxy) -> None:
    async with client(front) as old:
        await ping(old)
        front.black_hole()
        async with client(front) as new:
            assert await hears_nothing(old)
            assert await hears_nothing(new)
            front.restore()
            assert await hears_nothing(old)
            assert await hears_nothing(new)
    async with client(front) as later:
        assert await ping(later) == b"+PONG\r\n"


async def test_a_connection_that_lost_nothing_to_a_black_hole_goes_on(front: Proxy) -> None:
    async with client(front) as stream:
        await ping(stream)
        front.black_hole()
        front.restore()
        assert await ping(stream) == b"+PONG\r\n"


async def test_a_black_hole_keeps_the_servers_end_from_its_clients(
    front: Proxy, redis: Redis
) -> None:
    async with client(front) as stream:
        await ping(stream)
        front.black_hole()
        redis.kill()
        assert await hears_nothing(stream)


async def test_while_it_refuses_open_connections_stay(front: Proxy) -> None:
    async with client(front) as stream:
        front.refuse()
        with pytest.raises((OSError, ExceptionGroup)) as refusal:
            await anyio.connect_tcp(HOST, front.port)
        assert isinstance(refusal.value.__cause__, ConnectionRefusedError)
        assert await ping(stream) == b"+PONG\r\n"
    front.restore()
    async with client(front) as stream:
        assert await ping(stream) == b"+PONG\r\n"


async def test_a_cut_resets_every_connection_and_lets_new_ones_in(front: Proxy) -> None:
    async with client(front) as one, client(front) as two:
        front.cut()
        assert front.connections == 0
        for stream in (one, two):
            with pytest.raises(anyio.BrokenResourceError) as end:
                await stream.receive()
            assert isinstance(end.value.__cause__, ConnectionResetError)
    async with client(front) as stream:
        assert await ping(stream) == b"+PONG\r\n"


async def test_a_cut_may_come_in_the_middle_of_an_answer_and_comes_once(front: Proxy) -> None:
    async with client(front) as stream:
        front.cut(after=10)
        assert await ping(stream) == b"+PONG\r\n"
        assert await ping(stream) == b"+PO"
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()
    async with client(front) as stream:
        assert await ping(stream) + await ping(stream) == b"+PONG\r\n" * 2


async def test_a_server_that_is_down_resets_who_comes_through(front: Proxy, redis: Redis) -> None:
    redis.stop()
    with pytest.raises((OSError, anyio.BrokenResourceError)):
        async with await anyio.connect_tcp(HOST, front.port) as stream:
            await stream.receive()


async def test_it_works_while_the_loop_of_the_test_stands_still(front: Proxy) -> None:
    with socket.create_connection((HOST, front.port)) as blocking:
        blocking.sendall(b"PING\r\n")
        assert blocking.recv(100) == b"+PONG\r\n"


@pytest.mark.parametrize("mode", [Proxy.restore, Proxy.black_hole, Proxy.refuse])
async def test_nothing_of_it_is_left_at_its_end(redis: Redis, mode) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as end:
        front = end.enter_context(Proxy(redis.port))
        async with client(front) as stream:
            await ping(stream)
            mode(front)
            end.close()
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, front.port))
