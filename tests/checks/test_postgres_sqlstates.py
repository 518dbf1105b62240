"""What exceptions of the drivers are taken to mean."""

import errno
import socket
import ssl

import asyncpg
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.checks.sqlstates import sqlstate, told, was_cut

ADDRESS = Address("db:5432", "orders", "shop")
NAMELESS = Address("db:5432")
SECRET = "p#S3cret"

BOTH_ADDRESSES = OSError(
    "Multiple exceptions: [Errno 111] Connect call failed ('::1', 5432, 0, 0), "
    "[Errno 111] Connect call failed ('127.0.0.1', 5432)"
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, SECRET), "{at} refuses connections"),
        (BOTH_ADDRESSES, "{at} refuses connections"),
        (socket.gaierror(-2, SECRET), "{at} cannot be reached: its name is not known"),
        (
            socket.gaierror(socket.EAI_AGAIN, SECRET),
            "{at} cannot be reached: the name service gives no answer",
        ),
        (ssl.SSLError(1, SECRET), "{at} does not agree with this process on TLS"),
        (
            ssl.SSLCertVerificationError(1, SECRET),
            "{at} has a certificate that is not trusted here",
        ),
        (
            OSError(errno.EMFILE, SECRET),
            "{at} cannot be reached: this process has no file descriptor left",
        ),
        (OSError(SECRET), "{at} cannot be reached"),
        (ConnectionError(SECRET), "{at} ended the connection where it was asked for TLS"),
        (ConnectionResetError(SECRET), "{at} cut the connection, and once more when asked again"),
        (FileNotFoundError(2, SECRET), "{at} cannot be reached: there is no such socket"),
        (OSError(errno.EHOSTUNREACH, SECRET), "{at} cannot be reached: there is no route to it"),
        (
            asyncpg.ConnectionDoesNotExistError(SECRET),
            "{at} cut the connection, and once more when asked again",
        ),
        (
            asyncpg.CannotConnectNowError(SECRET),
            "{at} is starting or stopping and takes no connections",
        ),
        (asyncpg.QueryCanceledError(SECRET), "{at} broke off the query"),
        (
            asyncpg.DiskFullError(SECRET),
            (
                "{at} answered with an error: "
                "it is short of disk, memory or connections (SQLSTATE 53100)"
            ),
        ),
        (
            asyncpg.exceptions.IdleSessionTimeoutError(SECRET),
            "{at} cut the connection, and once more when asked again",
        ),
        (
            asyncpg.exceptions.DatabaseDroppedError(SECRET),
            (
                "{at} answered with an error: an operator, or the server itself, intervened"
                " (SQLSTATE 57P04)"
            ),
        ),
        (
            asyncpg.exceptions.PostgresIOError(SECRET),
            "{at} answered with an error: the system it runs on failed (SQLSTATE 58030)",
        ),
        (
            asyncpg.DataCorruptedError(SECRET),
            "{at} answered with an error: an internal fault, perhaps damaged data (SQLSTATE XX001)",
        ),
        (
            asyncpg.ProtocolViolationError(SECRET),
            "{at} answered with an error: the connection failed (SQLSTATE 08P01)",
        ),
        (
            asyncpg.UndefinedObjectError(SECRET),
            "{at} answered with an error, SQLSTATE 42704",
        ),
        (
            asyncpg.exceptions.TargetServerAttributeNotMatched(SECRET),
            "of PostgreSQL at db:5432 none is what target_session_attrs asks for",
        ),
        (
            asyncpg.InsufficientPrivilegeError(SECRET),
            "{at} does not let user shop into database orders",
        ),
        (asyncpg.InterfaceError(SECRET), "there was no connection to {at}"),
        (psycopg.OperationalError(SECRET), "there was no connection to {at}"),
        (
            psycopg.errors.InvalidPassword(SECRET),
            "{at} rejects the password of user shop",
        ),
        (ValueError(SECRET), "{at} could not be asked (ValueError)"),
    ],
)
def test_an_exception_is_told_without_its_text(error: Exception, sentence: str) -> None:
    assert told(error, ADDRESS) == sentence.format(at="PostgreSQL at db:5432")


def test_what_is_not_known_is_not_named() -> None:
    error = asyncpg.InvalidCatalogNameError(SECRET)

    assert told(error, NAMELESS) == "the database does not exist on db:5432"
    assert told(error, ADDRESS) == "database orders does not exist on db:5432"


def test_what_an_exception_was_raised_from_counts() -> None:
    wrapped = DBAPIError("SELECT 1", None, asyncpg.InterfaceError(SECRET))
    wrapped.__cause__ = asyncpg.InvalidPasswordError(SECRET)

    assert sqlstate(wrapped) == "28P01"
    assert not was_cut(wrapped)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        BrokenPipeError(),
        ConnectionError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.InterfaceError("closed"),
        asyncpg.exceptions.AdminShutdownError(),
        asyncpg.exceptions.CrashShutdownError(),
        psycopg.OperationalError(),
        psycopg.errors.AdminShutdown(),
    ],
)
def test_a_connection_that_was_lost_is_worth_another(error: Exception) -> None:
    assert was_cut(error)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionRefusedError(),
        socket.gaierror(),
        asyncpg.InvalidPasswordError(),
        asyncpg.TooManyConnectionsError(),
        asyncpg.CannotConnectNowError(),
        ValueError(),
    ],
)
def test_what_another_connection_would_not_change_is_not(error: Exception) -> None:
    assert not was_cut(error)


def test_a_circle_of_causes_comes_to_an_end() -> None:
    first, second = ValueError(), ValueError()
    first.__cause__, second.__cause__ = second, first

    assert sqlstate(first) == ""
