"""What every check of another service does besides its probing."""

import logging

import anyio
import pytest

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.lag import LoopLag
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.model import CheckResult, Status
from holistic_asgi_monitor.settings import Settings

SOON = 0.05


class Service(Probe):
    """A probe whose service does as the test says."""

    secrets = ("S3cret",)

    def __init__(self, outcome: object = None, *, required: bool = False) -> None:
        super().__init__(name="shop", required=required, timeout=SOON)
        self.outcome = outcome
        self.closed = 0

    async def unjudged(self) -> CheckResult:
        if self.outcome is None:
            await anyio.sleep_forever()
        if isinstance(self.outcome, Exception):
            raise self.outcome from OSError("S3cret")
        assert isinstance(self.outcome, CheckResult)
        return self.outcome

    def unanswered(self, seconds: float) -> UnwellError:
        return UnwellError(f"shop is silent for {seconds:g} s", status=Status.CRITICAL)

    async def aclose(self) -> None:
        self.closed += 1


async def both(service: Service) -> list[CheckResult]:
    """What the check says when called by itself, and what the runner makes of it."""
    return [await service(), (await Runner([service], timeout=9).round())["shop"]]


@pytest.mark.parametrize(
    ("required", "given", "status"),
    [
        (True, None, Status.CRITICAL),
        (False, None, Status.DEGRADED),
        (False, Status.CRITICAL, Status.CRITICAL),
        (True, Status.UNKNOWN, Status.UNKNOWN),
    ],
)
async def test_what_is_wrong_is_as_grave_as_the_check_says_or_is_needed(
    required: bool, given: Status | None, status: Status
) -> None:
    wrong = UnwellError("shop at S3cret is down", status=given, details={"at": "S3cret"})

    for result in await both(Service(wrong, required=required)):
        assert (result.status, result.message) == (status, "shop at *** is down")
        assert result.details == {"at": "***"}
        assert result.response_time_ms is not None


async def test_a_time_that_the_check_measured_stays() -> None:
    answer = CheckResult(Status.HEALTHY, "fine", {}, 1.5)

    assert [result.response_time_ms for result in await both(Service(answer))] == [1.5, 1.5]


async def test_silence_is_told_in_the_words_of_the_check() -> None:
    for result in await both(Service()):
        assert (result.status, result.message) == (Status.CRITICAL, "shop is silent for 0.05 s")


async def test_silence_while_the_loop_stood_still_says_nothing_of_the_service() -> None:
    lag = LoopLag()
    runner = Runner([Service()], timeout=9, lag=lag, clock=lambda: 5.0)
    lag.note(4.0, 9.0)
    assert (await runner.round())["shop"].status is Status.CRITICAL, "that was before"

    lag.note(5.0, SOON)
    result = (await runner.round())["shop"]

    assert result.status is Status.UNKNOWN
    assert result.message == "no answer within 0.05 s, but the event loop stood still"


@pytest.mark.parametrize("error", [ValueError("S3cret"), KeyError("S3cret")])
async def test_what_a_driver_throws_is_a_result_without_its_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for result in await both(Service(error)):
            assert result.message == f"shop raised {type(error).__name__}"

    assert "S3cret" not in caplog.text


async def test_the_cause_of_what_is_wrong_is_logged_once_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = Runner([Service(UnwellError("shop is down"))], timeout=9)
    for _ in range(3):
        await runner.round()

    (record,) = caplog.records
    assert "The check shop raised OSError" in record.getMessage()


async def test_a_runner_that_is_closed_closes_its_checks_and_goes_on_after_a_failing_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stuck(Service):
        async def aclose(self) -> None:
            raise OSError("S3cret")

    stuck, service = Stuck(), Service()
    stuck.name = "stuck"
    await Runner([stuck, service], timeout=9).aclose()

    assert service.closed == 1
    assert "The check stuck could not be closed: OSError" in caplog.text
    assert "S3cret" not in caplog.text


def test_settings_change_nothing_where_a_check_does_not_ask_them() -> None:
    service = Service()

    assert service.configured(Settings(service="x")) is service
