"""Four processes on one file, without a key of the settings: each user counts once."""

import subprocess
import sys
from pathlib import Path

import anyio

from holistic_asgi_monitor import Monitor, Settings

WORKER = """
import sys
import anyio
from holistic_asgi_monitor import Monitor, Settings
from starlette.applications import Starlette

async def main(url, number):
    settings = Settings(service="shop", history_url=url, instance=f"web-{number}")
    monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[])
    async with monitor:
        for user in range(300):
            monitor.set_user(f"user {user + 100 * number}")
        for _ in range(number + 1):
            monitor.track_feature("export")

anyio.run(main, sys.argv[1], int(sys.argv[2]))
"""


def test_four_workers_on_one_file_count_users_exactly_and_so_does_a_restart(tmp_path):
    url = f"sqlite:///{tmp_path}/history.sqlite"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(number)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for number in range(4)
    ]
    for worker in workers:
        _, error = worker.communicate(timeout=50)
        assert (worker.returncode, error) == (0, "")

    async def after_a_restart():
        from starlette.applications import Starlette

        settings = Settings(service="shop", history_url=url)
        monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[])
        async with monitor:
            monitor.set_user("user 5")
            monitor.set_user("somebody else")
            monitor.track_feature("export")
            return await monitor._parts.statistics.as_dict()

    stats = anyio.run(after_a_restart)

    assert stats["users"] == {"day": 601, "week": 601, "month": 601}
    assert stats["features"] == [{"feature": "export", "uses": 11, "users": 0}]
    assert b"user 5" not in (tmp_path / "history.sqlite").read_bytes()
