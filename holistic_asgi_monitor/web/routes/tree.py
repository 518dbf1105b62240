"""Routes as nodes: leaves have a label, branches lead on, a level is what one router holds."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from holistic_asgi_monitor.web.routes.family import NOWHERE, Arrival, Family, Located, toggled
from holistic_asgi_monitor.web.routes.labels import safe

__all__ = ("FULL", "NONE", "PARTIAL", "Branch", "Leaf", "Level", "Node")

NONE, PARTIAL, FULL = 0, 1, 2
"""How well a route fits: not, but for the method, wholly; as Starlette's Match."""


class Node(Protocol):
    """One route of a router."""

    def fit(self, arrival: Arrival, path: str) -> int:
        """How well the route fits a request at `path`, relative to the router."""
        ...

    def found(self, arrival: Arrival, path: str) -> Located:
        """What a request that fits is labelled with."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A route that answers itself, or a mount of something that shows no routes.

    `asks` marks a route that decides for itself what it matches. `decides` tells whether the route
    object, where it stands once, is all that the label depends on. `trail` holds the branches from
    the root to here.
    """

    label: str
    route: Any
    regex: re.Pattern[str]
    kinds: Container[str]
    methods: Container[str] | None = None
    context: Any = None
    trail: Sequence[Branch] = ()
    asks: bool = False
    decides: bool = True

    def fit(self, arrival: Arrival, path: str) -> int:
        """How well the route fits a request at `path`, relative to its router."""
        if self.asks:
            return _asked(self.route, self.context, arrival, path)
        if arrival.kind not in self.kinds or self.regex.match(path) is None:
            return NONE
        return FULL if self.methods is None or arrival.method in self.methods else PARTIAL

    def found(self, arrival: Arrival, path: str) -> Located:
        """The label."""
        return Located(self.label, None)

    def reached(self, arrival: Arrival) -> int:
        """How well the whole way from the root to here fits a request."""
        path: str | None = arrival.path
        for branch in self.trail:
            path = branch.rest(arrival, path or "/")
            if path is None:
                return NONE
        return self.fit(arrival, path or "/")


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A mount or a host with routes of its own: a level of this tree, or an app of another family.

    `regex` is None for a host, which leaves the path as it is.
    """

    prefix: str
    route: Any
    regex: re.Pattern[str] | None
    inside: Level | Family

    def rest(self, arrival: Arrival, path: str) -> str | None:
        """The path below the branch, None for a request that does not go this way."""
        if self.regex is None:
            return path if _asked(self.route, None, arrival, path) else None
        match = self.regex.match(path)
        return None if match is None else "/" + match["path"]

    def fit(self, arrival: Arrival, path: str) -> int:
        """Wholly or not: a router never looks behind a branch."""
        return NONE if self.rest(arrival, path) is None else FULL

    def found(self, arrival: Arrival, path: str) -> Located:
        """What lies behind the branch."""
        rest = self.rest(arrival, path) or "/"
        if isinstance(self.inside, Level):
            return self.inside.find(arrival, rest) or NOWHERE
        if arrival.kind not in self.inside.kinds:
            return NOWHERE
        template = self.inside.template(replace(arrival, path=rest))
        return NOWHERE if template is None else Located(safe(self.prefix + template), None)


@dataclass(slots=True, eq=False)
class Level:
    """What one router holds; `late` routes are looked at when even a redirect leads nowhere."""

    nodes: Sequence[Node] = ()
    late: Sequence[Node] = ()

    def find(self, arrival: Arrival, path: str) -> Located | None:
        """Where a request at `path` goes, None where no route fits.

        A request redirected for a slash goes where the redirect leads.
        """
        found = _first(self.nodes, arrival, path)
        if found is None and arrival.redirected:
            found = _first(self.nodes, arrival, toggled(path))
        if found is None:
            found = _first(self.late, arrival, path)
        return found


def _first(nodes: Sequence[Node], arrival: Arrival, path: str) -> Located | None:
    """The first that fits wholly, else the first that fits but for the method."""
    partial: Node | None = None
    for node in nodes:
        fit = node.fit(arrival, path)
        if fit == FULL:
            return node.found(arrival, path)
        if fit and partial is None:
            partial = node
    return None if partial is None else partial.found(arrival, path)


def _asked(route: Any, context: Any, arrival: Arrival, path: str) -> int:
    """What a route itself says of a request at `path`."""
    scope = {**arrival.scope, "path": path, "root_path": "", "path_params": {}}
    scope["fastapi"] = {} if context is None else {"effective_route_context": context}
    match, _ = route.matches(scope)
    return int(match.value)
