"""The shop's payments service: a real one on loopback, which can be made to fail.

It speaks one line per connection: `PING` is answered by `PONG`, `CHARGE <cents>` by the number of
a receipt. While it is out of order it hangs up without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from anyio.streams.buffered import BufferedByteReceiveStream

__all__ = ("PaymentsDownError", "PaymentsService", "Till")

_HOST = "127.0.0.1"
_LONGEST_LINE = 100


class PaymentsDownError(Exception):
    """The payments service gave no answer, so nothing was charged."""


class PaymentsService:
    """The service itself; set `answering` to False to break it and to True to mend it."""

    def __init__(self) -> None:
        self.answering = True
        self._receipts = count(1)

    async def serve(self, *, task_status: TaskStatus[int]) -> None:
        """Listen on a free port of loopback, report it as started, and answer until cancelled."""
        async with await anyio.create_tcp_listener(local_host=_HOST) as listener:
            task_status.started(listener.extra_attributes[SocketAttribute.local_port]())
            await listener.serve(self._talk)

    async def _talk(self, stream: SocketStream) -> None:
        async with stream:
            if not self.answering:
                return
            try:
                request = await _line(stream)
                await stream.send(f"{self._reply(request)}\n".encode())
            except (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
                return

    def _reply(self, request: str) -> str:
        return f"RECEIPT-{next(self._receipts):06}" if request.startswith("CHARGE ") else "PONG"


@dataclass(frozen=True, slots=True)
class Till:
    """The shop's side of the line: `port` is the service's, `timeout` seconds per question."""

    port: int
    timeout: float = 1.0

    async def ping(self) -> None:
        """Ask for a sign of life; PaymentsDownError where none comes."""
        await self._ask("PING")

    async def charge(self, cents: int) -> str:
        """Charge `cents` and return the receipt; PaymentsDownError where nothing was charged."""
        return await self._ask(f"CHARGE {cents}")

    async def _ask(self, request: str) -> str:
        try:
            with anyio.fail_after(self.timeout):
                async with await anyio.connect_tcp(_HOST, self.port) as stream:
                    await stream.send(f"{request}\n".encode())
                    return await _line(stream)
        except (OSError, anyio.IncompleteRead, anyio.BrokenResourceError) as error:
            raise PaymentsDownError("The payments service does not answer") from error


async def _line(stream: SocketStream) -> str:
    buffered = BufferedByteReceiveStream(stream)
    return (await buffered.receive_until(b"\n", _LONGEST_LINE)).decode("ascii", "replace")
