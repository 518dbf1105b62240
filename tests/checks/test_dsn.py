"""Addresses of PostgreSQL: read whatever the password is made of, and shown without it."""

import contextlib
import inspect
from typing import Any, cast
from urllib.parse import quote

import pytest
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.dsn import Address
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.redaction import HIDDEN, Redaction

READS = inspect.signature(_parse_connect_dsn_and_args).parameters


def driver_reads(dsn: str) -> tuple[list[Any], Any]:
    """Return where asyncpg would connect to, and with what."""
    read = _parse_connect_dsn_and_args(**{**dict.fromkeys(READS), "dsn": dsn})
    return cast("tuple[list[Any], Any]", read)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(user=NAMES, password=NAMES, database=NAMES)
def test_whatever_is_quoted_comes_to_the_driver_as_it_was_meant(
    user: str, password: str, database: str
) -> None:
    parts = [quote(part, safe="") for part in (user, password, database)]

    address = Address.parse("postgresql+asyncpg://{}:{}@db:6432/{}".format(*parts))

    places, options = driver_reads(address.dsn)
    assert places == [("db", 6432)]
    assert (options.user, options.password, options.database) == (user, password, database)
    assert (address.user, address.database, address.where) == (user, database, "db:6432")
    assert password in address.secrets


@given(
    user=NAMES.filter(lambda user: not {":", "%"} & set(user)),
    password=NAMES.filter(lambda password: "%" not in password),
)
def test_what_is_not_quoted_is_taken_as_it_stands(user: str, password: str) -> None:
    text = f"postgres://{user}:{password}@db/shop?sslmode=disable"

    address = Address.parse(text)

    places, options = driver_reads(address.dsn)
    assert places == [("db", 5432)]
    assert (options.user, options.password) == (user, password)
    assert (options.database, options.sslmode.name) == ("shop", "disable")
    assert (address.user, address.shown) == (user, "db:5432/shop")


@given(text=st.text(st.sampled_from("pgostresql:/+@?#[]%=&,.0123456789 ab\n"), max_size=40))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        assert Address.parse(text).where


@given(tail=st.text(st.sampled_from("/?#@:[]%&=,x1"), max_size=12), password=st.just("p#S3cret"))
def test_a_password_is_neither_shown_nor_told_whatever_surrounds_it(
    tail: str, password: str
) -> None:
    text = f"postgresql://shop:{password}{tail}@db:5432/orders"
    address = Address.parse(text)

    assert "S3cret" not in f"{address} {address.shown} {address.user}"
    assert address.shown == "db:5432/orders"
    hidden = Redaction(address.secrets).text(f"could not use {text}: {password}{tail}.")
    assert hidden == f"could not use {HIDDEN}: {HIDDEN}."


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("p#S3cret", "p#S3cret"),
        ("a/b", "a/b"),
        ("12/34", "12/34"),
        ("a?b=c", "a?b=c"),
        ("p@ss@word", "p@ss@word"),
        ("100%", "100%"),
        ("50%zz", "50%zz"),
        ("p%23S3cret", "p#S3cret"),
        ("p%40ss#1", "p@ss#1"),
        ("a+b c", "a+b c"),
        ("[::1]", "[::1]"),
        (":", ":"),
    ],
)
def test_a_password_reaches_the_driver(written: str, password: str) -> None:
    address = Address.parse(f"postgresql://shop:{written}@db/orders")

    assert driver_reads(address.dsn)[1].password == password
    assert password in address.secrets


@pytest.mark.parametrize(
    ("text", "where", "database", "user"),
    [
        ("postgresql://db", "db:5432", "", ""),
        ("postgres://db/", "db:5432", "", ""),
        ("postgresql+psycopg://shop@db:6432/orders", "db:6432", "orders", "shop"),
        ("POSTGRESQL://shop@db/orders", "db:5432", "orders", "shop"),
        ("  postgresql://shop@db/orders\n", "db:5432", "orders", "shop"),
        ("postgresql://shop:pw@[::1]/orders", "[::1]:5432", "orders", "shop"),
        ("postgresql://shop:pw@[fe80::1]:6432/orders", "[fe80::1]:6432", "orders", "shop"),
        ("postgresql://a:1111,b:2222/orders", "a:1111,b:2222", "orders", ""),
        ("postgresql://a,b:2222/orders?target_session_attrs=any", "a:5432,b:2222", "orders", ""),
        ("postgresql://shop@%2Fvar%2Frun/orders", "/var/run", "orders", "shop"),
        ("postgresql:///orders?host=/var/run&user=shop", "/var/run", "orders", "shop"),
        ("postgresql://?host=a,b&port=1111,2222&dbname=orders", "a:1111,b:2222", "orders", ""),
        ("postgresql:///orders?host=db&port=6432", "db:6432", "orders", ""),
        ("postgresql:///orders", "a local socket or localhost:5432", "orders", ""),
        ("postgresql:///orders?port=6432", "a local socket or localhost:6432", "orders", ""),
        ("postgresql:///?service=x", "the place that its service file names", "", ""),
        ("postgresql://:6432/orders", "localhost:6432", "orders", ""),
        ("postgresql:///orders?host=a:1111&host=b:2222", "a:1111,b:2222", "orders", ""),
        ("postgresql://shop@db/a%20b%23c", "db:5432", "a b#c", "shop"),
        ("postgresql://shop%40tenant:pw@db/orders", "db:5432", "orders", "shop@tenant"),
        ("postgresql://db/orders?user=shop@tenant", "db:5432", "orders", "shop@tenant"),
        ("postgresql://shop:pw@db/orders?application_name=a@b", "db:5432", "orders", "shop"),
    ],
)
def test_an_address_says_where_it_leads_to(text: str, where: str, database: str, user: str) -> None:
    address = Address.parse(text)

    assert (address.where, address.database, address.user) == (where, database, user)
    driver_reads(address.dsn)


@pytest.mark.parametrize(
    ("environ", "text", "where", "places"),
    [
        ({"PGHOST": "db"}, "postgresql:///orders", "db:5432", [("db", 5432)]),
        ({"PGHOST": "db", "PGPORT": "6432"}, "postgresql:///", "db:6432", [("db", 6432)]),
        (
            {"PGHOST": "a,[::1]", "PGPORT": "1,2"},
            "postgresql://",
            "a:1,[::1]:2",
            [("a", 1), ("::1", 2)],
        ),
        ({"PGHOST": "/run", "PGPORT": "6432"}, "postgresql:///", "/run", [("/run", 6432)]),
        ({"PGHOST": "db", "PGPORT": "6432"}, "postgresql://own", "own:6432", [("own", 6432)]),
        ({"PGHOST": "db", "PGPORT": "6432"}, "postgresql://own:1", "own:1", [("own", 1)]),
        ({"PGPORT": "6432"}, "postgresql:///x", "a local socket or localhost:6432", []),
        (
            {"PGHOST": "db"},
            "postgresql:///?service=x",
            "the place that its service file names",
            [],
        ),
    ],
)
def test_the_place_told_is_the_one_that_is_asked(
    environ: dict[str, str], text: str, where: str, places: list[tuple[str, int]]
) -> None:
    address = Address.parse(text, environ)

    assert address.where == where
    assert list(address.places) == places


def test_user_database_and_password_may_come_from_the_environment() -> None:
    environ = {"PGUSER": "shop", "PGDATABASE": "orders", "PGPASSWORD": "p#S3cret"}
    address = Address.parse("postgresql://db", environ)

    assert (address.user, address.shown) == ("shop", "db:5432/orders")
    assert "p#S3cret" in address.secrets
    assert "p#S3cret" not in Address.parse("postgresql://a:b@db", environ).secrets


@pytest.mark.parametrize("environ", [{"PGHOST": "d b"}, {"PGHOST": "db", "PGPORT": "S3cret"}])
def test_an_environment_that_names_no_place_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="has no host and port where they belong"):
        Address.parse("postgresql:///", environ)


def test_a_port_of_the_environment_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="has no port in numbers"):
        Address.parse("postgresql:///", {"PGPORT": "S3cret"})


def test_a_database_among_the_parameters_reaches_the_driver() -> None:
    address = Address.parse("postgresql://db?dbname=orders")

    assert driver_reads(address.dsn)[1].database == "orders"


FOREIGN = [
    "prepared_statement_cache_size=0",
    "command_timeout=5",
    "connect_timeout=10",
    "channel_binding=prefer",
    "gssencmode=disable",
    "keepalives=1",
    "keepalives_idle=30",
    "pgbouncer=true",
    "schema=public",
    "pool_size=5",
    "connection_limit=5",
    "client_encoding=utf8",
    "fallback_application_name=x",
    "async_fallback=true",
    "requiressl=1",
]


@pytest.mark.parametrize("parameter", [*FOREIGN, "&".join(FOREIGN)])
def test_parameters_of_other_drivers_do_not_reach_the_server(parameter: str) -> None:
    address = Address.parse(f"postgresql://db/orders?{parameter}&application_name=x&sslmode=allow")

    options = driver_reads(address.dsn)[1]
    assert options.server_settings == {"application_name": "x"}
    assert options.sslmode.name == "allow"
    assert (
        driver_reads(Address.parse(f"postgresql://db?{parameter}").dsn)[1].server_settings is None
    )


@pytest.mark.parametrize(
    ("query", "mode"),
    [
        ("ssl=disable", "disable"),
        ("ssl=require", "require"),
        ("ssl=true", "require"),
        ("ssl=True&pool_size=5", "require"),
        ("ssl=0", "disable"),
        ("ssl=true&sslmode=allow", "allow"),
        ("sslmode=disable&ssl=true", "disable"),
        ("sslmode=prefer", "prefer"),
        ("sslmode=", "prefer"),
        ("ssl=", "prefer"),
    ],
)
def test_ssl_of_sqlalchemy_is_sslmode(query: str, mode: str) -> None:
    address = Address.parse(f"postgresql+asyncpg://db/orders?{query}")

    options = driver_reads(address.dsn)[1]
    assert (options.sslmode.name, options.server_settings) == (mode, None)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("sslmode", "disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslnegotiation", "postgres, direct"),
        ("ssl_min_protocol_version", "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
        ("ssl_max_protocol_version", "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3"),
        ("gsslib", "gssapi, sspi"),
        (
            "target_session_attrs",
            "any, primary, standby, prefer-standby, read-write, read-only",
        ),
    ],
)
def test_a_wrong_value_is_refused_and_not_shown(name: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Address.parse(f"postgresql://db/orders?{name}=S3cret")

    assert str(raised.value) == (
        f"The address of PostgreSQL has a wrong {name}; allowed is {allowed}"
    )
    for value in allowed.split(", "):
        assert Address.parse(f"postgresql://db/orders?{name}={value}").where == "db:5432"


def test_a_wrong_ssl_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="a wrong sslmode; allowed is disable, allow"):
        Address.parse("postgresql://db?ssl=S3cret")


def test_authorities_of_the_system_are_no_file() -> None:
    address = Address.parse("postgresql://db?sslmode=verify-full&sslrootcert=system")

    assert address.system_authorities
    assert "sslrootcert" not in address.dsn
    assert not Address.parse("postgresql://db?sslrootcert=/ca.pem").system_authorities


def test_files_are_known_by_the_names_that_name_them() -> None:
    address = Address.parse("postgresql://db?sslrootcert=/ca.pem", {"PGSSLKEY": "/key.pem"})

    assert address.files == ("sslrootcert", "PGSSLKEY")


def test_parameters_reach_the_driver_untouched() -> None:
    query = "sslmode=require&application_name=a%20b&search_path=x%2Cy&statement_timeout=5"

    address = Address.parse(f"postgresql://shop:pw@db/orders?{query}")

    assert address.dsn.endswith(f"?{query}")
    assert address.application_name == "a b"
    options = driver_reads(address.dsn)[1]
    assert options.sslmode.name == "require"
    assert options.server_settings == {
        "application_name": "a b",
        "search_path": "x,y",
        "statement_timeout": "5",
    }


def test_passwords_among_the_parameters_are_secrets() -> None:
    address = Address.parse("postgresql://db/orders?user=u&password=p%23S3cret&sslpassword=t0p+s")

    assert {"p%23S3cret", "p#S3cret", "t0p+s", "t0p s"} <= set(address.secrets)
    assert "S3cret" not in repr(address)


def test_a_text_of_no_encoding_is_read_all_the_same() -> None:
    assert Address.parse("postgresql://shop:p\udcff@db/orders").shown == "db:5432/orders"


ALLOWED = "allowed is postgresql://user:password@host:port/database"
NO_HOST = f"The address of PostgreSQL has no host and port where they belong; {ALLOWED}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", f"The address of PostgreSQL is no URL; {ALLOWED}"),
        ("host=db password=S3cret", f"The address of PostgreSQL is no URL; {ALLOWED}"),
        ("S3cret", f"The address of PostgreSQL is no URL; {ALLOWED}"),
        ("S3cret-key://x", f"The address of PostgreSQL is no URL; {ALLOWED}"),
        ("mysql://a:S3cret@db/x", f"The address of PostgreSQL begins with mysql://; {ALLOWED}"),
        ("sqlite:///S3cret", f"The address of PostgreSQL begins with sqlite://; {ALLOWED}"),
        ("postgresql://shop:S3cret", NO_HOST),
        ("postgresql://shop:S3cret/orders", NO_HOST),
        ("postgresql://shop:S3cret@db:port/orders", NO_HOST),
        ("postgresql://shop:S3cret@db:0/orders", NO_HOST),
        ("postgresql://shop:S3cret@db:65536/orders", NO_HOST),
        ("postgresql://shop:S3cret@d b/orders", NO_HOST),
        ("postgresql://shop:S3cret@[::1/orders", NO_HOST),
        ("postgresql:///orders?host=db&port=S3cret", NO_HOST),
        (
            "postgresql://shop@db/orders?S3cret",
            "The address of PostgreSQL has a parameter without a value; allowed is ?name=value",
        ),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(text: str, sentence: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Address.parse(text)

    assert str(raised.value) == sentence
    assert raised.value.__cause__ is None
