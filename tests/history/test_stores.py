"""What every store does, in a file and in memory."""

import pytest

from holistic_asgi_monitor.history.sqlite import SQLite
from tests.history.contract import *  # noqa: F403 - every test of it is one of this module
from tests.history.samples import NOON


@pytest.fixture(params=["file", "memory"])
async def store(request, tmp_path, anyio_backend):
    path = tmp_path / "history.sqlite" if request.param == "file" else None
    opened = SQLite(path, max_mb=50, clock=lambda: NOON)
    await opened.open()
    yield opened
    await opened.close()
