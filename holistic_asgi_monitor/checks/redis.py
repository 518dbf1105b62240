"""The check of Redis and of Valkey, which speaks the same language: a ping, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Self

import anyio

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.keyspace import Info, exhaustion, figures, product
from holistic_asgi_monitor.checks.loops import running_loop
from holistic_asgi_monitor.checks.network import causes, failing
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.redis_access import Answer, access
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client
    from redis.asyncio import RedisCluster as Cluster

__all__ = ("Redis",)

_PREDICATES = {
    "BUSY": "is busy with a script",
    "CLUSTERDOWN": "belongs to a cluster that is down",
    "DENIED": "refuses this host: it is in protected mode",
    "LOADING": "is still loading its data into memory",
    "MASTERDOWN": "is a replica that has lost its primary",
    "MISCONF": "refuses writes, since it cannot save to disk",
    "NOPERM": "does not allow its user the command PING",
    "OOM": "has no memory left, so it refuses writes",
    "READONLY": "is a replica that refuses writes",
}
# By the beginning of what the server or the driver says, where their classes say less.
_SAID = {
    "Authentication required": "asks for a password, and none is given",
    "HELLO must be called": "asks for a password, and none is given",
    "AUTH <password> called without": "has no password for its default user, but one is given",
    "Client sent AUTH, but no": "has no password for its default user, but one is given",
    "max number of clients": "has no room for another client: its limit maxclients is reached",
    "Connection closed by server": "cut the connection",
    "No master found": "has no primary that Sentinel knows of",
    "No slave found": "has no replica that Sentinel knows of",
    "Timeout ": "gave no answer within the client's own time limit",
}
_CODES = {
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "NoPermissionError": "NOPERM",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
}
_NO_DATABASE = ("DB index is out of range", "invalid DB index")
_POOL_FULL = ("Too many connections", "No connection available")


class Redis(Probe):
    """Pings a server and reads what it says of itself (INFO).

    `server` is a URL (redis, rediss, unix; valkey and valkeys mean the same), for which one
    connection is kept, or a client of `redis.asyncio`, which is used as it is and never closed.
    No answer is degraded, critical if `required`; so is a server that refuses writes. A pool
    without a free connection is degraded. It needs asyncio, as its driver does.
    """

    def __init__(
        self,
        server: str | Client | Cluster,
        *,
        name: str = "redis",
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        self._server = server
        self._access = access(server, name)
        self._place = self._access.place
        self.secrets = self._place.secrets
        self._product = "Redis"
        self._before: Info | None = None
        self._obstacle: UnwellError | None = None

    def configured(self, settings: Settings) -> Self:
        """The same check with a connection of its own: each monitor has one."""
        same = copy(self)
        same._access = access(self._server, self.name)  # noqa: SLF001 - its own class
        return same

    async def unjudged(self) -> CheckResult:
        """Ask once; `UnwellError` for what is wrong."""
        self._obstacle = None
        if not isinstance(running_loop(), asyncio.AbstractEventLoop):
            status = Status.SKIPPED if self.lenient else Status.UNKNOWN
            return CheckResult(
                status, "not checked: the driver of Redis needs asyncio, and this is trio"
            )
        try:
            answer = await self._access.ask()
        except anyio.get_cancelled_exc_class() as cancelled:
            # A client that retries by itself was cancelled in doing so: why, is what it knows.
            self._obstacle = self._known(cancelled)
            raise
        except Exception as error:
            sentence = f"{self._where} could not be asked"
            raise self._known(error) or UnwellError(sentence) from error
        return self._result(answer)

    def unanswered(self, seconds: float) -> UnwellError:
        """What to say when there was no answer within `seconds`."""
        if self._obstacle is not None:
            return self._obstacle
        if self._access.full is not None:
            return self._pool_full()
        return UnwellError(f"{self._where} gave no answer within {seconds:g} s")

    async def aclose(self) -> None:
        """Close the connection, where it is our own."""
        await self._access.aclose()

    @property
    def _where(self) -> str:
        return f"{self._product} at {self._place.where}"

    def _result(self, answer: Answer) -> CheckResult:
        info, before = answer.info, self._before
        self._before = info or None
        self._product = product(info) if info else self._product
        details = figures(info, before)
        full = exhaustion(info)
        if full is not None:
            raise UnwellError(f"{self._where} {full}", details=details)
        return CheckResult(Status.HEALTHY, f"{self._where} answers", details, answer.milliseconds)

    def _known(self, error: BaseException) -> UnwellError | None:
        """What is wrong, where that can be told."""
        for cause in causes(error):
            said = str(cause) if _is_of_driver(cause) else ""
            if said.startswith(_POOL_FULL):
                return self._pool_full()
            if said.startswith(_NO_DATABASE):
                database, where = self._place.database, self._place.where
                return UnwellError(f"database {database} does not exist on {where}")
            predicate = _predicate(cause, said, self._place.user)
            if predicate is not None:
                return UnwellError(f"{self._where} {predicate}")
        predicate = failing(error)
        return None if predicate is None else UnwellError(f"{self._where} {predicate}")

    def _pool_full(self) -> UnwellError:
        size = self._access.full
        all_of_them = "all connections" if size is None else f"all {size} connections"
        return UnwellError(
            f"{all_of_them} of the pool to {self._place.where} are in use", status=Status.DEGRADED
        )


def _is_of_driver(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "redis"


def _predicate(error: BaseException, said: str, user: str) -> str | None:
    """What the server refuses or lacks, by the driver's exception and what it `said`."""
    if not said:
        return None
    for beginning, predicate in _SAID.items():
        if said.startswith(beginning):
            return predicate
    kind = type(error).__name__
    if kind == "AuthenticationError":
        return f"rejects the password of user {user}" if user else "rejects the password"
    if kind == "InvalidResponse":
        return "does not speak the language of Redis"
    return _PREDICATES.get(_CODES.get(kind) or said.partition(" ")[0])
