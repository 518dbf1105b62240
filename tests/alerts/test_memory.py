"""What a restart must not lose: written, read, and gone on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holistic_asgi_monitor.alerts.channel import Doubt, Identity
from holistic_asgi_monitor.alerts.condition import Belief, Condition, Incident, Policy
from holistic_asgi_monitor.alerts.incidents import Incidents, Reason, Snapshot, Told
from holistic_asgi_monitor.alerts.memory import (
    CONDITION_CHARACTERS,
    DETAIL_CHARACTERS,
    MOST_TITLES,
    NOTICE_CHARACTERS,
    SUMMARY_CHARACTERS,
    VERSION,
    ChannelMemory,
    Memory,
    Moments,
    UnreadableError,
    read,
    written,
)
from holistic_asgi_monitor.alerts.quiet import Silence, Window
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import Alert, AlertState, Severity, Status
from tests.alerts.rounds import NOON, Reader, seen
from tests.alerts.test_incident_properties import CHANNELS, KEYS, POLICIES, ROUNDS, Round, World

BOOTED = 1_000_000.0
"""How much the monotonic clock of the process before was ahead."""


def moments(now: float) -> Moments:
    return Moments(now, NOON + timedelta(seconds=now))


def over_a_restart(memory: Memory, now: float, later: float = 0.0) -> tuple[Memory, float]:
    """The memory as the next process finds it, `later` seconds on, and its monotonic now."""
    text = json.dumps(written(memory, moments(now)), allow_nan=False)
    time = NOON + timedelta(seconds=now + later)
    restarted = now + later - BOOTED
    return read(json.loads(text), Moments(restarted, time)), restarted


def restored(incidents: Incidents, now: float, later: float = 0.0) -> tuple[Incidents, float]:
    memory, restarted = over_a_restart(Memory(incidents.snapshot()), now, later)
    after = Incidents(incidents.policy, CHANNELS)
    after.restore(memory.snapshot, restarted)
    return after, restarted


def wanted(incidents: Incidents, channel: str, now: float) -> dict[str, Alert]:
    return {draft.key: alert_of(draft) for draft in incidents.wanted(channel, now)}


@settings(max_examples=150)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=40))
def test_what_is_written_is_what_is_read(policy: Policy, rounds: list[Round]) -> None:
    world = World(policy)
    for each in rounds:
        world.pass_round(each)
    before = world.incidents.snapshot()
    text = json.dumps(written(Memory(before), moments(world.now)))
    after = read(json.loads(text), moments(world.now)).snapshot

    assert after.conditions == before.conditions
    assert after.told == before.told
    assert after.parents == before.parents
    bare = [(key, replace(incident, details={})) for key, incident in before.recent]
    assert [(key, replace(incident, details={})) for key, incident in after.recent] == bare


@settings(max_examples=250)
@given(policy=POLICIES, rounds=st.lists(ROUNDS, max_size=40))
def test_after_a_restart_the_same_is_wanted(policy: Policy, rounds: list[Round]) -> None:
    """As soon as all was looked at again, with what is seen then."""
    world = World(replace(policy, grace=0.0))
    for each in rounds:
        world.pass_round(each)
    after, now = restored(world.incidents, world.now)
    assert [after.wanted(channel, now) for channel in CHANNELS] == [[], []]

    time = NOON + timedelta(seconds=world.now)
    look = [seen(key, "c", depends_on=above) for key, above in KEYS.items()]
    world.incidents.observe(look, world.now, time)
    after.observe(look, now, time)
    for channel in CHANNELS:
        assert wanted(after, channel, now) == wanted(world.incidents, channel, world.now)


class Crashing(World):
    """A world whose process dies now and then, with what was under way.

    The next one finds what was saved, which is done after each change that matters.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._saved: dict[str, Any] = {}
        self._revision = -1

    def crash(self) -> None:
        self._under_way.clear()
        if self._saved:
            memory = read(json.loads(json.dumps(self._saved)), moments(self.now))
            self.incidents = Incidents(self.incidents.policy, CHANNELS)
            self.incidents.restore(memory.snapshot, self.now)
            self._revision = self.incidents.revision

    def pass_round(self, this: Round) -> None:
        super().pass_round(this)
        if self.incidents.revision != self._revision:
            self._revision = self.incidents.revision
            self._saved = written(Memory(self.incidents.snapshot()), moments(self.now))


@settings(max_examples=250)
@given(
    policy=POLICIES,
    rounds=st.lists(st.tuples(ROUNDS, st.booleans()), max_size=50),
)
def test_restarts_lose_no_alarm_double_none_and_end_what_was_told(
    policy: Policy, rounds: list[tuple[Round, bool]]
) -> None:
    world = Crashing(policy)
    for each, crash in rounds:
        world.pass_round(each)
        if crash:
            world.crash()
    world.settle("c", rounds=10)
    for reader in world.readers.values():
        assert Belief.CALM not in {reader.believed["db"], reader.believed["disk"]}

    world.crash()
    world.settle(".", rounds=60)
    for reader in world.readers.values():
        assert set(reader.believed.values()) == {Belief.CALM}
        for key, incident in world.incidents.recent:
            assert incident.silent or reader.knows(key, incident)


class TestRestart:
    """A reader whose process restarts after some rounds, `away` seconds later."""

    @pytest.mark.parametrize("grace", [0.0, 60.0])
    @pytest.mark.parametrize(
        ("before", "up", "after", "reasons"),
        [
            ("cc", True, "cccc", []),
            ("cc", True, "..", ["clear"]),
            ("cc", False, "c", ["fire"]),
            ("cc", False, "....", ["was_down"]),
            ("cc..", True, "....", []),
            ("dd", True, "cc", ["escalate"]),
            ("cc..cc..cc", True, "cc..", []),
            ("....", True, "....", []),
        ],
    )
    def test_what_is_missing_is_told_and_nothing_again(
        self, grace: float, before: str, up: bool, after: str, reasons: list[str]
    ) -> None:
        first = Reader(up=lambda _: up)
        first.rounds(before)
        second = Reader(Policy(grace=grace))
        now = 30.0 * len(before)
        memory = read(written(Memory(first.incidents.snapshot()), moments(now)), moments(now))
        second.incidents.restore(memory.snapshot, now)
        second.rounds(after, start=now + 30)
        assert second.reasons == reasons

    def test_the_all_clear_names_the_beginning_before_the_restart(self) -> None:
        first, second = Reader(), Reader()
        first.rounds("cc")
        memory, now = over_a_restart(Memory(first.incidents.snapshot()), 60.0, later=3600.0)
        second.incidents.restore(memory.snapshot, now)
        second.rounds("..", start=now)
        (all_clear,) = second.alerts
        assert all_clear.started_at == NOON

    def test_reminders_come_when_they_are_due(self) -> None:
        first, second = Reader(), Reader()
        first.rounds("cc")
        memory, now = over_a_restart(Memory(first.incidents.snapshot()), 60.0, later=3600.0)
        second.incidents.restore(memory.snapshot, now)
        second.rounds("c", start=now)
        assert second.reasons == ["remind"]

    def test_a_long_time_away_is_no_end(self) -> None:
        first, second = Reader(), Reader()
        first.rounds("cc")
        memory, now = over_a_restart(Memory(first.incidents.snapshot()), 60.0, later=30 * 86400.0)
        second.incidents.restore(memory.snapshot, now)
        second.round(now, [seen("other", ".")])
        assert second.reasons == []

    def test_what_nobody_looks_at_any_more_is_over_after_a_while(self) -> None:
        first, second = Reader(), Reader()
        first.rounds("cc")
        second.incidents.restore(first.incidents.snapshot(), 60.0)
        for number in range(30):
            second.round(90.0 + 30 * number, [seen("other", ".")])
        (now, (alert,)), *_ = second.messages
        assert (alert.title, 600 <= now - 60 <= 660) == ("db is no longer checked", True)

    def test_a_clock_that_was_set_back_meanwhile_puts_nothing_into_the_future(self) -> None:
        first, second = Reader(), Reader()
        first.rounds("cc")
        memory, now = over_a_restart(Memory(first.incidents.snapshot()), 60.0, later=-3600.0)
        second.incidents.restore(memory.snapshot, now)
        second.rounds("c" * 31, start=now)
        assert second.reasons == ["remind"]

    def test_a_new_channel_hears_of_what_goes_on(self) -> None:
        first = Reader()
        first.rounds("cc")
        after = Incidents(Policy(), ["slack", "webhook"])
        after.restore(first.incidents.snapshot(), 60.0)
        after.observe([seen("db", "c")], 60.0, NOON)
        assert after.wanted("slack", 60.0) == []
        assert [draft.reason for draft in after.wanted("webhook", 60.0)] == [Reason.FIRE]


def notice(title: str, **details: Any) -> Alert:
    return Alert(
        f"notice: {title}", Severity.INFO, AlertState.NOTICE, title, "", NOON, details=details
    )


class TestTheRest:
    def test_all_of_it_comes_back(self) -> None:
        doubts: dict[Identity, Doubt] = {
            ("db", Reason.FIRE, 3, Severity.CRITICAL, 0): Doubt(2, 160.0),
            ("notice: Deployed", NOON): Doubt(1, 100.0),
        }
        memory = Memory(
            snapshot=Snapshot({}, {}),
            channels={"slack": ChannelMemory((notice("Deployed", by="ci"),), doubts, {"a": [1]})},
            titles={"notice: Deployed": 40.0},
            windows=(Window("deploy", 90.0, 200.0), Window("block", 90.0, 200.0, lasting=False)),
            silences={"db": Silence(150.0, Severity.WARNING), "pay": Silence(300.0)},
        )
        after = read(json.loads(json.dumps(written(memory, moments(100.0)))), moments(100.0))

        assert after.channels == memory.channels
        assert after.titles == memory.titles
        assert after.windows == memory.windows[:1]
        assert after.silences == memory.silences

    def test_what_is_over_meanwhile_lies_in_the_past_and_nothing_is_longer_than_a_day(self) -> None:
        memory = Memory(Snapshot({}, {}), windows=(Window("deploy", 0.0, 100.0),))
        after, now = over_a_restart(memory, 50.0, later=60.0)
        assert after.windows[0].until == now - 10.0

        memory = Memory(Snapshot({}, {}), silences={"db": Silence(90000.0)})
        after, now = over_a_restart(memory, 0.0, later=-86400.0)
        assert after.silences["db"].until == now + 86400.0


def told() -> Memory:
    reader = Reader()
    reader.rounds({"db": "cccc", "pay": "cc..", "disk": "cc.."})
    return Memory(reader.incidents.snapshot(), {"slack": ChannelMemory((notice("Deployed"),))})


class TestWrongContent:
    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (None, "not what a monitor writes"),
            ([], "not what a monitor writes"),
            ({}, "not what a monitor writes"),
            ({"version": "1"}, "not what a monitor writes"),
            ({"version": VERSION + 1}, "version 2"),
            ({"version": VERSION}, "KeyError"),
        ],
    )
    def test_it_is_refused_with_a_reason(self, content: Any, why: str) -> None:
        with pytest.raises(UnreadableError, match=why):
            read(content, moments(0.0))

    @pytest.mark.parametrize(
        "change",
        [
            lambda values: values["conditions"]["db"].pop("bad"),
            lambda values: values["conditions"]["db"].update(bad=-1),
            lambda values: values["conditions"]["db"].update(bad=True),
            lambda values: values["conditions"]["db"].update(good=1),
            lambda values: values["conditions"]["db"].update(row_began=None),
            lambda values: values["conditions"]["db"].update(row_began="2026-01-01T00:00:00"),
            lambda values: values["conditions"]["db"].update(changed="soon"),
            lambda values: values["conditions"]["db"].update(seen=float("nan")),
            lambda values: values["conditions"]["db"]["open"].update(severity="dire"),
            lambda values: values["conditions"]["db"]["open"].update(details=[1]),
            lambda values: values["conditions"]["db"]["open"].update(worst="healthy"),
            lambda values: values["conditions"]["db"]["open"].update(status="skipped"),
            lambda values: values["told"]["slack"]["db"].update(started_at=None),
            lambda values: values["told"]["slack"]["db"].update(belief=[]),
            lambda values: values["recent"][0][1].update(ended_at=None),
            lambda values: values.update(conditions=[]),
            lambda values: values.update(titles={"a": None, "b": "x"}),
            lambda values: values.update(windows=[{"reason": "deploy"}]),
            lambda values: values.update(silences={"db": {"until": 1e400, "severity": None}}),
            lambda values: values["channels"]["slack"].update(doubts=[[["db"], 1, 2.0]]),
            lambda values: values["channels"]["slack"]["notices"][0].pop("title"),
            lambda values: values["channels"]["slack"]["notices"][0].update(runbook_url=1),
        ],
    )
    def test_a_part_that_is_wrong_is_the_whole(self, change: Callable[[Any], object]) -> None:
        values = json.loads(json.dumps(written(told(), moments(120.0))))
        read(values, moments(120.0))
        change(values)
        with pytest.raises(UnreadableError):
            read(values, moments(120.0))

    def test_what_an_older_one_did_not_write_is_not_missed(self) -> None:
        values = written(told(), moments(120.0))
        for name in ("worst", "worst_summary"):
            del values["conditions"]["db"]["open"][name]
        condition = read(values, moments(120.0)).snapshot.conditions["db"]
        assert condition.open is not None
        milder = condition.open.seeing(seen("db", "d"))

        assert milder.worst is condition.open.status

    def test_what_a_newer_one_adds_is_left_out(self) -> None:
        values = written(told(), moments(120.0))
        values["later"] = values["conditions"]["db"]["later"] = 1
        assert read(values, moments(120.0)).snapshot.conditions["db"].open is not None

    @settings(max_examples=150)
    @given(data=st.data())
    def test_whatever_stands_there_it_is_refused_or_can_be_gone_on_from(
        self, data: st.DataObject
    ) -> None:
        """Each value in turn is replaced by another one, and the machine goes on for some rounds."""
        values = json.loads(json.dumps(written(told(), moments(120.0))))
        _spoil(data, values)
        try:
            memory = read(values, moments(120.0))
        except UnreadableError:
            return
        incidents = Incidents(Policy(), ["slack"])
        incidents.restore(memory.snapshot, 120.0)
        for number, mark in enumerate("cc....cc.."):
            now = 150.0 + 30 * number
            keys = ("db", "pay", "disk")
            time = NOON + timedelta(seconds=now)
            incidents.observe([seen(key, mark) for key in keys], now, time)
            drafts = incidents.wanted("slack", now)
            assert all(alert_of(draft).title for draft in drafts)
            incidents.delivered("slack", drafts, now)


def _spoil(data: st.DataObject, values: Any) -> None:
    """Replace one value somewhere in `values`."""
    while True:
        places = list(values) if isinstance(values, dict) else list(range(len(values)))
        place = data.draw(st.sampled_from(places))
        inner = values[place]
        if isinstance(inner, dict | list) and inner and data.draw(st.integers(0, 5)):
            values = inner
            continue
        values[place] = data.draw(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text()
            | st.just([])
            | st.just({})
            | st.sampled_from(["critical", "firing", "calm", NOON.isoformat()])
        )
        return


class TestBounds:
    def test_the_gravest_are_kept_where_there_is_not_room_for_all(self) -> None:
        reader = Reader(Policy(flap_incidents=0))
        details = {"text": "x" * (DETAIL_CHARACTERS - 100)}
        keys = [f"check {number}" for number in range(600)]
        for number in range(2):
            marks = {key: "c" if key.endswith("7") else "d" for key in keys}
            observations = [seen(key, mark, details=details) for key, mark in marks.items()]
            reader.round(30.0 * number, observations)
        values = written(Memory(reader.incidents.snapshot()), moments(60.0))

        assert len(json.dumps(values["conditions"])) < 1.1 * CONDITION_CHARACTERS
        assert 0 < len(values["conditions"]) < 600
        assert {key for key in keys if key.endswith("7")} <= set(values["conditions"])
        assert set(values["told"]["slack"]) == set(values["conditions"])

    def test_texts_and_details_are_cut(self) -> None:
        incident = Incident(
            1,
            NOON,
            severity=Severity.ERROR,
            status=Status.UNHEALTHY,
            summary="x" * 10_000,
            details={"text": "x" * DETAIL_CHARACTERS},
        )
        condition = Condition(serial=1, open=incident)
        memory = Memory(Snapshot({"db": condition}, {"slack": {"db": Told()}}))
        values = written(memory, moments(0.0))
        kept = values["conditions"]["db"]["open"]
        assert (len(kept["summary"]), kept["details"]) == (SUMMARY_CHARACTERS, {})

    @pytest.mark.parametrize("loop", [True, False])
    def test_details_that_json_cannot_hold_are_left_out(self, loop: bool) -> None:
        details: dict[str, Any] = {"text": {1, 2}}
        if loop:
            details["text"] = details
        condition = Condition(serial=1, open=Incident(1, NOON, details=details))
        values = written(Memory(Snapshot({"db": condition}, {})), moments(0.0))
        assert values["conditions"]["db"]["open"]["details"] == {}

    def test_the_newest_messages_of_the_users_own_are_kept(self) -> None:
        notices = tuple(notice(f"{number}", text="x" * 5000) for number in range(100))
        memory = Memory(
            Snapshot({}, {}),
            {"slack": ChannelMemory(notices, notifier="x" * 1_000_000)},
            titles={f"notice: {number}": 0.0 for number in range(1000)},
        )
        values = written(memory, moments(0.0))
        channel = values["channels"]["slack"]
        assert len(json.dumps(channel["notices"])) < 1.1 * NOTICE_CHARACTERS
        assert channel["notices"][-1]["title"] == "99"
        assert channel["notifier"] is None
        assert len(values["titles"]) == MOST_TITLES
