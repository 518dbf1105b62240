"""The settings: what can be set, which values are allowed, and where they are found."""

from holistic_asgi_monitor.settings.fields import AccessMode, Settings
from holistic_asgi_monitor.settings.kinds import RESERVED_LABELS
from holistic_asgi_monitor.settings.variables import Variable

__all__ = ("RESERVED_LABELS", "AccessMode", "Settings", "Variable")
