"""Settings: what the environment and code may say, and the answer where they say otherwise."""

import copy
import dataclasses
import json
import pickle
import re
import socket
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.latency import Bounds
from holistic_asgi_monitor.metrics.series import RequestSeries
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import RESERVED_LABELS, Settings, Variable
from holistic_asgi_monitor.settings.variables import pair as _pair

VARIABLES = Settings.variables()
SECRETS = [variable for variable in VARIABLES.values() if variable.secret]
CLASSIC = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
EVERY_NAME = """
MONITOR_ENABLED MONITOR_SERVICE MONITOR_APP_VERSION MONITOR_INSTANCE MONITOR_NAMESPACE
MONITOR_CONSTANT_LABELS MONITOR_ACCESS MONITOR_TOKEN MONITOR_TOKEN_FILE MONITOR_PUBLIC_URL
MONITOR_RUNBOOK_URL MONITOR_HEALTH_PATH MONITOR_METRICS_PATH MONITOR_PREFIX MONITOR_BUCKETS
MONITOR_MAX_ENDPOINTS MONITOR_EXCLUDE MONITOR_NAMING MONITOR_CHECK_INTERVAL_SECONDS
MONITOR_CHECK_TIMEOUT_SECONDS MONITOR_RECHECK_SECONDS MONITOR_STARTUP_GRACE_SECONDS
MONITOR_REQUIRED_CHECKS MONITOR_READY_CHECKS MONITOR_RESPONSE_TIME_MS MONITOR_ERROR_RATE_PERCENT
MONITOR_MINIMUM_REQUESTS MONITOR_MEMORY_PERCENT MONITOR_CPU_PERCENT MONITOR_DISK_PERCENT
MONITOR_EVENT_LOOP_LAG_MS MONITOR_DATABASE_SLOW_MS MONITOR_DATABASE_CONNECTIONS
MONITOR_FAILURES_BEFORE_ALERT MONITOR_SUCCESSES_BEFORE_CLEAR MONITOR_ALERT_COOLDOWN_MINUTES
MONITOR_SLO_AVAILABILITY_PERCENT MONITOR_SLO_LATENCY_MS MONITOR_HEARTBEAT_URL
MONITOR_HEARTBEAT_URL_FILE MONITOR_HISTORY_URL
MONITOR_HISTORY_URL_FILE MONITOR_HISTORY_MAX_MB MONITOR_FLUSH_SECONDS MONITOR_TRACK_OPENAI
MONITOR_OPENAI_DAILY_BUDGET_USD MONITOR_OPENAI_PRICES
MONITOR_OPENAI_MONTHLY_BUDGET_USD MONITOR_USER_HASH_KEY MONITOR_USER_HASH_KEY_FILE MONITOR_TIMEZONE
MONITOR_SUMMARY_TIME MONITOR_DAILY_SUMMARY MONITOR_WEEKLY_SUMMARY MONITOR_WEBHOOK_URL
MONITOR_ENV_FILE
"""


def read(**variables: str) -> Settings:
    return Settings.from_env(variables)


def refusal(environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "file") -> str:
    path = folder / name
    path.write_text(text, "utf-8")
    return str(path)


# --- defaults ---


def test_the_defaults_are_those_of_the_interface(tmp_path: Path) -> None:
    expected = {
        "enabled": True,
        "environment": "production",
        "app_version": None,
        "namespace": "holisticos",
        "constant_labels": {},
        "access": None,
        "token": None,
        "public_url": None,
        "runbook_url": None,
        "health_path": "/api/health",
        "metrics_path": "/metrics",
        "prefix": "/api/monitoring",
        "buckets": (*CLASSIC, 30.0, 60.0, 120.0),
        "max_endpoints": 1000,
        "exclude": None,
        "check_interval_seconds": 30,
        "check_timeout_seconds": 4,
        "recheck_seconds": 5,
        "startup_grace_seconds": 60,
        "required_checks": None,
        "ready_checks": (),
        "response_time_ms": 5000,
        "error_rate_percent": 5,
        "minimum_requests": 20,
        "memory_percent": 80,
        "cpu_percent": 90,
        "disk_percent": 90,
        "event_loop_lag_ms": 500,
        "database_slow_ms": 3000,
        "database_connections": None,
        "database_url": None,
        "redis_url": None,
        "openai_api_key": None,
        "openai_base_url": None,
        "failures_before_alert": 2,
        "successes_before_clear": 2,
        "alert_cooldown_minutes": 15,
        "slo_availability_percent": None,
        "slo_latency_ms": None,
        "history_url": None,
        "history_max_mb": 512,
        "flush_seconds": 60,
        "track_openai": True,
        "openai_prices": {},
        "openai_daily_budget_usd": None,
        "openai_monthly_budget_usd": None,
        "user_hash_key": None,
        "timezone": "UTC",
        "summary_time": "09:00",
        "daily_summary": None,
        "weekly_summary": None,
        "slack_webhook_url": None,
        "slack_bot_token": None,
        "slack_channel": None,
        "alertmanager_url": None,
        "webhook_url": None,
        "heartbeat_url": None,
    }

    settings = Settings()

    assert {name: getattr(settings, name) for name in expected} == expected
    assert set(expected) == set(VARIABLES) - {"service", "instance"}


def test_service_and_instance_are_called_after_folder_and_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")

    assert Settings().service == "shop"
    assert Settings().instance == socket.gethostname()


@pytest.mark.parametrize("folder", ["line\nend", b"\xff\xfe", " "])
def test_a_folder_whose_name_no_setting_could_have_still_gives_a_service(
    folder: str | bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bytes(tmp_path) + b"/" + (folder if isinstance(folder, bytes) else folder.encode())
    Path(path.decode("utf-8", "surrogateescape")).mkdir()
    monkeypatch.chdir(path.decode("utf-8", "surrogateescape"))

    assert Settings().service in {"line?end", "??", "app"}


def test_the_root_folder_has_no_name_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    assert Settings().service == "app"


def test_a_folder_that_is_gone_has_no_name_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert Settings().service == "app"


async def test_settings_can_be_made_on_a_running_event_loop() -> None:
    assert Settings().service == Settings.from_env({}).service


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({}) == Settings()


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONITOR_SERVICE", "shop")

    assert Settings.from_env().service == "shop"
    assert Settings().service != "shop"


# --- what may be said ---


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MONITOR_SERVICE", "  shop  ", "shop"),
        ("MONITOR_SERVICE", "Süßes & Täter", "Süßes & Täter"),
        ("ENVIRONMENT", "staging", "staging"),
        ("MONITOR_APP_VERSION", "1.2.3", "1.2.3"),
        ("MONITOR_NAMESPACE", "my_app", "my_app"),
        ("MONITOR_CONSTANT_LABELS", "team=a, region = eu ,", {"team": "a", "region": "eu"}),
        ("MONITOR_CONSTANT_LABELS", "query=a=b", {"query": "a=b"}),
        ("MONITOR_ACCESS", "Open", "open"),
        ("MONITOR_TOKEN", "pässwörd with spaces", "pässwörd with spaces"),
        ("MONITOR_PUBLIC_URL", "https://shop.example:8443/api/", "https://shop.example:8443/api"),
        ("MONITOR_RUNBOOK_URL", "http://[::1]/wiki?page=a#b", "http://[::1]/wiki?page=a#b"),
        ("MONITOR_HEALTH_PATH", "/healthz", "/healthz"),
        ("MONITOR_METRICS_PATH", "", ""),
        ("MONITOR_PREFIX", "/päge/.well-known/x..y", "/päge/.well-known/x..y"),
        ("MONITOR_BUCKETS", "0.1, 1,2.5,1e2", (0.1, 1.0, 2.5, 100.0)),
        ("MONITOR_BUCKETS", "7", (7.0,)),
        ("MONITOR_MAX_ENDPOINTS", "1", 1),
        ("MONITOR_EXCLUDE", "^/static/|^/x{2}$", re.compile("^/static/|^/x{2}$")),
        ("MONITOR_CHECK_INTERVAL_SECONDS", "0.5", 0.5),
        ("MONITOR_STARTUP_GRACE_SECONDS", "0", 0.0),
        ("MONITOR_REQUIRED_CHECKS", "database, redis,,database", ("database", "redis")),
        ("MONITOR_REQUIRED_CHECKS", ",", ()),
        ("MONITOR_READY_CHECKS", "database", ("database",)),
        ("MONITOR_ERROR_RATE_PERCENT", "0", 0.0),
        ("MONITOR_CPU_PERCENT", "1e2", 100.0),
        ("SLACK_WEBHOOK_URL", "http://127.0.0.1:9/services/T/B/x", None),
        ("SLACK_CHANNEL", " #alerts ", "#alerts"),
        ("ALERTMANAGER_URL", "http://me:p@ss@alerts.example:9093/am", None),
        ("MONITOR_WEBHOOK_URL", "https://alerts.example/hook?key=a@b", None),
        ("MONITOR_TRACK_OPENAI", "off", False),
        ("MONITOR_OPENAI_PRICES", '{"shop": "gpt-4o"}', {"shop": "gpt-4o"}),
        (
            "MONITOR_OPENAI_PRICES",
            '{"m": {"input": 2.5, "output": 10, "cached": 0}}',
            {"m": {"input": 2.5, "output": 10.0, "cached": 0.0}},
        ),
    ],
)
def test_a_variable_says_what_its_field_is(variable: str, text: str, value: Any) -> None:
    field = variable.removeprefix("MONITOR_").lower()

    assert getattr(Settings.from_env({variable: text}), field) == (text if value is None else value)


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", "Yes", " oN "])
def test_a_flag_is_on(word: str) -> None:
    assert read(MONITOR_ENABLED=word).enabled is True


@pytest.mark.parametrize("word", ["false", "0", "no", "off", "FALSE", "No", " oFF "])
def test_a_flag_is_off(word: str) -> None:
    assert read(MONITOR_ENABLED=word).enabled is False


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=lambda variable: variable.name)
@pytest.mark.parametrize("blank", ["", "  ", "\t\n"])
def test_empty_means_off_for_paths_and_not_set_for_all_else(variable: Variable, blank: str) -> None:
    off = variable.attribute in {"health_path", "metrics_path", "prefix"}
    expected = "" if off else getattr(Settings(), variable.attribute)

    assert getattr(Settings.from_env({variable.name: blank}), variable.attribute) == expected


@pytest.mark.parametrize(
    "name", ["service", "environment", "token", "access", "public_url", "namespace", "exclude"]
)
def test_an_empty_text_in_code_is_not_set_either(name: str) -> None:
    blank: dict[str, Any] = {name: " "}

    assert Settings(**blank) == Settings()


def test_code_may_give_lists_whole_numbers_and_text_for_an_expression() -> None:
    given: dict[str, Any] = {
        "buckets": [1, 2],
        "required_checks": ["database"],
        "cpu_percent": 70,
        "exclude": "^/static",
        "constant_labels": {"team": "a"},
    }

    settings = Settings(**given)

    assert settings.buckets == (1.0, 2.0)
    assert settings.required_checks == ("database",)
    assert isinstance(settings.cpu_percent, float)
    assert settings.exclude == re.compile("^/static")
    assert settings.constant_labels == {"team": "a"}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("UTC", "UTC"),
        ("utc", "UTC"),
        ("Europe/Berlin", "Europe/Berlin"),
        (" Asia/Kolkata ", "Asia/Kolkata"),
    ],
)
def test_a_time_zone_is_kept_by_its_name(text: str, kept: str) -> None:
    assert read(MONITOR_TIMEZONE=text).timezone == kept
    assert Settings(timezone=text).timezone == kept


@pytest.mark.parametrize(
    ("value", "kept"),
    [("9:05", "09:05"), ("00:00", "00:00"), ("23:59", "23:59"), (time(7, 30), "07:30")],
)
def test_a_time_of_day_has_two_digits_each(value: Any, kept: str) -> None:
    assert Settings(summary_time=value).summary_time == kept


@pytest.mark.parametrize(
    ("text", "kept"), [("auto", None), ("AUTO", None), ("yes", True), ("off", False)]
)
def test_a_summary_is_sent_always_never_or_where_there_is_something(
    text: str, kept: bool | None
) -> None:
    assert read(MONITOR_DAILY_SUMMARY=text).daily_summary is kept
    assert read(MONITOR_WEEKLY_SUMMARY=text).weekly_summary is kept


@pytest.mark.parametrize(
    ("value", "kept"), [(None, None), ("auto", None), (True, True), (False, False)]
)
def test_code_may_leave_a_summary_to_us(value: Any, kept: bool | None) -> None:
    assert Settings(daily_summary=value).daily_summary is kept


@pytest.mark.parametrize(
    ("environ", "service"),
    [
        ({"K_SERVICE": "run"}, "run"),
        ({"FLY_APP_NAME": "fly", "K_SERVICE": "run"}, "fly"),
        ({"RENDER_SERVICE_NAME": "render", "FLY_APP_NAME": "fly"}, "render"),
        ({"OTEL_SERVICE_NAME": "otel", "RENDER_SERVICE_NAME": "render"}, "otel"),
        ({"MONITOR_SERVICE": "own", "OTEL_SERVICE_NAME": "otel"}, "own"),
        ({"MONITOR_SERVICE": "", "OTEL_SERVICE_NAME": " ", "K_SERVICE": "run"}, "run"),
    ],
)
def test_the_service_falls_back_on_what_platforms_call_it(
    environ: dict[str, str], service: str
) -> None:
    assert Settings.from_env(environ).service == service


def test_the_version_falls_back_on_the_commit() -> None:
    assert read(RENDER_GIT_COMMIT="abc").app_version == "abc"
    assert read(RENDER_GIT_COMMIT="abc", MONITOR_APP_VERSION="1").app_version == "1"


def test_a_fallback_that_is_not_allowed_is_named_itself() -> None:
    assert refusal({"OTEL_SERVICE_NAME": "a\nb"}).startswith(
        "OTEL_SERVICE_NAME (field service) is 'a\\nb': it must be "
    )


# --- what may not be said ---

NOT_ALLOWED: list[Any] = [
    ("enabled", "maybe"),
    ("enabled", "2"),
    ("service", "two\nlines"),
    ("service", "a\x00b"),
    ("service", "a\udcffb"),
    ("environment", "a\x1b[31mb"),
    ("instance", "a\u2028b"),
    ("namespace", "1st"),
    ("namespace", "my-app"),
    ("namespace", "säge"),
    ("constant_labels", "team"),
    ("constant_labels", "team="),
    ("constant_labels", "=a"),
    ("constant_labels", "a=1,a=2"),
    ("constant_labels", "1a=b"),
    ("constant_labels", "a-b=c"),
    ("constant_labels", "ä=c"),
    ("constant_labels", "__name__=a"),
    ("constant_labels", "__a=b"),
    *(("constant_labels", f"{name}=a") for name in sorted(RESERVED_LABELS)),
    ("access", "public"),
    ("token", "two\nlines"),
    ("token", "a\x7fb"),
    ("public_url", "shop.example"),
    ("public_url", "ftp://shop.example"),
    ("public_url", "https://"),
    ("public_url", "https:///path"),
    ("public_url", "https://shop.example/?a=b"),
    ("public_url", "https://shop.example/#a"),
    ("public_url", "https://me:word@shop.example"),
    ("public_url", "https://shop.example:99999"),
    ("public_url", "https://shop.example:0"),
    ("public_url", "https://[::1"),
    ("runbook_url", "https://shop example"),
    ("runbook_url", "javascript:alert(1)"),
    ("health_path", "health"),
    ("health_path", "/"),
    ("health_path", "/health/"),
    ("metrics_path", "/a//b"),
    ("metrics_path", "/a b"),
    ("metrics_path", "/a?b"),
    ("metrics_path", "/a#b"),
    ("metrics_path", "/a/../b"),
    ("metrics_path", "/."),
    ("prefix", "/{name}"),
    ("prefix", "/a%20b"),
    ("prefix", "/a\\b"),
    ("prefix", "/a\u00a0b"),
    ("buckets", ","),
    ("buckets", "1,,2"),
    ("buckets", "2,1"),
    ("buckets", "1,1"),
    ("buckets", "0,1"),
    ("buckets", "-1,1"),
    ("buckets", "1,inf"),
    ("buckets", "nan"),
    ("buckets", "1e300"),
    ("buckets", "1;2"),
    ("max_endpoints", "0"),
    ("max_endpoints", "10.0"),
    ("max_endpoints", "1000001"),
    pytest.param("max_endpoints", "9" * 5000, id="a very long text"),
    ("exclude", "("),
    ("exclude", "a{99999999999999999999}"),
    ("check_interval_seconds", "0"),
    ("check_interval_seconds", "abc"),
    ("check_interval_seconds", "30s"),
    ("check_timeout_seconds", "-1"),
    ("check_timeout_seconds", "nan"),
    ("recheck_seconds", "inf"),
    ("recheck_seconds", "86401"),
    ("startup_grace_seconds", "-0.1"),
    ("required_checks", "a\x00"),
    ("ready_checks", "a\tb"),
    ("response_time_ms", "0"),
    ("error_rate_percent", "100.1"),
    ("error_rate_percent", "5%"),
    ("minimum_requests", "0"),
    ("minimum_requests", "1e3"),
    ("memory_percent", "-inf"),
    ("cpu_percent", "101"),
    ("disk_percent", "-1"),
    ("event_loop_lag_ms", "-1"),
    ("slo_availability_percent", "100"),
    ("slo_availability_percent", "49.9"),
    ("slo_latency_ms", "0"),
    ("failures_before_alert", "0"),
    ("successes_before_clear", "1.5"),
    ("alert_cooldown_minutes", "0"),
    ("flush_seconds", "0"),
    ("flush_seconds", "3601"),
    ("track_openai", "perhaps"),
    ("openai_prices", "gpt-4o"),
    ("openai_prices", "[1]"),
    ("openai_prices", '{"m": 3}'),
    ("openai_prices", '{"m": {}}'),
    ("openai_prices", '{"m": ""}'),
    ("openai_prices", '{"": "gpt-4o"}'),
    ("openai_prices", '{"m": {"input": "2"}}'),
    ("openai_prices", '{"m": {"input": -1}}'),
    ("openai_prices", '{"m": {"input": NaN}}'),
    ("openai_prices", '{"m": {"input": true}}'),
    ("openai_prices", '{"m": {"inputs": 1}}'),
    ("openai_daily_budget_usd", "0"),
    ("openai_monthly_budget_usd", "ten"),
    ("user_hash_key", "a\nb"),
    ("timezone", "Berlin"),
    ("timezone", "../etc/passwd"),
    ("timezone", "Europe"),
    ("summary_time", "24:00"),
    ("summary_time", "9"),
    ("summary_time", "09:60"),
    ("summary_time", "\u0660\u0669:\u0660\u0660"),
    ("daily_summary", "sometimes"),
    ("weekly_summary", "monday"),
    ("slack_webhook_url", "hooks.slack.example/services/T0/B0/x"),
    ("slack_webhook_url", "https://u:p@hooks.slack.example/x"),
    ("slack_channel", "#a\nb"),
    ("alertmanager_url", "alerts.example:9093"),
    ("alertmanager_url", "ftp://me:secret@alerts.example"),
    ("alertmanager_url", "http://me:secret@"),
    ("webhook_url", "https://alerts.example/a b"),
]


@pytest.mark.parametrize(("name", "text"), NOT_ALLOWED)
def test_a_value_that_is_not_allowed_is_one_sentence(name: str, text: str) -> None:
    variable = VARIABLES[name]

    sentence = refusal({variable.name: text})

    assert sentence.startswith(f"{variable.name} (field {name}) ")
    assert sentence.endswith(f": it must be {variable.allowed}.")
    assert "\n" not in sentence
    assert len(sentence) < 500
    assert sentence.isprintable()


WRONG_IN_CODE: list[Any] = [
    ("enabled", 1),
    ("enabled", "true"),
    ("enabled", None),
    ("service", 7),
    ("service", b"shop"),
    ("service", None),
    ("namespace", "a-b"),
    ("constant_labels", "team=a"),
    ("constant_labels", [("team", "a")]),
    ("constant_labels", {"team": 1}),
    ("constant_labels", {1: "a"}),
    ("constant_labels", {"le": "a"}),
    ("constant_labels", {"team": ""}),
    ("constant_labels", None),
    ("access", True),
    ("access", "public"),
    ("token", 12345678901),
    ("public_url", 1),
    ("health_path", "no-slash"),
    ("health_path", None),
    ("buckets", "1,2"),
    ("buckets", 1.0),
    ("buckets", ()),
    ("buckets", {1.0, 2.0}),
    ("buckets", [True, 2]),
    ("buckets", [1, "2"]),
    ("buckets", [1, float("nan")]),
    pytest.param("buckets", [1, 10**5000], id="a very long bucket"),
    ("max_endpoints", "1000"),
    ("max_endpoints", 10.0),
    ("max_endpoints", True),
    pytest.param("max_endpoints", 10**5000, id="a very long number"),
    ("exclude", re.compile(b"x")),
    ("exclude", 5),
    ("exclude", "("),
    ("check_interval_seconds", "abc"),
    ("check_interval_seconds", "30"),
    ("check_interval_seconds", True),
    ("check_interval_seconds", float("nan")),
    ("check_interval_seconds", float("inf")),
    ("check_interval_seconds", -1),
    ("check_interval_seconds", 10**400),
    ("check_interval_seconds", None),
    ("required_checks", "database"),
    ("required_checks", b"database"),
    ("required_checks", [1]),
    ("required_checks", [""]),
    ("ready_checks", {"database"}),
    ("ready_checks", None),
    ("cpu_percent", 1j),
    ("failures_before_alert", 2.0),
    ("track_openai", 1),
    ("openai_prices", '{"m": "gpt-4o"}'),
    ("openai_prices", {1: "gpt-4o"}),
    ("openai_prices", {"m": {1: 2.0}}),
    ("openai_prices", {"m": 2.5}),
    ("openai_prices", None),
    ("timezone", None),
    ("timezone", 1),
    ("summary_time", 9),
    ("daily_summary", 1),
    ("weekly_summary", "true"),
    ("slack_webhook_url", ["https://hooks.slack.example/x"]),
]


@pytest.mark.parametrize(("name", "value"), WRONG_IN_CODE)
def test_code_is_held_to_the_same_as_the_environment(name: str, value: Any) -> None:
    variable = VARIABLES[name]

    with pytest.raises(ConfigurationError) as caught:
        Settings(**{name: value})

    sentence = str(caught.value)
    assert sentence.startswith(f"{variable.name} (field {name}) ")
    assert sentence.endswith(f": it must be {variable.allowed}.")
    assert "\n" not in sentence
    assert len(sentence) < 500


def test_the_sentence_shows_the_value() -> None:
    assert refusal({"MONITOR_CPU_PERCENT": "abc"}) == (
        "MONITOR_CPU_PERCENT (field cpu_percent) is 'abc': it must be a number from 0 to 100."
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MONITOR_CONSTANT_LABELS", "team" * 2_000),
        ("MONITOR_CONSTANT_LABELS", "te-am" * 2_000 + "=a"),
        ("MONITOR_CONSTANT_LABELS", "team" * 2_000 + "=a," + "team" * 2_000 + "=b"),
        ("MONITOR_OPENAI_PRICES", json.dumps({"gpt" * 2_000: {"input": "free"}})),
        ("MONITOR_OPENAI_PRICES", json.dumps({"gpt" * 2_000: {}})),
    ],
)
def test_the_sentence_stays_one_whatever_is_refused(variable: str, text: str) -> None:
    assert len(refusal({variable: text})) < 600


def test_the_sentence_says_which_label_is_wrong() -> None:
    assert "is 'team=a,le=b' (the label name 'le' is taken): " in refusal(
        {"MONITOR_CONSTANT_LABELS": "team=a,le=b"}
    )


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_value_that_cannot_be_shown_is_refused_like_any_other() -> None:
    wrong: dict[str, Any] = {"cpu_percent": Unprintable()}

    with pytest.raises(ConfigurationError, match="MONITOR_CPU_PERCENT"):
        Settings(**wrong)


@pytest.mark.parametrize("length", [1, 300])
def test_a_password_in_an_address_is_not_shown(length: int) -> None:
    password = "pw" * length

    assert "pw" not in refusal({"MONITOR_PUBLIC_URL": f"https://me:{password}@shop.example"})


def test_the_label_names_of_our_own_metrics_are_taken() -> None:
    series = RequestSeries(Bounds((1.0,)), max_endpoints=1, exclude=None)
    families = Catalogue("holisticos", {}, series)

    assert {label for family in families for label in family.labels} <= RESERVED_LABELS


def outcome(environ: dict[str, str]) -> Settings | str:
    """The settings, or the sentence that refuses them."""
    try:
        return Settings.from_env(environ)
    except ConfigurationError as error:
        return str(error)


@given(
    st.sampled_from([variable.name for variable in VARIABLES.values()]),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00")),
)
def test_any_text_is_either_settings_or_one_sentence(name: str, text: str) -> None:
    found = outcome({name: text})

    if isinstance(found, str):
        assert found.startswith(name)
        assert "\n" not in found
    else:
        assert Settings(**{each: getattr(found, each) for each in VARIABLES}) == found


# --- what must fit together ---


def test_token_access_needs_a_token() -> None:
    sentence = refusal({"MONITOR_ACCESS": "token"})

    assert "MONITOR_ACCESS (field access)" in sentence
    assert "MONITOR_TOKEN (field token)" in sentence


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "closed"),
        ({"MONITOR_TOKEN": "word"}, "token"),
        ({"MONITOR_TOKEN": "word", "ENVIRONMENT": "development"}, "token"),
        ({"MONITOR_TOKEN": "word", "MONITOR_ACCESS": "open"}, "open"),
        ({"MONITOR_TOKEN": "word", "MONITOR_ACCESS": "token"}, "token"),
        ({"ENVIRONMENT": "development"}, "local"),
        ({"ENVIRONMENT": "Dev"}, "local"),
        ({"ENVIRONMENT": "local"}, "local"),
        ({"ENVIRONMENT": "test"}, "local"),
        ({"ENVIRONMENT": "testing"}, "closed"),
        ({"ENVIRONMENT": "staging"}, "closed"),
        ({"ENVIRONMENT": "dev", "MONITOR_ACCESS": "closed"}, "closed"),
        ({"MONITOR_ACCESS": "local"}, "local"),
    ],
)
def test_the_access_mode_follows_from_token_and_environment(
    environ: dict[str, str], mode: str
) -> None:
    assert Settings.from_env(environ).access_mode == mode


@pytest.mark.parametrize(
    "environ",
    [
        {"MONITOR_METRICS_PATH": "/api/health"},
        {"MONITOR_METRICS_PATH": "/api/health/live"},
        {"MONITOR_METRICS_PATH": "/api/monitoring/stats"},
        {"MONITOR_METRICS_PATH": "/api/monitoring"},
        {"MONITOR_HEALTH_PATH": "/api/monitoring"},
        {"MONITOR_HEALTH_PATH": "/metrics"},
        {"MONITOR_PREFIX": "/metrics"},
    ],
)
def test_two_settings_cannot_want_one_path(environ: dict[str, str]) -> None:
    (variable,) = environ

    sentence = refusal(environ)

    assert variable in sentence
    assert environ[variable] in sentence
    assert len(set(re.findall(r"MONITOR_\w+", sentence))) == 2


@pytest.mark.parametrize(
    "environ",
    [
        {"MONITOR_HEALTH_PATH": "/m/health", "MONITOR_METRICS_PATH": "/m", "MONITOR_PREFIX": "/x"},
        {"MONITOR_HEALTH_PATH": "/m/h", "MONITOR_METRICS_PATH": "/m/m", "MONITOR_PREFIX": "/m"},
        {"MONITOR_HEALTH_PATH": "", "MONITOR_METRICS_PATH": "", "MONITOR_PREFIX": ""},
        {"MONITOR_METRICS_PATH": "/api/monitoring/metrics"},
    ],
)
def test_paths_may_lie_beside_and_below_each_other(environ: dict[str, str]) -> None:
    settings = Settings.from_env(environ)

    assert settings.metrics_path == environ["MONITOR_METRICS_PATH"]


def test_every_latency_threshold_is_one_of_the_bounds() -> None:
    settings = Settings(buckets=(0.1, 1.0), response_time_ms=800, event_loop_lag_ms=2.1)

    assert settings.bucket_bounds == (0.0021, 0.1, 0.8, 1.0)
    assert dataclasses.replace(settings, slo_latency_ms=300).bucket_bounds == (
        *(0.0021, 0.1, 0.3, 0.8, 1.0),
    )
    assert settings.buckets == (0.1, 1.0)


def test_a_threshold_that_is_a_bound_already_is_not_doubled() -> None:
    assert Settings().bucket_bounds == Settings().buckets


# --- values that stay ---


def test_settings_do_not_change() -> None:
    settings = Settings()

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.token = "word"  # type: ignore[misc] # what is not allowed is tried here
    with pytest.raises(TypeError):
        settings.constant_labels["team"] = "a"  # type: ignore[index] # the same


def test_what_was_passed_in_may_change_later() -> None:
    labels = {"team": "a"}
    settings = Settings(constant_labels=labels)

    labels["team"] = "b"

    assert settings.constant_labels == {"team": "a"}


FULL = Settings(
    constant_labels={"team": "a"},
    token="word",
    exclude=re.compile("^/x"),
    openai_prices={"m": {"input": 2.5}},
)


def test_equal_settings_have_equal_hashes() -> None:
    again = dataclasses.replace(FULL, constant_labels={"team": "a"})

    assert again == FULL
    assert hash(again) == hash(FULL)
    assert Settings() != FULL


def test_settings_can_be_copied_and_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert copy.deepcopy(FULL) == FULL
    assert dataclasses.asdict(FULL)["constant_labels"] == {"team": "a"}


def test_a_changed_copy_is_validated() -> None:
    with pytest.raises(ConfigurationError, match="MONITOR_CPU_PERCENT"):
        dataclasses.replace(FULL, cpu_percent=-1)


# --- secrets ---

SECRET_VALUE = "https://secret.example/xyzzy"


def secret_of(variable: Variable) -> str:
    """A value that the variable may have, and that has the word xyzzy in it."""
    if variable.name == "MONITOR_HISTORY_URL":
        return "postgresql://shop:xyzzy@secret.example/shop"
    return SECRET_VALUE


def test_secrets_are_these() -> None:
    assert {variable.name for variable in SECRETS} == {
        "ALERTMANAGER_URL",
        "DATABASE_URL",
        "MONITOR_HEARTBEAT_URL",
        "MONITOR_HISTORY_URL",
        "MONITOR_TOKEN",
        "MONITOR_USER_HASH_KEY",
        "MONITOR_WEBHOOK_URL",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "REDIS_URL",
        "SLACK_BOT_TOKEN",
        "SLACK_WEBHOOK_URL",
    }


@pytest.mark.parametrize("variable", SECRETS, ids=lambda variable: variable.name)
def test_a_secret_is_in_no_repr_and_no_error(variable: Variable) -> None:
    value = secret_of(variable)
    settings = Settings.from_env({variable.name: value})

    assert getattr(settings, variable.attribute) == value
    assert "xyzzy" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({variable.name: f"{value}\n{value}"})
    assert "xyzzy" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("word", ["memory:", "off"])
def test_a_history_that_is_named_by_a_word_hides_no_word_of_a_message(word: str) -> None:
    assert Settings(history_url=word).secrets == ()


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///history.sqlite",
        "sqlite:////var/lib/history.sqlite",
        "postgresql://shop@db/shop",
        "postgres://shop@db/shop",
        "postgresql+asyncpg://shop@db/shop",
        "memory:",
        "OFF",
    ],
)
def test_history_may_be_kept_here(url: str) -> None:
    assert Settings(history_url=url).history_url == url


@pytest.mark.parametrize("url", ["mysql://db/shop", "history.sqlite", "postgresql:", "on"])
def test_history_cannot_be_kept_elsewhere(url: str) -> None:
    assert "it must be sqlite:///path, " in refusal({"MONITOR_HISTORY_URL": url})


def test_the_secrets_are_listed_for_redaction_longest_first() -> None:
    settings = Settings(token="abc", slack_webhook_url="https://abc.example/x", user_hash_key="a")

    assert settings.secrets == ("https://abc.example/x", "abc", "a")
    assert Settings().secrets == ()


@pytest.mark.parametrize("variable", SECRETS, ids=lambda variable: variable.name)
def test_a_secret_may_be_in_a_file(variable: Variable, tmp_path: Path) -> None:
    path = write(tmp_path, f"\ufeff  {secret_of(variable)}\r\n\n")

    settings = Settings.from_env({f"{variable.name}_FILE": path})

    assert getattr(settings, variable.attribute) == secret_of(variable)


def test_only_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    settings = Settings.from_env({"MONITOR_SERVICE_FILE": write(tmp_path, "shop")})

    assert settings == Settings()


def test_a_secret_cannot_be_given_twice(tmp_path: Path) -> None:
    path = write(tmp_path, "one")

    sentence = refusal({"MONITOR_TOKEN": "xyzzy", "MONITOR_TOKEN_FILE": path})

    assert sentence == (
        "MONITOR_TOKEN and MONITOR_TOKEN_FILE are both set: only one of them may be."
    )


@pytest.mark.parametrize("blank", ["MONITOR_TOKEN", "MONITOR_TOKEN_FILE"])
def test_an_empty_twin_does_not_count(blank: str, tmp_path: Path) -> None:
    environ = {"MONITOR_TOKEN": "word", "MONITOR_TOKEN_FILE": write(tmp_path, "word")}

    assert Settings.from_env(environ | {blank: ""}).token == "word"


@pytest.mark.parametrize("variable", ["MONITOR_TOKEN_FILE", "MONITOR_ENV_FILE"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "does not exist"),
        ("folder", "cannot be read"),
        ("nul\x00", "cannot be read"),
        ("binary", "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence_with_its_path(
    variable: str, kind: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    if kind == "binary":
        path.write_bytes(b"xyzzy\xff")

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({variable: str(path)})

    assert str(caught.value) == f"{variable} names the file {str(path)!r}, which {reason}."
    assert caught.value.__context__ is None


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff"])
def test_an_empty_secret_file_is_an_error(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)

    assert refusal({"MONITOR_TOKEN_FILE": path}) == (
        f"MONITOR_TOKEN_FILE names the file {path!r}, which is empty."
    )


def test_what_a_secret_file_holds_is_validated_and_not_shown(tmp_path: Path) -> None:
    sentence = refusal({"MONITOR_TOKEN_FILE": write(tmp_path, "xyzzy\nxyzzy")})

    assert sentence.startswith("MONITOR_TOKEN_FILE (field token) has a secret value, not shown, ")
    assert "xyzzy" not in sentence


# --- the file of variables ---


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("MONITOR_SERVICE=shop", "shop"),
        ("  export   MONITOR_SERVICE = shop  ", "shop"),
        ("MONITOR_SERVICE=the shop", "the shop"),
        ("MONITOR_SERVICE=shop # ours", "shop"),
        ("MONITOR_SERVICE=shop#1", "shop#1"),
        ("MONITOR_SERVICE=#1", "#1"),
        ("MONITOR_SERVICE='shop # \"1\" \\n'", 'shop # "1" \\n'),
        ("MONITOR_SERVICE='shop'# tight", None),
        ("MONITOR_SERVICE='shop'  # ours", "shop"),
        ('MONITOR_SERVICE="shop"', "shop"),
        (r'MONITOR_SERVICE="a \"b\" \\ \$c \`d \e"', r'a "b" \ $c `d \e'),
        ("MONITOR_SERVICE=$HOME", "$HOME"),
        ("MONITOR_SERVICE=it's", "it's"),
        ("MONITOR_SERVICE=a=b", "a=b"),
        ("MONITOR_SERVICE=first\nMONITOR_SERVICE=second", "second"),
        ("\ufeffMONITOR_SERVICE=shop\r", "shop"),
        ("OTEL_SERVICE_NAME=shop", "shop"),
    ],
)
def test_a_line_of_the_file_is_read_as_a_shell_would(
    line: str, value: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path, f"{line}\n\n  # a comment\nTHEIR_OWN=1\n")

    if value is None:
        assert "line 1 " in refusal({"MONITOR_ENV_FILE": path})
    else:
        assert read(MONITOR_ENV_FILE=path).service == value


@pytest.mark.parametrize(
    "line",
    [
        "xyzzy",
        "export MONITOR_TOKEN",
        "=xyzzy",
        "1A=xyzzy",
        "MONITOR-TOKEN=xyzzy",
        "MONITOR_TOKEN: xyzzy",
        "MONITOR_TOKEN='xyzzy",
        'MONITOR_TOKEN="xyzzy',
        'MONITOR_TOKEN="xyzzy\\"',
        "MONITOR_TOKEN='xyzzy' xyzzy",
    ],
)
def test_a_malformed_line_is_named_by_its_number_and_not_shown(line: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"# first\n\nA=1\n{line}\nB=2\n")

    sentence = refusal({"MONITOR_ENV_FILE": path})

    assert sentence.startswith(f"MONITOR_ENV_FILE names the file {path!r}, whose line 4 is not ")
    assert "xyzzy" not in sentence


def test_an_empty_file_of_variables_says_nothing(tmp_path: Path) -> None:
    assert read(MONITOR_ENV_FILE=write(tmp_path, "")) == Settings()


def test_the_real_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "MONITOR_SERVICE=file\nENVIRONMENT=file\nMONITOR_PREFIX=/file")

    settings = read(
        MONITOR_ENV_FILE=path, MONITOR_SERVICE="real", ENVIRONMENT="", MONITOR_PREFIX=""
    )

    assert settings.service == "real"
    assert settings.environment == "file"
    assert settings.prefix == ""


@pytest.mark.parametrize("listed", ["MONITOR_TOKEN={token}", "MONITOR_TOKEN_FILE={path}"])
@pytest.mark.parametrize("real", ["MONITOR_TOKEN", "MONITOR_TOKEN_FILE"])
def test_a_secret_of_the_real_environment_wins_in_either_form(
    listed: str, real: str, tmp_path: Path
) -> None:
    file = write(tmp_path, listed.format(token="file", path=write(tmp_path, "file", "a")), "env")
    value = "real" if real == "MONITOR_TOKEN" else write(tmp_path, "real", "b")

    assert Settings.from_env({"MONITOR_ENV_FILE": file, real: value}).token == "real"


def test_a_file_of_variables_may_name_the_file_of_a_secret(tmp_path: Path) -> None:
    token = write(tmp_path, "word", "token")

    assert read(MONITOR_ENV_FILE=write(tmp_path, f"MONITOR_TOKEN_FILE={token}")).token == "word"


def test_a_wrong_value_in_the_file_is_refused_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path, "MONITOR_CPU_PERCENT=abc")

    assert refusal({"MONITOR_ENV_FILE": path}).startswith("MONITOR_CPU_PERCENT (field cpu_percent)")


@given(st.text(st.characters(codec="utf-8")))
def test_any_line_is_either_read_or_refused(text: str) -> None:
    pair = _pair(text.replace("\n", " ").strip())

    assert pair is None or re.fullmatch(r"[A-Za-z_]\w*", pair[0], re.ASCII)


# --- variables that nobody knows ---


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("MONITOR_TOKKEN", "MONITOR_TOKEN"),
        ("MONITOR_CHECK_INTERVAL", "MONITOR_CHECK_INTERVAL_SECONDS"),
        ("MONITOR_ENVIRONMENT", "ENVIRONMENT"),
        ("MONITOR_SLACK_WEBHOOK_URL", "SLACK_WEBHOOK_URL"),
        ("MONITOR_DATABASE_URL", "DATABASE_URL"),
        ("MONITOR_PREFIX_FILE", "MONITOR_PREFIX"),
        ("MONITOR_QQQQQQ", None),
    ],
)
def test_an_unknown_variable_is_no_error_and_is_told_with_the_closest(
    name: str, closest: str | None
) -> None:
    assert Settings.unknown_variables({name: "x"}) == [(name, closest)]
    assert Settings.from_env({name: "x"}) == Settings()


@pytest.mark.parametrize("name", EVERY_NAME.split())
def test_a_variable_of_the_interface_is_never_unknown(name: str) -> None:
    environ = {name: "x"} if name != "MONITOR_ENV_FILE" else {name: "/dev/null"}

    assert Settings.unknown_variables(environ) == []


def test_other_peoples_variables_are_none_of_ours() -> None:
    assert Settings.unknown_variables({"PATH": "x", "MONITORING": "x", "monitor_token": "x"}) == []


def test_unknown_variables_come_from_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MONITOR_TOKKEN", "x")

    assert Settings.unknown_variables() == [("MONITOR_TOKKEN", "MONITOR_TOKEN")]


def test_unknown_variables_are_found_in_the_file_too(tmp_path: Path) -> None:
    path = write(tmp_path, "MONITOR_SERVISE=shop\nA=1")

    assert Settings.unknown_variables({"MONITOR_ENV_FILE": path}) == [
        ("MONITOR_SERVISE", "MONITOR_SERVICE")
    ]
