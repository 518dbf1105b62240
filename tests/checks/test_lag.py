"""What is remembered of the event loop's delays."""

from holistic_asgi_monitor.checks.lag import MOST, WORTH_NOTING_SECONDS, LoopLag


def test_the_longest_delay_since_a_time_is_known() -> None:
    lag = LoopLag()
    for now, seconds in ((1.0, 3.0), (2.0, 0.5), (3.0, 1.0)):
        lag.note(now, seconds)

    assert [lag.worst(since) for since in (0.0, 1.5, 2.5, 3.5)] == [3.0, 1.0, 1.0, 0.0]
    assert lag.last == 1.0


def test_the_longest_delay_is_handed_over_once() -> None:
    lag = LoopLag()
    lag.note(1.0, 0.7)
    lag.note(2.0, 0.2)

    assert [lag.take_worst(), lag.take_worst()] == [0.7, 0.0]


def test_what_is_remembered_is_bounded() -> None:
    lag = LoopLag()
    for now in range(3 * MOST):
        lag.note(float(now), WORTH_NOTING_SECONDS + now)
    lag.note(1e6, WORTH_NOTING_SECONDS / 2)

    assert lag.worst(0.0) == WORTH_NOTING_SECONDS + 3 * MOST - 1
    assert lag.worst(1e6) == 0.0
