"""What a container suffers, read from folders that look like the kernel's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.growth import Growth, Step
from holistic_asgi_monitor.checks.strain import Pressure, Pressures, Strain, StrainMeter

V2 = "0::/pod/app\n"
V1 = "9:cpu,cpuacct:/pod/app\n4:memory:/pod/app\n1:name=systemd:/\n0::/pod/app\n"
NOTHING = Strain()


def write(root: Path, files: dict[str, object]) -> Path:
    """Write `files` under `root`; the paths in the control groups begin with `group/`."""
    for name, text in files.items():
        path = root / name.replace("group/", "sys/fs/cgroup/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def pressure(avg10: float, avg60: float) -> str:
    """A file as the kernel writes it."""
    return (
        f"some avg10={avg10:.2f} avg60={avg60:.2f} avg300=77.00 total=1\n"
        "full avg10=88.00 avg60=88.00 avg300=88.00 total=1"
    )


def cpu_v2(throttled: int, microseconds: int) -> dict[str, object]:
    return {
        "proc/self/cgroup": V2,
        "group/pod/cpu.max": "50000 100000",
        "group/pod/cpu.stat": (
            f"usage_usec 1\nnr_periods 9999\nnr_throttled {throttled}\n"
            f"throttled_usec {microseconds}\nnr_bursts 0"
        ),
        "group/pod/app/cpu.max": "max 100000",
        "group/pod/app/cpu.stat": "usage_usec 1\nnr_throttled 0\nthrottled_usec 0",
    }


def cpu_v1(throttled: int, microseconds: int) -> dict[str, object]:
    return {
        "proc/self/cgroup": V1,
        "group/cpu,cpuacct/pod/cpu.cfs_quota_us": 50_000,
        "group/cpu,cpuacct/pod/cpu.cfs_period_us": 100_000,
        "group/cpu,cpuacct/pod/cpu.stat": (
            f"nr_periods 9999\nnr_throttled {throttled}\nthrottled_time {microseconds * 1000}"
        ),
    }


def kills_v2(count: int) -> dict[str, object]:
    return {
        "proc/self/cgroup": V2,
        "group/pod/memory.events": "oom_kill 1000",
        "group/pod/app/memory.events": (
            f"low 0\nhigh 5\nmax 6\noom 7\noom_kill {count}\noom_group_kill 0"
        ),
    }


def kills_v1(count: int) -> dict[str, object]:
    return {
        "proc/self/cgroup": V1,
        "group/memory/memory.oom_control": "oom_kill 1000",
        "group/memory/pod/app/memory.oom_control": (
            f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}"
        ),
    }


@pytest.mark.parametrize("cpu", [cpu_v2, cpu_v1])
def test_throttling_is_that_of_the_group_with_the_quota_since_the_last_round(
    tmp_path: Path, cpu
) -> None:
    meter = StrainMeter(tmp_path)
    write(tmp_path, cpu(1_000, 50_000_000))
    first = meter.read(100.0)
    write(tmp_path, cpu(1_075, 53_500_000))
    second = meter.read(130.0)
    write(tmp_path, cpu(1_090, 54_000_000))
    third = meter.read(160.0)

    assert first == NOTHING
    assert (second.throttled_periods, second.throttled_seconds) == (75, 3.5)
    assert second.throttled_percent == pytest.approx(25.0)
    assert (third.throttled_periods, third.throttled_seconds) == (15, 0.5)
    assert third.throttled_percent == pytest.approx(15.0)


def test_throttling_is_forgotten_after_five_minutes(tmp_path: Path) -> None:
    meter = StrainMeter(tmp_path)
    percents = []
    for second in range(0, 631, 30):
        write(tmp_path, cpu_v2(10 * min(second, 300), 0))
        percents.append(meter.read(float(second)).throttled_percent)

    assert percents[:2] == [None, pytest.approx(100.0)]
    assert percents[10:12] == [pytest.approx(100.0), pytest.approx(90.0)]
    assert percents[-2:] == [0.0, 0.0]


@pytest.mark.parametrize(("seconds", "percent"), [(0.9, None), (1.0, 100.0), (4.0, 50.0)])
def test_throttling_takes_a_second_to_be_known_and_is_never_more_than_all_the_time(
    tmp_path: Path, seconds: float, percent: float | None
) -> None:
    """A period that began before the first reading may end after it."""
    meter = StrainMeter(write(tmp_path, cpu_v2(0, 0)))
    meter.read(0.0)
    write(tmp_path, cpu_v2(20, 0))

    assert meter.read(seconds).throttled_percent == percent


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": V2, "group/pod/cpu.max": "max 100000"},
        {"proc/self/cgroup": V2, "group/cpu.stat": "nr_throttled 5\nthrottled_usec 5"},
        {"proc/self/cgroup": V2, "group/cpu.max": "50000 100000", "group/cpu.stat": "usage_usec 1"},
        {"proc/self/cgroup": V2, "group/cpu.max": "50000 100000", "group/cpu.stat": "nr_throttled"},
        {"proc/self/cgroup": "nonsense\n::\n"},
    ],
)
def test_without_quota_or_counters_nothing_is_said(tmp_path: Path, files) -> None:
    meter = StrainMeter(write(tmp_path, files))

    assert [meter.read(0.0), meter.read(60.0)] == [NOTHING] * 2


def test_periods_are_counted_where_their_time_is_not(tmp_path: Path) -> None:
    meter = StrainMeter(write(tmp_path, cpu_v2(5, 0)))
    meter.read(0.0)
    write(tmp_path, {"group/pod/cpu.stat": "nr_throttled 8"})
    found = meter.read(60.0)

    assert (found.throttled_periods, found.throttled_seconds) == (3, None)


@pytest.mark.parametrize("kills", [kills_v2, kills_v1])
def test_kills_are_those_in_our_own_group(tmp_path: Path, kills) -> None:
    meter = StrainMeter(tmp_path)
    found = []
    for now, count in [(0.0, 3), (30.0, 5), (35.0, 5), (299.0, 6), (330.0, 6), (900.0, 6)]:
        write(tmp_path, kills(count))
        strain = meter.read(now)
        found.append((strain.oom_kills, strain.recent_oom_kills))

    # At 330 s the reading of 30 s is the last one before the five minutes.
    assert found == [(None, None), (2, 2), (0, 2), (1, 3), (0, 1), (0, 0)]


def test_a_kill_between_two_rounds_ten_minutes_apart_is_told(tmp_path: Path) -> None:
    meter = StrainMeter(tmp_path)
    for now, count in [(0.0, 0), (600.0, 0), (1_200.0, 1)]:
        found = meter.read(now) if write(tmp_path, kills_v2(count)) else None

    assert found is not None
    assert (found.oom_kills, found.recent_oom_kills) == (1, 1)


def test_the_nearest_group_above_counts_where_ours_does_not(tmp_path: Path) -> None:
    meter = StrainMeter(write(tmp_path, kills_v2(0) | {"group/pod/app/memory.events": "low 0"}))
    meter.read(0.0)
    write(tmp_path, {"group/pod/memory.events": "oom_kill 1001"})

    assert meter.read(30.0).oom_kills == 1


@pytest.mark.parametrize(
    "change",
    [
        {"group/pod/app/memory.events": "oom_kill 0"},
        {"proc/self/cgroup": "0::/pod\n"},
    ],
    ids=["gone back", "another group"],
)
def test_another_counter_is_not_compared_with_the_last(tmp_path: Path, change) -> None:
    meter = StrainMeter(write(tmp_path, kills_v2(5)))
    meter.read(0.0)
    write(tmp_path, change)
    strain = meter.read(30.0)

    assert (strain.oom_kills, strain.recent_oom_kills) == (None, None)


def test_the_smallest_memory_high_of_all_ancestors_is_told(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": V2,
            "group/memory.high": 900,
            "group/pod/memory.high": 500,
            "group/pod/app/memory.high": "max",
        },
    )

    assert StrainMeter(tmp_path).read(0.0) == Strain(memory_high_bytes=500)


def test_version_1_has_no_memory_high(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": V1, "group/memory/pod/memory.high": 500})

    assert StrainMeter(tmp_path).read(0.0) == NOTHING


OWN: dict[str, object] = {
    "proc/self/cgroup": V2,
    "proc/pressure/memory": pressure(1, 2),
    "group/memory.pressure": pressure(3, 4),
    "group/pod/cgroup.type": "domain",
    "group/pod/memory.pressure": pressure(5, 6),
    "group/pod/app/cgroup.type": "domain",
    "group/pod/app/memory.pressure": pressure(7, 8),
    "group/pod/app/cpu.pressure": pressure(9, 10.5),
    "group/pod/app/io.pressure": pressure(0, 100),
}


def test_pressure_is_that_of_our_own_group(tmp_path: Path) -> None:
    found = StrainMeter(write(tmp_path, OWN)).read(0.0).pressure

    assert found == Pressures("cgroup", Pressure(7, 8), Pressure(9, 10.5), Pressure(0, 100))


@pytest.mark.parametrize(
    ("listing", "source", "memory"),
    [
        ("0::/pod/elsewhere\n", "cgroup", Pressure(5, 6)),
        ("0::/elsewhere\n", "host", Pressure(1, 2)),
        ("0::/\n", "host", Pressure(1, 2)),
        ("", "host", Pressure(1, 2)),
    ],
)
def test_pressure_is_else_that_of_the_next_group_above_or_of_the_host(
    tmp_path: Path, listing: str, source: str, memory: Pressure
) -> None:
    write(tmp_path, OWN | {"proc/self/cgroup": listing})

    assert StrainMeter(tmp_path).read(0.0).pressure == Pressures(source, memory)


def test_a_container_that_sees_only_its_own_mount_finds_its_pressure_there(tmp_path: Path) -> None:
    """The root of all groups has no type; that of a container has."""
    write(tmp_path, OWN | {"proc/self/cgroup": "0::/x\n", "group/cgroup.type": "domain"})

    assert StrainMeter(tmp_path).read(0.0).pressure == Pressures("cgroup", Pressure(3, 4))


def test_beside_version_1_the_groups_of_version_2_tell_the_pressure(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": V1,
            "group/unified/pod/app/cgroup.type": "domain",
            "group/unified/pod/app/io.pressure": pressure(1, 2),
        },
    )

    assert StrainMeter(tmp_path).read(0.0).pressure == Pressures("cgroup", io=Pressure(1, 2))


@pytest.mark.parametrize("text", ["", "some", "some avg10=x avg60=y avg300=0 total=0", "\xff\x00"])
def test_pressure_that_cannot_be_understood_says_nothing(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"proc/pressure/memory": text})

    assert StrainMeter(tmp_path).read(0.0).pressure is None


def test_files_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    """Folders stand where files should, which fails for every user, root among them."""
    write(tmp_path, {"proc/self/cgroup": "0::/", "group/cpu.max": "50000 100000"})
    for name in (
        *(f"proc/pressure/{what}" for what in ("memory", "cpu", "io")),
        *(f"sys/fs/cgroup/{what}.pressure" for what in ("memory", "cpu", "io")),
        *(f"sys/fs/cgroup/{what}" for what in ("memory.events", "memory.high", "cpu.stat")),
    ):
        (tmp_path / name).mkdir(parents=True)

    assert StrainMeter(tmp_path).read(0.0) == NOTHING


TEXTS = st.one_of(
    st.sampled_from(
        ["max", "max 100000", "1 0", "oom_kill 1", "nr_throttled 2", "", "some avg10="]
    ),
    st.text(max_size=30),
)


@given(st.fixed_dictionaries(dict.fromkeys(sorted(cpu_v2(0, 0) | kills_v2(0) | OWN), TEXTS)))
def test_no_content_of_any_file_is_an_exception(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, str]
) -> None:
    root = tmp_path_factory.mktemp("machine")
    for name, text in contents.items():
        write(root, {name: ""})
        (root / name.replace("group/", "sys/fs/cgroup/", 1)).write_bytes(
            text.encode("utf-8", "surrogatepass")
        )
    meter = StrainMeter(root)

    assert all(isinstance(meter.read(now), Strain) for now in (0.0, 30.0))


@given(st.lists(st.tuples(st.floats(0.1, 200), st.integers(0, 50)), min_size=1, max_size=50))
def test_steps_add_up_and_the_recent_growth_is_of_the_last_minutes(
    course: list[tuple[float, int]],
) -> None:
    growth, step = Growth(), Step()
    now, value = 0.0, 0
    seen = [(now, value)]
    growth.recent("counter", value, now)
    step.since("counter", value)
    steps = []
    for passed, more in course:
        now, value = now + passed, value + more
        seen.append((now, value))
        grown, took = growth.recent("counter", value, now)
        steps.append(step.since("counter", value))

        assert any(at == pytest.approx(now - took) and was == value - grown for at, was in seen)
        assert took >= min(now, 300.0) - 1e-6
    assert steps == [more for _, more in course]
