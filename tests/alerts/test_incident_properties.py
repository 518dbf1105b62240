"""What must hold whatever fails: random faults, random channel outages, messages under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.condition import Belief, Incident
from holistic_asgi_monitor.alerts.incidents import Draft, Incidents, Policy
from holistic_asgi_monitor.alerts.quiet import Silence, Window
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import Alert, AlertState
from tests.alerts.rounds import NOON, Reader, seen

KEYS = {"db": (), "pay": ("db",), "disk": ()}
CHANNELS = ("one", "two")
ALARMS = {"fire", "escalate", "ease", "remind", "flapping"}


@dataclass(frozen=True)
class Round:
    """What one round brings: marks by key, the seconds since the last, which channels work."""

    marks: str
    seconds: float
    up: frozenset[str]
    late: bool


ROUNDS = st.builds(
    Round,
    marks=st.text(alphabet="...ccddu? s", min_size=3, max_size=3),
    seconds=st.sampled_from([5.0, 30.0, 30.0, 30.0, 400.0]),
    up=st.frozensets(st.sampled_from(CHANNELS)),
    late=st.booleans(),
)
POLICIES = st.builds(
    Policy,
    failures=st.integers(1, 3),
    successes=st.integers(1, 3),
    ratio=st.sampled_from([(5, 10), (3, 6)]),
    grace=st.sampled_from([0.0, 0.0, 100.0]),
    flap_incidents=st.sampled_from([0, 2, 3]),
    flap_quiet=st.sampled_from([60.0, 900.0]),
)


@dataclass
class Believer:
    """A channel's reader, who complains about whatever makes no sense."""

    believed: dict[str, Belief] = field(default_factory=lambda: dict.fromkeys(KEYS, Belief.CALM))
    alerts: list[Alert] = field(default_factory=list)

    def read(self, alerts: list[Alert]) -> None:
        assert len({alert.key for alert in alerts}) == len(alerts)
        for alert in alerts:
            self._read(alert)
        self.alerts += alerts

    def _read(self, alert: Alert) -> None:
        before = self.believed[alert.key]
        if alert.reason == "clear":
            assert before is not Belief.CALM, "an all-clear without an alarm"
        elif alert.reason == "was_down":
            assert before is Belief.CALM, "it was known to be down"
        elif alert.reason in {"escalate", "ease", "remind"}:
            assert before is not Belief.CALM, "nobody knows of this"
        else:
            assert before.value != {"fire": "firing"}.get(alert.reason, alert.reason)
        over = alert.state is AlertState.RESOLVED
        assert over == (alert.reason not in ALARMS)
        assert over == (alert.ended_at is not None)
        assert alert.ended_at is None or alert.started_at <= alert.ended_at
        if over:
            self.believed[alert.key] = Belief.CALM
        elif alert.reason in {"fire", "flapping"}:
            self.believed[alert.key] = Belief.FLAPPING if alert.reason != "fire" else Belief.FIRING

    def knows(self, key: str, incident: Incident) -> bool:
        """Whether some message was about that incident."""
        ended = incident.ended_at
        assert ended is not None
        mine = [alert for alert in self.alerts if alert.key == key]
        return any(
            alert.started_at <= incident.started_at <= (alert.ended_at or incident.started_at)
            or ("earlier" in alert.details and alert.started_at >= ended)
            for alert in mine
        )


class World:
    """Incidents, two channels, and what is under way on each."""

    def __init__(self, policy: Policy) -> None:
        self.incidents = Incidents(policy, CHANNELS)
        self.readers = {channel: Believer() for channel in CHANNELS}
        self.now = 0.0
        self._under_way: dict[str, list[Draft]] = {}

    def pass_round(self, this: Round) -> None:
        self.now += this.seconds
        time: datetime = NOON + timedelta(seconds=self.now)
        observations = [
            seen(key, mark, depends_on=KEYS[key])
            for key, mark in zip(KEYS, this.marks, strict=True)
            if mark.strip()
        ]
        self.incidents.observe(observations, self.now, time)
        for channel in CHANNELS:
            self._arrive(channel)
            if channel in this.up:
                self._under_way[channel] = self.incidents.wanted(channel, self.now)
                if not this.late:
                    self._arrive(channel)

    def _arrive(self, channel: str) -> None:
        drafts = self._under_way.pop(channel, [])
        if drafts:
            self.readers[channel].read([alert_of(draft) for draft in drafts])
            self.incidents.delivered(channel, drafts, self.now)

    def settle(self, mark: str, rounds: int = 8) -> None:
        """Every key the same for some rounds, and both channels work."""
        for _ in range(rounds):
            self.pass_round(Round(mark * len(KEYS), 30.0, frozenset(CHANNELS), late=False))


@settings(max_examples=250)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=50))
def test_what_began_is_told_what_was_told_ends_and_nothing_ends_untold(
    policy: Policy, rounds: list[Round]
) -> None:
    """Messages make sense in their order, no alarm is lost, and at last everybody is calm."""
    world = World(policy)
    for each in rounds:
        world.pass_round(each)
    world.settle(".", rounds=60)

    for reader in world.readers.values():
        assert set(reader.believed.values()) == {Belief.CALM}
        for key, incident in world.incidents.recent:
            assert incident.silent or reader.knows(key, incident)
    assert [world.incidents.wanted(channel, world.now) for channel in CHANNELS] == [[], []]


@settings(max_examples=250)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=50))
def test_what_is_bad_for_long_is_known_to_all_as_soon_as_their_channel_works(
    policy: Policy, rounds: list[Round]
) -> None:
    world = World(policy)
    for each in rounds:
        world.pass_round(each)
    world.settle("c", rounds=60)

    for reader in world.readers.values():
        assert reader.believed["db"] is Belief.FIRING
        assert reader.believed["disk"] is Belief.FIRING


@settings(max_examples=100)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=50))
def test_a_channel_that_works_gets_no_more_alarms_than_there_were_incidents(
    policy: Policy, rounds: list[Round]
) -> None:
    """One that turns from flapping into a lasting one is told as both, and none comes late."""
    world = World(policy)
    for each in rounds:
        world.pass_round(Round(each.marks, each.seconds, frozenset(CHANNELS), late=False))
    incidents = len(world.incidents.recent) + len(list(world.incidents.standing()))
    reasons = [alert.reason for alert in world.readers["one"].alerts]

    assert reasons.count("fire") <= incidents
    assert reasons.count("flapping") <= incidents
    assert reasons.count("clear") <= reasons.count("fire") + reasons.count("flapping")
    assert "was_down" not in reasons


@settings(max_examples=100)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=60))
def test_nothing_is_remembered_for_ever(policy: Policy, rounds: list[Round]) -> None:
    world = World(policy)
    for each in rounds:
        world.pass_round(each)
    world.settle(".", rounds=200)

    assert world.incidents._conditions == {}
    assert world.incidents._told == {channel: {} for channel in CHANNELS}


class Quieted(World):
    """A world with maintenance and silences, in which nothing is delivered that is held back."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._windows: list[int] = []

    def order(self, what: str) -> None:
        quiet = self.incidents.quiet
        if what == "begin":
            self._windows.append(quiet.begin(Window("deploy", self.now, self.now + 300)))
        elif what == "end" and self._windows:
            quiet.end(self._windows.pop(0), self.now)
        elif what in KEYS:
            severity = self.incidents.severity(what)
            quiet.silence(what, Silence(self.now + 500, severity))

    def _arrive(self, channel: str) -> None:
        quiet = self.incidents.quiet
        known = len(self.readers[channel].alerts)
        began_before = bool(self._under_way.get(channel))
        super()._arrive(channel)
        if quiet.active(self.now) and not began_before:
            assert len(self.readers[channel].alerts) == known


ORDERS = st.sampled_from(["begin", "begin", "end", "end", "db", "pay", *["nothing"] * 6])


@settings(max_examples=250)
@given(policy=POLICIES, rounds=st.lists(st.tuples(ROUNDS, ORDERS), max_size=50))
def test_what_was_held_back_is_told_when_it_is_over_and_makes_sense_then(
    policy: Policy, rounds: list[tuple[Round, str]]
) -> None:
    world = Quieted(policy)
    for each, order in rounds:
        world.order(order)
        world.pass_round(each)
    world.settle("c", rounds=40)
    for reader in world.readers.values():
        assert Belief.CALM not in {reader.believed["db"], reader.believed["disk"]}

    world.settle(".", rounds=60)
    for reader in world.readers.values():
        assert set(reader.believed.values()) == {Belief.CALM}
        for key, incident in world.incidents.recent:
            assert incident.silent or reader.knows(key, incident)


@settings(max_examples=150)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=40))
def test_in_maintenance_nothing_at_all_is_told(policy: Policy, rounds: list[Round]) -> None:
    world = World(policy)
    world.incidents.quiet.begin(Window("deploy", 0.0, 1e9))
    for each in rounds:
        world.pass_round(each)
    assert [reader.alerts for reader in world.readers.values()] == [[], []]


MOST_IN_AN_HOUR = 30
"""Of one key: every 20 minutes two incidents, flapping and its end, each of them getting worse."""


@settings(max_examples=150)
@given(marks=st.text(alphabet="..ddcc?u", min_size=1, max_size=40), times=st.integers(1, 12))
@example(marks="ddcc.." * 3 + "." * 32, times=6)
@example(marks="ddc.." * 3 + "." * 30, times=6)
@example(marks="dc" * 20, times=12)
def test_whatever_a_check_does_an_hour_has_so_many_messages_at_most(marks: str, times: int) -> None:
    reader = Reader()
    reader.rounds((marks * times)[:480])
    moments = [now for now, alerts in reader.messages for _ in alerts]
    fullest = max((sum(now <= each < now + 3600 for each in moments) for now in moments), default=0)
    assert fullest <= MOST_IN_AN_HOUR
