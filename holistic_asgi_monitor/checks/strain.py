"""What the container suffers: throttling, kills for lack of memory, and pressure.

As in `container`, any file may be missing or unreadable, and then says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holistic_asgi_monitor.checks.container import (
    ancestors,
    figure,
    groups_of,
    memberships,
    number,
    quota_group,
    read_text,
    tightest,
)
from holistic_asgi_monitor.checks.growth import SHORTEST_SECONDS, Growth, Step

__all__ = ("Pressure", "Pressures", "Strain", "StrainMeter")


@dataclass(frozen=True, slots=True)
class Pressure:
    """The percentages of the last ten and sixty seconds in which some task waited."""

    avg10: float
    avg60: float


@dataclass(frozen=True, slots=True)
class Pressures:
    """Who waited for what: in our control group where `source` is "cgroup", else on the host."""

    source: str
    memory: Pressure | None = None
    cpu: Pressure | None = None
    io: Pressure | None = None


@dataclass(frozen=True, slots=True)
class Strain:
    """What the container suffered; the fields are those of `SystemSample`."""

    throttled_percent: float | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    oom_kills: int | None = None
    recent_oom_kills: int | None = None
    memory_high_bytes: int | None = None
    pressure: Pressures | None = None


@dataclass(frozen=True, slots=True)
class Throttling:
    """How often, and for how long in all cores together, the group in `folder` had to wait.

    `period` is the seconds after which the quota is granted again.
    """

    folder: Path
    periods: int
    seconds: float | None
    period: float | None


@dataclass(frozen=True, slots=True)
class Kills:
    """How many processes of the group in `folder` were ever killed for lack of memory."""

    folder: Path
    count: int


class StrainMeter:
    """Compares the counters of one round with those of the rounds before."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._throttled, self._killed = Growth(), Growth()
        self._periods, self._seconds, self._kills = Step(), Step(), Step()

    def read(self, now: float) -> Strain:
        """Read the counters at `now`, in monotonic seconds."""
        throttling, kills = throttled(self._root), killed(self._root)
        percent, periods, seconds = self._throttling(throttling, now)
        since, recent = self._killing(kills, now)
        return Strain(
            throttled_percent=percent,
            throttled_periods=periods,
            throttled_seconds=seconds,
            oom_kills=since,
            recent_oom_kills=recent,
            memory_high_bytes=memory_high(self._root),
            pressure=pressures(self._root),
        )

    def _throttling(
        self, found: Throttling | None, now: float
    ) -> tuple[float | None, int | None, float | None]:
        if found is None:
            return None, None, None
        counter, percent, seconds = str(found.folder), None, None
        if found.period:
            held, took = self._throttled.recent(counter, found.periods * found.period, now)
            # The last period may have begun before the first reading.
            percent = None if took < SHORTEST_SECONDS else min(100.0, 100.0 * held / took)
        if found.seconds is not None:
            seconds = self._seconds.since(counter, found.seconds)
        periods = self._periods.since(counter, found.periods)
        return percent, _whole(periods), None if seconds is None else round(seconds, 3)

    def _killing(self, found: Kills | None, now: float) -> tuple[int | None, int | None]:
        if found is None:
            return None, None
        counter = str(found.folder)
        recent, took = self._killed.recent(counter, found.count, now)
        since = self._kills.since(counter, found.count)
        return _whole(since), _whole(recent) if took > 0 else None


def throttled(root: Path) -> Throttling | None:
    """The throttling of the group that bears the tightest CPU quota; None without a quota."""
    groups = groups_of(root, "cpu")
    found = quota_group(groups)
    if found is None:
        return None
    folder = found[1]
    text = read_text(folder / "cpu.stat")
    periods = figure(text, "nr_throttled")
    if periods is None:
        return None
    if groups.unified:
        name, unit, period = "throttled_usec", 1e6, read_text(folder / "cpu.max").partition(" ")[2]
    else:
        name, unit, period = "throttled_time", 1e9, read_text(folder / "cpu.cfs_period_us")
    seconds, microseconds = figure(text, name), number(period)
    return Throttling(
        folder,
        periods,
        None if seconds is None else seconds / unit,
        None if microseconds is None else microseconds / 1e6,
    )


def killed(root: Path) -> Kills | None:
    """The kills in our own group, or in the nearest one above that counts them."""
    groups = groups_of(root, "memory")
    name = "memory.events" if groups.unified else "memory.oom_control"
    for folder in reversed(groups.folders):
        count = figure(read_text(folder / name), "oom_kill")
        if count is not None:
            return Kills(folder, count)
    return None


def memory_high(root: Path) -> int | None:
    """The smallest `memory.high` above us, in bytes; version 1 has none."""
    groups = groups_of(root, "memory")
    if not groups.unified:
        return None
    found = tightest(
        (number(read_text(folder / "memory.high")), folder) for folder in groups.folders
    )
    return None if found is None else int(found[0])


def pressures(root: Path) -> Pressures | None:
    """The pressure in the innermost group that tells it, else on the host."""
    for folder in _unified_folders(root):
        # The root of all groups has no type: what it tells is the host's.
        if read_text(folder / "cgroup.type"):
            found = _pressures("cgroup", folder, ".pressure")
            if found is not None:
                return found
    return _pressures("host", root / "proc/pressure", "")


def _unified_folders(root: Path) -> Iterator[Path]:
    """Our groups of version 2, innermost first, also where most controllers are version 1's."""
    mount = root / "sys/fs/cgroup"
    lines = memberships(read_text(root / "proc/self/cgroup"))
    path = next((path for controllers, path in lines if not controllers), "/")
    for place in (mount, mount / "unified"):
        yield from reversed(list(ancestors(place, path)))


def _pressures(source: str, folder: Path, ending: str) -> Pressures | None:
    memory, cpu, io = (
        _pressure(read_text(folder / f"{name}{ending}")) for name in ("memory", "cpu", "io")
    )
    return Pressures(source, memory, cpu, io) if memory or cpu or io else None


def _pressure(text: str) -> Pressure | None:
    found = re.search(r"^some avg10=(\d+\.\d+) avg60=(\d+\.\d+) ", text, re.MULTILINE)
    return None if found is None else Pressure(float(found[1]), float(found[2]))


def _whole(growth: float | None) -> int | None:
    return None if growth is None else round(growth)
