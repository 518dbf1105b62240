"""The history benchmark runs, and what the store promises holds in it, in small."""

import pytest

from benchmarks import history
from benchmarks.table import DOCS, markdown


def rows(text, head):
    """The rows of the table with this head, as lists of cells."""
    lines = text.splitlines()
    start = lines.index(markdown(head, []).splitlines()[0]) + 2
    table = []
    for line in lines[start:]:
        if not line.startswith("| "):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


@pytest.mark.timeout(120)
def test_a_day_of_many_endpoints_is_written_off_the_loop_and_asked_quickly(capsys):
    """Bounds are some times what is promised: the machine has other things to do."""
    history.main(["--sizes", "5", "40x2", "--minutes", "300", "--days", "0"])
    small, large = rows(capsys.readouterr().out, history.HEAD)

    assert [small[0], large[0]] == ["5 x 1", "40 x 2"]
    assert float(small[1]) < float(large[1]) < 60
    for _, _, _, _, stall, _, one, whole, _ in (small, large):
        assert float(stall.split()[0]) < 100
        assert float(one) < 600
        assert float(whole) < 600


@pytest.mark.timeout(240)
def test_a_year_stays_below_its_cap_and_keeps_the_newest_minutes_whole(capsys):
    history.main(
        [
            *("--sizes", "5", "--minutes", "30", "--days", "4"),
            *("--year-endpoints", "10", "--cap", "5"),
        ]
    )
    ((cap, largest, minute, *_, day, seconds),) = rows(capsys.readouterr().out, history.YEAR_HEAD)

    assert float(largest) < 1.3 * float(cap)
    assert float(minute.removesuffix(" d")) >= 1.5
    assert float(day.removesuffix(" d")) >= 3
    assert float(seconds) < 600


def test_the_tables_are_in_the_documentation():
    page = DOCS.read_text("utf-8")

    assert "<!-- history: begin -->" in page
    assert rows(page, history.HEAD)
    assert rows(page, history.YEAR_HEAD)
