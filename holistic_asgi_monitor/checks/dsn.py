"""The address of a PostgreSQL server: what its driver is given, what may be shown, what not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, quote, unquote, unquote_plus

from holistic_asgi_monitor.checks.network import joined
from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address",)

_ALLOWED = "allowed is postgresql://user:password@host:port/database"
_URL = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9]{0,19})(\+\w+)?://(?P<rest>.*)", re.DOTALL)
_SCHEMES = ("postgresql", "postgres")
_PORT = "5432"
_SYSTEM = "system"
"""What libpq takes as `sslrootcert` for the authorities of the operating system."""
_HOST = re.compile(r"(?P<name>/.*|\[[0-9a-zA-Z:.%]+\]|[\w.%-]*)(:(?P<port>[0-9]{1,5})?)?")
# An @ behind one of these is a part of its value, and not the end of a password.
_QUERY = re.compile(
    r"\?(?=(application_name|dbname|database|host|options|passfile|password|port|service"
    r"|ssl[a-z_]*|target_session_attrs|user)=)"
)
_PASSWORDS = ("password", "sslpassword")
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_TARGETS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")
_VALUES = {
    "sslmode": _MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _VERSIONS,
    "ssl_max_protocol_version": _VERSIONS,
    "gsslib": ("gssapi", "sspi"),
    "target_session_attrs": _TARGETS,
}
_TAKEN = {
    *_VALUES,
    *_FILES,
    *_PASSWORDS,
    *("host", "port", "user", "dbname", "database", "passfile", "service", "krbsrvname"),
    *("application_name", "options", "search_path", "statement_timeout"),
}
"""What asyncpg takes out of an address. All else it sends to the server as a setting, which does
not know what other drivers, SQLAlchemy and Prisma put there: so that is left out."""
_SWITCHES = dict.fromkeys(("true", "1", "yes", "on"), "require")
_SWITCHES |= dict.fromkeys(("false", "0", "no", "off"), "disable")


@dataclass(frozen=True, slots=True)
class Address:
    """A PostgreSQL server, one of its databases, and a user there.

    `where` is host:port, or several of them, or the folder of a Unix socket; it may be shown, as
    may `user` and `database` (empty: the driver's default). `dsn` and `secrets` may not.

    `places` are the same as pairs of host, or folder, and port; empty where the driver must find
    them itself. `target` is which of several servers will do, by `target_session_attrs`. `files`
    are the parameters that name files for TLS; `system_authorities` says that those of the
    operating system vouch for the server.
    """

    where: str
    database: str = ""
    user: str = ""
    dsn: str = field(default="", repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    application_name: str = ""
    places: tuple[tuple[str, int], ...] = ()
    target: str = ""
    files: tuple[str, ...] = ()
    system_authorities: bool = False

    @property
    def shown(self) -> str:
        """Where it is, with the database."""
        return f"{self.where}/{self.database}" if self.database else self.where

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Self:
        """Read a URL in which a password may be quoted or not; `ConfigurationError` for others.

        A driver's suffix is dropped (`postgresql+asyncpg://`), as are parameters that asyncpg does
        not know. The last @ ends user and password, which are quoted anew. What the address does
        not say, `environ` does, else `os.environ`, by the variables of PostgreSQL.
        """
        environ = os.environ if environ is None else environ
        userinfo, hosts, path, query = _parts(text.strip())
        user, _, password = userinfo.partition(":")
        parameters = _parameters(query)
        places = tuple(_places(hosts, parameters, environ))
        name = unquote(path)
        known = {parameters.get(each, "") for each in _PASSWORDS} | set(_written(query))
        known |= {password or environ.get("PGPASSWORD", ""), unquote(password), text.strip()}
        return cls(
            where=",".join(map(_shown, places)) or _somewhere(parameters, environ),
            database=name or _first(parameters, ("dbname", "database"), environ, "PGDATABASE"),
            user=unquote(user) or _first(parameters, ("user",), environ, "PGUSER"),
            dsn=f"postgresql://{_quoted(user, password)}{hosts}"
            + (f"/{_quote(name)}" if name else "")
            + _taken(query, parameters),
            secrets=tuple(sorted(known - {""})),
            application_name=parameters.get("application_name", ""),
            places=places,
            target=_first(parameters, ("target_session_attrs",), environ, "PGTARGETSESSIONATTRS"),
            files=tuple(_files(parameters, environ)),
            system_authorities=parameters.get("sslrootcert") == _SYSTEM,
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
    """The parameters by name; of several with one name the last holds, as with the driver.

    Hosts and ports all hold, as with SQLAlchemy. Its `ssl` is taken for `sslmode`.
    """
    try:
        read = parse_qs(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        # Its text holds the parameter, which may be a password.
        raise ConfigurationError(
            "The address of PostgreSQL has a parameter without a value; allowed is ?name=value"
        ) from None
    known = {name: values[-1] for name, values in read.items()}
    known |= {name: ",".join(read[name]) for name in ("host", "port") if name in read}
    mode = known.get("sslmode") or known.get("ssl", "")
    known["sslmode"] = _SWITCHES.get(mode.lower(), mode).replace("_", "-")
    for name, allowed in _VALUES.items():
        if known.get(name) and known[name] not in allowed:
            raise ConfigurationError(
                f"The address of PostgreSQL has a wrong {name}; allowed is {', '.join(allowed)}"
            )
    return known


def _taken(query: str, parameters: Mapping[str, str]) -> str:
    """The part of `query` that asyncpg understands, as it is written, with its ? before it."""
    pieces = {}
    for piece in query.split("&"):
        name = unquote_plus(piece.partition("=")[0])
        if name in {"ssl", "sslmode"}:
            pieces["sslmode"] = f"sslmode={parameters['sslmode']}"
        elif name in _TAKEN and (name, parameters.get(name)) != ("sslrootcert", _SYSTEM):
            pieces[name] = piece
    return f"?{'&'.join(pieces.values())}" if pieces else ""


def _first(
    parameters: Mapping[str, str], names: tuple[str, ...], environ: Mapping[str, str], variable: str
) -> str:
    """The first of the parameters that is set, else the variable, else nothing."""
    found = (parameters.get(name) for name in names)
    return next(filter(None, found), "") or environ.get(variable, "")


def _files(parameters: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """The names under which files for TLS are named."""
    for name in _FILES:
        if parameters.get(name):
            yield name
        elif environ.get(f"PG{name.upper()}"):
            yield f"PG{name.upper()}"


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


def _places(
    hosts: str, parameters: Mapping[str, str], environ: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """Each host with its port; nothing of what is no host is ever shown."""
    hosts = hosts or parameters.get("host", "")
    if not hosts and not parameters.get("service"):
        hosts = environ.get("PGHOST", "")
    ports = _ports(parameters, environ)
    for number, host in enumerate(hosts.split(",") if hosts else ()):
        found = _HOST.fullmatch(host)
        port = (found and found["port"]) or ports[min(number, len(ports) - 1)]
        if found is None or not _is_port(port):
            raise ConfigurationError(
                f"The address of PostgreSQL has no host and port where they belong; {_ALLOWED}"
            )
        yield unquote(found["name"]).strip("[]") or "localhost", int(port)


def _ports(parameters: Mapping[str, str], environ: Mapping[str, str]) -> list[str]:
    given = _first(parameters, ("port",), environ, "PGPORT")
    return [port or _PORT for port in given.split(",")]


def _is_port(text: str) -> bool:
    return text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536


def _shown(place: tuple[str, int]) -> str:
    host, port = place
    return host if host.startswith("/") else joined(host, port)


def _somewhere(parameters: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Where the driver looks when nothing names a host."""
    if parameters.get("service"):
        return "the place that its service file names"
    port = _ports(parameters, environ)[0]
    if not _is_port(port):
        raise ConfigurationError(f"The address of PostgreSQL has no port in numbers; {_ALLOWED}")
    return f"a local socket or localhost:{port}"
