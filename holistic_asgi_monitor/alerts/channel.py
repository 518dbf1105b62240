"""One notifier's channel: what is to be sent next, and when it may be tried.

Pure but for its own memory: `now` is passed in, monotonic seconds, and nothing is sent here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holistic_asgi_monitor.alerts.incidents import Draft, Incidents
from holistic_asgi_monitor.alerts.telling import alert_of
from holistic_asgi_monitor.model import Alert

__all__ = ("BULLETIN", "Channel", "Doubt", "Failure", "Identity", "Letter")

SECONDS_APART = 1.0
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 300.0
REFUSED_SECONDS = 3600.0
DOUBTFUL_TRIES = 2
DOUBTFUL_SECONDS = 120.0
MOST_NOTICES = 100
BULLETIN = "bulletin"
"""The reason of a message that the whole service tells once."""
MOST_REFUSED_ALONE = 3
"""After so many refusals one after the other it is the notifier, and not what it is sent."""

Identity = tuple[object, ...]
"""What makes a letter the same when it is tried again; its parts are those of a draft or alert."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery failed, in one safe sentence, and what that means for the next try.

    `retry_after` is the wait in seconds that was asked for. `permanent`: the same will fail
    again. `ambiguous`: it may have arrived.
    """

    sentence: str
    retry_after: float | None = None
    permanent: bool = False
    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class Letter:
    """An alert that is to be sent; `draft` is None for a message of the user's own."""

    alert: Alert
    draft: Draft | None = None

    @property
    def identity(self) -> Identity:
        """What makes it the same letter when it is tried again."""
        if self.draft is not None:
            return self.draft.identity
        return self.alert.key, self.alert.started_at


@dataclass(frozen=True, slots=True)
class Doubt:
    """A letter that may have arrived: how often it was sent, and when it may be sent again."""

    tries: int
    until: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A letter that was refused: how often, and when it may be sent again."""

    times: int
    until: float


class Channel:
    """What one notifier is to be told, and the pace at which.

    `up` is whether the last delivery worked, `refused` whether there is something of which the
    notifier said that it will never get through. What is refused together is tried one by one, so
    that what is wrong with one alert keeps no other from its readers.
    """

    def __init__(self, name: str, incidents: Incidents) -> None:
        self.name = name
        self.up = True
        self._incidents = incidents
        self._notices: dict[str, Alert] = {}
        self._doubts: dict[Identity, Doubt] = {}
        self._not_before = -math.inf
        self._failures = 0
        self._suspects: frozenset[Identity] = frozenset()
        self._bars: dict[Identity, Bar] = {}
        self._refused_in_a_row = 0

    @property
    def refused(self) -> bool:
        """Whether trying some of what is wanted again is useless, as the notifier said."""
        return bool(self._suspects or self._bars)

    def notice(self, alert: Alert) -> Alert | None:
        """Take in a message of the user's own; gives the one that is dropped for it, if any.

        A newer one of the same key takes the place of one that has not been delivered.
        """
        self._notices.pop(alert.key, None)
        self._notices[alert.key] = alert
        if len(self._notices) <= MOST_NOTICES:
            return None
        # What the service tells once, nobody will tell again.
        others = (key for key, each in self._notices.items() if each.reason != BULLETIN)
        return self._notices.pop(next(others, next(iter(self._notices))))

    def withdraw(self, key: str) -> None:
        """Take back a message of a key that has not been delivered."""
        self._notices.pop(key, None)

    @property
    def notices(self) -> tuple[Alert, ...]:
        """The messages of the user's own that are not delivered yet, the oldest first."""
        return tuple(self._notices.values())

    @property
    def doubts(self) -> Mapping[Identity, Doubt]:
        """What may have arrived."""
        return dict(self._doubts)

    def restore(self, notices: Sequence[Alert], doubts: Mapping[Identity, Doubt]) -> None:
        """Go on from `notices` and `doubts` of before a restart."""
        for notice in notices:
            self.notice(notice)
        self._doubts.update(doubts)

    def letters(self, now: float) -> list[Letter]:
        """What is to be sent, in one message, as soon as it may be."""
        free = [letter for letter in self._wanted(now) if self._held_until(letter) <= now]
        suspects = [letter for letter in free if letter.identity in self._suspects]
        return suspects[:1] or _apart(free)

    def due(self, now: float) -> float:
        """When the next try may be made, infinite where nothing is wanted."""
        soonest = min(map(self._held_until, self._wanted(now)), default=math.inf)
        return max(self._not_before, soonest)

    def delivered(self, letters: Sequence[Letter], now: float) -> None:
        """Note that these have arrived."""
        self.up = True
        self._failures = 0
        self._refused_in_a_row = 0
        self._not_before = now + SECONDS_APART
        self._end_first_holds(now)
        self._end_first_bars(letters)
        drafts = [letter.draft for letter in letters if letter.draft is not None]
        self._incidents.delivered(self.name, drafts, now)
        for letter in letters:
            # Meanwhile a newer one may have taken its place.
            if self._notices.get(letter.alert.key) is letter.alert:
                del self._notices[letter.alert.key]

    def failed(self, letters: Sequence[Letter], failure: Failure, now: float) -> None:
        """Note that these have not arrived, as far as is known."""
        self.up = False
        self._failures += 1
        if failure.permanent:
            self._refuse(letters, now)
        self._not_before = now + max(SECONDS_APART, self._wait(failure))
        if failure.ambiguous:
            self.doubt(letters, now)

    def doubt(self, letters: Sequence[Letter], now: float) -> None:
        """Note that these may have arrived."""
        for letter in letters:
            before = self._doubts.get(letter.identity)
            tries = before.tries + 1 if before is not None else 1
            self._doubts[letter.identity] = Doubt(tries, now + self._hold(tries))

    def _refuse(self, letters: Sequence[Letter], now: float) -> None:
        """Have these tried one by one, or not at all for an hour where that has been done."""
        if len(letters) > 1:
            self._suspects |= _identities(letters)
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= MOST_REFUSED_ALONE:
            letters = self._wanted(now)
        for identity in _identities(letters):
            before = self._bars.get(identity)
            times = before.times + 1 if before is not None else 1
            self._bars[identity] = Bar(times, now + REFUSED_SECONDS)
        self._suspects -= _identities(letters)

    def _end_first_bars(self, delivered: Sequence[Letter]) -> None:
        """Have what was refused once tried again, alone: it may be that all was refused then."""
        self._suspects -= _identities(delivered)
        for identity in _identities(delivered):
            self._bars.pop(identity, None)
        for identity, bar in self._bars.items():
            if bar.times == 1:
                self._bars[identity] = Bar(bar.times, -math.inf)
                self._suspects |= {identity}

    def _hold(self, tries: int) -> float:
        """How long what was sent so often, and never answered, is not sent again.

        Two minutes after the second time, then twice as long each time, at most a cooldown: not
        much longer than the trouble has lasted, and not again and again where all has arrived.
        """
        if tries < DOUBTFUL_TRIES:
            return 0.0
        longest = self._incidents.policy.cooldown
        return float(min(longest, DOUBTFUL_SECONDS * 2 ** min(tries - DOUBTFUL_TRIES, 10)))

    def _end_first_holds(self, now: float) -> None:
        """Let go of what is held back for the first time: the notifier is well again.

        Only once: what it never confirms, though it confirms all else, would come with each.
        """
        for identity, doubt in self._doubts.items():
            if doubt.tries == DOUBTFUL_TRIES:
                self._doubts[identity] = Doubt(doubt.tries, min(doubt.until, now))

    def _wait(self, failure: Failure) -> float:
        if failure.retry_after is not None:
            return min(failure.retry_after, LONGEST_RETRY_AFTER)
        if failure.permanent:
            return 0.0
        return float(min(LONGEST_BACKOFF, 2.0 ** min(self._failures - 1, 10)))

    def _held_until(self, letter: Letter) -> float:
        """Until when a letter is not sent, since it may have arrived, or was refused."""
        held = (self._doubts.get(letter.identity), self._bars.get(letter.identity))
        return max((each.until for each in held if each is not None), default=-math.inf)

    def _wanted(self, now: float) -> list[Letter]:
        drafts = self._incidents.wanted(self.name, now)
        letters = [Letter(alert_of(draft), draft) for draft in drafts]
        if not self._incidents.quiet.active(now):
            letters += [Letter(alert) for alert in self._notices.values()]
        self._forget(_identities(letters), now)
        return letters

    def _forget(self, wanted: frozenset[Identity], now: float) -> None:
        """Let go of what is known of letters that are no longer wanted."""
        self._suspects &= wanted
        self._bars = {each: bar for each, bar in self._bars.items() if each in wanted}
        # A doubt stays with what is only held back.
        self._doubts = {
            each: doubt
            for each, doubt in self._doubts.items()
            if each in wanted or self._incidents.is_mute(str(each[0]), now)
        }


def _apart(letters: Sequence[Letter]) -> list[Letter]:
    """What goes into one message: what the service tells once comes after the rest, one by one."""
    others = [letter for letter in letters if letter.alert.reason != BULLETIN]
    return others or list(letters[:1])


def _identities(letters: Sequence[Letter]) -> frozenset[Identity]:
    return frozenset(letter.identity for letter in letters)
