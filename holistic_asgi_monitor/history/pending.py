"""Batches that are still to be written, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from holistic_asgi_monitor.history.store import Batch
from holistic_asgi_monitor.history.values import Row

__all__ = ("Pending",)

MOST_BYTES = 32 << 20


class Pending:
    """The batches in their order. Where they are too many the oldest are dropped, and counted.

    A batch never changes once it is made: it may be written again after a failure that leaves
    open whether it was written.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._batches: deque[Batch] = deque()
        self.bytes = 0
        self.dropped = 0
        self.done = 0

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Batch) -> None:
        """Add a batch; at least the newest is always kept."""
        self._batches.append(batch)
        self.bytes += batch.bytes
        while self.bytes > self._most and len(self._batches) > 1:
            self.drop(self._batches[0])

    def first(self) -> Batch | None:
        """The batch that is to be written next."""
        return self._batches[0] if self._batches else None

    def written(self, batch: Batch) -> None:
        """The batch is in the store."""
        self._remove(batch)
        self.done += 1

    def drop(self, batch: Batch) -> None:
        """The batch will never be written."""
        if self._remove(batch):
            self.dropped += len(batch.rows)

    def rows(self) -> Iterator[Row]:
        """Every row that is still to be written."""
        for batch in list(self._batches):
            yield from batch.rows

    def _remove(self, batch: Batch) -> bool:
        # It may have been dropped while it was being written.
        if self._batches and self._batches[0] is batch:
            self._batches.popleft()
            self.bytes -= batch.bytes
            return True
        return False
