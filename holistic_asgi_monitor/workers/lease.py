"""The lease of a host: a lock on a file, which the kernel takes back when its holder dies.

Everything here blocks for moments: it is for a thread of its own.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from holistic_asgi_monitor.model import MonitorError

if sys.platform != "win32":
    import fcntl

__all__ = ("DIGEST_LENGTH", "STALE_SECONDS", "FileLease", "LeaseError", "lock_paths")

FOLDER = "holistic-asgi-monitor"
DIGEST_LENGTH = 12
STALE_SECONDS = 30.0
_NAME = re.compile(rb"[0-9a-f]{32}")


class LeaseError(MonitorError):
    """Nobody can say who holds the lease; the sentence holds no secret."""


def lock_paths(
    service: str, environment: str, beside: Path | None, apart: str = ""
) -> tuple[Path, ...]:
    """The files that may be locked, the best first: `beside` a file, in the temporary directory.

    Who shares service and environment, and all by which `apart` tells processes apart, has one
    voice. There are none where nothing may be written.
    """
    told_apart = json.dumps([service, environment, apart]).encode()
    name = f"voice-{sha256(told_apart).hexdigest()[:DIGEST_LENGTH]}"
    first = () if beside is None else (beside.with_name(f"{beside.name}.{name}"),)
    spare = _spare_folder()
    return first if spare is None else (*first, spare / name)


class FileLease:
    """A lock on the first of `paths` that can be used; `name` stays the same for this host.

    It is the holder's until `release`, or until its process dies. A child that is forked
    meanwhile lets go of its copy at once, else it would hold the lock of a dead parent. A holder
    that lives and has not asked for `STALE_SECONDS` is stuck: its file is put aside, which it
    sees when it asks again. What one of `kin` holds, others of the same process, is held by all
    of them. `paths` may be a function, asked each time; `wall` gives epoch seconds, as files
    have them.
    """

    def __init__(
        self,
        paths: Sequence[Path] | Callable[[], Sequence[Path]],
        *,
        kin: Callable[[], Iterable[FileLease]] = tuple,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.name = uuid4().hex
        self._paths = paths if callable(paths) else lambda: paths
        self._kin = kin
        self._wall = wall
        self._path: Path | None = None
        self._file: int | None = None
        self._pid = 0
        self._hooked = False

    def __del__(self) -> None:
        # An app that is dropped without its end must not keep the voice from the next one.
        self.forsake()

    def hold(self) -> bool:
        """Take it, or go on holding it; whether it is ours. `LeaseError` where no lock works."""
        paths = self._paths()
        if self._file is not None and self._path in paths and self._is_ours(self._file):
            self._touch(self._file)
            return True
        self.release()
        if sys.platform == "win32":
            raise LeaseError("there are no such locks on Windows")
        problem = "no file may be locked"
        for path in paths:
            try:
                return self._take(path)
            except OSError as error:
                problem = f"{path} cannot be locked ({type(error).__name__})"
        raise LeaseError(problem)

    def release(self) -> None:
        """Let go of it."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if sys.platform != "win32" and self._pid == os.getpid():
                # Said aloud: a child that was forked by other means may have it open too.
                fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            os.close(file)

    def forsake(self) -> None:
        """Close the file: in a forked child it is the parent's, whose lock goes on."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _is_ours(self, file: int) -> bool:
        """Whether the lock is this process's own, on the file that others would lock."""
        if self._pid != os.getpid() or self._path is None:
            return False
        return _is_at(file, self._path)

    def _take(self, path: Path) -> bool:
        _make_folder(path.parent)
        self._hook()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags, 0o600)
        try:
            if _locked(file) and _is_at(file, path):
                self._settle(file, path)
                return True
            self.name = _name_in(file) or self.name
            return self._is_taken_by_kin(file) or self._put_aside(file, path)
        finally:
            if self._file != file:
                os.close(file)

    def _settle(self, file: int, path: Path) -> None:
        """Show whose the locked file is."""
        self.name = _named(file, self.name)
        self._touch(file)
        self._path, self._pid = path, os.getpid()
        self._file = file

    def _is_taken_by_kin(self, file: int) -> bool:
        """Whether this very process has the lock: then it is the one that tells."""
        return any(each.has(file) for each in self._kin())

    def has(self, file: int) -> bool:
        """Whether this holds the lock on the open file."""
        held = self._file
        try:
            return held is not None and self._pid == os.getpid() and _are_same(held, file)
        except OSError:
            # It was closed in this moment, by the thread that it is for.
            return False

    def _touch(self, file: int) -> None:
        """Show that the holder lives."""
        now = self._wall()
        os.utime(file, (now, now))

    def _put_aside(self, file: int, path: Path) -> bool:
        """Let the next one who asks have a file of the same host, where its holder is stuck."""
        stale = abs(self._wall() - os.fstat(file).st_mtime) > STALE_SECONDS
        if stale and _is_at(file, path):
            path.unlink()
        return False

    def _hook(self) -> None:
        if self._hooked:
            return
        self._hooked = True
        found = weakref.ref(self)

        def forsake() -> None:
            lease = found()
            if lease is not None:
                lease.forsake()

        os.register_at_fork(after_in_child=forsake)


def _spare_folder() -> Path | None:
    """The folder in the temporary directory; None where no such directory can be written to."""
    user = os.getuid() if sys.platform != "win32" else "user"
    try:
        return Path(tempfile.gettempdir()) / f"{FOLDER}-{user}"
    except OSError:
        return None


def _make_folder(folder: Path) -> None:
    """Make the folder; OSError where others may write to one that everybody could have made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder != _spare_folder():
        return
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(folder)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _are_same(file: int, other: int) -> bool:
    return os.path.samestat(os.fstat(file), os.fstat(other))


def _is_at(file: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`: somebody may have cleared it away."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _name_in(file: int) -> str | None:
    held = os.pread(file, 100, 0)
    return held.decode() if _NAME.fullmatch(held) else None


def _named(file: int, fresh: str) -> str:
    """The name that the file holds; `fresh` where it holds none, and from now on."""
    held = _name_in(file)
    if held is not None:
        return held
    os.ftruncate(file, 0)
    os.pwrite(file, fresh.encode(), 0)
    return fresh
