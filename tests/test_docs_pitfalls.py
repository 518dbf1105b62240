"""docs/pitfalls.md has each of the forty-eight once, and names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = re.findall(
    r"^\| (\d+) \| (.+) \| (.+) \| `(tests/[\w/]+\.py)` \|$",
    (ROOT / "docs" / "pitfalls.md").read_text("utf-8"),
    re.MULTILINE,
)


def test_each_pitfall_is_there_once_and_in_order() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 49))


def test_each_pitfall_says_what_holds_here_and_names_tests_that_exist() -> None:
    for number, fault, here, test in ROWS:
        assert fault.strip(), number
        assert here.strip(), number
        assert re.search(r"^(async )?def test_", (ROOT / test).read_text("utf-8"), re.MULTILINE)
