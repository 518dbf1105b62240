"""A check of any service that speaks HTTP: one GET, and whether its answer is a good one."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import anyio

from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.loops import Threaded
from holistic_asgi_monitor.checks.network import failing, hideable, joined
from holistic_asgi_monitor.checks.per_loop import PerLoop
from holistic_asgi_monitor.checks.probe import Probe, UnansweredError, seconds_left
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.redaction import passwords
from holistic_asgi_monitor.settings import Settings

__all__ = ("HTTP",)

BODY_BYTES = 65_536
# The thread is to end by itself, a little before it would be left alone; an answer that comes
# meanwhile does not count.
MARGIN_SHARE = 0.1
MARGIN_SECONDS = 0.02
MOMENT_SECONDS = 0.1

SHORTEST_KEY = 8
_WORD_LENGTH = 16

_SWITCHING = 101
_PORTS = {"http": 80, "https": 443}
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
_ALLOWED = "allowed is http://host:port/path or https://host:port/path"
_UNWRITABLE = re.compile(r"[\x00-\x20\x7f]")
# What a query may hold besides keys: a word, numbers, a host.
_PLAIN = re.compile(r"[A-Za-z]?[a-z]*([-_ ][a-z]+)*")
_NUMBERS = re.compile(r"[\d.,:+ -]+")
_PLACE = re.compile(r"([a-z0-9-]+\.)+[a-z]{2,12}(:\d{1,5})?")
_SAFE = "%/:=&?~+!$,;'@()*[]"


class HTTP(Probe):
    """Sends `GET` to `url`; an answer of 2xx or 3xx is healthy, any other and none is not.

    No redirect is followed, no proxy of the environment used, and of the body 64 KiB are read at
    most. A user and a password in the URL are sent as Basic authentication. Certificates are
    verified against the system's authorities, or those that `SSL_CERT_FILE` names; when the
    server's expires is among the details. A thread waits for the network. Who asks while somebody
    else does waits for the end of that.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        self._target = _Target.parse(url, name)
        self.secrets = self._target.secrets
        self._visits = PerLoop(_Visit)

    def configured(self, settings: Settings) -> Self:
        """The same check with requests of its own: each monitor has them."""
        same = copy(self)
        same._visits = PerLoop(_Visit)  # noqa: SLF001 - its own class
        return same

    async def unjudged(self) -> CheckResult:
        """Ask once; `UnwellError` for a bad answer, `UnansweredError` for none in time."""
        visit = self._visits.here()
        async with visit.lock:
            await self._free(visit.exchange)
            return await self._asked(visit)

    async def _asked(self, visit: _Visit) -> CheckResult:
        seconds = seconds_left()
        margin = min(MARGIN_SECONDS, MARGIN_SHARE * seconds)
        exchange = visit.exchange = _Exchange(self._target, seconds - margin)
        try:
            await Threaded(exchange.run, f"check {self.name}")()
        except (OSError, http.client.HTTPException) as error:
            raise self._unwell(exchange, error) from error
        except RuntimeError as error:
            exchange.ended = True
            raise UnwellError("this process cannot start another thread") from error
        finally:
            exchange.abandon()
        return self._result(exchange)

    async def _free(self, before: _Exchange | None) -> None:
        """Wait a moment for the thread of a request that was given up; there is never a second."""
        if before is None:
            return
        with anyio.move_on_after(MOMENT_SECONDS):
            while not before.ended:  # noqa: ASYNC110 - a thread ends, and may outlive the loop
                await anyio.sleep(MOMENT_SECONDS / 20)
        if not before.ended:
            raise UnwellError(
                f"the request of {before.since:%Y-%m-%d %H:%M:%S} UTC to {self._target.where} "
                "has not ended, so none was made"
            )

    def unanswered(self, seconds: float) -> UnwellError:
        """What to say when there was no answer, or no end to it, within `seconds`."""
        visit = self._visits.known()
        exchange = None if visit is None else visit.exchange
        status = None if exchange is None else exchange.status
        what = "gave no answer" if status is None else f"answered {status}, but did not end"
        sentence = f"{self._target.where} {what} within {seconds:g} s"
        return UnwellError(sentence, details=None if exchange is None else exchange.details)

    def _result(self, exchange: _Exchange) -> CheckResult:
        sentence = f"{self._target.where} answered {exchange.status}"
        if exchange.status is None or not 200 <= exchange.status < 400:
            raise UnwellError(sentence, details=exchange.details)
        return CheckResult(Status.HEALTHY, sentence, exchange.details, exchange.milliseconds)

    def _unwell(
        self, exchange: _Exchange, error: OSError | http.client.HTTPException
    ) -> UnwellError | UnansweredError:
        if isinstance(error, TimeoutError) and error.errno is None:
            return UnansweredError()
        predicate = failing(error) or "cannot be reached"
        if isinstance(error, http.client.IncompleteRead):
            predicate = f"answered {exchange.status}, but cut its answer off"
        elif not isinstance(error, OSError):
            predicate = "gave an answer that is no HTTP"
        return UnwellError(f"{self._target.where} {predicate}", details=exchange.details)


@dataclass(frozen=True, slots=True)
class _Target:
    """Whom to ask for what; `where` is all of it that may be shown. TLS where it has a context."""

    where: str
    host: str
    port: int
    context: ssl.SSLContext | None
    request: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: object, name: str) -> Self:
        """Read a URL; nothing of one that is wrong is told, since it may hold a password."""
        parts = _split(url)
        if parts is None:
            raise ConfigurationError(f"The URL of the check {name} cannot be read; {_ALLOWED}")
        usual = _PORTS[parts.scheme]
        host, port = _ascii(parts.hostname or ""), parts.port or usual
        place = joined(host, None if parts.port in {None, usual} else port)
        path = quote(parts.path or "/", _SAFE)
        query = quote(parts.query, _SAFE)
        authorization = _authorization(parts)
        where = f"{parts.scheme}://{place}{path}"
        return cls(
            where=where,
            host=host,
            port=port,
            # Made here: to read the authorities takes time, and holds everybody up.
            context=ssl.create_default_context() if parts.scheme == "https" else None,
            request=_request(place, f"{path}?{query}" if query else path, authorization),
            secrets=hideable(_secrets(parts, authorization, where), where, host, name),
        )


def _split(url: object) -> SplitResult | None:
    """The parts of a URL; None where it is none that can be asked."""
    if not isinstance(url, str) or _UNWRITABLE.search(url):
        return None
    try:
        url.encode()
        parts = urlsplit(url)
        readable = bool(_ascii(parts.hostname or "")) and parts.port != 0
    except ValueError:
        return None
    # An @ behind a # is the end of a password with a # in it, and all before it is no host.
    readable = readable and parts.scheme in _PORTS and "@" not in parts.fragment
    return parts if readable else None


def _ascii(host: str) -> str:
    """The name as the network knows it; `ValueError` for what cannot be one."""
    return host if ":" in host else host.encode("idna").decode("ascii")


def _authorization(parts: SplitResult) -> str:
    """User and password as Basic authentication has them; empty without any."""
    if parts.username is None and parts.password is None:
        return ""
    both = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return base64.b64encode(both.encode()).decode("ascii")


def _request(host: str, path: str, authorization: str) -> bytes:
    lines = (
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: holistic-asgi-monitor/{__version__}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
        *([f"Authorization: Basic {authorization}"] if authorization else []),
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _secrets(parts: SplitResult, authorization: str, where: str) -> Iterator[str]:
    """What nobody may read: the password in all its forms, and what looks like a key in the query.

    Nothing else of the query: `where` and the rest of a sentence must still be read.
    """
    yield from passwords(parts.geturl())
    yield authorization
    for value in (parts.query, *(value for _, value in parse_qsl(parts.query))):
        if len(value) >= SHORTEST_KEY and value not in where and not _is_plain(value):
            yield value


def _is_plain(value: str) -> bool:
    if len(value) < _WORD_LENGTH and _PLAIN.fullmatch(value):
        return True
    return bool(_NUMBERS.fullmatch(value) or _PLACE.fullmatch(value))


@dataclass(slots=True)
class _Visit:
    """The last request of one event loop, and the lock of who makes one."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    exchange: _Exchange | None = None


class _Exchange:
    """One request and its answer, made in one thread and ended from any.

    `status` and `details` are filled while it goes on; `milliseconds` is how long it took, to the
    last byte. `since` is when it began, in UTC.
    """

    def __init__(self, target: _Target, seconds: float) -> None:
        self.status: int | None = None
        self.details: dict[str, Any] = {}
        self.milliseconds: float | None = None
        self.since = datetime.now(UTC)
        self.ended = False
        self._target = target
        self._deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False

    def run(self) -> None:
        """Connect, ask, read the answer, throw its body away.

        `TimeoutError` without a number where that took too long.
        """
        began = time.perf_counter()
        try:
            peer = self._secured(self._connected())
            self._ask(peer)
        finally:
            self._close()
            self.ended = True
        self.milliseconds = round((time.perf_counter() - began) * 1000, 3)

    def abandon(self) -> None:
        """Have the thread end now, whatever it waits for of the network."""
        # Held for moments only: no call that waits is made with it.
        with self._lock:
            self._over = True
            if self._socket is not None:
                with suppress(OSError):
                    # Not TLS's own way, which would change what the thread is using.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _close(self) -> None:
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def _hold(self, peer: socket.socket) -> None:
        """Make `peer` the socket that `abandon` ends."""
        with self._lock:
            self._socket = peer
            if self._over:
                raise TimeoutError

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _connected(self) -> socket.socket:
        """A connection to the first address that lets us in, each given its share of the time."""
        target = self._target
        addresses = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        failure: OSError = OSError()
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            peer = socket.socket(family, kind, protocol)
            self._hold(peer)
            peer.settimeout(self._left() / (len(addresses) - tried))
            try:
                peer.connect(address)
            except OSError as error:
                failure = error
                self._close()
                continue
            self.details["ip_family"] = _FAMILIES.get(family)
            return peer
        raise failure

    def _secured(self, peer: socket.socket) -> socket.socket:
        """The connection itself, or TLS over it; then with what its certificate says."""
        context = self._target.context
        if context is None:
            return peer
        peer.settimeout(self._left())
        # Without its handshake, which takes time: `abandon` must know the socket before.
        secured = context.wrap_socket(
            peer, server_hostname=self._target.host, do_handshake_on_connect=False
        )
        self._hold(secured)
        secured.do_handshake()
        self.details |= _certificate(secured.getpeercert(), datetime.now(UTC))
        return secured

    def _ask(self, peer: socket.socket) -> None:
        peer.settimeout(self._left())
        peer.sendall(self._target.request)
        peer.settimeout(self._left())
        # Without an HTTPConnection, which would close the socket while `abandon` may use it.
        with http.client.HTTPResponse(peer, method="GET") as response:
            response.begin()
            while 100 <= response.status < 200 and response.status != _SWITCHING:
                # A hint: the answer follows, and is read where there seems to be none yet.
                response.headers = None  # type: ignore[assignment]  # as before the first
                peer.settimeout(self._left())
                response.begin()
            self.status = self.details["status_code"] = response.status
            self._read(response, peer)

    def _read(self, response: http.client.HTTPResponse, peer: socket.socket) -> None:
        """Read the body, as much of it as is looked at."""
        wanted = BODY_BYTES
        while wanted:
            peer.settimeout(self._left())
            piece = response.read1(wanted)
            if not piece:
                break
            wanted -= len(piece)
        if wanted and response.length:
            raise http.client.IncompleteRead(b"", response.length)


def _certificate(certificate: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """When a certificate expires, and the whole days until then."""
    if not certificate or "notAfter" not in certificate:
        return {}
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    return {
        "certificate_expires_at": expires.isoformat(),
        "certificate_days_left": (expires - now) // timedelta(days=1),
    }
