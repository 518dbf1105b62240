"""One voice of several processes, whose leaders die at random: what readers must never see."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.condition import Belief
from holistic_asgi_monitor.alerts.incidents import Draft, Incidents, Policy, Snapshot
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.alerts.voice import Scope, Voice
from holistic_asgi_monitor.model import Alert
from tests.alerts.rounds import CHANNEL, NOON, seen

KEYS = {"db": (), "pay": ("db",), "disk": ()}
ALARMS = {"fire", "flapping"}
WORKERS = 3


@dataclass(frozen=True)
class Round:
    """What one round brings: marks by key, whether the channel works, how the leader ends in it.

    `death` is "" for none; it dies before it looked, "undelivered" or "unsaved" after it did.
    `late` are the workers that see the marks of the round before.
    """

    marks: str
    up: bool
    death: str
    late: frozenset[int]


def rounds(*, late: bool, doubt: bool) -> st.SearchStrategy[list[Round]]:
    deaths = ["", "", "", "", "before", "undelivered", "saved", *(["unsaved"] if doubt else [])]
    return st.lists(
        st.builds(
            Round,
            marks=st.text(alphabet="...ccdu", min_size=3, max_size=3),
            up=st.sampled_from([True, True, True, False]),
            death=st.sampled_from(deaths),
            late=st.frozensets(st.integers(0, WORKERS - 1)) if late else st.just(frozenset()),
        ),
        max_size=25,
    )


@dataclass
class Believer:
    """The reader of the channel, who counts what comes twice."""

    believed: dict[str, Belief] = field(default_factory=lambda: dict.fromkeys(KEYS, Belief.CALM))
    alerts: list[Alert] = field(default_factory=list)
    repeated: int = 0

    def read(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            before = self.believed[alert.key]
            if alert.reason == "clear":
                assert any(
                    each.key == alert.key and each.reason in ALARMS for each in self.alerts
                ), "an all-clear without an alarm"
                self.repeated += before is Belief.CALM
            elif alert.reason == "fire":
                self.repeated += before is Belief.FIRING
            self.alerts.append(alert)
            if alert.ended_at is not None:
                self.believed[alert.key] = Belief.CALM
            elif alert.reason in ALARMS:
                flaps = alert.reason == "flapping"
                self.believed[alert.key] = Belief.FLAPPING if flaps else Belief.FIRING


class Worker:
    """One process: what it sees, and whether it tells."""

    def __init__(self, policy: Policy) -> None:
        self.voice = Voice(linger=45.0)
        self.incidents = Incidents(policy, [CHANNEL], voice=self.voice)
        self.leads(False)

    def leads(self, leads: bool) -> None:
        for scope in Scope:
            self.voice.give(scope, math.inf if leads else -math.inf)


class Town:
    """Some workers, one of whom tells, and the memory that they share."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.reader = Believer()
        self.takeovers = 0
        self.doubtful = 0
        self.alarms_of_one = Believer()
        self._alone = Worker(policy)
        self._alone.leads(True)
        self._kept: Snapshot | None = None
        self._workers = [Worker(policy) for _ in range(WORKERS)]
        self._leader = 0
        self._marks = "..."
        self._workers[0].leads(True)

    def pass_round(self, this: Round) -> None:
        self.now += 30.0
        before, self._marks = self._marks, this.marks
        if this.death == "before":
            self._succeed()
        for number, worker in enumerate(self._workers):
            self._look(worker, before if number in this.late else this.marks)
        self._look(self._alone, this.marks)
        self._deliver(self._alone, self.alarms_of_one, up=this.up)
        leader = self._workers[self._leader]
        if this.death == "undelivered":
            self._save()
        elif self._deliver(leader, self.reader, up=this.up) and this.death == "unsaved":
            self.doubtful += 1
        if this.death not in {"undelivered", "unsaved"}:
            self._save()
        if this.death not in {"", "before"}:
            self._succeed()

    def settle(self, mark: str, rounds: int) -> None:
        for _ in range(rounds):
            self.pass_round(Round(mark * len(KEYS), True, "", frozenset()))

    def _look(self, worker: Worker, marks: str) -> None:
        observations = [
            seen(key, mark, depends_on=KEYS[key]) for key, mark in zip(KEYS, marks, strict=True)
        ]
        worker.incidents.observe(observations, self.now, NOON + timedelta(seconds=self.now))

    def _deliver(self, worker: Worker, reader: Believer, *, up: bool) -> bool:
        drafts: list[Draft] = worker.incidents.wanted(CHANNEL, self.now)
        if not drafts or not up:
            return False
        reader.read([alert_of(draft) for draft in drafts])
        worker.incidents.delivered(CHANNEL, drafts, self.now)
        return True

    def _save(self) -> None:
        self._kept = self._workers[self._leader].incidents.snapshot()

    def _succeed(self) -> None:
        """The leader dies and comes back as a new process, and the next one goes on from memory."""
        self._workers[self._leader] = Worker(self.policy)
        self._leader = (self._leader + 1) % WORKERS
        self.takeovers += 1
        successor = self._workers[self._leader]
        if self._kept is not None:
            successor.incidents.restore(self._kept, self.now)
        successor.leads(True)
        self._save()


POLICIES = st.builds(
    Policy,
    failures=st.integers(1, 3),
    successes=st.integers(1, 3),
    flap_incidents=st.sampled_from([0, 2, 3]),
    flap_quiet=st.sampled_from([60.0, 300.0]),
)


def lived(policy: Policy, brought: list[Round]) -> Town:
    town = Town(policy)
    for each in brought:
        town.pass_round(each)
    return town


@settings(max_examples=60)
@given(policy=POLICIES, brought=rounds(late=True, doubt=False))
def test_whoever_dies_what_was_told_is_told_as_ended(policy: Policy, brought: list[Round]) -> None:
    town = lived(policy, brought)
    town.settle(".", 16)
    assert set(town.reader.believed.values()) == {Belief.CALM}


@settings(max_examples=60)
@given(policy=POLICIES, brought=rounds(late=True, doubt=False))
def test_whoever_dies_what_goes_on_is_known(policy: Policy, brought: list[Round]) -> None:
    town = lived(policy, brought)
    town.settle("c", 16)
    assert town.reader.believed["db"] is Belief.FIRING
    assert town.reader.believed["disk"] is Belief.FIRING


@settings(max_examples=60)
@given(policy=POLICIES, brought=rounds(late=False, doubt=True))
def test_nothing_comes_twice_but_what_a_death_has_left_in_doubt(
    policy: Policy, brought: list[Round]
) -> None:
    """Of each key at most once for a death between a delivery and its saving."""
    town = lived(policy, brought)
    town.settle(".", 16)
    assert town.reader.repeated <= town.doubtful * len(KEYS)


@settings(max_examples=60)
@given(policy=POLICIES, brought=rounds(late=False, doubt=True))
def test_a_takeover_adds_one_alarm_of_a_key_at_most(policy: Policy, brought: list[Round]) -> None:
    town = lived(policy, brought)
    town.settle(".", 16)
    for key in KEYS:
        alarms, of_one = (
            sum(alert.key == key and alert.reason in ALARMS for alert in reader.alerts)
            for reader in (town.reader, town.alarms_of_one)
        )
        assert alarms <= of_one + town.takeovers
