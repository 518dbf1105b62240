"""What the exceptions of PostgreSQL's drivers mean; their texts are read by nobody."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence

from holistic_asgi_monitor.checks.dsn import Address

__all__ = ("sqlstate", "told", "was_cut")

_SENTENCES = {
    "28000": "PostgreSQL at {where} does not let {user} in",
    "28P01": "PostgreSQL at {where} rejects the password of {user}",
    "3D000": "{database} does not exist on {where}",
    "42501": "PostgreSQL at {where} does not let {user} into {database}",
    "53300": "PostgreSQL at {where} has no connection left to give",
    "57014": "PostgreSQL at {where} broke off the query",
    "57P03": "PostgreSQL at {where} is starting or stopping and takes no connections",
}
_CUT = frozenset({"08000", "08003", "08006", "57P01", "57P02", "57P05"})
_WITHOUT_SQLSTATE = frozenset({"InterfaceError", "OperationalError"})
_LOST = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from, some steps far."""
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__


def sqlstate(error: BaseException) -> str:
    """The code that the server gave, which all drivers know by this name; empty without one."""
    codes = (getattr(each, "sqlstate", None) for each in _chain(error))
    return next((code for code in codes if isinstance(code, str)), "")


def was_cut(error: BaseException) -> bool:
    """Whether a connection was lost, so that another one may do."""
    code = sqlstate(error)
    if code:
        return code in _CUT
    return any(
        isinstance(each, _LOST)
        or type(each) is ConnectionError
        or type(each).__name__ in _WITHOUT_SQLSTATE
        for each in _chain(error)
    )


def told(error: BaseException, address: Address) -> str:
    """One sentence on what `error` means for who needs the server; nothing of its text is in it."""
    code = sqlstate(error)
    known = _SENTENCES.get(code)
    at = f"PostgreSQL at {address.where}"
    if known is not None:
        return known.format(
            where=address.where,
            user=f"user {address.user}" if address.user else "the user",
            database=f"database {address.database}" if address.database else "the database",
        )
    if code and code not in _CUT:
        return f"{at} answered with an error, SQLSTATE {code}"
    causes = list(_chain(error))
    if any(isinstance(each, OSError) for each in causes):
        return f"{at} {_of_the_network(causes)}"
    if code:
        return f"{at} cut the connection, and once more when asked again"
    if was_cut(error):
        return f"there was no connection to {at}"
    return f"{at} could not be asked ({type(error).__name__})"


def _of_the_network(causes: Sequence[BaseException]) -> str:
    """What the operating system said, of which only the number is read.

    Where a name has several addresses, Python joins what was said of each in one text.
    """
    refused = f"[Errno {errno.ECONNREFUSED}]"
    if any(isinstance(each, ConnectionRefusedError) or refused in str(each) for each in causes):
        return "refuses connections"
    if any(isinstance(each, socket.gaierror) for each in causes):
        return "has a host name that is not known"
    if any(isinstance(each, ssl.SSLError) for each in causes):
        return "and this app do not agree on TLS"
    if any(isinstance(each, _LOST) for each in causes):
        return "cut the connection, and once more when asked again"
    if any(type(each) is ConnectionError for each in causes):
        # It is what asyncpg raises here, and nothing else.
        return "ended the connection where it was asked for TLS"
    return "cannot be reached"
