"""Runs the checks: together, each under its own timeout, and each at most once at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import anyio

from holistic_asgi_monitor.checks.answers import Answers, Unjudged, UnwellError, failure
from holistic_asgi_monitor.checks.lag import LoopLag
from holistic_asgi_monitor.checks.loops import StillRunningError, running_loop, spawn
from holistic_asgi_monitor.checks.options import Options, validate
from holistic_asgi_monitor.checks.probe import Probe, UnansweredError
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.model import Check, CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.redaction import Redaction

__all__ = ("Runner",)

_logger = logging.getLogger("holistic_asgi_monitor")

GRACE_SECONDS = 0.05
STALL_SECONDS = 0.25
STALL_SHARE = 0.5
CLOSING_SECONDS = 1.0


class Runner:
    """Runs `checks` in rounds.

    `timeout` is in seconds and holds for the checks without one of their own. `required`, where
    given, names the required checks in place of what they say themselves. `secrets` are hidden in
    whatever a check says. `lag` knows how late the event loop was, by the same `clock` of monotonic
    seconds.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        *,
        timeout: float,
        required: Collection[str] | None = None,
        secrets: Collection[str] = (),
        lag: LoopLag | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self.secrets = tuple(secrets)
        """What is hidden in whatever a check says: what was given, and what the checks know."""
        self._redaction = Redaction(self.secrets)
        self._lag = LoopLag() if lag is None else lag
        self._named = None if required is None else frozenset(required)
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self._stage = _Stage(None)
        for check in checks:
            self.add(check)

    def add(self, check: Check) -> None:
        """Let `check` take part from the next round on.

        A name that is taken, and a wrong option, are a `ConfigurationError`.
        """
        if isinstance(check, type) or not isinstance(check, Check):
            kind = f"The class {check.__name__}" if isinstance(check, type) else _a(check)
            raise ConfigurationError(
                f"{kind} was given as a check; allowed is what has the "
                "attributes of Check, and for a function there is monitor.check"
            )
        validate(check)
        if check.name in self._seats:
            raise ConfigurationError(
                f"There are two checks with the name {check.name}; each needs a name of its own"
            )
        self._seats[check.name] = _Seat(check, Answers(check.name, self._redaction))
        if isinstance(check, Options) and check.secrets:
            # What one check knows, another one may happen to say.
            self.secrets = tuple(dict.fromkeys((*self.secrets, *check.secrets)))
            self._redaction = Redaction(self.secrets)
            for seat in self._seats.values():
                seat.answers.redaction = self._redaction

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the checks, in the order in which they were added."""
        return tuple(self._seats)

    @property
    def required(self) -> frozenset[str]:
        """The names of the checks that the app cannot serve without."""
        return frozenset(name for name, seat in self._seats.items() if self._needs(seat.check))

    @property
    def parents(self) -> tuple[str, ...]:
        """The names that the checks depend on, whether or not there are such checks."""
        named = (parent for seat in self._seats.values() for parent in seat.check.depends_on)
        return tuple(dict.fromkeys(named))

    def check(self, name: str) -> Check:
        """The check of that name; without one, a `ConfigurationError`."""
        self._wanted([name])
        return self._seats[name].check

    async def round(self, names: Collection[str] | None = None) -> dict[str, CheckResult]:
        """Run all checks, or those in `names`, and give their results in the order of adding.

        It ends when the slowest has answered, and at the latest 50 ms after the longest timeout.
        Nothing that a check does is raised here. Who asks for the same set meanwhile is given the
        same dictionary; a check that runs for another set is not started twice. Where everyone
        who waits for a check is cancelled, so is the check.
        """
        wanted = self._wanted(names)
        stage = self._current_stage()
        flight = stage.joinable(wanted)
        if flight is None:
            await stage.cleared(wanted)
            flight = stage.joinable(wanted) or self._depart(wanted, stage)
        try:
            return await flight.landing()
        except anyio.get_cancelled_exc_class():
            await flight.see_off()
            raise
        finally:
            stage.close(wanted, flight)

    async def aclose(self) -> None:
        """Have every check that can be closed (`aclose`) let go of what it keeps."""
        for seat in self._seats.values():
            close = getattr(seat.check, "aclose", None)
            if close is None:
                continue
            try:
                with anyio.move_on_after(CLOSING_SECONDS, shield=True):
                    await close()
            except Exception as error:
                # Protects the shutdown of the app, and the checks that are still to be closed.
                name = seat.check.name
                _logger.warning("The check %s could not be closed: %s", name, described(error))

    def _wanted(self, names: Collection[str] | None) -> tuple[str, ...]:
        unknown = sorted(set(names or ()) - self._seats.keys())
        if unknown:
            raise ConfigurationError(
                f"There is no check {', '.join(unknown)}; the checks are {', '.join(self._seats)}"
            )
        return tuple(name for name in self._seats if names is None or name in names)

    def _current_stage(self) -> _Stage:
        loop = running_loop()
        if self._stage.loop is not loop:
            # What another event loop left unfinished will never be.
            self._stage = _Stage(loop)
        return self._stage

    def _depart(self, wanted: tuple[str, ...], stage: _Stage) -> _Flight:
        parts: dict[str, _Run | CheckResult] = {}
        for name in wanted:
            seat, run = self._seats[name], stage.runs.get(name)
            if run is not None and run.overdue:
                required = self._needs(seat.check)
                parts[name] = seat.answers.hanging(run.since, required=required)
                continue
            if run is None or run.ended:
                run = stage.runs[name] = self._begin(seat)
            parts[name] = run
        flight = stage.flights[wanted] = _Flight(parts)
        return flight

    def _begin(self, seat: _Seat) -> _Run:
        timeout = self._timeout if seat.check.timeout is None else seat.check.timeout
        required = self._needs(seat.check)
        return _Run(seat, timeout, required=required, lag=self._lag, clock=self._clock)

    def _needs(self, check: Check) -> bool:
        return bool(check.required) if self._named is None else check.name in self._named


def _a(thing: object) -> str:
    return f"A {type(thing).__name__}"


@dataclass(frozen=True, slots=True)
class _Seat:
    """A check, and who judges its answers."""

    check: Check
    answers: Answers


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is going on in one event loop: the last run of each check, the flight of each set."""

    loop: object
    runs: dict[str, _Run] = field(default_factory=dict)
    flights: dict[tuple[str, ...], _Flight] = field(default_factory=dict)

    def joinable(self, wanted: tuple[str, ...]) -> _Flight | None:
        """The flight of that set, unless it has landed or was deserted."""
        flight = self.flights.get(wanted)
        return None if flight is None or flight.over else flight

    async def cleared(self, wanted: Sequence[str]) -> None:
        """Let the runs end that were cancelled just now, so that they can be begun again."""
        for run in [self.runs[name] for name in wanted if name in self.runs]:
            if run.cancelled and not run.ended:
                await run.settled()

    def close(self, wanted: tuple[str, ...], flight: _Flight) -> None:
        """Forget `flight` once it has landed or was deserted."""
        if flight.over and self.flights.get(wanted) is flight:
            del self.flights[wanted]


class _Flight:
    """One execution of a set of checks, shared by everyone who wants it."""

    def __init__(self, parts: Mapping[str, _Run | CheckResult]) -> None:
        self._parts = parts
        self._runs = [part for part in parts.values() if isinstance(part, _Run)]
        self._results: dict[str, CheckResult] | None = None
        self._waiting = 0

    @property
    def over(self) -> bool:
        """Whether it has landed, or nobody waits for it any longer."""
        return self._results is not None or not self._waiting

    async def landing(self) -> dict[str, CheckResult]:
        """Wait for the results, the same for everyone."""
        self._count(1)
        try:
            for run in self._runs:
                await run.settled()
        finally:
            self._count(-1)
        if self._results is None:
            self._results = {
                name: part.result if isinstance(part, _Run) else part
                for name, part in self._parts.items()
            }
        return self._results

    def _count(self, more: int) -> None:
        self._waiting += more
        for run in self._runs:
            run.waiting += more

    async def see_off(self) -> None:
        """Cancel the runs that nobody waits for, and give them a moment to end."""
        deserted = [run for run in self._runs if not run.waiting and not run.ended]
        for run in deserted:
            run.cancel()
        with anyio.CancelScope(shield=True):
            for run in deserted:
                await run.settled()


class _Run:
    """One call of one check, in a task of its own, which may outlive everyone who waits for it."""

    def __init__(
        self,
        seat: _Seat,
        timeout: float,
        *,
        required: bool,
        lag: LoopLag,
        clock: Callable[[], float],
    ) -> None:
        self.since = datetime.now(UTC)
        self.finished = anyio.Event()
        self.cancelled = False
        self.waiting = 0
        self._seat = seat
        self._timeout = timeout
        self._required = required
        self._lag = lag
        self._clock = clock
        self._began = clock()
        self._answer: CheckResult | None = None
        self._late: CheckResult | None = None
        self._deadline = anyio.current_time() + timeout
        self._limit = anyio.CancelScope(deadline=self._deadline)
        self._shelter = anyio.CancelScope()
        self._tasks = [spawn(self._live, f"check {seat.check.name}")]

    @property
    def ended(self) -> bool:
        """Whether the check has returned."""
        return self.finished.is_set()

    @property
    def overdue(self) -> bool:
        """Whether the check was cancelled, and goes on all the same."""
        return self._late is not None and not self.ended

    async def settled(self) -> None:
        """Wait until the check has returned or is overdue."""
        with anyio.CancelScope(deadline=self._deadline + GRACE_SECONDS):
            await self.finished.wait()
        if not self.ended and self._late is None:
            self._late = self._without_answer()
            self._tasks.append(spawn(self._guard, f"guard of check {self._seat.check.name}"))

    @property
    def result(self) -> CheckResult:
        """What is known once the run has settled."""
        if self._late is not None:
            return self._late
        assert self._answer is not None
        return self._answer

    def cancel(self) -> None:
        """Ask the check to end now, since nobody waits for it."""
        self.cancelled = True
        self._deadline = anyio.current_time()
        self._limit.cancel()

    async def _live(self) -> None:
        """Keep what the check answers; nothing may leave this, for it would end the loop."""
        try:
            self._answer = await self._answered()
        except BaseException:
            # Protects the loop where the failure cannot even be told, for example by a log
            # handler that raises.
            status = failure(required=self._required)
            self._answer = CheckResult(status, "what the check gave could not be judged")
        finally:
            self.finished.set()

    async def _answered(self) -> CheckResult:
        answers, required = self._seat.answers, self._required
        try:
            returned = await self._call()
        except StillRunningError as running:
            return answers.hanging(running.since, required=required)
        except UnansweredError:
            return self._unanswered()
        except BaseException as error:
            # Protects the app from whatever a check throws, be it SystemExit or the signal of a
            # cancellation that nobody asked for.
            if self._timed_out():
                return self._without_answer()
            return self._timed(answers.raised(error, required=required))
        if self._timed_out():
            return self._without_answer()
        return self._timed(answers.returned(returned, required=required))

    async def _call(self) -> object:
        check = self._seat.check
        with self._limit, self._shelter:
            return await (check.unjudged() if isinstance(check, Unjudged) else check())
        return None

    async def _guard(self) -> None:
        """Spare the check further cancellation, as long as this task itself is spared it.

        Delivered again and again, it would only make a check that ignores it spin; at the end of
        the event loop it must reach the check all the same.
        """
        self._shelter.shield = True
        try:
            await self.finished.wait()
        finally:
            self._shelter.shield = False

    def _timed_out(self) -> bool:
        return self._limit.cancel_called or anyio.current_time() >= self._deadline

    def _without_answer(self) -> CheckResult:
        """What is said after a timeout; nothing of the dependency where the loop stood still."""
        if self._stalled():
            sentence = f"no answer within {self._timeout:g} s, but the event loop stood still"
            return self._timed(CheckResult(Status.UNKNOWN, sentence))
        return self._unanswered()

    def _unanswered(self) -> CheckResult:
        check = self._seat.check
        silence = (
            check.unanswered(self._timeout)
            if isinstance(check, Probe)
            else UnwellError(f"no answer within {self._timeout:g} s")
        )
        return self._timed(self._seat.answers.raised(silence, required=self._required))

    def _stalled(self) -> bool:
        if anyio.current_time() > self._deadline + STALL_SECONDS:
            return True
        return self._lag.worst(self._began) >= STALL_SHARE * self._timeout

    def _timed(self, answer: CheckResult) -> CheckResult:
        """`answer` with the time that the call took, where it does not bring its own."""
        if answer.response_time_ms is not None or answer.status is Status.SKIPPED:
            return answer
        return replace(answer, response_time_ms=self._milliseconds())

    def _milliseconds(self) -> float:
        """The time since the call began."""
        return round(max(0.0, self._clock() - self._began) * 1000, 3)
