"""The figures of this process, its container and its host, cheap enough to read at each scrape."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import anyio

from holistic_asgi_monitor.checks.container import (
    Memory,
    contained_cpu,
    contained_memory,
    read_text,
)
from holistic_asgi_monitor.checks.growth import SHORTEST_SECONDS, Growth
from holistic_asgi_monitor.checks.loops import StillRunningError, Threaded
from holistic_asgi_monitor.checks.per_loop import PerLoop, Sharing
from holistic_asgi_monitor.checks.strain import Pressures, Strain, StrainMeter

__all__ = ("CpuMeter", "Machine", "SystemSample")

_logger = logging.getLogger("holistic_asgi_monitor")

FRESH_SECONDS = 1.0
STORAGE_SECONDS = 1.0
SILENT_ROUNDS = 2

Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True)
class SystemSample:
    """What is used of what there is, at one moment; None is what cannot be read.

    `cpu_percent` is the mean of the last five minutes in percent of `cpu_cores`, the cores that
    we may use, and None at the first sample. It counts what the container uses where it has a
    quota, else what this process does. `memory_bytes`, and `process_memory_bytes` too, is the
    resident set of this process; `memory_percent` is what the container uses of its
    `memory_limit_bytes` where `source` is "cgroup", what the host uses of its memory where it is
    "host": as bytes that is `container_memory_bytes` or `host_memory_bytes`, and the other of
    them is None. `disk_percent` and `disk_bytes`, the size, are of the disk with the working
    directory. The disk and the open files are as old as the last round, and so is what follows
    them. `disk_silent` says that the disk gave no answer within a second, two rounds in a row.

    `throttled_percent` is the share of the last five minutes whose CPU periods ran into the
    quota; `throttled_periods` and `throttled_seconds` (added up over the cores) are those since
    the round before. `oom_kills` counts the processes of our control group that the kernel
    killed for lack of memory since the round before, `recent_oom_kills` in the last five
    minutes. All of them are None in the first round. From `memory_high_bytes` on the kernel
    slows the container down. `pressure` says who waited for what.
    """

    cpu_percent: float | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    memory_percent: float | None = None
    memory_limit_bytes: int | None = None
    source: str = "host"
    process_memory_bytes: int | None = None
    container_memory_bytes: int | None = None
    host_memory_bytes: int | None = None
    disk_percent: float | None = None
    disk_bytes: int | None = None
    disk_silent: bool = False
    open_files: int | None = None
    open_files_limit: int | None = None
    throttled_percent: float | None = None
    throttled_periods: int | None = None
    throttled_seconds: float | None = None
    oom_kills: int | None = None
    recent_oom_kills: int | None = None
    memory_high_bytes: int | None = None
    pressure: Pressures | None = None


class CpuMeter:
    """The mean CPU use of the last five minutes, from readings of a counter of CPU seconds."""

    def __init__(self) -> None:
        self._growth = Growth()

    def percent(self, counter: str, seconds: float, cores: float, now: float) -> float | None:
        """Note that `counter` stands at `seconds`, and give the mean in percent of `cores`.

        None within a second of the first reading.
        """
        used, took = self._growth.recent(counter, seconds, now)
        return None if took < SHORTEST_SECONDS else 100.0 * used / took / cores


@dataclass(frozen=True, slots=True)
class _Storage:
    """What takes longer to read, or may hang: a disk behind a network, thousands of files."""

    disk_percent: float | None = None
    disk_bytes: int | None = None
    open_files: int | None = None
    open_files_limit: int | None = None


class Machine:
    """Reads the figures.

    `root` is the folder that holds `proc` and `sys`, `clock` gives monotonic seconds and
    `cpu_seconds` the CPU seconds that this process has used.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self._root = root
        self._clock = clock
        self._cpu_seconds = cpu_seconds
        self._meter = CpuMeter()
        self._storage = _Storage()
        self._strain_meter = StrainMeter(root)
        self._strain = Strain()
        self._readings = PerLoop(lambda: Threaded(self._look_at_storage, "system check"))
        self._refreshes = Sharing[SystemSample]()
        self._silent_rounds = 0
        self._last: tuple[float, SystemSample] | None = None
        self._warned = False

    def sample(self) -> SystemSample:
        """The figures of now, at most a second old: several in one scrape cost one reading."""
        now, last = self._clock(), self._last
        if last is not None and now - last[0] < FRESH_SECONDS:
            return last[1]
        sample = self._read(now)
        self._last = now, sample
        return sample

    async def refresh(self) -> SystemSample:
        """The figures of now, with those of the disk and the open files, read in a thread.

        A disk that does not answer within a second has no figures, and is not asked twice. Who
        asks at the same time is given the same figures.
        """
        return await self._refreshes(self._refreshed)

    async def _refreshed(self) -> SystemSample:
        storage: object = None
        with anyio.move_on_after(STORAGE_SECONDS), contextlib.suppress(StillRunningError):
            storage = await self._readings.here()()
        self._silent_rounds = 0 if isinstance(storage, _Storage) else self._silent_rounds + 1
        self._storage = storage if isinstance(storage, _Storage) else _Storage()
        self._strain = self._strain_meter.read(self._clock())
        self._last = None
        return self.sample()

    def _read(self, now: float) -> SystemSample:
        memory, source = self._memory()
        percent, cores = self._cpu(now)
        resident, used = self._resident(), memory.used if memory else None
        return SystemSample(
            cpu_percent=_rounded(percent),
            cpu_cores=cores,
            memory_bytes=resident,
            memory_percent=_rounded(memory.percent) if memory else None,
            memory_limit_bytes=memory.limit if memory else None,
            source=source,
            process_memory_bytes=resident,
            container_memory_bytes=used if source == "cgroup" else None,
            host_memory_bytes=used if source == "host" else None,
            disk_percent=self._storage.disk_percent,
            disk_bytes=self._storage.disk_bytes,
            disk_silent=self._silent_rounds >= SILENT_ROUNDS,
            open_files=self._storage.open_files,
            open_files_limit=self._storage.open_files_limit,
            throttled_percent=_rounded(self._strain.throttled_percent),
            throttled_periods=self._strain.throttled_periods,
            throttled_seconds=self._strain.throttled_seconds,
            oom_kills=self._strain.oom_kills,
            recent_oom_kills=self._strain.recent_oom_kills,
            memory_high_bytes=self._strain.memory_high_bytes,
            pressure=self._strain.pressure,
        )

    def _memory(self) -> tuple[Memory | None, str]:
        host = self._host_memory()
        contained = contained_memory(self._root, host.limit if host else None)
        return (host, "host") if contained is None else (contained, "cgroup")

    def _host_memory(self) -> Memory | None:
        text = read_text(self._root / "proc/meminfo")
        total, available = _bytes(text, "MemTotal"), _bytes(text, "MemAvailable")
        if total and available is not None:
            return Memory(total - available, total)
        return self._ask_psutil(_virtual_memory)

    def _resident(self) -> int | None:
        fields = read_text(self._root / "proc/self/statm").split()
        if len(fields) > 1 and fields[1].isdigit():
            return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
        return self._ask_psutil(lambda psutil: int(psutil.Process().memory_info().rss))

    def _cpu(self, now: float) -> tuple[float | None, float]:
        cores, quota = float(_affinity()), contained_cpu(self._root)
        counter, seconds = "process", self._cpu_seconds()
        if quota is not None:
            cores = min(cores, quota.limit)
            if quota.used is not None:
                counter, seconds = "container", quota.used
        return self._meter.percent(counter, seconds, cores, now), round(cores, 3)

    def _look_at_storage(self) -> _Storage:
        percent, size = _disk()
        return _Storage(percent, size, self._open_files(), _open_files_limit())

    def _open_files(self) -> int | None:
        try:
            # The folder that is being read is itself an open file.
            return len(os.listdir(self._root / "proc/self/fd")) - 1  # noqa: PTH208 - names suffice
        except OSError:
            return self._ask_psutil(lambda psutil: int(psutil.Process().num_fds()))

    def _ask_psutil(self, read: Callable[[ModuleType], Figure]) -> Figure | None:
        try:
            import psutil

            return read(psutil)
        except Exception as error:
            # Protects the check and the scrape: some platforms lack a figure, or forbid it.
            if not self._warned:
                self._warned = True
                _logger.warning(
                    "Some figures of this machine cannot be read (%s).", type(error).__name__
                )
            return None


def _bytes(meminfo: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return None if found is None else int(found[1]) * 1024


def _virtual_memory(psutil: ModuleType) -> Memory:
    memory = psutil.virtual_memory()
    return Memory(int(memory.total - memory.available), int(memory.total))


def _affinity() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _disk() -> tuple[float | None, int | None]:
    """How full the disk of the working directory is, for those without privileges, and its size."""
    try:
        disk = shutil.disk_usage(".")
    except OSError:
        return None, None
    usable = disk.used + disk.free
    return (_rounded(100.0 * disk.used / usable) if usable else None), disk.total


def _open_files_limit() -> int | None:
    try:
        import resource  # noqa: PLC0415 - not on every platform

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, OSError):
        return None
    return None if soft in {resource.RLIM_INFINITY, 0} else soft


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)
