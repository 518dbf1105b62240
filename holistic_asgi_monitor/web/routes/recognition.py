"""Which family an app belongs to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from holistic_asgi_monitor.web.routes.complaints import Complaints
from holistic_asgi_monitor.web.routes.django import Django
from holistic_asgi_monitor.web.routes.falcon import Falcon
from holistic_asgi_monitor.web.routes.family import Family
from holistic_asgi_monitor.web.routes.litestar import Litestar
from holistic_asgi_monitor.web.routes.starlette import Tree
from holistic_asgi_monitor.web.routes.unwrapping import layers
from holistic_asgi_monitor.web.routes.werkzeug import Werkzeug

__all__ = ("family_of",)

_FAMILIES = (Litestar, Tree, Werkzeug, Falcon, Django)


def family_of(app: object, complaints: Complaints) -> Family | None:
    """The adapter for the outermost app that shows its routes; None where there is none."""
    inside = partial(family_of, complaints=complaints)
    for layer in layers(app):
        found = _recognised(layer, inside, complaints)
        if found is not None:
            return found
    return None


def _recognised(
    layer: object, inside: Callable[[object], Family | None], complaints: Complaints
) -> Family | None:
    try:
        kind = next((kind for kind in _FAMILIES if kind.made(layer)), None)
        return None if kind is None else kind(layer, inside, complaints)
    except Exception:
        # A layer whose attributes raise shows nothing; what it wraps may.
        complaints.once("A part of the app could not be looked at for its routes.")
        return None
