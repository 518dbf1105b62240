"""A proxy that does to connections what networks do: it delays, swallows, refuses and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Self

from tests.servers.process import HOST, PATIENCE, free_port

# Linger for no time at all: closing then says RST, where it would say FIN.
NO_FAREWELL = struct.pack("ii", 1, 0)
CHUNK = 65_536


class Mode(enum.Enum):
    """What becomes of the connections."""

    PASS = enum.auto()
    BLACK_HOLE = enum.auto()
    REFUSE = enum.auto()


class Link:
    """One client's connection, and the one to the server if there is one."""

    def __init__(self, client: asyncio.StreamWriter, task: asyncio.Task[object]) -> None:
        self.writers = [client]
        self.task = task
        self.lost_bytes = False

    def abort(self) -> None:
        """End both connections by RST."""
        for writer in self.writers:
            peer = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_FAREWELL)
            # Python's transports forget their loop once they have sent the rest and are closed.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()


class Proxy:
    """Stands on a port of its own before a server's port; passes everything on at first.

    It runs on a thread and a loop of its own: it works whatever the test's loop is, and while
    that is stalled. Every method may be called from anywhere and returns once it is in force.
    """

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self.accepted = 0
        self._upstream = upstream
        self._mode = Mode.PASS
        self._latency = 0.0
        self._allowance: int | None = None
        self._links: set[Link] = set()
        self._listener: asyncio.Server | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            message = f"The proxy did not come to listen on port {self.port}."
            raise RuntimeError(message)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._links)

    def restore(self) -> None:
        """Pass everything on, from now on, without delay.

        A connection that lost bytes to a black hole never speaks again.
        """
        self._do(self._set(Mode.PASS))

    def delay(self, seconds: float) -> None:
        """Hold back each piece of what the server says for this long."""
        self._do(self._set(Mode.PASS, latency=seconds))

    def black_hole(self) -> None:
        """Accept connections, and swallow what either side says, even its farewell."""
        self._do(self._set(Mode.BLACK_HOLE))

    def refuse(self) -> None:
        """Refuse connections as a port does where nothing listens; those that are open stay."""
        self._do(self._set(Mode.REFUSE))

    def cut(self, *, after: int = 0) -> None:
        """End all connections by RST: now, or once the server has said `after` bytes more.

        New ones are let in, unless the mode is another.
        """
        self._do(self._allow(after) if after else self._cut())

    def _do(self, work: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def _set(self, mode: Mode, *, latency: float = 0.0) -> None:
        self._mode, self._latency, self._allowance = mode, latency, None
        if mode is Mode.REFUSE:
            self._close_listener()
        elif self._listener is None:
            await self._listen()

    async def _allow(self, size: int) -> None:
        self._allowance = size

    async def _cut(self) -> None:
        serving = [link.task for link in self._links]
        self._abort_all()
        await asyncio.gather(*serving)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        await self._listen()
        self._ready.set()
        await self._end.wait()
        self._close_listener()
        await self._cut()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._serve, HOST, self.port)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _abort_all(self) -> None:
        self._allowance = None
        for link in self._links:
            link.task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = Link(writer, task)
        self.accepted += 1
        self._links.add(link)
        try:
            # It is we alone who cancel it, to end the connection.
            with contextlib.suppress(asyncio.CancelledError):
                await self._connect(link, reader)
        finally:
            link.abort()
            self._links.discard(link)

    async def _connect(self, link: Link, client: asyncio.StreamReader) -> None:
        """Join a client to the server, or leave it alone with itself in a black hole."""
        if self._mode is Mode.BLACK_HOLE:
            link.lost_bytes = True
            while await read(client):
                pass
            return
        with contextlib.suppress(OSError):
            server, writer = await asyncio.open_connection(HOST, self._upstream)
            link.writers.append(writer)
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._answer(link, server))
                await self._ask(link, client)
                # The client is gone: an answer that is held back has nowhere to go.
                answering.cancel()
                await part(writer)

    async def _ask(self, link: Link, client: asyncio.StreamReader) -> None:
        while piece := await read(client):
            if not self._swallows(link):
                await write(link.writers[1], piece)

    async def _answer(self, link: Link, server: asyncio.StreamReader) -> None:
        while piece := await read(server):
            await asyncio.sleep(self._latency)
            if not self._swallows(link):
                await self._say(link, piece)
        if self._swallows(link):
            # The client is not told; it is for it to give up, which `_ask` will see.
            return
        await part(link.writers[0])

    async def _say(self, link: Link, piece: bytes) -> None:
        if self._allowance is None:
            await write(link.writers[0], piece)
            return
        allowed = piece[: self._allowance]
        self._allowance -= len(allowed)
        await write(link.writers[0], allowed)
        if not self._allowance:
            self._abort_all()

    def _swallows(self, link: Link) -> bool:
        link.lost_bytes = link.lost_bytes or self._mode is Mode.BLACK_HOLE
        return link.lost_bytes


async def read(reader: asyncio.StreamReader) -> bytes:
    """Return the next piece; nothing once the connection has ended, however it did."""
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


async def write(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Pass a piece on; whether the other side still wants it is seen where it is read from."""
    writer.write(piece)
    with contextlib.suppress(OSError):
        await writer.drain()


async def part(writer: asyncio.StreamWriter) -> None:
    """End a connection once all is said."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
