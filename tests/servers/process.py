"""What every real server under test has in common: a port of its own, and ways to fail."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Self

import psutil

HOST = "127.0.0.1"
NOBODY = 65534
PATIENCE = 30.0
# Below where Linux takes the ports of outgoing connections from: a stopped server's port is
# its own still when it starts again.
PORTS = range(20_000, 32_000)
FOLDERS = "ham-server-"


def free_port() -> int:
    """Return a port of loopback at which nothing listens."""
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    message = f"None of 100 ports of {HOST} was free."
    raise RuntimeError(message)


def make_folder() -> Path:
    """Make a folder that every user may enter, and sweep away those of killed test runs."""
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{FOLDERS}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(FOLDERS).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{FOLDERS}{os.getpid()}-"))
    folder.chmod(0o755)
    return folder


class Server:
    """A server in a process of its own, on a port of loopback that it keeps.

    It runs from `start` on, and ends with us even if we are killed. Every method returns once
    what it says has come about, within milliseconds; RuntimeError, with the server's log, if
    it does not come about.
    """

    stop_signal: ClassVar[signal.Signals]
    kill_signal: ClassVar[signal.Signals]

    def __init__(self, *, user: int | None = None) -> None:
        self.port = free_port()
        self.folder = make_folder()
        self._user = user
        self._settings: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._waker: subprocess.Popen[bytes] | None = None
        # Linux lets a server die with the thread that began it: it must be one that lasts.
        self._starter = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether its process runs, be it frozen or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pids(self) -> list[int]:
        """Its processes, the first one first."""
        if self._process is None or not self.running:
            return []
        first = psutil.Process(self._process.pid)
        return [first.pid, *(child.pid for child in first.children(recursive=True))]

    def start(self, **settings: str) -> None:
        """Start it, if it does not run, with these settings over the usual ones."""
        if self.running:
            return
        self._settings = settings
        self._process = self._starter.submit(self._begin).result()
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Shut it down in good order: it takes leave of its clients."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(self.kill_signal)

    def restart(self, **settings: str) -> None:
        """Stop it and start it on the same port, with these settings over the usual ones."""
        self.stop()
        self.start(**settings)

    def freeze(self) -> None:
        """Stop all its processes where they are: connections open, and nobody answers."""
        if self._waker is not None:
            return
        os.kill(self.pids[0], signal.SIGSTOP)
        pids = self.pids
        for pid in pids[1:]:
            os.kill(pid, signal.SIGSTOP)
        # A stopped process would outlive us; this one wakes it when we let go, or are killed.
        wake = 'read -r _; kill -CONT "$@" 2> /dev/null'
        self._waker = subprocess.Popen(
            ["sh", "-c", wake, "sh", *map(str, pids)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def thaw(self) -> None:
        """Let a frozen server go on; it finds what was sent to it meanwhile."""
        if self._waker is not None:
            self._waker.communicate(timeout=PATIENCE)
            self._waker = None

    def heal(self) -> None:
        """Bring it back to how it was first started, whatever a test did to it."""
        self.thaw()
        if not self.running or self._settings:
            self.restart()

    def close(self) -> None:
        """Stop it for good and remove its files."""
        self.kill()
        self._starter.shutdown()
        shutil.rmtree(self.folder)

    def _command(self) -> list[str]:
        """Return what starts it, but for its settings."""
        raise NotImplementedError

    def _usual(self) -> dict[str, str]:
        """Return the settings it has unless told otherwise."""
        raise NotImplementedError

    def _option(self, name: str, value: str) -> list[str]:
        """Return one setting as its command line has it."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return {"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"}

    def _is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Tell whether it answers."""
        raise NotImplementedError

    def _begin(self) -> subprocess.Popen[bytes]:
        settings = self._usual() | self._settings
        options = [part for pair in settings.items() for part in self._option(*pair)]
        command = [*self._command(), *options]
        return self._launch(command, dies_with_us=True)

    def _launch(
        self, command: Sequence[str], *, dies_with_us: bool = False
    ) -> subprocess.Popen[bytes]:
        """Start one of its programs, as the user it is to have."""
        prefix = ["setpriv"]
        if dies_with_us:
            prefix.append(f"--pdeathsig={self.kill_signal.name}")
        if self._user is not None:
            prefix += [f"--reuid={self._user}", f"--regid={self._user}", "--clear-groups"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*prefix, *command],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + PATIENCE
        while not self._is_ready(process):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(self._complaint("did not start"))
            time.sleep(0.003)

    def _end(self, how: signal.Signals) -> None:
        self.thaw()
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise RuntimeError(self._complaint(f"did not end on {how.name}")) from None

    def _complaint(self, what: str) -> str:
        log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
        return f"{type(self).__name__} {what}:\n{log[-4000:]}"
