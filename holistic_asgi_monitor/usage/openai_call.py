"""One call of OpenAI as it is counted: numbers and names, never a prompt nor an answer."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

__all__ = ("MOST", "OPENAI_OUTCOMES", "Call", "Usage")

MOST = 10**15
"""No call has more tokens, or costs more dollars: a larger number would spoil the sums."""

OPENAI_OUTCOMES = frozenset(
    (
        "success",
        "auth_error",
        "quota_exceeded",
        "rate_limited",
        "timeout",
        "connection_error",
        "server_error",
        "bad_request",
        "cancelled",
        "abandoned",
    )
)


class Usage(NamedTuple):
    """Tokens of a call.

    `input` and `output` are the totals; everything else is a part of one of them: of the input
    `cached`, `cache_write`, `audio_in` and `image_in`, of the output `reasoning`, `audio_out` and
    `image_out`.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    audio_in: int = 0
    audio_out: int = 0
    image_in: int = 0
    image_out: int = 0


class Call(NamedTuple):
    """A call that has ended.

    `model` is a bounded label, `status` a value of openai_calls_total, `seconds` None where
    nobody measured. `cost` is in US dollars, None where it is not known or nothing was billed;
    `priced` is false where something was billed and nobody knows how much. `endpoint` and
    `feature` are those of the request that made it, empty where there was none; `tier` is the
    service tier that was billed. `started_at` is in seconds since 1970.
    """

    model: str
    status: str
    seconds: float | None
    usage: Usage | None
    cost: Decimal | None
    priced: bool
    endpoint: str
    feature: str
    tier: str
    started_at: float
