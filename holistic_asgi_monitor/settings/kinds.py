"""Which values a setting may have: how each kind of them is read and judged."""

# What `read` and `take` do is said in `Kind`.
# ruff: noqa: D102

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from itertools import pairwise
from reprlib import Repr
from typing import TypeVar
from unicodedata import category
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

__all__ = (
    "RESERVED_LABELS",
    "YEAR_SECONDS",
    "Address",
    "Buckets",
    "Choice",
    "Expression",
    "Fixed",
    "Flag",
    "FlagOrAuto",
    "Kind",
    "LabelPairs",
    "Names",
    "Number",
    "PriceTable",
    "RefusedError",
    "Text",
    "TimeOfDay",
    "TimeZone",
    "is_writable",
    "number_in",
)

RESERVED_LABELS = frozenset(
    {
        "check",
        "code",
        "endpoint",
        "environment",
        "error_type",
        "feature",
        "kind",
        "le",
        "method",
        "model",
        "monitor_version",
        "name",
        "notifier",
        "outcome",
        "part",
        "quantile",
        "scope",
        "service",
        "severity",
        "status",
        "version",
        "window",
    }
)
"""Label names that our own metrics use, or Prometheus does: no constant label may have them."""

_PRICE_KINDS = frozenset({"input", "output", "cached", "audio_input", "audio_output"})
_MOST_DOLLARS = 1_000_000
YEAR_SECONDS = 366 * 24 * 3600
_LAST_HOUR, _LAST_MINUTE = 23, 59
_AUTO = "auto"
_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class RefusedError(Exception):
    """A value is not allowed; the text may say which part of it, and never repeats a secret."""


@dataclass(frozen=True, slots=True)
class Kind(ABC):
    """Which values a setting may have, from a variable's text or from code.

    `allowed` completes "it must be"; `keeps_blank` says that an empty text is a value of its own
    and not the same as none.
    """

    allowed: str
    keeps_blank: bool = False

    def read(self, text: str) -> object:
        """The value that a variable's text stands for; RefusedError where it stands for none."""
        return self.take(text)

    @abstractmethod
    def take(self, value: object) -> object:
        """The value as it is kept, None where it is blank; RefusedError where not allowed."""


@dataclass(frozen=True, slots=True)
class Flag(Kind):
    """True or false."""

    def read(self, text: str) -> object:
        return self.take(_WORDS.get(text.lower()))

    def take(self, value: object) -> object:
        if not isinstance(value, bool):
            raise RefusedError
        return value


@dataclass(frozen=True, slots=True)
class FlagOrAuto(Flag):
    """A flag, or None where it is for us to judge."""

    def read(self, text: str) -> object:
        return None if text.lower() == _AUTO else Flag.read(self, text)

    def take(self, value: object) -> object:
        return None if value == _AUTO else Flag.take(self, value)


@dataclass(frozen=True, slots=True)
class Text(Kind):
    """One line of text, all of it matching a pattern."""

    pattern: str = ".+"

    def take(self, value: object) -> object:
        text = _line(value)
        if not text:
            return "" if self.keeps_blank else None
        if not re.fullmatch(self.pattern, text):
            raise RefusedError
        return text


@dataclass(frozen=True, slots=True)
class TimeZone(Kind):
    """The name of a time zone."""

    def take(self, value: object) -> object:
        name = _line(value)
        if name.upper() == "UTC":
            # This one is known where the system has no time zones.
            return "UTC"
        try:
            return ZoneInfo(name).key if name else None
        except (LookupError, OSError, ValueError):
            raise RefusedError from None


@dataclass(frozen=True, slots=True)
class TimeOfDay(Kind):
    """A time of day, kept as `HH:MM`."""

    def take(self, value: object) -> object:
        text = f"{value:%H:%M}" if isinstance(value, time) else _line(value)
        if not text:
            return None
        found = re.fullmatch(r"(\d{1,2}):(\d\d)", text, re.ASCII)
        hour, minute = (int(each) for each in found.groups()) if found else (99, 99)
        if hour > _LAST_HOUR or minute > _LAST_MINUTE:
            raise RefusedError
        return f"{hour:02}:{minute:02}"


@dataclass(frozen=True, slots=True)
class Choice(Kind):
    """One of a few words."""

    choices: tuple[str, ...] = ()

    def take(self, value: object) -> object:
        word = _line(value).lower()
        if word and word not in self.choices:
            raise RefusedError
        return word or None


@dataclass(frozen=True, slots=True)
class Address(Kind):
    """The address of a web page; a `base` takes paths after it."""

    base: bool = False
    with_password: bool = False

    def take(self, value: object) -> object:
        text = _line(value)
        bare = re.sub(r"(?<=//)[^/?#]*@", "", text) if self.with_password else text
        if text and not _is_web_address(bare, base=self.base):
            raise RefusedError
        return (text.rstrip("/") if self.base else text) or None


@dataclass(frozen=True, slots=True)
class Number(Kind):
    """A number between two bounds."""

    low: float = 0
    high: float = 0
    whole: bool = False
    above: bool = False

    def read(self, text: str) -> object:
        return self.take(_number(text))

    def take(self, value: object) -> object:
        wanted = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise RefusedError
        # Written so that NaN is refused as well.
        if not self.low <= value <= self.high or (self.above and value == self.low):
            raise RefusedError
        return int(value) if self.whole else float(value)


@dataclass(frozen=True, slots=True)
class Buckets(Kind):
    """Ascending bounds in seconds."""

    def read(self, text: str) -> object:
        return self.take([_number(part.strip()) for part in text.split(",")])

    def take(self, value: object) -> object:
        bounds = tuple(map(self._bound, _items(value)))
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise RefusedError
        return bounds

    def _bound(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RefusedError
        if not 0 < value <= YEAR_SECONDS:
            raise RefusedError
        return float(value)


@dataclass(frozen=True, slots=True)
class Names(Kind):
    """Names, each of them once."""

    def read(self, text: str) -> object:
        return self.take([part for part in text.split(",") if part.strip()])

    def take(self, value: object) -> object:
        names = [_line(name) for name in _items(value)]
        if not all(names):
            raise RefusedError
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class LabelPairs(Kind):
    """Labels of metrics, by their names."""

    def read(self, text: str) -> object:
        labels: dict[str, str] = {}
        for part in filter(str.strip, text.split(",")):
            name, equals, value = map(str.strip, part.partition("="))
            if not equals:
                raise RefusedError(f"{_brief(name)} is no pair")
            if name in labels:
                raise RefusedError(f"{_brief(name)} is there twice")
            labels[name] = value
        return self.take(labels)

    def take(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise RefusedError
        labels = {_label_name(name): _line(text) for name, text in value.items()}
        if not all(labels.values()):
            raise RefusedError("a value is empty")
        return Fixed(labels)


@dataclass(frozen=True, slots=True)
class Expression(Kind):
    """A regular expression."""

    def take(self, value: object) -> object:
        if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
            return value
        text = _line(value)
        try:
            return re.compile(text) if text else None
        except (re.error, OverflowError, RecursionError):
            raise RefusedError from None


@dataclass(frozen=True, slots=True)
class PriceTable(Kind):
    """By model its prices, or the model whose prices hold."""

    def read(self, text: str) -> object:
        try:
            return self.take(json.loads(text))
        except (ValueError, RecursionError):
            raise RefusedError("it is no JSON") from None

    def take(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise RefusedError
        table = {_line(name): self._price(name, each) for name, each in value.items()}
        if "" in table:
            raise RefusedError("a name is empty")
        return Fixed(table)

    def _price(self, model: object, price: object) -> str | Mapping[str, float]:
        if isinstance(price, str) and (name := _line(price)):
            return name
        if not isinstance(price, Mapping) or not price or price.keys() - _PRICE_KINDS:
            raise RefusedError(f"the price of {_brief(model)} is none")
        return Fixed({kind: self._dollars(model, each) for kind, each in price.items()})

    def _dollars(self, model: object, number: object) -> float:
        wrong = RefusedError(f"a price of {_brief(model)} is no number from 0 to {_MOST_DOLLARS}")
        if not isinstance(number, int | float | Decimal) or isinstance(number, bool):
            raise wrong
        # Written so that NaN is refused as well.
        if not 0 <= number <= _MOST_DOLLARS:
            raise wrong
        return float(number)


ValueT_co = TypeVar("ValueT_co", covariant=True)


class Fixed(Mapping[str, ValueT_co]):
    """Pairs that stay as they are, so that settings can be hashed, copied and pickled."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Mapping[str, ValueT_co] | None = None) -> None:
        self._pairs = dict(pairs or {})

    def __getitem__(self, name: str) -> ValueT_co:
        return self._pairs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(frozenset(self._pairs.items()))

    def __repr__(self) -> str:
        return repr(self._pairs)


def _brief(value: object) -> str:
    """A part of a value for an error message, which is to stay a sentence."""
    short = Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)


def is_writable(character: str) -> bool:
    """Whether a log, a header and UTF-8 can hold it: no control, line end or lone surrogate."""
    return category(character) not in {"Cc", "Cs", "Zl", "Zp"}


def _line(value: object) -> str:
    """The text `value` without the space around it; refused unless it is one line of text."""
    if not isinstance(value, str):
        raise RefusedError
    text = value.strip()
    if not all(map(is_writable, text)):
        raise RefusedError
    return text


def _items(value: object) -> Sequence[object]:
    """The sequence `value`; refused where it is a text, whose items would be its letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise RefusedError
    return value


def _number(text: str) -> float | None:
    """The number that `text` writes, an int where it is whole; None where it writes none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _label_name(value: object) -> str:
    name = _line(value)
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
        raise RefusedError(f"{_brief(name)} is no label name")
    if name in RESERVED_LABELS or name.startswith("__"):
        raise RefusedError(f"the label name {_brief(name)} is taken")
    return name


def _is_web_address(text: str, *, base: bool) -> bool:
    """Whether `text` is an http(s) URL with a host and no password; a `base` takes paths after it.

    A password is refused since these addresses are shown to people.
    """
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            return False
    except ValueError:
        return False
    if any(map(str.isspace, text)) or "@" in parts.netloc or (base and set("?#") & set(text)):
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def number_in(low: float, high: float, *, whole: bool = False, above: bool = False) -> Number:
    """Numbers between two bounds, both included; `above` leaves out the lower one."""
    start = "a whole number" if whole else "a number"
    span = f"above {low} and at most {high}" if above else f"from {low} to {high}"
    return Number(f"{start} {span}", low=low, high=high, whole=whole, above=above)
