"""Which incidents this process may tell of: of several processes of a service one has the voice.

Pure: `now` is monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from enum import Enum

from holistic_asgi_monitor.alerts.rules import TRAFFIC, key_of

__all__ = ("Answer", "Claim", "Scope", "Voice", "local_keys")

_OBJECTIVES = "slo "


class Scope(Enum):
    """What somebody may have the voice for: a host's own affairs, and what all hosts share."""

    HOST = "host"
    SERVICE = "service"


class Answer(Enum):
    """Whose a lease is."""

    OURS = "ours"
    ANOTHERS = "another's"
    UNKNOWN = "unknown"


class Claim:
    """Whether to speak, by what a lease of so many `seconds` was last seen to be.

    Where nobody can be asked, who spoke goes on, and others begin once the last holder that was
    seen would have lost it: two voices are better than none. Who was not able to ask in time, in
    a suspended process for example, has to ask before it speaks again.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ours = False
        self._until = -math.inf
        """When ours ends, or another's at the latest."""

    def note(self, answer: Answer, now: float) -> None:
        """Take in what was found when asking began, at `now`."""
        if answer is Answer.UNKNOWN and not self._ours and now < self._until:
            return
        self._ours = answer is not Answer.ANOTHERS
        self._until = now + self.seconds

    @property
    def ours(self) -> bool:
        """Whether the lease was last seen to be ours, be it over or not."""
        return self._ours

    def until(self, now: float) -> float:
        """Until when to speak unless asked again; minus infinity where not at all."""
        return self._until if self._ours and now < self._until else -math.inf


class Voice:
    """Which keys this process may tell of; all of them, as long as nobody says otherwise.

    `is_local` tells the keys of the host from those that all hosts share. What is no longer
    told here is forgotten `linger` seconds after it is over.
    """

    def __init__(
        self, is_local: Callable[[str], bool] = lambda _: False, *, linger: float = 0.0
    ) -> None:
        self.is_local = is_local
        self.linger = linger
        self._until = dict.fromkeys(Scope, math.inf)

    def speaks(self, key: str, now: float) -> bool:
        """Whether this process tells of `key`."""
        return self.has(self._scope(key), now)

    def _scope(self, key: str) -> Scope:
        return Scope.HOST if self.is_local(key) else Scope.SERVICE

    def has(self, scope: Scope, now: float) -> bool:
        """Whether this process has the voice in `scope`."""
        return now < self._until[scope]

    def is_left(self, key: str) -> bool:
        """Whether another process is known to tell of `key`; not so where ours has just ended."""
        return self._until[self._scope(key)] == -math.inf

    def give(self, scope: Scope, until: float) -> None:
        """Let this process speak until then; minus infinity takes the voice from it."""
        self._until[scope] = until

    def extent(self, now: float) -> str:
        """`all`, `host` where another host tells what is shared, or `none`."""
        if not self.has(Scope.HOST, now):
            return "none"
        return "all" if self.has(Scope.SERVICE, now) else "host"


def local_keys(systems: Collection[str]) -> Callable[[str], bool]:
    """Whether a key is of one host: the checks `systems` of the machine, and its own traffic."""
    names = frozenset((*systems, TRAFFIC))

    def is_local(key: str) -> bool:
        return key in names or key.startswith((key_of(""), _OBJECTIVES))

    return is_local
