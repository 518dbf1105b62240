"""Alertmanager of Prometheus, by its API v2, so that a routing that is there already applies.

Alertmanager takes an alert for over once its `endsAt` has passed, and Prometheus therefore sends
each again every minute. We send on changes and reminders only, so what goes on gets an `endsAt`
that lies beyond the next reminder; its end sets it to when it was over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from holistic_asgi_monitor.model import Alert, AlertState, ConfigurationError, Severity
from holistic_asgi_monitor.notifiers.addresses import Address, refuse_wrong_timeout
from holistic_asgi_monitor.notifiers.errors import DeliveryError
from holistic_asgi_monitor.notifiers.posting import Poster
from holistic_asgi_monitor.notifiers.values import encoded
from holistic_asgi_monitor.notifiers.wording import clean, paragraphs

__all__ = ("Alertmanager", "entries")

API_PATH = "/api/v2/alerts"
LASTING_SECONDS = 86_400.0
NOTICE_SECONDS = 900.0
LABEL_LIMIT = 500
ANNOTATION_LIMIT = 4000
MOST_KEYS = 1000


class Alertmanager:
    """Posts alerts to the Alertmanager at `url`, with or without a path before its own.

    A user and a password in the URL are sent as Basic authentication. What goes on is taken for
    over after `lasting` seconds without a word from here: more than lie between two reminders.
    `timeout` is in seconds. A wrong argument is a ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "alertmanager",
        timeout: float = 10.0,
        lasting: float = LASTING_SECONDS,
    ) -> None:
        address = _of_api(Address.parse(url, "url of notifiers.Alertmanager"))
        self.name = name
        self.timeout = refuse_wrong_timeout(timeout, "notifiers.Alertmanager")
        self._lasting = _sound_lasting(lasting)
        self._severities: dict[str, Severity] = {}
        self._poster = Poster(address, who="Alertmanager", name=name, timeout=self.timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url=..., name={self.name!r})"

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Post the alerts; DeliveryError where they were not taken."""
        if not alerts:
            return
        rows = list(entries(alerts, self._severities, datetime.now(UTC), self._lasting))
        try:
            await self._poster.post(encoded(rows), {})
        except DeliveryError as error:
            # The same alert twice is one alert: who may have got it may get it again.
            error.ambiguous = False
            raise
        self._remember(alerts)

    def state(self) -> dict[str, Any]:
        """What `restore` takes after a restart, as JSON values."""
        return {key: severity.value for key, severity in self._severities.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` gave; what it did not give is left out."""
        known = {severity.value: severity for severity in Severity}
        for key, value in state.items():
            if isinstance(key, str) and isinstance(value, str) and value in known:
                self._severities[key] = known[value]

    def _remember(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self._severities.pop(alert.key, None)
            if alert.state is AlertState.FIRING:
                self._severities[alert.key] = alert.severity
        for key in list(self._severities)[:-MOST_KEYS]:
            del self._severities[key]


def entries(
    alerts: Sequence[Alert], told: Mapping[str, Severity], now: datetime, lasting: float
) -> Iterator[dict[str, Any]]:
    """What is posted for `alerts`, at `now` in UTC.

    The severity is a label, and an alert whose labels change is another one to Alertmanager:
    where a key has another severity than it was `told` to have, that one ends.
    """
    for alert in alerts:
        for severity in _former(alert, told.get(alert.key)):
            yield _entry(replace(alert, severity=severity), _ended(alert, now))
        if alert.state is AlertState.RESOLVED and alert.reason != "was_down":
            yield _entry(alert, _ended(alert, now))
        elif alert.state is AlertState.FIRING:
            yield _entry(alert, now + timedelta(seconds=lasting))
        else:
            yield _entry(_passing(alert), now + timedelta(seconds=NOTICE_SECONDS))


def _former(alert: Alert, told: Severity | None) -> list[Severity]:
    """The severities with which the alert may stand there, besides its own."""
    if told is not None:
        return [told] if told is not alert.severity else []
    # After a restart it is not known from which severity it comes.
    moved = alert.reason in {"escalate", "ease"}
    return [each for each in Severity if moved and each is not alert.severity]


def _ended(alert: Alert, now: datetime) -> datetime:
    """When an alert was over, at the latest now; now for one that goes on with other labels."""
    return now if alert.ended_at is None else min(now, alert.ended_at)


def _passing(alert: Alert) -> Alert:
    """Alertmanager tells nobody of what it hears of as over, so this stands there for a while.

    It wakes nobody: what is over is a warning at most.
    """
    if alert.state is AlertState.RESOLVED:
        return replace(alert, severity=min(alert.severity, Severity.WARNING))
    return alert


def _entry(alert: Alert, ends: datetime) -> dict[str, Any]:
    # The clocks may have been set back meanwhile: nothing ends before it begins.
    starts = min(alert.started_at, ends)
    row: dict[str, Any] = {
        "labels": _labels(alert),
        "annotations": _annotations(alert),
        "startsAt": _time(starts),
        "endsAt": _time(ends),
    }
    if alert.dashboard_url:
        row["generatorURL"] = alert.dashboard_url
    return row


def _labels(alert: Alert) -> dict[str, str]:
    key = _cut(alert.key, LABEL_LIMIT) or "alert"
    labels = {
        "alertname": key,
        "severity": alert.severity.value,
        "service": _cut(alert.service, LABEL_LIMIT),
        "environment": _cut(alert.environment, LABEL_LIMIT),
        "instance": _cut(alert.instance, LABEL_LIMIT),
        "key": key,
    }
    # To Alertmanager an empty label is none.
    return {name: value for name, value in labels.items() if value}


def _annotations(alert: Alert) -> dict[str, str]:
    long = "\n\n".join("\n".join(lines) for lines in paragraphs(alert))
    lines = [clean(alert.summary), *_details(alert.details)]
    annotations = {
        "summary": _cut(alert.title, ANNOTATION_LIMIT),
        "description": (long or "\n".join(filter(None, lines)))[:ANNOTATION_LIMIT],
        "runbook_url": _cut(alert.runbook_url or "", ANNOTATION_LIMIT),
        "dashboard": _cut(alert.dashboard_url or "", ANNOTATION_LIMIT),
    }
    return {name: value for name, value in annotations.items() if value}


def _details(details: Mapping[str, Any]) -> Iterator[str]:
    for name, value in details.items():
        shown = value
        if isinstance(value, dict | list | tuple):
            shown = json.dumps(value, ensure_ascii=False, default=str)
        yield clean(f"{name}: {shown}")


def _cut(text: str, limit: int) -> str:
    return clean(text)[:limit]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _of_api(address: Address) -> Address:
    path = address.path.rstrip("/")
    return replace(address, path=path if path.endswith(API_PATH) else f"{path}{API_PATH}")


def _sound_lasting(lasting: object) -> float:
    sound = isinstance(lasting, int | float) and not isinstance(lasting, bool)
    if not sound or not 60 <= float(lasting) < 1e10:  # type: ignore[arg-type]  # sound
        raise ConfigurationError(
            f"The lasting of notifiers.Alertmanager is {lasting!r}: it must be a number of seconds "
            "from 60 to 10000000000."
        )
    return float(lasting)  # type: ignore[arg-type]  # sound
