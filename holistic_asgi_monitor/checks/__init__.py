"""The checks that come with the package; a check of one's own goes through `monitor.check`."""

from holistic_asgi_monitor.checks.http import HTTP
from holistic_asgi_monitor.checks.openai import OpenAI
from holistic_asgi_monitor.checks.postgres import Postgres
from holistic_asgi_monitor.checks.redis import Redis
from holistic_asgi_monitor.checks.system import System

__all__ = ("HTTP", "OpenAI", "Postgres", "Redis", "System")
