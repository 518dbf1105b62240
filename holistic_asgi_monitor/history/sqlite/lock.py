"""A lock between processes that write the same file.

SQLite before 3.51.3 may damage a file in WAL mode when one process resets the log while another
commits. Ours write and reset only while they hold this lock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holistic_asgi_monitor.history.store import StoreError

if sys.platform != "win32":
    import fcntl

__all__ = ("locked",)

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.005


@contextmanager
def locked(path: Path | None, patience: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the lock on the file `path`; without a path there is nobody else.

    `StoreError` where another process does not let go.
    """
    if path is None or sys.platform == "win32":
        yield
        return
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(file, time.monotonic() + patience)
        try:
            yield
        finally:
            # Said aloud: a child forked meanwhile has the file open too, and would keep the lock.
            fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)


def _acquire(file: int, until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise StoreError("the history file is held by another process") from None
        time.sleep(PAUSE_SECONDS)
