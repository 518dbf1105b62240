"""The time of day as history counts it: even, whatever is done to the machine's clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.history.wallclock import WallClock


class Machine:
    def __init__(self):
        self.monotonic, self.wall = 100.0, 1_700_000_000.0

    def clock(self):
        return WallClock(lambda: self.monotonic, lambda: self.wall)

    def pass_by(self, seconds):
        self.monotonic += seconds
        self.wall += seconds


@pytest.mark.parametrize(
    ("step", "followed"),
    [
        (0.5, False),
        (-0.5, False),
        (-120, False),
        (-599, False),
        (-601, True),
        (3, True),
        (86_400, True),
    ],
)
def test_small_steps_back_are_not_followed(step, followed):
    machine = Machine()
    clock = machine.clock()
    machine.pass_by(10)
    before = clock.now()
    machine.wall += step

    assert clock.now() == (machine.wall if followed else before)


def test_after_a_step_back_the_clocks_come_together_again_and_no_minute_comes_twice():
    machine = Machine()
    clock = machine.clock()
    machine.wall -= 300
    last = clock.now()
    for _ in range(4 * 3600):
        machine.pass_by(1)
        now = clock.now()
        assert 0 < now - last <= 1
        last = now

    assert last == machine.wall


def test_a_machine_that_slept_is_followed():
    machine = Machine()
    clock = machine.clock()
    machine.wall += 8 * 3600

    assert clock.now() == machine.wall


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-200, 100)), min_size=1, max_size=30))
def test_it_never_goes_back_by_steps_that_are_small_together(moves):
    machine = Machine()
    clock = machine.clock()
    last, behind = clock.now(), 0.0
    for seconds, step in moves:
        if behind - step > 599:
            continue
        behind = 0.0 if behind - step < -2 else behind - step
        machine.pass_by(seconds)
        machine.wall += step
        now = clock.now()
        assert now >= last
        last = now
