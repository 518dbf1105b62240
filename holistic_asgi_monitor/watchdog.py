"""The watchdog: a thread beside the event loop that says where the loop is stuck.

A stuck loop cannot report itself. It beats as long as it turns; the thread looks once a second
for how long there was no beat, and logs the stack of the loop's thread, once for each stall. A
thread that itself comes late was held up by the same thing, a stopped process or a computer
asleep, and does not count that time against the loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable

__all__ = ("Watchdog",)

_logger = logging.getLogger("holistic_asgi_monitor")

PATIENCE_SECONDS = 5.0
LONGEST_PERIOD_SECONDS = 1.0
LOOKS = 5
MOST_FRAMES = 40


class Watchdog:
    """Reports an event loop that has not beaten for `patience` seconds.

    `start` and `beat` are called in the thread of the loop. `clock` gives monotonic seconds, the
    same that are given to `beat`; `wait`, for tests, waits for so many seconds and returns
    whether the watch is to end.
    """

    stalls: int
    """How often the loop was stuck."""

    longest_seconds: float
    """How long the longest stall has been so far."""

    def __init__(
        self,
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self.stalls = 0
        self.longest_seconds = 0.0
        self._patience = patience
        self._clock = clock
        self._wait = wait
        self._guard: _Guard | None = None

    def start(self) -> None:
        """Begin to watch the loop of this thread, from now on, in a thread of our own.

        A watch that is still going on ends. Where no thread can be started, the loop is not
        watched, and the log says so.
        """
        self.stop()
        guard = _Guard(self, self._patience, self._clock, self._wait)
        try:
            # A daemon, so that the process need not wait for it.
            threading.Thread(
                target=guard.run, name="holistic-asgi-monitor watchdog", daemon=True
            ).start()
        except RuntimeError as error:
            _logger.warning("The event loop is not watched (%s).", type(error).__name__)
            return
        self._guard = guard

    def beat(self, now: float) -> None:
        """Say that the loop turns, in the loop, several times a second; costs next to nothing."""
        if self._guard is not None:
            self._guard.beat(now)

    def stop(self) -> None:
        """Have the thread end, without waiting for it; more calls do no harm."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.stop()

    def stalled(self) -> None:
        """Count one stall more; the thread calls this."""
        self.stalls += 1

    def lasted(self, seconds: float) -> None:
        """Note how long a stall has lasted by now; the thread calls this."""
        self.longest_seconds = max(self.longest_seconds, seconds)


class _Guard:
    """One watch over one thread, from `start` to `stop`."""

    def __init__(
        self,
        owner: Watchdog,
        patience: float,
        clock: Callable[[], float],
        wait: Callable[[float], bool] | None,
    ) -> None:
        self._owner = owner
        self._patience = patience
        self._period = min(LONGEST_PERIOD_SECONDS, patience / LOOKS)
        self._clock = clock
        self._told = threading.Event()
        self._wait = self._told.wait if wait is None else wait
        self._watched = threading.get_ident()
        self._turns = _turning()
        self._process = os.getpid()
        self._beaten = self._heard = self._looked = clock()
        self._gap = (self._beaten, self._beaten)
        self._excused = 0.0
        self._stuck = False

    def beat(self, now: float) -> None:
        if now - self._beaten >= self._patience:
            self._gap = (self._beaten, now)
        self._beaten = now

    def stop(self) -> None:
        # In a forked child there is no thread to tell, and a lock it held stays locked for ever.
        if self._process == os.getpid():
            self._told.set()

    def run(self) -> None:
        """The thread's work."""
        while not (self._wait(self._period) or self._told.is_set()):
            try:
                self._look(self._clock())
            except Exception as error:
                # Protects the next stalls, which would go unseen: a logging handler may raise.
                _logger.warning("A look at the event loop failed (%s).", type(error).__name__)

    def _look(self, now: float) -> None:
        excused = self._excuse(now)
        beaten = self._beaten
        if beaten != self._heard:
            if self._stuck:
                self._recovered(self._excused + excused)
            self._heard, self._excused = beaten, 0.0
        # What was excused may have come before the beat; the loop is given it all the same.
        self._excused += excused
        silence = now - beaten - self._excused
        if silence >= self._patience and not self._stuck:
            self._report(silence)
        if self._stuck:
            self._owner.lasted(silence)

    def _excuse(self, now: float) -> float:
        """The seconds since the last look that are not the loop's fault."""
        passed, self._looked = now - self._looked, now
        # A loop that nobody runs, for example between two calls of run_until_complete, may rest.
        return max(0.0, passed - self._period) if self._turns() else passed

    def _report(self, silence: float) -> None:
        stack = _stack(self._watched)
        if not stack:
            # The thread has ended, and the loop with it.
            self._told.set()
        # The loop may have gone on or ended meanwhile; the stack then shows something else.
        if self._beaten != self._heard or self._told.is_set() or not self._turns():
            return
        self._stuck = True
        self._owner.stalled()
        _logger.error("The event loop has been stuck for %.1f s:%s", silence, stack)

    def _recovered(self, excused: float) -> None:
        """Say how long the loop was stuck: from its last beat before to the first one after."""
        self._stuck = False
        before, after = self._gap
        seconds = max(self._patience, after - before - excused)
        self._owner.lasted(seconds)
        _logger.warning("The event loop goes on; it was stuck for %.1f s.", seconds)


def _turning() -> Callable[[], bool]:
    """A function for any thread that tells whether somebody runs the loop of this thread.

    asyncio's can be asked; trio's run until they end.
    """
    try:
        loop = weakref.ref(asyncio.get_running_loop())
    except RuntimeError:
        return lambda: True
    return lambda: (there := loop()) is not None and there.is_running()


def _stack(thread: int) -> str:
    """The places where `thread` is, outermost first, without source lines and values.

    Nothing where it has ended.
    """
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, and the only way
    if frame is None:
        return ""
    # Not extract_stack: it reads source files.
    places = [
        f"\n  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_stack(frame)
    ]
    left_out = len(places) - MOST_FRAMES
    first = f"\n  {left_out} outer frames are left out" if left_out > 0 else ""
    return first + "".join(reversed(places[:MOST_FRAMES]))
