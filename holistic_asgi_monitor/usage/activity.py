"""Who uses the application: distinct users of the last 1, 7 and 30 days, by keyed hashes only."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping

__all__ = ("WINDOWS", "Activity")

_DAY = 86_400.0
WINDOWS: Mapping[str, float] = {"day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY}
USERS_LIMIT = 1_000_000
MANY, RECOUNT_SECONDS = 10_000, 60.0


class Activity:
    """When each user was last seen; an identity is hashed at once and never kept.

    `key` makes the hashes the same in every process that knows it; without one they hold for
    this process alone. `now` is in seconds. The `listeners` get the hash of each user that is
    active, every time.
    """

    def __init__(self, key: str = "") -> None:
        self._key = hashlib.blake2b(key.encode()).digest() if key else secrets.token_bytes(64)
        self._seen: dict[bytes, float] = {}
        self._counted: tuple[float, dict[str, int]] = float("-inf"), {}
        self.dropped = 0
        self.listeners: list[Callable[[bytes], object]] = []

    def seen(self, user: object, now: float) -> None:
        """Note that `user` was active; what cannot be a user (None, empty) is passed over."""
        if user is None or not (text := str(user)):
            return
        identity = text.encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(identity, digest_size=8, key=self._key).digest()
        if digest not in self._seen and len(self._seen) >= USERS_LIMIT:
            self._forget(now)
            if len(self._seen) >= USERS_LIMIT:
                self.dropped += 1
                return
        self._seen[digest] = now
        for listener in self.listeners:
            listener(digest)

    def counts(self, now: float) -> dict[str, int]:
        """Distinct users by window: day, week, month; of very many, those of a minute ago."""
        if len(self._seen) > MANY and now - self._counted[0] < RECOUNT_SECONDS:
            return dict(self._counted[1])
        counts = self._count(now)
        self._counted = now, counts
        return dict(counts)

    def _count(self, now: float) -> dict[str, int]:
        ages = [now - last for last in self._seen.values()]
        return {name: sum(age < span for age in ages) for name, span in WINDOWS.items()}

    def _forget(self, now: float) -> None:
        longest = max(WINDOWS.values())
        self._seen = {user: last for user, last in self._seen.items() if now - last < longest}
