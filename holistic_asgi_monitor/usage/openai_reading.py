"""What an answer of OpenAI says of itself: model, tier and tokens; its content is never read.

Answers are the objects of the `openai` package, or the JSON that they are made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from holistic_asgi_monitor.usage.openai_call import MOST, Usage

__all__ = (
    "ENDINGS",
    "Figures",
    "Report",
    "counted",
    "fields_of",
    "of_answer",
    "of_body",
    "of_event",
    "status_of",
)

LONGEST_BODY = 4_000_000
_COUNTS = frozenset({int, type(None)})
ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_CODES: Mapping[str, str] = {
    "insufficient_quota": "quota_exceeded",
    "billing_not_active": "quota_exceeded",
    "billing_hard_limit_reached": "quota_exceeded",
    "rate_limit_exceeded": "rate_limited",
    "invalid_api_key": "auth_error",
    "invalid_prompt": "bad_request",
    "invalid_request_error": "bad_request",
}


Figures = tuple[int | None, ...]
"""The fields of a `Usage` in their order, None for those that an answer does not have."""


class Report(NamedTuple):
    """What one answer, or one part of a streamed one, says; empty where it says nothing.

    `status` is the word for an answer that is itself a failure.
    """

    model: str | None = None
    tier: str = ""
    usage: Figures | None = None
    status: str | None = None


def of_answer(answer: object, *, images: bool = False) -> Report:
    """What a whole answer says; where it is `images`, all output is one of them."""
    fields = fields_of(answer)
    model, tier = fields.get("model"), fields.get("service_tier")
    return Report(
        model if isinstance(model, str) else None,
        tier if isinstance(tier, str) else "",
        _usage(fields.get("usage"), images=images),
        _failure(fields) if fields.get("status") == "failed" else None,
    )


def of_event(event: object) -> Report | None:
    """What an event of a streamed response says; None for those that say nothing."""
    fields = fields_of(event)
    kind = fields.get("type")
    if not isinstance(kind, str):
        return None
    if kind in ENDINGS:
        return of_answer(fields.get("response"))
    if kind == "error":
        return Report(status=status_of(fields.get("code")))
    return None


def of_body(body: bytes | str, *, images: bool = False) -> Report:
    """What the JSON of a whole answer says; nothing where it is none, or very long."""
    if len(body) > LONGEST_BODY:
        return Report()
    try:
        return of_answer(json.loads(body), images=images)
    except (ValueError, RecursionError):
        return Report()


def status_of(*codes: object) -> str:
    """The word for an error that comes within an answer, by its code or its type."""
    words = [_CODES[code] for code in codes if isinstance(code, str) and code in _CODES]
    return words[0] if words else "server_error"


def counted(figures: Figures) -> Usage:
    """The tokens as they are counted."""
    return Usage(*[number or 0 for number in figures])


def _failure(fields: Mapping[str, Any]) -> str:
    return status_of(fields_of(fields.get("error")).get("code"))


def fields_of(thing: object) -> Mapping[str, Any]:
    """The fields of an answer; to ask its object for one that it lacks would take long."""
    if isinstance(thing, dict):
        return thing
    own: Mapping[str, Any] = getattr(thing, "__dict__", {})
    more = getattr(thing, "__pydantic_extra__", None) if own else None
    return {**own, **more} if more else own


def _usage(usage: object, *, images: bool) -> Figures | None:
    """The tokens; None where there are none, or where the numbers cannot be right."""
    if usage is None:
        return None
    fields = fields_of(usage)
    # Written out, since a call of the application waits for it.
    took, gave = fields.get("input_tokens"), fields.get("output_tokens")
    if took is None:
        took = fields.get("prompt_tokens")
    if gave is None:
        gave = fields.get("completion_tokens")
    if took is None and gave is None:
        return None
    read, made = fields.get("input_tokens_details"), fields.get("output_tokens_details")
    if read is None:
        read = fields.get("prompt_tokens_details")
    if made is None:
        made = fields.get("completion_tokens_details")
    within, without = fields_of(read or fields.get("input_token_details")), fields_of(made)
    figures = (
        took,
        gave,
        within.get("cached_tokens"),
        within.get("cache_write_tokens"),
        without.get("reasoning_tokens"),
        within.get("audio_tokens"),
        without.get("audio_tokens"),
        within.get("image_tokens"),
        gave if images and made is None else without.get("image_tokens"),
    )
    return figures if _COUNTS.issuperset(map(type, figures)) and _possible(figures) else None


def _possible(figures: Figures) -> bool:
    numbers = [number for number in figures if number]
    return not numbers or (min(numbers) >= 0 and max(numbers) <= MOST)
