"""A GET on a health address, or a POST, with nothing but the standard library, in bounded time."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from holistic_asgi_monitor.cli.errors import CannotRunError
from holistic_asgi_monitor.cli.verdict import Verdict, judged
from holistic_asgi_monitor.model import Status
from holistic_asgi_monitor.web.access import is_near

__all__ = ("ask", "post", "shown")

_LONGEST_BODY = 1 << 20
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PORTS = {"http": 80, "https": 443}


class _NoAnswerError(Exception):
    """Nothing that could be judged was answered; the text completes "<address> ..."."""


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    location: str
    body: bytes


def ask(address: SplitResult, token: str | None, *, seconds: float) -> Verdict:
    """What `address` answers within `seconds`; no answer is unhealthy.

    `token` is sent as Bearer, and so is the password that the address holds as Basic, to the
    address itself and only over https or to a loopback or private peer. CannotRunError where the
    host's name cannot be resolved.
    """
    found: SimpleQueue[Verdict | CannotRunError] = SimpleQueue()
    # In a thread: neither a resolver nor a server that sends a byte a second knows of our limit.
    question = threading.Thread(
        target=lambda: found.put(_asked(address, token, seconds)), name="check", daemon=True
    )
    question.start()
    try:
        verdict = found.get(timeout=seconds)
    except Empty:
        return _without_answer(address, _too_late(seconds))
    if isinstance(verdict, CannotRunError):
        raise verdict
    return verdict


def post(
    address: SplitResult, token: str | None, body: bytes, *, seconds: float
) -> tuple[int, bytes]:
    """The status and the body with which `address` answers the JSON `body` within `seconds`.

    No redirect is followed, and without a way that is fit for the credential nothing is sent.
    CannotRunError where there is no answer.
    """
    found: SimpleQueue[tuple[int, bytes] | CannotRunError] = SimpleQueue()
    # In a thread for the reason that `ask` has.
    thread = threading.Thread(
        target=lambda: found.put(_posted(address, token, body, seconds)), name="post", daemon=True
    )
    thread.start()
    try:
        answer = found.get(timeout=seconds)
    except Empty:
        raise CannotRunError(f"{shown(address)} {_too_late(seconds)}") from None
    if isinstance(answer, CannotRunError):
        raise answer
    return answer


def shown(address: SplitResult) -> str:
    """The address without what may be secret in it: a password, a query."""
    host = address.netloc.rpartition("@")[2]
    return f"{address.scheme}://{host}{quote(address.path, safe='/%:@!$&,;=+~()*')}"


def _asked(address: SplitResult, token: str | None, seconds: float) -> Verdict | CannotRunError:
    try:
        answer = _followed(address, _credential(address, token), seconds)
        return judged(answer.code, answer.body)
    except _NoAnswerError as error:
        return _without_answer(address, str(error))
    except (socket.gaierror, UnicodeError):
        return CannotRunError(f"the name {address.hostname!r} cannot be resolved")
    except Exception as error:  # protects the thread: who waits is told
        return _without_answer(address, _why(error, seconds))


def _posted(
    address: SplitResult, token: str | None, body: bytes, seconds: float
) -> tuple[int, bytes] | CannotRunError:
    try:
        answer = _answer(address, _credential(address, token), seconds, body)
        return answer.code, answer.body
    except _NoAnswerError as error:
        return CannotRunError(f"{shown(address)} {error}")
    except (socket.gaierror, UnicodeError):
        return CannotRunError(f"the name {address.hostname!r} cannot be resolved")
    except Exception as error:  # protects the thread: who waits is told
        return CannotRunError(f"{shown(address)} {_why(error, seconds)}")


def _without_answer(address: SplitResult, why: str) -> Verdict:
    return Verdict(Status.UNHEALTHY, note=f"{shown(address)} {why}")


def _too_late(seconds: float) -> str:
    return f"did not answer within {seconds:g} s"


def _why(error: Exception, seconds: float) -> str:
    """Why there is no answer, without the text of the exception."""
    sentences: Mapping[type[Exception], str] = {
        TimeoutError: _too_late(seconds),
        ConnectionRefusedError: "refused the connection",
        ssl.SSLCertVerificationError: "has a certificate that is not trusted here",
        ssl.SSLError: "does not speak TLS as it should",
        http.client.IncompleteRead: "broke off its answer",
        ConnectionResetError: "closed the connection without an answer",
        http.client.HTTPException: "does not speak HTTP",
    }
    for kind, sentence in sentences.items():
        if isinstance(error, kind):
            return sentence
    return f"could not be asked ({type(error).__name__})"


def _followed(address: SplitResult, credential: bytes | None, seconds: float) -> _Answer:
    """The answer at the end of the redirects that stay on the host, and never leave https.

    One that leads elsewhere is the answer itself.
    """
    here = address
    for _ in range(_MOST_REDIRECTS + 1):
        own = credential if _origin(here) == _origin(address) else None
        answer = _answer(here, own, seconds)
        there = _next(here, answer)
        if there is None:
            return answer
        here = there
    raise _NoAnswerError(f"redirected more than {_MOST_REDIRECTS} times")


def _next(here: SplitResult, answer: _Answer) -> SplitResult | None:
    if answer.code not in _REDIRECTS or not answer.location:
        return None
    try:
        there = urlsplit(urljoin(here.geturl(), answer.location))
        known = there.scheme in _PORTS and there.port != 0
    except ValueError:
        return None
    is_downhill = (here.scheme, there.scheme) == ("https", "http")
    return there if known and there.hostname == here.hostname and not is_downhill else None


def _origin(address: SplitResult) -> tuple[str, str | None, int]:
    return address.scheme, address.hostname, address.port or _PORTS[address.scheme]


def _credential(address: SplitResult, token: str | None) -> bytes | None:
    """The Authorization header: what the address itself holds goes before the token."""
    if address.password is not None:
        pair = f"{unquote(address.username or '')}:{unquote(address.password)}"
        return b"Basic " + b64encode(pair.encode())
    return b"Bearer " + token.encode() if token else None


def _answer(
    address: SplitResult, credential: bytes | None, seconds: float, body: bytes | None = None
) -> _Answer:
    """The answer to a GET, or to a POST of `body`, which goes nowhere without its credential."""
    connection = _connection(address, seconds)
    try:
        connection.connect()
        headers: dict[str, str | bytes] = {"Accept": "application/json, */*;q=0.5"}
        # Asked of the connection itself: what a name resolves to may change at any time.
        if credential and (address.scheme == "https" or is_near(connection.sock.getpeername()[:2])):
            headers["Authorization"] = credential
        elif credential and body is not None:
            raise _NoAnswerError("is neither https nor near: the token is not sent there")
        if body is not None:
            headers["Content-Type"] = "application/json"
        method = "GET" if body is None else "POST"
        connection.request(method, _target(address), body, headers)
        answer = connection.getresponse()
        return _Answer(answer.status, answer.getheader("Location") or "", _body(answer))
    finally:
        connection.close()


def _body(answer: http.client.HTTPResponse) -> bytes:
    body = answer.read(_LONGEST_BODY)
    # Where a length is given to `read`, it does not complain itself.
    if answer.length and len(body) < _LONGEST_BODY:
        raise http.client.IncompleteRead(b"")
    return body


def _connection(address: SplitResult, seconds: float) -> http.client.HTTPConnection:
    _, host, port = _origin(address)
    assert host is not None
    if address.scheme == "https":
        return http.client.HTTPSConnection(host, port, timeout=seconds)
    return http.client.HTTPConnection(host, port, timeout=seconds)


def _target(address: SplitResult) -> str:
    path = quote(address.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(address.query, safe="/%:@!$&'()*+,;=~?")
    return f"{path}?{query}" if query else path
