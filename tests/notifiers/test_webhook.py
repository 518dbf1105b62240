"""The generic webhook: its JSON, its signature, and what it takes an answer for."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import logging
import math
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor import Alert, ConfigurationError, Notifier, Severity
from holistic_asgi_monitor.alerts.incidents import Reason
from holistic_asgi_monitor.model import AlertState
from holistic_asgi_monitor.notifiers import DeliveryError, Webhook
from holistic_asgi_monitor.notifiers.posting import judged
from holistic_asgi_monitor.notifiers.values import alert_from, as_json, encoded
from holistic_asgi_monitor.notifiers.webhook import _body, signature
from tests.alerts.virtual_time import eventually
from tests.notifiers.alerts import NOON, alarm, all_clear, notice
from tests.notifiers.receiver import Receiver
from tests.notifiers.slack_stub import SECRET, Answer

PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on this machine."""
    with Receiver() as receiver:
        yield receiver


async def refused(webhook: Webhook) -> DeliveryError:
    """The error with which alerts are not delivered."""
    with pytest.raises(DeliveryError) as info:
        await webhook.send([alarm()])
    return info.value


async def test_all_alerts_of_a_delivery_are_one_object_with_every_field(
    receiver: Receiver,
) -> None:
    first = alarm(details={"impact": "bad"}, dashboard_url="https://shop.example/dash")
    await Webhook(f"{receiver.url}/hook?key=1").send([first, all_clear("redis")])

    (request,) = receiver.received
    assert request.path == "/hook?key=1"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("holistic-asgi-monitor/")
    head = {"version": 1, "service": "shop", "environment": "production", "instance": "web-1"}
    assert {name: request.payload[name] for name in head} == head
    one, other = request.payload["alerts"]
    assert set(one) == {field.name for field in dataclasses.fields(Alert)}
    assert one == {
        "key": "database",
        "severity": "critical",
        "state": "firing",
        "title": "database is critical",
        "summary": "no answer within 4 s",
        "started_at": "2026-11-23T12:00:00.000000+00:00",
        "ended_at": None,
        "details": {"impact": "bad"},
        "reason": "fire",
        "service": "shop",
        "environment": "production",
        "instance": "web-1",
        "dashboard_url": "https://shop.example/dash",
        "runbook_url": None,
    }
    assert (other["state"], other["ended_at"]) == ("resolved", "2026-11-23T12:04:10.000000+00:00")


async def test_no_alerts_are_no_request(receiver: Receiver) -> None:
    await Webhook(receiver.url).send([])
    assert receiver.received == []


def test_it_serves_one_loop_after_another(receiver: Receiver) -> None:
    webhook = Webhook(receiver.url)
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(webhook.send, [alarm()], backend=backend)
    assert len(receiver.received) == 3


async def test_a_user_and_a_password_are_basic_authentication(receiver: Receiver) -> None:
    url = receiver.url.replace("http://", "http://me:p%40ss@")
    await Webhook(url).send([alarm()])

    (request,) = receiver.received
    assert request.headers["Authorization"] == "Basic bWU6cEBzcw=="
    assert request.headers["Host"] == receiver.url.removeprefix("http://")


def test_the_documentation_shows_what_is_sent() -> None:
    """Its example, and its table of what the keys hold."""
    page = PAGE.read_text("utf-8")
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    shown = json.loads(example[1])
    details = {"impact": "the app cannot serve without it"}
    sent = json.loads(_body([alarm(details=details)]))

    assert list(shown) == list(sent)
    (row,) = shown["alerts"]
    assert list(row) == list(sent["alerts"][0])
    assert as_json(alert_from(row)) == row
    table = page.split("| Key | What it holds |", 1)[1].split("\n\n", 1)[0]
    explained = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    )
    assert explained == set(row) - {"service", "environment", "instance"} - {
        "dashboard_url",
        "runbook_url",
    }
    reasons = {"notice", *(reason.value for reason in Reason)}
    assert reasons <= set(re.findall(r"`(\w+)`", table))


def documented_check() -> Any:
    """The function of docs/alerts.md that verifies a signature."""
    code = re.search(r"```python\n(import hmac\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names["is_genuine"]


async def test_the_signature_is_verified_as_the_documentation_says(receiver: Receiver) -> None:
    is_genuine = documented_check()
    await Webhook(receiver.url, "s3cret", clock=lambda: 1764163200.9).send([alarm()])

    (request,) = receiver.received
    header = request.headers["X-Monitor-Signature"]
    assert re.fullmatch(r"t=1764163200,v1=[0-9a-f]{64}", header)
    assert is_genuine(request.raw, header, "s3cret", now=1764163210)
    assert not is_genuine(request.raw + b" ", header, "s3cret", now=1764163210)
    assert not is_genuine(request.raw, header, "other", now=1764163210)
    assert not is_genuine(request.raw, header, "s3cret", now=1764163200 + 301), "a replay"
    later = header.replace("t=1764163200", "t=1764163500")
    assert not is_genuine(request.raw, later, "s3cret", now=1764163500)
    for forged in ("", "t=,v1=", "v1=x", "\u00fc"):
        assert not is_genuine(request.raw, forged, "s3cret", now=1764163210)


async def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    await Webhook(receiver.url).send([alarm()])
    assert "X-Monitor-Signature" not in receiver.received[0].headers


def test_the_signature_is_that_of_hmac_sha256() -> None:
    """Computed elsewhere: printf '1.{}' | openssl dgst -sha256 -hmac key."""
    assert signature("key", 1, b"{}") == (
        "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
    )


ANSWERS: list[tuple[Answer, dict[str, Any]]] = [
    (Answer(301, "", {"Location": "/elsewhere"}), {"permanent": True}),
    (Answer(304, ""), {"permanent": True}),
    (Answer(400, "no"), {"permanent": True}),
    (Answer(401, ""), {"permanent": True}),
    (Answer(404, ""), {"permanent": True}),
    (Answer(410, ""), {"permanent": True}),
    (Answer(408, ""), {}),
    (Answer(425, ""), {}),
    (Answer(429, "", {"Retry-After": "7"}), {"retry_after": 7.0}),
    (Answer(429, "", {"retry-after": "2.5"}), {"retry_after": 2.5}),
    (Answer(429, "", {"Retry-After": "soon"}), {}),
    (Answer(500, ""), {}),
    (Answer(503, "", {"Retry-After": "30"}), {"retry_after": 30.0}),
    (Answer(599, ""), {}),
    (Answer(act="close"), {"ambiguous": True}),
]


@pytest.mark.parametrize(
    ("answer", "meaning"), ANSWERS, ids=[repr(row[0])[7:40] for row in ANSWERS]
)
async def test_what_an_answer_means(
    answer: Answer, meaning: dict[str, Any], receiver: Receiver
) -> None:
    receiver.script = [answer]
    error = await refused(Webhook(receiver.url))

    nothing = {"retry_after": None, "permanent": False, "ambiguous": False}
    assert {name: getattr(error, name) for name in nothing} == nothing | meaning
    assert len(receiver.received) == 1, "no redirect is followed, nothing tried twice"


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_is_a_delivery_whatever_it_says(status: int, receiver: Receiver) -> None:
    receiver.script = [Answer(status, "" if status == 204 else "<html>")]
    await Webhook(receiver.url).send([alarm()])


async def test_the_head_of_an_answer_is_enough(receiver: Receiver) -> None:
    """What is cut off after it was read by nobody."""
    receiver.script = [Answer(200, "half", act="cut")]
    await Webhook(receiver.url).send([alarm()])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dashboard_url", 7),
        ("runbook_url", ["https://x"]),
        ("ended_at", "2026-11-23T12:00:00"),
        ("started_at", "2026-11-23T12:00:00"),
        ("details", [1]),
        ("severity", "grave"),
    ],
)
def test_what_no_alert_was_written_as_is_refused(name: str, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        alert_from(as_json(alarm()) | {name: value})


def test_a_wait_may_be_a_date_of_http() -> None:
    later = format_datetime(NOON + timedelta(seconds=20), usegmt=True)
    error = judged("it", 503, {"Retry-After": later}, NOON)
    assert error is not None
    assert error.retry_after == 20.0


async def test_no_answer_in_time_may_be_a_delivery(receiver: Receiver) -> None:
    receiver.script = [Answer(act="hang")]
    error = await refused(Webhook(receiver.url, timeout=0.2))

    assert (error.ambiguous, str(error)) == (True, "the webhook did not answer within 0.2 s")


async def test_who_is_not_reached_has_got_nothing(receiver: Receiver) -> None:
    url = receiver.url
    receiver.__exit__(None, None, None)
    error = await refused(Webhook(url))

    assert (error.ambiguous, error.permanent) == (False, False)
    assert str(error) == "the webhook could not be reached (ConnectionRefusedError)"


async def test_a_name_that_cannot_be_resolved_is_not_reached() -> None:
    error = await refused(Webhook("http://nowhere.invalid/"))
    assert str(error) == "the webhook could not be reached (gaierror)"


@contextlib.contextmanager
def talker(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that says `pieces`, with a pause before each, to whoever comes; its address."""
    ended = threading.Event()

    def talk(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                for piece in pieces:
                    ended.wait(pause)
                    client.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            ended.set()
            thread.join()


async def test_what_speaks_no_http_may_have_got_it() -> None:
    with talker(b"220 mail ready\r\n") as url:
        error = await refused(Webhook(url))
    assert str(error) == "the webhook gave an answer that is no HTTP (BadStatusLine)"
    assert error.ambiguous


async def test_a_byte_now_and_then_holds_nobody_up() -> None:
    """Its thread ends as well."""
    with talker(b"HTTP/1.1 200 OK\r\nX: ", *[b"y"] * 1000, pause=0.05) as url:
        webhook = Webhook(url, timeout=0.3, name="slow peer")
        error = await refused(webhook)
        assert str(error) == "the webhook did not answer within 0.3 s"
        await eventually(lambda: not [t for t in threading.enumerate() if "slow peer" in t.name])


async def test_a_cancelled_send_ends_its_thread(receiver: Receiver) -> None:
    receiver.script = [Answer(act="hang")]
    webhook = Webhook(receiver.url, name="left alone", timeout=60)
    async with anyio.create_task_group() as group:
        group.start_soon(webhook.send, [alarm()])
        await eventually(lambda: receiver.received)
        group.cancel_scope.cancel()
    await eventually(lambda: not [t for t in threading.enumerate() if "left alone" in t.name])

    await webhook.send([alarm()])
    assert len(receiver.received) == 2


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Receiver, Path]]:
    """A receiver that speaks TLS with a certificate of its own, and that certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(pem, *private))
    (tmp_path / "certificate").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    receiver = Receiver()
    receiver.speak(context)
    with receiver:
        yield receiver, tmp_path / "certificate"


async def test_https_needs_a_trusted_certificate(
    secure: tuple[Receiver, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver, certificate = secure
    webhook = Webhook(receiver.url.replace("http:", "https:"), timeout=5, name="tls")
    error = await refused(webhook)
    assert str(error) == "the webhook could not be reached (SSLCertVerificationError)"
    assert receiver.received == []

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await webhook.send([alarm()])
    assert len(receiver.received) == 1

    receiver.script = [Answer(act="hang")]
    with anyio.move_on_after(0.3):
        await webhook.send([alarm()])
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.endswith(" tls")])


class TestArguments:
    @pytest.mark.parametrize(
        "url",
        [
            "https://alerts.example/x",
            "http://10.0.0.1:80",
            "http://b\u00fccher.example/\u00fc?a=b#c",
        ],
    )
    def test_an_address_of_http_or_https_is_taken(self, url: str) -> None:
        webhook = Webhook(url)
        assert isinstance(webhook, Notifier)
        assert (webhook.name, webhook.timeout) == ("webhook", 10.0)

    @pytest.mark.parametrize(
        "url",
        [
            f"ftp://alerts.example/{SECRET}",
            f"https:///{SECRET}",
            f"https://alerts.example:0/{SECRET}",
            f"https://alerts.example:port/{SECRET}",
            f"https://[::1/{SECRET}",
            f"https://alerts.example/{SECRET} x",
            f"https://alerts.example/{SECRET}\n",
            f"https://me:12#word@{SECRET}",
            f"https://{'a' * 70}/{SECRET}",
            SECRET,
            "",
            None,
            7,
        ],
    )
    def test_any_other_is_refused_and_not_shown(self, url: Any) -> None:
        with pytest.raises(ConfigurationError) as info:
            Webhook(url)
        assert "url of notifiers.Webhook" in str(info.value)
        assert SECRET not in "".join(traceback.format_exception(info.value))
        assert info.value.__context__ is None

    @pytest.mark.parametrize("timeout", [0, -1, 301, math.nan, True, "10", None])
    def test_a_timeout_is_a_number_of_seconds(self, timeout: Any) -> None:
        with pytest.raises(ConfigurationError, match="seconds above 0 and at most 300"):
            Webhook("https://alerts.example", timeout=timeout)

    @pytest.mark.parametrize("secret", ["", b"bytes", 7])
    def test_a_secret_is_a_text(self, secret: Any) -> None:
        with pytest.raises(ConfigurationError, match="not shown and refused"):
            Webhook("https://alerts.example", secret)


@pytest.mark.parametrize(
    "answer", [None, Answer(500), Answer(302, "", {"Location": f"/{SECRET}"}), Answer(act="close")]
)
async def test_the_address_and_the_secret_are_shown_nowhere(
    answer: Answer | None, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.script = [answer]
    webhook = Webhook(f"{receiver.url.replace('//', '//me:pw@')}/{SECRET}", SECRET)
    error: BaseException | None = None
    try:
        await webhook.send([alarm()])
    except DeliveryError as failure:
        error = failure
    while error is not None:
        assert SECRET not in repr(error)
        error = error.__cause__ or error.__context__

    assert SECRET not in caplog.text + repr(webhook)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(
    text=st.text(st.characters()) | st.sampled_from(["half \ud83d", "\x00\u202e<!channel>"]),
    details=st.dictionaries(st.text(), JSON),
    severity=st.sampled_from(Severity),
    state=st.sampled_from(AlertState),
)
def test_any_alert_is_json_for_any_parser_and_can_be_read_again(
    text: str, details: dict[str, Any], severity: Severity, state: AlertState
) -> None:
    alert = alarm(text, title=text, summary=text, details=details, severity=severity, state=state)
    row = json.loads(encoded(as_json(alert)), parse_constant=pytest.fail)

    row["title"].encode("utf-8")
    again = alert_from(row)
    assert as_json(again) == row
    assert (again.severity, again.state, again.started_at) == (severity, state, alert.started_at)


def test_details_that_contain_themselves_are_cut_off() -> None:
    knot: list[Any] = []
    knot.append(knot)
    assert encoded(as_json(alarm(details={"knot": knot})))


async def test_a_message_of_ones_own_is_one_too(receiver: Receiver) -> None:
    await Webhook(receiver.url).send([notice("Deployed", started_at=datetime.now(UTC))])
    assert receiver.received[0].payload["alerts"][0]["state"] == "notice"
