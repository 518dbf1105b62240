"""Which form of a page a client takes: weights, refusals, and headers that are no such thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from holistic_asgi_monitor.web.negotiation import accepts, format_of_metrics
from tests.web.exchanges import get

OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain"
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("header", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html, */*;q=0.8", PLAIN),
        (OPENMETRICS, OPENMETRICS),
        (OPENMETRICS.upper(), OPENMETRICS),
        (f"{OPENMETRICS};q=0", PLAIN),
        (f"{OPENMETRICS}; q=0.000, */*", PLAIN),
        (f"{OPENMETRICS};q=0.5,{PLAIN};q=0.9", PLAIN),
        (f"{PLAIN};q=0.5,{OPENMETRICS};q=0.9", OPENMETRICS),
        (f"{PLAIN},{OPENMETRICS}", OPENMETRICS),
        (f"*/*,{OPENMETRICS};q=0.1", OPENMETRICS),
        (f"{OPENMETRICS};version=0.0.1", PLAIN),
        (f"{OPENMETRICS};version=0.0.1,{OPENMETRICS};version=1.0.0;q=0.1", OPENMETRICS),
        (f"{OPENMETRICS};version=2.0.0", PLAIN),
        (f"{OPENMETRICS};version=1.0", f"{OPENMETRICS}; version=1.0.0"),
        (f'{OPENMETRICS}; version="1.0.0"; charset=utf-8', f"{OPENMETRICS}; version=1.0.0"),
        (f"{OPENMETRICS};version=abc", PLAIN),
        (f"{PLAIN};version=abc", f"{PLAIN}; version=0.0.4"),
        (f"{PLAIN};version=0.0.4", f"{PLAIN}; version=0.0.4"),
        (f"{OPENMETRICS};q=abc", OPENMETRICS),
        (";;;,,,q=", PLAIN),
        (PROMETHEUS, f"{OPENMETRICS}; version=1.0.0"),
    ],
)
async def test_the_page_of_metrics_has_the_form_that_is_wanted_most(header, content_type):
    monitor = Monitor(Starlette(), settings=Settings(service="x"), checks=[])
    exchange = await get(monitor, "/metrics", headers=[(b"accept", header.encode())])

    assert exchange.status == 200
    assert exchange.headers["content-type"].startswith(content_type)
    assert exchange.body.endswith(b"# EOF\n") == content_type.startswith(OPENMETRICS)


def test_what_prometheus_asks_for_is_what_its_own_client_library_gives():
    assert choose_encoder(format_of_metrics(PROMETHEUS))[1] == choose_encoder(PROMETHEUS)[1]


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("br, GZIP", True),
        ("deflate, gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip ; q = 0.0, br", False),
        ("gzip;q=", True),
        ("x-gzip", False),
        ("*", False),
        ("", False),
    ],
)
def test_an_encoding_is_accepted_where_it_is_named_and_not_refused(header, accepted):
    assert accepts(header, "gzip") is accepted


@pytest.mark.parametrize("header", ["," * 60_000, ";" * 60_000, "gzip;q=0," * 9_000 + "br"])
def test_of_an_endless_header_only_the_beginning_is_read(header):
    assert not accepts(header + ",gzip", "gzip")
    assert format_of_metrics(header + f",{OPENMETRICS}") == ""


_PIECES = st.sampled_from(
    [*(OPENMETRICS, PLAIN, "*/*"), *",;=", "q", "version", "escaping", '"', "1.0", "0", "²", " "]
)


@given(st.lists(_PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_no_header_is_too_odd(header):
    choose_encoder(format_of_metrics(header))
    assert not accepts(header, "nothing of the kind")
