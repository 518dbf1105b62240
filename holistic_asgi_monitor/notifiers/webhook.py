"""Any receiver of one's own: the alerts as JSON, by POST, and signed on request."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence

from holistic_asgi_monitor.model import Alert, ConfigurationError
from holistic_asgi_monitor.notifiers.addresses import Address, refuse_wrong_timeout
from holistic_asgi_monitor.notifiers.posting import Poster
from holistic_asgi_monitor.notifiers.values import as_json, encoded

__all__ = ("SIGNATURE_HEADER", "Webhook", "signature")

VERSION = 1
SIGNATURE_HEADER = "X-Monitor-Signature"


class Webhook:
    """Posts alerts to `url` as one JSON object, all of one delivery together.

    An answer of 2xx is a delivery; 408, 425, 429 and 5xx are tried again, any other is not. With
    a `secret` each request is signed, which docs/alerts.md shows how to verify. A user and a
    password in the URL are sent as Basic authentication. `timeout` is in seconds. A wrong
    argument is a ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        name: str = "webhook",
        timeout: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        address = Address.parse(url, "url of notifiers.Webhook")
        if secret is not None and not (isinstance(secret, str) and secret):
            raise ConfigurationError(
                "The secret of notifiers.Webhook is not shown and refused: it must be a text that "
                "is not empty, or None."
            )
        self.name = name
        self.timeout = refuse_wrong_timeout(timeout, "notifiers.Webhook")
        self._secret = secret
        self._clock = clock
        self._poster = Poster(address, who="the webhook", name=name, timeout=self.timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url=..., name={self.name!r})"

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the alerts; DeliveryError where they were not taken."""
        if not alerts:
            return
        body = _body(alerts)
        headers = {}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, int(self._clock()), body)
        await self._poster.post(body, headers)


def signature(secret: str, moment: int, body: bytes) -> str:
    """The header's value: the time in seconds since the epoch, and the HMAC of time and body."""
    signed = f"{moment}.".encode() + body
    digest = hmac.new(secret.encode("utf-8", "surrogatepass"), signed, "sha256").hexdigest()
    return f"t={moment},v1={digest}"


def _body(alerts: Sequence[Alert]) -> bytes:
    rows = [as_json(alert) for alert in alerts]
    origin = {name: rows[0][name] for name in ("service", "environment", "instance")}
    return encoded({"version": VERSION, **origin, "alerts": rows})
