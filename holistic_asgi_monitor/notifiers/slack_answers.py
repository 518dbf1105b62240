"""What Slack's answers mean: delivered, to be tried again, or never to be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from http.client import RemoteDisconnected
from typing import Any
from urllib.error import URLError

from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.waits import asked_wait

__all__ = ("judged", "judged_api", "unanswered")

_REASON = re.compile(r"[a-z][a-z_]{0,60}")
_HOPELESS = frozenset(
    {
        "action_prohibited",
        "channel_is_archived",
        "channel_not_found",
        "invalid_blocks",
        "invalid_payload",
        "invalid_token",
        "no_service",
        "no_service_id",
        "no_team",
        "no_text",
        "posting_to_general_channel_denied",
        "team_disabled",
        "too_many_attachments",
        "user_not_found",
    }
)
_API_HOPELESS = _HOPELESS | {
    "access_denied",
    "account_inactive",
    "cannot_reply_to_message",
    "cant_update_message",
    "channel_is_frozen",
    "deprecated_endpoint",
    "duplicate_channel_not_found",
    "edit_window_closed",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "invalid_arguments",
    "invalid_auth",
    "invalid_blocks_format",
    "is_archived",
    "invalid_thread_ts",
    "is_inactive",
    "message_not_found",
    "messages_tab_disabled",
    "method_deprecated",
    "missing_scope",
    "msg_blocks_too_long",
    "msg_too_long",
    "no_permission",
    "not_allowed_token_type",
    "not_authed",
    "not_in_channel",
    "org_login_required",
    "restricted_action",
    "restricted_action_non_threadable_channel",
    "restricted_action_read_only_channel",
    "restricted_action_thread_locked",
    "restricted_action_thread_only_channel",
    "team_access_not_granted",
    "team_not_found",
    "thread_not_found",
    "token_expired",
    "token_revoked",
    "two_factor_setup_required",
}
_PASSING_WORDS = frozenset(
    {
        "fatal_error",
        "internal_error",
        "request_timeout",
        "service_unavailable",
        "team_added_to_org",
    }
)
_BUSY_WORDS = frozenset({"rate_limited", "ratelimited"})
_HINTS = {
    "channel_not_found": "there is no such channel, or it is private and the bot was not invited",
    "invalid_auth": "the token is not valid",
    "is_archived": "the channel is archived",
    "invalid_token": "the webhook's address is not valid",
    "missing_scope": "the bot needs the scope chat:write",
    "no_service": "the webhook was removed or switched off",
    "not_in_channel": "the bot must be invited to the channel",
    "token_revoked": "the token was revoked",
}


def judged(
    status: int, body: str | None, headers: Mapping[str, Any], now: datetime
) -> DeliveryError | None:
    """What an answer of a webhook means; None where Slack took the message."""
    said = (body or "").strip()
    if status == 200 and said == "ok":
        return None
    reason = f" {said}{_hint(said)}" if _REASON.fullmatch(said) else ""
    busy = status in {408, 429}
    return DeliveryError(
        f"Slack answered {status}{reason}",
        retry_after=asked_wait(headers, now, said) if busy or status >= 500 else None,
        permanent=not busy and (400 <= status < 500 or (status == 200 and said in _HOPELESS)),
    )


def judged_api(
    status: int,
    word: object,
    headers: Mapping[str, Any],
    now: datetime,
    *,
    replying: bool = False,
) -> DeliveryError:
    """What an answer of the Web API that is not `ok` means; `word` is its error.

    A word that is not known may pass by; but where it is `replying` in a thread, there is
    a message without one to be tried instead.
    """
    said = word if isinstance(word, str) and _REASON.fullmatch(word) else ""
    busy = status in {408, 429} or said in _BUSY_WORDS
    strange = bool(said) and said not in _PASSING_WORDS
    hopeless = 400 <= status < 500 or said in _API_HOPELESS or (replying and strange)
    return DeliveryError(
        f"Slack answered {said or status}{_hint(said)}",
        retry_after=asked_wait(headers, now) if busy or status >= 500 else None,
        permanent=hopeless and not busy,
    )


def _hint(word: str) -> str:
    """What to do about a refusal, where that is not plain from its word."""
    return f" ({_HINTS[word]})" if word in _HINTS else ""


def unanswered(error: Exception, timeout: float) -> DeliveryError:
    """What it means that a client of slack_sdk raised `error`; of it only the class is told."""
    if isinstance(error, URLError):
        kind = type(error.reason).__name__ if isinstance(error.reason, Exception) else "no route"
        return DeliveryError(f"Slack could not be reached ({kind})")
    if isinstance(error, TimeoutError):
        return DeliveryError(f"Slack did not answer within {timeout:g} s", ambiguous=True)
    kind = type(error).__name__
    if isinstance(error, RemoteDisconnected | ConnectionError):
        # What urllib raises while it still sends is an URLError: here Slack has all of it.
        sentence = f"Slack closed the connection without an answer ({kind})"
        return DeliveryError(sentence, ambiguous=True)
    return DeliveryError(f"Slack's answer could not be read ({kind})", ambiguous=True)
