"""Litestar: leaves the full template in the scope, except for mounts and what it refused itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import is_
from typing import Any

from starlette.types import Scope

from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.family import NOWHERE, Arrival, Family, Located
from holistic_asgi_monitor.web.routes.labels import safe

__all__ = ("Litestar",)


@dataclass(frozen=True, slots=True)
class _Mount:
    prefix: str
    family: Family | None

    def rest(self, path: str) -> str | None:
        """The path below the mount, None for a path outside."""
        if path == self.prefix:
            return "/"
        prefix = self.prefix.rstrip("/")
        return path[len(prefix) :] if path.startswith(prefix + "/") else None

    def template(self, arrival: Arrival, rest: str) -> str | None:
        prefix = self.prefix.rstrip("/")
        if self.family is None:
            return prefix + "/{path}"
        inner = self.family.template(replace(arrival, path=rest))
        return None if inner is None else prefix + inner


@dataclass(frozen=True, slots=True)
class _Table:
    """The app's routes in the order in which Litestar looks: plain ones, mounts, patterns."""

    routes: Sequence[object]
    plain: frozenset[str]
    mounts: Sequence[_Mount]
    patterns: Sequence[tuple[re.Pattern[str], str]]
    labels: dict[str, Located] = field(default_factory=dict)


class Litestar(Family):
    """One Litestar app."""

    def __init__(
        self, app: Any, inside: Callable[[object], Family | None], complaints: Complaints
    ) -> None:
        super().__init__(app, inside, complaints)
        self._read: _Table | None = None

    @staticmethod
    def made(app: Any) -> bool:
        """Whether `app` has Litestar's router and its way to reverse routes."""
        return hasattr(app, "asgi_router") and hasattr(app, "route_reverse")

    def seen(self, scope: Scope, status: int) -> Located | None:
        """The template in the scope; mounts leave none, or that of a mount at the root."""
        template = scope.get("path_template")
        handler = scope.get("route_handler")
        if scope.get("litestar_app") is not self.app:
            return None
        if handler is None:
            return NOWHERE if status == 404 else None
        if not template or getattr(handler, "is_mount", False):
            return None
        labels = self._table.labels
        located = labels.get(template)
        if located is None:
            located = labels[template] = Located(safe(template), None)
        return located

    def template(self, arrival: Arrival) -> str | None:
        """The template for a path; the method does not matter."""
        table = self._table
        path = "/" + "/".join(part for part in arrival.path.split("/") if part)
        if path in table.plain:
            return path
        for mount in table.mounts:
            rest = mount.rest(path)
            if rest is not None:
                return mount.template(arrival, rest)
        return next((text for regex, text in table.patterns if regex.fullmatch(path)), None)

    def refresh(self) -> None:
        """Read the routes again if some were registered."""
        table, routes = self._table, self.app.routes
        if len(routes) != len(table.routes) or not all(map(is_, routes, table.routes)):
            self._read = _read(routes, self._inside)
            self.version += 1

    @property
    def _table(self) -> _Table:
        if self._read is None:
            self._read = _read(self.app.routes, self._inside)
        return self._read


def _read(routes: Sequence[Any], inside: Callable[[object], Family | None]) -> _Table:
    mounts = {route.path: route.route_handler.fn for route in routes if _is_mount(route)}
    others = [route for route in routes if not _is_mount(route)]
    return _Table(
        tuple(routes),
        frozenset(route.path for route in others if not route.path_parameters),
        [_Mount(path, inside(mounts[path])) for path in sorted(mounts, key=len, reverse=True)],
        [
            (_regex(route.path_components), route.path_format)
            for route in sorted(others, key=_order)
            if route.path_parameters
        ],
    )


def _is_mount(route: Any) -> bool:
    return bool(getattr(getattr(route, "route_handler", None), "is_mount", False))


def _order(route: Any) -> list[bool]:
    """Part by part, text goes before parameters."""
    return [not isinstance(part, str) for part in route.path_components]


def _regex(parts: Sequence[Any]) -> re.Pattern[str]:
    def one(part: Any) -> str:
        if isinstance(part, str):
            return re.escape(part)
        return ".+" if part.full.endswith(":path") else "[^/]+"

    return re.compile("".join("/" + one(part) for part in parts))
