"""Stores on a real PostgreSQL, closed at the end of the test."""

from __future__ import annotations

from holistic_asgi_monitor.history.postgres import PostgreSQL
from tests.history.samples import NOON


class Stores:
    def __init__(self, server):
        self.server = server
        self.database = server.new_database()
        self.now = float(NOON)
        self._made = []

    def make(self, **options):
        url = self.server.url(database=self.database, **options)
        self._made.append(PostgreSQL(url, clock=lambda: self.now))
        return self._made[-1]

    def query(self, statement):
        return self.server.query(statement, database=self.database)

    async def close(self):
        for store in self._made:
            await store.close()
