"""What is asked for, from the parameters of an address or of a command line: pure.

A parameter that is wrong is refused with one sentence: which, what it is, what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, floor
from types import MappingProxyType
from urllib.parse import parse_qsl

from holistic_asgi_monitor.history.store import Query
from holistic_asgi_monitor.history.tiers import plan
from holistic_asgi_monitor.history.values import Kind
from holistic_asgi_monitor.metrics.series import METHODS, OTHER
from holistic_asgi_monitor.model import MonitorError
from holistic_asgi_monitor.web.history.measures import FILTERS, MEASURES, Measure

__all__ = ("DAY", "MOST_POINTS", "Asked", "WrongParameterError", "asked", "parameters_of")

DAY = 86_400
MOST_POINTS = 11_000
LONGEST_STEP = 366 * DAY
LONGEST_TEXT = 1000
LATEST = 253_402_300_799
"""The last second of the year 9999."""
FORMATS = ("json", "csv")
_DEFAULTS = MappingProxyType(
    {"quantile": "0.95", "from": "-24h", "to": "now", "step": "300", "format": "json"}
)
_KNOWN = ("metric", "quantile", *FILTERS, "from", "to", "step", "format")
_LABELS = MappingProxyType({"service": "check"})
_UNITS = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": DAY, "w": 7 * DAY})
_TIMES = "now, a time before now as in -24h (s, m, h, d, w), seconds since 1970, or an ISO time"
_MOST_PARAMETERS = 50
_SHOWN = 60


class WrongParameterError(MonitorError):
    """A parameter is wrong; the sentence may be shown to anyone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One series: a metric from `start` to before `end` (UTC epoch seconds), in steps of seconds.

    `filters` are those given, by the names of the parameters.
    """

    measure: Measure
    quantile: float
    start: int
    end: int
    step: int
    filters: Mapping[str, str]
    format: str = "json"

    def query(self) -> Query:
        """What to ask of the store; not for users, who are counted by days."""
        kind = self.measure.kind
        assert kind is not None
        if kind is Kind.TRAFFIC and not {"method", "endpoint"}.isdisjoint(self.filters):
            kind = Kind.REQUESTS
        return Query(
            kind,
            self.start,
            self.end,
            self.step,
            where={**self.measure.fixed, **self._labels(kind)},
            instance=None if "instance" in kind.labels else self.filters.get("instance"),
            cells=self.measure.cells,
        )

    def running(self) -> Query:
        """What tells in which of the same steps the service ran: its event loop was measured."""
        instance = self.filters.get("instance")
        return Query(
            Kind.LAG,
            self.start,
            self.end,
            self.step,
            where={} if instance is None else {"instance": instance},
            # So that the answer has the steps of the other one.
            instance=instance,
            cells=False,
        )

    def _labels(self, kind: Kind) -> dict[str, str]:
        named = {_LABELS.get(name, name): text for name, text in self.filters.items()}
        return {name: text for name, text in named.items() if name in kind.labels}


def parameters_of(query_string: bytes) -> list[tuple[str, str]]:
    """The parameters of an address, in their order."""
    text = query_string.decode("latin-1")
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        message = f"The query has too many parameters; allowed are {_MOST_PARAMETERS}."
        raise WrongParameterError(message) from None


def asked(parameters: Iterable[tuple[str, str]], now: float) -> Asked:
    """What the parameters ask for at the time `now`, UTC epoch seconds."""
    given = _each_once(parameters)
    measure = _measure(given)
    _refuse_what_does_not_apply(measure, given)
    text = {**_DEFAULTS, **given}
    start, end = (_time(name, text[name], now) for name in ("from", "to"))
    _refuse_order(start, end)
    wanted = Asked(
        measure,
        _quantile(text["quantile"]),
        floor(start),
        ceil(end),
        _step(text["step"]),
        MappingProxyType({name: _filter(name, given[name]) for name in FILTERS if name in given}),
        _one_of("format", text["format"], FORMATS),
    )
    _refuse_points(wanted, now)
    return wanted


def _refusal(name: str, text: str, allowed: str) -> WrongParameterError:
    shown = ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
    return WrongParameterError(f"The parameter {name} is {shown}; allowed: {allowed}.")


def _each_once(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, text in parameters:
        if name not in _KNOWN:
            shown = ascii(name[:_SHOWN])
            message = f"There is no parameter {shown}; allowed: {', '.join(_KNOWN)}."
            raise WrongParameterError(message)
        if name in given:
            raise WrongParameterError(f"The parameter {name} is given twice; allowed: once.")
        given[name] = text
    return given


def _measure(given: Mapping[str, str]) -> Measure:
    if "metric" not in given:
        message = f"The parameter metric is missing; allowed: {', '.join(MEASURES)}."
        raise WrongParameterError(message)
    return MEASURES[_one_of("metric", given["metric"], MEASURES)]


def _refuse_what_does_not_apply(measure: Measure, given: Mapping[str, str]) -> None:
    applying = {*measure.filters, *(("quantile",) if measure.timed else ())}
    for name in ("quantile", *FILTERS):
        if name in given and name not in applying:
            ordered = [each for each in ("quantile", *FILTERS) if each in applying]
            raise WrongParameterError(
                f"The parameter {name} does not apply to the metric {measure.name}; "
                f"allowed: {', '.join(ordered)}."
            )


def _one_of(name: str, text: str, allowed: Iterable[str]) -> str:
    if text not in allowed:
        raise _refusal(name, text, ", ".join(allowed))
    return text


def _filter(name: str, text: str) -> str:
    if name == "method":
        return _one_of(name, text, (*sorted(METHODS), OTHER))
    if not 0 < len(text) <= LONGEST_TEXT:
        raise _refusal(name, text, f"a text of 1 to {LONGEST_TEXT} characters")
    return text


def _quantile(text: str) -> float:
    if re.fullmatch(r"[0-9]{0,3}\.?[0-9]{1,20}", text, re.ASCII) and 0 <= float(text) <= 1:
        return float(text)
    raise _refusal("quantile", text, "a number from 0 to 1, such as 0.95")


def _step(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) and 1 <= int(text) <= LONGEST_STEP:
        return int(text)
    raise _refusal("step", text, f"whole seconds from 1 to {LONGEST_STEP}")


def _time(name: str, text: str, now: float) -> float:
    """A time as UTC epoch seconds."""
    found = _plain_time(text, now)
    if found is None:
        found = _iso_time(text)
    if found is None or not 0 <= found <= LATEST:
        raise _refusal(name, text, _TIMES)
    return found


def _plain_time(text: str, now: float) -> float | None:
    if text == "now":
        return now
    if relative := re.fullmatch(r"-([0-9]{1,10})([smhdw])", text, re.ASCII):
        return now - int(relative[1]) * _UNITS[relative[2]]
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text, re.ASCII):
        return float(text)
    return None


def _iso_time(text: str) -> float | None:
    # A plus that was not escaped in an address has become a space.
    escaped = re.sub(r"(T\S+) (\d\d:?\d\d)$", r"\1+\2", text)
    try:
        found = datetime.fromisoformat(escaped)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _refuse_order(start: float, end: float) -> None:
    if start >= end:
        message = "The parameter from is not before the parameter to; allowed: an earlier time."
        raise WrongParameterError(message)


def _refuse_points(wanted: Asked, now: float) -> None:
    """Judge by the step in force: what is kept in longer stretches makes fewer points."""
    step = DAY if wanted.measure.kind is None else plan(wanted.query(), now).step
    length = wanted.end - wanted.start
    if length > MOST_POINTS * step:
        raise WrongParameterError(
            f"The parameter step makes more than {MOST_POINTS} points of this range; "
            f"allowed: {-(-length // MOST_POINTS)} s or more, or a shorter range."
        )
