"""The rules beside the checks: single endpoints and certificates, as tables."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.condition import Observation
from holistic_asgi_monitor.alerts.rules import (
    MOST_KEYS,
    MOST_WORST,
    EndpointTraffic,
    certificates,
    endpoints,
    explained,
    key_of,
    objectives,
)
from holistic_asgi_monitor.alerts.verdicts import Minute
from holistic_asgi_monitor.checks.traffic import TrafficWindow
from holistic_asgi_monitor.model import CheckResult, Severity, Status
from holistic_asgi_monitor.settings import Settings

SETTINGS = Settings(service="shop")


def endpoint(
    name: str,
    count: int = 100,
    errors: int = 0,
    p95_ms: float | None = 10.0,
    latest: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> EndpointTraffic:
    return EndpointTraffic(name, TrafficWindow(count, errors, count, p95_ms), Minute(*latest))


def observed(
    *seen: EndpointTraffic, remembered: tuple[str, ...] = (), settled: bool = True
) -> dict[str, Observation]:
    found = endpoints(seen, remembered, SETTINGS, settled=settled)
    assert len({each.key for each in found}) == len(found)
    return {each.key: each for each in found}


class TestEndpoints:
    def test_one_that_fails_is_told_with_its_template_and_its_numbers(self) -> None:
        (observation,) = observed(endpoint("GET /items/{item_id}", 340, 34)).values()

        assert observation == Observation(
            key="traffic GET /items/{item_id}",
            status=Status.DEGRADED,
            summary="10 % of 340 requests in 5 min failed (threshold 5 %)",
            depends_on=("traffic",),
            details={"count": 340, "errors": 34, "error_rate_percent": 10.0, "p95_ms": 10.0},
        )

    @pytest.mark.parametrize(
        ("count", "errors", "p95_ms", "severity"),
        [
            (100, 5, 10.0, None),
            (100, 6, 10.0, Severity.WARNING),
            (100, 51, 10.0, Severity.ERROR),
            (100, 0, 5_000.0, None),
            (100, 0, 5_100.0, Severity.WARNING),
            (19, 19, 60_000.0, None),
        ],
    )
    def test_thresholds_are_those_of_the_check(
        self, count: int, errors: int, p95_ms: float, severity: Severity | None
    ) -> None:
        found = observed(endpoint("GET /a", count, errors, p95_ms)).values()

        assert [each.severity for each in found] == ([severity] if severity else [])

    def test_a_remembered_one_is_observed_when_it_is_well_again(self) -> None:
        key = key_of("GET /a")
        found = observed(endpoint("GET /a"), endpoint("GET /b"), remembered=(key,))

        assert {each.key: each.status for each in found.values()} == {key: Status.HEALTHY}

    @pytest.mark.parametrize("settled", [True, False])
    @pytest.mark.parametrize("patient", [True, False])
    @pytest.mark.parametrize(
        ("seen", "status", "words"),
        [
            ((), Status.SKIPPED, "no requests any more"),
            ((endpoint("GET /a", 3),), Status.HEALTHY, "of 3 requests in 5 min none failed"),
        ],
    )
    def test_too_few_requests_are_an_end_after_a_while_and_once_five_minutes_have_been_seen(
        self,
        seen: tuple[EndpointTraffic, ...],
        status: Status,
        words: str,
        patient: bool,
        settled: bool,
    ) -> None:
        key = key_of("GET /a")
        waiting = (key,) if patient else ()
        found = endpoints(seen, (key,), SETTINGS, settled=settled, patient=waiting)
        said = [(each.status, each.summary, each.kept) for each in found]

        end = (Status.SKIPPED, "", True) if patient else (status, words, False)
        assert said == [end] * settled

    @pytest.mark.parametrize("failing", [endpoint("GET /a", 3, 3), endpoint("GET /a", 3, 0, 9e3)])
    def test_few_requests_that_fail_are_no_end(self, failing: EndpointTraffic) -> None:
        key = key_of("GET /a")
        (found,) = observed(failing, remembered=(key,)).values()

        assert (found.severity, found.kept) == (None, True)

    @pytest.mark.parametrize(
        ("errors", "p95_ms", "over"),
        [
            (25, 10.0, True),
            (26, 10.0, False),
            (50, 10.0, False),
            (0, 4_000.0, True),
            (0, 4_001.0, False),
            (0, 5_000.0, False),
        ],
    )
    def test_what_is_known_is_over_well_below_what_opens_it(
        self, errors: int, p95_ms: float, over: bool
    ) -> None:
        key = key_of("GET /a")
        seen = endpoint("GET /a", 1_000, errors, p95_ms)
        (found,) = observed(seen, remembered=(key,)).values()

        assert (found.status is Status.HEALTHY, found.kept) == (over, not over)
        assert found.summary == f"{errors / 10:.3g} % of 1,000 requests in 5 min failed"
        assert observed(seen) == {}, "and nothing of it is new"

    def test_a_graver_one_takes_the_place_of_the_mildest_that_is_told(self) -> None:
        slow = [endpoint(f"GET /{number}", 100, 0, 6_000.0 + number) for number in range(20)]
        known = tuple(key_of(each.name) for each in slow)
        found = observed(*slow, endpoint("POST /gone", 30, 30), remembered=known)
        also_slow = observed(*slow, endpoint("POST /gone", 30, 0, 9e4), remembered=known)

        assert found[key_of("POST /gone")].status is Status.UNHEALTHY
        assert [key for key, each in found.items() if each.kept] == [key_of("GET /0")]
        assert key_of("POST /gone") not in also_slow
        assert not [key for key, each in also_slow.items() if each.kept]

    def test_enough_requests_are_judged_before_five_minutes_have_been_seen(self) -> None:
        key = key_of("GET /a")
        for errors, status in ((0, Status.HEALTHY), (90, Status.UNHEALTHY)):
            seen = endpoint("GET /a", 100, errors)
            found = observed(seen, remembered=(key,), settled=False)
            assert found[key].status is status

    @pytest.mark.parametrize(
        ("latest", "over"),
        [
            ((100, 0, 100, 0), True),
            ((100, 1, 100, 1), True),
            ((99, 0, 99, 0), False),
            ((100, 2, 100, 0), False),
            ((1_000, 12, 1_000, 12), True),
            ((1_000, 13, 1_000, 0), False),
            ((1_000, 0, 1_000, 13), False),
            ((100, 0, 0, 0), True),
        ],
    )
    def test_a_minute_with_many_requests_and_hardly_a_bad_one_is_the_end(
        self, latest: tuple[int, int, int, int], over: bool
    ) -> None:
        key = key_of("GET /a")
        seen = endpoint("GET /a", 2_000, 400, 9_000.0, latest)
        observation = observed(seen, remembered=(key,))[key]

        assert observation.status is (Status.HEALTHY if over else Status.DEGRADED)
        assert ("in the last minute failed" in observation.summary) is over

    @pytest.mark.parametrize(
        ("latest", "over"), [((0, 0, 0, 0), True), ((9, 0, 9, 0), True), ((9, 1, 9, 0), False)]
    )
    def test_where_its_cause_is_over_a_minute_without_a_bad_request_is_the_end(
        self, latest: tuple[int, int, int, int], over: bool
    ) -> None:
        key = key_of("GET /a")
        seen = EndpointTraffic(
            "GET /a", TrafficWindow(90, 40, 90, 1.0), Minute(*latest), cause_over=True
        )

        assert (observed(seen, remembered=(key,))[key].severity is None) is over

    def test_of_many_the_worst_are_told(self) -> None:
        seen = [endpoint(f"GET /{number}", 1_000, 100 + number) for number in range(50)]
        failing = endpoint("GET /gone", 30, 30)
        found = observed(*seen, failing)

        worst = {key_of(f"GET /{number}") for number in range(50 - MOST_WORST + 1, 50)}
        assert set(found) == {key_of("GET /gone"), *worst}

    @given(
        seen=st.lists(
            st.builds(
                endpoint,
                st.integers(0, 200).map("GET /{}".format),
                st.integers(20, 1_000),
                st.integers(0, 20),
                st.sampled_from([1.0, 9_000.0]),
            ),
            unique_by=lambda each: each.name,
            max_size=120,
        ),
        data=st.data(),
    )
    def test_keys_are_bounded_whatever_happens(
        self, seen: list[EndpointTraffic], data: st.DataObject
    ) -> None:
        remembered: tuple[str, ...] = ()
        for _ in range(4):
            found = observed(*seen, remembered=remembered)
            bad = [key for key, each in found.items() if each.severity is not None]
            assert set(remembered) <= set(found), "each is observed until it is over"
            assert len(bad) <= MOST_WORST or set(bad) <= set(remembered)
            assert len(found) <= max(MOST_KEYS, len(remembered))
            remembered = tuple(found)
            # Another part of them goes bad each time, and all keys stay open.
            kept = data.draw(st.sets(st.sampled_from(seen))) if seen else set()
            seen = [
                each if each in kept else EndpointTraffic(each.name, TrafficWindow(50, 0, 50, 1.0))
                for each in seen
            ]

    @given(count=st.integers(20, 1_000), errors=st.integers(0, 999), p95_ms=st.floats(1, 90_000))
    def test_more_errors_and_more_latency_are_never_less_grave(
        self, count: int, errors: int, p95_ms: float
    ) -> None:
        def status(errors: int, p95_ms: float) -> Status:
            seen = endpoint("GET /a", count, min(errors, count), p95_ms)
            found = observed(seen, remembered=(key_of("GET /a"),))[key_of("GET /a")]
            return Status.UNKNOWN if found.kept else found.status

        assert status(errors + 1, p95_ms) >= status(errors, p95_ms)
        assert status(errors, 2 * p95_ms) >= status(errors, p95_ms)


class TestCertificates:
    @pytest.mark.parametrize(
        ("days", "severity", "words"),
        [
            (90, None, "expires in 90 days"),
            (14, None, "expires in 14 days"),
            (13, Severity.WARNING, "expires in 13 days"),
            (3, Severity.WARNING, "expires in 3 days"),
            (2, Severity.CRITICAL, "expires in 2 days"),
            (1, Severity.CRITICAL, "expires in 1 day"),
            (0, Severity.CRITICAL, "expires in less than a day"),
            (-1, Severity.CRITICAL, "has expired"),
        ],
    )
    def test_bad_below_14_days_and_critical_below_3(
        self, days: int, severity: Severity | None, words: str
    ) -> None:
        details = {
            "certificate_days_left": days,
            "certificate_expires_at": "2026-12-08T10:00:00+00:00",
        }
        result = CheckResult(Status.HEALTHY, "answered 200", details)
        (observation,) = certificates({"payments": result})

        assert (observation.key, observation.severity) == ("certificate payments", severity)
        assert observation.summary == f"the certificate of payments {words}, on 2026-12-08"
        assert observation.details["certificate_expires_at"].startswith("2026-12-08")

    @pytest.mark.parametrize("details", [{}, {"certificate_days_left": None}, {"ip_family": "x"}])
    def test_a_check_that_saw_none_says_nothing(self, details: dict[str, Any]) -> None:
        assert list(certificates({"payments": CheckResult(Status.CRITICAL, "", details)})) == []

    def test_a_known_one_is_kept_while_its_check_sees_none(self) -> None:
        known = ("certificate payments", "certificate gone")
        found = list(certificates({"payments": CheckResult(Status.CRITICAL, "refused")}, known))

        assert [(each.key, each.kept) for each in found] == [("certificate payments", True)]

    def test_without_a_day_the_sentence_ends_earlier(self) -> None:
        result = CheckResult(Status.HEALTHY, "", {"certificate_days_left": 5})
        (observation,) = certificates({"own": result})

        assert observation.summary == "the certificate of own expires in 5 days"
        assert observation.details == {}


class TestObjectives:
    @pytest.mark.parametrize(
        ("availability", "slow_ms", "expected"),
        [
            (None, None, []),
            (99.9, None, [("slo availability", 99.9, None)]),
            (None, 300, [("slo latency", 99.0, 300.0)]),
            (99.9, 300, [("slo availability", 99.9, None), ("slo latency", 99.0, 300.0)]),
            (95, 300, [("slo availability", 95.0, None), ("slo latency", 95.0, 300.0)]),
        ],
    )
    def test_they_are_off_unless_set(
        self, availability: float | None, slow_ms: float | None, expected: list[Any]
    ) -> None:
        settings = Settings(slo_availability_percent=availability, slo_latency_ms=slow_ms)
        found = objectives(settings)

        assert [(each.key, each.percent, slow) for each, slow in found] == expected


def test_bad_news_gets_the_endpoints_that_suffer_first_among_its_details() -> None:
    bad = Observation("database", Status.CRITICAL, "gone", details={"size": 1})

    assert list(explained(bad, ["GET /a 9 % failed"]).details) == ["endpoints", "size"]
    assert explained(bad, []) is bad
    good = Observation("database", Status.HEALTHY)
    assert explained(good, ["GET /a 9 % failed"]) is good
