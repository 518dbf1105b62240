"""What nobody may read is taken out of whatever is published."""

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.redaction import _OPEN, HIDDEN, SHORTEST, Redaction, passwords

WEBHOOK = "https://hooks.slack.com/services/T0/B0/abcdefXYZ"
PASSWORDS = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="*"),
    min_size=SHORTEST,
    max_size=24,
).filter(lambda secret: secret.lower() not in _OPEN)
"""Without everybody's words: hypothesis also draws the constants of modules that are loaded."""


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://shop:S3cret@db:5432/shop is down", "S3cret"),
        ("redis://:S3cret@cache/0", "S3cret"),
        ("Incorrect API key provided: sk-proj-abcDEF123456", "abcDEF123456"),
        ("Incorrect API key provided: sk-abcde***wxyz.", "wxyz"),
        ("the token xoxb-1234-5678-abcdef was revoked", "5678"),
        (f"POST {WEBHOOK} failed", "abcdefXYZ"),
        ("Authorization: Bearer abc.def.ghi", "abc.def"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("postgres://u:p@ssS3cret@h/db refused", "ssS3cret"),
        ("amqp://a:S3cret@x,amqp://b:Other5@y", "Other5"),
        ("http://proxy:8080/?to=redis://:S3cret@cache", "S3cret"),
        ("host=db password=S3cret dbname=x", "S3cret"),
        ("GET /v1?api_key=S3cret&x=1", "S3cret"),
        ("the key sk_live_abcDEF123456", "abcDEF123456"),
        ("url: /services/T0AB/B0CD/xyzSecret", "xyzSecret"),
        ("url: /api/webhooks/123456/tokenTOKEN", "tokenTOKEN"),
    ],
)
def test_what_looks_like_a_secret_is_hidden_though_nobody_named_it(text: str, secret: str) -> None:
    seen = Redaction().text(text)

    assert secret not in seen
    assert HIDDEN in seen


@pytest.mark.parametrize(
    "text",
    [
        "PostgreSQL at db:5432 refuses connections",
        "5.25 % of 1,204 requests in 5 min failed (threshold 5 %)",
        "https://pay.example/ping answered 503",
        "user shop@example.com at http://[::1]:8000/a:b@c",
        "disk at 93 % of 20 GiB; task-force; risk-averse",
        "http://registry:4873/@scope/package answered 404",
        "allowed is postgresql://host:5432/database",
    ],
)
def test_an_innocent_sentence_stays_as_it_is(text: str) -> None:
    assert Redaction(["S3cret"]).text(text) == text


@given(PASSWORDS, st.text(max_size=20), st.text(max_size=20))
def test_a_named_secret_is_gone_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert secret not in Redaction([secret]).text(f"{before}{secret}{after}").replace(HIDDEN, "")


@given(PASSWORDS)
def test_a_named_secret_is_gone_in_its_form_for_urls(secret: str) -> None:
    quoted = quote(secret, safe="")

    assert quoted not in Redaction([secret]).text(f"<{quoted}>")


def test_of_two_secrets_the_longer_one_goes_first() -> None:
    assert Redaction(["horse", "seahorse"]).text("my seahorse") == f"my {HIDDEN}"


@pytest.mark.parametrize("word", ["postgres", "Password", "redis"])
def test_a_secret_that_is_everybodys_word_hides_nothing(word: str) -> None:
    assert Redaction([word]).text(f"the {word} of redis") == f"the {word} of redis"


@pytest.mark.parametrize(
    "form", ["p%2fS3c%23ret", "p%2FS3c%23ret", "p/S3c%23ret", "p/S3c#ret", 'p/S3c\\"ret']
)
def test_a_secret_is_known_in_each_form_that_it_takes(form: str) -> None:
    secrets = ["p/S3c#ret", 'p/S3c"ret']

    assert "S3c" not in Redaction(secrets).text(f"<{form}>")


@pytest.mark.parametrize(
    "text", ["a." * 500_000, "x://:" * 200_000, "://a:80/" * 100_000, "sk-" * 300_000]
)
def test_no_text_makes_it_think_for_long(text: str) -> None:
    """Done twice as long or a thousand times: the time limit of the suite tells."""
    assert len(Redaction(["S3cret"]).text(text)) <= len(text)


def test_a_secret_too_short_to_be_told_from_a_word_is_left() -> None:
    assert Redaction(["abc", ""]).text("abc and so on") == "abc and so on"


def test_details_are_redacted_down_to_the_last_key() -> None:
    details = {"S3cret": ["S3cret", {"at": "x S3cret y"}], "count": 3, "none": None, "on": True}

    seen = Redaction(["S3cret"]).value(details)

    assert "S3cret" not in json.dumps(seen)
    assert (seen["count"], seen["none"], seen["on"]) == (3, None, True)


def test_of_a_result_message_and_details_are_redacted() -> None:
    result = CheckResult(Status.DEGRADED, "S3cret", {"a": "S3cret"}, 1.5)

    assert Redaction(["S3cret"]).result(result) == CheckResult(
        Status.DEGRADED, HIDDEN, {"a": HIDDEN}, 1.5
    )


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://shop:p%23S3cret@db/shop", {"p%23S3cret", "p#S3cret"}),
        ("postgresql://shop:p#S3cret@db/shop", {"p#S3cret", "S3cret"}),
        ("postgresql+asyncpg://shop:a/b?c@d@db/shop", {"a/b?c@d"}),
        ("redis://:word@cache", {"word"}),
        ("redis://cache:6379/0", set()),
        ("postgresql:///shop", set()),
        ("nothing of the kind", set()),
    ],
)
def test_the_password_of_an_address_is_found_though_it_breaks_the_rules(
    address: str, expected: set[str]
) -> None:
    assert set(passwords(address)) == expected
