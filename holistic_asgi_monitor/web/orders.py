"""What people order by POST: to begin or end maintenance, to silence what they know already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
from starlette.types import Message, Receive

from holistic_asgi_monitor.alerts.maintenance import DEFAULT_MINUTES, DEFAULT_REASON
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.quiet import MOST_MINUTES

__all__ = ("ClientGoneError", "Orders", "RefusedError", "ordered", "refuse_foreign_page")

MOST_BYTES = 16_384
BODY_SECONDS = 10.0
MOST_SHOWN = 50
SHOWN_CHARACTERS = 80
_OWN_PAGES = frozenset({"", "none", "same-origin"})


class RefusedError(Exception):
    """An order that is not carried out: `status`, and a sentence for who gave it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class ClientGoneError(Exception):
    """Whoever sent the request has left."""


class Orders:
    """Carries out what is ordered; `names` gives the names of the checks.

    What is wrong is a `RefusedError`.
    """

    def __init__(self, outbox: Outbox, names: Callable[[], Iterable[str]]) -> None:
        self._outbox = outbox
        self._names = names

    def maintenance(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Begin or end maintenance; gives what then holds."""
        _refuse_unknown(order, ("reason", "minutes", "end"))
        times = self._outbox.quiet_times
        reason = _reason(order)
        if "end" not in order:
            times.begin(reason or DEFAULT_REASON, _minutes(order, least=None))
        elif order["end"] is not True or "minutes" in order:
            sentence = 'is true; allowed beside it: "reason"'
            raise RefusedError(400, f"Maintenance ends where end {sentence}.")
        else:
            times.end_all(reason)
        return {"maintenance": times.as_dict()["maintenance"]}

    def silence(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Silence a key for a time, or end that; gives all silences that then hold."""
        _refuse_unknown(order, ("key", "minutes"))
        key, minutes = self._known_key(order), _minutes(order, least=0)
        if minutes:
            self._outbox.silence(key, minutes)
        else:
            self._outbox.quiet_times.speak(key)
        return {"silences": self._outbox.quiet_times.as_dict()["silences"]}

    def _known_key(self, order: Mapping[str, Any]) -> str:
        key = order.get("key")
        if not isinstance(key, str) or not key:
            raise RefusedError(400, _wrong("key", key, "the name of a check or of an alert"))
        known = list(dict.fromkeys([*self._names(), *self._outbox.remembered]))
        if key not in known:
            shown = ", ".join(known[:MOST_SHOWN])
            more = f" and {len(known) - MOST_SHOWN} more" if len(known) > MOST_SHOWN else ""
            raise RefusedError(404, f"There is no {_shown(key)}; known are {shown}{more}.")
        return key


async def ordered(receive: Receive, content_type: str) -> Mapping[str, Any]:
    """The JSON object that the body of a request holds.

    `RefusedError` where it is none, is too long or does not come, `ClientGoneError` where the
    client has left.
    """
    # A page elsewhere can send a browser's credentials along, but not this type.
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "The body must be JSON, sent as Content-Type: application/json.")
    body: bytes | None = None
    with anyio.move_on_after(BODY_SECONDS):
        body = await _body(receive)
    if body is None:
        raise RefusedError(408, f"The body did not come within {BODY_SECONDS:g} s.")
    try:
        order = json.loads(body)
    except (RecursionError, ValueError):
        raise RefusedError(400, "The body is no JSON; allowed: one JSON object.") from None
    if not isinstance(order, dict):
        raise RefusedError(400, "The body is JSON but no object; allowed: one JSON object.")
    return order


def refuse_foreign_page(site: str) -> None:
    """`RefusedError` where a browser says, in Sec-Fetch-Site, that another page sends this."""
    if site.strip().lower() not in _OWN_PAGES:
        raise RefusedError(403, "This was sent by a page of another site, which is not allowed.")


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message: Message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise RefusedError(413, f"The body is too long; allowed: {MOST_BYTES} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def _refuse_unknown(order: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in order:
        if name not in allowed:
            sentence = f"There is no field {_shown(name)}; allowed: {', '.join(allowed)}."
            raise RefusedError(400, sentence)


def _reason(order: Mapping[str, Any]) -> str | None:
    reason = order.get("reason")
    if reason is not None and not (isinstance(reason, str) and reason.strip()):
        raise RefusedError(400, _wrong("reason", reason, "a text that is not empty"))
    return reason


def _minutes(order: Mapping[str, Any], *, least: int | None) -> float:
    """The minutes of an order: above 0, or from `least`, to a day."""
    minutes = order.get("minutes", DEFAULT_MINUTES)
    sound = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if sound and minutes <= MOST_MINUTES and (minutes > 0 or minutes == least):
        return float(minutes)
    lowest = "above 0 and" if least is None else f"from {least} and"
    allowed = f"a number {lowest} at most {MOST_MINUTES}"
    raise RefusedError(400, _wrong("minutes", minutes, allowed))


def _wrong(name: str, value: object, allowed: str) -> str:
    return f"The field {name} is {_shown(value)}; allowed: {allowed}."


def _shown(value: object) -> str:
    """What was sent, as JSON and not too long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
