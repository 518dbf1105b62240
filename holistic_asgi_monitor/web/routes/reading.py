"""Reading a Starlette or FastAPI router into a tree of nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.family import Family
from holistic_asgi_monitor.web.routes.labels import braced, safe
from holistic_asgi_monitor.web.routes.tree import Branch, Leaf, Level, Node

__all__ = ("Reader",)

_BOTH = frozenset(("http", "websocket"))
_HTTP = frozenset(("http",))
_WEBSOCKET = frozenset(("websocket",))
_REST = "/{path}"
_ANY = re.compile("")


class Reader:
    """Reads routers, and keeps what is worth knowing of all of them together.

    `places` leads from the identity of a route, a context or an endpoint to its leaves; `branches`
    are the identities of the routes that only lead on. `watched` are pairs of a way to look at a
    router's routes and what was seen. `certain` tells that every route leaves its mark in the
    scope; `steady` that a request's type, method and path decide where it goes.
    """

    def __init__(self, inside: Callable[[object], Family | None], complaints: Complaints) -> None:
        self._inside = inside
        self._complaints = complaints
        self.places: dict[int, list[Leaf]] = {}
        self.branches: dict[int, object] = {}
        self.watched: list[tuple[Callable[[], Sequence[object]], Sequence[object]]] = []
        self.certain = True
        self.steady = True
        self._above: list[object] = []
        self._kept: list[object] = []

    def holds(self, app: object) -> bool:
        """Whether `app` is among the apps that were read."""
        return id(app) in self.branches

    def level(self, app: Any, prefix: str, trail: Sequence[Branch]) -> Level:
        """Read the routes of `app`, which stands below `prefix`."""
        self.branches[id(app)] = app
        self._above.append(app)
        try:
            routes = self._watch(lambda: tuple(app.routes))
            nodes = [node for route in routes for node in self._safely(route, prefix, trail)]
            return Level(nodes, self._frontends(app, prefix, trail))
        finally:
            self._above.pop()

    def _watch(self, look: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        seen = look()
        self.watched.append((look, seen))
        return seen

    def _safely(self, route: Any, prefix: str, trail: Sequence[Branch]) -> Sequence[Node]:
        try:
            return list(self._nodes(route, prefix, trail))
        except Exception:
            # One route that cannot be read must not cost the others their labels.
            self._complaints.once("A route could not be read and its requests have no label.")
            self.certain = False
            return ()

    def _nodes(
        self, route: Any, prefix: str, trail: Sequence[Branch], context: Any = None
    ) -> Iterator[Node]:
        if hasattr(route, "effective_route_contexts"):
            for included in self._watch(lambda: tuple(route.effective_route_contexts())):
                copy = getattr(included, "starlette_route", None)
                source = included if copy is None else copy
                yield from self._nodes(source, prefix, trail, included)
        elif hasattr(route, "host_regex"):
            self.steady = False
            yield self._branch(route, prefix, None, trail)
        elif _is_mount(route):
            below = prefix + route.path_format.removesuffix(_REST)
            yield self._branch(route, below, route.path_regex, trail)
        else:
            yield self._leaf(route, prefix, trail, context)

    def _branch(
        self, route: Any, prefix: str, regex: re.Pattern[str] | None, trail: Sequence[Branch]
    ) -> Node:
        family = self._inside(route.app)
        if family is None or any(family.app is app for app in self._above):
            return self._opaque(route, prefix, regex, trail)
        self.branches |= {id(route): route, id(route.app): route.app}
        if not family.joins:
            self.steady = self.steady and family.steady
            return Branch(prefix, route, regex, family)
        level = Level()
        branch = Branch(prefix, route, regex, level)
        inner = self.level(family.app, prefix, (*trail, branch))
        level.nodes, level.late = inner.nodes, inner.late
        return branch

    def _opaque(
        self, route: Any, prefix: str, regex: re.Pattern[str] | None, trail: Sequence[Branch]
    ) -> Leaf:
        leaf = Leaf(
            safe(braced(prefix + _REST)),
            route,
            regex or _ANY,
            _BOTH,
            trail=trail,
            asks=regex is None,
            decides=False,
        )
        self._index(leaf, route, route.app)
        return leaf

    def _leaf(self, route: Any, prefix: str, trail: Sequence[Branch], context: Any) -> Leaf:
        original = route.original_route if context is route else route
        asks = not _is_plain(original)
        if asks:
            self.certain = self.steady = False
        text = str(getattr(route, "path_format", None) or getattr(route, "path", ""))
        leaf = Leaf(
            safe(braced(prefix + text) or "/"),
            original,
            getattr(route, "path_regex", None) or _ANY,
            _HTTP if hasattr(route, "methods") else _WEBSOCKET,
            getattr(route, "methods", None),
            context,
            trail,
            asks,
        )
        self._index(leaf, original, context, getattr(route, "endpoint", None))
        return leaf

    def _index(self, leaf: Leaf, *things: object) -> None:
        # What is gone leaves its identity to others.
        self._kept.extend(things)
        for thing in things:
            if thing is not None:
                self.places.setdefault(id(thing), []).append(leaf)

    def _frontends(self, app: Any, prefix: str, trail: Sequence[Branch]) -> Sequence[Leaf]:
        """FastAPI's static frontends, the most specific first; they leave no mark in the scope."""
        look = getattr(getattr(app, "router", app), "_iter_low_priority_routes", None)
        if look is None:
            return ()
        paths = [
            getattr(group, "frontend_prefix", "") + route.path
            for group in self._watch(lambda: tuple(look()))
            for route in getattr(getattr(group, "original_route", group), "routes", ())
        ]
        self.certain = self.certain and not paths
        return [
            _frontend(prefix, path.rstrip("/"), trail)
            for path in sorted(paths, key=len, reverse=True)
        ]


def _frontend(prefix: str, path: str, trail: Sequence[Branch]) -> Leaf:
    regex = re.compile(re.escape(path) + "(?:/|$)")
    return Leaf(safe(prefix + path + _REST), None, regex, _HTTP, ("GET", "HEAD"), trail=trail)


def _is_mount(route: Any) -> bool:
    return (
        hasattr(route, "app")
        and not hasattr(route, "endpoint")
        and str(getattr(route, "path_format", "")).endswith(_REST)
    )


def _is_plain(route: Any) -> bool:
    """Whether a route matches as the frameworks' own do: by its regular expression and methods."""
    home = type(route).matches.__module__.partition(".")[0]
    return home in {"starlette", "fastapi"} and hasattr(route, "path_regex")
