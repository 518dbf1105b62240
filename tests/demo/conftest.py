"""What the demo's tests share: its payments service, really listening."""

from collections.abc import AsyncIterator

import anyio
import pytest

from holistic_asgi_monitor.demo.payments import PaymentsService, Till


@pytest.fixture
async def service() -> PaymentsService:
    """Return a payments service in working order."""
    return PaymentsService()


@pytest.fixture
async def till(service: PaymentsService) -> AsyncIterator[Till]:
    """Return a till that is connected to `service`, which listens on loopback."""
    async with anyio.create_task_group() as tasks:
        yield Till(await tasks.start(service.serve))
        tasks.cancel_scope.cancel()
