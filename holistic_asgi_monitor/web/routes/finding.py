"""From a scope that an app has left to the endpoint's label, whatever the framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Scope

from holistic_asgi_monitor.web.paths import normalise
from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.family import NOWHERE, Arrival, Family, Located, below
from holistic_asgi_monitor.web.routes.labels import safe
from holistic_asgi_monitor.web.routes.recognition import family_of
from holistic_asgi_monitor.web.routes.starlette import Tree

__all__ = ("Routes",)

_ANSWERS = 1024
_LONGEST_PATH = 256
_ROUTERS = 32

_UNREAD = "The routes of the app could not be read; its requests have no label."
_UNFOUND = "The endpoint of a request could not be found; it has no label."
_REFUSED = "`route` failed or gave no text; the endpoint is found as if it were not set."


class Routes:
    """Finds the endpoint labels of the requests to one app.

    `route` is the user's own way to name an endpoint: it is called with the scope as the app left
    it and wins, unless it gives None or raises. Nothing here ever raises.
    """

    def __init__(self, app: ASGIApp, *, route: Callable[[Scope], str | None] | None = None) -> None:
        self._app = app
        self._route = route
        self._complaints = Complaints()
        self._family = self._recognised(app)
        self._others: dict[int, tuple[object, Family | None]] = {}
        self._answers: dict[tuple[object, ...], str | None] = {}
        self._versions = self._versions_now()

    def locate(self, scope: Scope, path: str, root_path: str, status: int) -> Located:
        """Where a request went.

        `scope` is the dict as the app left it, `path` and `root_path` are what it held before,
        `status` is the response's (101 for an accepted WebSocket).
        """
        try:
            if self._route is None:
                return self._found(scope, path, root_path, status)
            named = self._named(self._route, scope)
            if named is None:
                named = self._found(scope, path, root_path, status).endpoint
            return Located(named, None)
        except Exception:
            # Whatever the app's objects do, the request and the others' labels go on.
            self._complaints.once(_UNFOUND)
            return NOWHERE

    @property
    def root_path(self) -> str:
        """The root path that the app sets over the server's, or an empty string."""
        return "" if self._family is None else self._family.root_path.rstrip("/")

    def stands_at(self, path: str) -> bool:
        """Whether the app shows a route for `path`, and not only one that takes any path."""
        family = self._family
        if family is None or not family.foretells:
            return False
        scope: Scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        # As if redirected, so that a mount or a route with a slash at the end is found as well.
        arrival = Arrival(scope, "http", "GET", path, redirected=True)
        try:
            return family.template(arrival) in {path, f"{path}/", f"{path}/{{path}}"}
        except Exception:
            # The app's objects, which only a warning depends on.
            return False

    def refresh(self) -> bool:
        """Read the routes again if they have changed.

        Says whether anything has changed since the last time; what was remembered of earlier
        answers must then be forgotten.
        """
        if self._family is None:
            self._family = self._recognised(self._app)
        for family in self._families():
            self._refreshed(family)
        versions = self._versions_now()
        if versions == self._versions:
            return False
        self._versions = versions
        self._answers.clear()
        return True

    def _versions_now(self) -> tuple[int, ...]:
        return tuple(family.version for family in self._families())

    def _refreshed(self, family: Family) -> None:
        try:
            family.refresh()
        except Exception:
            # The last reading stays.
            self._complaints.once(_UNREAD)

    def _recognised(self, app: object) -> Family | None:
        try:
            return family_of(app, self._complaints)
        except Exception:
            # An app that cannot even be looked at shows no routes.
            self._complaints.once(_UNREAD)
            return None

    def _named(self, route: Callable[[Scope], str | None], scope: Scope) -> str | None:
        try:
            named = route(scope)
            return safe(named) if named else None
        except Exception:
            # The user's code.
            self._complaints.once(_REFUSED)
            return None

    def _found(self, scope: Scope, path: str, root_path: str, status: int) -> Located:
        family = self._family_for(scope)
        if family is None or scope["type"] not in family.kinds:
            return Located(normalise(below(path, root_path)), None) if status < 400 else NOWHERE
        seen = family.seen(scope, status)
        if seen is None:
            arrival = Arrival.of(scope, below(path, family.root_path or root_path), status)
            return Located(self._by_path(family, arrival), None)
        if seen.route is not None and self._stands_elsewhere(seen.route, family):
            return Located(seen.endpoint, None)
        return seen

    def _by_path(self, family: Family, arrival: Arrival) -> str | None:
        if not family.steady or len(arrival.path) > _LONGEST_PATH:
            return _label(family.template(arrival))
        key = (
            id(family),
            family.version,
            arrival.kind,
            arrival.method,
            arrival.path,
            arrival.redirected,
            arrival.scope.get("path"),
        )
        if key in self._answers:
            return self._answers[key]
        if len(self._answers) >= _ANSWERS:
            self._answers.clear()
        found = self._answers[key] = _label(family.template(arrival))
        return found

    def _family_for(self, scope: Scope) -> Family | None:
        """The app's own family, unless a router that this does not hold took the request."""
        router = scope.get("router")
        if router is None or (self._family is not None and self._family.knows(router)):
            return self._family
        other = self._others.get(id(router))
        if other is not None:
            return other[1]
        if len(self._others) >= _ROUTERS:
            return self._family
        family = self._hidden(router)
        self._others[id(router)] = router, family
        return family

    def _hidden(self, router: object) -> Family | None:
        """The family of a router that the app does not show.

        Where that router is the one around us, the app inside is still the one to ask.
        """
        family = self._recognised(router)
        own = self._family
        if not isinstance(family, Tree):
            return own
        return own if isinstance(own, Tree) and family.holds(own.app) else family

    def _stands_elsewhere(self, route: object, family: Family) -> bool:
        return any(
            other is not family and isinstance(other, Tree) and other.stands(route)
            for other in self._families()
        )

    def _families(self) -> Iterator[Family]:
        if self._family is not None:
            yield self._family
        for _, family in self._others.values():
            if family is not None and family is not self._family:
                yield family


def _label(template: str | None) -> str | None:
    return None if template is None else safe(template)
