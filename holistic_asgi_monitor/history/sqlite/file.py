"""The file itself: opened, brought up to date, set aside where it is damaged."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from holistic_asgi_monitor.history.sqlite.lock import locked
from holistic_asgi_monitor.history.sqlite.schema import MIGRATIONS, VERSION
from holistic_asgi_monitor.history.store import StoreError, UnusableStoreError
from holistic_asgi_monitor.history.tiers import DAY

__all__ = ("DamagedError", "File", "Session", "one_state", "put_rows", "transaction")

_logger = logging.getLogger("holistic_asgi_monitor")

BUSY_SECONDS = 5.0
LOG_BYTES = 4 << 20
ROWS_IN_STATEMENT = 64
LOOKS = 3
"""How often a file must look forbidden in a row."""
APPLICATION = 0x48414D31
"""What marks a file as ours, in its header."""
_TRAILS = ("", "-wal", "-shm")
_LOCK = ".lock"
_OF_DATABASES = (".sqlite", ".sqlite3", ".db", ".db3")
_FOR_GOOD = {
    errno.EACCES: "the folder {folder} may not be written",
    errno.EPERM: "the folder {folder} may not be written",
    errno.EROFS: "the folder {folder} may not be written",
    errno.ENOTDIR: "{folder} is no folder",
    errno.ENAMETOOLONG: "the name of the file is too long",
}
"""What will be the same at the next try."""
_SENTENCES = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_READONLY: "may not be written",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
    sqlite3.SQLITE_PERM: "may not be opened",
}


class DamagedError(StoreError):
    """The file is no database any longer."""


class Session:
    """One open connection, the file that it is open on, and the numbers of the series known."""

    def __init__(
        self, connection: sqlite3.Connection, file: tuple[int, int] | None, service: str
    ) -> None:
        self.connection = connection
        self.service = service
        self.file = file
        self.numbers: dict[tuple[str, str], int] = {}
        self.writable = True


class File:
    """A history file; `path` None stands for one in memory. All calls may block.

    `service` is whose history it is: others may have theirs in the same file. `longest_log` is
    how many bytes its write-ahead log may take before it is brought home.
    """

    def __init__(self, path: Path | None, service: str = "", longest_log: int = LOG_BYTES) -> None:
        self.path = path
        self.service = service
        self.longest_log = longest_log
        self.faults = 0
        self._warned_of_newer = False
        self._warned_of_users = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock between the processes that write this file."""
        with locked(None if self.path is None else self._trail(_LOCK)):
            yield

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn what SQLite raises into a sentence of ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._said(error) from None
        except OSError as error:
            raise StoreError(f"{self.name} cannot be used ({type(error).__name__})") from None

    @property
    def name(self) -> str:
        """The file in words."""
        return "the history in memory" if self.path is None else f"the history file {self.path}"

    def open(self) -> Session:
        """A session to write with, on a file that is up to date."""
        if self.path is None:
            return _migrated(Session(_connect(":memory:"), None, self.service))
        self._make_folder(self.path.parent)
        with self.speaking():
            try:
                self._refuse_what_may_not_be_written()
                self._refuse_what_never_was_a_database()
                with self.lock():
                    return self._open(self.path)
            except OSError as error:
                if error.errno not in _FOR_GOOD:
                    raise
                reason = _FOR_GOOD[error.errno].format(folder=self.path.parent)
        raise UnusableStoreError(reason)

    def _refuse_what_may_not_be_written(self) -> None:
        """SQLite would open such a file without a word, and fail with every batch.

        Nothing is opened here: closing it would take away the locks that SQLite has on it.
        """
        assert self.path is not None
        if self.path.is_dir():
            raise UnusableStoreError(f"{self.path} is a folder")
        for found in map(self._trail, (*_TRAILS, _LOCK)):
            if all(_seems_forbidden(found) for _ in range(LOOKS)):
                raise UnusableStoreError(f"the file {found} may not be written")

    def _refuse_what_never_was_a_database(self) -> None:
        """Nobody gets another file back that was set aside like a damaged one of ours.

        Ours have their lock beside them, or the name of a database.
        """
        assert self.path is not None
        named = self.path.suffix.lower() in _OF_DATABASES
        if named or not self._size("") or self._trail(_LOCK).exists():
            return
        try:
            with self.speaking(), closing(self.open_to_read().connection) as connection:
                connection.execute("PRAGMA schema_version").fetchone()
        except DamagedError:
            raise UnusableStoreError(f"{self.path} is no database") from None

    def open_to_read(self) -> Session:
        """A session that can only read."""
        assert self.path is not None
        with self.speaking():
            connection = _connect(f"file:{quote(str(self.path))}?mode=ro")
            return Session(connection, _identity(self.path), self.service)

    def look_again(self, session: Session) -> None:
        """See whether a newer version has come to the file since it was opened; under the lock."""
        (version,) = session.connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            session.writable = False
            self._warn_of_newer(version)

    def is_current(self, session: Session) -> bool:
        """Whether the file at the path is still the one that the session is open on."""
        return self.path is None or session.file == _identity(self.path)

    def set_aside(self, session: Session | None) -> None:
        """Rename a damaged file, unless another process has done so, and say it."""
        if session is not None:
            with suppress(sqlite3.Error):
                session.connection.close()
        if self.path is None or (session is not None and not self.is_current(session)):
            return
        aside = f".corrupt-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        for trail in _TRAILS:
            with suppress(FileNotFoundError):
                self._trail(trail).rename(self._trail(aside + trail))
        self.faults += 1
        _logger.warning(
            "%s is damaged: it is kept as %s, and history begins anew",
            self.name,
            self._trail(aside).name,
        )

    def bytes(self) -> int:
        """What the file and its log take on the disk."""
        return sum(self._size(trail) for trail in ("", "-wal"))

    def log_bytes(self) -> int:
        """What the write-ahead log takes on the disk."""
        return self._size("-wal")

    def _size(self, trail: str) -> int:
        try:
            return self._trail(trail).stat().st_size if self.path is not None else 0
        except FileNotFoundError:
            return 0

    def _trail(self, trail: str) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + trail)

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return
        except OSError:
            pass
        raise UnusableStoreError(f"the folder {folder} does not exist and cannot be made")

    def _open(self, path: Path) -> Session:
        try:
            return self._current(path)
        except DamagedError:
            self.set_aside(None)
            return self._current(path)

    def _current(self, path: Path) -> Session:
        with suppress(FileExistsError):
            # The key of the users' hashes is in it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        with self.speaking():
            connection = _connect(str(path))
            session = Session(connection, _identity(path), self.service)
            try:
                version = self._version(connection)
                if version > VERSION:
                    session.writable = False
                    self._warn_of_newer(version)
                    return session
                return _migrated(session)
            except BaseException:
                connection.close()
                raise

    def _version(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and mark != APPLICATION:
            raise UnusableStoreError(f"{self.path} is the database of another program")
        return int(version)

    def _warn_of_newer(self, version: int) -> None:
        if not self._warned_of_newer:
            self._warned_of_newer = True
            self.faults += 1
            _logger.warning(
                "%s was written by a newer version (format %d, known is %d): it is only read, and "
                "nothing is added to it",
                self.name,
                version,
                VERSION,
            )

    def warn_of_users(self, day: int) -> None:
        """Say once that the users before a day (since 1970) had to go."""
        if not self._warned_of_users:
            self._warned_of_users = True
            _logger.warning(
                "%s has reached its cap, and of users only the days from %s on are kept: the "
                "numbers of a week or a month may be too low; raise MONITOR_HISTORY_MAX_MB",
                self.name,
                datetime.fromtimestamp(day * DAY, UTC).date(),
            )

    def _said(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0)
        # What processes share is made as large as it must be at once, else there is no room.
        code = sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return DamagedError(f"{self.name} is damaged")
        sentence = _SENTENCES.get(code, f"cannot be used (SQLite error {code})")
        return StoreError(f"{self.name} {sentence}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def one_state(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read inside is as it was at one moment, whatever is written meanwhile."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def put_rows(
    connection: sqlite3.Connection,
    verb: str,
    rows: Sequence[tuple[int | bytes | str, ...]],
    ending: str = "",
) -> None:
    """Insert rows, many by one statement: `verb` is all of it up to VALUES, `ending` the rest.

    For each statement the interpreter lock is let go once and for long; row by row it would be
    taken back so soon that the event loop never came in between.
    """
    for start in range(0, len(rows), ROWS_IN_STATEMENT):
        part = rows[start : start + ROWS_IN_STATEMENT]
        marks = f"({', '.join('?' * len(part[0]))})"
        values = [value for row in part for value in row]
        connection.execute(f"{verb} VALUES {', '.join([marks] * len(part))} {ending}", values)


def _connect(place: str) -> sqlite3.Connection:
    return sqlite3.connect(
        place, timeout=BUSY_SECONDS, isolation_level=None, uri=place.startswith("file:")
    )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        # Whatever keeps us from it, opening it will say.
        return None
    return found.st_dev, found.st_ino


def _seems_forbidden(path: Path) -> bool:
    """Whether a file is there that may not be read and written, as it looks.

    SQLite removes its log where another process closes the file: what goes between these two
    questions looks forbidden, too.
    """
    effective = os.access in os.supports_effective_ids
    return path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=effective)


def _migrated(session: Session) -> Session:
    connection = session.connection
    # First of all: once there is a table or a write-ahead log, this is ignored without a word.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    with closing(connection.execute("PRAGMA journal_mode = WAL")) as cursor:
        (mode,) = cursor.fetchone()
    if mode not in {"wal", "memory"}:
        # Network drives share no memory.
        connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("PRAGMA synchronous = NORMAL")
    # The log is only reset under our lock.
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    _step_up(connection)
    return session


def _step_up(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number in range(version, VERSION):
        with transaction(connection):
            for statement in MIGRATIONS[number]:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {number + 1}")
