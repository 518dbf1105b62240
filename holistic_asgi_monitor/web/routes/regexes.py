r"""Regular expressions as templates: `^items/(?P<id>\d+)/$` becomes `items/{id}/`.

Django's `re_path` and Falcon's sinks are written as regular expressions. What they capture by name
becomes `{name}`, everything else that varies becomes `{var}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ("template_of",)

_VAR = "{var}"
_TOKEN = re.compile(
    r"""
      (?P<escape>\\.)
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<repeat>(?:[*+?]|\{\d*,?\d*\})[?+]?)
    | (?P<anchor>[\^$])
    | (?P<open>\((?:\?(?:P<(?P<name>\w+)>|P[=>]\w+|[a-zA-Z-]*:|[=!>]|<[=!]|[a-zA-Z#-]*))?)
    | (?P<close>\))
    | (?P<text>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_NOTHING = frozenset(("\\A", "\\Z", "\\b", "\\B"))
_WITHOUT_WIDTH = frozenset(("(?=", "(?!", "(?<=", "(?<!"))
_RUN = re.compile(r"(?:\{var\}){2,}")


def template_of(pattern: str) -> str:
    """The template that a regular expression stands for."""
    return _RUN.sub(_VAR, _level(_TOKEN.finditer(pattern)))


def _level(tokens: Iterator[re.Match[str]]) -> str:
    """Read up to the parenthesis that closes this level, or to the end."""
    parts: list[str] = []
    for token in tokens:
        kind, text = token.lastgroup, token.group()
        if kind == "close":
            break
        if token["open"] is not None:
            parts.append(_group(token, _level(tokens)))
        elif kind == "repeat":
            _repeat(parts)
        elif kind != "anchor":
            parts.append(_single(kind, text))
    return "".join(parts)


def _group(opening: re.Match[str], inside: str) -> str:
    text = opening.group()
    if opening["name"]:
        return "{" + opening["name"] + "}"
    if text in _WITHOUT_WIDTH:
        return ""
    if text.endswith(":") or text == "(?>":
        # A group that captures nothing only holds its text together, unless there is a choice.
        return _VAR if "|" in inside else inside
    return _VAR if text == "(" else ""


def _repeat(parts: list[str]) -> None:
    """A full stop that repeats varies; one that does not is a full stop somebody did not escape."""
    if parts and parts[-1] == ".":
        parts[-1] = _VAR


def _single(kind: str | None, text: str) -> str:
    if kind == "set":
        return _VAR
    if kind != "escape":
        return text
    if text in _NOTHING:
        return ""
    return _VAR if text[1].isalnum() else text[1]
