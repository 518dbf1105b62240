"""The address of the database: what the driver is given, and what may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote, unquote

from holistic_asgi_monitor.model import ConfigurationError

__all__ = ("Address",)

_URL = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?:(?P<user>[^@:/]*)(?::(?P<password>.*))?@)?"
    r"(?P<hosts>[\w.,:%\[\]-]*)(?:/(?P<database>[^/?@]*))?(?:\?(?P<query>[^@]*))?",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Address:
    """`shown` is host:port/database, `user` whom the server knows us as; `dsn` is secret."""

    shown: str
    database: str
    user: str
    dsn: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL in which the password may be quoted or not; `ConfigurationError` for others.

        A driver's suffix is dropped (`postgresql+asyncpg://`), the last @ ends the password.
        """
        found = _URL.fullmatch(url.strip())
        if found is None:
            raise ConfigurationError(
                "MONITOR_HISTORY_URL (field history_url) begins with postgresql:, but is no "
                "address: it must be postgresql://user:password@host:port/database."
            )
        user, password = found["user"] or "", found["password"]
        secret = "" if password is None else f":{quote(unquote(password), safe='')}"
        userinfo = f"{quote(unquote(user), safe='')}{secret}@" if user else ""
        hosts, database = found["hosts"] or "localhost", found["database"] or ""
        query = f"?{found['query']}" if found["query"] else ""
        return cls(
            shown=f"{hosts}/{unquote(database)}" if database else hosts,
            database=unquote(database),
            user=unquote(user),
            dsn=f"postgresql://{userinfo}{hosts}/{database}{query}",
        )
