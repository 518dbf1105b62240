"""When the monitor's own task lives: with the app's lifespan, else from the first request on.

The task is detached, on purpose. A task group around the app would hand the app's failure to the
server as an exception group and one step of the loop too late, and a server that looks for it
right after startup would then serve an app that has not started.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import traceback
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ("Background", "Lifespan")

_logger = logging.getLogger("holistic_asgi_monitor")

_NAME = "holistic-asgi-monitor"
_MARK = "holistic_asgi_monitor"
_DELAY = 0.5
_RESTART_SECONDS = 1.0
_PATIENCE = 10.0

_STARTED = "lifespan.startup.complete"
_ANSWERS = frozenset({_STARTED, "lifespan.startup.failed"})
_FAREWELLS = frozenset({"lifespan.shutdown.complete", "lifespan.shutdown.failed"})

_Run = Callable[[], Awaitable[None]]
_Work = Callable[[], Coroutine[Any, Any, None]]


class _Task(Protocol):
    """A task of the running event loop, whichever library that is."""

    def __init__(self, work: _Work, name: str, lost: Callable[[], None]) -> None: ...

    @property
    def ended(self) -> bool: ...

    def cancel(self) -> None: ...

    async def wait(self, patience: float) -> None: ...


class _AsyncioTask:
    """A task of the running asyncio loop; when it has ended, it lets go of the loop."""

    __slots__ = ("_lost", "_task")

    _task: asyncio.Task[None] | None

    def __init__(self, work: _Work, name: str, lost: Callable[[], None]) -> None:
        self._lost = lost
        # Entered rather than passed on: a task factory need not know the argument `context`.
        contextvars.Context().run(self._begin, work, name)

    def _begin(self, work: _Work, name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(work(), name=name)
        self._task.add_done_callback(self._forget)

    def _forget(self, _: asyncio.Task[None]) -> None:
        self._task = None
        self._lost()

    @property
    def ended(self) -> bool:
        return self._task is None or self._task.done()

    def cancel(self) -> None:
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    async def wait(self, patience: float) -> None:
        """Wait until the end; a cancellation of the waiting one is kept back until then."""
        held: asyncio.CancelledError | None = None
        clock = asyncio.get_running_loop().time
        deadline = clock() + patience
        with anyio.CancelScope(shield=True):
            while (task := self._task) and not task.done() and (left := deadline - clock()) > 0:
                try:
                    await asyncio.wait({task}, timeout=left)
                except asyncio.CancelledError as error:
                    held = error
        if held is not None:
            raise held


class _TrioTask:
    """A system task of the running trio loop, which trio itself cancels at the very end.

    Nobody else can: it is never lost.
    """

    __slots__ = ("_ended", "_scope")

    def __init__(self, work: _Work, name: str, lost: Callable[[], None]) -> None:
        import trio

        self._scope, self._ended = trio.CancelScope(), trio.Event()
        trio.lowlevel.spawn_system_task(self._live, work, name=name, context=contextvars.Context())

    async def _live(self, work: _Work) -> None:
        try:
            with self._scope:
                await work()
        finally:
            self._ended.set()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def cancel(self) -> None:
        self._scope.cancel()

    async def wait(self, patience: float) -> None:
        with anyio.move_on_after(patience, shield=True):
            await self._ended.wait()


async def _guarded(run: _Run, what: str) -> None:
    """Await `run`; an exception goes to the log, a cancellation goes on."""
    cancelled = anyio.get_cancelled_exc_class()
    try:
        await run()
    except BaseExceptionGroup as group:  # protects the loop, which trio would end
        failures = group.split(cancelled)[1]
        if failures is not None:
            _log_failure(failures, what)
    except (Exception, SystemExit) as error:  # protects the loop, as above
        _log_failure(error, what)


def _log_failure(error: BaseException, what: str) -> None:
    """Log the type of `error` and where it came from; its text may hold a secret."""
    # Not extract_tb: it would read the source files, and block the loop.
    way = "".join(
        f"\n  {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    )
    _logger.error("%s ended with %s:%s", what, type(error).__name__, way)


def _on_asyncio() -> bool:
    """Whether the current task is one of asyncio's, not of trio's."""
    return anyio.get_cancelled_exc_class() is asyncio.CancelledError


def _loop_getter() -> Callable[[], object]:
    """The function that tells the loops of the current library apart."""
    if _on_asyncio():
        return asyncio.get_running_loop
    import trio

    return trio.lowlevel.current_trio_token


class Background:
    """A detached task on asyncio or trio, in an empty context.

    An exception in it is logged, never raised into the loop. Whoever starts one keeps it: it is
    the reference that keeps the task alive. `lost` is called where somebody else ended it.
    """

    __slots__ = ("_lost", "_name", "_stopping", "_task")

    def __init__(
        self, kind: type[_Task], run: _Run, name: str, lost: Callable[[], None] | None = None
    ) -> None:
        self._name = name
        self._stopping = False
        self._lost = lost
        self._task = kind(partial(_guarded, run, f"The task {name!r}"), name, self._ended)

    @classmethod
    def start(cls, run: _Run, *, name: str) -> Background:
        """Start `run()` as a task called `name`; to be called by a task of a running loop."""
        return cls(_AsyncioTask if _on_asyncio() else _TrioTask, run, name)

    def _ended(self) -> None:
        if self._lost is not None and not self._stopping:
            self._lost()

    @property
    def alive(self) -> bool:
        """Whether the task has not ended yet."""
        return not self._task.ended

    def cancel(self) -> None:
        """Ask the task to end, without waiting; only the first call counts."""
        if not self._stopping:
            self._stopping = True
            self._task.cancel()

    async def stop(self) -> None:
        """Cancel the task and wait until it has ended; more calls do no harm.

        A cancellation of the caller waits as well, and is raised afterwards. A task that has not
        ended after ten seconds is left to itself, with a warning.
        """
        self.cancel()
        if self.alive:
            await self._task.wait(_PATIENCE)
        if self.alive:
            _logger.warning("The task %r has not ended in %g seconds.", self._name, _PATIENCE)


class _Post:
    """The one place of `run` in one event loop, and who wants it there.

    `claimed` says that lifespan has come to this loop: then requests start nothing.
    """

    __slots__ = ("_asked", "_background", "_holders", "_run", "claimed")

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._background: Background | None = None
        self._holders: set[object] = set()
        self._asked = False
        self.claimed = False

    @property
    def held(self) -> bool:
        """Whether a lifespan keeps `run` here."""
        return bool(self._holders)

    def enter(self, holder: object) -> None:
        """Start `run` for `holder`, unless it is there already."""
        self._holders.add(holder)
        self._start(_AsyncioTask if _on_asyncio() else _TrioTask, self._run)

    async def leave(self, holder: object) -> None:
        """Stop `run` and wait for its end, unless another holder still wants it."""
        background = self._let_go(holder)
        if background is not None:
            await background.stop()

    def desert(self, holder: object) -> None:
        """Stop `run` without waiting, and let requests start it again."""
        background = self._let_go(holder)
        if background is not None:
            background.cancel()
            self._asked = self.claimed = False

    def _let_go(self, holder: object) -> Background | None:
        self._holders.discard(holder)
        if self._holders:
            return None
        background, self._background = self._background, None
        return background

    def start_later(self) -> None:
        """Start `run` in half a second, unless lifespan comes or the loop has ended by then."""
        if self.claimed or self._asked:
            return
        self._asked = True
        if _on_asyncio():
            # A pending timer dies in silence with its loop, a pending task does not.
            asyncio.get_running_loop().call_later(_DELAY, self._start_unclaimed)
        else:
            self._start(_TrioTask, self._run_later)

    def _start_unclaimed(self) -> None:
        if not self.claimed:
            self._start(_AsyncioTask, self._run)

    async def _run_later(self) -> None:
        await anyio.sleep(_DELAY)
        if self.held or not self.claimed:
            await self._run()

    def _lost(self) -> None:
        """Begin `run` again where somebody cancelled all tasks and the loop goes on."""
        asyncio.get_running_loop().call_later(_RESTART_SECONDS, self._start_again)

    def _start_again(self) -> None:
        if self.held or not self.claimed:
            _logger.error("The monitor's task was ended by somebody else, and is begun again.")
            self._start(_AsyncioTask, self._run)

    def _start(self, kind: type[_Task], run: _Run) -> None:
        if self._background is not None and self._background.alive:
            return
        try:
            self._background = Background(kind, run, _NAME, self._lost)
        except Exception as error:  # protects the app's startup, and the loop's timer
            _log_failure(error, "The start of the monitor's task")


class _Stay:
    """The time for which one lifespan keeps `run` at its post; `changed` hears of both ends."""

    __slots__ = ("_begun", "_changed", "_post", "_stopped")

    def __init__(self, post: _Post, stopped: _Run | None, changed: Callable[[], None]) -> None:
        self._post = post
        self._stopped = stopped
        self._changed = changed
        self._begun = False

    def begin(self) -> None:
        """Start `run`, the first time."""
        if not self._begun:
            self._begun = True
            self._post.enter(self)
            self._changed()

    async def stop_run(self) -> None:
        """Stop `run` and wait for its end."""
        try:
            await self._post.leave(self)
        finally:
            self._changed()

    async def end(self) -> None:
        """Stop `run` where it still lives, and then call `stopped`, once."""
        if self._begun:
            # Still begun while this waits: a cancelled wait is made good by another call.
            await self.stop_run()
            self._begun = False
            await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        if self._stopped is None or self._post.held:
            return
        with anyio.move_on_after(_PATIENCE, shield=True) as scope:
            await _guarded(self._stopped, "The monitor's last work")
        if scope.cancelled_caught:
            _logger.warning("The monitor's last work was given up after %g seconds.", _PATIENCE)

    def break_off(self) -> None:
        """End at once, without waiting, where nothing else has ended it."""
        if self._begun:
            self._begun = False
            self._post.desert(self)
            self._changed()


class _Conversation:
    """One lifespan conversation between server and app, led to its end where the app does not."""

    __slots__ = ("_app", "_asked", "_dismissed", "_note", "_receive", "_said", "_send", "_stay")

    def __init__(
        self,
        app: ASGIApp,
        stay: _Stay,
        note: Callable[[str], None],
        receive: Receive,
        send: Send,
    ) -> None:
        self._app = app
        self._stay = stay
        self._note = note
        self._receive = receive
        self._send = send
        self._said = ""
        self._asked = self._dismissed = False

    async def hold(self, scope: Scope) -> None:
        """Lead the conversation; whatever ends it, `run` ends with it."""
        cancelled = anyio.get_cancelled_exc_class()
        try:
            await self._lead(scope)
        except cancelled:
            await self._stay.end()
            raise
        finally:
            self._stay.break_off()

    async def _lead(self, scope: Scope) -> None:
        try:
            await self._app(scope, self.receive, self.send)
        except Exception as error:
            if self._dismissed:
                await self._stay.end()
            # No await on any other way out: a server may look right now how startup has gone.
            if self._said:
                raise
            self._note(f"raised {type(error).__name__}")
        await self._complete()

    async def _complete(self) -> None:
        """Say what the app has left unsaid."""
        if not self._said:
            self._note("returned without an answer")
            if not self._asked:
                await self.receive()
            await self.send({"type": _STARTED})
        if self._said == _STARTED:
            self._note("returned before the shutdown was complete")
            if not self._dismissed:
                await self.receive()
            await self.send({"type": "lifespan.shutdown.complete"})

    async def receive(self) -> Message:
        """The server's next message; the shutdown reaches the app when `run` has ended.

        The app closes its connections on this message, and a round of checks would see that.
        """
        message = await self._receive()
        if message["type"] == "lifespan.startup":
            self._asked = True
        elif message["type"] == "lifespan.shutdown":
            self._dismissed = True
            await self._stay.stop_run()
        return message

    async def send(self, message: Message) -> None:
        """Pass on the app's answer, with our start before it or our end."""
        kind = message["type"]
        if not self._said:
            self._begin(kind)
        elif self._said == _STARTED and kind in _FAREWELLS:
            await self._stay.end()
            self._said = kind
        await self._send(message)

    def _begin(self, kind: str) -> None:
        if kind not in _ANSWERS:
            self._note(f"answered {kind!r}")
            raise RuntimeError(f"The answer to lifespan.startup is {_STARTED!r}, not {kind!r}.")
        self._said = kind
        if kind == _STARTED:
            self._stay.begin()


def _nowhere() -> None:
    """The loop seen last, before any was seen."""


class Lifespan:
    """Keeps `run`, the monitor's endless coroutine, alive for as long as the app serves.

    Through lifespan, `run` starts after the app's own startup and ends before the app's own
    shutdown; `stopped` is awaited between the latter and the answer to the server, for ten
    seconds at most. In a loop to which lifespan never comes, `ensure` starts `run`, and the end
    of the loop ends it; `stopped` is not called then.

    Messages and exceptions pass unchanged. Only where the app does not answer lifespan, answers
    it wrongly or leaves early, the conversation is completed in its place, and the log says so
    once. Where the app breaks off with an exception while serving, `run` ends, and requests that
    still come start it again.
    """

    __slots__ = (
        "_app",
        "_failed",
        "_lock",
        "_noted",
        "_posts",
        "_run",
        "_running",
        "_seen",
        "_stopped",
        "serving",
    )

    serving: bool
    """Whether lifespan keeps `run` alive now, so that `ensure` need not be called."""

    def __init__(self, app: ASGIApp, run: _Run, *, stopped: _Run | None = None) -> None:
        self.serving = False
        self._app = app
        self._run = run
        self._stopped = stopped
        self._noted = self._failed = False
        self._lock = threading.Lock()
        self._posts: weakref.WeakKeyDictionary[object, _Post] = weakref.WeakKeyDictionary()
        self._seen: Callable[[], object] = _nowhere
        self._running: Callable[[], object] = asyncio.get_running_loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold one lifespan conversation; inside another monitor's, only pass it on."""
        post = self._post(_loop_getter()())
        post.claimed = True
        if _MARK in scope:
            await self._app(scope, receive, send)
            return
        scope[_MARK] = True
        try:
            stay = _Stay(post, self._stopped, self._recount)
            await _Conversation(self._app, stay, self._note, receive, send).hold(scope)
        finally:
            scope.pop(_MARK, None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep `run` alive for the time of a block, where there is no server."""
        post = self._post(_loop_getter()())
        post.claimed = True
        stay = _Stay(post, self._stopped, self._recount)
        stay.begin()
        try:
            yield
        finally:
            await stay.end()

    def ensure(self) -> None:
        """See to it that `run` lives in the running loop, or will in half a second.

        For the start of a request. Does nothing where lifespan has come to this loop; never
        raises.
        """
        try:
            if self._seen() is self._running():
                return
        except RuntimeError:
            pass  # the last request was in a loop of the other library
        self._ensure_here()

    def _ensure_here(self) -> None:
        try:
            running = _loop_getter()
            loop = running()
            self._post(loop).start_later()
            self._seen, self._running = weakref.ref(loop), running
        except Exception as error:  # protects the request
            if not self._failed:
                self._failed = True
                _log_failure(error, "The start of the monitor's task")

    def _post(self, loop: object) -> _Post:
        with self._lock:
            return self._posts.setdefault(loop, _Post(self._run))

    def _recount(self) -> None:
        with self._lock:
            self.serving = any(post.held for post in self._posts.values())
            self._seen = _nowhere

    def _note(self, what: str) -> None:
        if not self._noted:
            self._noted = True
            _logger.info("On lifespan the app %s; the monitor completes it in its place.", what)
