"""Access: who may see what in each mode, whatever the peer and whatever it sends."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import AccessMode, Settings
from holistic_asgi_monitor.web.access import COOKIE, Access, Area, Verdict

TOKEN = "s3cret:pässwörd"
MODES: list[AccessMode] = ["token", "closed", "local", "open"]
OPEN_TO_ALL = [Area.STATUS, Area.HEALTH]

LOOPBACK = ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "::1%lo"]
PRIVATE = [
    "10.0.0.0",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fc00::1",
    "fdff::1",
    "::ffff:10.0.0.1",
    "::ffff:a00:1",
    "::ffff:192.168.1.1%eth0",
    "::ffff:100.64.0.1",
    "::ffff:169.254.0.1",
]
STRANGERS = [
    "9.255.255.255",
    "11.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "169.253.255.255",
    "128.0.0.1",
    "126.255.255.255",
    "8.8.8.8",
    "0.0.0.0",
    "255.255.255.255",
    "2001:db8::1",
    "fec0::1",
    "fbff::1",
    "fe00::1",
    "::",
    "::2",
    "::ffff:8.8.8.8",
    "::10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:a00:1::",
]
GARBAGE: list[Any] = [
    None,
    "",
    "127.0.0.1",
    b"127.0.0.1",
    (),
    ("127.0.0.1",),
    ("127.0.0.1", 1, 0, 0),
    (None, None),
    (b"127.0.0.1", 1),
    (b"\x7f\x00\x00\x01", 1),
    (2130706433, 1),
    ("2130706433", 1),
    ("127.1", 1),
    ("0177.0.0.1", 1),
    ("127.0.0.1 ", 1),
    ("127.0.0.1%lo", 1),
    ("[::1]", 1),
    ("::1%", 1),
    ("localhost", 1),
    ("/run/app.sock", None),
    ("", 0),
    ("testclient", 1),
    ("testclient", None),
    ("127.0.0.1\x00", 1),
    ("1" * 10000, 1),
    {"127.0.0.1": 1, "::1": 2},
    127001,
]
FORWARDING = [
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-anything",
    b"X-Forwarded-For",
    b"x-real-ip",
    b"via",
    b"VIA",
    b"cf-connecting-ip",
    b"true-client-ip",
]


def access(mode: AccessMode, **more: Any) -> Access:
    return Access(Settings(access=mode, token=TOKEN, **more))


def scope(client: Any = ("8.8.8.8", 1234), *headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "client": client, "headers": list(headers)}


def allowed(mode: AccessMode, request: Scope) -> set[Area]:
    """What the request may see beside what is open to all."""
    judge = access(mode).judge
    verdicts = {area: judge(request, area) for area in Area}
    assert all(verdicts[area].allowed for area in OPEN_TO_ALL)
    full = {verdict.full for verdict in verdicts.values()}
    assert full == {verdicts[Area.PRIVATE].allowed}
    return {area for area, verdict in verdicts.items() if verdict.allowed} - set(OPEN_TO_ALL)


def basic(text: bytes, scheme: bytes = b"Basic") -> tuple[bytes, bytes]:
    return (b"authorization", scheme + b" " + base64.b64encode(text))


EVERYTHING = {Area.METRICS, Area.PRIVATE}


# --- by mode and peer ---


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("token", set()),
        ("closed", {Area.METRICS}),
        ("local", EVERYTHING),
        ("open", EVERYTHING),
    ],
)
def test_a_loopback_peer_sees(mode: AccessMode, seen: set[Area], host: str) -> None:
    assert allowed(mode, scope((host, 1))) == seen
    assert allowed(mode, scope([host, 1])) == seen


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("token", set()),
        ("closed", {Area.METRICS}),
        ("local", {Area.METRICS}),
        ("open", EVERYTHING),
    ],
)
def test_a_private_peer_sees(mode: AccessMode, seen: set[Area], host: str) -> None:
    assert allowed(mode, scope((host, 1))) == seen


@pytest.mark.parametrize("client", [*((host, 1) for host in STRANGERS), *GARBAGE])
@pytest.mark.parametrize(
    ("mode", "seen"),
    [("token", set()), ("closed", set()), ("local", set()), ("open", EVERYTHING)],
)
def test_a_stranger_sees(mode: AccessMode, seen: set[Area], client: Any) -> None:
    assert allowed(mode, scope(client)) == seen


@pytest.mark.parametrize("mode", ["closed", "local"])
def test_a_peer_that_the_server_does_not_tell_is_a_stranger(mode: AccessMode) -> None:
    assert allowed(mode, {"type": "http", "headers": []}) == set()


@pytest.mark.parametrize("header", FORWARDING)
@pytest.mark.parametrize("client", [("127.0.0.1", 1), ("10.0.0.1", 1), ("testclient", 50000)])
@pytest.mark.parametrize("mode", ["closed", "local"])
def test_who_bears_a_forwarding_header_is_a_stranger(
    mode: AccessMode, client: Any, header: bytes
) -> None:
    request = scope(client, (b"host", b"a"), (header, b""))

    assert allowed(mode, request) == set()


@pytest.mark.parametrize("header", [b"x-forwarded", b"viable", b"x-request-id", b"xforwarded-for"])
def test_other_headers_forward_nothing(header: bytes) -> None:
    assert allowed("local", scope(("127.0.0.1", 1), (header, b"8.8.8.8"))) == EVERYTHING


@pytest.mark.parametrize(
    "headers",
    [
        None,
        5,
        "x-forwarded-for",
        [("x-forwarded-for", "8.8.8.8")],
        [(b"x-forwarded-for",)],
        [b"x-forwarded-for"],
        [(bytearray(b"x-forwarded-for"), b"8.8.8.8")],
        {b"x-forwarded-for": b"8.8.8.8"},
        [(b"authorization", b"Bearer " + TOKEN.encode()), None],
    ],
)
def test_who_sends_headers_that_cannot_be_read_is_a_stranger_without_credentials(
    headers: Any,
) -> None:
    request = {"type": "http", "client": ("127.0.0.1", 1), "headers": headers}

    assert allowed("local", request) == set()
    assert allowed("token", request) == set()


def test_a_scope_without_headers_has_none() -> None:
    assert allowed("local", {"type": "http", "client": ("127.0.0.1", 1)}) == EVERYTHING


# --- test clients in the same process ---


class Recorder:
    """An app that keeps the scope of its last request."""

    def __init__(self) -> None:
        self.scope: Scope = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def test_starlettes_test_client_sees_everything_in_local_mode() -> None:
    app = Recorder()
    TestClient(app).get("/")

    assert allowed("local", app.scope) == EVERYTHING
    assert allowed("closed", app.scope) == set()
    assert allowed("token", app.scope) == set()


async def test_a_client_of_the_same_process_sees_everything_in_local_mode() -> None:
    import httpx2

    app = Recorder()
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        await client.get("/")

    assert allowed("local", app.scope) == EVERYTHING


# --- the token ---


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer " + TOKEN.encode()),
        (b"Authorization", b"bearer " + TOKEN.encode()),
        (b"authorization", b"  BEARER   " + TOKEN.encode() + b" "),
        (b"authorization", b"Bearer " + TOKEN.encode("latin-1")),
        basic(b"anybody:" + TOKEN.encode()),
        basic(b":" + TOKEN.encode()),
        basic(b"anybody:" + TOKEN.encode("latin-1")),
        basic(b"\xff\xfe:" + TOKEN.encode(), b"bASIC"),
    ],
)
def test_the_token_opens_everything_in_token_mode_only(header: tuple[bytes, bytes]) -> None:
    assert allowed("token", scope(("8.8.8.8", 1), header)) == EVERYTHING
    assert allowed("closed", scope(("8.8.8.8", 1), header)) == set()
    assert allowed("local", scope(("8.8.8.8", 1), header)) == set()


def test_the_token_is_worth_the_same_through_a_proxy() -> None:
    bearer = (b"authorization", b"Bearer " + TOKEN.encode())

    assert allowed("token", scope(None, (b"x-forwarded-for", b"a"), bearer)) == EVERYTHING


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer wrong",
        b"Bearer " + TOKEN.encode()[:-1],
        b"Bearer " + TOKEN.encode() + b"x",
        b"Bearer  x " + TOKEN.encode(),
        b"Bearer" + TOKEN.encode(),
        b"Bearer\t" + TOKEN.encode(),
        b"Token " + TOKEN.encode(),
        TOKEN.encode(),
        b"Basic",
        b"Basic ",
        b"Basic " + TOKEN.encode(),
        b"Basic !!!!",
        b"Basic YQ",
        b"Basic YQ=",
        b"Basic \xff\xff\xff\xff",
        b"Basic !" + base64.b64encode(b"user:" + TOKEN.encode()),
        b"Basic " + base64.b64encode(b"user:wrong"),
        b"Basic " + base64.b64encode(TOKEN.encode() + b":user"),
        b"Basic " + base64.b64encode(b"no colon"),
        b"Basic " + base64.b64encode(b""),
        b"Basic " + base64.b64encode(b":"),
        b"Basic " + base64.b64encode(b"user:\xff\xfe"),
        b"Digest username=x",
        b"\x00\xff",
    ],
)
def test_what_is_not_the_token_opens_nothing(value: bytes) -> None:
    assert allowed("token", scope(("127.0.0.1", 1), (b"authorization", value))) == set()


def test_a_token_without_a_colon_is_not_mistaken_for_a_user() -> None:
    judge = Access(Settings(token="word")).judge
    request = scope(None, basic(b"word"))

    assert not judge(request, Area.PRIVATE).allowed


def test_letters_that_latin_1_lacks_are_not_left_out() -> None:
    judge = Access(Settings(token="ключ1")).judge

    assert judge(scope(None, (b"authorization", "Bearer ключ1".encode())), Area.PRIVATE).allowed
    for guess in (b"1", b"????1", b""):
        assert not judge(scope(None, (b"authorization", b"Bearer " + guess)), Area.METRICS).allowed


def test_one_right_header_among_several_is_enough() -> None:
    request = scope(
        None,
        (b"authorization", b"Bearer wrong"),
        (b"authorization", b"Bearer " + TOKEN.encode()),
        (b"cookie", b"a=b"),
    )

    assert allowed("token", request) == EVERYTHING


# --- the cookie ---


@pytest.mark.parametrize(
    "pattern", ["{name}={value}", "a=b; {name}={value}", '{name}="{value}";c', " {name} = {value} "]
)
def test_the_login_cookie_opens_everything(pattern: str) -> None:
    cookie = pattern.format(name=COOKIE, value=access("token").cookie_value())

    assert allowed("token", scope(None, (b"cookie", cookie.encode()))) == EVERYTHING


def test_the_cookie_may_come_in_any_of_several_headers() -> None:
    value = access("token").cookie_value()
    request = scope(
        None,
        (b"cookie", f"{COOKIE}=old".encode()),
        (b"cookie", f"a=b; {COOKIE}=older; {COOKIE}={value}".encode()),
    )

    assert allowed("token", request) == EVERYTHING


@pytest.mark.parametrize(
    "cookie",
    [
        b"",
        b"=",
        b";;;",
        COOKIE.encode(),
        COOKIE.encode() + b"=",
        COOKIE.encode() + b"=" + TOKEN.encode(),
        COOKIE.upper().encode() + b"=" + access("token").cookie_value().encode(),
        b"x" + COOKIE.encode() + b"=" + access("token").cookie_value().encode(),
        COOKIE.encode() + b"=" + access("token").cookie_value().encode()[:-1],
        COOKIE.encode() + b"=\xff\x00",
    ],
)
def test_another_cookie_opens_nothing(cookie: bytes) -> None:
    assert allowed("token", scope(("127.0.0.1", 1), (b"cookie", cookie))) == set()


def test_the_cookie_does_not_tell_the_token_and_changes_with_it() -> None:
    value = access("token").cookie_value()

    assert TOKEN not in value
    assert value == access("token").cookie_value()
    assert value != Access(Settings(token="another")).cookie_value()
    assert value.isalnum()


def test_there_is_no_cookie_without_a_token() -> None:
    with pytest.raises(ConfigurationError, match="MONITOR_TOKEN"):
        Access(Settings()).cookie_value()


# --- what is answered ---


def test_without_the_token_the_answer_is_401_with_its_challenges() -> None:
    verdict = access("token").judge(scope(), Area.METRICS)

    assert verdict.status == 401
    assert {name for name, _ in verdict.headers} == {b"www-authenticate"}
    assert [value.split()[0] for _, value in verdict.headers] == [b"Bearer", b"Basic"]
    assert "MONITOR_TOKEN" in verdict.sentence


@pytest.mark.parametrize("mode", ["closed", "local"])
@pytest.mark.parametrize("area", [Area.METRICS, Area.PRIVATE])
def test_a_stranger_is_refused_with_403_and_told_of_the_token(mode: AccessMode, area: Area) -> None:
    verdict = access(mode).judge(scope(), area)

    assert (verdict.allowed, verdict.full, verdict.status) == (False, False, 403)
    assert verdict.headers == ()
    assert "MONITOR_TOKEN" in verdict.sentence


@pytest.mark.parametrize("area", Area)
def test_what_is_allowed_is_answered_with_nothing_more(area: Area) -> None:
    assert access("open").judge(scope(), area) == Verdict(allowed=True, full=True, status=200)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("area", Area)
def test_no_sentence_tells_the_token_or_has_more_than_a_line(mode: AccessMode, area: Area) -> None:
    verdict = access(mode).judge(scope(), area)

    for sentence in (verdict.sentence, access(mode).explanation()):
        assert TOKEN not in sentence
        assert sentence.isprintable()
        assert not sentence or sentence.endswith(".")


@pytest.mark.parametrize("mode", MODES)
def test_the_explanation_names_the_mode(mode: AccessMode) -> None:
    assert access(mode).mode == mode
    assert access(mode).explanation().startswith(f"Access mode {mode}: ")


@pytest.mark.parametrize(
    ("settings", "mode"),
    [
        (Settings(), "closed"),
        (Settings(token="word"), "token"),
        (Settings(environment="test"), "local"),
    ],
)
def test_the_mode_is_that_of_the_settings(settings: Settings, mode: str) -> None:
    assert Access(settings).mode == mode


# --- any scope ---

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=10,
)
NAMES = st.sampled_from([b"authorization", b"cookie", *FORWARDING]) | st.binary()
VALUES = (
    st.binary()
    | st.binary().map(lambda rest: b"Basic " + rest)
    | st.binary().map(lambda rest: b"Basic " + base64.b64encode(rest))
    | st.binary().map(lambda rest: COOKIE.encode() + b"=" + rest)
)
HOSTS = st.text() | st.ip_addresses().map(str) | st.text().map(lambda zone: f"fe80::1%{zone}")


@given(
    mode=st.sampled_from(MODES),
    request=st.fixed_dictionaries(
        {},
        optional={
            "type": ANYTHING,
            "client": ANYTHING | st.tuples(HOSTS, ANYTHING),
            "headers": ANYTHING | st.lists(st.tuples(NAMES, VALUES) | st.tuples(NAMES, ANYTHING)),
        },
    ),
)
def test_any_scope_is_judged_and_opens_no_more_than_its_mode_lets(
    mode: AccessMode, request: dict[str, Any]
) -> None:
    seen = allowed(mode, request)

    if mode == "open":
        assert seen == EVERYTHING
    if mode == "token":
        assert seen == set()
    if mode == "closed":
        assert seen <= {Area.METRICS}
