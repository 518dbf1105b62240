"""The address of the database: what the driver is given, and what may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address",)

_URL = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?:(?P<user>[^@:/]*)(?::(?P<password>.*))?@)?"
    r"(?P<hosts>[\w.,:%\[\]-]*)(?:/(?P<database>[^/?@]*))?(?:\?(?P<query>[^@]*))?",
    re.IGNORECASE | re.DOTALL,
)
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?")
_HIGHEST_PORT = 65_535
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_SWITCHES = dict.fromkeys(("true", "1", "yes", "on"), "require")
_SWITCHES |= dict.fromkeys(("false", "0", "no", "off"), "disable")
_TAKEN = frozenset(
    (
        *("host", "port", "user", "password", "dbname", "database", "passfile", "service"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
        *("sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("krbsrvname", "gsslib", "target_session_attrs"),
        *("application_name", "options", "search_path", "statement_timeout"),
    )
)
"""What asyncpg takes out of an address, and settings that people put there. All else it sends to
the server, which does not know what other drivers, SQLAlchemy and Prisma want to be told."""


@dataclass(frozen=True, slots=True)
class Address:
    """`shown` is host:port/database, `user` whom the server knows us as; `dsn` is secret.

    The host may be the folder of a Unix socket.
    """

    shown: str
    database: str
    user: str
    dsn: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL in which the password may be quoted or not; `ConfigurationError` for others.

        A driver's suffix is dropped (`postgresql+asyncpg://`), and so are parameters that asyncpg
        does not know; the last @ ends the password.
        """
        found = _URL.fullmatch(url.strip())
        if found is None:
            raise _refusal("it", "postgresql://user:password@host:port/database")
        query = _taken(found["query"] or "")
        user, password = found["user"] or "", found["password"]
        secret = "" if password is None else f":{quote(unquote(password), safe='')}"
        userinfo = f"{quote(unquote(user), safe='')}{secret}@" if user else ""
        hosts, database = found["hosts"], unquote(found["database"] or "")
        _check(hosts, query)
        if not hosts and "host" not in query:
            hosts = "localhost"
        shown = unquote(hosts) or query["host"]
        end = f"/{quote(database, safe='')}" + (f"?{_written(query)}" if query else "")
        return cls(
            shown=f"{shown}/{database}" if database else shown,
            database=database,
            user=unquote(user) or query.get("user", ""),
            dsn=f"postgresql://{userinfo}{hosts}{end}",
        )


def _taken(query: str) -> dict[str, str]:
    """The parameters that the driver understands; SQLAlchemy's `ssl` is taken for `sslmode`."""
    given = dict(parse_qsl(query))
    mode = given.get("sslmode") or given.pop("ssl", "")
    if mode:
        given["sslmode"] = _SWITCHES.get(mode.lower(), mode).replace("_", "-")
    return {name: text for name, text in given.items() if name in _TAKEN}


def _written(query: Mapping[str, str]) -> str:
    return urlencode(query, quote_via=quote, safe="/")


def _check(hosts: str, query: Mapping[str, str]) -> None:
    """`ConfigurationError` for what the driver would refuse only later, with each attempt."""
    ports = [port for port in query.get("port", "").split(",") if port]
    for host in hosts.split(","):
        found = _HOST.fullmatch(host)
        if found is None:
            raise _refusal("its host", "a name, an IPv4 address, or an IPv6 address in brackets")
        ports += [found["port"]] if found["port"] else []
    if not all(re.fullmatch(r"0*[1-9][0-9]{0,4}", port, re.ASCII) for port in ports) or any(
        int(port) > _HIGHEST_PORT for port in ports
    ):
        raise _refusal("its port", f"a whole number from 1 to {_HIGHEST_PORT}")
    if query.get("sslmode", "prefer") not in _SSL_MODES:
        raise _refusal("its sslmode", f"one of {', '.join(_SSL_MODES)}")


def _refusal(what: str, allowed: str) -> ConfigurationError:
    """What is wrong, without repeating it: it may hold a secret."""
    return ConfigurationError(
        "MONITOR_HISTORY_URL (field history_url) begins with postgresql:, but is no address: "
        f"{what} must be {allowed}."
    )
