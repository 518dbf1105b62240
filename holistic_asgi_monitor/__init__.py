"""Complete monitoring for any ASGI app in one line: `app = Monitor(app)`."""

from holistic_asgi_monitor import checks, notifiers
from holistic_asgi_monitor._version import __version__
from holistic_asgi_monitor.model import (
    Alert,
    Check,
    CheckResult,
    ConfigurationError,
    MissingExtraError,
    MonitorError,
    Notifier,
    Report,
    Severity,
    Status,
)
from holistic_asgi_monitor.monitor import Monitor
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.usage.tracking import (
    set_user,
    track_endpoint_metrics,
    track_error,
    track_feature,
    track_openai_call,
)

__all__ = [
    "Alert",
    "Check",
    "CheckResult",
    "ConfigurationError",
    "MissingExtraError",
    "Monitor",
    "MonitorError",
    "Notifier",
    "Report",
    "Settings",
    "Severity",
    "Status",
    "__version__",
    "checks",
    "notifiers",
    "set_user",
    "track_endpoint_metrics",
    "track_error",
    "track_feature",
    "track_openai_call",
]
