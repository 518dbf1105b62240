"""From the exceptions of the `openai` package to a word and a sentence; never their text.

The text of a rejected key's exception holds part of the key.
"""

from __future__ import annotations

from collections.abc import Iterator

from holistic_asgi_monitor.checks.answers import UnwellError
from holistic_asgi_monitor.checks.network import causes, failing
from holistic_asgi_monitor.model import Status

__all__ = ("hides_models", "outcome", "silent", "unwell")

_QUOTA_CODES = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})
_GRAVE = frozenset({"auth_error", "quota_exceeded"})
_LISTLESS = frozenset({404, 405, 501})
_OWN_HOST = "api.openai.com"
# By name, since they are httpx2's or httpx's, whichever `openai` is built on.
_CUTS = frozenset({"CloseError", "ReadError", "RemoteProtocolError", "WriteError"})
_NO_LIST = "Missing scopes: api.model.read"


def outcome(error: BaseException) -> str | None:
    """The status that openai_calls_total gives a call ended by `error`; None: not OpenAI's."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection_error"
    if isinstance(error, openai.APIStatusError):
        return _of_answer(error.status_code, {error.code, error.type})
    return None


def _of_answer(status: int, codes: set[str | None]) -> str:
    if status in {401, 403}:
        return "auth_error"
    if status == 402 or codes & _QUOTA_CODES:
        return "quota_exceeded"
    if status == 429:
        return "rate_limited"
    if status == 408:
        return "timeout"
    return "server_error" if status >= 500 else "bad_request"


def hides_models(error: Exception, host: str) -> str | None:
    """Why the list of models is refused where that is no fault: a sentence, else None.

    A restricted key may lack the right to read it, and a server that speaks like OpenAI may have
    none; both answer, which is as much as can be known without a call that costs.
    """
    import openai

    if not isinstance(error, openai.APIStatusError):
        return None
    # The one place where a text decides: OpenAI gives this refusal no code.
    if error.status_code in {401, 403} and _NO_LIST in error.message:
        return f"OpenAI at {host} answers; this API key may not list the models"
    if error.status_code in _LISTLESS and host != _OWN_HOST:
        return f"OpenAI at {host} answers; it lists no models there, so the API key is untried"
    return None


def unwell(error: Exception, host: str, seconds: float) -> UnwellError | None:
    """What to say of `error`; None where it is not about OpenAI."""
    import openai

    word = outcome(error)
    if word is None:
        return None
    if word == "timeout":
        return silent(host, seconds)
    details: dict[str, object] = {"host": host, "outcome": word}
    if isinstance(error, openai.APIStatusError):
        details["http_status"] = error.status_code
        sentence = _of_refusal(word, host, error.status_code)
    else:
        sentence = _of_connection(error, host)
    grave = Status.CRITICAL if word in _GRAVE else Status.DEGRADED
    return UnwellError(sentence, status=grave, details=details)


def silent(host: str, seconds: float) -> UnwellError:
    """What to say where nothing was answered within `seconds`."""
    return UnwellError(
        f"OpenAI at {host} gave no answer within {seconds:g} s",
        status=Status.DEGRADED,
        details={"host": host, "outcome": "timeout"},
    )


def _of_refusal(word: str, host: str, status: int) -> str:
    sentences = {
        "auth_error": "OpenAI rejects the API key",
        "quota_exceeded": "the OpenAI quota is used up",
        "rate_limited": "OpenAI limits the rate of calls",
    }
    return sentences.get(word, f"OpenAI at {host} answers with an error ({status})")


def _of_connection(error: BaseException, host: str) -> str:
    does = failing(error) or next(filter(None, map(failing, _tried(error))), None)
    if does is None:
        cut = any(type(cause).__name__ in _CUTS for cause in causes(error))
        does = "cut the connection" if cut else "cannot be reached"
    return f"OpenAI at {host} {does}"


def _tried(error: BaseException) -> Iterator[BaseException]:
    """What each address gave where a name has several."""
    for cause in causes(error):
        if isinstance(cause, BaseExceptionGroup):
            yield from cause.exceptions
