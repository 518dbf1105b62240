"""The rules for spend keep what is promised of them, on services made up from a seed."""

from __future__ import annotations

import random
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = 8


@pytest.fixture(autouse=True)
def repository_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`benchmarks` is importable whatever directory pytest was started in."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.timeout(150)
def test_what_is_promised_is_kept() -> None:
    from benchmarks import spend_anomalies as benchmark

    figures = benchmark.measured(1, SERVICES)

    assert [promise.words for promise in figures.promises if not promise.kept] == []
    assert figures.caught[1.5] <= figures.caught[2.0] <= figures.caught[3.0] <= figures.caught[5.0]
    assert figures.after_step <= 4
    assert figures.cents <= 1
    assert figures.job <= 1
    for day in benchmark.PROJECTED_ON:
        assert statistics.median(figures.calm_errors["ours"][day]) < 0.15
    text = benchmark.report(figures)
    assert "| days of 3x said |" in text
    assert "| on day 20 |" in text


def test_a_seed_makes_the_same_services_again() -> None:
    from benchmarks.spend_anomalies import Shape, recorded

    first, again, other = (
        recorded(Shape.drawn(draw).days(draw, 14))
        for draw in (random.Random(3), random.Random(3), random.Random(4))
    )

    assert first == again
    assert first != other
    assert [day.weekday for day in first] == [0, 1, 2, 3, 4, 5, 6] * 2


def test_a_broken_promise_is_printed_and_ends_it_with_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import spend_anomalies as benchmark

    each = {day: [0.1] for day in benchmark.PROJECTED_ON}
    errors = {"ours": each, "linear": each}
    broken = benchmark.Figures(
        services=1,
        false_alerts={"afterwards": 2.1},
        caught=dict.fromkeys(benchmark.TIMES, 0.5),
        after_spike=0.9,
        after_step=1.0,
        cents=0.0,
        first_cents=0.0,
        job=0.0,
        delays=[1, None],
        errors=errors,
        calm_errors=errors,
    )
    monkeypatch.setattr(benchmark, "measured", lambda *_: broken)
    with pytest.raises(SystemExit, match=r"at most 2 false alerts.*65 %.*within 3 h.*missed"):
        benchmark.main([])

    assert "| loops of 10x not said within a day | 1 of 2 |" in capsys.readouterr().out
