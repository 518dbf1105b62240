"""Who may tell of what: by a lease as it was last seen, and by what a key is about."""

from __future__ import annotations

import math

import pytest

from holistic_asgi_monitor.alerts.rules import key_of, objectives
from holistic_asgi_monitor.alerts.voice import Answer, Claim, Scope, Voice, local_keys
from holistic_asgi_monitor.settings import Settings


class TestClaim:
    def test_whoever_has_the_lease_speaks_until_it_ends_unless_it_asks_again(self) -> None:
        claim = Claim(90)
        claim.note(Answer.OURS, 0)
        assert claim.until(0) == claim.until(89) == 90
        assert claim.until(90) == -math.inf
        claim.note(Answer.OURS, 90)
        assert claim.until(90) == 180

    def test_another_holder_silences_at_once(self) -> None:
        claim = Claim(90)
        claim.note(Answer.OURS, 0)
        claim.note(Answer.ANOTHERS, 30)
        assert claim.until(30) == -math.inf

    def test_where_nobody_can_say_the_holder_goes_on(self) -> None:
        claim = Claim(90)
        claim.note(Answer.OURS, 0)
        for now in range(30, 3000, 30):
            claim.note(Answer.UNKNOWN, now)
            assert claim.until(now) == now + 90

    def test_where_nobody_can_say_others_begin_when_the_last_holder_would_have_lost_it(
        self,
    ) -> None:
        claim = Claim(90)
        claim.note(Answer.ANOTHERS, 0)
        for now in (30, 60):
            claim.note(Answer.UNKNOWN, now)
            assert claim.until(now) == -math.inf
        claim.note(Answer.UNKNOWN, 90)
        assert claim.until(90) == 180
        claim.note(Answer.ANOTHERS, 120)
        assert claim.until(120) == -math.inf

    def test_where_nobody_could_ever_say_it_speaks(self) -> None:
        claim = Claim(90)
        assert claim.until(0) == -math.inf
        claim.note(Answer.UNKNOWN, 0)
        assert claim.until(0) == 90


class TestVoice:
    def test_it_speaks_of_everything_until_it_is_taken(self) -> None:
        voice = Voice(local_keys(["system"]))
        assert voice.extent(0) == "all"
        voice.give(Scope.SERVICE, -math.inf)
        assert (voice.speaks("system", 0), voice.speaks("database", 0)) == (True, False)
        assert voice.extent(0) == "host"
        voice.give(Scope.HOST, -math.inf)
        assert voice.extent(0) == "none"

    def test_it_ends_by_itself(self) -> None:
        voice = Voice()
        voice.give(Scope.SERVICE, 10.0)
        assert [voice.speaks("database", now) for now in (9.9, 10.0)] == [True, False]


@pytest.mark.parametrize(
    ("key", "is_local"),
    [
        *(("system", True), ("machine", True), ("traffic", True), ("traffic GET /items", True)),
        *(("database", False), ("certificate payments", False), ("traffic light", True)),
        *(("slo availability", True), ("slot machine", False), ("trafficked", False)),
    ],
)
def test_what_is_of_one_host_is_known_by_its_key(key: str, is_local: bool) -> None:
    assert local_keys(["system", "machine"])(key) is is_local


def test_what_the_rules_see_in_traffic_is_of_one_host() -> None:
    settings = Settings(slo_availability_percent=99.9, slo_latency_ms=100)
    keys = [key_of("GET /"), *(objective.key for objective, _ in objectives(settings))]
    assert all(map(local_keys([]), keys))
    assert len(keys) == 3
