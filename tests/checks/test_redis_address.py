"""Addresses of Redis: read whatever the password is made of, and shown without it."""

import contextlib
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.redis import Redis
from holistic_asgi_monitor.checks.redis_address import Address
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.redaction import HIDDEN, Redaction

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
UNQUOTED = NAMES.filter(lambda text: "%" not in text)


def options(text: str) -> dict[str, Any]:
    """Return what the driver is given, but for the kind of the connection."""
    return {k: v for k, v in Address.parse(text, "cache").options.items() if "class" not in k}


@given(user=NAMES, password=NAMES)
def test_whatever_is_quoted_comes_to_the_driver_as_it_was_meant(user: str, password: str) -> None:
    written = f"{quote(user, safe='')}:{quote(password, safe='')}"

    for scheme in ("redis", "rediss", "valkey"):
        found = options(f"{scheme}://{written}@cache:6380/3")
        assert found == {
            "username": user,
            "password": password,
            "host": "cache",
            "port": 6380,
            "db": 3,
        }


@given(user=UNQUOTED.filter(lambda user: user[0] != "/" and ":" not in user), password=UNQUOTED)
def test_what_is_not_quoted_is_taken_as_it_stands(user: str, password: str) -> None:
    found = options(f"redis://{user}:{password}@cache/3?ssl_ca_certs=a@b")
    socket = options(f"unix://{user}:{password}@/run/redis@1.sock?db=3")

    assert (found["username"], found["password"]) == (user, password)
    assert (found["host"], found["db"], found["ssl_ca_certs"]) == ("cache", 3, "a@b")
    assert (socket["username"], socket["password"]) == (user, password)
    assert (socket["path"], socket["db"]) == ("/run/redis@1.sock", 3)


@given(head=st.sampled_from(["", "1", "12:", "123#", "8831/", "1?db=", "[::1]:1/", "h:1?a=b&"]))
def test_no_piece_of_a_password_is_shown_or_connected_to(head: str) -> None:
    password = f"{head}S3cret"
    for user in ("", "shop"):
        text = f"redis://{user}:{password}@cache:6380"
        check = Redis(text)

        assert str(check.unanswered(4.0)) == "Redis at cache:6380 gave no answer within 4 s"
        assert options(text)["password"] == password
        hidden = Redaction(check.secrets).text(f"could not use {text}: {password}.")
        assert hidden == f"could not use {HIDDEN}: {HIDDEN}."


@given(tail=st.text(st.sampled_from("/?#@:[]%&=,x1"), max_size=12))
def test_a_password_is_never_told_whatever_surrounds_it(tail: str) -> None:
    text = f"redis://shop:p#S3cret{tail}@cache:6380"
    address = Address.parse(text, "cache")

    assert "S3cret" not in repr(address)
    assert f"p#S3cret{tail}" in address.secrets


@given(text=st.text(st.sampled_from("redis:/+@?#[]%=&,.0123456789 ab\n"), max_size=40))
@pytest.mark.parametrize("scheme", ["redis://", "unix://"])
def test_any_text_is_read_or_refused_in_a_sentence(scheme: str, text: str) -> None:
    with contextlib.suppress(ConfigurationError):
        options(f"{scheme}{text}")


@pytest.mark.parametrize(
    ("written", "password"),
    [
        ("123#S3cret", "123#S3cret"),
        ("8831/abc", "8831/abc"),
        ("a?b=c", "a?b=c"),
        ("p@ss@word", "p@ss@word"),
        ("100%", "100%"),
        ("p%40ss#1", "p@ss#1"),
        ("a+b c", "a+b c"),
        ("[::1]", "[::1]"),
        (":", ":"),
    ],
)
def test_a_password_reaches_the_driver(written: str, password: str) -> None:
    assert options(f"redis://shop:{written}@cache")["password"] == password


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://", {}),
        ("redis://:6380", {"port": 6380}),
        ("redis://cache", {"host": "cache"}),
        ("  REDIS://cache/2\n", {"host": "cache", "db": 2}),
        ("redis://shop@cache", {"host": "cache", "username": "shop"}),
        ("redis://[::1]:6380/2", {"host": "::1", "port": 6380, "db": 2}),
        ("redis://cache?db=2&foo=bar", {"host": "cache", "db": 2}),
        (
            "redis://cache?db=2&username=a@b&password=c@d",
            {"host": "cache", "db": 2, "username": "a@b", "password": "c@d"},
        ),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix:///run/@redis.sock?db=1", {"path": "/run/@redis.sock", "db": 1}),
        ("redis://?host=cache&port=6380", {"host": "cache", "port": "6380"}),
    ],
)
def test_an_address_leads_where_it_says(text: str, expected: dict[str, Any]) -> None:
    assert options(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "redis://:123#S3cret",
        "redis://shop:S3cret",
        "redis://shop:S3cret@cache:port",
        "redis://shop:S3cret@cache:0",
        "redis://shop:S3cret@cache:65536",
        "redis://shop:S3cret@ca che",
        "redis://shop:S3cret@[::1",
        "redis://cache?port=S3cret",
        "redis://?host=a/S3cret",
        "redis://cache?db=S3cret",
        "unix://run/S3cret",
        "unix:///shop:S3cret@/run/redis.sock",
        "unix:///run/redis.sock#S3cret",
        "unix://",
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Redis(text, name="cache")

    assert str(refused.value) == (
        "The URL of the check cache cannot be read; allowed are redis://, rediss:// and unix:// "
        "URLs"
    )
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_passwords_among_the_parameters_are_secrets() -> None:
    text = "rediss://cache?password=p%23S3cret&ssl_password=t0p+s"

    assert {"p%23S3cret", "p#S3cret", "t0p+s", "t0p s"} <= set(Address.parse(text, "cache").secrets)


@pytest.mark.parametrize("password", ["redis", "REDIS", "cache", "prod", "shop", "6380", "abc"])
def test_a_password_that_is_shown_all_the_same_is_not_hidden(password: str) -> None:
    check = Redis(f"redis://shop:{password}@cache-1.prod:6380/1", name="main")

    hidden = Redaction(check.secrets).text("Redis at cache-1.prod:6380 rejects user shop")
    assert hidden == "Redis at cache-1.prod:6380 rejects user shop"
    assert password not in check.secrets
