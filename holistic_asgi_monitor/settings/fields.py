"""Every setting: one frozen dataclass, from the environment or from code.

Each field carries its `Variable` in its metadata: the variable's name, what it is for, whether it
is secret, and which values are allowed. Parsing, validation and docs/settings.md all read it there.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.redaction import passwords
from holistic_asgi_monitor.settings.kinds import (
    YEAR_SECONDS,
    Address,
    Buckets,
    Choice,
    Expression,
    Fixed,
    Flag,
    FlagOrAuto,
    Kind,
    LabelPairs,
    Names,
    PriceTable,
    Text,
    TimeOfDay,
    TimeZone,
    is_writable,
    number_in,
)
from holistic_asgi_monitor.settings.variables import (
    OTHER_VARIABLES,
    PREFIX,
    Variable,
    closest,
    in_force,
    value_of,
)

__all__ = ("AccessMode", "Settings")

AccessMode = Literal["token", "closed", "local", "open"]
"""Who may see what; `web/access.py` says what each means."""

_DEVELOPMENT = frozenset({"development", "dev", "local", "test"})
_OPEN_WORDS = frozenset({"memory", "memory:", "off"})
"""Values of secret settings that are no secrets."""


def _about(
    name: str,
    text: str,
    kind: Kind,
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
    return "".join(each if is_writable(each) else "?" for each in text).strip()


_FLAG = Flag("true, 1, yes or on, or false, 0, no or off")
_FLAG_OR_AUTO = FlagOrAuto("auto, or true, 1, yes or on, or false, 0, no or off")
_LINE = Text("one line of text")
_TIME_ZONE = TimeZone(
    "a time zone such as Europe/Berlin, or UTC; where the system knows no zones, the package "
    "tzdata brings them"
)
_TIME_OF_DAY = TimeOfDay("a time of day such as 09:00, from 00:00 to 23:59")
_DOLLARS = number_in(0, 1000000000, above=True)
_PATH = Text(
    "a path such as /watch/it: full segments, no slash at the end, and no space, ?, #, %, brace or "
    "backslash; or empty: off",
    keeps_blank=True,
    pattern=r"(?:/(?!\.{1,2}(?:/|$))[^\s/?#%{}\\]+)+",
)
_BASE_ADDRESS = Address(
    "an http or https address without a password, ? or #, such as https://shop.example", base=True
)
_ADDRESS = Address("an http or https address without a password, such as https://shop.example/on")
_OPEN_ADDRESS = Address(
    "an http or https address, such as https://user:password@alerts.example/on", with_password=True
)
_HISTORY = Text(
    "sqlite:///path, postgresql://user@host/database, memory: or off",
    pattern=r"(?i:off|memory:?|sqlite:.*|postgres(?:ql)?(?:\+\w+)?://.+)",
)
_PRICES = PriceTable(
    'JSON such as {"my-model": {"input": 2.5, "output": 10, "cached": 1.25}, "my-deployment": '
    '"gpt-4o"}: US dollars for a million tokens, also audio_input and audio_output, or the name '
    "of the model whose prices hold"
)
_NAMES = Names("names, separated by commas; a lone comma stands for none")
_SECONDS = number_in(0, 86400, above=True)
_PERCENT = number_in(0, 100)
_MILLISECONDS = number_in(0.001, 86400000)
_ROUNDS = number_in(1, 1000, whole=True)


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
            Text(
                "letters, digits, underscores and colons, no digit first",
                pattern="[a-zA-Z_:][a-zA-Z0-9_:]*",
            ),
        ),
    )
    constant_labels: Mapping[str, str] = field(
        default_factory=Fixed,
        metadata=_about(
            "MONITOR_CONSTANT_LABELS",
            "Labels added to each of our metrics.",
            LabelPairs(
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
            Choice("token, closed, local or open", choices=("token", "closed", "local", "open")),
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
            Buckets(
                "ascending numbers of seconds separated by commas, "
                f"each above 0 and at most {YEAR_SECONDS} (a year)"
            ),
        ),
    )
    max_endpoints: int = field(
        default=1000,
        metadata=_about(
            "MONITOR_MAX_ENDPOINTS",
            "How many endpoints are counted on their own; all others count as _overflow.",
            number_in(1, 1000000, whole=True),
        ),
    )
    exclude: re.Pattern[str] | None = field(
        default=None,
        metadata=_about(
            "MONITOR_EXCLUDE",
            "Endpoints in which this is found are not counted.",
            Expression("a regular expression"),
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
            number_in(0, 86400),
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
            number_in(1, 1000000000, whole=True),
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
            number_in(1, 1000000, whole=True),
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
            number_in(0, 525600, above=True),
        ),
    )
    slo_availability_percent: float | None = field(
        default=None,
        metadata=_about(
            "MONITOR_SLO_AVAILABILITY_PERCENT",
            "Percent of the requests that shall not fail, over 30 days; what is left is a budget, "
            "and an alert says when it burns too fast.",
            number_in(50, 99.999),
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
            number_in(5, 1000000, whole=True),
        ),
    )
    flush_seconds: float = field(
        default=60.0,
        metadata=_about(
            "MONITOR_FLUSH_SECONDS",
            "Seconds from one writing of the history to the next; less than 1 is as 1.",
            number_in(0, 3600, above=True),
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
        default_factory=Fixed,
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
            otherwise="a random one, kept with the history",
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
        found = in_force(environ, variables.values())
        values = {name: value_of(variable, found) for name, variable in variables.items()}
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
        known = OTHER_VARIABLES | {variable.name for variable in variables}
        known |= {f"{variable.name}_FILE" for variable in variables if variable.secret}
        names = sorted(in_force(environ, variables).keys() - known)
        return [(name, closest(name, known)) for name in names if name.startswith(PREFIX)]

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
