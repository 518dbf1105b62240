"""A check made of a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from holistic_asgi_monitor.checks.answers import Answers
from holistic_asgi_monitor.checks.loops import StillRunningError, Threaded
from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.model import CheckResult, ConfigurationError

__all__ = ("FunctionCheck",)


class FunctionCheck(Options):
    """Calls `function`, which takes no arguments, and makes a result of what it gives.

    `function` is sync or async. It returns None or True (healthy), False, a `Status` or a
    `CheckResult`, or raises; False and an exception are critical if `required`, else degraded,
    and anything else is degraded. A sync one is called in a thread, and not called again as long
    as its last call has not returned; where it returns an awaitable, that is awaited.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        *,
        name: str,
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> None:
        super().__init__(
            name=name, required=required, timeout=timeout, interval=interval, depends_on=depends_on
        )
        if not callable(function):
            raise ConfigurationError(
                f"The check {name} is given a {type(function).__name__}; allowed is a function"
            )
        if _needs_arguments(function):
            raise ConfigurationError(
                f"The check {name} is given a function that needs arguments; "
                "allowed is one that can be called without"
            )
        self._call = function if _is_async(function) else Threaded(function, f"check {name}")
        self._answers = Answers(name)

    async def __call__(self) -> CheckResult:
        """Call the function once, and judge."""
        try:
            returned = await self.unjudged()
        except StillRunningError as running:
            return self._answers.hanging(running.since, required=self.required)
        except Exception as error:
            # Protects the caller: whatever the user's function raises is a result.
            return self._answers.raised(error, required=self.required)
        return self._answers.returned(returned, required=self.required)

    async def unjudged(self) -> object:
        """Call the function once, and return or raise what it does.

        `StillRunningError` where its last call has not returned.
        """
        returned = await self._call()
        return await returned if inspect.isawaitable(returned) else returned


def _needs_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:
        # One without a signature, written in C.
        return False
    return False


def _is_async(function: Callable[[], Any]) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004 - the method itself is wanted
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
