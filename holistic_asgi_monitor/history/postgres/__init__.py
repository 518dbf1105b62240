"""History in a PostgreSQL database, for many processes on many machines."""

from holistic_asgi_monitor.history.postgres.store import PostgreSQL

__all__ = ("PostgreSQL",)
