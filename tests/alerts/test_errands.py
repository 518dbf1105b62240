"""What the watch does once a minute besides: each errand by itself."""

from __future__ import annotations

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings, notifiers


async def test_one_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    done = anyio.Event()

    async def fails() -> None:
        raise RuntimeError("S3cret")

    async def works() -> None:
        done.set()

    settings = Settings(service="shop", history_url="memory:")
    monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[notifiers.Memory()])
    monitor._parts.errands.extend((fails, works))
    async with monitor:
        with anyio.fail_after(20):
            await done.wait()
        assert (await monitor.report(fresh=True)).services

    assert "A step of the watch failed, and it goes on: RuntimeError" in caplog.text
    assert "S3cret" not in caplog.text
