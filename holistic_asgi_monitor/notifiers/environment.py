"""The notifiers that the environment asks for, without a word in the code of the app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from holistic_asgi_monitor.model import MissingExtraError, Notifier
from holistic_asgi_monitor.notifiers.alertmanager import LASTING_SECONDS, Alertmanager
from holistic_asgi_monitor.notifiers.log import Log
from holistic_asgi_monitor.notifiers.slack import Slack
from holistic_asgi_monitor.notifiers.webhook import Webhook
from holistic_asgi_monitor.settings import Settings

__all__ = ("notifiers_from_environment",)

_logger = logging.getLogger("holistic_asgi_monitor")

LONGEST_REMINDER = 16
"""The times of the cooldown that lie between two reminders, once they have become rare."""


def notifiers_from_environment(settings: Settings) -> list[Notifier]:
    """All notifiers that `settings` name, else the log.

    One whose package is not installed is left out, with one warning. A wrong value is a
    ConfigurationError.
    """
    made: list[Notifier] = []
    for variable, make in _named(settings):
        try:
            made.append(make())
        except MissingExtraError as error:
            _logger.warning("%s is set, but not used for alerts: %s", variable, error)
    return made or [Log()]


def _named(settings: Settings) -> Iterator[tuple[str, Callable[[], Notifier]]]:
    """Variable and maker for each notifier that is set."""
    slack = _slack(settings)
    if slack is not None:
        yield slack
    if settings.alertmanager_url is not None:
        yield "ALERTMANAGER_URL", lambda: _alertmanager(settings)
    webhook_url = settings.webhook_url
    if webhook_url is not None:
        yield "MONITOR_WEBHOOK_URL", lambda: Webhook(webhook_url)


def _slack(settings: Settings) -> tuple[str, Callable[[], Notifier]] | None:
    """The one way to Slack: two would say everything twice."""
    url, token, channel = (
        settings.slack_webhook_url,
        settings.slack_bot_token,
        settings.slack_channel,
    )
    if url is not None:
        return "SLACK_WEBHOOK_URL", lambda: Slack(url)
    if token is not None and channel is not None:
        return "SLACK_BOT_TOKEN", lambda: Slack(token=token, channel=channel)
    if token is not None:
        _logger.warning(
            "SLACK_BOT_TOKEN is set, but not used for alerts: set SLACK_CHANNEL as well"
        )
    return None


def _alertmanager(settings: Settings) -> Alertmanager:
    rarest = LONGEST_REMINDER * settings.alert_cooldown_minutes * 60
    return Alertmanager(settings.alertmanager_url or "", lasting=max(LASTING_SECONDS, 2 * rarest))
