"""Falcon: leaves nothing in the scope, but its router, sinks and static routes can be asked."""

from __future__ import annotations

from typing import Any

from holistic_asgi_monitor.web.routes.family import Arrival, Family
from holistic_asgi_monitor.web.routes.labels import braced
from holistic_asgi_monitor.web.routes.regexes import template_of

__all__ = ("Falcon",)


class Falcon(Family):
    """One Falcon app."""

    @staticmethod
    def made(app: Any) -> bool:
        """Whether `app` has a router and takes sinks."""
        return hasattr(app, "add_sink") and hasattr(getattr(app, "_router", None), "find")

    def template(self, arrival: Arrival) -> str | None:
        """The resource's URI template, else the prefix of a sink or a static route."""
        router = getattr(self.app, "_router", None)
        found = None if router is None else router.find(arrival.path)
        if found is not None and found[0] is not None:
            return braced(found[3])
        for matcher, _, is_sink in getattr(self.app, "_sink_and_static_routes", ()):
            if matcher.match(arrival.path):
                return _open_ended(matcher, is_sink=is_sink)
        return None


def _open_ended(matcher: Any, *, is_sink: bool) -> str:
    """The template of a sink (a regular expression) or of a static route (a prefix)."""
    start = template_of(matcher.pattern) if is_sink else getattr(matcher, "_prefix", "")
    return start.rstrip("/") + "/{path}"
