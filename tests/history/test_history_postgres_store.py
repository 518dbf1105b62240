"""What every store does, in PostgreSQL 18 and 16; asyncpg runs on asyncio only."""

import pytest

from tests.history.contract import *  # noqa: F403 - every test of it is one of this module
from tests.history.postgres_stores import Stores


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(params=["postgres", "postgres16"])
async def store(request, anyio_backend):
    stores = Stores(request.getfixturevalue(request.param))
    opened = stores.make()
    await opened.open()
    yield opened
    await stores.close()
