"""Users on their way to the store: hashed when they are seen, and once more with the key.

An id is hashed as soon as it is known, and forgotten. The key of the service lies in the store,
which may not have answered yet, or be another by the time that it does; so what waits to be
written are hashes without a key. Those never leave the process.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import anyio.lowlevel

from holistic_asgi_monitor.history.pace import Stretch
from holistic_asgi_monitor.history.store import DAY_MINUTES, Store, UsersSeen
from holistic_asgi_monitor.history.values import key_of

__all__ = ("HASH_BYTES", "Attendance", "each_day", "latest", "once_each", "settled_text")

HASH_BYTES, KEY_BYTES = 8, 32
MOST_WAITING = 200_000
KEY_NAME = "key of the users"


async def settled_text(store: Store, text: str, now: float) -> str:
    """What the key of the service is made of: what the store has, or `text`, which it then has.

    Where nothing can be written and there is none, this process alone knows it. `StoreError` where
    the store does not answer.
    """
    kept = await store.get_state(KEY_NAME)
    if kept is None:
        kept = await store.settle_state(KEY_NAME, text, now) if store.writable else text
    return kept


class Attendance:
    """Who was there and is in no batch yet; bounded: how many were beyond that is `dropped`.

    With `keyed`, the hashes that it is told were made with a key already.
    """

    def __init__(self, *, keyed: bool = False, most: int = MOST_WAITING) -> None:
        self._keyed = keyed
        self._most = most
        self._text = ""
        self._key: bytes | None = None
        self._settled = keyed
        # By day and feature, with the minute in which each was last seen.
        self._waiting: dict[tuple[int, str], dict[bytes, int]] = {}
        self._count = 0
        self.dropped = 0

    def __len__(self) -> int:
        return self._count

    @property
    def ready(self) -> bool:
        """Whether the users can be hashed as the store has them."""
        return self._settled

    def doubt(self) -> None:
        """It may be another store by now, which does not have our key, or has another."""
        self._settled = self._keyed

    async def settle(self, store: Store, now: float) -> None:
        """Learn the key, unless it is known; `StoreError` where the store does not answer."""
        if not self.ready:
            self._text = self._text or secrets.token_hex(KEY_BYTES)
            self._text = await settled_text(store, self._text, now)
            self._key = hashlib.blake2b(self._text.encode(), digest_size=KEY_BYTES).digest()
            self._settled = True

    def add(self, minute: int, users: Mapping[str, Iterable[bytes]]) -> None:
        """Take over users by feature, who were seen in a minute (since 1970)."""
        for feature, hashes in users.items():
            known = self._waiting.setdefault((minute // DAY_MINUTES, feature), {})
            before, seen = len(known), dict.fromkeys(hashes, minute)
            if self._count + len(seen) > self._most:
                seen = self._admitted(seen, known)
            known.update(seen)
            self._count += len(known) - before

    def _admitted(self, seen: dict[bytes, int], known: Mapping[bytes, int]) -> dict[bytes, int]:
        """Those who are known, and as many others as there is room for."""
        room = max(0, self._most - self._count)
        others = [user for user in seen if user not in known][room:]
        self.dropped += len(others)
        refused = frozenset(others)
        return {user: minute for user, minute in seen.items() if user not in refused}

    def clear(self) -> None:
        """Forget them: they are in a batch, or another's to write."""
        self._waiting, self._count = {}, 0

    def taken(self) -> tuple[UsersSeen, ...]:
        """Those that wait, for a batch, hashed as they were told; they wait here no longer."""
        found = tuple(self._waiting_now())
        self.clear()
        return found

    def waiting(self, minute: int, users: Mapping[str, Iterable[bytes]]) -> list[UsersSeen]:
        """Those that wait, and with them `users` of a minute, hashed as they were told."""
        day = minute // DAY_MINUTES
        told = (UsersSeen(day, each, frozenset(users[each]), minute) for each in users)
        return [*self._waiting_now(), *told]

    async def hashed(self, seen: Iterable[UsersSeen]) -> list[UsersSeen]:
        """The same as the store has them, as far as its key is known; yields to the event loop."""
        key = self._key
        if key is None:
            return list(seen)
        return [replace(each, hashes=await _hashed(each.hashes, key)) for each in seen]

    def _waiting_now(self) -> Iterator[UsersSeen]:
        for (day, feature), waiting in self._waiting.items():
            for last, some in _by_minute(waiting).items():
                yield UsersSeen(day, feature, frozenset(some), last)


def latest(seen: Sequence[UsersSeen]) -> dict[str, dict[bytes, int]]:
    """By feature, as stores name it: each user with the minute in which he was last seen."""
    found: dict[str, dict[bytes, int]] = {}
    for each in sorted(seen, key=lambda one: one.last):
        found.setdefault(key_of(each.feature), {}).update(dict.fromkeys(each.hashes, each.last))
    return found


def once_each(seen: Sequence[UsersSeen]) -> list[UsersSeen]:
    """The same users, of each feature each once: with the minute in which he was last seen."""
    if len({each.feature for each in seen}) == len(seen):
        return list(seen)
    return [
        UsersSeen(minute // DAY_MINUTES, feature, frozenset(some), minute)
        for feature, users in latest(seen).items()
        for minute, some in _by_minute(users).items()
    ]


def each_day(seen: Iterable[UsersSeen], feature: str, days: range) -> list[UsersSeen]:
    """The same users of a feature, as stores name it: on each of some days each of them once."""
    found: dict[int, set[bytes]] = {}
    for each in seen:
        if each.day in days and key_of(each.feature) == key_of(feature):
            found.setdefault(each.day, set()).update(each.hashes)
    return [UsersSeen(day, feature, frozenset(users)) for day, users in found.items()]


def _by_minute(users: Mapping[bytes, int]) -> dict[int, list[bytes]]:
    minutes = set(users.values())
    if len(minutes) == 1:
        # Much quicker, and so it is as a rule.
        return {minutes.pop(): list(users)}
    found: dict[int, list[bytes]] = {}
    for user, minute in users.items():
        found.setdefault(minute, []).append(user)
    return found


async def _hashed(users: Iterable[bytes], key: bytes) -> frozenset[bytes]:
    made, stretch = [], Stretch()
    for user in users:
        made.append(hashlib.blake2b(user, digest_size=HASH_BYTES, key=key).digest())
        if stretch.over:
            await anyio.lowlevel.checkpoint()
            stretch.renew()
    return frozenset(made)
