"""What is at a path, for somebody who only wants to read there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from holistic_asgi_monitor.history.sqlite.file import APPLICATION, File
from holistic_asgi_monitor.history.store import StoreError

__all__ = ("fault_of",)


def fault_of(path: Path) -> str | None:
    """Why no history can be read from the file, as a sentence; None where it is one of ours.

    It may block.
    """
    if path.is_dir():
        return f"{path} is a folder"
    if not path.exists():
        return f"there is no such file as {path}"
    file = File(path)
    try:
        with file.speaking(), closing(file.open_to_read().connection) as connection:
            (mark,) = connection.execute("PRAGMA application_id").fetchone()
    except StoreError as error:
        return str(error)
    return None if mark == APPLICATION else f"{path} is the database of another program"
