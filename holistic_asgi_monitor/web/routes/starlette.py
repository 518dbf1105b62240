"""Starlette and FastAPI: the scope names the route that took the request, but not where it stands.

The routes are read once into a tree of nodes and an index from every route object (FastAPI's
contexts of included routers, and endpoints, too) to the leaves it has in the tree. A route with one
leaf has one template, however it was reached. The others, and requests for which the scope names
nothing (Starlette before 1.7, an answer of a middleware, a copied scope), are matched by path, in
the order in which the routers would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

from starlette.types import Scope

from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.family import NOWHERE, Arrival, Family, Located
from holistic_asgi_monitor.web.routes.reading import Reader
from holistic_asgi_monitor.web.routes.tree import Leaf, Level

__all__ = ("Tree",)

_STRANGERS = 256


class Tree(Family):
    """The routes below one app, read when they are first needed and whenever they have changed."""

    joins = True

    def __init__(
        self, app: Any, inside: Callable[[object], Family | None], complaints: Complaints
    ) -> None:
        super().__init__(app, inside, complaints)
        self._read: tuple[Reader, Level] | None = None
        self._strangers: dict[int, object] = {}

    @staticmethod
    def made(app: Any) -> bool:
        """Whether `app` finds URLs and has a list of routes that can be matched."""
        routes = getattr(app, "routes", None)
        if not isinstance(routes, Sequence) or not hasattr(app, "url_path_for"):
            return False
        return not routes or any(hasattr(route, "matches") for route in routes)

    @property
    def root_path(self) -> str:
        """FastAPI's own root path, which it sets over the server's."""
        own = getattr(self.app, "root_path", "")
        return own if isinstance(own, str) else ""

    @property
    def steady(self) -> bool:
        """Unless hosts or routes with a mind of their own have a say."""
        return self._reader.steady

    @property
    def _reader(self) -> Reader:
        return self._known()[0]

    def knows(self, router: object) -> bool:
        """Whether `router` is the one at the root of this tree."""
        return router is self.app or router is getattr(self.app, "router", None)

    def holds(self, app: object) -> bool:
        """Whether `app` is mounted somewhere in this tree."""
        return self._reader.holds(app)

    def stands(self, route: object) -> bool:
        """Whether `route` is among the routes of this tree."""
        return id(route) in self._reader.places

    def seen(self, scope: Scope, status: int) -> Located | None:
        """The template of what the scope names, where that stands once in the tree."""
        leaves = self._taken(scope)
        if len(leaves) == 1:
            leaf = leaves[0]
            return Located(leaf.label, leaf.route if self._alone(leaf, scope) else None)
        if not leaves and self._ran_in_vain(scope, status):
            return NOWHERE
        return None

    def template(self, arrival: Arrival) -> str | None:
        """The label of what the scope names, by its path; else of what the path leads to."""
        leaves = self._taken(arrival.scope)
        if leaves:
            chosen = _chosen(leaves, arrival)
            if chosen is not None:
                return chosen
        level = self._known()[1]
        found = level.find(arrival, arrival.path)
        left = arrival.scope.get("path")
        if found is None and isinstance(left, str) and left != arrival.path:
            # A middleware may have rewritten the path on its way to the router.
            found = level.find(arrival, left)
        return None if found is None else found.endpoint

    def refresh(self) -> None:
        """Read the routes again if some were added or taken away."""
        self._strangers.clear()
        self._reread()

    def _known(self) -> tuple[Reader, Level]:
        if self._read is None:
            reader = Reader(self._inside, self._complaints)
            self._read = reader, reader.level(self.app, "", ())
        return self._read

    def _reread(self) -> bool:
        """Read the routes again if they have changed; says whether they had."""
        if all(_same(look(), then) for look, then in self._reader.watched):
            return False
        self._read = None
        self.version += 1
        self._known()
        return True

    def _taken(self, scope: Scope) -> Sequence[Leaf]:
        """The leaves of what the scope names as having taken the request; often one."""
        reader = self._reader
        route = scope.get("route")
        named = scope.get("endpoint") if route is None or id(route) in reader.branches else route
        if named is None:
            return ()
        leaves = reader.places.get(id(named))
        if leaves is None:
            return self._taken(scope) if self._new(named) else ()
        return leaves if len(leaves) == 1 else _in_context(leaves, scope)

    def _new(self, stranger: object) -> bool:
        """Whether an object that the index lacks was added since; asked once for each."""
        if id(stranger) in self._strangers or len(self._strangers) >= _STRANGERS:
            return False
        self._strangers[id(stranger)] = stranger
        return self._reread()

    def _alone(self, leaf: Leaf, scope: Scope) -> bool:
        """Whether the route in the scope leads to this leaf, whatever else the scope holds."""
        if not leaf.decides or leaf.route is not scope.get("route"):
            return False
        return len(self._reader.places[id(leaf.route)]) == 1

    def _ran_in_vain(self, scope: Scope, status: int) -> bool:
        """Whether the scope shows that the router looked at all its routes and found none."""
        return (
            "router" in scope
            and "endpoint" not in scope
            and not 300 <= status < 400
            and self._reader.certain
            and self.knows(scope["router"])
        )


def _in_context(leaves: Sequence[Leaf], scope: Scope) -> Sequence[Leaf]:
    """Of several leaves, those that FastAPI's context names; it may be stale and name none."""
    fastapi = scope.get("fastapi")
    context = fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None
    if context is None:
        return leaves
    return [leaf for leaf in leaves if leaf.context is context] or leaves


def _chosen(leaves: Sequence[Leaf], arrival: Arrival) -> str | None:
    """Of several leaves of one thing, the label of the one whose path this is."""
    fits = [(leaf.reached(arrival), leaf) for leaf in leaves]
    best = max(fit for fit, _ in fits)
    return next(leaf.label for fit, leaf in fits if fit == best) if best else None


def _same(now: Sequence[object], then: Sequence[object]) -> bool:
    return len(now) == len(then) and all(map(is_, now, then))
