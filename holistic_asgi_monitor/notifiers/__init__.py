"""The channels for alerts; one of your own needs a `name` and an async `send(alerts)`."""

from holistic_asgi_monitor.notifiers.alertmanager import Alertmanager
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.log import Log
from holistic_asgi_monitor.notifiers.memory import Memory
from holistic_asgi_monitor.notifiers.slack import Slack
from holistic_asgi_monitor.notifiers.webhook import Webhook

__all__ = ("Alertmanager", "DeliveryError", "Log", "Memory", "Slack", "Webhook")
