"""What the application tells of itself comes into history: features, spend, tokens, users."""

from __future__ import annotations

import json
import time

import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings
from tests.web.exchanges import get


def track(tracker):
    for _ in range(3):
        tracker.track_feature("export")
    tracker.track_openai_call("gpt", cost=1.25, usage={"input": 100, "output": 20, "cached": 7})
    tracker.track_openai_call("gpt", "rate_limited")
    for user in ("ada", "bob", "ada"):
        tracker.set_user(user)


@pytest.mark.parametrize(
    ("asked", "total"),
    [
        ("feature_uses", 3),
        ("feature_uses&feature=export", 3),
        ("feature_uses&feature=import", 0),
        ("cost", 1.25),
        ("cost&model=gpt&feature=export", 1.25),
        ("tokens", 120),
        ("users", 2),
    ],
)
async def test_what_was_tracked_is_found_in_history(tmp_path, asked, total):
    url = f"sqlite:///{tmp_path}/history.sqlite"
    monitor = Monitor(
        Starlette(),
        settings=Settings(service="shop", history_url=url, access="open"),
        checks=[],
        notifiers=[],
    )
    async with monitor:
        track(monitor._parts.tracker)
        if asked == "users":
            # Of users it is only known what was written.
            await monitor._parts.recorder._open()
            await monitor._parts.recorder._close_minute(time.time())
            await monitor._parts.recorder._write_all()
        found = await get(monitor, f"/api/monitoring/history?metric={asked}&from=-2m")

    points = json.loads(found.body)["points"]
    assert sum(value or 0 for _, value in points) == pytest.approx(total)
