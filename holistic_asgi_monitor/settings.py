"""The settings: one frozen dataclass, from the environment or from code.

Each field carries its `Variable` in its metadata: the variable's name, what it is for, whether it
is secret, and which values are allowed. Parsing, validation and docs/settings.md all read it there.
"""

from __future__ import annotations

import json
import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import time
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, Self, TypeVar
from unicodedata import category
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.redaction import passwords

__all__ = ("RESERVED_LABELS", "AccessMode", "Settings", "Variable")

AccessMode = Literal["token", "closed", "local", "open"]
"""Who may see what; `web/access.py` says what each means."""

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
        "service",
        "severity",
        "status",
        "version",
        "window",
    }
)
"""Label names that our own metrics use, or Prometheus does: no constant label may have them."""

_ENV_FILE = "MONITOR_ENV_FILE"
_PREFIX = "MONITOR_"
_DEVELOPMENT = frozenset({"development", "dev", "local", "test"})
_PRICE_KINDS = frozenset({"input", "output", "cached", "audio_input", "audio_output"})
_MOST_DOLLARS = 1_000_000
_YEAR_SECONDS = 366 * 24 * 3600
_LAST_HOUR, _LAST_MINUTE = 23, 59
_AUTO = "auto"
_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}

_OPEN_WORDS = frozenset({"memory", "memory:", "off"})
"""Values of secret settings that are no secrets."""

_OTHER_VARIABLES = frozenset({"MONITOR_ENV_FILE", "MONITOR_NAMING"})
"""Variables of the package that are no field of `Settings`, and yet not unknown."""


class _RefusedError(Exception):
    """A value is not allowed; the text may say which part of it, and never repeats a secret."""


@dataclass(frozen=True, slots=True)
class _Kind(ABC):
    """Which values a setting may have, from a variable's text or from code.

    `allowed` completes "it must be"; `keeps_blank` says that an empty text is a value of its own
    and not the same as none.
    """

    allowed: str
    keeps_blank: bool = False

    def read(self, text: str) -> object:
        """The value that a variable's text stands for; _RefusedError where it stands for none."""
        return self.take(text)

    @abstractmethod
    def take(self, value: object) -> object:
        """The value as it is kept, None where it is blank; _RefusedError where not allowed."""


@dataclass(frozen=True, slots=True)
class _Flag(_Kind):
    def read(self, text: str) -> object:
        return self.take(_WORDS.get(text.lower()))

    def take(self, value: object) -> object:
        if not isinstance(value, bool):
            raise _RefusedError
        return value


@dataclass(frozen=True, slots=True)
class _FlagOrAuto(_Flag):
    """A flag, or None where it is for us to judge."""

    def read(self, text: str) -> object:
        return None if text.lower() == _AUTO else _Flag.read(self, text)

    def take(self, value: object) -> object:
        return None if value == _AUTO else _Flag.take(self, value)


@dataclass(frozen=True, slots=True)
class _Text(_Kind):
    pattern: str = ".+"

    def take(self, value: object) -> object:
        text = _line(value)
        if not text:
            return "" if self.keeps_blank else None
        if not re.fullmatch(self.pattern, text):
            raise _RefusedError
        return text


@dataclass(frozen=True, slots=True)
class _TimeZone(_Kind):
    def take(self, value: object) -> object:
        name = _line(value)
        if name.upper() == "UTC":
            # This one is known where the system has no time zones.
            return "UTC"
        try:
            return ZoneInfo(name).key if name else None
        except (LookupError, OSError, ValueError):
            raise _RefusedError from None


@dataclass(frozen=True, slots=True)
class _TimeOfDay(_Kind):
    def take(self, value: object) -> object:
        text = f"{value:%H:%M}" if isinstance(value, time) else _line(value)
        if not text:
            return None
        found = re.fullmatch(r"(\d{1,2}):(\d\d)", text, re.ASCII)
        hour, minute = (int(each) for each in found.groups()) if found else (99, 99)
        if hour > _LAST_HOUR or minute > _LAST_MINUTE:
            raise _RefusedError
        return f"{hour:02}:{minute:02}"


@dataclass(frozen=True, slots=True)
class _Choice(_Kind):
    choices: tuple[str, ...] = ()

    def take(self, value: object) -> object:
        word = _line(value).lower()
        if word and word not in self.choices:
            raise _RefusedError
        return word or None


@dataclass(frozen=True, slots=True)
class _Address(_Kind):
    base: bool = False
    with_password: bool = False

    def take(self, value: object) -> object:
        text = _line(value)
        bare = re.sub(r"(?<=//)[^/?#]*@", "", text) if self.with_password else text
        if text and not _is_web_address(bare, base=self.base):
            raise _RefusedError
        return (text.rstrip("/") if self.base else text) or None


@dataclass(frozen=True, slots=True)
class _Number(_Kind):
    low: float = 0
    high: float = 0
    whole: bool = False
    above: bool = False

    def read(self, text: str) -> object:
        return self.take(_number(text))

    def take(self, value: object) -> object:
        wanted = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise _RefusedError
        # Written so that NaN is refused as well.
        if not self.low <= value <= self.high or (self.above and value == self.low):
            raise _RefusedError
        return int(value) if self.whole else float(value)


@dataclass(frozen=True, slots=True)
class _Buckets(_Kind):
    def read(self, text: str) -> object:
        return self.take([_number(part.strip()) for part in text.split(",")])

    def take(self, value: object) -> object:
        bounds = tuple(map(self._bound, _items(value)))
        if not bounds or any(low >= high for low, high in pairwise(bounds)):
            raise _RefusedError
        return bounds

    def _bound(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _RefusedError
        if not 0 < value <= _YEAR_SECONDS:
            raise _RefusedError
        return float(value)


@dataclass(frozen=True, slots=True)
class _Names(_Kind):
    def read(self, text: str) -> object:
        return self.take([part for part in text.split(",") if part.strip()])

    def take(self, value: object) -> object:
        names = [_line(name) for name in _items(value)]
        if not all(names):
            raise _RefusedError
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True, slots=True)
class _LabelPairs(_Kind):
    def read(self, text: str) -> object:
        labels: dict[str, str] = {}
        for part in filter(str.strip, text.split(",")):
            name, equals, value = map(str.strip, part.partition("="))
            if not equals:
                raise _RefusedError(f"{name!r} is no pair")
            if name in labels:
                raise _RefusedError(f"{name!r} is there twice")
            labels[name] = value
        return self.take(labels)

    def take(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise _RefusedError
        labels = {_label_name(name): _line(text) for name, text in value.items()}
        if not all(labels.values()):
            raise _RefusedError("a value is empty")
        return _Fixed(labels)


@dataclass(frozen=True, slots=True)
class _Expression(_Kind):
    def take(self, value: object) -> object:
        if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
            return value
        text = _line(value)
        try:
            return re.compile(text) if text else None
        except (re.error, OverflowError, RecursionError):
            raise _RefusedError from None


@dataclass(frozen=True, slots=True)
class _PriceTable(_Kind):
    def read(self, text: str) -> object:
        try:
            return self.take(json.loads(text))
        except (ValueError, RecursionError):
            raise _RefusedError("it is no JSON") from None

    def take(self, value: object) -> object:
        if not isinstance(value, Mapping):
            raise _RefusedError
        table = {_line(name): self._price(name, each) for name, each in value.items()}
        if "" in table:
            raise _RefusedError("a name is empty")
        return _Fixed(table)

    def _price(self, model: object, price: object) -> str | Mapping[str, float]:
        if isinstance(price, str) and (name := _line(price)):
            return name
        if not isinstance(price, Mapping) or not price or price.keys() - _PRICE_KINDS:
            raise _RefusedError(f"the price of {model!r} is none")
        return _Fixed({kind: self._dollars(model, each) for kind, each in price.items()})

    def _dollars(self, model: object, number: object) -> float:
        wrong = _RefusedError(f"a price of {model!r} is no number from 0 to {_MOST_DOLLARS}")
        if not isinstance(number, int | float | Decimal) or isinstance(number, bool):
            raise wrong
        # Written so that NaN is refused as well.
        if not 0 <= number <= _MOST_DOLLARS:
            raise wrong
        return float(number)


ValueT_co = TypeVar("ValueT_co", covariant=True)


class _Fixed(Mapping[str, ValueT_co]):
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


def _is_writable(character: str) -> bool:
    """Whether a log, a header and UTF-8 can hold it: no control, line end or lone surrogate."""
    return category(character) not in {"Cc", "Cs", "Zl", "Zp"}


def _line(value: object) -> str:
    """The text `value` without the space around it; refused unless it is one line of text."""
    if not isinstance(value, str):
        raise _RefusedError
    text = value.strip()
    if not all(map(_is_writable, text)):
        raise _RefusedError
    return text


def _items(value: object) -> Sequence[object]:
    """The sequence `value`; refused where it is a text, whose items would be its letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise _RefusedError
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
        raise _RefusedError(f"{name!r} is no label name")
    if name in RESERVED_LABELS or name.startswith("__"):
        raise _RefusedError(f"the label name {name!r} is taken")
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


def _number_in(low: float, high: float, *, whole: bool = False, above: bool = False) -> _Number:
    """Numbers between two bounds, both included; `above` leaves out the lower one."""
    start = "a whole number" if whole else "a number"
    span = f"above {low} and at most {high}" if above else f"from {low} to {high}"
    return _Number(f"{start} {span}", low=low, high=high, whole=whole, above=above)


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: its environment variable, what it is for, and which values are allowed.

    `text` is one sentence of documentation. A `secret` is never shown, and its variable has a
    twin `NAME_FILE`. `fallbacks` are the variables that are asked where it is not set;
    `otherwise` says in words what holds where nothing is set, if that is not a plain default.
    """

    name: str
    text: str
    kind: _Kind
    secret: bool = False
    fallbacks: tuple[str, ...] = ()
    otherwise: str = ""

    @property
    def attribute(self) -> str:
        """The name of the field."""
        return self.name.removeprefix(_PREFIX).lower()

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
        except _RefusedError as refused:
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


def _about(
    name: str,
    text: str,
    kind: _Kind,
    *,
    secret: bool = False,
    fallbacks: tuple[str, ...] = (),
    otherwise: str = "",
) -> dict[str, Variable]:
    """The metadata of a field of `Settings`."""
    return {"variable": Variable(name, text, kind, secret, fallbacks, otherwise)}


def _directory_name() -> str:
    """The name of the working directory, `app` where it has none."""
    try:
        # A monitor may be built on a running loop, where blockbuster takes os.getcwd for blocking.
        name = Path(os.fsdecode(os.getcwdb())).name  # noqa: PTH109 - see above
    except OSError:
        name = ""
    return _writable(name) or "app"


def _host_name() -> str:
    """The name of this machine, `localhost` where it has none."""
    return _writable(socket.gethostname()) or "localhost"


def _writable(text: str) -> str:
    return "".join(each if _is_writable(each) else "?" for each in text).strip()


_FLAG = _Flag("true, 1, yes or on, or false, 0, no or off")
_FLAG_OR_AUTO = _FlagOrAuto("auto, or true, 1, yes or on, or false, 0, no or off")
_LINE = _Text("one line of text")
_TIME_ZONE = _TimeZone(
    "a time zone such as Europe/Berlin, or UTC; where the system knows no zones, the package "
    "tzdata brings them"
)
_TIME_OF_DAY = _TimeOfDay("a time of day such as 09:00, from 00:00 to 23:59")
_DOLLARS = _number_in(0, 1000000000, above=True)
_PATH = _Text(
    "a path such as /watch/it: full segments, no slash at the end, and no space, ?, #, %, brace or "
    "backslash; or empty: off",
    keeps_blank=True,
    pattern=r"(?:/(?!\.{1,2}(?:/|$))[^\s/?#%{}\\]+)+",
)
_BASE_ADDRESS = _Address(
    "an http or https address without a password, ? or #, such as https://shop.example", base=True
)
_ADDRESS = _Address("an http or https address without a password, such as https://shop.example/on")
_OPEN_ADDRESS = _Address(
    "an http or https address, such as https://user:password@alerts.example/on", with_password=True
)
_HISTORY = _Text(
    "sqlite:///path, postgresql://user@host/database, memory: or off",
    pattern=r"(?i:off|memory:?|sqlite:.*|postgres(?:ql)?(?:\+\w+)?://.+)",
)
_PRICES = _PriceTable(
    'JSON such as {"my-model": {"input": 2.5, "output": 10, "cached": 1.25}, "my-deployment": '
    '"gpt-4o"}: US dollars for a million tokens, also audio_input and audio_output, or the name '
    "of the model whose prices hold"
)
_NAMES = _Names("names, separated by commas; a lone comma stands for none")
_SECONDS = _number_in(0, 86400, above=True)
_PERCENT = _number_in(0, 100)
_MILLISECONDS = _number_in(0.001, 86400000)
_ROUNDS = _number_in(1, 1000, whole=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, validated alike from code and from the environment.

    Each field is a variable without its prefix `MONITOR_`, in lower case; docs/settings.md lists
    them. A value that is not allowed is one ConfigurationError. A list is as good as a tuple, and
    a text as a compiled expression.
    """

    enabled: bool = field(
        default=True,
        metadata=_about(
            "MONITOR_ENABLED",
            "When off, Monitor passes everything through: nothing is started, nothing sent.",
            _FLAG,
        ),
    )
    service: str = field(
        default_factory=_directory_name,
        metadata=_about(
            "MONITOR_SERVICE",
            "The name of this service in reports, metrics and alerts.",
            _LINE,
            fallbacks=("OTEL_SERVICE_NAME", "RENDER_SERVICE_NAME", "FLY_APP_NAME", "K_SERVICE"),
            otherwise="the name of the working directory",
        ),
    )
    environment: str = field(
        default="production",
        metadata=_about(
            "ENVIRONMENT",
            "Where it runs; development, dev, local and test open everything to this machine "
            "as long as there is no token.",
            _LINE,
        ),
    )
    app_version: str | None = field(
        default=None,
        metadata=_about(
            "MONITOR_APP_VERSION",
            "The version of the app, in the statistics and in app_info.",
            _LINE,
            fallbacks=("RENDER_GIT_COMMIT",),
            otherwise="the app's own version",
        ),
    )
    instance: str = field(
        default_factory=_host_name,
        metadata=_about(
            "MONITOR_INSTANCE",
            "The name of this replica in reports and alerts.",
            _LINE,
            otherwise="the host name",
        ),
    )
    namespace: str = field(
        default="holisticos",
        metadata=_about(
            "MONITOR_NAMESPACE",
            "What the names of our metrics begin with, before an underscore.",
            _Text(
                "letters, digits, underscores and colons, no digit first",
                pattern="[a-zA-Z_:][a-zA-Z0-9_:]*",
            ),
        ),
    )
    constant_labels: Mapping[str, str] = field(
        default_factory=_Fixed,
        metadata=_about(
            "MONITOR_CONSTANT_LABELS",
            "Labels added to each of our metrics.",
            _LabelPairs(
                "name=value pairs separated by commas, such as team=a,region=eu, with label names "
                "that begin with no __ and that no metric uses already"
            ),
            otherwise="none",
        ),
    )
    access: AccessMode | None = field(
        default=None,
        metadata=_about(
            "MONITOR_ACCESS",
            "Who may see metrics, statistics and details.",
            _Choice("token, closed, local or open", choices=("token", "closed", "local", "open")),
            otherwise="token with a MONITOR_TOKEN, else local where ENVIRONMENT is development, "
            "dev, local or test, else closed",
        ),
    )
    token: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "MONITOR_TOKEN",
            "The token that opens metrics, statistics and details.",
            _LINE,
            secret=True,
        ),
    )
    public_url: str | None = field(
        default=None,
        metadata=_about(
            "MONITOR_PUBLIC_URL",
            "The address under which people reach this app, for links in alerts.",
            _BASE_ADDRESS,
        ),
    )
    runbook_url: str | None = field(
        default=None,
        metadata=_about(
            "MONITOR_RUNBOOK_URL",
            "The address of the page that says what to do, for links in alerts.",
            _ADDRESS,
        ),
    )
    health_path: str = field(
        default="/api/health",
        metadata=_about(
            "MONITOR_HEALTH_PATH",
            "Where the health report is, with /simple, /live and /ready below it.",
            _PATH,
        ),
    )
    metrics_path: str = field(
        default="/metrics",
        metadata=_about("MONITOR_METRICS_PATH", "Where Prometheus scrapes.", _PATH),
    )
    prefix: str = field(
        default="/api/monitoring",
        metadata=_about(
            "MONITOR_PREFIX",
            "What the paths of the statistics and of all other pages begin with.",
            _PATH,
        ),
    )
    buckets: tuple[float, ...] = field(
        default=(
            *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
            *(30.0, 60.0, 120.0),
        ),
        metadata=_about(
            "MONITOR_BUCKETS",
            "The upper bounds of the latency histograms in seconds; "
            "thresholds are added to them, and +Inf.",
            _Buckets(
                "ascending numbers of seconds separated by commas, "
                f"each above 0 and at most {_YEAR_SECONDS} (a year)"
            ),
        ),
    )
    max_endpoints: int = field(
        default=1000,
        metadata=_about(
            "MONITOR_MAX_ENDPOINTS",
            "How many endpoints are counted on their own; all others count as _overflow.",
            _number_in(1, 1000000, whole=True),
        ),
    )
    exclude: re.Pattern[str] | None = field(
        default=None,
        metadata=_about(
            "MONITOR_EXCLUDE",
            "Endpoints in which this is found are not counted.",
            _Expression("a regular expression"),
        ),
    )
    check_interval_seconds: float = field(
        default=30.0,
        metadata=_about(
            "MONITOR_CHECK_INTERVAL_SECONDS",
            "Seconds from one round of checks to the next.",
            _SECONDS,
        ),
    )
    check_timeout_seconds: float = field(
        default=4.0,
        metadata=_about(
            "MONITOR_CHECK_TIMEOUT_SECONDS",
            "Seconds after which a check is given up, unless it has a timeout of its own.",
            _SECONDS,
        ),
    )
    recheck_seconds: float = field(
        default=5.0,
        metadata=_about(
            "MONITOR_RECHECK_SECONDS",
            "Seconds to the second look at a check after its first bad result.",
            _SECONDS,
        ),
    )
    startup_grace_seconds: float = field(
        default=60.0,
        metadata=_about(
            "MONITOR_STARTUP_GRACE_SECONDS",
            "Seconds after the start in which nothing is alerted.",
            _number_in(0, 86400),
        ),
    )
    required_checks: tuple[str, ...] | None = field(
        default=None,
        metadata=_about(
            "MONITOR_REQUIRED_CHECKS",
            "The checks without which the app cannot serve, whatever they say of themselves.",
            _NAMES,
            otherwise="what each check says",
        ),
    )
    ready_checks: tuple[str, ...] = field(
        default=(),
        metadata=_about(
            "MONITOR_READY_CHECKS", "The checks that must be well for the app to be ready.", _NAMES
        ),
    )
    response_time_ms: float = field(
        default=5000.0,
        metadata=_about(
            "MONITOR_RESPONSE_TIME_MS",
            "Milliseconds above which the 95th percentile of the latency is degraded.",
            _MILLISECONDS,
        ),
    )
    error_rate_percent: float = field(
        default=5.0,
        metadata=_about(
            "MONITOR_ERROR_RATE_PERCENT",
            "Percent of failed requests above which traffic is degraded.",
            _PERCENT,
        ),
    )
    minimum_requests: int = field(
        default=20,
        metadata=_about(
            "MONITOR_MINIMUM_REQUESTS",
            "How many requests of the last 5 minutes it takes to judge traffic.",
            _number_in(1, 1000000000, whole=True),
        ),
    )
    memory_percent: float = field(
        default=80.0,
        metadata=_about(
            "MONITOR_MEMORY_PERCENT",
            "Percent of the memory allowed at which the system is degraded.",
            _PERCENT,
        ),
    )
    cpu_percent: float = field(
        default=90.0,
        metadata=_about(
            "MONITOR_CPU_PERCENT",
            "Percent of the processors allowed, over 5 minutes, at which the system is degraded.",
            _PERCENT,
        ),
    )
    disk_percent: float = field(
        default=90.0,
        metadata=_about(
            "MONITOR_DISK_PERCENT", "Percent of the disk at which the system is degraded.", _PERCENT
        ),
    )
    event_loop_lag_ms: float = field(
        default=500.0,
        metadata=_about(
            "MONITOR_EVENT_LOOP_LAG_MS",
            "Milliseconds of delay at which the event loop is degraded.",
            _MILLISECONDS,
        ),
    )
    database_slow_ms: float = field(
        default=3000.0,
        metadata=_about(
            "MONITOR_DATABASE_SLOW_MS",
            "Milliseconds of a trivial query above which the database is degraded.",
            _MILLISECONDS,
        ),
    )
    database_connections: int | None = field(
        default=None,
        metadata=_about(
            "MONITOR_DATABASE_CONNECTIONS",
            "How many connections of this user to the database are all there are: "
            "with as many in use the database is degraded.",
            _number_in(1, 1000000, whole=True),
            otherwise="the maximum of the pool that the check is given",
        ),
    )
    failures_before_alert: int = field(
        default=2,
        metadata=_about(
            "MONITOR_FAILURES_BEFORE_ALERT",
            "How many bad rounds in a row it takes for an alert.",
            _ROUNDS,
        ),
    )
    successes_before_clear: int = field(
        default=2,
        metadata=_about(
            "MONITOR_SUCCESSES_BEFORE_CLEAR",
            "How many good rounds in a row it takes for the all-clear.",
            _ROUNDS,
        ),
    )
    alert_cooldown_minutes: float = field(
        default=15.0,
        metadata=_about(
            "MONITOR_ALERT_COOLDOWN_MINUTES",
            "Minutes to the first reminder; the next come after 4 and 16 times that, "
            "then every 16 times.",
            _number_in(0, 525600, above=True),
        ),
    )
    slo_availability_percent: float | None = field(
        default=None,
        metadata=_about(
            "MONITOR_SLO_AVAILABILITY_PERCENT",
            "Percent of the requests that shall not fail, over 30 days; what is left is a budget, "
            "and an alert says when it burns too fast.",
            _number_in(50, 99.999),
            otherwise="off",
        ),
    )
    slo_latency_ms: float | None = field(
        default=None,
        metadata=_about(
            "MONITOR_SLO_LATENCY_MS",
            "Milliseconds within which 99 % of the requests shall be answered, over 30 days, or "
            "as many as MONITOR_SLO_AVAILABILITY_PERCENT says, where that is less.",
            _MILLISECONDS,
            otherwise="off",
        ),
    )
    history_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "MONITOR_HISTORY_URL",
            "Where history is kept.",
            _HISTORY,
            secret=True,
            otherwise="an SQLite file of this service in the user's state directory",
        ),
    )
    history_max_mb: int = field(
        default=512,
        metadata=_about(
            "MONITOR_HISTORY_MAX_MB",
            "Mebibytes that the SQLite file of the history may take; the oldest goes first.",
            _number_in(5, 1000000, whole=True),
        ),
    )
    flush_seconds: float = field(
        default=60.0,
        metadata=_about(
            "MONITOR_FLUSH_SECONDS",
            "Seconds from one writing of the history to the next.",
            _number_in(1, 3600),
        ),
    )
    track_openai: bool = field(
        default=True,
        metadata=_about(
            "MONITOR_TRACK_OPENAI",
            "When on, calls of the openai package are tracked by themselves.",
            _FLAG,
        ),
    )
    openai_prices: Mapping[str, str | Mapping[str, float]] = field(
        default_factory=_Fixed,
        metadata=_about(
            "MONITOR_OPENAI_PRICES",
            "Prices of your own, by model or by deployment; they win over the known ones.",
            _PRICES,
            otherwise="none",
        ),
    )
    openai_daily_budget_usd: float | None = field(
        default=None,
        metadata=_about(
            "MONITOR_OPENAI_DAILY_BUDGET_USD",
            "US dollars that calls of OpenAI may cost in a day of MONITOR_TIMEZONE; at 50, 80 and "
            "100 % of it there is a message.",
            _DOLLARS,
            otherwise="off",
        ),
    )
    openai_monthly_budget_usd: float | None = field(
        default=None,
        metadata=_about(
            "MONITOR_OPENAI_MONTHLY_BUDGET_USD",
            "The same for a calendar month, and a message besides when the month is going to cost "
            "more.",
            _DOLLARS,
            otherwise="off",
        ),
    )
    user_hash_key: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "MONITOR_USER_HASH_KEY",
            "The key with which the ids of users are hashed before anything keeps them.",
            _LINE,
            secret=True,
        ),
    )
    timezone: str = field(
        default="UTC",
        metadata=_about(
            "MONITOR_TIMEZONE",
            "Where days, weeks and months begin, for spend and for summaries.",
            _TIME_ZONE,
        ),
    )
    summary_time: str = field(
        default="09:00",
        metadata=_about(
            "MONITOR_SUMMARY_TIME",
            "When the summary of the day before is sent, and on Mondays that of the week before.",
            _TIME_OF_DAY,
        ),
    )
    daily_summary: bool | None = field(
        default=None,
        metadata=_about(
            "MONITOR_DAILY_SUMMARY",
            "Whether a summary of each day is sent.",
            _FLAG_OR_AUTO,
            otherwise="auto: when spend, users or features were recorded",
        ),
    )
    weekly_summary: bool | None = field(
        default=None,
        metadata=_about(
            "MONITOR_WEEKLY_SUMMARY",
            "Whether a summary of each week, from Monday to Sunday, is sent.",
            _FLAG_OR_AUTO,
            otherwise="auto: when spend, users or features were recorded",
        ),
    )
    database_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "DATABASE_URL",
            "The database of the app; a PostgreSQL one is checked, with the extra postgres.",
            _LINE,
            secret=True,
        ),
    )
    redis_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "REDIS_URL",
            "The Redis or Valkey server of the app, which is checked, with the extra redis.",
            _LINE,
            secret=True,
        ),
    )
    openai_api_key: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "OPENAI_API_KEY",
            "The key for OpenAI, which is then checked, with the extra openai.",
            _LINE,
            secret=True,
        ),
    )
    openai_base_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "OPENAI_BASE_URL",
            "Where OpenAI, or what speaks like it, answers; without it, OpenAI's own address.",
            _LINE,
            secret=True,
        ),
    )
    slack_webhook_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "SLACK_WEBHOOK_URL",
            "The address of the Slack webhook that gets the alerts.",
            _ADDRESS,
            secret=True,
        ),
    )
    slack_bot_token: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "SLACK_BOT_TOKEN",
            "The token of a Slack bot, which posts the alerts to SLACK_CHANNEL and answers them in "
            "threads.",
            _LINE,
            secret=True,
        ),
    )
    slack_channel: str | None = field(
        default=None,
        metadata=_about(
            "SLACK_CHANNEL",
            "The channel that the bot of SLACK_BOT_TOKEN posts to, by its name or its id.",
            _LINE,
        ),
    )
    alertmanager_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "ALERTMANAGER_URL",
            "The address of the Alertmanager that gets the alerts.",
            _OPEN_ADDRESS,
            secret=True,
        ),
    )
    webhook_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "MONITOR_WEBHOOK_URL",
            "The address to which the alerts are posted as JSON.",
            _OPEN_ADDRESS,
            secret=True,
        ),
    )
    heartbeat_url: str | None = field(
        default=None,
        repr=False,
        metadata=_about(
            "MONITOR_HEARTBEAT_URL",
            "The address that is asked after the rounds of checks, once an interval at most, so "
            "that somebody else notices when they stop.",
            _OPEN_ADDRESS,
            secret=True,
        ),
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, _settled(each, getattr(self, each.name)))
        if self.access == "token" and self.token is None:
            raise ConfigurationError(
                "MONITOR_ACCESS (field access) is 'token', but MONITOR_TOKEN (field token) is not "
                "set: set it, or let access be closed, local or open."
            )
        _refuse_collision(self)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings that `environ` gives, by default this process's environment.

        Read besides: the file that MONITOR_ENV_FILE names, and for a secret NAME the file that
        NAME_FILE names. ConfigurationError where a value is not allowed or a file not readable.
        """
        variables = cls.variables()
        found = _in_force(environ, variables.values())
        values = {name: _value(variable, found) for name, variable in variables.items()}
        return cls(**{name: value for name, value in values.items() if value is not None})

    @classmethod
    def variables(cls) -> dict[str, Variable]:
        """Every setting by the name of its field, in the order of the documentation."""
        return {each.name: each.metadata["variable"] for each in fields(cls)}

    @classmethod
    def unknown_variables(
        cls, environ: Mapping[str, str] | None = None
    ) -> list[tuple[str, str | None]]:
        """The MONITOR_ variables that nobody reads, each with the known name closest to it.

        None stands where no known name is close. ConfigurationError where MONITOR_ENV_FILE names
        a file that cannot be read, as with `from_env`.
        """
        variables = cls.variables().values()
        known = _OTHER_VARIABLES | {variable.name for variable in variables}
        known |= {f"{variable.name}_FILE" for variable in variables if variable.secret}
        names = sorted(_in_force(environ, variables).keys() - known)
        return [(name, _closest(name, known)) for name in names if name.startswith(_PREFIX)]

    @property
    def access_mode(self) -> AccessMode:
        """The access mode in force: `access`, or what follows from token and environment."""
        if self.access is not None:
            return self.access
        if self.token is not None:
            return "token"
        return "local" if self.environment.lower() in _DEVELOPMENT else "closed"

    @property
    def bucket_bounds(self) -> tuple[float, ...]:
        """The exported `le`s in seconds, ascending: the buckets and every latency threshold."""
        thresholds = [self.response_time_ms, self.event_loop_lag_ms]
        thresholds += [] if self.slo_latency_ms is None else [self.slo_latency_ms]
        # Rounded, for 2.1 / 1000 is a hair beside 0.0021.
        return tuple(sorted({*self.buckets, *(round(each / 1000, 9) for each in thresholds)}))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secret values that are set, longest first, to be removed from published text.

        Of an address the password is one besides.
        """
        names = [name for name, variable in self.variables().items() if variable.secret]
        values = [value for name in names if (value := getattr(self, name))]
        # A word that any message may hold gives nothing away.
        values = [value for value in values if value.lower() not in _OPEN_WORDS]
        values += [password for value in values for password in passwords(value)]
        return tuple(sorted(set(values), key=lambda value: (-len(value), value)))


def _settled(each: Field[Any], value: object) -> Any:
    """The value of a field as it is kept; the default where it is blank."""
    if value is None and each.default is None:
        return None
    variable: Variable = each.metadata["variable"]
    kept = variable.take(value)
    if kept is not None:
        return kept
    return each.default if each.default_factory is MISSING else each.default_factory()


_HEALTH_PAGES = ("", "/simple", "/live", "/ready")
_PREFIX_PAGES = (
    *("", "/stats", "/history", "/alerts", "/maintenance", "/silence", "/dashboard", "/login"),
)


def _refuse_collision(settings: Settings) -> None:
    """Raise ConfigurationError where two settings want the same path."""
    taken: dict[str, str] = {}
    for name, pages in (
        ("health_path", _HEALTH_PAGES),
        ("metrics_path", ("",)),
        ("prefix", _PREFIX_PAGES),
    ):
        start: str = getattr(settings, name)
        for path in [start + page for page in pages if start]:
            if path in taken:
                raise ConfigurationError(
                    f"MONITOR_{name.upper()} (field {name}) is {start!r}, but {path} belongs to "
                    f"MONITOR_{taken[path].upper()} already: it must be another path."
                )
            taken[path] = name


def _closest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`; without the prefix, that makes all of them alike."""
    bare = {each.removeprefix(_PREFIX): each for each in sorted(known)}
    found = get_close_matches(name.removeprefix(_PREFIX), bare, n=1)
    return bare[found[0]] if found else None


def _in_force(environ: Mapping[str, str] | None, variables: Iterable[Variable]) -> dict[str, str]:
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


def _value(variable: Variable, found: Mapping[str, str]) -> Any:
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
            pair = _pair(text)
            if pair is None:
                raise ConfigurationError(
                    f"{_ENV_FILE} names the file {path!r}, whose line {number} is not NAME=VALUE "
                    "with the value bare or in matching quotes."
                )
            listed[pair[0]] = pair[1]
    return listed


def _pair(line: str) -> tuple[str, str] | None:
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
