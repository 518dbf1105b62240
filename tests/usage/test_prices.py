"""What calls cost: the known prices, the user's own, and what has none."""

import logging
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holistic_asgi_monitor.usage.openai_call import Usage
from holistic_asgi_monitor.usage.prices import Override, Prices

NOW = datetime(2026, 11, 26, tzinfo=UTC).timestamp()


def prices(overrides: dict[str, Override] | None = None) -> Prices:
    made = Prices(overrides)
    made.load()
    return made


KNOWN = prices()


def cost(model: str | None, usage: Usage | None, *, of: Prices = KNOWN, **more: Any) -> str | None:
    """The cost as text; `asked` is the model that was asked for."""
    asked = more.pop("asked", None)
    found = of.cost((model, asked), usage, at=more.pop("at", NOW), **more)
    return None if found is None else str(found.normalize())


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ("gpt-4o", Usage(1000, 500, cached=200), "0.00725"),
        ("gpt-4o-2024-08-06", Usage(1000, 500, cached=200), "0.00725"),
        ("o3", Usage(1000, 2000, cached=100, reasoning=1500), "0.01785"),
        ("text-embedding-3-small", Usage(10_000), "0.0002"),
        ("ft:gpt-4o-mini-2024-07-18:org::id", Usage(1000, 500), "0.0009"),
        # The image prices of a model that makes images, with and without one of its own.
        ("gpt-image-1", Usage(50, 1000, image_out=1000), "0.04025"),
        ("gpt-image-1.5", Usage(150, 1000, image_in=100, image_out=1000), "0.03305"),
        # A model that reads images bills them as text.
        ("gpt-4o", Usage(1000, 0, cached=900, image_in=800), "0.001375"),
        ("gpt-4o-transcribe", Usage(100, 10, audio_in=90), "0.000665"),
        ("gpt-audio", Usage(1000, 1000, audio_in=400, audio_out=900), "0.0729"),
        # Above a bound of its input the whole call is dearer.
        ("gpt-5.4", Usage(272_000, 1000), "0.695"),
        ("gpt-5.4", Usage(272_001, 1000), "1.382505"),
        ("gpt-6-sol", Usage(1000, 0, cache_write=1000), "0.0025"),
    ],
)
def test_a_known_model_has_its_price(model: str, usage: Usage, expected: str) -> None:
    assert cost(model, usage) == expected


@pytest.mark.parametrize(
    ("model", "tier", "usage", "expected"),
    [
        ("gpt-4o", "batch", Usage(1000, 500), "0.00375"),
        ("o3", "flex", Usage(1000, 500), "0.003"),
        ("gpt-4o", "priority", Usage(1000, 500), "0.01275"),
        ("gpt-4o", "default", Usage(1000, 500), "0.0075"),
        ("gpt-4o", "auto", Usage(1000, 500), "0.0075"),
        ("gpt-4o", "scale", Usage(1000, 500), None),
        ("gpt-4o", "flex", Usage(1000, 500), None),
        ("text-embedding-3-small", "turbo", Usage(1000), None),
    ],
)
def test_a_tier_has_its_own_price_or_none(
    model: str, tier: str, usage: Usage, expected: str | None
) -> None:
    assert cost(model, usage, tier=tier) == expected


@pytest.mark.parametrize(
    ("model", "usage"),
    [
        ("house-1", Usage(1000, 500)),
        ("", Usage(1000, 500)),
        (None, Usage(1000, 500)),
        ("gpt-4o", None),
        ("gpt-4o", Usage()),
        ("whisper-1", Usage(100, 10)),
        ("tts-1", Usage(100, 10)),
        ("omni-moderation-latest", Usage(100, 0)),
        ("sora-2", Usage(100, 10)),
        # Audio at the price of text would be wrong by a factor of sixteen.
        ("gpt-4o-audio-preview", Usage(1000, 1000, audio_in=1000)),
        ("gpt-4o-audio-preview", Usage(1000, 1000, audio_out=1)),
        ("gpt-4o", Usage(1000, 10, audio_in=10)),
        # Numbers that contradict each other.
        ("gpt-4o", Usage(100, 10, cached=200)),
        ("gpt-audio", Usage(100, 10, audio_out=20)),
        ("gpt-image-1", Usage(100, 10, cached=80, image_in=50)),
        ("text-embedding-3-small", Usage(100, 10)),
    ],
)
def test_what_is_not_known_has_no_price(model: str | None, usage: Usage | None) -> None:
    assert cost(model, usage) is None


def test_the_model_that_answered_goes_before_the_one_asked_for() -> None:
    usage = Usage(1000, 500)

    assert cost("gpt-4o-mini", usage, asked="gpt-4o") == cost("gpt-4o-mini", usage)
    assert cost("house-1", usage, asked="gpt-4o") == cost("gpt-4o", usage)
    assert cost(None, usage, asked="gpt-4o") == cost("gpt-4o", usage)


def test_prices_begin_and_end_at_their_dates() -> None:
    before = datetime(2025, 6, 9, tzinfo=UTC).timestamp()
    own = prices()

    assert cost("o3", Usage(1000, 0), of=own, at=before) == "0.01"
    assert cost("o3", Usage(1000, 0), of=own) == "0.002"


OWN: dict[str, Override] = {
    "gpt-4o": {"input": 1, "output": 2, "cached": 0.5},
    "house-1": {"input": 0, "output": 0},
    "house-2": {"input": 3},
    "singer": {"input": 1, "output": 2, "audio_input": 10, "audio_output": 20},
    "my-deployment": "gpt-4o-mini",
    "another": "house-2",
    "third": "another",
    "blue": "green",
    "green": "blue",
    "lost": "nowhere",
    "round": "round",
}


@pytest.mark.parametrize(
    ("model", "asked", "usage", "expected"),
    [
        ("gpt-4o", None, Usage(1000, 500, cached=200), "0.0019"),
        # The dated name that answers is not the name in the table, but what was asked for is.
        ("gpt-4o-2024-08-06", "gpt-4o", Usage(1000, 500, cached=200), "0.0019"),
        ("house-1", None, Usage(1000, 500), "0"),
        ("house-2", None, Usage(1000, 0, cached=1000), "0.003"),
        ("house-2", None, Usage(1000, 1), None),
        ("singer", None, Usage(100, 100, audio_in=50, audio_out=50), "0.00165"),
        ("house-1", None, Usage(100, 100, audio_in=50), None),
        ("gpt-4o-2024-08-06", "my-deployment", Usage(1000, 500), "0.00045"),
        (None, "another", Usage(1000, 0), "0.003"),
        (None, "third", Usage(1000, 0), "0.003"),
        (None, "blue", Usage(1000, 0), None),
        (None, "lost", Usage(1000, 0), None),
        (None, "round", Usage(1000, 0), None),
    ],
)
def test_the_users_prices_win(
    model: str | None, asked: str | None, usage: Usage, expected: str | None
) -> None:
    assert cost(model, usage, asked=asked, of=prices(OWN)) == expected


def test_another_provider_has_its_own_prices() -> None:
    usage = Usage(1000, 500)
    azure = cost("gpt-4o", usage, host="shop.openai.azure.com")

    assert azure == "0.0075"
    assert cost("gpt-4o", usage, host="shop.openai.azure.com", tier="priority") is None
    assert cost("openai/gpt-4o", usage, host="openrouter.ai") == "0.0075"
    assert cost("openai/gpt-4o", usage, host="api.openai.com") is None


@pytest.mark.parametrize("host", ["", "127.0.0.1:8000", "proxy.example", "api.openai.com"])
def test_a_host_that_nobody_knows_asks_what_openai_asks(host: str) -> None:
    assert cost("gpt-4o", Usage(1000, 500), host=host) == "0.0075"


def test_it_knows_the_names_in_the_data_and_in_the_users_table() -> None:
    own = prices(OWN)

    assert own.knows("gpt-4o")
    assert own.knows("house-1")
    assert not own.knows("gpt-4o-audio-preview-of-mine")
    assert not own.knows("x" * 5000)


def test_without_the_data_there_are_the_users_prices_and_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with caplog.at_level(logging.WARNING):
        bare = Prices({"m": {"input": 1}})
        bare.load()
        bare.load()

    (record,) = caplog.records
    assert "pip install 'holistic-asgi-monitor[openai]'" in record.getMessage()
    assert cost("gpt-4o", Usage(1000), of=bare) is None
    assert cost("m", Usage(1000), of=bare) == "0.001"
    assert not bare.knows("gpt-4o")


@pytest.mark.parametrize("fault", [KeyError("x"), ValueError("x"), ZeroDivisionError()])
def test_whatever_goes_wrong_there_is_no_price(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    own = prices()

    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr(own._data, "find_provider_model", broken)

    assert cost("gpt-4o", Usage(1000), of=own) is None
    assert not own.knows("gpt-4o")


def test_very_many_models_and_hosts_leave_nothing_behind() -> None:
    own = prices()
    for number in range(2500):
        cost(f"m{number}", Usage(1), of=own, host=f"h{number}")

    assert len(own._known) <= 1000
    assert len(own._hosts) <= 1000


counts = st.integers(min_value=0, max_value=10**7)


@given(whole=counts, out=counts, cached=counts, reasoning=counts)
def test_cached_and_reasoning_tokens_are_never_billed_twice(
    whole: int, out: int, cached: int, reasoning: int
) -> None:
    usage = Usage(whole, out, cached=min(cached, whole), reasoning=min(reasoning, out))
    found = KNOWN.cost(("gpt-4o",), usage, at=NOW)
    most = Decimal("2.5") * whole / 10**6 + Decimal(10) * out / 10**6

    assert found is None if not whole + out else found is not None
    assert found is None or most / 2 <= found <= most
    assert found is None or found == most - Decimal("1.25") * usage.cached / 10**6
