"""What has happened since the last minute was closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from holistic_asgi_monitor.history.codec import pack
from holistic_asgi_monitor.history.values import Kind, Row, Series, Sum, Value
from holistic_asgi_monitor.metrics.latency import exponent
from holistic_asgi_monitor.metrics.text import safe_label
from holistic_asgi_monitor.model import CheckResult, Status

__all__ = ("Ledger",)

NANO = 1_000_000_000
MOST_SERIES, MOST_USERS = 20_000, 100_000
OVERFLOW = "_overflow"


class Ledger:
    """Adds up, for any thread, until it is asked for what there is.

    Everything that it is told is bounded in the number of its series: what comes beyond them is
    counted as `_overflow`. So are the users: `present` are here, `dropped` were beyond that.
    """

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._sums: dict[Series, Sum] = {}
        self._users: dict[str, set[bytes]] = {}
        self.present = 0
        self.dropped = 0
        self._gather: Callable[[], object] = lambda: None

    def gather_by(self, function: Callable[[], object]) -> None:
        """Have `function` called before anybody reads: it tells what it has kept back."""
        self._gather = function

    def add(self, series: Series, value: Value | Sum) -> None:
        """Add a whole value."""
        with self._lock:
            self._sum(series).add(value)

    def note_health(self, results: Mapping[str, CheckResult]) -> None:
        """What checks said; skipped ones say nothing."""
        for name, result in results.items():
            if result.status is Status.SKIPPED:
                continue
            with self._lock:
                _add_result(self._sum(Series(Kind.HEALTH, (name,))), result)

    def note_system(self, resource: str, amount: float | None) -> None:
        """A sample of `cpu` (percent) or `memory` (bytes) of this instance; None is none."""
        if amount is not None:
            number = max(0, round(amount * 1000 if resource == "cpu" else amount))
            self.add(
                Series(Kind.SYSTEM, (self._instance, resource)),
                Value(count=1, total=number, peak=number),
            )

    def note_lag(self, seconds: float) -> None:
        """How late the event loop was at one probe."""
        late = max(0, round(seconds * NANO))
        self.add(
            Series(Kind.LAG, (self._instance,)),
            Value(count=1, total=late, peak=late, cells={exponent(late): 1}),
        )

    def note_spend(
        self,
        model: str,
        *,
        status: str,
        nano_usd: int,
        tokens: Mapping[str, int],
        endpoint: str = "",
        feature: str = "",
        calls: int = 1,
        unpriced: int = 0,
    ) -> None:
        """Calls of a model that are alike: what they cost in nano-dollars, all together.

        `tokens` are counts of `input`, `output`, `cached` and `reasoning`; less than 0 is none.
        `unpriced` of the calls have a price that nobody knows.
        """
        series = Series(Kind.SPEND, tuple(map(safe_label, (model, endpoint, feature))))
        counts = {**tokens, f"status:{status}": calls, "unpriced": unpriced}
        with self._lock:
            sum_ = self._sum(series)
            sum_.add_numbers(calls, 0 if status == "success" else calls, max(0, nano_usd), 0)
            for name, count in counts.items():
                if count > 0:
                    sum_.add_extra(name, count)

    def note_feature(self, feature: str, uses: int = 1) -> None:
        """Uses of a feature."""
        self.add(Series(Kind.FEATURES, (safe_label(feature),)), Value(count=uses))

    def note_user(self, user: bytes, feature: str = "") -> None:
        """Somebody was there, or used a feature; `user` is a hash of the id."""
        with self._lock:
            known = self._users.setdefault(feature, set())
            if user in known:
                return
            if self.present >= MOST_USERS:
                self.dropped += 1
                return
            known.add(user)
            self.present += 1

    def drop_user(self) -> None:
        """Somebody was there who cannot be kept."""
        with self._lock:
            self.dropped += 1

    def users(self) -> dict[str, frozenset[bytes]]:
        """The users that there are now, by feature; they stay."""
        with self._lock:
            return {feature: frozenset(users) for feature, users in self._users.items()}

    def look(self, minute: int, wanted: Callable[[Series], bool]) -> Iterator[Row | None]:
        """What there is now of the series that are wanted, as rows of a minute; it stays.

        None for each of the others: of very many, even to look at them takes its time.
        """
        self._gather()
        with self._lock:
            sums = list(self._sums.items())
        return self._rows(sums, minute, wanted)

    def _rows(
        self, sums: Iterable[tuple[Series, Sum]], minute: int, wanted: Callable[[Series], bool]
    ) -> Iterator[Row | None]:
        for series, sum_ in sums:
            if not wanted(series):
                yield None
                continue
            with self._lock:
                packed = pack(sum_)
            yield Row(series, minute, packed)

    def __len__(self) -> int:
        self._gather()
        return len(self._sums)

    def take(self) -> tuple[dict[Series, Sum], dict[str, set[bytes]]]:
        """What there is: the sums, and the users by feature. The ledger is empty afterwards."""
        self._gather()
        with self._lock:
            sums, self._sums = self._sums, {}
            users, self._users, self.present = self._users, {}, 0
        return sums, users

    def _sum(self, series: Series) -> Sum:
        found = self._sums.get(series)
        if found is None:
            if len(self._sums) >= MOST_SERIES:
                series = Series(series.kind, (OVERFLOW,) * len(series.labels))
            found = self._sums.setdefault(series, Sum())
        return found


def _add_result(into: Sum, result: CheckResult) -> None:
    took = result.response_time_ms
    nanoseconds = 0 if took is None else max(0, round(took * 1_000_000))
    bad = int(result.status is not Status.HEALTHY)
    into.add_numbers(1, bad, nanoseconds, result.status.gravity)
    into.add_extra(result.status.value)
    if took is not None:
        index = exponent(nanoseconds)
        into.cells[index] = into.cells.get(index, 0) + 1
