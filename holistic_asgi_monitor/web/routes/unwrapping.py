"""The apps inside an app: what middlewares, bridges and bound methods wrap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

__all__ = ("layers",)

_INWARDS = (
    "app",
    "asgi_app",
    "other_asgi_app",
    "_app",
    "application",
    "wsgi_application",
    "wsgi_app",
    "inner",
    "wrapped",
    "func",
    "__wrapped__",
    "__self__",
)
_BY_PROTOCOL = "application_mapping"
_MOST = 64
_LENDS = "__lends_attributes__"
"""Marks a class whose instances show the attributes of what they wrap as their own."""


def layers(app: object) -> Iterator[object]:
    """`app` and what it wraps, the outermost first; every object once, and not without end."""
    waiting = deque([app])
    met: list[object] = []
    while waiting and len(met) < _MOST:
        layer = waiting.popleft()
        if any(layer is other for other in met):
            continue
        met.append(layer)
        if not getattr(type(layer), _LENDS, False):
            yield layer
        waiting.extend(_wrapped_by(layer))


def _wrapped_by(layer: object) -> Iterator[object]:
    for name in _INWARDS:
        inner = _attribute(layer, name)
        if callable(inner):
            yield inner
    protocols = _attribute(layer, _BY_PROTOCOL)
    if isinstance(protocols, Mapping) and callable(protocols.get("http")):
        yield protocols["http"]


def _attribute(layer: object, name: str) -> object:
    try:
        return getattr(layer, name, None)
    except Exception:
        # A proxy that is not set up yet may raise anything; it then shows nothing.
        return None
