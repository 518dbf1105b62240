"""What servers under test leave behind when the tests are killed: nothing."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.servers.process import PORTS, free_port, make_folder

ROOT = Path(__file__).parents[2]
KILLED = """
import sys, time
from tests.servers.postgres import Postgres
from tests.servers.redis_server import Redis, valkey_program

servers = Postgres(18), Redis(valkey_program())
for server in servers:
    server.start()
    if "frozen" in sys.argv:
        server.freeze()
print(*(server.folder for server in servers))
print(*(pid for server in servers for pid in server.pids), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["frozen", "running"])
def test_servers_end_with_tests_that_are_killed(state: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, state],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        folders, pids = (tests.stdout.readline().split() for _ in range(2))
        servers = [psutil.Process(int(pid)) for pid in pids]
        tests.send_signal(signal.SIGKILL)
    assert len(servers) > 2
    give_up = time.monotonic() + 30
    while any(map(runs, servers)) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not any(map(runs, servers))
    make_folder().rmdir()
    assert not any(Path(folder).exists() for folder in folders)


def runs(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended and was not collected does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_port_is_below_those_of_outgoing_connections() -> None:
    assert free_port() in PORTS
    assert PORTS.stop <= 32_768
