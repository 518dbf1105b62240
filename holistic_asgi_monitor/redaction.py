"""What is taken out of a text before anybody may read it: passwords, keys, webhook addresses.

Sentences of ours are made of safe parts to begin with. This is the last door: what a check, a
user's alert or a name brings along passes through it on its way into answers, alerts and logs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from holistic_asgi_monitor.model import CheckResult

__all__ = ("HIDDEN", "Redaction", "passwords")

HIDDEN = "***"
SHORTEST = 4
"""A shorter secret is not looked for: it would be found in half of all words."""

LONGEST_USER, LONGEST_PASSWORD = 256, 512

_OPEN = frozenset(
    (
        *("admin", "cache", "database", "default", "guest", "localhost", "login", "openai"),
        *("pass", "passw0rd", "password", "postgres", "postgresql", "redis", "root", "secret"),
        *("service", "system", "test", "token", "user", "valkey"),
    )
)
"""Words that every sentence may hold: hiding them would hide nothing, and make it unreadable."""

_USER = re.compile(rf"://[^\s:/@\[]{{0,{LONGEST_USER}}}:")
_AUTHORITY = re.compile(rf"[^\s]{{0,{LONGEST_PASSWORD}}}")
_PORT = re.compile(r"[0-9]{1,5}(?:[/?#,;)\"']|$)")
_PATTERNS = (
    re.compile(r"\b(?:sk|rk|pk)[-_][A-Za-z0-9_*-]{6,}"),
    re.compile(r"\bxox[a-z]-[A-Za-z0-9-]{6,}"),
    re.compile(r"(?<=hooks\.slack\.com/)[^\s\"'<>|]+"),
    re.compile(r"(?<=/services/)T\w*/B\w*/\w+"),
    re.compile(r"(?<=/api/webhooks/)[0-9]+/[\w-]+"),
    re.compile(r"(?<=\bBearer )[^\s\"',]+", re.IGNORECASE),
    re.compile(r"(?<=\bBasic )[A-Za-z0-9+/=]{4,}"),
)
_NAMED = re.compile(
    r"\b(?P<name>(?:ssl)?password|passwd|pwd|secret|(?:access_?|auth_?)?token|api_?key)=[^\s&;,\"']+",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^:@/\[]*:(.+)@", re.IGNORECASE)
_MARKS = re.compile(r"[#/?:@]")
_QUOTED = re.compile("%[0-9A-F]{2}")


def passwords(address: str) -> tuple[str, ...]:
    """The password in an address, as it is written there and as it is meant; none without one.

    An address may break the rules: everything between the first colon of the user and the last @
    is taken for the password. A driver that follows the rules may tell only a piece of it in its
    errors, so the pieces are given as well.
    """
    found = _PASSWORD.match(address)
    if found is None:
        return ()
    pieces = [piece for piece in _MARKS.split(found[1]) if len(piece) > SHORTEST]
    return tuple(dict.fromkeys((found[1], unquote(found[1]), *pieces)))


def _forms(secret: str) -> set[str]:
    """A secret as it looks in a URL and in JSON."""
    quoted = {quote(secret), quote(secret, safe=""), quote_plus(secret)}
    lower = {_QUOTED.sub(lambda code: code[0].lower(), each) for each in quoted}
    return {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]} | (
        quoted | lower
    )


def _without_passwords(text: str) -> str:
    """The text without the passwords of the addresses in it: what stands before the last @."""
    kept, done = [], 0
    for found in _USER.finditer(text):
        begin = found.end()
        authority = _AUTHORITY.match(text, begin)
        assert authority is not None
        end = authority[0].rfind("@")
        if begin < done or end < 1 or _PORT.match(authority[0]):
            continue
        kept += [text[done:begin], HIDDEN]
        done = begin + end
    return "".join([*kept, text[done:]])


class Redaction:
    """Takes secrets out: those given, and what looks like one.

    `secrets` are texts as they are; how they look in a URL and in JSON is hidden too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        named = {
            secret for secret in secrets if len(secret) >= SHORTEST and secret.lower() not in _OPEN
        }
        known = {form for secret in named for form in _forms(secret)}
        # The longest first: a secret may be part of another.
        longest_first = sorted(known, key=lambda secret: (-len(secret), secret))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def text(self, text: str) -> str:
        """The text with three stars in the place of each secret; takes time in its length."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        if "://" in text:
            text = _without_passwords(text)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return _NAMED.sub(rf"\g<name>={HIDDEN}", text)

    def value(self, value: Any) -> Any:
        """JSON values with every text in them redacted, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value

    def result(self, result: CheckResult) -> CheckResult:
        """A check's result as it may be published."""
        message, details = self.text(result.message), self.value(dict(result.details))
        return replace(result, message=message, details=details)
