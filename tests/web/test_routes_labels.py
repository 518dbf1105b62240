"""Text that may be a label, and regular expressions as templates."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.web.routes.labels import braced, safe
from holistic_asgi_monitor.web.routes.regexes import template_of


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("/items/{id}", "/items/{id}"),
        ("/très/long", "/très/long"),
        ('/with "quotes" and \\', '/with "quotes" and \\'),
        ("/a\nb\x00c\x7f\u2028", "/a\ufffdb\ufffdc\ufffd\ufffd"),
        ("/\ud800", "/\ufffd"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "\u2026"),
    ],
)
def test_a_label_is_printable_and_bounded(text: str, label: str) -> None:
    assert safe(text) == label


@given(st.text(st.characters(), max_size=300))
def test_any_label_can_be_encoded_and_stays_what_it_is(text: str) -> None:
    label = safe(text)
    assert len(label) <= 200
    assert label.isprintable()
    label.encode()
    assert safe(label) == label


@pytest.mark.parametrize(
    ("template", "without"),
    [
        ("/items/{id}", "/items/{id}"),
        ("/items/{id:int}", "/items/{id}"),
        ("/files/{name:path}/{x:uuid}", "/files/{name}/{x}"),
        ('/at/{when:dt("%Y-%m-%d")}', "/at/{when}"),
        ("/odd/{1:2}", "/odd/{1:2}"),
        ("/{}", "/{}"),
    ],
)
def test_converters_are_left_out(template: str, without: str) -> None:
    assert braced(template) == without


@pytest.mark.parametrize(
    ("pattern", "template"),
    [
        (r"", ""),
        (r"^$", ""),
        (r"^items/$", "items/"),
        (r"^items/(?P<id>\d+)/$", "items/{id}/"),
        (r"^items/(?P<id>[^/)(]+)\Z", "items/{id}"),
        (r"^items/(?P<id>(a|b(c)))/x$", "items/{id}/x"),
        (r"^archive/(?:page-(?P<page>[0-9]+)/)?$", "archive/page-{page}/"),
        (r"^(?:a|b)/c$", "{var}/c"),
        (r"^(?i:ab)/c$", "ab/c"),
        (r"(?i)^ab/c$", "ab/c"),
        (r"^(\d+)/(\w+)-(.*)$", "{var}/{var}-{var}"),
        (r"^a\.b\-c\/d$", "a.b-c/d"),
        (r"^robots.txt$", "robots.txt"),
        (r"^robots\.txt/?$", "robots.txt/"),
        (r"^\d{4}/[a-z]{1,2}x*$", "{var}/{var}x"),
        (r"^.*\.html$", "{var}.html"),
        (r"^\d\d\d$", "{var}"),
        (r"^(?!api)(?=x)(?<=y)(?<!z)x$", "x"),
        (r"^(?#remark)(?P<x>a)-(?P=x)$", "{x}-"),
        (r"^[]x]a[^]y]b[\]]$", "{var}a{var}b{var}"),
        (r"^(?P<a>[(])(?P<b>\))$", "{a}{b}"),
        (r"^api/<int:pk>/x/(?P<y>.+)$", "api/<int:pk>/x/{y}"),
        (r"\Aitems\b", "items"),
    ],
)
def test_a_regular_expression_becomes_a_template(pattern: str, template: str) -> None:
    assert re.compile(pattern), "the case itself must be one"
    assert template_of(pattern) == template


@given(st.text("abc()[]{}?*+.|^$\\P<>:=!/-0d", max_size=40))
def test_no_text_breaks_the_reading(text: str) -> None:
    template_of(text)
