"""The memory benchmark runs, and hostile requests add no series."""

from benchmarks import memory


def test_hostile_requests_add_no_series_to_the_page(capsys):
    memory.main(["--requests", "3000", "--paths", "300", "--methods", "300"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    series = {line.split("|")[3].strip() for line in lines}

    assert len(lines) == 11
    assert len(series) == 1
    assert {line.split("|")[4].strip() for line in lines} == {"0.0"}
