"""What the process has counted, kept: on SQLite, on PostgreSQL, in memory, or not at all."""
