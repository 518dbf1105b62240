"""Who uses the application: ids are hashed where they come in, and forgotten."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections.abc import Callable, Mapping

import anyio.lowlevel

from holistic_asgi_monitor.history.attendance import HASH_BYTES
from holistic_asgi_monitor.history.pace import Stretch

__all__ = ("WINDOWS", "Activity", "Remembered")

_DAY = 86_400.0
WINDOWS: Mapping[str, float] = {"day": _DAY, "week": 7 * _DAY, "month": 30 * _DAY}
USERS_LIMIT = 1_000_000
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
        """The hash of an id; None of what cannot be a user (None, true or false, empty).

        `TypeError` for what has no text of its own, and would be somebody else with each request.
        """
        # True and false come from conditions: `user.is_authenticated and user.id`.
        identity = b"" if user is None or isinstance(user, bool) else _identity(user)
        if not identity:
            return None
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
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, bytes], float] = {}

    def note(self, user: bytes, feature: str = "") -> None:
        """A user was there, or used a feature."""
        now = self._clock()
        with self._lock:
            if (feature, user) in self._seen or len(self._seen) < self._most:
                self._seen[feature, user] = now
                return
        self._dropped()

    async def counts(self) -> dict[str, tuple[int, ...]]:
        """How many different users each window has, by feature, "" for the whole.

        Who is in none any longer is forgotten. Yields to the event loop.
        """
        now, spans = self._clock(), tuple(WINDOWS.values())
        found: dict[str, list[int]] = {}
        stretch = Stretch()
        for who, last in list(self._seen.items()):
            if stretch.over:
                await anyio.lowlevel.checkpoint()
                stretch.renew()
            if now - last >= spans[-1]:
                self._forget(who, last)
                continue
            counts = found.setdefault(who[0], [0] * len(spans))
            for number, span in enumerate(spans):
                counts[number] += now - last < span
        return {feature: tuple(counts) for feature, counts in found.items()}

    def _forget(self, who: tuple[str, bytes], last: float) -> None:
        """Forget somebody unless he was there again."""
        with self._lock:
            if self._seen.get(who) == last:
                del self._seen[who]


def _identity(user: object) -> bytes:
    if isinstance(user, bytes | bytearray | memoryview):
        return bytes(user)
    kind = type(user)
    addressed = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    # A method that was not called is the commonest of them: `set_user(user.get_id)`.
    if addressed or callable(user) or inspect.isawaitable(user):
        message = f"{kind.__name__} is no id of a user"
        raise TypeError(message)
    return str(user).encode("utf-8", "surrogatepass")
