"""The figures of the machine: of folders that look like the kernel's, and of this very one."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from holistic_asgi_monitor.checks import machine as module
from holistic_asgi_monitor.checks.machine import CpuMeter, Machine, SystemSample
from holistic_asgi_monitor.checks.strain import Pressure, Pressures

KIB = 1024
HOST = {
    "proc/meminfo": "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n",
    "proc/self/statm": "765 100 415 5 0 123 0\n",
}
CONTAINER = HOST | {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": f"{500 * KIB}\n",
    "sys/fs/cgroup/memory.current": f"{300 * KIB}\n",
    "sys/fs/cgroup/memory.stat": f"inactive_file {100 * KIB}\n",
    "sys/fs/cgroup/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 0\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


class Clockwork:
    """A machine on a clock, and with a use of CPU, that only the test moves."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_000.0
        self.cpu = 7.0
        self.machine = Machine(root, clock=lambda: self.now, cpu_seconds=lambda: self.cpu)

    def pass_time(self, seconds: float, cpu: float) -> float | None:
        self.now += seconds
        self.cpu += cpu
        return self.machine.sample().cpu_percent


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


def test_a_container_is_measured_by_its_own_limit(tmp_path: Path) -> None:
    sample = Machine(write(tmp_path, CONTAINER)).sample()

    assert (sample.source, sample.memory_percent) == ("cgroup", 40.0)
    assert sample.memory_limit_bytes == 500 * KIB
    assert sample.memory_bytes == 100 * os.sysconf("SC_PAGE_SIZE")
    assert sample.cpu_cores == 0.5


V1 = "4:memory:/docker/abc\n0::/\n"
CONTAINERS: dict[str, tuple[dict[str, str], str, float]] = {
    "version 2": ({}, "cgroup", 40.0),
    "version 1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{800 * KIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{500 * KIB}\n",
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {300 * KIB}\n",
        },
        "cgroup",
        25.0,
    ),
    "limit on a parent": (
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": f"{400 * KIB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{300 * KIB}\n",
            "sys/fs/cgroup/pod/app/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/memory.current": f"{100 * KIB}\n",
        },
        "cgroup",
        75.0,
    ),
    "cache-heavy": (
        {
            "sys/fs/cgroup/memory.current": f"{450 * KIB}\n",
            "sys/fs/cgroup/memory.stat": f"inactive_file {255 * KIB}\n",
        },
        "cgroup",
        39.0,
    ),
    "unlimited": ({"sys/fs/cgroup/memory.max": "max\n"}, "host", 60.0),
    "unlimited in version 1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{500 * KIB}\n",
        },
        "host",
        60.0,
    ),
    "unreadable": ({"sys/fs/cgroup/memory.max": ""}, "host", 60.0),
}


@pytest.mark.parametrize("kind", [*CONTAINERS, "host"])
def test_memory_is_counted_against_what_may_be_used(tmp_path: Path, kind: str) -> None:
    change, source, percent = CONTAINERS.get(kind, ({}, "host", 60.0))
    write(tmp_path, HOST if kind == "host" else CONTAINER | change)
    if kind == "unreadable":
        # A folder, since root may read any file.
        (tmp_path / "sys/fs/cgroup/memory.max").unlink()
        (tmp_path / "sys/fs/cgroup/memory.max").mkdir()
    sample = Machine(tmp_path).sample()

    assert (sample.source, sample.memory_percent) == (source, percent)


async def test_what_the_container_suffers_is_counted_from_round_to_round(tmp_path: Path) -> None:
    """A scrape between two rounds tells what the last round found."""
    clockwork = Clockwork(write(tmp_path, CONTAINER))
    found = []
    for kills, throttled in [(4, 10), (6, 160), (6, 160)]:
        text = f"usage_usec 0\nnr_throttled {throttled}\nthrottled_usec {throttled * 20_000}\n"
        write(tmp_path, {"sys/fs/cgroup/cpu.stat": text})
        write(tmp_path, {"sys/fs/cgroup/memory.events": f"oom_kill {kills}\n"})
        clockwork.now += 20.0
        before = clockwork.machine.sample()
        found += [before, await clockwork.machine.refresh()]
        clockwork.now += 10.0

    assert [sample.oom_kills for sample in found] == [None, None, None, 2, 2, 0]
    assert [sample.recent_oom_kills for sample in found] == [None, None, None, 2, 2, 2]
    assert [sample.throttled_periods for sample in found] == [None, None, None, 150, 150, 0]
    assert [sample.throttled_seconds for sample in found] == [None, None, None, 3.0, 3.0, 0.0]
    assert [sample.throttled_percent for sample in found] == [None, None, None, 50.0, 50.0, 25.0]


async def test_pressure_and_memory_high_are_in_the_figures(tmp_path: Path) -> None:
    line = "some avg10=1.50 avg60=2.25 avg300=0.00 total=5\n"
    write(tmp_path, CONTAINER | {"sys/fs/cgroup/memory.high": "12345\n"})
    write(tmp_path, {f"proc/pressure/{name}": line for name in ("memory", "io")})
    sample = await Machine(tmp_path).refresh()

    assert sample.memory_high_bytes == 12_345
    assert sample.pressure == Pressures("host", Pressure(1.5, 2.25), None, Pressure(1.5, 2.25))


@pytest.mark.parametrize("limit", ["max", f"{1001 * KIB}"])
def test_a_container_without_a_limit_is_measured_by_its_host(tmp_path: Path, limit: str) -> None:
    sample = Machine(write(tmp_path, CONTAINER | {"sys/fs/cgroup/memory.max": limit})).sample()

    assert (sample.source, sample.memory_percent) == ("host", 60.0)
    assert sample.memory_limit_bytes == 1000 * KIB


def test_whose_memory_is_counted_cannot_be_mistaken(tmp_path: Path) -> None:
    contained = Machine(write(tmp_path, CONTAINER)).sample()
    write(tmp_path, {"sys/fs/cgroup/memory.max": "max\n"})
    hosted = Machine(tmp_path).sample()

    resident = 100 * os.sysconf("SC_PAGE_SIZE")
    for sample in (contained, hosted):
        assert (sample.memory_bytes, sample.process_memory_bytes) == (resident, resident)
    assert (contained.container_memory_bytes, contained.host_memory_bytes) == (200 * KIB, None)
    assert (hosted.container_memory_bytes, hosted.host_memory_bytes) == (None, 600 * KIB)


def test_a_host_is_measured_by_its_memory(tmp_path: Path) -> None:
    sample = Machine(write(tmp_path, HOST)).sample()

    assert (sample.source, sample.memory_percent) == ("host", 60.0)


def test_where_no_file_can_be_read_the_figures_are_psutil_s(tmp_path: Path) -> None:
    sample = Machine(tmp_path).sample()

    assert sample.source == "host"
    assert sample.memory_percent is not None
    assert 0 < sample.memory_percent < 100
    assert sample.memory_bytes is not None
    assert sample.memory_bytes > KIB


async def test_where_nothing_can_be_read_there_are_no_figures_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError("S3cret")

    for name in ("psutil.virtual_memory", "psutil.Process", "shutil.disk_usage"):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr("resource.getrlimit", refuse)
    monkeypatch.setattr(os, "sched_getaffinity", refuse)
    machine = Machine(tmp_path)
    with caplog.at_level(logging.DEBUG):
        await machine.refresh()
        sample = await machine.refresh()

    assert (sample.memory_bytes, sample.memory_percent, sample.memory_limit_bytes) == (None,) * 3
    assert (sample.disk_percent, sample.disk_bytes) == (None, None)
    assert (sample.open_files, sample.open_files_limit) == (None, None)
    assert sample.cpu_cores == os.cpu_count()
    ours = [record for record in caplog.records if record.name == "holistic_asgi_monitor"]
    assert [record.getMessage() for record in ours] == [
        "Some figures of this machine cannot be read (OSError)."
    ]


@pytest.mark.usefixtures("one_core")
def test_the_first_sample_has_no_cpu_value(tmp_path: Path) -> None:
    clockwork = Clockwork(write(tmp_path, HOST))

    assert clockwork.machine.sample().cpu_percent is None
    assert clockwork.pass_time(10.0, cpu=5.0) == 50.0


@pytest.mark.usefixtures("one_core")
def test_a_container_with_a_quota_is_measured_by_what_all_in_it_use(tmp_path: Path) -> None:
    clockwork = Clockwork(write(tmp_path, CONTAINER))
    clockwork.machine.sample()
    write(tmp_path, {"sys/fs/cgroup/cpu.stat": "usage_usec 4000000\n"})

    assert clockwork.pass_time(10.0, cpu=1.0) == 80.0


@pytest.mark.usefixtures("one_core")
def test_a_quota_without_figures_is_measured_by_this_process(tmp_path: Path) -> None:
    files = {name: text for name, text in CONTAINER.items() if not name.endswith("cpu.stat")}
    clockwork = Clockwork(write(tmp_path, files))
    clockwork.machine.sample()

    assert clockwork.pass_time(10.0, cpu=1.0) == 20.0


@pytest.mark.usefixtures("one_core")
def test_several_samples_within_a_second_are_one_reading(tmp_path: Path) -> None:
    clockwork = Clockwork(write(tmp_path, HOST))
    first = clockwork.machine.sample()
    clockwork.now += 0.9

    assert clockwork.machine.sample() is first
    clockwork.now += 0.1
    assert clockwork.machine.sample() is not first


READINGS = [(second, 1.0 if second < 60 else 0.0) for second in range(0, 601, 30)]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([(0, 0.0)], None),
        ([(0, 0.0), (0.5, 0.5)], None),
        ([(0, 0.0), (1, 0.5)], 50.0),
        ([(0, 0.0), (10, 40.0)], 400.0),
        ([(0, 100.0), (10, 101.0), (20, 102.0)], 10.0),
        ([(0, 0.0), (100, 100.0), (400, 100.0)], 0.0),
        ([(0, 0.0), (100, 100.0), (300, 100.0)], pytest.approx(100 / 3)),
        ([(0, 0.0), (100, 100.0), (399, 100.0)], pytest.approx(100 * 100 / 399)),
        ([(0, 50.0), (10, 2.0)], None),
        ([(0, 50.0), (10, 2.0), (20, 3.0)], 10.0),
    ],
)
def test_cpu_is_the_mean_of_the_last_five_minutes(
    readings: Sequence[tuple[float, float]], expected: float | None
) -> None:
    meter = CpuMeter()

    found = [meter.percent("process", seconds, 1.0, now) for now, seconds in readings]

    assert found[-1] == expected


def test_another_counter_begins_anew() -> None:
    meter = CpuMeter()
    meter.percent("process", 5.0, 1.0, 0.0)

    assert meter.percent("container", 500.0, 1.0, 10.0) is None
    assert meter.percent("container", 501.0, 1.0, 20.0) == 10.0


def test_a_thousand_samples_a_minute_are_kept_in_few_readings() -> None:
    meter = CpuMeter()
    for step in range(100_000):
        meter.percent("process", step * 0.01, 1.0, step * 0.06)

    assert len(meter._growth._readings) <= 62
    assert meter.percent("process", 1_000.0, 1.0, 6_000.0) == pytest.approx(100 / 6, rel=0.01)


async def test_this_machine_has_all_figures() -> None:
    """Nothing here blocks the loop, or the fixture `blockbuster` would raise."""
    sample = await Machine().refresh()

    assert sample.memory_bytes is not None
    assert sample.memory_bytes > 5_000 * KIB
    assert sample.memory_limit_bytes is not None
    assert sample.memory_limit_bytes > sample.memory_bytes
    assert sample.memory_percent is not None
    assert 0 < sample.memory_percent < 100
    assert sample.cpu_cores is not None
    assert 0 < sample.cpu_cores <= (os.cpu_count() or 1)
    assert sample.disk_percent is not None
    assert 0 < sample.disk_percent <= 100
    assert sample.disk_bytes is not None
    assert sample.open_files is not None
    assert 3 <= sample.open_files < 10_000
    assert sample.open_files_limit is not None


def open_now() -> int:
    """Return how many files this process has open, but for the folder that is read here."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1


async def test_open_files_are_counted() -> None:
    machine = Machine()
    before = (await machine.refresh()).open_files
    assert before == open_now()
    held = [os.dup(0) for _ in range(10)]
    after = (await machine.refresh()).open_files
    for descriptor in held:
        os.close(descriptor)

    assert after == before + 10


async def test_a_sample_reads_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape takes one, and each file takes the kernel some microseconds."""
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return ""

    for room in ("container", "machine"):
        monkeypatch.setattr(f"holistic_asgi_monitor.checks.{room}.read_text", counted)
    Machine(tmp_path).sample()

    assert 1 < len(read) <= 8


async def test_a_disk_that_hangs_has_no_figures_and_is_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, asked = threading.Event(), []
    monkeypatch.setattr(module, "STORAGE_SECONDS", 0.01)

    def hang(path: str) -> None:
        asked.append(path)
        gate.wait(10)

    monkeypatch.setattr("shutil.disk_usage", hang)
    machine = Machine()
    try:
        with anyio.fail_after(5):
            samples = [await machine.refresh() for _ in range(5)]
    finally:
        gate.set()

    assert len(asked) == 1
    assert [sample.disk_percent for sample in samples] == [None] * 5
    assert [sample.disk_silent for sample in samples] == [False, True, True, True, True]
    assert all(sample.memory_percent is not None for sample in samples)


async def test_a_disk_that_answers_again_is_no_longer_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    machine = Machine()
    with monkeypatch.context() as patched:
        patched.setattr(module, "STORAGE_SECONDS", 0.01)
        patched.setattr("shutil.disk_usage", lambda _: gate.wait(10))
        assert [(await machine.refresh()).disk_silent for _ in range(2)] == [False, True]
    gate.set()
    with anyio.fail_after(10):
        while any(thread.name == "system check" for thread in threading.enumerate()):
            await anyio.sleep(0.001)
    sample = await machine.refresh()

    assert not sample.disk_silent
    assert sample.disk_percent is not None


async def test_those_who_ask_at_the_same_time_are_given_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, asked = shutil.disk_usage, list[str]()

    def look(path: str) -> Any:
        asked.append(path)
        time.sleep(0.1)
        return real(path)

    monkeypatch.setattr("shutil.disk_usage", look)
    machine, samples = Machine(), list[SystemSample]()

    async def ask() -> None:
        samples.append(await machine.refresh())

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)

    assert len(asked) == 1
    assert samples[0].disk_percent is not None
    assert samples == [samples[0]] * 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_one_machine_is_asked_in_two_threads_at_once(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    real, together = shutil.disk_usage, threading.Barrier(2)

    def look(path: str) -> Any:
        together.wait(10)
        return real(path)

    monkeypatch.setattr("shutil.disk_usage", look)
    monkeypatch.setattr(module, "STORAGE_SECONDS", 10)
    machine = Machine()
    with ThreadPoolExecutor(2) as pool:
        futures = [
            pool.submit(lambda: anyio.run(machine.refresh, backend=backend)) for _ in range(2)
        ]
        samples = [future.result() for future in futures]

    assert all(sample.disk_percent is not None for sample in samples)
