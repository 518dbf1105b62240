"""Who uses the application: ids are hashed where they come in, and forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from holistic_asgi_monitor.history.attendance import HASH_BYTES

__all__ = ("WINDOWS", "Activity", "Remembered")

_DAY = 86_400.0
WINDOWS: Mapping[str, float] = {"day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY}
USERS_LIMIT, FORGET_SECONDS = 1_000_000, 600.0
FIRST_BYTES = 16


class Activity:
    """Turns ids of users into hashes, and tells the `listeners` who was there.

    With a `key` the hashes are those that are kept, the same wherever the key is known. Without
    one they are not keyed, and whoever keeps them must hash them with a key of his own first. A
    listener gets the hash, and the feature that was used, empty for none.
    """

    def __init__(self, key: str = "") -> None:
        self.keyed = bool(key)
        self._key = hashlib.blake2b(key.encode()).digest() if key else b""
        self._size = HASH_BYTES if key else FIRST_BYTES
        self.listeners: list[Callable[[bytes, str], object]] = []

    def hashed(self, user: object) -> bytes | None:
        """The hash of an id; None of what cannot be a user (None, empty)."""
        if user is None or not (text := str(user)):
            return None
        identity = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(identity, digest_size=self._size, key=self._key).digest()

    def note(self, user: bytes, feature: str = "") -> None:
        """The user of this hash was there, or used a feature."""
        for listener in self.listeners:
            listener(user, feature)


class Remembered:
    """When each user was last seen, for as long as the process lives: where no history is kept.

    `clock` gives seconds; `dropped` is told of each who is beyond the most that are remembered.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        dropped: Callable[[], object],
        most: int = USERS_LIMIT,
    ) -> None:
        self._clock = clock
        self._dropped = dropped
        self._most = most
        self._forgot = float("-inf")
        self._seen: dict[tuple[str, bytes], float] = {}

    def note(self, user: bytes, feature: str = "") -> None:
        """A user was there, or used a feature."""
        now = self._clock()
        if (feature, user) not in self._seen and len(self._seen) >= self._most:
            self._forget(now)
            if len(self._seen) >= self._most:
                self._dropped()
                return
        self._seen[feature, user] = now

    def counts(self) -> dict[str, tuple[int, ...]]:
        """How many different users each window has, by feature, "" for the whole."""
        now, found = self._clock(), dict[str, list[int]]()
        for (feature, _), last in list(self._seen.items()):
            counts = found.setdefault(feature, [0] * len(WINDOWS))
            for number, span in enumerate(WINDOWS.values()):
                counts[number] += now - last < span
        return {feature: tuple(counts) for feature, counts in found.items()}

    def _forget(self, now: float) -> None:
        """Forget who is in no window any longer: not with each request, of a million users."""
        if now - self._forgot >= FORGET_SECONDS:
            self._forgot, since = now, now - max(WINDOWS.values())
            self._seen = {who: last for who, last in list(self._seen.items()) if last > since}
