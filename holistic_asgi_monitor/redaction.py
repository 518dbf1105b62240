"""What is taken out of a text before anybody may read it: passwords, keys, webhook addresses.

Sentences of ours are made of safe parts to begin with. This is the last door: what a check, a
user's alert or a name brings along passes through it on its way into answers, alerts and logs.
"""

from __future__ import annotations

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

_USERINFO = re.compile(r"(?P<start>\b[a-z][a-z0-9+.-]*://[^\s:@/\[]*:)[^\s@]+(?=@)", re.IGNORECASE)
_PATTERNS = (
    re.compile(r"\b(?:sk|rk|pk)-[A-Za-z0-9_*-]{6,}"),
    re.compile(r"\bxox[a-z]-[A-Za-z0-9-]{6,}"),
    re.compile(r"(?<=hooks\.slack\.com/)[^\s\"'<>|]+"),
    re.compile(r"(?<=\bBearer )[^\s\"',]+", re.IGNORECASE),
    re.compile(r"(?<=\bBasic )[A-Za-z0-9+/=]{6,}"),
)
_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^:@/\[]*:(.+)@", re.IGNORECASE)


def passwords(address: str) -> tuple[str, ...]:
    """The password in an address, as it is written there and as it is meant; none without one.

    An address may break the rules: everything between the first colon of the user and the last @
    is taken for the password.
    """
    found = _PASSWORD.match(address)
    return () if found is None else tuple({found[1], unquote(found[1])})


class Redaction:
    """Takes secrets out: those given, and what looks like one.

    `secrets` are texts as they are; how they look when quoted for a URL is hidden too.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST}
        known |= {quoted(secret) for secret in known for quoted in (quote, quote_plus)}
        # The longest first: a secret may be part of another.
        longest_first = sorted(known, key=lambda secret: (-len(secret), secret))
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def text(self, text: str) -> str:
        """The text with three stars in the place of each secret."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _USERINFO.sub(rf"\g<start>{HIDDEN}", text)
        for pattern in _PATTERNS:
            text = pattern.sub(HIDDEN, text)
        return text

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
