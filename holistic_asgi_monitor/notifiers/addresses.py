"""Where a notifier posts to: an address that may hold a password or a key, and is never shown."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address", "is_private_way", "refuse_wrong_timeout")

LONGEST_TIMEOUT = 300

_PORTS = {"http": 80, "https": 443}
_UNWRITABLE = re.compile(r"[\x00-\x20\x7f]")
_SAFE = "%/:=&?~+!$,;'@()*[]"


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address, ready to be asked; `authorization` is a header's value."""

    host: str = field(repr=False)
    port: int = field(repr=False)
    tls: bool
    path: str = field(repr=False)
    query: str = field(repr=False)
    authorization: str | None = field(repr=False)

    @classmethod
    def parse(cls, url: object, argument: str) -> Self:
        """Read `url`; ConfigurationError, in which nothing of it stands, where it is none.

        `argument` says whose it is. A user and a password in it become Basic authentication.
        """
        parts = _split(url)
        if parts is None:
            raise ConfigurationError(
                f"The {argument} is not shown and refused: it must be a whole http or https "
                "address, such as https://user:password@alerts.example/on."
            )
        return cls(
            host=_ascii(parts.hostname or ""),
            port=parts.port or _PORTS[parts.scheme],
            tls=parts.scheme == "https",
            path=quote(parts.path or "/", _SAFE),
            query=quote(parts.query, _SAFE),
            authorization=_basic(parts),
        )

    @property
    def target(self) -> str:
        """What a request asks for."""
        return f"{self.path}?{self.query}" if self.query else self.path


def is_private_way(url: object) -> bool:
    """Whether it is an address that a secret may be sent to: by TLS, or within this machine."""
    parts = _split(url)
    if parts is None or "@" in parts.netloc or not parts.geturl().isascii():
        return False
    return parts.scheme == "https" or _is_loopback(parts.hostname or "")


def refuse_wrong_timeout(timeout: object, whose: str) -> float:
    """The timeout in seconds; ConfigurationError where it is none."""
    sound = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not sound or not 0 < float(timeout) <= LONGEST_TIMEOUT:  # type: ignore[arg-type]  # sound
        raise ConfigurationError(
            f"The timeout of {whose} is {timeout!r}: it must be a number of seconds above 0 and "
            f"at most {LONGEST_TIMEOUT}."
        )
    return float(timeout)  # type: ignore[arg-type]  # sound


def _split(url: object) -> SplitResult | None:
    """The parts of a URL; None where it is none that can be asked."""
    if not isinstance(url, str) or _UNWRITABLE.search(url):
        return None
    try:
        parts = urlsplit(url)
        sound = bool(_ascii(parts.hostname or "")) and parts.port != 0
    except ValueError:
        return None
    # An @ behind a # is the end of a password with a # in it, and all before it is no host.
    return parts if sound and parts.scheme in _PORTS and "@" not in parts.fragment else None


def _ascii(host: str) -> str:
    """The name as the network knows it; `ValueError` for what cannot be one."""
    return host if ":" in host else host.encode("idna").decode("ascii")


def _basic(parts: SplitResult) -> str | None:
    if parts.username is None and parts.password is None:
        return None
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode('utf-8', 'replace')).decode('ascii')}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
