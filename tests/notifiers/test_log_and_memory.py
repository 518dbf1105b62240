"""The notifiers that need nobody else."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from holistic_asgi_monitor import Notifier
from holistic_asgi_monitor.model import Severity
from holistic_asgi_monitor.notifiers import Log, Memory
from tests.notifiers.alerts import alarm, all_clear, notice

LOGGER = "holistic_asgi_monitor.alerts"


@pytest.mark.parametrize("make", [Log, Memory])
def test_each_is_a_notifier_with_a_name_that_can_be_chosen(make: Any) -> None:
    assert isinstance(make(), Notifier)
    assert make().name == make.__name__.lower()
    assert make(name="mine").name == "mine"


async def test_an_alert_is_one_line_with_all_there_is_to_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    await Log().send([alarm(details={"impact": "bad"}), all_clear(), notice(summary="by\nmany")])

    place = "shop / production / web-1"
    assert [record.getMessage() for record in caplog.records] == [
        f"CRITICAL {place}: database is critical; no answer within 4 s; impact: bad",
        f"RESOLVED {place}: database is healthy again; answers (it lasted 4 min 10 s)",
        f"INFO {place}: Deployed; by many",
    ]


@pytest.mark.parametrize(
    ("severity", "level", "over"),
    [
        (Severity.INFO, logging.INFO, logging.INFO),
        (Severity.WARNING, logging.WARNING, logging.WARNING),
        (Severity.ERROR, logging.ERROR, logging.WARNING),
        (Severity.CRITICAL, logging.CRITICAL, logging.WARNING),
    ],
)
async def test_the_level_is_that_of_the_severity_and_an_end_alarms_nobody(
    severity: Severity, level: int, over: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    await Log().send([alarm(severity=severity), all_clear(severity=severity)])

    assert [record.levelno for record in caplog.records] == [level, over]
    assert {record.name for record in caplog.records} == {LOGGER}


async def test_a_line_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    await Log().send([alarm(title="x\r\nCRITICAL forged", summary="100% %s")])
    assert caplog.records[0].getMessage().count("\n") == 0
    assert "100% %s" in caplog.text


async def test_memory_keeps_the_newest_last_and_not_for_ever() -> None:
    memory = Memory(limit=3)
    for number in range(3):
        await memory.send([alarm(f"a{number}"), alarm(f"b{number}")])

    assert [alert.key for alert in memory.alerts] == ["b1", "a2", "b2"]
    memory.clear()
    assert memory.alerts == []
