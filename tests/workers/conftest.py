"""What the tests of leases share."""

import pytest
from blockbuster import BlockBuster


@pytest.fixture(autouse=True)
def _files(blockbuster: BlockBuster) -> None:
    """Let asyncpg look for certificates in the user's home, as it does whenever it connects."""
    for function in blockbuster.functions.values():
        function.can_block_in("asyncpg/connect_utils.py", "_parse_connect_arguments")
