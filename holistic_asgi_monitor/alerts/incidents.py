"""What each channel still has to be told of every key, and why.

Pure, as `condition` is. What was told is a channel's own, and only what was delivered counts.
Nothing is queued: every draft of a message is the difference between what is so and what was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum

from holistic_asgi_monitor.alerts.condition import (
    Belief,
    Condition,
    Incident,
    Observation,
    Policy,
    abandoned,
    burns,
    excused,
    kept,
    speaking,
    step,
)
from holistic_asgi_monitor.alerts.joining import joined
from holistic_asgi_monitor.alerts.quiet import Quiet
from holistic_asgi_monitor.alerts.rules import TRAFFIC
from holistic_asgi_monitor.alerts.voice import Voice
from holistic_asgi_monitor.model import Severity, Status

__all__ = (
    "Draft",
    "Incidents",
    "Observation",
    "Policy",
    "Reason",
    "Snapshot",
    "Told",
    "decide",
)

MAX_KEYS = 1000
RECENT_INCIDENTS = 100
RESTORED_SECONDS = 600.0
PART_SECONDS = 300.0
ELSEWHERE_SECONDS = 60.0
"""How long it may take at most until we know what another process sees as we do."""


class Reason(Enum):
    """Why something is said now."""

    FIRE = "fire"
    ESCALATE = "escalate"
    EASE = "ease"
    REMIND = "remind"
    FLAPPING = "flapping"
    CLEAR = "clear"
    WAS_DOWN = "was_down"


@dataclass(frozen=True, slots=True)
class Told:
    """What a channel's reader believes of one key, by what was delivered.

    `serial` is the newest incident the reader knows of, `severity` and `started_at` are what was
    said of the one that goes on. `alarmed` is when the alarm was delivered, `last` when anything
    was, `reminders` how many of them since the alarm.
    """

    belief: Belief = Belief.CALM
    severity: Severity = Severity.INFO
    serial: int = 0
    started_at: datetime | None = None
    alarmed: float = 0.0
    last: float = 0.0
    reminders: int = 0

    def after(self, condition: Condition, reason: Reason) -> Told:
        """What is believed once a message with `reason` has been delivered, but for the times."""
        current = condition.current
        if current is None:
            return Told(serial=condition.serial)
        known = replace(self, severity=current.severity, serial=condition.serial)
        if reason is Reason.REMIND:
            return replace(known, reminders=self.reminders + 1)
        if reason is Reason.EASE:
            return known
        began = self.started_at if reason is Reason.ESCALATE else current.started_at
        return replace(known, belief=condition.belief, started_at=began, reminders=0)


@dataclass(frozen=True, slots=True)
class Draft:
    """Something a channel should be told: of which key, why, out of which state of things.

    `affected` are the keys in trouble that depend on this one.
    """

    key: str
    reason: Reason
    condition: Condition
    told: Told
    affected: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """How urgent the message is; for an end, how urgent what ended was."""
        if self.condition.current is not None:
            return self.condition.current.severity
        unknown = self.condition.ended_since(self.told.serial)
        return max([self.told.severity, *(incident.severity for incident in unknown)])

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes it the same message when it is tried again."""
        told = self.told
        return self.key, self.reason, self.condition.serial, self.severity, told.reminders

    def delivered(self, now: float) -> Told:
        """What is believed once it has arrived, at `now`."""
        after = self.told.after(self.condition, self.reason)
        alarm = self.reason in {Reason.FIRE, Reason.ESCALATE, Reason.FLAPPING}
        return replace(after, last=now, alarmed=now if alarm else after.alarmed)


def decide(
    condition: Condition, told: Told, policy: Policy, *, now: float, hushed: bool = False
) -> Reason | None:
    """Why something is to be said of a key now; None where the reader knows enough.

    `hushed` keeps alarms and reminders back, but not the end of what the reader takes to be so.
    """
    if condition.belief is Belief.CALM:
        return _end(condition, told)
    if hushed:
        return None
    if condition.belief is Belief.FLAPPING is not told.belief:
        return Reason.FLAPPING
    if condition.belief is not told.belief:
        # What may be over with the next round is not worth an alarm that comes so late.
        late = told.belief is Belief.CALM and _may_be_over(condition)
        return None if late else Reason.FIRE
    return _more_of_the_same(condition, told, policy, now=now)


def _end(condition: Condition, told: Told) -> Reason | None:
    if condition.bad:
        # Nobody is to read of an end while it begins anew; a good round will come, or an incident.
        return None
    if told.belief is not Belief.CALM:
        return Reason.CLEAR
    return Reason.WAS_DOWN if condition.ended_since(told.serial) else None


def _may_be_over(condition: Condition) -> bool:
    """Whether the last round was good, and the next one may end it."""
    incident = condition.open
    return incident is not None and condition.good > 0 and not incident.by_ratio


def _more_of_the_same(
    condition: Condition, told: Told, policy: Policy, *, now: float
) -> Reason | None:
    assert condition.current is not None
    severity = condition.current.severity
    if severity > told.severity:
        return Reason.ESCALATE
    if condition.latest is not None and condition.latest.kept:
        # Nothing bad was seen by which it goes on: that needs no reminder, and is no end.
        return None
    rested = now - told.last >= policy.cooldown
    if severity < told.severity:
        return Reason.EASE if rested else None
    due = now - told.alarmed >= policy.reminder(told.reminders)
    # While something flaps, its quiet moments need no reminder, and nothing does that may be over.
    is_bad = condition.open is not None and not _may_be_over(condition)
    return Reason.REMIND if rested and due and is_bad else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `Incidents` knows: by key what is so, by channel and key what was told.

    `recent` are the last incidents that ended, with their keys, newest last; `parents` says what
    a key depends on.
    """

    conditions: Mapping[str, Condition]
    told: Mapping[str, Mapping[str, Told]]
    recent: tuple[tuple[str, Incident], ...] = ()
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_WELL = Condition()
_UNTOLD = Told()


class Incidents:
    """The conditions of all keys, and what each of `channels` was told of them.

    `quiet` says when nothing is told, `voice` what is told by another process. `revision` changes
    with everything that a restart should not lose.
    """

    def __init__(
        self,
        policy: Policy,
        channels: Sequence[str],
        quiet: Quiet | None = None,
        voice: Voice | None = None,
    ) -> None:
        self.policy = policy
        self.quiet = Quiet() if quiet is None else quiet
        self.voice = Voice() if voice is None else voice
        self.revision = 0
        self.refused = 0
        """How many observations were left out because too many keys are in trouble."""
        self.has_let_go = False
        """Whether what was told is no longer known here, since another process tells."""
        self.elsewhere: frozenset[str] = frozenset()
        """The keys of which another process, which tells of them, sees that they are in trouble."""
        self.recent: deque[tuple[str, Incident]] = deque(maxlen=RECENT_INCIDENTS)
        """The last incidents that ended, newest last, with their keys."""
        self._conditions: dict[str, Condition] = {}
        self._told: dict[str, dict[str, Told]] = {name: {} for name in channels}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._well: set[str] = set()
        self._unseen: set[str] = set()
        self._born: float | None = None

    def observe(
        self, observations: Iterable[Observation], now: float, time: datetime
    ) -> list[Severity]:
        """Take in what a round saw, of all keys or of some.

        Gives the severity of each incident that began and is kept back: by the startup's grace,
        by a parent, by maintenance or a silence, or because its key is known to flap.
        """
        seen = list(observations)
        if self._born is None:
            self._born = now
        before = {each.key: self._conditions.get(each.key, _WELL) for each in seen}
        for observation in seen:
            self._observe(observation, now, time)
        self._forget(now, time)
        self._let_speak(now)
        self._leave_to_others(now)
        kept_back = list(self._kept_back(before, now))
        self._tidy(now)
        return kept_back

    def wanted(self, channel: str, now: float) -> list[Draft]:
        """What the channel should be told now, the gravest first and what is over last."""
        drafts = []
        affected = self._affected()
        for key, condition in self._conditions.items():
            if self.is_mute(key, now):
                continue
            told = self._told[channel].get(key, _UNTOLD)
            hushed = self._hushed(key, now)
            reason = decide(condition, told, self.policy, now=now, hushed=hushed)
            if reason is not None:
                below = tuple(sorted(affected.get(key, ())))
                drafts.append(Draft(key, reason, condition, told, below))
        return sorted(drafts, key=lambda each: (each.reason in _ENDS, -each.severity.gravity))

    def is_mute(self, key: str, now: float) -> bool:
        """Whether nothing at all is told of a key.

        In maintenance, where it was not looked at, and where another process tells of it.
        """
        seen = self._conditions.get(key, _WELL).seen
        kept_back = key in self._unseen or self.quiet.mutes(seen, now)
        return kept_back or not self.voice.speaks(key, now)

    def delivered(self, channel: str, drafts: Iterable[Draft], now: float) -> None:
        """Note that the channel's reader has these messages since `now`."""
        for draft in drafts:
            self._told[channel][draft.key] = draft.delivered(now)
        self.revision += 1
        self._tidy(now)

    def severity(self, key: str) -> Severity | None:
        """How bad it is with a key now; None where it is well."""
        current = self._conditions.get(key, _WELL).current
        return None if current is None else current.severity

    @property
    def believed(self) -> frozenset[str]:
        """The keys that some reader takes to be in trouble."""
        return frozenset(
            key
            for told in self._told.values()
            for key, each in told.items()
            if each.belief is not Belief.CALM
        )

    def snapshot(self) -> Snapshot:
        """What there is to remember over a restart."""
        return Snapshot(
            conditions=dict(self._conditions),
            told={channel: dict(told) for channel, told in self._told.items()},
            recent=tuple(self.recent),
            parents=dict(self._parents),
        )

    def restore(
        self, snapshot: Snapshot, now: float, mine: Callable[[str], bool] = lambda _: True
    ) -> None:
        """Go on from what was known before a restart, or by who told of these keys until now.

        Only keys that are `mine` are taken over. Nothing is told of a key until it was looked at
        again, and one that is not looked at in the next `RESTORED_SECONDS` is over; what was seen
        here meanwhile counts. What was told to a channel that is none any more is left out.
        """
        seen = now - max(0.0, self.policy.forget - RESTORED_SECONDS)
        found = {key: each for key, each in snapshot.conditions.items() if mine(key)}
        for key, known in list(found.items())[:MAX_KEYS]:
            own = self._conditions.get(key)
            if own is not None and key not in self._unseen:
                self._conditions[key] = joined(own, known, self.policy)
            elif own is not None or len(self._conditions) < MAX_KEYS:
                self._conditions[key] = replace(known, seen=seen)
                self._unseen.add(key)
        for channel, told in self._told.items():
            then = snapshot.told.get(channel, {})
            told.update({key: each for key, each in then.items() if key in found})
            for key in [key for key in told if mine(key) and key not in then]:
                del told[key]
        if not self.recent:
            self.recent.extend((key, each) for key, each in snapshot.recent if mine(key))
        for key, above in list(snapshot.parents.items())[:MAX_KEYS]:
            if mine(key):
                self._parents.setdefault(key, above)
        self.has_let_go = False
        self.revision += 1

    @property
    def remembered(self) -> tuple[str, ...]:
        """The keys of which something is open, or not long enough over to be forgotten."""
        return tuple(self._conditions)

    def standing(self) -> Iterator[tuple[str, Incident, bool]]:
        """Each key in trouble, with what goes on, and whether it is flapping."""
        for key, condition in self._conditions.items():
            if condition.current is not None:
                yield key, condition.current, condition.flapping is not None

    def _observe(self, observation: Observation, now: float, time: datetime) -> None:
        key = observation.key
        known = self._conditions.get(key)
        if observation.kept:
            self._keep(known, observation, now)
            return
        before = known or _WELL
        after = step(before, observation, self.policy, now=now, time=time)
        if self.quiet.active(now):
            after = excused(after)
        if after.current is not None:
            self.quiet.worsened(key, after.current.severity)
        if known is None and not after.idle and len(self._conditions) >= MAX_KEYS:
            self.refused += 1
            return
        # A good round that may be the end of what the grace keeps back lets nothing out.
        self._remember(observation, now, well=after.open is None)
        self._become(key, before, after)

    def _keep(self, known: Condition | None, observation: Observation, now: float) -> None:
        if known is None:
            return
        self._remember(observation, now, well=False)
        self._conditions[observation.key] = kept(known, observation, now=now)
        if known.current is not None:
            self._unseen.discard(observation.key)

    def _remember(self, observation: Observation, now: float, *, well: bool) -> None:
        """Keep what the grace and the inhibition ask for, also of a key that is well."""
        self._parents.pop(observation.key, None)
        if observation.depends_on:
            self._parents[observation.key] = observation.depends_on
        if len(self._parents) > MAX_KEYS:
            # The one that was not observed for the longest time.
            del self._parents[next(iter(self._parents))]
        if not self._in_grace(now):
            self._well.clear()
        elif well and observation.status is Status.HEALTHY and len(self._well) < MAX_KEYS:
            self._well.add(observation.key)

    def _forget(self, now: float, time: datetime) -> None:
        """End what nobody has observed for long."""
        for key, condition in self._conditions.items():
            if now - condition.seen > self.policy.forget:
                self._become(key, condition, abandoned(condition, now=now, time=time))

    def _become(self, key: str, before: Condition, after: Condition) -> None:
        self._conditions[key] = after
        self._unseen.discard(key)
        self.revision += _outline(before) != _outline(after)
        if before.open is not None and after.open is None and after.last is not None:
            self.recent.append((key, after.last))

    def _let_speak(self, now: float) -> None:
        """Mark the incidents that are not kept back, so that their end will be told as well."""
        for key, condition in self._conditions.items():
            if condition.open is not None and condition.open.silent and not self._hushed(key, now):
                self._conditions[key] = speaking(condition)
                self.revision += 1

    def _leave_to_others(self, now: float) -> None:
        """Let go of what another process tells of, some time after it is over.

        What was told by this one is not known to be so any more. What goes on, or has just ended,
        is kept as if nobody knew of it, since the other process may die before it tells.
        """
        for key, condition in self._conditions.items():
            # Who has only not asked in time may well be the one that still tells.
            if not self.voice.is_left(key):
                continue
            is_old = condition.open is None and now - condition.changed > self.voice.linger
            for told in self._told.values():
                before = told.get(key, _UNTOLD)
                self.has_let_go |= before.belief is not Belief.CALM
                told[key] = Told(serial=condition.serial if is_old else before.serial)

    def _kept_back(self, before: Mapping[str, Condition], now: float) -> Iterator[Severity]:
        for key, old in before.items():
            new = self._conditions.get(key, old)
            if new.open is None or new.serial == old.serial or not self.voice.speaks(key, now):
                continue
            if old.flapping is not None or self._hushed(key, now):
                yield new.open.severity

    def _tidy(self, now: float) -> None:
        """Let go of what every channel knows."""
        for key, condition in list(self._conditions.items()):
            beliefs = [told.get(key, _UNTOLD) for told in self._told.values()]
            known = min((told.serial for told in beliefs), default=condition.serial)
            untold = tuple(each for each in condition.ended if each.serial > known)
            left = self._conditions[key] = replace(condition, ended=untold)
            # What depends on it may need a moment longer.
            over = left.idle and not burns(left, self.policy, now=now)
            if over and all(told.belief is Belief.CALM for told in beliefs):
                del self._conditions[key]
                # What is always well is let go of in each round: through it others depend on more.
                if left.serial or left.good > 1:
                    self._parents.pop(key, None)
                for told_of in self._told.values():
                    told_of.pop(key, None)

    def _in_grace(self, now: float) -> bool:
        return self._born is None or now - self._born < self.policy.grace

    def _hushed(self, key: str, now: float) -> bool:
        condition = self._conditions.get(key, _WELL)
        if self.quiet.silences(key, now) or self.quiet.mutes(condition.seen, now):
            return True
        is_kept_back = condition.open is not None and condition.open.silent
        is_known = condition.open is not None and not is_kept_back
        if not is_known and key not in self._well and self._in_grace(now):
            return True
        # What was kept back so far and may be over with the next round is not to be told now.
        return (is_kept_back and condition.good > 0) or self._is_inhibited(key, now)

    def _is_inhibited(self, key: str, now: float) -> bool:
        return any(self._speaks_for(parent, key, now) for parent in self._ancestors(key))

    def _speaks_for(self, parent: str, key: str, now: float) -> bool:
        above = self._conditions.get(parent)
        # One that is silenced tells nobody, of others no more than of itself.
        if above is None or self.quiet.silences(parent, now):
            return False
        if not burns(above, self.policy, now=now, for_traffic=key.partition(" ")[0] == TRAFFIC):
            return False
        if self._is_seen_here_alone(parent, above, now):
            return False
        return not (key.startswith(f"{parent} ") and _is_graver(self.severity(key), above, now))

    def _is_seen_here_alone(self, key: str, condition: Condition, now: float) -> bool:
        """Whether nobody tells of what is open here: who would tell sees that it is well."""
        is_ours = self.voice.speaks(key, now) or key in self.elsewhere
        return (
            not is_ours
            and condition.current is not None
            and now - condition.changed >= ELSEWHERE_SECONDS
        )

    def _affected(self) -> dict[str, list[str]]:
        """For each key the ones in trouble that depend on it."""
        below: dict[str, list[str]] = {}
        for child in self._parents:
            if self._conditions.get(child, _WELL).bad:
                for parent in self._ancestors(child):
                    below.setdefault(parent, []).append(child)
        return below

    def _ancestors(self, key: str) -> set[str]:
        """What `key` depends on, in the end; keys that depend on each other keep none silent."""
        above = self._above(key)
        return {each for each in above if key not in self._above(each)}

    def _above(self, key: str) -> set[str]:
        found: set[str] = set()
        open_ends = list(self._parents.get(key, ()))
        while open_ends:
            parent = open_ends.pop()
            if parent not in found:
                found.add(parent)
                open_ends.extend(self._parents.get(parent, ()))
        return found


def _is_graver(part: Severity | None, whole: Condition, now: float) -> bool:
    """Whether a part of the whole is so much worse that the whole does not speak for it.

    What begins with the whole may only seem so: its numbers take some minutes to rise as far.
    """
    if part is None or whole.current is None or part <= whole.current.severity:
        return False
    began = whole.opened[0][0] if whole.opened else whole.changed
    return now - began >= PART_SECONDS


def _outline(condition: Condition) -> tuple[object, ...]:
    """What of a condition a restart should not lose; the rest comes again with the next rounds."""
    current = condition.current
    severity = None if current is None else current.severity
    return condition.serial, condition.belief, condition.open is None, severity


_ENDS = frozenset({Reason.CLEAR, Reason.WAS_DOWN})
