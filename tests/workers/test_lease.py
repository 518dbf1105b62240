"""The lock on a file of the host: one holder at a time, whatever becomes of processes and files."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from holistic_asgi_monitor.workers.lease import (
    STALE_SECONDS,
    FileLease,
    LeaseError,
    lock_paths,
)

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from holistic_asgi_monitor.workers.lease import FileLease

lease = FileLease([Path(sys.argv[1])])
print(lease.hold(), flush=True)
time.sleep(600)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from holistic_asgi_monitor.workers.lease import FileLease

lease = FileLease([Path(sys.argv[1])])
assert lease.hold()
child = os.fork()
if child == 0:
    assert not lease.hold()
    os.write(1, b"child\\n")
    time.sleep(600)
os.write(1, f"{child}\\n".encode())
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.voice"


@contextmanager
def process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that runs `script` with the path; killed at the end."""
    started = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with started:
        try:
            yield started
        finally:
            started.kill()


def said(started: subprocess.Popen[str]) -> str:
    assert started.stdout is not None
    return started.stdout.readline().strip()


def held_at_last(lease: FileLease) -> bool:
    """Whether it can be had; the kernel may need a moment to take it back from a dead process."""
    for _ in range(200):
        if lease.hold():
            return True
        threading.Event().wait(0.05)
    return False


class TestFileLease:
    def test_one_has_it_until_it_lets_go(self, path: Path) -> None:
        one, other = FileLease([path]), FileLease([path])
        assert [one.hold(), other.hold(), one.hold(), other.hold()] == [True, False, True, False]
        one.release()
        assert [other.hold(), one.hold()] == [True, False]
        other.release()

    def test_of_many_threads_one_has_it(self, path: Path) -> None:
        leases = [FileLease([path]) for _ in range(16)]
        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(FileLease.hold, leases)) == 1
        for lease in leases:
            lease.release()

    def test_it_is_free_as_soon_as_its_holder_is_killed(self, path: Path) -> None:
        lease = FileLease([path])
        with process(HOLDER, path) as holder:
            assert said(holder) == "True"
            assert not lease.hold()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert held_at_last(lease)
        lease.release()

    def test_a_child_of_a_holder_neither_has_it_nor_keeps_it_for_a_dead_parent(
        self, path: Path
    ) -> None:
        lease = FileLease([path])
        with process(PARENT, path) as parent:
            words = {said(parent), said(parent)}
            (child,) = [int(word) for word in words if word.isdigit()]
            assert "child" in words
            try:
                assert not lease.hold()
                parent.kill()
                parent.wait()
                assert held_at_last(lease)
            finally:
                os.kill(child, signal.SIGKILL)
        lease.release()

    def test_the_holder_of_a_file_that_was_cleared_away_competes_anew(self, path: Path) -> None:
        one, other = FileLease([path]), FileLease([path])
        assert one.hold()
        path.unlink()
        assert other.hold()
        assert not one.hold()
        path.unlink()
        assert one.hold()
        one.release()
        other.release()

    def test_a_holder_that_is_stuck_is_not_waited_for_and_sees_it_when_it_asks(
        self, path: Path
    ) -> None:
        now = [1_000_000.0]
        one, other = (FileLease([path], wall=lambda: now[0]) for _ in range(2))
        assert one.hold()
        now[0] += STALE_SECONDS
        assert not other.hold()
        now[0] += 1
        assert [other.hold(), other.hold(), one.hold()] == [False, True, False]
        assert other.name == one.name
        other.release()
        assert one.hold()
        one.release()

    def test_a_holder_that_asks_is_not_put_aside_nor_is_a_clock_that_is_set(
        self, path: Path
    ) -> None:
        now = [1_000_000.0]
        one, other = (FileLease([path], wall=lambda: now[0]) for _ in range(2))
        for change in (STALE_SECONDS, 3600.0, -7200.0, STALE_SECONDS):
            now[0] += change
            assert [one.hold(), other.hold()] == [True, False]
        one.release()

    def test_one_that_is_dropped_is_free(self, path: Path) -> None:
        other = FileLease([path])
        one = FileLease([path])
        assert one.hold()
        del one
        gc.collect()
        assert other.hold()
        other.release()

    def test_the_host_keeps_its_name_whoever_leads_it(self, path: Path) -> None:
        one, other = FileLease([path]), FileLease([path])
        one.hold()
        one.release()
        other.hold()
        assert other.name == one.name
        other.release()

    @pytest.mark.parametrize("held", [b"", b"x" * 1000, b"\xff" * 32, b"0123"])
    def test_a_file_that_holds_no_name_gets_one(self, path: Path, held: bytes) -> None:
        path.write_bytes(held)
        lease = FileLease([path])
        lease.hold()
        assert path.read_text() == lease.name
        lease.release()

    def test_where_the_first_file_cannot_be_made_the_next_one_is_taken(
        self, path: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        lease = FileLease([tmp_path / "file" / "voice", path])
        assert lease.hold()
        assert path.exists()
        lease.release()

    def test_a_link_is_not_followed(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("precious")
        path.symlink_to(tmp_path / "precious")
        with pytest.raises(LeaseError, match="cannot be locked"):
            FileLease([path]).hold()
        assert (tmp_path / "precious").read_text() == "precious"

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o705])
    def test_a_folder_in_the_temporary_one_that_others_may_open_is_not_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
    ) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        (path,) = lock_paths("shop", "production", None)
        path.parent.mkdir()
        path.parent.chmod(mode)
        with pytest.raises(LeaseError, match="PermissionError"):
            FileLease([path]).hold()

    def test_its_release_and_its_end_may_come_at_any_time(self, path: Path) -> None:
        lease = FileLease([path])
        lease.release()
        lease.hold()
        lease.release()
        lease.release()
        assert lease.hold()
        lease.forsake()
        lease.forsake()


class TestKin:
    def test_what_one_of_a_process_holds_all_hold_until_it_is_given_back(self, path: Path) -> None:
        leases: list[FileLease] = []
        leases += [FileLease([path], kin=leases.copy) for _ in range(3)]
        one, other, third = leases
        assert [each.hold() for each in leases] == [True] * 3
        assert one.name == other.name == third.name
        stranger = FileLease([path])
        assert not stranger.hold()
        one.release()
        assert stranger.hold()
        assert [each.hold() for each in leases] == [False] * 3
        stranger.release()
        assert third.hold()
        third.release()

    def test_the_file_of_kin_is_never_put_aside(self, path: Path) -> None:
        now = [1e9]
        leases: list[FileLease] = []
        leases += [FileLease([path], kin=leases.copy, wall=lambda: now[0]) for _ in range(2)]
        one, other = leases
        one.hold()
        now[0] += 2 * STALE_SECONDS
        assert other.hold()
        assert one.hold()
        one.release()

    def test_who_waits_knows_the_name_of_its_host(self, path: Path) -> None:
        """Whoever is the first to have the file that comes after this one goes on under it."""
        one, other = FileLease([path]), FileLease([path])
        one.hold()
        other.hold()
        assert other.name == one.name
        one.release()

    def test_where_other_files_count_now_the_one_before_is_given_back(
        self, path: Path, tmp_path: Path
    ) -> None:
        paths = [path]
        one, other = FileLease(lambda: tuple(paths)), FileLease([path])
        assert one.hold()
        paths[:] = [tmp_path / "other"]
        assert one.hold()
        assert other.hold()
        one.release()
        other.release()


class TestLockPaths:
    def test_service_and_environment_tell_voices_apart_and_nothing_else(self) -> None:
        file = Path("/var/lib/shop.sqlite")
        names = {
            lock_paths(service, environment, file)
            for service in ("shop", "bank")
            for environment in ("production", "staging")
        }
        assert len(names) == 4
        assert lock_paths("shop", "production", file) == lock_paths("shop", "production", file)

    def test_the_lock_is_beside_the_history_else_in_a_folder_of_the_user(self) -> None:
        beside, spare = lock_paths("shop", "production", Path("/var/lib/shop.sqlite"))
        assert beside.parent == Path("/var/lib")
        assert beside.name.startswith("shop.sqlite.voice-")
        assert spare.parent.parent == Path(tempfile.gettempdir())
        assert str(os.getuid()) in spare.parent.name
        assert lock_paths("shop", "production", None) == (spare,)

    def test_where_nothing_can_be_written_there_is_none_and_asking_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a container with a read-only file system."""

        def nowhere() -> str:
            raise FileNotFoundError

        monkeypatch.setattr(tempfile, "gettempdir", nowhere)
        assert lock_paths("shop", "production", None) == ()
        with pytest.raises(LeaseError):
            FileLease(()).hold()
        (beside,) = lock_paths("shop", "production", tmp_path / "volume" / "shop.sqlite")
        lease = FileLease([beside])
        assert lease.hold()
        lease.release()

    @pytest.mark.parametrize("service", ["ä/../ö", "x" * 5000, "\udcff", ""])
    def test_any_service_has_a_short_plain_name(self, service: str) -> None:
        (spare,) = lock_paths(service, "production", None)
        assert len(spare.name) < 30
        assert spare.name.isascii()
