"""Keeps what a restart must not lose, and brings it back."""

from __future__ import annotations

import json
import logging
import math
import time as clocks
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import anyio

from holistic_asgi_monitor.alerts.memory import (
    LONGEST_CHARACTERS,
    Memory,
    Moments,
    UnreadableError,
    read,
    written,
)
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.recorder import Recorder

__all__ = ("HistoryShelf", "Keeper", "Shelf")

_logger = logging.getLogger("holistic_asgi_monitor")

LOAD_SECONDS = 3.0
LAST_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0


class Shelf(Protocol):
    """A place for one text; what fails raises any exception."""

    async def load(self) -> str | None:
        """The text that was saved last, by this process or by one before; None without any."""
        ...

    async def save(self, text: str) -> None:
        """Keep the text, in the place of the last one."""
        ...


class HistoryShelf:
    """The place in the history of this service; each instance has its own."""

    def __init__(self, recorder: Recorder, instance: str) -> None:
        self._recorder = recorder
        self._key = f"alerts {instance}"

    async def load(self) -> str | None:
        """The text that was saved last; `StoreError` where history cannot be read."""
        return await self._recorder.get_state(self._key)

    async def save(self, text: str) -> None:
        """Keep the text; `StoreError` where history cannot be written."""
        await self._recorder.put_state(self._key, text)


class Keeper:
    """Saves the memory of `outbox` to `shelf` after each change that matters.

    `restore` is to be called before the first round, `run` goes on until it is cancelled, `close`
    is the end. `clock` gives monotonic seconds, `wall` the time in UTC.
    """

    def __init__(
        self,
        outbox: Outbox,
        shelf: Shelf,
        *,
        clock: Callable[[], float] = clocks.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._shelf = shelf
        self._clock = clock
        self._wall = wall
        self._restored = False
        self._failing = False
        self._saved = 0
        self._pause = FIRST_PAUSE

    async def restore(self) -> None:
        """Bring back what a process before has saved; only once, and it never raises."""
        if self._restored:
            return
        self._restored = True
        with anyio.move_on_after(LOAD_SECONDS) as limit:
            await self._restore()
        if limit.cancelled_caught:
            _begin_anew(f"it could not be read within {LOAD_SECONDS:g} s")

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await self._outbox.changed.heard(self._pause if self._is_behind else math.inf)
            await self._save()

    async def close(self) -> None:
        """Save once more, if there is anything new; to be called when the outbox has ended."""
        if self._is_behind:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                await self._save()

    @property
    def _is_behind(self) -> bool:
        return self._outbox.changes != self._saved

    async def _restore(self) -> None:
        try:
            text = await self._shelf.load()
            if text is None:
                return
            moments = Moments(self._clock(), self._wall())
            self._outbox.restore(_memory(text, moments), now=moments.now)
        except UnreadableError as error:
            _begin_anew(f"it {error}")
        except Exception as error:
            # Without a memory alerts still work.
            _begin_anew(f"it could not be read ({described(error)})")

    async def _save(self) -> None:
        try:
            moments = Moments(self._clock(), self._wall())
            changes = self._outbox.changes
            values = written(self._outbox.memory(), moments)
            await self._shelf.save(json.dumps(values, separators=(",", ":"), default=str))
        except Exception as error:
            # Protects the watch: alerts are delivered all the same.
            self._failed(error)
        else:
            self._failing, self._pause = False, FIRST_PAUSE
            self._saved = changes

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            _logger.warning(
                "What alerts must remember over a restart cannot be kept (%s); it is tried again",
                described(error),
            )
        self._failing = True
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _memory(text: str, moments: Moments) -> Memory:
    if len(text) > LONGEST_CHARACTERS:
        raise UnreadableError(f"has more than {LONGEST_CHARACTERS} characters")
    try:
        values = json.loads(text)
    except (RecursionError, ValueError):
        raise UnreadableError("is no JSON") from None
    return read(values, moments)


def _begin_anew(why: str) -> None:
    _logger.warning("What alerts remembered from before the restart is not used: %s", why)
