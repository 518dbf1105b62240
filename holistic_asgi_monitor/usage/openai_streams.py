"""Answers that are read after the call has returned: streams, and responses left raw.

What the caller holds stays the object that he was given: a stream gets another iterator inside,
a response that is not read yet another `close` and `parse`, both until the call has ended.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import AsyncIterator, Callable, Container, Iterator
from functools import partial, wraps
from typing import Any

from holistic_asgi_monitor.usage.openai_reading import of_body
from holistic_asgi_monitor.usage.openai_span import Span

__all__ = ("watch_answer",)


def watch_answer(span: Span, answer: Any) -> Any:
    """The very answer, which `span` ends with, as most have been read already; never raises."""
    try:
        _watch(answer, span)
    except Exception:
        # The answer is the caller's.
        span.fault()
        span.finish()
    return answer


def _watch(answer: Any, span: Span) -> None:
    span.answered = True
    # What an object of openai's lacks takes long to be asked for.
    held = getattr(answer, "__dict__", {})
    if _is_stream(held):
        _watch_stream(answer, span)
        return
    http = answer if "is_stream_consumed" in held else held.get("http_response")
    if http is None:
        span.saw_answer(answer)
        span.finish()
    elif http.is_closed and hasattr(http, "_content"):
        _read(http, span)
    else:
        _Raw(answer, http, span).watch()


def _is_stream(held: Container[str]) -> bool:
    """Whether an answer that has these attributes is a stream, of whatever class."""
    return "_iterator" in held and "response" in held


def _read(http: Any, span: Span) -> None:
    """End with a response that has been read: what it holds, if that is JSON."""
    if "json" in http.headers.get("content-type", ""):
        span.take(of_body(http.content, images=span.operation.images))
    span.finish()


class _Parts:
    """What the iterator of a stream gives, each part shown to the span first.

    Everything else is asked of the iterator itself.
    """

    __slots__ = ("_inner", "_span")

    def __init__(self, inner: Any, span: Span) -> None:
        self._inner = inner
        self._span = span

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __del__(self) -> None:
        span = self._span
        if not span.over:
            span.lost(partial(span.finish, "abandoned"))


class _SyncParts(_Parts):
    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        span = self._span
        while True:
            span.reading = True
            try:
                part = self._inner.__next__()
            except StopIteration:
                span.finish()
                raise
            except BaseException as error:
                span.failed(error)
                raise
            finally:
                span.reading = False
            if not span.saw(part):
                return part


class _AsyncParts(_Parts):
    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        span = self._span
        while True:
            span.reading = True
            try:
                part = await self._inner.__anext__()
            except StopAsyncIteration:
                span.finish()
                raise
            except BaseException as error:
                span.failed(error)
                raise
            finally:
                span.reading = False
            if not span.saw(part):
                return part


def _leave_out_extra(decoder: Any, span: Span) -> None:
    """Have the decoder of a stream give no event that only we have asked for.

    The package would make an object of it, which takes it longer than all that we do for the
    stream takes us; and nobody would ever see the object.
    """
    decode = decoder.decode

    def decoding(line: str) -> Any:
        event = decode(line)
        return None if event is not None and span.took_extra(event) else event

    decoder.decode = decoding


def _watch_stream(stream: Any, span: Span) -> None:
    inner = stream._iterator  # noqa: SLF001 - the one place that all ways of reading pass
    if isinstance(inner, _Parts):
        return
    parts = _AsyncParts if hasattr(inner, "__anext__") else _SyncParts
    stream._iterator = parts(inner, span)  # noqa: SLF001 - as above
    decoder = getattr(stream, "_decoder", None)
    # A decoder of another kind shows that part, and it is taken out afterwards.
    ours = span.injected and type(decoder).__module__ == "openai._streaming"
    if ours and hasattr(decoder, "decode"):
        _leave_out_extra(decoder, span)

    def closed() -> None:
        # The last part closes the response as well, before the iterator says that it ends.
        if not span.reading and not span.over:
            span.lost(partial(span.finish, "success" if span.has_usage else "abandoned"))

    unfollow = _follow_close(stream.response, closed)

    def release() -> None:
        unfollow()
        if ours:
            vars(decoder).pop("decode", None)

    span.release = release


def _follow_close(http: Any, closed: Callable[[], None]) -> Callable[[], object]:
    """Call `closed` after each closing of a response; what is returned undoes that."""
    name = "aclose" if hasattr(http.stream, "__aiter__") else "close"
    close = getattr(http, name)
    if name == "aclose":

        async def aclosing() -> None:
            await close()
            closed()

        setattr(http, name, aclosing)
    else:

        def closing() -> None:
            close()
            closed()

        setattr(http, name, closing)
    return lambda: vars(http).pop(name, None)


class _Raw:
    """A response that the caller reads himself: parsed, as a whole, in pieces, or never."""

    def __init__(self, answer: Any, http: Any, span: Span) -> None:
        self._answer = weakref.ref(answer)
        self._http = http
        self._span = span
        self._closings = 0

    def watch(self) -> None:
        answer, span = self._answer(), self._span
        self._unfollow = _follow_close(self._http, self._closed)
        if hasattr(answer, "parse"):
            self._follow_parse(answer)
        self._lost = weakref.finalize(answer, self._gone)
        self._lost.atexit = False
        span.release = self._forget

    def _follow_parse(self, answer: Any) -> None:
        parse = answer.parse
        if inspect.iscoroutinefunction(parse):

            @wraps(parse)
            async def parsing(*args: Any, **kwargs: Any) -> Any:
                return self._parsed(await parse(*args, **kwargs))

        else:

            @wraps(parse)
            def parsing(*args: Any, **kwargs: Any) -> Any:
                return self._parsed(parse(*args, **kwargs))

        answer.parse = parsing

    def _parsed(self, parsed: Any) -> Any:
        span = self._span
        try:
            if _is_stream(getattr(parsed, "__dict__", {})):
                # It outlives the response that it comes from.
                self._release()
                _watch_stream(parsed, span)
            else:
                span.saw_answer(parsed)
                span.finish()
        except Exception:
            # What was parsed is the caller's in any case.
            span.fault()
        return parsed

    def _closed(self) -> None:
        """Reading to the end closes, before anything has been kept; leaving closes once more."""
        self._closings += 1
        http = self._http
        if self._closings > 1 or hasattr(http, "_content") or not http.is_stream_consumed:
            self._span.lost(self._count)

    def _gone(self) -> None:
        self._span.lost(self._count)

    def _count(self) -> None:
        if hasattr(self._http, "_content"):
            _read(self._http, self._span)
        else:
            self._span.finish("success" if self._http.is_stream_consumed else "abandoned")

    def _release(self) -> None:
        if self._span.release is not None:
            self._span.release()

    def _forget(self) -> None:
        self._unfollow()
        self._lost.detach()
        answer = self._answer()
        if answer is not None:
            vars(answer).pop("parse", None)
