"""The check of what this process, its container and its host have left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from holistic_asgi_monitor.checks.machine import Machine, SystemSample
from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.checks.strain import Pressure
from holistic_asgi_monitor.model import CheckResult, ConfigurationError, Status
from holistic_asgi_monitor.settings import Settings

__all__ = ("System", "SystemSample", "judge_system")

MEMORY_PERCENT = 80.0
CPU_PERCENT = 90.0
DISK_PERCENT = 90.0
OPEN_FILES_PERCENT = 90.0
# Kubernetes' usual alert asks for a quarter of the periods in which there was work; of all the
# periods a quarter is more, so that a short burst in an idle app is no complaint.
THROTTLED_PERCENT = 25.0
# The kernel's own guards act at half or more, with all tasks waiting. When some task waits for a
# fifth of the time, requests are slow, and nothing has been killed yet.
MEMORY_PRESSURE_PERCENT = 20.0


def judge_system(
    sample: SystemSample,
    *,
    memory_percent: float = MEMORY_PERCENT,
    cpu_percent: float = CPU_PERCENT,
    disk_percent: float = DISK_PERCENT,
) -> CheckResult:
    """Judge `sample`: degraded where a figure has reached its threshold, in percent.

    Open files have a threshold of their own, 90 % of what this process may open. Degraded, too,
    where the disk does not answer, where a process of the container was killed for lack of memory
    in the last five minutes, where the container was throttled for a quarter of them, and where it
    waits for memory a fifth of the time, over the last minute and still over the last ten seconds.
    What else could not be read is not judged.
    """
    thresholds = (memory_percent, cpu_percent, disk_percent, OPEN_FILES_PERCENT)
    uses = list(_uses(sample))
    known = [(use, limit) for use, limit in zip(uses, thresholds, strict=True) if use is not None]
    complaints = [
        f"{sentence} (threshold {limit:g} %)"
        for (percent, sentence), limit in known
        if percent >= limit
    ]
    if sample.disk_silent:
        complaints.append("the disk of the working directory does not answer")
    complaints += _strains(sample)
    status = Status.DEGRADED if complaints else Status.HEALTHY
    sentences = complaints or [sentence for (_, sentence), _ in known]
    message = "; ".join(sentences) or "no figures can be read here"
    return CheckResult(status, message, asdict(sample))


def _uses(sample: SystemSample) -> Iterator[tuple[float, str] | None]:
    """Memory, CPU, disk and open files: the percentage and a sentence; None where not known."""
    yield _use("memory", sample.memory_percent, size(sample.memory_limit_bytes))
    yield _use("CPU", sample.cpu_percent, _cores(sample.cpu_cores), " over 5 min")
    yield _use("disk", sample.disk_percent, size(sample.disk_bytes))
    files, limit = sample.open_files, sample.open_files_limit
    percent = None if files is None or limit is None else 100.0 * files / limit
    yield _use("open files", percent, f"{limit}")


def _strains(sample: SystemSample) -> Iterator[str]:
    """What the container suffers, in sentences."""
    # For minutes and not for one round only: the next round may follow after seconds.
    if killed := sample.recent_oom_kills:
        processes = "a process was" if killed == 1 else f"{killed} processes were"
        yield f"{processes} killed for lack of memory in the last 5 min"
    throttled = sample.throttled_percent
    if throttled is not None and throttled >= THROTTLED_PERCENT:
        yield (
            f"CPU throttled for {throttled:.0f} % of the time over 5 min "
            f"(threshold {THROTTLED_PERCENT:g} %)"
        )
    pressed = _memory_pressure(sample)
    if pressed is not None and min(pressed.avg10, pressed.avg60) >= MEMORY_PRESSURE_PERCENT:
        yield (
            f"waiting for memory {pressed.avg60:.0f} % of the time over 1 min "
            f"(threshold {MEMORY_PRESSURE_PERCENT:g} %)"
        )


def _memory_pressure(sample: SystemSample) -> Pressure | None:
    """The pressure that is ours; in a container the host's may be that of a neighbour."""
    pressure = sample.pressure
    if pressure is None or (pressure.source == "host" and sample.source != "host"):
        return None
    return pressure.memory


def _use(what: str, percent: float | None, whole: str, when: str = "") -> tuple[float, str] | None:
    return None if percent is None else (percent, f"{what} at {percent:.0f} % of {whole}{when}")


def size(count: int | None) -> str:
    """A number of bytes as a person reads it: `512 MiB`, `1.5 GiB`."""
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(max(1, ((count or 0).bit_length() - 1) // 10), len(units))
    return f"{round((count or 0) / 1024**power, 1):g} {units[power - 1]}"


def _cores(cores: float | None) -> str:
    return "1 core" if cores == 1 else f"{cores or 0:g} cores"


class System(Options):
    """Memory, CPU, disk and open files of this process and its container.

    Degraded where one has reached its threshold, in percent; where a threshold is None, the
    settings' holds (80 for memory, 90 for CPU and disk). Memory is counted against the limit of
    the container, else of the host, CPU as the mean of five minutes over the cores that we may
    use, the disk is that of the working directory. Degraded also after kills for lack of memory,
    and while throttled or short of memory, and where the disk has been silent for two rounds.
    `machine` reads the figures; without it, each monitor has one of its own.
    """

    def __init__(
        self,
        *,
        name: str = "system",
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
        memory_percent: float | None = None,
        cpu_percent: float | None = None,
        disk_percent: float | None = None,
        machine: Machine | None = None,
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        self._memory_percent = _threshold(name, "memory_percent", memory_percent)
        self._cpu_percent = _threshold(name, "cpu_percent", cpu_percent)
        self._disk_percent = _threshold(name, "disk_percent", disk_percent)
        self._given = machine
        self._machine = Machine() if machine is None else machine

    def configured(self, settings: Settings) -> System:
        """The same check with the thresholds of `settings` where it has none of its own."""
        return System(
            name=self.name,
            required=self.required,
            timeout=self.timeout,
            interval=self.interval,
            depends_on=self.depends_on,
            memory_percent=_first(self._memory_percent, settings.memory_percent),
            cpu_percent=_first(self._cpu_percent, settings.cpu_percent),
            disk_percent=_first(self._disk_percent, settings.disk_percent),
            machine=self._given,
        )

    def sample(self) -> SystemSample:
        """The figures of now, without a check; those of the disk and open files are the last's."""
        return self._machine.sample()

    async def __call__(self) -> CheckResult:
        """Read everything, and judge."""
        return judge_system(
            await self._machine.refresh(),
            memory_percent=_first(self._memory_percent, MEMORY_PERCENT),
            cpu_percent=_first(self._cpu_percent, CPU_PERCENT),
            disk_percent=_first(self._disk_percent, DISK_PERCENT),
        )


def _threshold(name: str, option: str, value: float | None) -> float | None:
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= 100):
        raise ConfigurationError(
            f"The check {name} has {option}={value!r}; "
            "allowed is a percentage from 0 to 100, or None for the settings' value"
        )
    return value


def _first(own: float | None, other: float) -> float:
    return other if own is None else own
