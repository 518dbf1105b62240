"""Results, reports and alerts as values that people's own code keeps, copies and writes."""

import copy
import json
import pickle
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import (
    Alert,
    CheckResult,
    Monitor,
    Report,
    Settings,
    Severity,
    Status,
    notifiers,
)
from holistic_asgi_monitor.model import AlertState

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RESULT = CheckResult(Status.HEALTHY)


@pytest.mark.parametrize(
    "value",
    [
        RESULT,
        Report(Status.HEALTHY, NOW, 0.5, {"own": RESULT}),
        Alert("own", Severity.INFO, AlertState.NOTICE, "A title", "", NOW),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_can_be_copied_kept_and_taken_apart(value: Any) -> None:
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value  # our own
    assert set(asdict(value)) == set(type(value).__dataclass_fields__)


def test_details_are_each_results_own() -> None:
    assert CheckResult(Status.HEALTHY).details is not RESULT.details


async def test_the_details_of_every_alert_can_be_written_as_json() -> None:
    """As a notifier of one's own does it."""
    memory, broken = notifiers.Memory(), True
    settings = Settings(
        service="x",
        history_url="off",
        startup_grace_seconds=0,
        failures_before_alert=1,
        successes_before_clear=1,
    )
    monitor = Monitor(Starlette(), settings=settings, checks=[], notifiers=[memory])
    monitor.check("own")(lambda: CheckResult(Status.DEGRADED, "x", {"a": [1]}) if broken else None)
    async with monitor:
        monitor.alert(Severity.INFO, "A message", {"b": {"c": 2}})
        with anyio.fail_after(10):
            for reasons in (("fire", "notice"), ("clear",)):
                await monitor.report(fresh=True)
                while not {alert.reason for alert in memory.alerts} >= set(reasons):
                    await anyio.sleep(0.001)
                broken = False

    for alert in memory.alerts:
        assert json.loads(json.dumps(alert.details)) == asdict(alert)["details"]
