"""What every check has besides its call: a name, and when and for how long it is called."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from holistic_asgi_monitor.model import Check, ConfigurationError

__all__ = ("Options", "validate")

RESERVED = frozenset({"monitor"})
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Options:
    """The options that each check of ours begins with; `timeout` and `interval` are seconds.

    A wrong one is a `ConfigurationError`. `secrets` are the texts that a check knows and that
    nobody may read.
    """

    secrets: Sequence[str] = ()

    def __init__(
        self,
        *,
        name: str,
        required: bool = False,
        timeout: float | None = None,
        interval: float | None = None,
        depends_on: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.required = required
        self.timeout = timeout
        self.interval = interval
        self.depends_on = depends_on
        validate(self)


def validate(check: Options | Check) -> None:
    """Raise `ConfigurationError` where an option of `check` is not what it may be."""
    if not isinstance(check.name, str) or not _NAME.fullmatch(check.name):
        raise ConfigurationError(
            f"A check has the name {check.name!r}; "
            "allowed are 1 to 64 letters, digits and the signs _ . -"
        )
    for option in ("timeout", "interval"):
        value = getattr(check, option)
        if value is not None and not _is_duration(value):
            raise ConfigurationError(
                f"The check {check.name} has {option}={value!r}; "
                "allowed is a number of seconds above 0, or None for the settings' value"
            )
    if check.name in RESERVED:
        raise ConfigurationError(
            f"A check has the name {check.name!r}, which stands for the monitor itself in reports; "
            "allowed is any other"
        )
    if not isinstance(check.required, bool):
        raise ConfigurationError(
            f"The check {check.name} has required={check.required!r}; allowed are True and False"
        )
    if not _are_names(check.depends_on):
        raise ConfigurationError(
            f"The check {check.name} has depends_on={check.depends_on!r}; "
            "allowed is a sequence of names of checks"
        )


def _are_names(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return all(isinstance(name, str) for name in value)


def _is_duration(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and value > 0
