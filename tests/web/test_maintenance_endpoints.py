"""POST to /api/monitoring/maintenance and /silence: who may, what is carried out, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from holistic_asgi_monitor import CheckResult, Monitor, Settings, Status, notifiers
from holistic_asgi_monitor.web import orders
from holistic_asgi_monitor.web.access import COOKIE, Access
from tests.web.exchanges import Exchange, get, http_scope

MAINTENANCE = "/api/monitoring/maintenance"
SILENCE = "/api/monitoring/silence"
TOKEN = "correct horse"
BEARER = (b"authorization", b"Bearer correct horse")
JSON = (b"content-type", b"application/json")
STRANGER = ("203.0.113.9", 1)

Answered = tuple[int, Any]


def monitored(**settings: Any) -> Monitor:
    options: dict[str, Any] = {"service": "shop", "token": TOKEN, "history_url": "off"}
    return Monitor(
        Starlette(),
        settings=Settings(**(options | settings)),
        checks=[],
        notifiers=[notifiers.Memory()],
    )


async def post(
    monitor: Monitor,
    path: str,
    body: bytes | dict[str, Any] = b"",
    headers: Sequence[tuple[bytes, bytes]] = (BEARER, JSON),
    **more: Any,
) -> Answered:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    half = len(data) // 2
    parts = (data[:half], data[half:])
    incoming = [
        {"type": "http.request", "body": part, "more_body": number == 0}
        for number, part in enumerate(parts)
    ]
    scope = http_scope(path, "POST", headers=list(headers), **more)
    exchange = await Exchange(incoming=incoming).run(monitor, scope)
    return exchange.status, json.loads(exchange.body)


async def alerts(monitor: Monitor) -> Any:
    exchange = await get(monitor, "/api/monitoring/alerts", headers=[BEARER])
    return json.loads(exchange.body)


def ahead(time: str) -> timedelta:
    return datetime.fromisoformat(time) - datetime.now(UTC)


class TestMaintenance:
    async def test_it_begins_is_shown_and_ends(self) -> None:
        monitor = monitored()
        status, answer = await post(monitor, MAINTENANCE, {"reason": "deploy", "minutes": 30})
        assert status == 200
        assert answer["maintenance"]["reason"] == "deploy"
        until = answer["maintenance"]["until"]
        assert timedelta(minutes=29) < ahead(until) <= timedelta(minutes=30)

        shown = (await alerts(monitor))["maintenance"]
        assert shown["reason"] == "deploy"
        stats = await get(monitor, "/api/monitoring/stats", headers=[BEARER])
        assert json.loads(stats.body)["alerts"]["maintenance"]["reason"] == "deploy"

        assert await post(monitor, MAINTENANCE, {"end": True}) == (200, {"maintenance": None})
        assert (await alerts(monitor))["maintenance"] is None
        assert await post(monitor, MAINTENANCE, {"end": True}) == (200, {"maintenance": None})

    async def test_without_a_word_it_is_an_hour(self) -> None:
        status, answer = await post(monitored(), MAINTENANCE, {})
        assert (status, answer["maintenance"]["reason"]) == (200, "maintenance")
        assert ahead(answer["maintenance"]["until"]) > timedelta(minutes=59)

    async def test_only_windows_of_one_reason_can_be_ended(self) -> None:
        monitor = monitored()
        for reason in ("deploy", "migration"):
            await post(monitor, MAINTENANCE, {"reason": reason})
        status, answer = await post(monitor, MAINTENANCE, {"end": True, "reason": "deploy"})
        assert (status, answer["maintenance"]["reason"]) == (200, "migration")

    @pytest.mark.parametrize(
        ("order", "sentence"),
        [
            ({"minutes": 0}, "The field minutes is 0; allowed: a number above 0 and at most 1440."),
            ({"minutes": -1}, "minutes is -1"),
            ({"minutes": 1441}, "minutes is 1441"),
            ({"minutes": "30"}, 'minutes is "30"'),
            ({"minutes": True}, "minutes is true"),
            ({"minutes": None}, "minutes is null"),
            ({"reason": ""}, 'The field reason is ""; allowed: a text that is not empty.'),
            ({"reason": 5}, "reason is 5"),
            ({"reason": ["x" * 1000]}, "xxx...; allowed"),
            ({"end": False}, "Maintenance ends where end is true"),
            ({"end": 1}, "Maintenance ends where end is true"),
            ({"end": True, "minutes": 5}, "Maintenance ends where end is true"),
            ({"why": "x"}, 'There is no field "why"; allowed: reason, minutes, end.'),
            (b"", "The body is no JSON; allowed: one JSON object."),
            (b"{", "The body is no JSON"),
            (b"\xff\xfe", "The body is no JSON"),
            (b"[" * 10_000, "The body is no JSON"),
            (b"[]", "The body is JSON but no object"),
            (b'{"minutes": NaN}', "minutes is NaN"),
            (b'{"minutes": 1e999}', "minutes is Infinity"),
        ],
    )
    async def test_what_is_wrong_is_400_with_one_sentence(
        self, order: bytes | dict[str, Any], sentence: str
    ) -> None:
        monitor = monitored()
        status, answer = await post(monitor, MAINTENANCE, order)
        assert status == 400
        assert sentence in answer["error"]
        assert len(answer["error"]) < 250
        assert (await alerts(monitor))["maintenance"] is None


class TestSilence:
    async def test_a_check_is_silenced_and_speaks_again(self) -> None:
        monitor = monitored()
        status, answer = await post(monitor, SILENCE, {"key": "traffic", "minutes": 30})
        assert status == 200
        (silence,) = answer["silences"]
        assert silence["key"] == "traffic"
        assert timedelta(minutes=29) < ahead(silence["until"]) <= timedelta(minutes=30)
        assert [each["key"] for each in (await alerts(monitor))["silences"]] == ["traffic"]

        assert await post(monitor, SILENCE, {"key": "traffic", "minutes": 0}) == (
            200,
            {"silences": []},
        )

    async def test_what_gets_worse_ends_the_silence(self) -> None:
        monitor = monitored(startup_grace_seconds=0, failures_before_alert=1)
        seen = [Status.DEGRADED]
        monitor.check("payments")(lambda: CheckResult(seen[0]))
        await monitor.report(fresh=True)
        assert (await post(monitor, SILENCE, {"key": "payments"}))[0] == 200
        seen[0] = Status.CRITICAL
        await monitor.report(fresh=True)
        assert (await alerts(monitor))["silences"] == []

    async def test_an_unknown_key_is_404_with_those_that_are_known(self) -> None:
        status, answer = await post(monitored(), SILENCE, {"key": "databse"})
        assert (status, answer["error"]) == (
            404,
            'There is no "databse"; known are traffic.',
        )

    async def test_many_known_keys_are_not_all_named(self) -> None:
        monitor = monitored()
        for number in range(100):
            monitor.check(f"check-{number}")(lambda: True)
        _, answer = await post(monitor, SILENCE, {"key": "x"})
        assert answer["error"].endswith("and 51 more.")

    @pytest.mark.parametrize(
        ("order", "sentence"),
        [
            ({}, "The field key is null; allowed: the name of a check or of an alert."),
            ({"key": ""}, 'The field key is ""'),
            ({"key": ["traffic"]}, "The field key is"),
            (
                {"key": "traffic", "minutes": -1},
                "The field minutes is -1; allowed: a number from 0 and at most 1440.",
            ),
            ({"key": "traffic", "for": 5}, 'There is no field "for"; allowed: key, minutes.'),
        ],
    )
    async def test_what_is_wrong_is_400_with_one_sentence(
        self, order: dict[str, Any], sentence: str
    ) -> None:
        status, answer = await post(monitored(), SILENCE, order)
        assert (status, answer["error"][: len(sentence)]) == (400, sentence)


@pytest.mark.parametrize("path", [MAINTENANCE, SILENCE])
class TestWhoMay:
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    async def test_only_post_is_allowed(self, path: str, method: str) -> None:
        exchange = await get(monitored(), path, method, headers=[BEARER])
        assert exchange.status == 405
        assert exchange.headers["allow"] == "POST"

    async def test_a_stranger_is_refused_before_anything_is_read(self, path: str) -> None:
        exchange = Exchange(incoming=())
        await exchange.run(monitored(), http_scope(path, "POST", headers=[JSON], client=STRANGER))
        assert exchange.status == 401

    async def test_without_a_token_it_is_closed(self, path: str) -> None:
        status, answer = await post(monitored(token=None), path, {"minutes": 5})
        assert status == 403
        assert "MONITOR_TOKEN" in answer["error"]

    @pytest.mark.parametrize(
        "kind",
        [
            None,
            b"text/plain",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data",
            b"application/json-patch+json",
        ],
    )
    async def test_what_a_form_elsewhere_can_send_is_refused(
        self, path: str, kind: bytes | None
    ) -> None:
        """Whatever the browser sends along: the cookie, or the password of Basic."""
        settings = Settings(service="shop", token=TOKEN)
        cookie = f"{COOKIE}={Access(settings).cookie_value()}".encode()
        headers = [(b"cookie", cookie)] + ([] if kind is None else [(b"content-type", kind)])
        status, answer = await post(monitored(), path, {"key": "traffic"}, headers)
        assert status == 415
        assert "application/json" in answer["error"]

    @pytest.mark.parametrize("site", [b"cross-site", b"same-site", b"else"])
    async def test_a_page_elsewhere_is_refused_even_with_json(self, path: str, site: bytes) -> None:
        headers = [BEARER, JSON, (b"sec-fetch-site", site)]
        status, answer = await post(monitored(), path, {"key": "traffic"}, headers)
        assert (status, "another site" in answer["error"]) == (403, True)

    @pytest.mark.parametrize("site", [b"same-origin", b"none"])
    async def test_our_own_page_may_with_the_login(self, path: str, site: bytes) -> None:
        order = {"key": "traffic"} if path == SILENCE else {}
        cookie = Access(Settings(service="shop", token=TOKEN)).cookie_value()
        headers = [
            (b"cookie", f"{COOKIE}={cookie}".encode()),
            (b"content-type", b"Application/JSON; charset=utf-8"),
            (b"sec-fetch-site", site),
        ]
        status, _ = await post(monitored(), path, order, headers)
        assert status == 200

    async def test_it_is_answered_below_a_root_path_and_with_a_slash(self, path: str) -> None:
        order = {"key": "traffic"} if path == SILENCE else {}
        status, _ = await post(monitored(), f"/shop{path}/", order, root_path="/shop")
        assert status == 200

    async def test_a_body_that_is_too_long_is_refused(self, path: str) -> None:
        body = json.dumps({"reason": "x" * orders.MOST_BYTES}).encode()
        status, answer = await post(monitored(), path, body)
        assert (status, answer["error"]) == (
            413,
            "The body is too long; allowed: 16384 bytes.",
        )

    async def test_a_body_that_does_not_come_is_given_up(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(orders, "BODY_SECONDS", 0.01)
        part = {"type": "http.request", "body": b"{", "more_body": True}
        exchange = Exchange(incoming=[part])
        await exchange.run(monitored(), http_scope(path, "POST", headers=[BEARER, JSON]))
        assert exchange.status == 408

    @pytest.mark.parametrize("sent", [b"", b"{}"])
    async def test_who_leaves_gets_no_answer_and_changes_nothing(
        self, path: str, sent: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        incoming: list[Message] = [
            {"type": "http.request", "body": sent, "more_body": True},
            {"type": "http.disconnect"},
        ]
        monitor = monitored()
        exchange = Exchange(incoming=incoming)
        await exchange.run(monitor, http_scope(path, "POST", headers=[BEARER, JSON]))
        assert exchange.sent == []
        assert caplog.text == ""
        assert (await alerts(monitor))["maintenance"] is None
