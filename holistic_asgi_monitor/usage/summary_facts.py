"""What a summary is made of: what a period brought, and what that is compared with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType

from holistic_asgi_monitor.history.values import Sum, Value
from holistic_asgi_monitor.usage.calendar import Period
from holistic_asgi_monitor.usage.spend import Budgets

__all__ = ("Facts", "Month", "Stretch")

_BY_NAME: Mapping[str, Value] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was recorded in one period; `spend` by model, `endpoints` as "GET /items/{id}".

    `users` is None where none were recorded; they are those of the UTC days with the dates of
    the period, of which the last may not be over: then they are those `users_until_now`.
    """

    period: Period
    spend: Mapping[str, Value] = field(default_factory=lambda: _BY_NAME)
    spend_by_endpoint: Mapping[str, Value] = field(default_factory=lambda: _BY_NAME)
    spend_by_feature: Mapping[str, Value] = field(default_factory=lambda: _BY_NAME)
    features: Mapping[str, Value] = field(default_factory=lambda: _BY_NAME)
    traffic: Value = field(default_factory=Value)
    endpoints: Mapping[str, Value] = field(default_factory=lambda: _BY_NAME)
    users: int | None = None
    users_until_now: bool = False

    @property
    def spent(self) -> Value:
        """All calls together."""
        return Sum.of(self.spend.values()).value()


@dataclass(frozen=True, slots=True)
class Month:
    """A month: nano-dollars until now, or its end where it is `over`, and how it will end.

    `projected` is None where it is over, and where there are too few days to say.
    """

    period: Period
    spent: int
    projected: float | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a summary is made of.

    `previous` is the day or week before; `weekday` the same day a week before, for a day. Where
    nothing at all was recorded of them they are None. `days` are all those of a week.
    `attached` says whether calls of OpenAI are seen here, None where none can be made.
    """

    zone: tzinfo
    now: Stretch
    previous: Stretch | None = None
    weekday: Stretch | None = None
    days: tuple[Stretch, ...] = ()
    month: Month | None = None
    budgets: Budgets = field(default_factory=Budgets)
    attached: bool | None = None

    @property
    def period(self) -> Period:
        """What the summary is about."""
        return self.now.period
