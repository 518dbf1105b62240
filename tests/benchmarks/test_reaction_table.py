"""The table of the reaction benchmark, and its word on a promise that was broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks` is importable whatever directory pytest was started in."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let each outage take that share of what was promised, without any server."""
    from benchmarks import reaction
    from tests.servers import postgres

    class NoServer:
        def __init__(self, version: int) -> None: ...

        def close(self) -> None: ...

    def taking(share: float) -> None:
        times = {each: share * each.seconds for each in reaction.PROMISES}
        monkeypatch.setattr(reaction, "outage", lambda *_: times)

    monkeypatch.setattr(postgres, "Postgres", NoServer)
    return taking


def test_each_promise_has_its_row(
    measured: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import reaction

    measured(0.5)
    reaction.main(["--times", "3"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]

    assert lines[2] == "| killed under traffic, to the alarm | 5.0 | 5.0 | 5.0 | under 10 |"
    assert [line.split("|")[5].strip() for line in lines[2:]] == [
        *("under 10", "under 45", "under 75", "under 75"),
    ]


def test_a_broken_promise_is_printed_and_ends_it_with_a_failure(
    measured: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import reaction

    measured(1.0)
    with pytest.raises(SystemExit, match="Later than promised: back under traffic"):
        reaction.main(["--times", "1"])

    assert "| killed under traffic, to the alarm | 10.0 |" in capsys.readouterr().out
