"""What the exceptions of PostgreSQL's drivers mean; their texts are read by nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.network import causes, failing

__all__ = ("next_may_do", "sqlstate", "told", "was_cut")

_SENTENCES = {
    "28000": "PostgreSQL at {where} does not let {user} in",
    "28P01": "PostgreSQL at {where} rejects the password of {user}",
    "3D000": "{database} does not exist on {where}",
    "42501": "PostgreSQL at {where} does not let {user} into {database}",
    "53300": "PostgreSQL at {where} has no connection left to give",
    "57014": "PostgreSQL at {where} broke off the query",
    "57P03": "PostgreSQL at {where} is starting or stopping and takes no connections",
}
_CLASSES = {
    "08": "the connection failed",
    "53": "it is short of disk, memory or connections",
    "57": "an operator, or the server itself, intervened",
    "58": "the system it runs on failed",
    "XX": "an internal fault, perhaps damaged data",
}
"""What the first two characters of a SQLSTATE stand for."""
_STARTING = "57P03"
_NO_SUCH_SERVER = "TargetServerAttributeNotMatched"
_CUT = frozenset({"08000", "08003", "08006", "57P01", "57P02", "57P05"})
_WITHOUT_SQLSTATE = frozenset({"InterfaceError", "OperationalError"})
_LOST = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


def sqlstate(error: BaseException) -> str:
    """The code that the server gave, which all drivers know by this name; empty without one."""
    codes = (getattr(each, "sqlstate", None) for each in causes(error))
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
        for each in causes(error)
    )


def next_may_do(error: BaseException) -> bool:
    """Whether another one of several servers may answer, as with libpq: this one is not there."""
    return (
        isinstance(error, OSError)
        or sqlstate(error) == _STARTING
        or type(error).__name__ == _NO_SUCH_SERVER
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
        words = _CLASSES.get(code[:2])
        meaning = f": {words} (SQLSTATE {code})" if words else f", SQLSTATE {code}"
        return f"{at} answered with an error{meaning}"
    found = list(causes(error))
    if code in _CUT or any(isinstance(each, _LOST) for each in found):
        return f"{at} cut the connection, and once more when asked again"
    if any(type(each).__name__ == _NO_SUCH_SERVER for each in found):
        return f"of PostgreSQL at {address.where} none is what target_session_attrs asks for"
    return (
        f"{at} {_of_the_network(found)}" if _is_of_the_network(found) else _of_a_driver(error, at)
    )


def _is_of_the_network(found: Iterable[BaseException]) -> bool:
    return any(isinstance(each, OSError) for each in found)


def _of_the_network(found: Sequence[BaseException]) -> str:
    predicate = failing(found[0])
    if predicate is None and any(type(each) is ConnectionError for each in found):
        # It is what asyncpg raises here, and nothing else.
        return "ended the connection where it was asked for TLS"
    return predicate or "cannot be reached"


def _of_a_driver(error: BaseException, at: str) -> str:
    if was_cut(error):
        return f"there was no connection to {at}"
    return f"{at} could not be asked ({type(error).__name__})"
