"""Causes: which checks speak for an endpoint that fails with them."""

import pytest

from holistic_asgi_monitor.alerts.causes import CAUSE_SECONDS, Causes
from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.model import CheckResult, Status

KEY = "traffic GET /a"


def seen(status: Status) -> Observation:
    return Observation(KEY, status, depends_on=("traffic",))


def above(causes: Causes, status: Status, now: float) -> tuple[str, ...]:
    (observation,) = causes.given([seen(status)], now)
    assert observation.depends_on[0] == "traffic"
    return tuple(observation.depends_on[1:])


def noted(causes: Causes, now: float, **statuses: Status) -> None:
    causes.note({name: CheckResult(status) for name, status in statuses.items()}, now)


@pytest.mark.parametrize(
    ("later", "expected"),
    [(0.0, ("db",)), (CAUSE_SECONDS, ("db",)), (CAUSE_SECONDS + 1, ())],
)
def test_a_check_that_began_a_few_minutes_before_is_one(
    later: float, expected: tuple[str, ...]
) -> None:
    causes = Causes()
    noted(causes, 100.0, db=Status.CRITICAL, redis=Status.HEALTHY)
    noted(causes, 150.0, db=Status.CRITICAL)

    assert above(causes, Status.UNHEALTHY, 100.0 + later) == expected


@pytest.mark.parametrize(
    ("check", "endpoint", "speaks"),
    [
        (Status.DEGRADED, Status.DEGRADED, True),
        (Status.DEGRADED, Status.UNHEALTHY, False),
        (Status.UNKNOWN, Status.DEGRADED, False),
        (Status.CRITICAL, Status.UNHEALTHY, True),
    ],
)
def test_one_that_is_milder_does_not_speak_for_what_is_worse(
    check: Status, endpoint: Status, speaks: bool
) -> None:
    causes = Causes()
    noted(causes, 0.0, db=check)

    assert above(causes, endpoint, 1.0) == (("db",) if speaks else ())


def test_it_stays_one_however_long_both_last_and_a_moment_longer() -> None:
    causes = Causes()
    noted(causes, 0.0, db=Status.CRITICAL)
    assert above(causes, Status.UNHEALTHY, 10.0) == ("db",)
    assert above(causes, Status.HEALTHY, 5_000.0) == ("db",)
    assert above(causes, Status.UNHEALTHY, 5_030.0) == ("db",)
    assert not causes.are_over(KEY)

    noted(causes, 6_000.0, db=Status.HEALTHY)
    assert above(causes, Status.UNHEALTHY, 6_001.0) == ("db",)
    assert causes.are_over(KEY)


def test_what_begins_anew_is_judged_anew() -> None:
    causes = Causes()
    noted(causes, 0.0, db=Status.CRITICAL)
    above(causes, Status.UNHEALTHY, 10.0)
    noted(causes, 100.0, db=Status.HEALTHY)
    above(causes, Status.HEALTHY, 110.0)
    noted(causes, 1_000.0, redis=Status.CRITICAL)

    assert above(causes, Status.UNHEALTHY, 1_010.0) == ("redis",)


def test_what_had_no_cause_is_not_over_with_one() -> None:
    causes = Causes()
    above(causes, Status.UNHEALTHY, 0.0)

    assert not causes.are_over(KEY)
    assert not causes.are_over("traffic GET /other")


def test_what_nobody_observes_is_forgotten() -> None:
    causes = Causes()
    noted(causes, 0.0, db=Status.CRITICAL)
    above(causes, Status.UNHEALTHY, 0.0)
    causes.given([], 30.0)
    noted(causes, 60.0, db=Status.HEALTHY)

    assert not causes.are_over(KEY)
