"""Access: who may see what, judged by the peer's address and by what the request carries."""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from starlette.types import Scope

from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.settings import AccessMode, Settings

__all__ = ("COOKIE", "Access", "Area", "Verdict", "is_near")

COOKIE = "holistic_asgi_monitor"
"""The name of the login cookie; its value is `Access.cookie_value()`."""

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network
_Headers = list[tuple[bytes, bytes]]

_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
_PRIVATE = (
    *map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")),
    *map(ip_network, ("169.254.0.0/16", "fe80::/10", "fc00::/7")),
)
_FORWARDING = frozenset(
    (b"forwarded", b"x-real-ip", b"via", b"cf-connecting-ip", b"true-client-ip")
)
_FORWARDING_PREFIX = b"x-forwarded-"

# Where no server stands between: the peer that the test clients of Starlette and Litestar give.
# httpx and Django give a loopback address.
_TEST_CLIENT = ("testclient", 50000)

_CHALLENGES = (
    (b"www-authenticate", b'Bearer realm="holistic-asgi-monitor"'),
    (b"www-authenticate", b'Basic realm="holistic-asgi-monitor", charset="UTF-8"'),
)

_HOW = "as Authorization: Bearer, as the password of Basic, or by the login cookie"
_REFUSALS: dict[AccessMode, str] = {
    "token": f"This needs the token that MONITOR_TOKEN holds, {_HOW}.",
    "closed": "This is closed: to open it to those who have a token, set MONITOR_TOKEN and let "
    "MONITOR_ACCESS be token or not set.",
    "local": "This is open to the app's own machine only, without a proxy between: to open it to "
    "those who have a token, set MONITOR_TOKEN and let MONITOR_ACCESS be token or not set.",
}
_NEAR_ONLY = (
    "Metrics are open to loopback and private addresses only, without a proxy between: to open "
    "them to those who have a token, set MONITOR_TOKEN and let MONITOR_ACCESS be token or not set."
)
_EXPLANATIONS: dict[AccessMode, str] = {
    "token": f"metrics, statistics and details need the token that MONITOR_TOKEN holds, {_HOW}",
    "closed": "metrics are open to loopback and private addresses without a proxy between, and "
    "statistics and details to nobody; MONITOR_TOKEN, with MONITOR_ACCESS=token or not set, opens "
    "all of it to those who have the token",
    "local": "everything is open to this machine, and metrics to private addresses, without a "
    "proxy between; MONITOR_TOKEN, with MONITOR_ACCESS=token or not set, opens all of it to those "
    "who have the token",
    "open": "metrics, statistics and details are open to everybody who reaches this app",
}


class Area(Enum):
    """What a path falls under."""

    STATUS = "status"
    """`simple`, `live` and `ready`: a word for everybody."""
    HEALTH = "health"
    """The report: everybody gets its public form."""
    METRICS = "metrics"
    """What Prometheus scrapes."""
    PRIVATE = "private"
    """All the rest."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request may see what it asks for.

    `full` says whether it may see the unredacted form: what `Area.PRIVATE` would allow. `status`
    is 200, 401 or 403; `sentence` and `headers` go into the refusal and are empty otherwise.
    """

    allowed: bool
    full: bool
    status: int = 200
    sentence: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Access:
    """Judges requests by the access mode of the settings, which is `mode`."""

    def __init__(self, settings: Settings) -> None:
        self.mode = settings.access_mode
        self._token = settings.token or ""
        self._passwords = _encodings(self._token)
        self._cookie = _cookie_value(self._token)

    def judge(self, scope: Scope, area: Area) -> Verdict:
        """Whether the request of `scope` may see `area`; never raises, whatever a scope holds."""
        headers = _headers(scope)
        peer = None if headers is None or _is_forwarded(headers) else scope.get("client")
        full = self._sees_all(peer, headers or [])
        if full or area in {Area.STATUS, Area.HEALTH}:
            return Verdict(allowed=True, full=full)
        if self.mode == "token":
            return _refused(401, _REFUSALS["token"], _CHALLENGES)
        if area is not Area.METRICS:
            return _refused(403, _REFUSALS[self.mode])
        if is_near(peer):
            return Verdict(allowed=True, full=False)
        return _refused(403, _NEAR_ONLY)

    def explanation(self) -> str:
        """One sentence for the log: which mode holds, and what it means."""
        return f"Access mode {self.mode}: {_EXPLANATIONS[self.mode]}."

    def cookie_value(self) -> str:
        """The value of the login cookie, which does not tell the token.

        It changes with the token. ConfigurationError where there is no token.
        """
        if not self._token:
            raise ConfigurationError("There is no login without a token: MONITOR_TOKEN is not set.")
        return self._cookie.decode()

    def _sees_all(self, peer: object, headers: _Headers) -> bool:
        if self.mode == "token":
            return any(self._is_opened_by(name, value) for name, value in headers)
        if self.mode == "local":
            return _is_test_client(peer) or _is_in(peer, _LOOPBACK)
        return self.mode == "open"

    def _is_opened_by(self, name: bytes, value: bytes) -> bool:
        """Whether a header carries the token, or the cookie in its place."""
        if name == b"authorization":
            sent = _credential(value)
            return any(hmac.compare_digest(sent, password) for password in self._passwords)
        if name == b"cookie":
            return any(hmac.compare_digest(sent, self._cookie) for sent in _cookies(value))
        return False


def _refused(status: int, sentence: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Verdict:
    return Verdict(allowed=False, full=False, status=status, sentence=sentence, headers=headers)


def _encodings(token: str) -> list[bytes]:
    """The bytes that may stand for the token: clients differ where it is not ASCII."""
    try:
        return [token.encode(), token.encode("latin-1")]
    except UnicodeEncodeError:
        return [token.encode()]


def _cookie_value(token: str) -> bytes:
    return hmac.new(token.encode(), b"holistic-asgi-monitor login", "sha256").hexdigest().encode()


def _headers(scope: Scope) -> _Headers | None:
    """The headers with their names in lower case; None where they are not what ASGI promises.

    Such a request is a stranger without credentials: what cannot be read may say anything.
    """
    raw = scope.get("headers", ())
    if not isinstance(raw, Iterable):
        return None
    headers: _Headers = []
    for pair in raw:
        match pair:
            case (bytes(name), bytes(value)):
                headers.append((name.lower(), value))
            case _:
                return None
    return headers


def _is_forwarded(headers: _Headers) -> bool:
    return any(name in _FORWARDING or name.startswith(_FORWARDING_PREFIX) for name, _ in headers)


def _credential(value: bytes) -> bytes:
    """The token that an Authorization header carries, or the password of its Basic; else empty."""
    scheme, _, rest = value.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        _, _, password = b64decode(rest.strip(), validate=True).partition(b":")
    except Base64Error:
        return b""
    return password


def _cookies(value: bytes) -> Iterator[bytes]:
    """The values of our cookie in a Cookie header: there may be several, and quotes around."""
    for part in value.split(b";"):
        name, _, sent = part.strip().partition(b"=")
        if name.strip() == COOKIE.encode():
            yield sent.strip().strip(b'"')


def _is_test_client(peer: object) -> bool:
    return isinstance(peer, tuple | list) and tuple(peer) == _TEST_CLIENT


def is_near(peer: object) -> bool:
    """Whether a pair of host and port, as in a scope's `client`, is loopback or private."""
    return _is_in(peer, (*_LOOPBACK, *_PRIVATE))


def _is_in(peer: object, networks: Iterable[_Network]) -> bool:
    address = _address(peer)
    return address is not None and any(address in network for network in networks)


def _address(peer: object) -> _Address | None:
    """The address in a scope's `client`; None where there is none, as from a unix socket."""
    match peer:
        case (str(host), _):
            pass
        case _:
            return None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
