"""When the demo's payments service fails, when it comes back, and how often Monitor looks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Script",)

_FAILS_AT = 15.0
_RETURNS_AT = 35.0
_INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class Script:
    """The timing of one run, in seconds since its start.

    `interval` is the time between two rounds of checks, `lines` the time between two lines of
    progress where they cannot be rewritten in place.
    """

    fails_at: float = _FAILS_AT
    returns_at: float = _RETURNS_AT
    interval: float = _INTERVAL
    lines: float = 5.0

    @classmethod
    def lasting(cls, seconds: float | None) -> Script:
        """The script for a run of `seconds`, None for one without an end.

        A short run fails at a quarter of its time and recovers a little after its half, so that
        the alert and the all-clear both fit in.
        """
        if seconds is None:
            return cls()
        return cls(
            fails_at=min(_FAILS_AT, 0.25 * seconds),
            returns_at=min(_RETURNS_AT, 0.55 * seconds),
            interval=min(_INTERVAL, max(0.2, seconds / 20)),
            lines=min(5.0, max(1.0, seconds / 8)),
        )
