"""Django: its handler is asked to note what it resolves; what it never resolved is looked up."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from starlette.types import Scope

from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.family import Arrival, Family, Located, toggled
from holistic_asgi_monitor.web.routes.labels import safe
from holistic_asgi_monitor.web.routes.regexes import template_of

__all__ = ("Django",)

_NOTE = "holistic_asgi_monitor.django"
_VARIABLE = re.compile(r"<(?:[^<>:]+:)?([A-Za-z_]\w*)>")


class Django(Family):
    """One Django handler."""

    kinds = frozenset(("http",))
    # Whoever asks first imports the project's URLconf: that is not for us to do.
    foretells = False

    def __init__(
        self, app: Any, inside: Callable[[object], Family | None], complaints: Complaints
    ) -> None:
        super().__init__(app, inside, complaints)
        self._labels: dict[str, Located] = {}
        _note_resolutions(app)

    @staticmethod
    def made(app: Any) -> bool:
        """Whether `app` is a handler that resolves, unlike the one for static files."""
        handler = getattr(sys.modules.get("django.core.handlers.asgi"), "ASGIHandler", None)
        if handler is None or not isinstance(app, handler):
            return False
        return not isinstance(getattr(app, "application", None), handler)

    @property
    def steady(self) -> bool:
        """Not: a request's URLconf and language may change what a path means."""
        return False

    def seen(self, scope: Scope, status: int) -> Located | None:
        """What the handler noted."""
        route = scope.get(_NOTE)
        if route is None:
            return None
        located = self._labels.get(route)
        if located is None:
            located = self._labels[route] = Located(safe(_template(route)), None)
        return located

    def template(self, arrival: Arrival) -> str | None:
        """What the handler noted, else what the root URLconf says."""
        noted = arrival.scope.get(_NOTE)
        route = _resolved(arrival.path) if noted is None else noted
        if route is None and arrival.redirected:
            route = _resolved(toggled(arrival.path))
        return None if route is None else _template(route)


def _note_resolutions(handler: Any) -> None:
    """Have `handler` leave the route it resolves in the scope, as other frameworks do."""
    resolve = handler.resolve_request
    if getattr(resolve, _NOTE, False):
        return

    @wraps(resolve)
    def resolve_request(request: Any) -> Any:
        match = resolve(request)
        with suppress(AttributeError, TypeError):
            request.scope[_NOTE] = match.route
        return match

    setattr(resolve_request, _NOTE, True)
    handler.resolve_request = resolve_request


def _resolved(path: str) -> str | None:
    urls: Any = sys.modules["django.urls"]
    try:
        route: str = urls.resolve(path).route
    except urls.Resolver404:
        return None
    return route


def _template(route: str) -> str:
    if any(sign in route for sign in "^$\\("):
        route = template_of(route)
    return "/" + _VARIABLE.sub(r"{\1}", route).lstrip("/")
