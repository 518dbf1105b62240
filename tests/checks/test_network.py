"""What failures of the network mean, in words."""

import errno
import socket
import ssl
from datetime import UTC, datetime

import pytest

from holistic_asgi_monitor.checks.loops import StillRunningError
from holistic_asgi_monitor.checks.network import causes, failing, hideable, joined


def number(value: int) -> OSError:
    return OSError(value, "hunter2")


def untrusted(code: int) -> ssl.SSLError:
    error = ssl.SSLCertVerificationError(1, "hunter2")
    error.verify_code = code
    return error


def of_tls(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, "hunter2")
    error.reason = reason
    return error


WORDS: list[tuple[BaseException, str | None]] = [
    (number(errno.ECONNREFUSED), "refuses connections"),
    (number(errno.ECONNRESET), "cut the connection"),
    (number(errno.EPIPE), "cut the connection"),
    (ConnectionResetError("Connection lost"), "cut the connection"),
    (number(errno.ENOENT), "cannot be reached: there is no such socket"),
    (number(errno.EHOSTUNREACH), "cannot be reached: there is no route to it"),
    (number(errno.EACCES), "cannot be reached: this process may not connect to it"),
    (number(errno.EMFILE), "cannot be reached: this process has no file descriptor left"),
    (number(errno.ETIMEDOUT), "does not accept connections"),
    (socket.gaierror(socket.EAI_NONAME, "hunter2"), "cannot be reached: its name is not known"),
    (
        socket.gaierror(socket.EAI_AGAIN, "hunter2"),
        "cannot be reached: the name service gives no answer",
    ),
    (
        StillRunningError(datetime(2026, 11, 26, tzinfo=UTC)),
        "cannot be reached: the name service gives no answer",
    ),
    (untrusted(9), "has a certificate that is not valid yet"),
    (untrusted(10), "has a certificate that has expired"),
    (untrusted(18), "has a self-signed certificate"),
    (untrusted(20), "has a certificate from an authority that is not trusted here"),
    (untrusted(23), "has a certificate that was revoked"),
    (untrusted(62), "has a certificate for another name"),
    (untrusted(64), "has a certificate for another address"),
    (untrusted(99), "has a certificate that is not trusted here"),
    (of_tls("WRONG_VERSION_NUMBER"), "does not speak TLS"),
    (of_tls("NO_SHARED_CIPHER"), "does not agree with this process on TLS"),
    (ssl.SSLEOFError(8, "hunter2"), "cut the connection"),
    (OSError("Multiple exceptions: [Errno 111] ::1, [Errno 111] 127.0.0.1"), "refuses connections"),
    (OSError("Multiple exceptions: [Errno 111] ::1, [Errno 113] 127.0.0.1"), None),
    (TimeoutError(), None),
    (ValueError("hunter2"), None),
]


@pytest.mark.parametrize(("error", "words"), WORDS)
def test_a_failure_has_its_words(error: BaseException, words: str | None) -> None:
    assert failing(error) == words


def test_what_a_failure_came_from_is_looked_at() -> None:
    outer, middle = RuntimeError(), ValueError()
    middle.__context__ = number(errno.ECONNREFUSED)
    outer.__cause__ = middle

    assert failing(outer) == "refuses connections"


def test_causes_that_go_in_a_circle_end() -> None:
    first, second = ValueError(), TypeError()
    first.__context__, second.__context__ = second, first

    assert list(causes(first)) == [first, second]
    assert failing(first) is None


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("db", 5432, "db:5432"),
        ("::1", 6379, "[::1]:6379"),
        ("db", None, "db"),
        ("::1", None, "[::1]"),
    ],
)
def test_host_and_port_are_one_text(host: str, port: int | None, text: str) -> None:
    assert joined(host, port) == text


@pytest.mark.parametrize("secret", ["S3cret", "cache-2", "prod1", "edis"])
def test_a_secret_is_hidden_where_a_sentence_can_still_be_read(secret: str) -> None:
    assert hideable([secret, secret], "cache-1.prod:6379", "redis") == (secret,)


@pytest.mark.parametrize(
    "secret", ["", "abc", "cache", "Prod", "6379", "REDIS", "cache-1.prod:6379"]
)
def test_a_word_that_is_shown_all_the_same_is_not_hidden(secret: str) -> None:
    assert hideable([secret], "cache-1.prod:6379", "redis") == ()
