"""The check of the system inside real control groups, or the reason why there can be none.

A group is made below our own, with limits, and a process of ours is put into it. Where the kernel
does not let us, the test says beforehand why, and holds the kernel to it.
"""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
LIMIT = 128 * MIB
MOUNT = Path("/sys/fs/cgroup")
FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

MEMORY = """
import json, subprocess, sys
import anyio
from holistic_asgi_monitor import checks
from holistic_asgi_monitor.model import Status

GREEDY = (
    "open('/proc/self/oom_score_adj', 'w').write('1000');"
    "held = [b'x' * (1 << 20) for _ in range(1024)]"
)
print("ready", flush=True)
sys.stdin.readline()
held = b"x" * (48 << 20)

async def main():
    check = checks.System()
    before = await check()
    code = subprocess.run([sys.executable, "-c", GREEDY], timeout=30).returncode
    after = await check()
    print(json.dumps([code, [[r.status.value, r.message, dict(r.details)] for r in (before, after)]]))

anyio.run(main)
"""
CPU = """
import json, sys, time
import anyio
from holistic_asgi_monitor import checks

print("ready", flush=True)
sys.stdin.readline()

async def main():
    check = checks.System()
    await check()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    result = await check()
    print(json.dumps([result.status.value, result.message, dict(result.details)]))

anyio.run(main)
"""


@dataclass(frozen=True)
class Place:
    """Where a group of ours belongs: the folder above it, and which version it is of."""

    folder: Path
    controller: str
    unified: bool

    def hindrance(self) -> tuple[str, frozenset[int]] | None:
        """Why no group can be made here, and what the kernel must answer; None if one can."""
        if not self.folder.is_dir():
            return "there are no control groups", frozenset({errno.ENOENT, *FORBIDDEN})
        if os.statvfs(self.folder).f_flag & os.ST_RDONLY:
            return "control groups are mounted read-only", FORBIDDEN
        if not os.access(self.folder, os.W_OK):
            return "this user may not make control groups", FORBIDDEN
        if not self.unified:
            return None
        if self.controller not in handed_on(self.folder):
            return "our group hands no controllers on", frozenset({errno.ENOENT, *FORBIDDEN})
        if not os.access(self.folder / "cgroup.procs", os.W_OK):
            return "this user may not move processes", FORBIDDEN
        return None


def place_for(controller: str) -> Place:
    """Our own group; in version 2 the nearest one above that hands the controller on."""
    unified = MOUNT
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            own = MOUNT / controllers / path.lstrip("/")
            return Place(own if own.is_dir() else MOUNT / controllers, controller, unified=False)
        if not controllers:
            unified = MOUNT / path.lstrip("/")
    above = [folder for folder in (unified, *unified.parents) if folder.is_relative_to(MOUNT)]
    giving = (folder for folder in above if controller in handed_on(folder))
    return Place(next(giving, MOUNT), controller, unified=True)


def handed_on(folder: Path) -> list[str]:
    file = folder / "cgroup.subtree_control"
    return file.read_text().split() if file.exists() else []


@contextmanager
def group(place: Place, limits: Mapping[str, object]) -> Iterator[Path]:
    """Make a group with `limits`, and take it away again when its processes have ended."""
    folder = place.folder / f"test-{os.getpid()}-{place.controller}"
    folder.mkdir()
    try:
        for name, value in limits.items():
            # Not every kernel counts swap.
            if "sw" not in name or (folder / name).exists():
                (folder / name).write_text(str(value))
        yield folder
    finally:
        remove(folder)


def remove(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            folder.rmdir()
        except OSError as error:
            # The kernel needs a moment to bury the last process.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def answer_inside(place: Place, limits: Mapping[str, object], script: str) -> Any:
    """Run `script` in a new group, and return the JSON value that it prints."""
    with (
        group(place, limits) as folder,
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (folder / "cgroup.procs").write_text(str(process.pid))
            out, _ = process.communicate("go\n", timeout=40)
        finally:
            process.kill()
    assert process.returncode == 0
    return json.loads(out)


def answer_or_reason(place: Place, limits: Mapping[str, object], script: str) -> Any:
    """What `answer_inside` returns; None where there is a hindrance, which the kernel confirms."""
    hindrance = place.hindrance()
    if hindrance is None:
        return answer_inside(place, limits, script)
    reason, answers = hindrance
    with pytest.raises(OSError, match=r"^\[Errno") as refusal:
        answer_inside(place, limits, script)
    assert refusal.value.errno in answers, reason
    return None


def memory_limits(place: Place) -> dict[str, object]:
    """The limit, and no swap, into which the greedy process would else grow."""
    if place.unified:
        return {"memory.max": LIMIT, "memory.swap.max": 0}
    return {"memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT}


def test_memory_is_that_of_a_real_group_and_a_kill_in_it_is_told() -> None:
    place = place_for("memory")
    found = answer_or_reason(place, memory_limits(place), MEMORY)
    if found is None:
        return
    code, ((_, _, before), (status, message, after)) = found

    assert (before["source"], before["memory_limit_bytes"]) == ("cgroup", LIMIT)
    assert 100 * 48 / 128 <= before["memory_percent"] < 100
    assert before["oom_kills"] is None
    assert code == -9
    assert (after["oom_kills"], after["recent_oom_kills"]) == (1, 1)
    assert status == "degraded"
    assert "a process was killed for lack of memory in the last 5 min" in message


def test_throttling_is_that_of_a_real_group() -> None:
    place = place_for("cpu")
    limits = {"cpu.max": "10000 100000"} if place.unified else {"cpu.cfs_quota_us": 10_000}
    found = answer_or_reason(place, limits, CPU)
    if found is None:
        return
    status, message, details = found

    assert details["cpu_cores"] == pytest.approx(0.1)
    assert details["throttled_periods"] > 0
    assert details["throttled_seconds"] > 0
    assert 25 <= details["throttled_percent"] <= 100
    assert status == "degraded"
    assert "CPU throttled for " in message
