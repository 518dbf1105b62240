"""One setting as a variable, and where its value is found: in the environment and in files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import Any

from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings.kinds import Kind, RefusedError

__all__ = ("OTHER_VARIABLES", "PREFIX", "Variable", "closest", "in_force", "pair", "value_of")

_ENV_FILE = "MONITOR_ENV_FILE"
PREFIX = "MONITOR_"

OTHER_VARIABLES = frozenset({"MONITOR_ENV_FILE", "MONITOR_NAMING"})
"""Variables of the package that are no field of `Settings`, and yet not unknown."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: its environment variable, what it is for, and which values are allowed.

    `text` is one sentence of documentation. A `secret` is never shown, and its variable has a
    twin `NAME_FILE`. `fallbacks` are the variables that are asked where it is not set;
    `otherwise` says in words what holds where nothing is set, if that is not a plain default.
    """

    name: str
    text: str
    kind: Kind
    secret: bool = False
    fallbacks: tuple[str, ...] = ()
    otherwise: str = ""

    @property
    def attribute(self) -> str:
        """The name of the field."""
        return self.name.removeprefix(PREFIX).lower()

    @property
    def allowed(self) -> str:
        """Which values are allowed, in words that complete "it must be"."""
        return self.kind.allowed

    def read(self, text: str, source: str) -> Any:
        """The value that `text`, found in `source`, stands for; None where it stands for none."""
        return self._judged(self.kind.read, text, source)

    def take(self, value: object) -> Any:
        """The value as it is kept, None where it is blank; ConfigurationError if not allowed."""
        return self._judged(self.kind.take, value, self.name)

    def _judged(self, judge: Callable[[Any], object], value: object, source: str) -> Any:
        reason = ""
        try:
            return judge(value)
        except RefusedError as refused:
            reason = f" ({refused})" if refused.args else ""
        # Raised out here, so that no traceback shows what was refused.
        raise ConfigurationError(
            f"{source} (field {self.attribute}) {self._seen(value)}{reason}: "
            f"it must be {self.allowed}."
        )

    def _seen(self, value: object) -> str:
        if self.secret:
            return "has a secret value, not shown, that is refused"
        return f"is {_shown(value)}"


def _shown(value: object) -> str:
    """A value for an error message: short, and without a password that an address may hold."""
    short = Repr()
    short.maxstring = short.maxother = 100
    # Before it is shortened, since that may take the sign that ends a password.
    seen = re.sub(r"//\S*@", "//...@", value) if isinstance(value, str) else value
    try:
        return short.repr(seen)
    except ValueError:
        # Python refuses to write out very long integers.
        return f"a very long {type(value).__name__}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`; without the prefix, that makes all of them alike."""
    bare = {each.removeprefix(PREFIX): each for each in sorted(known)}
    found = get_close_matches(name.removeprefix(PREFIX), bare, n=1)
    return bare[found[0]] if found else None


def in_force(environ: Mapping[str, str] | None, variables: Iterable[Variable]) -> dict[str, str]:
    """The variables that are set, in the environment or else in the file MONITOR_ENV_FILE.

    An empty text is no value, except where it switches something off.
    """
    blanks = {variable.name for variable in variables if variable.kind.keeps_blank}

    def filled(found: Mapping[str, str]) -> dict[str, str]:
        stripped = {name: text.strip() for name, text in found.items()}
        return {name: text for name, text in stripped.items() if text or name in blanks}

    real = filled(os.environ if environ is None else environ)
    if _ENV_FILE not in real:
        return real
    listed = filled(_listed(real[_ENV_FILE]))
    # What the environment gives as a value or as a file, it gives for both.
    given = real.keys() | {name.removesuffix("_FILE") for name in real}
    return {
        name: text for name, text in listed.items() if name.removesuffix("_FILE") not in given
    } | real


def value_of(variable: Variable, found: Mapping[str, str]) -> Any:
    """The value of a setting, None where nothing gives one."""
    for name in (variable.name, *variable.fallbacks):
        if name in found:
            _refuse_twins(variable, found)
            return variable.read(found[name], name)
    named = f"{variable.name}_FILE"
    if not variable.secret or named not in found:
        return None
    text = _content(found[named], named).strip()
    if not text:
        raise ConfigurationError(f"{named} names the file {found[named]!r}, which is empty.")
    return variable.read(text, named)


def _refuse_twins(variable: Variable, found: Mapping[str, str]) -> None:
    if variable.secret and f"{variable.name}_FILE" in found:
        raise ConfigurationError(
            f"{variable.name} and {variable.name}_FILE are both set: only one of them may be."
        )


def _content(path: str, source: str) -> str:
    """The text of the file at `path`, which the variable `source` names."""
    reason = "cannot be read"
    try:
        return Path(path).read_text("utf-8-sig")
    except FileNotFoundError:
        reason = "does not exist"
    except UnicodeDecodeError:
        reason = "is not UTF-8 text"
    except (OSError, ValueError):
        pass
    # Raised out here, so that no traceback shows what the file holds.
    raise ConfigurationError(f"{source} names the file {path!r}, which {reason}.")


_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_QUOTED = re.compile(r"""\s*(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:\s#.*)?""")


def _listed(path: str) -> dict[str, str]:
    """The variables in the file at `path`: NAME=VALUE lines as a shell reads them."""
    listed: dict[str, str] = {}
    for number, line in enumerate(_content(path, _ENV_FILE).split("\n"), start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            found = pair(text)
            if found is None:
                raise ConfigurationError(
                    f"{_ENV_FILE} names the file {path!r}, whose line {number} is not NAME=VALUE "
                    "with the value bare or in matching quotes."
                )
            listed[found[0]] = found[1]
    return listed


def pair(line: str) -> tuple[str, str] | None:
    """The name and the value that a line assigns, None where it assigns nothing."""
    found = _ASSIGNMENT.fullmatch(line)
    if found is None:
        return None
    name, rest = found.groups()
    quoted = _QUOTED.fullmatch(rest)
    if quoted is not None:
        single, double = quoted.groups()
        return name, re.sub(r'\\(["\\$`])', r"\1", double) if single is None else single
    bare = re.sub(r"\s#.*", "", rest).strip()
    return None if bare.startswith(("'", '"')) else (name, bare)
