"""What a call of OpenAI costs: from the user's own prices, else from those of genai-prices.

Whatever is not known for certain has no price: a wrong one would be worse, and zero the worst.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.usage.openai_call import Usage

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelInfo, ModelPrice, Provider

__all__ = ("Override", "Prices", "Rates")

_logger = logging.getLogger("holistic_asgi_monitor")

Override = str | Mapping[str, float]
"""The name of the model whose prices hold, or US dollars for a million tokens by their kind."""

_MILLION = 1_000_000
_STANDARD = frozenset({"", "default", "auto", "standard"})
_HOLD_SECONDS = 600
_KNOWN_LIMIT = 1000
_OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars for a million tokens, more where the input is longer than some bounds."""

    base: Decimal
    steps: tuple[tuple[int, Decimal], ...] = ()

    def at(self, whole_input: int) -> Decimal:
        """The price in a call whose input is `whole_input` tokens long."""
        price = self.base
        for start, dearer in self.steps:
            if whole_input > start:
                price = dearer
        return price


@dataclass(frozen=True, slots=True)
class Rates:
    """The prices of one model in one tier; None where there is none of a kind."""

    input: Rate | None = None
    output: Rate | None = None
    cached: Rate | None = None
    cache_write: Rate | None = None
    audio_in: Rate | None = None
    audio_out: Rate | None = None
    image_in: Rate | None = None
    image_out: Rate | None = None

    def cost(self, usage: Usage) -> Decimal | None:
        """The price of `usage` in US dollars; None where a part of it has no price."""
        if not usage.input and not usage.output:
            return None
        total = Decimal(0)
        for tokens, rate in self._parts(usage):
            if tokens:
                if tokens < 0 or rate is None:
                    return None
                total += rate.at(usage.input) * tokens
        return total / _MILLION

    def _parts(self, usage: Usage) -> tuple[tuple[int, Rate | None], ...]:
        """The tokens that are billed alike, each with its price; below 0 where they disagree.

        Audio always has a price of its own; images are billed as text where they have none.
        """
        image_in = usage.image_in if self.image_in else 0
        image_out = usage.image_out if self.image_out else 0
        others = usage.cached + usage.cache_write + usage.audio_in + image_in
        return (
            (usage.input - others, self.input),
            (usage.cached, self.cached or self.input),
            (usage.cache_write, self.cache_write or self.input),
            (usage.audio_in, self.audio_in),
            (image_in, self.image_in),
            (usage.output - usage.audio_out - image_out, self.output),
            (usage.audio_out, self.audio_out),
            (image_out, self.image_out),
        )


class Prices:
    """The prices that hold for one monitor.

    `overrides` are the user's, by the name of a model or of a deployment; they win over
    genai-prices, whose data come with that package and are never fetched.
    """

    def __init__(self, overrides: Mapping[str, Override] | None = None) -> None:
        self._own = dict(overrides or {})
        self._known: dict[tuple[tuple[str | None, ...], str, str], tuple[float, Rates | None]] = {}
        self._hosts: dict[str, str] = {}
        self._data: DataSnapshot | None = None
        self._loaded = False

    def load(self) -> None:
        """Read the price data now, which takes a moment; without them, say so once."""
        if self._loaded:
            return
        self._loaded = True
        try:
            from genai_prices.data_snapshot import get_snapshot

            self._data = get_snapshot()
        except Exception as error:
            # Calls are counted all the same.
            _logger.warning(
                "There are no prices for OpenAI calls, which count as unpriced (%s): "
                "pip install 'holistic-asgi-monitor[openai]', or set MONITOR_OPENAI_PRICES",
                described(error),
            )

    def cost(
        self,
        models: tuple[str | None, ...],
        usage: Usage | None,
        *,
        tier: str = "",
        host: str = "",
        at: float,
    ) -> Decimal | None:
        """The price in US dollars; None where it is not known. Never raises.

        `models` are the names to look for, the most exact one first; `host` is the address that
        answered; `at` is in seconds since 1970.
        """
        if usage is None:
            return None
        try:
            rates = self._rates(models, tier, host, at)
            return None if rates is None else rates.cost(usage)
        except Exception:
            # Data of others, which may be anything; the call counts as unpriced.
            return None

    def knows(self, model: str) -> bool:
        """Whether `model` is the name of a model in the data or in the user's own prices."""
        if model in self._own:
            return True
        try:
            found = self._find(model, _OPENAI)
        except Exception:
            # As in cost.
            return False
        return found is not None and found[1].id == model

    def _rates(
        self, models: tuple[str | None, ...], tier: str, host: str, at: float
    ) -> Rates | None:
        """The prices that hold, which are looked up again now and then: some begin at a date."""
        key = (models, tier, host)
        held = self._known.get(key)
        if held is not None and held[0] <= at < held[0] + _HOLD_SECONDS:
            return held[1]
        if len(self._known) >= _KNOWN_LIMIT:
            self._known.clear()
        rates = self._looked_up([name for name in models if name], tier, host, at)
        self._known[key] = at, rates
        return rates

    def _looked_up(self, names: list[str], tier: str, host: str, at: float) -> Rates | None:
        for name in names:
            if name in self._own:
                return self._overridden(self._own[name], tier, host, at)
        for name in names:
            rates = self._read(name, tier, host, at)
            if rates is not None:
                return rates
        return None

    def _overridden(self, own: Override, tier: str, host: str, at: float) -> Rates | None:
        """The prices behind one of the user's own, which may be the name of another."""
        for _ in self._own:
            if not isinstance(own, str) or own not in self._own:
                break
            own = self._own[own]
        return self._read(own, tier, host, at) if isinstance(own, str) else _of_override(own)

    def _read(self, name: str, tier: str, host: str, moment: float) -> Rates | None:
        """The prices of the data."""
        at = datetime.fromtimestamp(moment, UTC)
        found = self._find(name, self._provider(host))
        if found is None:
            return None
        provider, model = found
        context = _context(tier)
        if not context:
            return _of_data(model.get_prices(at))
        # What one provider asks for a tier says nothing of another's.
        own = any(model is each for each in provider.models)
        if not own or not _varies(model, context, at):
            return None
        return _of_data(model.get_prices(at, context))

    def _find(self, name: str, provider: str) -> tuple[Provider, ModelInfo] | None:
        if self._data is None:
            return None
        try:
            return self._data.find_provider_model(name, None, provider, None)
        except LookupError:
            return None

    def _provider(self, host: str) -> str:
        """Whose prices hold at `host`: OpenAI's where it belongs to nobody known."""
        if self._data is None or not host:
            return _OPENAI
        found = self._hosts.get(host)
        if found is None:
            try:
                found = self._data.find_provider(None, None, f"https://{host}/v1").id
            except LookupError:
                found = _OPENAI
            if len(self._hosts) < _KNOWN_LIMIT:
                self._hosts[host] = found
        return found


def _context(tier: str) -> dict[str, str]:
    """How genai-prices names a tier; empty for the standard one."""
    if tier in _STANDARD:
        return {}
    return {"processing": "batch"} if tier == "batch" else {"service_tier": tier}


def _varies(model: ModelInfo, context: Mapping[str, str], at: datetime) -> bool:
    """Whether the data have prices of their own for that tier."""
    return any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(at))
        for variant in model.price_variants or ()
    )


def _of_data(price: ModelPrice) -> Rates:
    kinds = {
        "input": "input_mtok",
        "output": "output_mtok",
        "cached": "cache_read_mtok",
        "cache_write": "cache_write_mtok",
        "audio_in": "input_audio_mtok",
        "audio_out": "output_audio_mtok",
        "image_in": "input_image_mtok",
        "image_out": "output_image_mtok",
    }
    return Rates(**{kind: _of_value(getattr(price, name)) for kind, name in kinds.items()})


def _of_value(value: Any) -> Rate | None:
    """A price of the data: a number, or one with tiers by the length of the input."""
    if value is None:
        return None
    if isinstance(value, Decimal):
        return Rate(value)
    return Rate(value.base, tuple(sorted((tier.start, tier.price) for tier in value.tiers)))


def _of_override(own: Mapping[str, float]) -> Rates:
    rate = partial(_own_rate, own)
    return Rates(
        input=rate("input"),
        output=rate("output"),
        cached=rate("cached"),
        audio_in=rate("audio_input"),
        audio_out=rate("audio_output"),
    )


def _own_rate(own: Mapping[str, float], kind: str) -> Rate | None:
    return Rate(Decimal(str(own[kind]))) if kind in own else None
