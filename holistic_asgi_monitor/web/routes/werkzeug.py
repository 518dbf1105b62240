"""Quart, and Flask behind a bridge: nothing in the scope, but Werkzeug's map of rules."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

from holistic_asgi_monitor.web.routes.family import Arrival, Family

__all__ = ("Werkzeug",)

_VARIABLE = re.compile(r"<(?:[^<>]*:)?([A-Za-z_]\w*)>")


class Werkzeug(Family):
    """One Quart or Flask app."""

    @staticmethod
    def made(app: Any) -> bool:
        """Whether `app` has a map of rules and views for them."""
        return hasattr(app, "url_map") and hasattr(app, "view_functions")

    @property
    def steady(self) -> bool:
        """Unless the rules are bound to hosts."""
        return not self._by_host

    @property
    def _by_host(self) -> bool:
        return bool(self.app.url_map.host_matching)

    def template(self, arrival: Arrival) -> str | None:
        """The rule that matches, without its converters."""
        host = _host(arrival) if self._by_host else "localhost"
        bound = self.app.url_map.bind(host)
        websocket = arrival.kind == "websocket"
        rule = _rule(bound, arrival.path, arrival.method or "GET", websocket=websocket)
        return None if rule is None else _VARIABLE.sub(r"{\1}", rule)


def _rule(bound: Any, path: str, method: str, *, websocket: bool, again: bool = True) -> str | None:
    """The text of the rule for a path; asks once more where only the method or a slash differs."""
    try:
        rule: str = bound.match(path, method=method, return_rule=True, websocket=websocket)[0].rule
        return rule
    except Exception as answer:
        # Werkzeug says by an HTTP exception what it did not find; anything else is a real failure.
        methods, url = getattr(answer, "valid_methods", None), getattr(answer, "new_url", None)
        if not hasattr(answer, "code"):
            raise
    if not again or not (methods or url):
        return None
    if url:
        path = unquote(urlsplit(url).path)
    method = next(iter(methods)) if methods else method
    return _rule(bound, path, method, websocket=websocket, again=False)


def _host(arrival: Arrival) -> str:
    headers = arrival.scope.get("headers", ())
    return next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
