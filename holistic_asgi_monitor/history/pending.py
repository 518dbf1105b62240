"""Batches that are still to be written, bounded in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from holistic_asgi_monitor.history.store import Batch

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
        self._watching: list[list[Batch]] = []
        self.bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    @property
    def rows(self) -> int:
        """How many rows are still to be written."""
        return sum(len(batch.rows) for batch in self._batches)

    @contextmanager
    def watched(self) -> Iterator[list[Batch]]:
        """The batches that are written from here on, until the block is left."""
        written: list[Batch] = []
        self._watching.append(written)
        try:
            yield written
        finally:
            # By identity: lists of others may be equal.
            self._watching = [each for each in self._watching if each is not written]

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
        if self._remove(batch):
            for written in self._watching:
                written.append(batch)

    def drop(self, batch: Batch) -> None:
        """The batch will never be written."""
        if self._remove(batch):
            users = sum(len(seen.hashes) for seen in batch.users)
            self.dropped += len(batch.rows) + users

    def clear(self) -> None:
        """Forget everything: somebody else will write it."""
        self._batches.clear()
        self.bytes = 0

    def _remove(self, batch: Batch) -> bool:
        # It may have been dropped while it was being written.
        if self._batches and self._batches[0] is batch:
            self._batches.popleft()
            self.bytes -= batch.bytes
            return True
        return False
