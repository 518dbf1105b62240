"""Counts the calls of OpenAI that have ended: many at a time, and not while somebody waits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import product

from holistic_asgi_monitor.history.ledger import Ledger
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.usage.openai_call import Call

__all__ = ("Tally",)

MOST_WAITING = 50
"""Counting these takes a millisecond; one at a time they would take five times as long."""
NANO = 1_000_000_000

Key = tuple[str, str, str, str]


class Total:
    """What calls that are alike come to."""

    __slots__ = ("calls", "cost", "seconds", "tokens", "unpriced")

    def __init__(self) -> None:
        self.calls = self.unpriced = 0
        self.cost: Decimal | None = None
        self.seconds: list[float] = []
        self.tokens = {"input": 0, "output": 0, "cached": 0, "reasoning": 0}

    def add(self, call: Call) -> None:
        """Add one of them."""
        self.calls += 1
        self.unpriced += not call.priced
        if call.cost is not None:
            self.cost = call.cost + (self.cost or 0)
        if call.seconds is not None:
            self.seconds.append(call.seconds)
        usage, tokens = call.usage, self.tokens
        if usage is not None:
            tokens["input"] += usage.input
            tokens["output"] += usage.output
            tokens["cached"] += usage.cached
            tokens["reasoning"] += usage.reasoning


class Tally:
    """Notes calls, from any thread, and counts them before anybody reads what they are counted in.

    Some tens wait at most; `used` says that there ever was one. `fault` is told of what could not
    be counted.
    """

    def __init__(self, catalogue: Catalogue, fault: Callable[[str], None]) -> None:
        self._catalogue = catalogue
        self._ledger: Ledger | None = None
        self._fault = fault
        self._waiting: deque[Callable[[], Call]] = deque()
        self._settling = threading.Lock()
        self.used = False
        catalogue.gather_by(self.settle)

    def keep_in(self, ledger: Ledger) -> None:
        """Note the spend in `ledger` as well from now on."""
        self._ledger = ledger
        ledger.gather_by(self.settle)

    def note(self, call: Callable[[], Call]) -> None:
        """Note a call that has ended; it is asked what it was when it is counted."""
        self.used = True
        self._waiting.append(call)
        # Never waits: whoever counts now may be this very thread, which the garbage collector
        # has sent into the application's own clearing up.
        if len(self._waiting) >= MOST_WAITING and self._settling.acquire(blocking=False):
            try:
                self._count_all()
            finally:
                self._settling.release()

    def settle(self) -> None:
        """Count what waits; never raises. Whoever comes meanwhile waits until that is done."""
        # Also where nothing waits: what another thread has taken out is not counted yet.
        with self._settling:
            self._count_all()

    def _count_all(self) -> None:
        for (key, total), write in product(self._totals().items(), (self._count, self._keep)):
            try:
                write(key, total)
            except Exception:
                # What cannot be counted must not keep the others from it, nor the page.
                self._fault("tracking")

    def _totals(self) -> dict[Key, Total]:
        totals: dict[Key, Total] = {}
        for asked in self._taken():
            try:
                call = asked()
                key = (str(call.model), call.status, call.endpoint, call.feature)
                total = totals.get(key)
                if total is None:
                    total = totals[key] = Total()
                total.add(call)
            except Exception:
                # As in _count_all.
                self._fault("tracking")
        return totals

    def _taken(self) -> Iterator[Callable[[], Call]]:
        while self._waiting:
            yield self._waiting.popleft()

    def _count(self, key: Key, total: Total) -> None:
        model, status, _, _ = key
        self._count_tokens(model, total)
        families = self._catalogue
        families.openai_calls.inc(model, status, by=total.calls)
        if total.cost is not None:
            families.openai_cost.inc(model, by=float(total.cost))
        if total.unpriced:
            families.openai_unpriced.inc(model, by=total.unpriced)
        for seconds in total.seconds:
            families.openai_duration.observe(seconds, model)

    def _count_tokens(self, model: str, total: Total) -> None:
        families, tokens = self._catalogue, total.tokens
        for kind in ("input", "output"):
            if tokens[kind]:
                families.openai_tokens.inc(model, kind, by=tokens[kind])
        if tokens["cached"]:
            families.openai_cached.inc(model, by=tokens["cached"])
        if tokens["reasoning"]:
            families.openai_reasoning.inc(model, by=tokens["reasoning"])

    def _keep(self, key: Key, total: Total) -> None:
        model, status, endpoint, feature = key
        if self._ledger is not None:
            self._ledger.note_spend(
                model,
                status=status,
                nano_usd=round((total.cost or 0) * NANO),
                tokens=total.tokens,
                endpoint=endpoint,
                feature=feature,
                calls=total.calls,
                unpriced=total.unpriced,
            )
