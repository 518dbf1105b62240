"""Scope to endpoint label: all that is known of frameworks, and none of them imported."""

from holistic_asgi_monitor.web.routes.family import Located
from holistic_asgi_monitor.web.routes.finding import Routes

__all__ = ("Located", "Routes")
