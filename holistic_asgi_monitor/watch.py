"""The watch: one task beside the application that does everything but count requests.

It checks, reports, decides, has alerts delivered, and takes samples, in rounds; endpoints read
what the last round left.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskGroup

from holistic_asgi_monitor.alerts.heartbeat import Heartbeat
from holistic_asgi_monitor.alerts.incidents import Observation
from holistic_asgi_monitor.alerts.keeping import Keeper
from holistic_asgi_monitor.alerts.leading import Leader
from holistic_asgi_monitor.alerts.lookout import Lookout
from holistic_asgi_monitor.alerts.outbox import Outbox
from holistic_asgi_monitor.alerts.rules import TRAFFIC
from holistic_asgi_monitor.checks.lag import LoopLag
from holistic_asgi_monitor.checks.runner import Runner
from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.history.recorder import Recorder
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.windows import Windows
from holistic_asgi_monitor.model import CheckResult, Report, Status
from holistic_asgi_monitor.settings import Settings
from holistic_asgi_monitor.watchdog import Watchdog

__all__ = ("Watch",)

_logger = logging.getLogger("holistic_asgi_monitor")

SAMPLE_SECONDS = 5.0
RECORD_SECONDS = 1.0
LOOK_OUT_SECONDS = 1.0
LEAD_SECONDS = 1.0
LAG_PROBE_SECONDS = 0.25
ERRAND_SECONDS = 60.0
STALE_INTERVALS = 3
SLOW_SECONDS = 1.0
JITTER = 0.1
_GAUGE = {
    Status.HEALTHY: 0,
    Status.DEGRADED: 1,
    Status.UNKNOWN: 1,
    Status.UNHEALTHY: 2,
    Status.CRITICAL: 3,
}


class Watch:
    """Runs the rounds and keeps the last report.

    `lag` is told how late the event loop is, which counts in the check named `lag_check`; what is
    seen is told to `recorder` as well, which is stepped here and closed by whoever made it;
    `lookout` adds what live traffic shows, and may have a round started before its time. `clock`
    gives monotonic seconds, `jitter` a share of the interval by which a check comes earlier or
    later, so that replicas do not all knock at once. Before the first round `keeper` brings back
    what a process before knew of alerts, or `leader` does where several processes have one voice;
    `heartbeat` is told of each. Each of `errands` is called
    about once a minute, whatever becomes of the others. `run` is the task; `report` answers at any
    time, and runs a round itself where there is none to show.
    """

    def __init__(
        self,
        settings: Settings,
        runner: Runner,
        outbox: Outbox,
        *,
        catalogue: Catalogue,
        windows: Windows,
        refresh: Callable[[], object],
        lag: LoopLag,
        lag_check: str,
        recorder: Recorder,
        lookout: Lookout,
        keeper: Keeper,
        leader: Leader | None = None,
        heartbeat: Heartbeat | None = None,
        errands: Sequence[Callable[[], Awaitable[None]]] = (),
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] | None = None,
    ) -> None:
        self._settings = settings
        self._runner = runner
        self._outbox = outbox
        self._catalogue = catalogue
        self._windows = windows
        self._refresh = refresh
        self._lag = lag
        self._lag_check = lag_check
        self._recorder = recorder
        self._counted = (0, 0)
        self._lookout = lookout
        self._keeper = keeper
        self._leader = leader
        self._heartbeat = heartbeat
        self._errands = errands
        self._clock = clock
        self._jitter = _dice if jitter is None else jitter
        self.watchdog = Watchdog(clock=clock)
        self._due: dict[str, float] = {}
        self._results: dict[str, CheckResult] = {}
        self._snapshot: Report | None = None
        self._taken = 0.0
        self._last_round: Mapping[str, CheckResult] | None = None
        self._busy: set[str] = set()
        self._rounds: TaskGroup
        self._wake: anyio.Event | None = None
        self.running = False
        if heartbeat is not None:
            heartbeat.fresh = self.is_fresh
        catalogue.snapshot_age.read = self._age
        catalogue.loop_stalls.read = lambda: float(self.watchdog.stalls)
        catalogue.loop_longest_stall.read = lambda: self.watchdog.longest_seconds

    async def run(self) -> None:
        """Watch until cancelled; whatever ends the rounds but that, they are begun again."""
        try:
            await (self._keeper.restore() if self._leader is None else self._leader.begin())
            while True:
                try:
                    await self._live()
                except Exception as error:
                    # A watch that died in silence would be worse than one that never was.
                    self._catalogue.faults.inc("watch")
                    _logger.error("The watch ended and is begun again: %s", described(error))
                await anyio.sleep(self._settings.recheck_seconds)
        finally:
            await self._keeper.close()
            if self._leader is not None:
                await self._leader.close()
            await self._runner.aclose()

    async def _live(self) -> None:
        self.running = True
        self._busy.clear()
        self.watchdog.start()
        try:
            async with anyio.create_task_group() as group:
                self._rounds = group
                group.start_soon(self._outbox.run)
                group.start_soon(self._keeper.run)
                if self._heartbeat is not None:
                    group.start_soon(self._heartbeat.run)
                group.start_soon(self._feel_pulse)
                group.start_soon(self._forever, self._sample, SAMPLE_SECONDS)
                group.start_soon(self._forever, self._record, RECORD_SECONDS)
                group.start_soon(self._forever, self._look_out, LOOK_OUT_SECONDS)
                if self._leader is not None:
                    group.start_soon(self._forever, self._leader.step, LEAD_SECONDS)
                for errand in self._errands:
                    group.start_soon(self._forever, errand, ERRAND_SECONDS)
                await self._forever(self._next_round, 0.0)
        finally:
            self.watchdog.stop()
            self.running = False

    def last_report(self) -> Report | None:
        """The last report with its age; a stale one says so, and counts as degraded."""
        if self._snapshot is None:
            return None
        age = self._clock() - self._taken
        aged = replace(self._snapshot, age_seconds=max(0.0, age))
        return _stale(aged) if age > self._longest_age() else aged

    def is_fresh(self) -> bool:
        """Whether the last round is not too old."""
        age = self._age()
        return age is not None and age <= self._longest_age()

    async def report(self, *, fresh: bool = False) -> Report:
        """The last report, or that of a round of all checks run now.

        A round is run where `fresh` asks for it, where there has been none, and where nobody
        watches and the last one is older than an interval. Callers at the same time share it.
        """
        idle = not self.running and (
            self._clock() - self._taken > self._settings.check_interval_seconds
        )
        if fresh or idle or self._snapshot is None:
            await self.round()
        report = self.last_report()
        assert report is not None
        return report

    async def round(self, names: Collection[str] | None = None) -> None:
        """Run the checks (all, or `names`), report, and have the incidents told."""
        results: Mapping[str, CheckResult] = await self._runner.round(names)
        # Callers that shared one execution are given the same results: they count once.
        if results is self._last_round:
            return
        self._last_round = results
        results = self._with_lag(results)
        now = self._clock()
        self._reschedule(results, now)
        known = {**self._results, **results}
        self._results = {name: known[name] for name in self._runner.names if name in known}
        self._taken = now
        self._snapshot = self._compose()
        self._publish(results)
        self._recorder.ledger.note_health(results)
        timestamp = self._snapshot.timestamp
        observations = await self._look(results, now)
        self._outbox.post(observations, now=now, time=timestamp)
        if self._heartbeat is not None:
            self._heartbeat.beat()

    def wake(self) -> None:
        """Let the watch look at once what is due, for example after a check was added."""
        if self._wake is not None:
            self._wake.set()

    def hasten(self) -> None:
        """Have a round of all checks now, and not when its time has come."""
        now = self._clock()
        self._due = {name: min(due, now) for name, due in self._due.items()}
        self.wake()

    async def _forever(self, step: Callable[[], Awaitable[None]], every: float) -> None:
        while True:
            try:
                await step()
            except Exception as error:
                # One failing step must end neither the watch nor the application beside it.
                _logger.error("A step of the watch failed, and it goes on: %s", described(error))
                await anyio.sleep(self._settings.recheck_seconds)
            await anyio.sleep(every)

    async def _next_round(self) -> None:
        now = self._clock()
        for names in self._due_sets(now):
            self._busy |= set(names)
            self._rounds.start_soon(self._round_of, names)
        self._wake = anyio.Event()
        waiting = [due for name, due in self._due.items() if name not in self._busy]
        soonest = min(waiting, default=now + self._settings.check_interval_seconds)
        with anyio.move_on_after(max(0.0, soonest - now)):
            await self._wake.wait()

    def _due_sets(self, now: float) -> list[list[str]]:
        """The checks that are due: the quick ones together, each slow one on its own."""
        due = [
            name
            for name in self._runner.names
            if name not in self._busy and self._due.get(name, now) <= now
        ]
        slow = [name for name in due if self._took(name) > SLOW_SECONDS]
        quick = [name for name in due if name not in slow]
        return [[name] for name in slow] + ([quick] if quick else [])

    def _took(self, name: str) -> float:
        last = self._results.get(name)
        return (last.response_time_ms or 0.0) / 1000 if last is not None else 0.0

    async def _round_of(self, names: list[str]) -> None:
        try:
            await self.round(names)
        except Exception as error:
            # As in _forever; the checks come round again after an interval.
            _logger.error("A round of checks failed, and goes on: %s", described(error))
            later = self._clock() + self._settings.recheck_seconds
            self._due.update(dict.fromkeys(names, later))
        finally:
            self._busy -= set(names)
            self.wake()

    async def _sample(self) -> None:
        self._refresh()
        await self._catalogue.series.fold_in_pieces()
        await self._windows.sample(self._clock())
        await self._lookout.sample(self._clock())

    async def _look_out(self) -> None:
        if self._lookout.burst(self._clock()):
            self.hasten()

    async def _look(self, results: Mapping[str, CheckResult], now: float) -> list[Observation]:
        """What the checks saw, and what live traffic shows; a second look where that is new."""
        observations = self._observe(results)
        try:
            # Whoever asked for the round may be gone: what it saw counts all the same.
            with anyio.CancelScope(shield=True):
                observations = await self._lookout.look(observations, results, now)
        except Exception as error:
            # Protects the alarms of the checks.
            self._catalogue.faults.inc("lookout")
            _logger.error("The look at the traffic failed, checks go on: %s", described(error))
            return observations
        if TRAFFIC in results and self._lookout.restless:
            soon = now + self._settings.recheck_seconds
            self._due[TRAFFIC] = min(self._due.get(TRAFFIC, soon), soon)
        return observations

    async def _record(self) -> None:
        await self._recorder.step()
        # Also what happened between the steps: whoever asks first opens the store.
        tally, (failures, dropped) = self._recorder.tally, self._counted
        self._counted = tally.failures, tally.dropped
        self._catalogue.history_failures.inc(by=tally.failures - failures)
        self._catalogue.history_dropped.inc(by=tally.dropped - dropped)

    async def _feel_pulse(self) -> None:
        """Measure how late the event loop is, and let the watchdog know that it lives."""
        while True:
            began = self._clock()
            await anyio.sleep(LAG_PROBE_SECONDS)
            now = self._clock()
            lag = max(0.0, now - began - LAG_PROBE_SECONDS)
            self.watchdog.beat(now)
            self._lag.note(now, lag)
            self._catalogue.loop_lag.observe(lag)
            self._recorder.ledger.note_lag(lag)

    def _reschedule(self, results: Mapping[str, CheckResult], now: float) -> None:
        """Say when each of these checks is due again: at a fixed rate, whatever a round takes."""
        share = 1 + self._jitter()
        for name, result in results.items():
            interval = self._interval(name)
            due = self._due.get(name, now)
            # A round that somebody asked for before its time does not put off the next one.
            if due <= now:
                due += interval * share
            # Rounds that were missed, in a suspended process for example, are not made up for.
            due = due if due > now else now + interval * share
            # After a first failure a second look comes soon, so that an alarm need not wait.
            if self._is_new_failure(name, result):
                due = min(due, now + self._settings.recheck_seconds)
            self._due[name] = due

    def _is_new_failure(self, name: str, result: CheckResult) -> bool:
        before = self._results.get(name)
        well_before = before is None or before.status <= Status.HEALTHY
        return well_before and result.status > Status.HEALTHY

    def _with_lag(self, results: Mapping[str, CheckResult]) -> Mapping[str, CheckResult]:
        """The results, with what the event loop suffered since the last time joined to `system`."""
        name = self._lag_check
        if name not in results:
            return results
        worst = self._lag.take_worst() * 1000
        result = results[name]
        if worst < self._settings.event_loop_lag_ms or result.status is Status.SKIPPED:
            return results
        sentence = (
            f"the event loop was held up for {worst:,.0f} ms "
            f"(threshold {self._settings.event_loop_lag_ms:,.0f} ms)"
        )
        healthy = result.status is Status.HEALTHY
        joined = replace(
            result,
            status=max(result.status, Status.DEGRADED),
            message=sentence if healthy else f"{result.message}; {sentence}",
        )
        return {**results, name: joined}

    def _interval(self, name: str) -> float:
        return self._runner.check(name).interval or self._settings.check_interval_seconds

    def _longest_age(self) -> float:
        """Three intervals, and the time that a round itself may take."""
        timeouts = [self._runner.check(name).timeout for name in self._runner.names]
        longest = max(timeout or self._settings.check_timeout_seconds for timeout in timeouts)
        return STALE_INTERVALS * self._settings.check_interval_seconds + longest

    def _age(self) -> float | None:
        return None if self._snapshot is None else self._clock() - self._taken

    def _compose(self) -> Report:
        return Report(
            overall_status=Status.whole(result.status for result in self._results.values()),
            timestamp=datetime.now(UTC),
            age_seconds=0.0,
            services=self._results,
            service=self._settings.service,
            environment=self._settings.environment,
            instance=self._settings.instance,
            required=self._runner.required,
        )

    def _publish(self, results: Mapping[str, CheckResult]) -> None:
        for name, result in results.items():
            if result.status is Status.SKIPPED:
                self._catalogue.health_status.forget(name)
                continue
            self._catalogue.health_status.set(name, value=_GAUGE[result.status])
            if result.response_time_ms is not None:
                self._catalogue.health_check_duration.observe(result.response_time_ms / 1000, name)
            if result.status is Status.HEALTHY:
                self._catalogue.health_last_success.set(name, value=time.time())

    def _observe(self, results: Mapping[str, CheckResult]) -> list[Observation]:
        return [
            Observation(
                key=name,
                status=result.status,
                summary=result.message,
                required=name in self._runner.required,
                depends_on=tuple(self._runner.check(name).depends_on),
                details=result.details,
            )
            for name, result in results.items()
        ]


def _dice() -> float:
    return random.uniform(-JITTER, JITTER)  # noqa: S311 - dice for a timetable, not for secrets


def _stale(report: Report) -> Report:
    sentence = f"the last round of checks ended {report.age_seconds:.0f} s ago"
    services = {**report.services, "monitor": CheckResult(Status.UNKNOWN, sentence)}
    worst = max(report.overall_status, Status.DEGRADED)
    return replace(report, services=services, overall_status=worst)
