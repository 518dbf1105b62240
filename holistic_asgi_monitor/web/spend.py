"""What OpenAI was called for and cost, as the statistics show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import anyio

from holistic_asgi_monitor.history.store import StoreError
from holistic_asgi_monitor.usage.spend import DOLLAR, Budgets
from holistic_asgi_monitor.usage.spending import SpendFigures, Spending, total_of

__all__ = ("SpendStats",)

PATIENCE_SECONDS = 1.0


class SpendStats:
    """Reads the figures of the month; nobody waits longer for them than `patience` seconds.

    `spending` is asked each time where they are now. Where they cannot be read they are the last
    ones known, or null.
    """

    def __init__(
        self, spending: Callable[[], Spending], patience: float = PATIENCE_SECONDS
    ) -> None:
        self._spending = spending
        self._patience = patience
        self._last = _unknown()

    async def as_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        with anyio.move_on_after(self._patience):
            try:
                self._last = await _read(self._spending())
            except StoreError:
                # The other statistics are not to suffer; the log says it where it is written.
                return self._last
        return self._last


async def _read(spending: Spending) -> dict[str, Any]:
    stand = await spending.stand()
    models = await spending.models()
    verdict = stand.judged(Budgets())
    total = total_of(models.values())
    month = _cost(total.nano_usd, total.unpriced_calls)
    since = partial(_cost_since, spending, total)
    return _row(total) | {
        "cost_usd": {
            "today": await since(stand.today.period.start, verdict.today),
            "last_7_days": await since(stand.week_start, stand.last_week),
            "month": month,
            "projected_month": None if month is None else _projected(verdict.projected),
        },
        "models": [
            {"model": model, **_row(models[model])} for model in sorted(models, key=_by(models))
        ],
    }


async def _cost_since(
    spending: Spending, month: SpendFigures, start: int, nano: int
) -> float | None:
    """Dollars; where it seems to be nothing, and may be unknown, the calls are asked for."""
    if nano or not month.unpriced_calls:
        return _cost(nano, 0)
    return _cost(nano, await spending.unpriced_since(start))


def _by(models: Mapping[str, SpendFigures]) -> Callable[[str], tuple[int, int, str]]:
    """The dearest first."""
    return lambda model: (-models[model].nano_usd, -models[model].calls, model)


def _row(figures: SpendFigures) -> dict[str, Any]:
    return {
        "calls": figures.calls,
        "errors": figures.errors,
        "tokens": dict(figures.tokens),
        "unpriced_calls": figures.unpriced_calls,
        "cost_usd": _cost(figures.nano_usd, figures.unpriced_calls),
    }


def _cost(nano: int, unpriced: int) -> float | None:
    """Dollars; null where no call has a price, which is not the same as nothing."""
    return None if unpriced and not nano else nano / DOLLAR


def _projected(nano: float | None) -> float | None:
    return None if nano is None else round(nano / DOLLAR, 6)


def _unknown() -> dict[str, Any]:
    return {
        "calls": None,
        "errors": None,
        "tokens": None,
        "unpriced_calls": None,
        "cost_usd": dict.fromkeys(("today", "last_7_days", "month", "projected_month")),
        "models": [],
    }
