"""History in an SQLite file, or in memory: one thread that writes, one that reads."""

from holistic_asgi_monitor.history.sqlite.store import SQLite

__all__ = ("SQLite",)
