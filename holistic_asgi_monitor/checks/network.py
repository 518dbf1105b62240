"""What a failure on the way to another service means, in words; none of the failure's own."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterable, Iterator

from holistic_asgi_monitor.checks.loops import StillRunningError
from holistic_asgi_monitor.redaction import SHORTEST

__all__ = ("causes", "failing", "hideable", "joined")

_NO_ROUTE = "cannot be reached: there is no route to it"
_NOT_ALLOWED = "cannot be reached: this process may not connect to it"
_CUT = "cut the connection"
_NO_FILES = "cannot be reached: this process has no file descriptor left"
_NO_TLS = "does not speak TLS"
_NO_NAMES = "cannot be reached: the name service gives no answer"

_ERRNO = {
    errno.ECONNREFUSED: "refuses connections",
    errno.ENOENT: "cannot be reached: there is no such socket",
    errno.ENETUNREACH: _NO_ROUTE,
    errno.EHOSTUNREACH: _NO_ROUTE,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.EMFILE: _NO_FILES,
    errno.ENFILE: _NO_FILES,
    errno.EADDRNOTAVAIL: "cannot be reached: no local port is free",
    errno.ETIMEDOUT: "does not accept connections",
}
_UNTRUSTED = "has a certificate from an authority that is not trusted here"
# The numbers are OpenSSL's (x509_vfy.h); Python has no names for them.
_CERTIFICATE = {
    9: "has a certificate that is not valid yet",
    10: "has a certificate that has expired",
    18: "has a self-signed certificate",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "has a certificate that was revoked",
    62: "has a certificate for another name",
    64: "has a certificate for another address",
}
_NUMBER = re.compile(r"\[Errno (\d+)\]")


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception itself, then what it came from, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def failing(error: BaseException) -> str | None:
    """What the service does or lacks, as a predicate: "refuses connections".

    What the exception came from is looked at too; None where nothing is known of any of them.
    """
    return next(filter(None, map(_predicate, causes(error))), None)


def joined(host: str, port: int | None) -> str:
    """Host and port as one text, an IPv6 address in brackets; the host alone without a port."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def hideable(secrets: Iterable[str], *shown: str) -> tuple[str, ...]:
    """Those of `secrets` that can be taken out of a sentence so that it can still be read.

    A password that is a word of what is `shown` all the same, a host or a database for example,
    gives nothing away there, and three stars in its place would.
    """
    words = {word for text in shown for word in (text.lower(), *re.split(r"\W+", text.lower()))}
    kept = {secret for secret in secrets if len(secret) >= SHORTEST and secret.lower() not in words}
    return tuple(sorted(kept))


def _predicate(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLError):
        return _tls(error)
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return _NO_NAMES
        return "cannot be reached: its name is not known"
    if isinstance(error, StillRunningError):
        return _NO_NAMES
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return _CUT
    return _ERRNO.get(_number(error)) if isinstance(error, OSError) else None


def _number(error: OSError) -> int:
    """The number of the error; where several addresses were tried, the one that all gave."""
    if error.errno is not None:
        return error.errno
    # asyncio sums them up in a text, without a number of its own.
    numbers = {int(each) for each in _NUMBER.findall(str(error))}
    return numbers.pop() if len(numbers) == 1 else 0


def _tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(
            getattr(error, "verify_code", 0), "has a certificate that is not trusted here"
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _CUT
    # Only what OpenSSL said has a reason.
    if getattr(error, "reason", None) in {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
    }:
        return _NO_TLS
    return "does not agree with this process on TLS"
