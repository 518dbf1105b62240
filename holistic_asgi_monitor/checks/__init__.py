"""The checks that come with the package; a check of one's own goes through `monitor.check`."""

from holistic_asgi_monitor.checks.system import System

__all__ = ("System",)
