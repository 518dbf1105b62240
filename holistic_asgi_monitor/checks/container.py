"""What the container grants: the limits of our control groups, versions 1 and 2, and their use.

The kernel keeps these files in memory: reading one takes microseconds and waits for no disk. Any
of them may be missing or unreadable, and then says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = (
    "Groups",
    "Memory",
    "Quota",
    "ancestors",
    "contained_cpu",
    "contained_memory",
    "figure",
    "groups_of",
    "memberships",
    "number",
    "quota_group",
    "read_text",
    "tightest",
)

# Version 1 says "unlimited" with the largest multiple of a page that fits into 63 bits.
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use, None where they cannot be read, of the bytes that may be used."""

    used: int | None
    limit: int

    @property
    def percent(self) -> float | None:
        """The use in percent of the limit."""
        return None if self.used is None else 100.0 * self.used / self.limit


@dataclass(frozen=True, slots=True)
class Quota:
    """CPU seconds used so far, None where they cannot be read, and the cores that may be used."""

    used: float | None
    limit: float


@dataclass(frozen=True, slots=True)
class Groups:
    """The folders of our control group and its ancestors, outermost first."""

    folders: Sequence[Path]
    unified: bool


def contained_memory(root: Path, host_bytes: int | None = None) -> Memory | None:
    """The tightest memory limit above us, and the working set of the group that bears it.

    None where there is no limit below `host_bytes`, what the host has. Files that the kernel can
    drop at any time are no part of the working set. `root` is the folder that holds `proc` and
    `sys`.
    """
    ceiling = min(_UNLIMITED, host_bytes or _UNLIMITED)
    groups = groups_of(root, "memory")
    limit = "memory.max" if groups.unified else "memory.limit_in_bytes"
    found = tightest((number(read_text(folder / limit)), folder) for folder in groups.folders)
    if found is None or found[0] > ceiling:
        return None
    bytes_allowed, folder = found
    # The folder that bears the limit can lack the figures; then the nearest one below has them.
    below = groups.folders[groups.folders.index(folder) :]
    used = (_working_set(each, unified=groups.unified) for each in below)
    return Memory(next((known for known in used if known is not None), None), int(bytes_allowed))


def contained_cpu(root: Path) -> Quota | None:
    """The tightest CPU quota above us, in cores, and what the group that bears it has used."""
    groups = groups_of(root, "cpu")
    found = quota_group(groups)
    if found is None:
        return None
    allowed, folder = found
    seconds = _seconds_unified if groups.unified else _seconds_legacy
    return Quota(seconds(folder), allowed)


def quota_group(groups: Groups) -> tuple[float, Path] | None:
    """The tightest CPU quota of `groups`, in cores, and the folder of the group that bears it."""
    cores = _cores_unified if groups.unified else _cores_legacy
    return tightest((cores(folder), folder) for folder in groups.folders)


def tightest(limits: Iterable[tuple[float | None, Path]]) -> tuple[float, Path] | None:
    """The smallest limit and its folder, the first of equal ones; None, 0 and below are none."""
    found = [(limit, folder) for limit, folder in limits if limit is not None and limit > 0]
    return min(found, key=lambda pair: pair[0], default=None)


def read_text(path: Path) -> str:
    """What the file says, nothing where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return (file.read() or b"").decode("ascii", "replace")
    except OSError:
        return ""


def groups_of(root: Path, controller: str) -> Groups:
    """Where `controller` finds us: version 1 has a tree for each, version 2 one for all."""
    mount = root / "sys/fs/cgroup"
    unified = "/"
    for controllers, path in memberships(read_text(root / "proc/self/cgroup")):
        if controller in controllers.split(","):
            return Groups(list(ancestors(mount / controllers, path)), unified=False)
        if not controllers:
            unified = path
    return Groups(list(ancestors(mount, unified)), unified=True)


def memberships(text: str) -> Iterator[tuple[str, str]]:
    """The controllers and the path of each line of /proc/self/cgroup."""
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[1], parts[2]


def ancestors(mount: Path, path: str) -> Iterator[Path]:
    """`mount` and the folders on the way to `path`, of which a container may see the first only."""
    yield mount
    folder = mount
    for part in PurePosixPath(path).parts:
        if part not in {"/", ".."}:
            folder /= part
            yield folder


def _working_set(folder: Path, *, unified: bool) -> int | None:
    usage = number(read_text(folder / ("memory.current" if unified else "memory.usage_in_bytes")))
    if usage is None:
        return None
    field = "inactive_file" if unified else "total_inactive_file"
    return max(0, usage - (figure(read_text(folder / "memory.stat"), field) or 0))


def _cores_unified(folder: Path) -> float | None:
    quota, _, period = read_text(folder / "cpu.max").strip().partition(" ")
    return _quotient(quota, period)


def _cores_legacy(folder: Path) -> float | None:
    return _quotient(
        read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")
    )


def _seconds_unified(folder: Path) -> float | None:
    microseconds = figure(read_text(folder / "cpu.stat"), "usage_usec")
    return None if microseconds is None else microseconds / 1e6


def _seconds_legacy(folder: Path) -> float | None:
    nanoseconds = number(read_text(folder / "cpuacct.usage"))
    return None if nanoseconds is None else nanoseconds / 1e9


def _quotient(quota: str, period: str) -> float | None:
    microseconds, of = number(quota), number(period)
    return None if microseconds is None or not of else microseconds / of


def figure(text: str, name: str) -> int | None:
    """The whole number behind `name` in a file of such lines."""
    found = re.search(rf"^{name} (\d+)$", text, re.MULTILINE)
    return None if found is None else int(found[1])


def number(text: str) -> int | None:
    """The whole number in `text`; None for anything else, such as `max`."""
    try:
        return int(text)
    except ValueError:
        return None
