"""How the check reaches OpenAI: by a client of its own, or by one that it was lent."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

from holistic_asgi_monitor.checks.loops import Threaded
from holistic_asgi_monitor.checks.names import Resolver
from holistic_asgi_monitor.checks.per_loop import PerLoop
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.redaction import passwords

if TYPE_CHECKING:
    import openai

__all__ = ("AsyncLine", "Line", "OwnLine", "SyncLine", "lent", "own")

OWN_URL = "https://api.openai.com/v1"
_KEY = re.compile(r"[!-~]+")
# With one of these in the key, the transport logs the whole header that it refuses to send.
_BREAK = re.compile(r"[\r\n\0]")


class Line(Protocol):
    """A way to OpenAI at `host` (with the port, where one is given); `secrets` stay unread."""

    host: str
    secrets: tuple[str, ...]

    async def models(self, seconds: float) -> bytes:
        """The body of the list of models; raises what the `openai` package does."""
        ...

    async def aclose(self) -> None:
        """Let go of what is kept; `models` may be called again afterwards."""
        ...


class OwnLine:
    """A client of our own, made anew for each event loop.

    It keeps no idle connection: one would be stale by the next probe, a minute later, and belongs
    to an event loop that may have ended by then.
    """

    def __init__(self, key: str, url: SplitResult, name: str) -> None:
        import openai

        self.host = place(url)
        self.secrets = (key, *passwords(url.geturl()))
        self._key = key
        # httpx logs every address it calls, so the password must not stay in there.
        self._url = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
        self._auth = (unquote(url.username or ""), unquote(url.password or ""))
        # httpx2 under openai 3, httpx under older ones.
        base = cast("type", openai.DefaultAsyncHttpxClient.__base__)
        self._http = import_module(base.__module__.partition(".")[0])
        # Read from disk once, and not while an event loop runs.
        self._tls = self._http.create_ssl_context()
        self._clients = PerLoop(self._made)
        # A proxy looks the name up itself, and perhaps nobody else can.
        direct = not {"all", "http", "https"} & getproxies().keys()
        self._resolver = Resolver(url.hostname or "", name) if direct else None
        _warm(self._made())

    async def models(self, seconds: float) -> bytes:
        """See `Line`; `StillRunningError` where the name service is silent since another time."""
        if self._resolver is not None:
            # The client's own look-up would hold a thread of the app's for as long as this hangs.
            with suppress(OSError, UnicodeError):
                await self._resolver.addresses()
        return await _models(self._clients.here(), seconds)

    async def aclose(self) -> None:
        """See `Line`."""
        client = self._clients.take()
        if client is not None:
            await client.close()

    def _made(self) -> openai.AsyncOpenAI:
        import openai

        http = openai.DefaultAsyncHttpxClient(
            verify=self._tls,
            limits=self._http.Limits(max_keepalive_connections=0),
            auth=self._auth if any(self._auth) else None,
        )
        return openai.AsyncOpenAI(api_key=self._key, base_url=self._url, http_client=http)


class AsyncLine:
    """An async client that somebody else owns; it is never closed here."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.host, self.secrets = _known(client)
        self._client = client
        _warm(client)

    async def models(self, seconds: float) -> bytes:
        """See `Line`."""
        return await _models(self._client, seconds)

    async def aclose(self) -> None:
        """Nothing is ours to close."""


class SyncLine:
    """A sync client that somebody else owns, called in a daemon thread, one call at a time.

    Each event loop has such a thread.
    """

    def __init__(self, client: openai.OpenAI, name: str) -> None:
        self.host, self.secrets = _known(client)
        self._client = client
        self._seconds = 0.0
        self._calls = PerLoop(lambda: Threaded(self._ask, f"check {name}"))
        _warm(client)

    async def models(self, seconds: float) -> bytes:
        """See `Line`; `StillRunningError` where the call before has not returned."""
        self._seconds = seconds
        return cast("bytes", await self._calls.here()())

    async def aclose(self) -> None:
        """Nothing is ours to close."""

    def _ask(self) -> bytes:
        client = self._client.with_options(timeout=self._seconds, max_retries=0)
        return client.models.with_raw_response.list().content


def own(key: str | None, url: str | None, *, name: str) -> OwnLine | None:
    """A line for these, else for the environment's; None where there is no key at all.

    An unusable key or address is a `ConfigurationError`, which does not repeat it.
    """
    key = (key or os.environ.get("OPENAI_API_KEY", "")).strip()
    if not key:
        return None
    if not _KEY.fullmatch(key):
        raise _unusable_key(name)
    address = _web_address(url or os.environ.get("OPENAI_BASE_URL") or OWN_URL, name)
    return OwnLine(key, address, name)


def lent(client: object, *, name: str) -> AsyncLine | SyncLine:
    """A line over `client`; what is no client is a `ConfigurationError`."""
    import openai

    if isinstance(client, openai.AsyncOpenAI | openai.OpenAI):
        if _BREAK.search(client.api_key):
            raise _unusable_key(name)
        if isinstance(client, openai.AsyncOpenAI):
            return AsyncLine(client)
        return SyncLine(client, name)
    raise ConfigurationError(
        f"The check {name} is given a {type(client).__name__} as its client; "
        "allowed are openai.AsyncOpenAI, openai.OpenAI and their Azure forms"
    )


def place(url: SplitResult) -> str:
    """Host and, where it is given, port; no user and no password."""
    return url.netloc.rpartition("@")[2].lower()


async def _models(client: openai.AsyncOpenAI, seconds: float) -> bytes:
    probe = client.with_options(timeout=seconds, max_retries=0)
    answer = await probe.models.with_raw_response.list()
    return answer.content


def _warm(client: openai.AsyncOpenAI | openai.OpenAI) -> None:
    """Have the modules read now that `openai` would only read in the first probe."""
    _ = client.with_options(max_retries=0).models.with_raw_response


def _known(client: openai.AsyncOpenAI | openai.OpenAI) -> tuple[str, tuple[str, ...]]:
    """The host that `client` calls, and the secrets it has."""
    url = str(client.base_url)
    keys = (client.api_key, getattr(client, "admin_api_key", None), *passwords(url))
    return place(urlsplit(url)), tuple(key for key in keys if key)


def _unusable_key(name: str) -> ConfigurationError:
    return ConfigurationError(
        f"The check {name} has an API key (given, or OPENAI_API_KEY) that no header can hold; "
        "allowed are visible ASCII characters without spaces and line breaks"
    )


def _web_address(url: str, name: str) -> SplitResult:
    wrong = ConfigurationError(
        f"The check {name} has a base URL (given, or OPENAI_BASE_URL) that is no web address; "
        "allowed is http(s)://host[:port][/path]"
    )
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        raise wrong from None
    if not usable or parts.query or parts.fragment:
        raise wrong
    return parts
