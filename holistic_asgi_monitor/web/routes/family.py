"""What the adapter of every framework offers, and the values that go in and come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import Scope

from holistic_asgi_monitor.web.routes.complaints import Complaints

__all__ = ("NOWHERE", "Arrival", "Family", "Located", "below", "toggled")

_REDIRECTS = frozenset(
    (
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.SEE_OTHER,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
    )
)


@dataclass(frozen=True, slots=True)
class Located:
    """Where a request went: its template, and the object that alone decides it.

    `endpoint` is None where no route took the request. `route` is the scope's own route object
    where every future request with that very object has the same template, else None.
    """

    endpoint: str | None
    route: object | None


NOWHERE = Located(None, None)
"""No route took the request."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that has to be found by its path, which is relative to the app that is asked."""

    scope: Scope
    kind: str
    method: str
    path: str
    redirected: bool

    @staticmethod
    def of(scope: Scope, path: str, status: int) -> Arrival:
        """The arrival of a request at `path`, answered with `status`."""
        return Arrival(
            scope, scope["type"], scope.get("method", ""), path, redirected=status in _REDIRECTS
        )


class Family(ABC):
    """One app of a known framework.

    `inside` recognises the apps that this one mounts. `version` grows whenever the app's routes
    were read again.
    """

    kinds: frozenset[str] = frozenset(("http", "websocket"))
    """The scope types that the framework has routes for."""

    foretells: bool = True
    """Whether the routes can be looked at before the first request."""

    joins: bool = False
    """Whether the routes of a mounted app become part of the tree of the app around it."""

    def __init__(
        self, app: Any, inside: Callable[[object], Family | None], complaints: Complaints
    ) -> None:
        self.app = app
        self.version = 0
        self._inside = inside
        self._complaints = complaints

    @staticmethod
    @abstractmethod
    def made(app: Any) -> bool:
        """Whether `app` is an app of this framework."""

    @property
    def root_path(self) -> str:
        """The root path that the app sets over the server's, or an empty string."""
        return ""

    @property
    def steady(self) -> bool:
        """Whether type, method and path are all that `template` depends on."""
        return True

    def knows(self, router: object) -> bool:
        """Whether this app is the one that put `router` into the scope."""
        return True

    def seen(self, scope: Scope, status: int) -> Located | None:
        """What the app left in the scope, path unseen; None where it did not leave enough."""
        return None

    @abstractmethod
    def template(self, arrival: Arrival) -> str | None:
        """The template of the route that takes a request; None where none does."""

    def refresh(self) -> None:  # noqa: B027 - most frameworks are asked anew each time
        """Read the routes again if they have changed."""


def below(path: str, root_path: str) -> str:
    """`path` without the root path it may start with."""
    root_path = root_path.rstrip("/") if root_path else ""
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    if not rest:
        return "/"
    return rest if rest[0] == "/" else path


def toggled(path: str) -> str:
    """The path that a redirect for a slash leads to."""
    return path.rstrip("/") if path.endswith("/") else path + "/"
