"""The address of a PostgreSQL server: what its driver is given, what may be shown, what not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, quote, unquote

from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address",)

_ALLOWED = "allowed is postgresql://user:password@host:port/database"
_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9]{0,19})(\+\w+)?://(?P<rest>.*)", re.DOTALL)
_SCHEMES = ("postgresql", "postgres")
_PORT = 5432
_HOST = re.compile(r"(?P<name>\[[0-9a-zA-Z:.%]+\]|[\w.%-]*)(:(?P<port>[0-9]{1,5})?)?")
# An @ behind one of these is a part of its value, and not the end of a password.
_QUERY = re.compile(
    r"\?(?=(application_name|dbname|database|host|options|passfile|password|port|service"
    r"|ssl[a-z_]*|target_session_attrs|user)=)"
)
_PASSWORDS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Address:
    """A PostgreSQL server, one of its databases, and a user there.

    `where` is host:port, or several of them, or the folder of a Unix socket; it may be shown, as
    may `user` and `database` (empty: the driver's default). `dsn` and `secrets` may not.
    """

    where: str
    database: str = ""
    user: str = ""
    dsn: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    application_name: str = ""

    @property
    def shown(self) -> str:
        """Where it is, with the database."""
        return f"{self.where}/{self.database}" if self.database else self.where

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL in which a password may be quoted or not; `ConfigurationError` for others.

        A driver's suffix is dropped (`postgresql+asyncpg://`). The last @ ends user and password,
        which are quoted anew; the parameters stay as they are.
        """
        userinfo, hosts, database, query = _parts(text.strip())
        user, _, password = userinfo.partition(":")
        parameters = _parameters(query)
        name = unquote(database)
        known = {text.strip(), password, unquote(password)}
        known |= {parameters.get(each, "") for each in _PASSWORDS} | set(_written(query))
        return cls(
            where=",".join(_places(hosts, parameters)),
            database=name or parameters.get("dbname", parameters.get("database", "")),
            user=unquote(user) or parameters.get("user", ""),
            dsn=f"postgresql://{_quoted(user, password)}{hosts}/{_quote(name)}"
            + (f"?{query}" if query else ""),
            secrets=tuple(sorted(known - {""})),
            application_name=parameters.get("application_name", ""),
        )


def _parts(text: str) -> tuple[str, str, str, str]:
    """The user with the password, the hosts, the database and the parameters, as written."""
    url = _URL.fullmatch(text)
    if url is None:
        raise ConfigurationError(f"The address of PostgreSQL is no URL; {_ALLOWED}")
    if url["scheme"].lower() not in _SCHEMES:
        raise ConfigurationError(
            f"The address of PostgreSQL begins with {url['scheme']}://; {_ALLOWED}"
        )
    rest = url["rest"]
    found = _QUERY.search(rest)
    body, query = (rest, "") if found is None else (rest[: found.start()], rest[found.end() :])
    userinfo, _, place = body.rpartition("@")
    if found is None:
        place, _, query = place.partition("?")
    hosts, _, database = place.partition("/")
    return userinfo, hosts, database, query


def _parameters(query: str) -> dict[str, str]:
    """The parameters by name; of several with one name the last holds, as with the driver."""
    try:
        read = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        # Its text holds the parameter, which may be a password.
        raise ConfigurationError(
            "The address of PostgreSQL has a parameter without a value; allowed is ?name=value"
        ) from None
    return {name: values[-1] for name, values in read.items()}


def _written(query: str) -> Iterator[str]:
    """The passwords among the parameters, as they are written."""
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name in _PASSWORDS:
            yield value


def _quoted(user: str, password: str) -> str:
    if not user and not password:
        return ""
    secret = f":{_quote(unquote(password))}" if password else ""
    return f"{_quote(unquote(user))}{secret}@"


def _quote(text: str) -> str:
    # An environment that is no UTF-8 gives texts that cannot be encoded.
    return quote(text, safe="", errors="replace")


def _places(hosts: str, parameters: dict[str, str]) -> Iterator[str]:
    """Each host with its port; nothing of what is no host is ever shown."""
    ports = parameters.get("port", "").split(",")
    for number, host in enumerate((hosts or parameters.get("host", "")).split(",")):
        if host.startswith("/"):
            yield host
            continue
        found = _HOST.fullmatch(host)
        port = found and (found["port"] or ports[min(number, len(ports) - 1)] or str(_PORT))
        if found is None or not port or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ConfigurationError(
                f"The address of PostgreSQL has no host and port where they belong; {_ALLOWED}"
            )
        name = unquote(found["name"])
        yield name if name.startswith("/") else f"{name or 'localhost'}:{port}"
