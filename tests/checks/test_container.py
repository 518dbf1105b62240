"""What a container grants, read from folders that look like the kernel's."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.checks.container import (
    Memory,
    Quota,
    contained_cpu,
    contained_memory,
    tightest,
)

MIB = 1 << 20
UNLIMITED_V1 = "9223372036854771712"
GROUPS_V1 = "9:cpu,cpuacct:{0}\n4:memory:{0}\n1:name=systemd:{0}\n0::/\n"


def write(root: Path, files: dict[str, object]) -> Path:
    """Write `files` under `root`; the paths in the control groups begin with `group/`."""
    for name, text in files.items():
        path = root / name.replace("group/", "sys/fs/cgroup/", 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_version_2_has_the_limit_of_our_own_group(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "group/memory.max": 512 * MIB,
            "group/memory.current": 256 * MIB,
            "group/memory.stat": f"anon 1\nfile 5\ninactive_file {56 * MIB}\nactive_file 3",
        },
    )

    assert contained_memory(tmp_path) == Memory(200 * MIB, 512 * MIB)


def test_files_that_the_kernel_can_drop_are_no_use_of_memory(tmp_path: Path) -> None:
    """A container that has read many files looks full, and is not."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "group/memory.max": 1_000,
            "group/memory.current": 900,
            "group/memory.stat": "inactive_file 510",
        },
    )
    found = contained_memory(tmp_path)

    assert found is not None
    assert found.percent == pytest.approx(39.0)


def test_the_limit_of_a_parent_counts_with_what_the_parent_uses(tmp_path: Path) -> None:
    """A pod is killed for what its containers use together."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app",
            "group/pod/memory.max": 400,
            "group/pod/memory.current": 360,
            "group/pod/memory.stat": "inactive_file 10",
            "group/pod/app/memory.max": "max",
            "group/pod/app/memory.current": 100,
            "group/pod/app/memory.stat": "inactive_file 10",
        },
    )

    assert contained_memory(tmp_path) == Memory(350, 400)


def test_the_figures_of_our_own_group_serve_where_the_parent_has_none(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app",
            "group/pod/memory.max": 400,
            "group/pod/app/memory.max": 500,
            "group/pod/app/memory.current": 100,
        },
    )

    assert contained_memory(tmp_path) == Memory(100, 400)


def test_the_smallest_limit_of_all_ancestors_holds(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b/c",
            "group/a/memory.max": 300,
            "group/a/b/memory.max": 200,
            "group/a/b/memory.current": 50,
            "group/a/b/c/memory.max": 900,
        },
    )

    assert contained_memory(tmp_path) == Memory(50, 200)


@pytest.mark.parametrize("path", ["/docker/0123", "/", "/../../outside"])
def test_a_container_that_sees_only_its_own_mount_finds_its_limit_there(
    tmp_path: Path, path: str
) -> None:
    """The path names folders of the host that do not exist inside."""
    write(
        tmp_path,
        {
            "proc/self/cgroup": GROUPS_V1.format(path),
            "group/memory.limit_in_bytes": 1,
            "group/memory/memory.limit_in_bytes": 1_000,
            "group/memory/memory.usage_in_bytes": 700,
            "group/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 200",
        },
    )

    assert contained_memory(tmp_path) == Memory(500, 1_000)


def test_version_1_has_a_limit_on_a_parent_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": GROUPS_V1.format("/pod/app"),
            "group/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "group/memory/memory.usage_in_bytes": 9_999,
            "group/memory/pod/memory.limit_in_bytes": 400,
            "group/memory/pod/memory.usage_in_bytes": 100,
            "group/memory/pod/app/memory.limit_in_bytes": UNLIMITED_V1,
        },
    )

    assert contained_memory(tmp_path) == Memory(100, 400)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "group/memory.max": "max"},
        {"proc/self/cgroup": "0::/", "group/memory.max": 0},
        {"proc/self/cgroup": "0::/", "group/memory.max": "no number"},
        {"proc/self/cgroup": "0::/", "group/memory.max": 10**9},
        {
            "proc/self/cgroup": GROUPS_V1.format("/"),
            "group/memory/memory.limit_in_bytes": UNLIMITED_V1,
        },
        {"proc/self/cgroup": "nonsense\n\n::\n"},
        {},
    ],
)
def test_without_a_limit_below_the_host_s_memory_there_is_no_container(
    tmp_path: Path, files: dict[str, object]
) -> None:
    assert contained_memory(write(tmp_path, files), host_bytes=10**9 - 1) is None


def test_without_a_list_of_groups_version_2_is_looked_at(tmp_path: Path) -> None:
    write(tmp_path, {"group/memory.max": 100, "group/memory.current": 10})

    assert contained_memory(tmp_path) == Memory(10, 100)


def test_a_limit_without_figures_leaves_the_use_open(tmp_path: Path) -> None:
    found = contained_memory(write(tmp_path, {"group/memory.max": 100}))

    assert found == Memory(None, 100)
    assert found.percent is None


def test_files_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    """Folders stand where files should, which fails for every user, root among them."""
    for name in ("proc/self/cgroup", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/cpu.max"):
        (tmp_path / name).mkdir(parents=True)

    assert contained_memory(tmp_path) is None
    assert contained_cpu(tmp_path) is None


def test_files_that_are_no_text_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", "group/memory.max": "", "group/cpu.max": ""})
    for name in ("memory.max", "cpu.max", "../../../proc/self/cgroup"):
        (tmp_path / "sys/fs/cgroup" / name).write_bytes(b"\xff\xfe\x00\x80")

    assert contained_memory(tmp_path) is None
    assert contained_cpu(tmp_path) is None


def test_version_2_has_the_smallest_quota_and_its_group_s_use(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app",
            "group/pod/cpu.max": "150000 100000",
            "group/pod/cpu.stat": "usage_usec 2500000\nuser_usec 1",
            "group/pod/app/cpu.max": "max 100000",
        },
    )

    assert contained_cpu(tmp_path) == Quota(2.5, 1.5)


def test_version_1_has_a_quota_in_two_files(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": GROUPS_V1.format("/docker/x"),
            "group/cpu,cpuacct/cpu.cfs_quota_us": 50_000,
            "group/cpu,cpuacct/cpu.cfs_period_us": 100_000,
            "group/cpu,cpuacct/cpuacct.usage": 3 * 10**9,
        },
    )

    assert contained_cpu(tmp_path) == Quota(3.0, 0.5)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "group/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "group/cpu.max": "100000 0"},
        {"proc/self/cgroup": "0::/", "group/cpu.max": "100000"},
        {
            "proc/self/cgroup": GROUPS_V1.format("/"),
            "group/cpu,cpuacct/cpu.cfs_quota_us": -1,
            "group/cpu,cpuacct/cpu.cfs_period_us": 100_000,
        },
        {},
    ],
)
def test_no_quota_is_none(tmp_path: Path, files: dict[str, object]) -> None:
    assert contained_cpu(write(tmp_path, files)) is None


LIMITS = st.lists(st.one_of(st.none(), st.integers(-1, 10)))


@given(LIMITS)
def test_the_tightest_limit_is_the_smallest_positive_and_the_outermost_of_equals(
    limits: list[int | None],
) -> None:
    found = tightest((limit, Path(str(index))) for index, limit in enumerate(limits))

    positive = [limit for limit in limits if limit is not None and limit > 0]
    if not positive:
        assert found is None
    else:
        assert found == (min(positive), Path(str(limits.index(min(positive)))))


@given(limits=st.lists(st.one_of(st.just("max"), st.integers(1, 1 << 62)), min_size=1, max_size=6))
def test_any_tree_of_groups_has_the_smallest_limit_below_that_of_the_host(
    limits: list[int | str],
) -> None:
    host = 1 << 40
    with tempfile.TemporaryDirectory() as folder:
        names = ["/".join("abcdef"[:depth]) for depth in range(len(limits))]
        files: dict[str, object] = {"proc/self/cgroup": f"0::/{names[-1]}"}
        for name, limit in zip(names, limits, strict=True):
            files[f"group/{name}/memory.max"] = limit
            files[f"group/{name}/memory.current"] = 7
        found = contained_memory(write(Path(folder), files), host)

    finite = [limit for limit in limits if isinstance(limit, int) and limit <= host]
    assert found == (Memory(7, min(finite)) if finite else None)
