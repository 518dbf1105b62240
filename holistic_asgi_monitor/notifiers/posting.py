"""One request at a time, with nothing but the standard library, in a thread and a bounded time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

import anyio

from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.notifiers.addresses import Address
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.threads import OneThread
from holistic_asgi_monitor.notifiers.waits import asked_wait

__all__ = ("Poster", "judged")

BODY_BYTES = 65_536
BODY_SECONDS = 1.0
# The thread is to end by itself; who sends a byte a second is cut off a little later.
MARGIN_SECONDS = 0.5

_BUSY = frozenset({408, 425, 429})


class Poster:
    """Posts JSON to `address`, or only asks it; `who` begins the sentences of its errors.

    No redirect is followed and no proxy of the environment used. A whole delivery takes `timeout`
    seconds at most, and a moment.
    """

    def __init__(self, address: Address, *, who: str, name: str, timeout: float) -> None:
        self._address = address
        self._who = who
        self._timeout = timeout
        self._thread = OneThread(f"holistic-asgi-monitor {name}")

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post once; DeliveryError unless it is answered by 2xx."""
        await self._exchange(body, headers)

    async def get(self) -> None:
        """Ask once; DeliveryError unless it is answered by 2xx."""
        await self._exchange(None, {})

    async def _exchange(self, body: bytes | None, headers: Mapping[str, str]) -> None:
        exchange = _Exchange(self._address, body, headers, self._timeout)
        failure: DeliveryError | None = None
        try:
            with anyio.move_on_after(self._timeout + MARGIN_SECONDS):
                error = await self._thread.call(exchange.run)
                failure = None if error is None else self._unanswered(exchange, error)
            # Once it is abandoned, half a head may be taken for a whole one.
            status = exchange.status
        finally:
            exchange.abandon()
        if status is not None:
            failure = judged(self._who, status, exchange.headers, datetime.now(UTC))
        elif failure is None:
            failure = self._too_late(exchange)
        if failure is not None:
            raise failure

    def _unanswered(self, exchange: _Exchange, error: Exception) -> DeliveryError:
        kind = type(error).__name__
        if isinstance(error, TimeoutError) and error.errno is None:
            return self._too_late(exchange)
        if not exchange.connected:
            return DeliveryError(f"{self._who} could not be reached ({kind})")
        if isinstance(error, ConnectionError | ssl.SSLError) or not exchange.sent:
            # Who has all of it may have taken it, and died of the answer.
            return DeliveryError(
                f"{self._who} closed the connection without an answer ({kind})",
                ambiguous=exchange.sent,
            )
        return DeliveryError(f"{self._who} gave an answer that is no HTTP ({kind})", ambiguous=True)

    def _too_late(self, exchange: _Exchange) -> DeliveryError:
        sentence = f"{self._who} did not answer within {self._timeout:g} s"
        return DeliveryError(sentence, ambiguous=exchange.sent)


def judged(
    who: str, status: int, headers: Mapping[str, str], now: datetime
) -> DeliveryError | None:
    """What the status of an answer means; None for 2xx."""
    if 200 <= status < 300:
        return None
    later = status in _BUSY or status >= 500
    hint = ", and no redirect is followed" if 300 <= status < 400 else ""
    return DeliveryError(
        f"{who} answered {status}{hint}",
        retry_after=asked_wait(headers, now) if later else None,
        permanent=not later,
    )


class _Exchange:
    """One request and its answer, made in one thread and ended from any.

    It is a POST of `body`, or a GET where that is None. `connected`, `sent`, `status` and
    `headers` are filled while it goes on.
    """

    def __init__(
        self, address: Address, body: bytes | None, headers: Mapping[str, str], seconds: float
    ) -> None:
        self.connected = False
        self.sent = False
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self._address = address
        self._body = body
        self._method = "GET" if body is None else "POST"
        content = {} if body is None else {"Content-Type": "application/json"}
        self._request_headers = _headers(address, {**content, **headers})
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def run(self) -> Exception | None:
        """Ask, and read the answer's head; what stood in the way is given back.

        It is not raised, for what hangs on it could show the address.
        """
        try:
            self._ask()
        except (OSError, http.client.HTTPException) as error:
            return error.with_traceback(None)
        return None

    def abandon(self) -> None:
        """Have the thread end now, whatever it waits for of the network."""
        # Held for moments only: no call that waits is made with it.
        with self._lock:
            self._over = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not TLS's own way, which would change what the thread is using.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _ask(self) -> None:
        connection = _connection(self._address, self._left())
        try:
            connection.connect()
            self._hold(connection.sock)
            self.connected = True
            target, headers = self._address.target, self._request_headers
            connection.request(self._method, target, self._body, headers)
            connection.sock.settimeout(self._left())
            self.sent = True
            self._read(connection.getresponse())
        finally:
            with self._lock:
                self._socket = None
            connection.close()

    def _hold(self, peer: socket.socket) -> None:
        with self._lock:
            if self._over:
                raise TimeoutError
            self._socket = peer
        peer.settimeout(self._left())

    def _read(self, response: http.client.HTTPResponse) -> None:
        self.headers = dict(response.headers.items())
        self.status = response.status
        # What is left unread would make the peer believe that its answer was lost.
        with suppress(OSError, http.client.HTTPException):
            if self._socket is not None:
                self._socket.settimeout(BODY_SECONDS)
            response.read1(BODY_BYTES)

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _headers(address: Address, more: Mapping[str, str]) -> dict[str, str]:
    headers = {
        "User-Agent": f"holistic-asgi-monitor/{__version__}",
        "Accept": "*/*",
        "Connection": "close",
        **more,
    }
    if address.authorization is not None:
        headers["Authorization"] = address.authorization
    return headers


def _connection(address: Address, seconds: float) -> http.client.HTTPConnection:
    if not address.tls:
        return http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(address.host, address.port, timeout=seconds, context=context)
