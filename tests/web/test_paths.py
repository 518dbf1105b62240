"""Paths of apps without routes: ids go, words stay, and nothing grows."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holistic_asgi_monitor.web.paths import normalise


@pytest.mark.parametrize(
    "segment",
    [
        "0",
        "42",
        "-5",
        "1.5",
        "10.0.0.1",
        "52.37,4.89",
        "2024-01-31",
        "2024-01-31T12:00:00Z",
        "550e8400-e29b-41d4-a716-446655440000",
        "550E8400E29B41D4A716446655440000",
        "d41d8cd98f00b204e9800998ecf8427e",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "1a2b3c4d",
        "deadbeef",
        "507f1f77bcf86cd799439011",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "john@example.com",
        "@john",
        "cus_NffrFeUfNV2Hib",
        "order-1234",
        "INV-2024-0001",
        "abc123",
        "dQw4w9WgXcQ",
        "AbCdEfGhIjKlMnOpQrSt",
        "eyJhbGciOi.eyJzdWIi.SflK",
        "how-to-use-asgi-in-2024",
        "x" * 41,
        "a b",
        "%E2%9C%93",
        "\u2713",
        "\ud800",
        "a\nb",
        "1e10",
        "0x1F",
    ],
)
def test_what_names_one_thing_becomes_id(segment: str) -> None:
    assert normalise(f"/users/{segment}/posts") == "/users/{id}/posts"


@pytest.mark.parametrize(
    "segment",
    [
        "users",
        "me",
        "a",
        "Users",
        "getUserById",
        "XMLHTTPRequest",
        "h264",
        "H264",
        "mp3",
        "s3",
        "ec2",
        "i18n",
        "l10n",
        "k8s",
        "x86_64",
        "amd64",
        "v1",
        "v12",
        "v2.1",
        "v1beta1",
        "v2alpha",
        "oauth2",
        "utf8",
        "utf-8",
        "sha256",
        "2fa",
        "en-US",
        "track01",
        "terms-of-service",
        "snake_case_name",
        ".env",
        ".well-known",
        "robots.txt",
        "main.css",
        "data.tar.gz",
        "wp-login.php",
        "song.mp3",
        "app.min.js",
        "très",
        "{id}",
        "{path}",
    ],
)
def test_what_a_programmer_named_stays(segment: str) -> None:
    assert normalise(f"/{segment}/x") == f"/{segment}/x"


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("", "/"),
        ("/", "/"),
        ("*", "/{id}"),
        ("users", "/users"),
        ("/users/42/", "/users/{id}/"),
        ("//double///slash//", "/double/slash/"),
        ("/path;jsessionid=ABC123/x", "/path"),
        ("/path?x=1", "/path"),
        ("/img/12345.png", "/img/{id}.png"),
        ("/static/app.3f2c1b9a.js", "/static/{id}.js"),
        ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/g/h"),
        ("/a/b/c/d/e/f/g/h/", "/a/b/c/d/e/f/g/h/"),
        ("/a/b/c/d/e/f/g/h/i", "/a/b/c/d/e/f/g/{path}"),
        ("/a/b/c/d/e/f/g/h/i/", "/a/b/c/d/e/f/g/{path}"),
        ("/a/b/c/d/e/f/g/h/i/j/k/l", "/a/b/c/d/e/f/g/{path}"),
        ("/" + "/".join(["x" * 40] * 5), "/" + "/".join(["x" * 40] * 4) + "/{path}"),
    ],
)
def test_paths_are_put_together_again(path: str, label: str) -> None:
    assert normalise(path) == label


PIECES = st.one_of(
    st.text(st.characters(), max_size=50),
    st.uuids().map(str),
    st.integers().map(str),
    st.from_regex(r"[A-Za-z0-9._~-]{1,45}", fullmatch=True),
    st.sampled_from(["", "users", "v1", "{id}", "{path}", "{id}.png", "x" * 40, "a.b.c"]),
)


@given(st.lists(PIECES, max_size=14).map("/".join))
@example("/" + "/".join(["x" * 39] * 8))
@example("/" * 300 + "a/b")
def test_a_label_is_bounded_printable_and_normal(path: str) -> None:
    label = normalise(path)
    assert label.startswith("/")
    assert len(label) <= 200
    assert len([segment for segment in label.split("/") if segment]) <= 8
    assert label.isprintable()
    label.encode()
    assert normalise(label) == label


@given(st.integers(min_value=0), st.uuids(), st.binary(min_size=16).map(bytes.hex))
def test_ids_of_any_size_share_a_label(number: int, uuid: object, digest: str) -> None:
    for one in (number, uuid, digest):
        assert normalise(f"/items/{one}") == "/items/{id}"


def test_random_tokens_leave_few_labels() -> None:
    chance = random.Random(7)
    letters = string.ascii_letters + string.digits
    tokens = ("".join(chance.choices(letters, k=22)) for _ in range(5000))
    labels = {normalise(f"/t/{token}") for token in tokens}
    assert len(labels) < 100
