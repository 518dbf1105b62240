"""The lease of a service in Redis or Valkey, and texts beside it.

Everything here waits for the network, some seconds at most: it is for a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis

__all__ = ("RedisLease",)

TIMEOUT_SECONDS = 2.0
TEXT_SECONDS = 30 * 86400


class RedisLease:
    """The key `<start>:leader`, which holds the holder's name for so many `seconds`.

    What `apart` gives is joined to the key: processes of which that differs have leases of their
    own. `options` gives those of a connection as the driver for asyncio takes them. Whatever fails
    raises an exception of the driver, whose text may hold anything.
    """

    def __init__(
        self,
        options: Callable[[], Mapping[str, Any]],
        start: str,
        seconds: float,
        apart: Callable[[], str] = str,
    ) -> None:
        self._options = options
        self._start, self._apart = start, apart
        self._milliseconds = max(1, round(seconds * 1000))
        self._opened: Redis | None = None

    def hold(self, holder: str) -> bool:
        """Take it where it is free, or go on holding it; whether it is the holder's."""
        client = self._client()
        leader = self._leader
        if client.set(leader, holder, nx=True, px=self._milliseconds):
            return True
        return self._change(leader, holder, lambda pipe: pipe.pexpire(leader, self._milliseconds))

    def release(self, holder: str) -> None:
        """Free it, where it is the holder's, and end the connection."""
        if self._opened is None:
            return
        try:
            leader = self._leader
            self._change(leader, holder, lambda pipe: pipe.delete(leader))
        finally:
            client, self._opened = self._opened, None
            # Closing the client leaves a pool alone that it was given.
            client.connection_pool.disconnect()

    def load(self, name: str) -> str | None:
        """The text that was saved last under the key `<start>:<name>`."""
        found = self._client().get(f"{self._start}:{name}")
        return None if found is None else _read(found)

    def save(self, name: str, text: str) -> None:
        """Keep the text for a month."""
        self._client().set(f"{self._start}:{name}", text, ex=TEXT_SECONDS)

    @property
    def _leader(self) -> str:
        apart = self._apart()
        return f"{self._start}:leader:{apart}" if apart else f"{self._start}:leader"

    def _change(self, leader: str, holder: str, change: Any) -> bool:
        """Change the key if it is the holder's, in one step that nobody comes between."""
        from redis.exceptions import WatchError

        with self._client().pipeline() as pipe:
            pipe.watch(leader)  # type: ignore[no-untyped-call]  # of the driver
            found: Any = pipe.get(leader)
            if found is None or _read(found) != holder:
                return False
            pipe.multi()
            change(pipe)
            try:
                return bool(pipe.execute()[0])
            except WatchError:
                return False

    def _client(self) -> Redis:
        if self._opened is None:
            self._opened = _connected(self._options())
        return self._opened


def _read(found: Any) -> str:
    return found.decode() if isinstance(found, bytes) else str(found)


def _connected(options: Mapping[str, Any]) -> Redis:
    from redis import Redis, connection
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    given = {name: value for name, value in options.items() if name != "connection_class"}
    pool = connection.ConnectionPool(
        connection_class=getattr(connection, options["connection_class"].__name__),
        max_connections=2,
        **given,
        protocol=2,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis(connection_pool=pool)
