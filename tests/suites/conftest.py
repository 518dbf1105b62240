"""Where the test suites of other projects lie."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def suites() -> Path:
    """Return the folder with one folder per project, and `tools` with what they all need."""
    folder = os.environ.get("HAM_SUITES", "")
    if not folder or not Path(folder, "tools").is_dir():
        pytest.fail(
            "HAM_SUITES names no folder with test suites: start the tests with "
            "`python3 tests/run.py`, which fetches them.",
            pytrace=False,
        )
    return Path(folder).resolve()
