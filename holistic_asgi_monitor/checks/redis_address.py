"""The address of a Redis server: what its driver is given, and what nobody may read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, unquote

from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address",)

_ALLOWED = "allowed are redis://, rediss:// and unix:// URLs"
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]{0,19})://(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
_HOST = r"(\[[0-9a-zA-Z:.%]+\]|[\w.-]*)"
_NAME = re.compile(r"[\w.:%-]*")
_PLACE = re.compile(rf"(?P<host>{_HOST})(:(?P<port>[0-9]{{0,5}}))?(?P<path>/[^#?]*)?")
# With a : and a later @/ it would rather be a user, a password and a path.
_SOCKET = re.compile(r"/(?!.*:.*@/)[^#]*", re.DOTALL)
# An @ behind one of these is a part of its value, and not the end of a password.
_QUERY = re.compile(
    r"\?(?=([a-z_]+=[^@&]*&)*(client_name|password|path|ssl_[a-z_]*|username)=)", re.DOTALL
)
_PASSWORDS = ("password", "ssl_password")
_PORTS = range(1, 65536)
# Of a URL that was written for the app we take the way to the server; limits are our own.
_TAKEN = re.compile(r"connection_class|host|port|path|db|username|password|ssl_.*")


@dataclass(frozen=True, slots=True)
class Address:
    """The driver's options for a connection, with its class, and the secrets among them."""

    options: dict[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read the URL of the check `name`, in which a password may be quoted or not.

        The last @ ends user and password, which are quoted anew for the driver. Nothing of a
        wrong URL is told but its scheme.
        """
        scheme, rest = _scheme(text.strip(), name)
        userinfo, place, query = _parts(scheme, rest)
        user, _, password = userinfo.partition(":")
        url = f"{scheme}://{_quoted(user, password)}{place}" + (f"?{query}" if query else "")
        options = _read(url) if _leads_somewhere(scheme, place) else None
        if options is None or not _is_place(options):
            raise ConfigurationError(f"The URL of the check {name} cannot be read; {_ALLOWED}")
        known = {text.strip(), password, unquote(password), *_written(query)}
        known |= {str(options.get(each) or "") for each in _PASSWORDS}
        return cls(options, tuple(sorted(known - {""})))


def _scheme(text: str, name: str) -> tuple[str, str]:
    """The scheme, as the driver calls it, and what follows it."""
    found = _URL.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"The URL of the check {name} cannot be read; {_ALLOWED}")
    scheme = found["scheme"].lower()
    if scheme not in _SCHEMES:
        raise ConfigurationError(f"The URL of the check {name} begins with {scheme}://; {_ALLOWED}")
    return _SCHEMES[scheme], found["rest"]


def _parts(scheme: str, rest: str) -> tuple[str, str, str]:
    """The user with the password, the place with the database, the parameters, as written."""
    found = _QUERY.search(rest)
    body, query = (rest, "") if found is None else (rest[: found.start()], rest[found.end() :])
    # The path of a socket begins with a slash, and may hold an @ itself.
    end = (0 if body.startswith("/") else body.rfind("@/")) if scheme == "unix" else body.rfind("@")
    userinfo, place = (body[:end], body[end + 1 :]) if body[end : end + 1] == "@" else ("", body)
    if found is None:
        place, _, query = place.partition("?")
    return userinfo, place, query


def _quoted(user: str, password: str) -> str:
    if not user and not password:
        return ""
    secret = f":{_quote(unquote(password))}" if password else ""
    return f"{_quote(unquote(user))}{secret}@"


def _quote(text: str) -> str:
    # An environment that is no UTF-8 gives texts that cannot be encoded.
    return quote(text, safe="", errors="replace")


def _leads_somewhere(scheme: str, place: str) -> bool:
    if scheme == "unix":
        return _SOCKET.fullmatch(place) is not None
    found = _PLACE.fullmatch(place)
    return found is not None and (not found["port"] or _is_port(found["port"]))


def _read(url: str) -> dict[str, Any] | None:
    """What the driver makes of a URL; None where it is none to it."""
    from redis.asyncio.connection import Connection, parse_url

    try:
        read = parse_url(url)
    except ValueError:
        return None
    taken = {option: value for option, value in read.items() if _TAKEN.fullmatch(option)}
    return {"connection_class": Connection, **taken}


def _is_place(options: dict[str, Any]) -> bool:
    """Whether host and port are such; a parameter of the URL may have given them."""
    host, port = str(options.get("host", "")), str(options.get("port", 6379))
    return _is_port(port) and _NAME.fullmatch(host) is not None


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) < 6 and int(text) in _PORTS


def _written(query: str) -> Iterator[str]:
    """The passwords among the parameters, as they are written."""
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name in _PASSWORDS:
            yield value
