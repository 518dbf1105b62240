"""Keeps what a restart must not lose, and brings it back, to whichever process then tells."""

from __future__ import annotations

import json
import logging
import math
import os
import time as clocks
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import uuid4

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
from holistic_asgi_monitor.alerts.voice import Scope
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
    """The place in the history of this service for one `scope`.

    Where nothing is there yet, what an earlier release kept for `instance` is read.
    """

    def __init__(self, recorder: Recorder, scope: str, instance: str | None = None) -> None:
        self._recorder = recorder
        self._key = f"alerts {scope}"
        self._older = None if instance is None else f"alerts {instance}"

    async def load(self) -> str | None:
        """The text that was saved last; `StoreError` where history cannot be read."""
        text = await self._recorder.get_state(self._key)
        if text is None and self._older is not None:
            text = await self._recorder.get_state(self._older)
        return text

    async def save(self, text: str) -> None:
        """Keep the text; `StoreError` where history cannot be written."""
        await self._recorder.put_state(self._key, text)


class Keeper:
    """Saves the memory of `outbox` after each change that matters, while this process tells.

    All of it is kept on `shelf`, which the processes of this host share, and what all hosts share
    on `shared`. `take` is to be called before this process tells, `run` goes on until it is
    cancelled, `close` is the end. `clock` gives monotonic seconds, `wall` the time in UTC.
    """

    def __init__(
        self,
        outbox: Outbox,
        shelf: Shelf,
        shared: Shelf | None = None,
        *,
        clock: Callable[[], float] = clocks.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._shelves = {Scope.HOST: shelf, **({Scope.SERVICE: shared} if shared else {})}
        self._clock = clock
        self._wall = wall
        self._name = uuid4().hex
        self._restored = False
        self._unused = ""
        self._failing = False
        self._saved = 0
        self._pause = FIRST_PAUSE
        self._followed: dict[Scope, str] = {}
        self._taken: dict[Scope, str] = {}

    async def restore(self) -> None:
        """Bring back what a process before has saved; only once, and it never raises."""
        if not self._restored:
            self._restored = True
            await self.take(Scope.HOST)

    async def take(self, scope: Scope) -> None:
        """Go on from what was saved for `scope`, by whoever told until now; never raises.

        What this process has saved or taken itself, and nobody has saved after it, changes
        nothing, unless what it told has been let go of meanwhile. Where nothing is there, what
        was read last counts.
        """
        if scope not in self._shelves:
            return
        with anyio.move_on_after(LOAD_SECONDS) as limit:
            await self._take(scope)
        if limit.cancelled_caught:
            self._fall_back(scope, f"it could not be read within {LOAD_SECONDS:g} s")

    async def follow(self, scope: Scope) -> None:
        """Read what another process saves: what it sees, and for when that can no longer be read.

        Never raises.
        """
        if scope not in self._shelves:
            return
        with anyio.move_on_after(LOAD_SECONDS):
            try:
                text = await self._shelves[scope].load()
                if text is not None and text != self._followed.get(scope):
                    self._outbox.note_elsewhere(self._troubled(text))
            except Exception:
                # What was read before is as good as it gets.
                return
            self._note_followed(scope, text)

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
        return self._tells(Scope.HOST) and self._outbox.changes != self._saved

    def _tells(self, scope: Scope) -> bool:
        return scope in self._shelves and self._outbox.voice.has(scope, self._clock())

    @property
    def _writer(self) -> str:
        # A forked child is another process, though it has all that its parent had.
        return f"{self._name} {os.getpid()}"

    async def _take(self, scope: Scope) -> None:
        try:
            text = await self._shelves[scope].load()
        except Exception as error:
            # Without a memory alerts still work.
            self._fall_back(scope, f"it could not be read ({described(error)})")
        else:
            self._unused = ""
            self._note_followed(scope, text)
            self._use(scope, self._followed.get(scope) if text is None else text)

    def _note_followed(self, scope: Scope, text: str | None) -> None:
        if text is not None and len(text) <= LONGEST_CHARACTERS:
            self._followed[scope] = text

    def _fall_back(self, scope: Scope, why: str) -> None:
        """Take what was read last while another process told, else begin anew."""
        text = self._followed.get(scope)
        if text is None:
            self._begin_anew(why)
        self._use(scope, text)

    def _begin_anew(self, why: str) -> None:
        # What all hosts share lies where the host's own lies: of both it is one trouble.
        if why != self._unused:
            self._unused = why
            _logger.warning("What was remembered of alerts is not used: %s", why)

    def _use(self, scope: Scope, text: str | None) -> None:
        if text is None:
            return
        try:
            self._go_on_from(scope, text)
        except UnreadableError as error:
            self._begin_anew(f"it {error}")
        except Exception as error:
            # As in `_take`: whatever is wrong with it, what comes is told.
            self._begin_anew(f"it could not be used ({described(error)})")

    def _go_on_from(self, scope: Scope, text: str) -> None:
        values = _values(text)
        is_own = values.get("writer") == self._writer
        is_known = is_own or self._taken.get(scope) == text
        if is_known and not self._outbox.has_let_go:
            return
        self._taken[scope] = text
        moments = Moments(self._clock(), self._wall())
        memory = read(values, moments)
        if is_own:
            # Only what was told has been let go of: messages and windows are still here.
            memory = memory.of(lambda _: True)
        if scope is Scope.HOST:
            self._outbox.restore(memory, now=moments.now)
        else:
            memory = memory.of(self._is_shared)
            self._outbox.restore(memory, now=moments.now, mine=self._is_shared)

    def _troubled(self, text: str) -> list[str]:
        """The keys that are in trouble by what another process has saved."""
        memory = read(_values(text), Moments(self._clock(), self._wall()))
        conditions = memory.snapshot.conditions.items()
        return [key for key, condition in conditions if condition.current is not None]

    def _is_shared(self, key: str) -> bool:
        return not self._outbox.voice.is_local(key)

    async def _save(self) -> None:
        if not self._tells(Scope.HOST):
            return
        try:
            moments = Moments(self._clock(), self._wall())
            changes = self._outbox.changes
            memory = self._outbox.memory()
            await self._put(Scope.HOST, memory, moments)
            if self._tells(Scope.SERVICE):
                await self._put(Scope.SERVICE, memory.of(self._is_shared), moments)
        except Exception as error:
            # Protects the watch: alerts are delivered all the same.
            self._failed(error)
        else:
            self._failing, self._pause = False, FIRST_PAUSE
            self._saved = changes

    async def _put(self, scope: Scope, memory: Memory, moments: Moments) -> None:
        values = {**written(memory, moments), "writer": self._writer}
        text = json.dumps(values, separators=(",", ":"), default=str)
        await self._shelves[scope].save(text)
        self._note_followed(scope, text)

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            _logger.warning(
                "What alerts must remember over a restart cannot be kept (%s); it is tried again",
                described(error),
            )
        self._failing = True
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _values(text: str) -> Any:
    if len(text) > LONGEST_CHARACTERS:
        raise UnreadableError(f"has more than {LONGEST_CHARACTERS} characters")
    try:
        values = json.loads(text)
    except (RecursionError, ValueError):
        raise UnreadableError("is no JSON") from None
    if not isinstance(values, dict):
        raise UnreadableError("is not what a monitor writes")
    return values
