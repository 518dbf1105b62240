"""The check of the system: its thresholds, its sentences, where they come from."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from holistic_asgi_monitor import checks
from holistic_asgi_monitor.checks.machine import Machine
from holistic_asgi_monitor.checks.strain import Pressure, Pressures
from holistic_asgi_monitor.checks.system import SystemSample, judge_system, size
from holistic_asgi_monitor.model import Check, ConfigurationError, Status
from holistic_asgi_monitor.settings import Settings

MIB = 1 << 20
SAMPLE = SystemSample(
    cpu_percent=12.4,
    cpu_cores=2.0,
    memory_bytes=100 * MIB,
    memory_percent=40.0,
    memory_limit_bytes=512 * MIB,
    source="cgroup",
    disk_percent=50.0,
    disk_bytes=20 * 1024 * MIB,
    open_files=10,
    open_files_limit=1024,
)


class Still(Machine):
    """A machine whose figures do not change."""

    def __init__(self, sample: SystemSample) -> None:
        super().__init__(Path("/nowhere"))
        self.figures = sample

    def sample(self) -> SystemSample:
        return self.figures


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_percent": 91.0}, "memory at 91 % of 512 MiB (threshold 80 %)"),
        ({"memory_percent": 80.0}, "memory at 80 % of 512 MiB (threshold 80 %)"),
        ({"cpu_percent": 95.2}, "CPU at 95 % of 2 cores over 5 min (threshold 90 %)"),
        (
            {"cpu_percent": 90.0, "cpu_cores": 1.0},
            "CPU at 90 % of 1 core over 5 min (threshold 90 %)",
        ),
        (
            {"cpu_percent": 99.0, "cpu_cores": 0.5},
            "CPU at 99 % of 0.5 cores over 5 min (threshold 90 %)",
        ),
        ({"disk_percent": 93.1}, "disk at 93 % of 20 GiB (threshold 90 %)"),
        (
            {"disk_percent": None, "disk_silent": True, "open_files": None},
            "the disk of the working directory does not answer",
        ),
        ({"open_files": 1000}, "open files at 98 % of 1024 (threshold 90 %)"),
        (
            {"memory_percent": 99.0, "disk_percent": 99.0},
            "memory at 99 % of 512 MiB (threshold 80 %); disk at 99 % of 20 GiB (threshold 90 %)",
        ),
    ],
)
def test_a_figure_at_its_threshold_is_degraded(change: dict[str, Any], message: str) -> None:
    result = judge_system(replace(SAMPLE, **change))

    assert (result.status, result.message) == (Status.DEGRADED, message)


class Clock:
    """A clock that only the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def pressed(source: str, avg10: float, avg60: float) -> Pressures:
    return Pressures(source, memory=Pressure(avg10, avg60), cpu=Pressure(99.0, 99.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"oom_kills": 1, "recent_oom_kills": 1},
            "a process was killed for lack of memory in the last 5 min",
        ),
        (
            {"oom_kills": 0, "recent_oom_kills": 3},
            "3 processes were killed for lack of memory in the last 5 min",
        ),
        (
            {"throttled_percent": 25.0},
            "CPU throttled for 25 % of the time over 5 min (threshold 25 %)",
        ),
        (
            {"pressure": pressed("cgroup", 20.0, 31.4)},
            "waiting for memory 31 % of the time over 1 min (threshold 20 %)",
        ),
        (
            {"pressure": pressed("host", 90.0, 20.0), "source": "host"},
            "waiting for memory 20 % of the time over 1 min (threshold 20 %)",
        ),
        (
            {"disk_percent": 95.0, "recent_oom_kills": 1},
            (
                "disk at 95 % of 20 GiB (threshold 90 %); "
                "a process was killed for lack of memory in the last 5 min"
            ),
        ),
    ],
)
def test_what_the_container_suffers_is_degraded(change: dict[str, Any], message: str) -> None:
    result = judge_system(replace(SAMPLE, **change))

    assert (result.status, result.message) == (Status.DEGRADED, message)


@pytest.mark.parametrize(
    "change",
    [
        {"oom_kills": 0, "recent_oom_kills": 0, "throttled_percent": 24.9},
        {"throttled_periods": 500, "throttled_seconds": 90.0},
        {"pressure": pressed("cgroup", 19.9, 90.0)},
        {"pressure": pressed("cgroup", 90.0, 19.9)},
        {"pressure": pressed("host", 90.0, 90.0)},
        {"pressure": Pressures("cgroup", cpu=Pressure(90.0, 90.0), io=Pressure(90.0, 90.0))},
        {"memory_high_bytes": 1},
    ],
    ids=["little", "seconds", "past", "passing", "a neighbour's", "of others", "high"],
)
def test_what_is_little_passing_or_a_neighbour_s_is_healthy(change: dict[str, Any]) -> None:
    assert judge_system(replace(SAMPLE, **change)) == replace(
        judge_system(SAMPLE), details=asdict(replace(SAMPLE, **change))
    )


@pytest.mark.parametrize(
    "change", [{}, {"memory_percent": 79.9, "cpu_percent": 89.9, "disk_percent": 89.9}]
)
def test_below_every_threshold_it_is_healthy(change: dict[str, Any]) -> None:
    assert judge_system(replace(SAMPLE, **change)).status is Status.HEALTHY


def test_a_healthy_system_says_how_it_is() -> None:
    assert judge_system(SAMPLE).message == (
        "memory at 40 % of 512 MiB; CPU at 12 % of 2 cores over 5 min; disk at 50 % of 20 GiB; "
        "open files at 1 % of 1024"
    )


def test_what_is_not_known_is_not_judged() -> None:
    result = judge_system(SystemSample())

    assert (result.status, result.message) == (Status.HEALTHY, "no figures can be read here")


def test_the_details_are_the_sample_as_json() -> None:
    details = judge_system(replace(SAMPLE, pressure=pressed("cgroup", 1.0, 2.0))).details

    assert json.loads(json.dumps(details)) == details
    assert details["pressure"] == {
        "source": "cgroup",
        "memory": {"avg10": 1.0, "avg60": 2.0},
        "cpu": {"avg10": 99.0, "avg60": 99.0},
        "io": None,
    }
    assert details["memory_limit_bytes"] == 512 * MIB
    assert details["source"] == "cgroup"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "0 KiB"),
        (0, "0 KiB"),
        (512, "0.5 KiB"),
        (1024, "1 KiB"),
        (MIB - 1, "1024 KiB"),
        (MIB, "1 MiB"),
        (512 * MIB, "512 MiB"),
        (1000 * MIB, "1000 MiB"),
        (1536 * MIB, "1.5 GiB"),
        (3 << 40, "3 TiB"),
        (5000 << 40, "5000 TiB"),
    ],
)
def test_sizes_read_well(count: int | None, text: str) -> None:
    assert size(count) == text


THRESHOLDS = {"memory_percent": 30.0, "cpu_percent": 5.0, "disk_percent": 45.0}


@pytest.mark.parametrize("name", THRESHOLDS)
async def test_a_threshold_of_the_check_itself_holds(name: str) -> None:
    thresholds: dict[str, Any] = {name: THRESHOLDS[name]}
    own = checks.System(machine=Still(SAMPLE), **thresholds)
    settings = Settings(memory_percent=99.0, cpu_percent=99.0, disk_percent=99.0)

    for check in (own, own.configured(settings)):
        assert f"(threshold {THRESHOLDS[name]:g} %)" in (await check()).message


@pytest.mark.parametrize("name", THRESHOLDS)
async def test_a_threshold_that_is_left_out_is_the_settings(name: str) -> None:
    thresholds: dict[str, Any] = {name: THRESHOLDS[name]}
    check = checks.System(machine=Still(SAMPLE))

    assert (await check()).status is Status.HEALTHY
    assert (await check.configured(Settings(**thresholds))()).status is Status.DEGRADED


@pytest.mark.parametrize("name", THRESHOLDS)
@pytest.mark.parametrize("value", [-1, 101, "80", float("nan")])
def test_a_threshold_that_is_no_percentage_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"The check system has {name}="):
        checks.System(**{name: value})


def test_a_system_check_keeps_its_options_when_it_is_configured() -> None:
    check: Check = checks.System(
        name="machine", required=True, timeout=1.0, interval=60.0, depends_on=("a",)
    ).configured(Settings())

    assert (check.name, check.required, check.timeout) == ("machine", True, 1.0)
    assert (check.interval, check.depends_on) == (60.0, ("a",))


async def test_monitors_that_share_a_check_have_a_machine_each() -> None:
    check = checks.System()
    configured = [check.configured(Settings()) for _ in range(2)]
    for each in configured:
        await each()

    assert len({id(each._machine) for each in (check, *configured)}) == 3
    assert all(each.sample().disk_percent is not None for each in configured)


async def test_a_machine_that_was_given_is_asked_in_every_monitor() -> None:
    check = checks.System(machine=Still(SAMPLE)).configured(Settings())

    assert (await check()).details["memory_limit_bytes"] == 512 * MIB


async def test_a_kill_stays_in_the_answer_though_the_next_round_follows_soon(
    tmp_path: Path,
) -> None:
    """After a first bad result the watch looks again within seconds."""
    events = tmp_path / "sys/fs/cgroup/memory.events"
    events.parent.mkdir(parents=True)
    clock = Clock()
    check = checks.System(machine=Machine(tmp_path, clock=clock))
    told = []
    for clock.now, count in [(0.0, 7), (30.0, 8), (35.0, 8), (300.0, 8), (335.0, 8)]:
        events.write_text(f"oom_kill {count}\n")
        told.append("killed for lack of memory" in (await check()).message)

    assert told == [False, True, True, True, False]


async def test_this_system_can_be_checked() -> None:
    check = checks.System()
    result = await check()

    assert result.message.startswith("memory at ")
    assert "disk at " in result.message
    assert result.details["disk_percent"] is not None
    assert check.sample().disk_percent == result.details["disk_percent"]
