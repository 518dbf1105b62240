"""The app that `module:app` names."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from holistic_asgi_monitor.cli.errors import CannotRunError
from holistic_asgi_monitor.model import MonitorError

__all__ = ("named_app", "place_of")


def named_app(target: str, *, factory: bool) -> Any:
    """The app that `target`, as in `module:app`, names; CannotRunError where there is none.

    It is made by what is named where that is a factory.
    """
    sys.path.insert(0, str(Path.cwd()))
    module, _, path = target.partition(":")
    found = _attribute(_imported(module), path)
    if factory:
        found = _made_by(found, target)
    elif inspect.isfunction(found) and not inspect.signature(found).parameters:
        raise CannotRunError(f"{target} takes no arguments, so it is no app; is it a --factory?")
    if not callable(found):
        kind = type(found).__name__
        raise CannotRunError(f"{target} gives no ASGI app but a {kind}, which cannot be called")
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _is_part(error.name, name):
            places = f"looked in {Path.cwd()} and among the installed packages"
            raise CannotRunError(f"there is no module {error.name}; {places}") from None
        raise CannotRunError(f"importing {name} failed: {place_of(error)}") from None


def _is_part(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def place_of(error: BaseException) -> str:
    """The class of `error` and where it was raised; its text may hold a secret and stays out.

    The sentences of our own errors hold none.
    """
    if isinstance(error, MonitorError):
        return str(error)
    kind = type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        kind = f"{kind} ({error.name})"
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind} in {error.filename}, line {error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ")
    ]
    return f"{kind} in {frames[-1].filename}, line {frames[-1].lineno}"


def _attribute(module: ModuleType, path: str) -> Any:
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError:
        known = [name for name, value in vars(module).items() if _looks_like_an_app(name, value)]
        hint = f"; it has {', '.join(known)}" if known else ""
        raise CannotRunError(f"module {module.__name__} has no {path}{hint}") from None


def _looks_like_an_app(name: str, value: object) -> bool:
    is_kind = inspect.isroutine(value) or inspect.isclass(value)
    return callable(value) and not is_kind and not name.startswith("_")


def _made_by(factory: Any, target: str) -> Any:
    if not callable(factory):
        raise CannotRunError(f"{target} cannot be called, so it is no factory")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise CannotRunError(f"calling {target} failed: {place_of(error)}") from None
    if inspect.iscoroutine(made):
        # Closed, so that Python has nothing to add about it.
        made.close()
    return made
