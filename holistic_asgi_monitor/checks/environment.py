"""The checks that the environment asks for, without a word in the code of the app."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from holistic_asgi_monitor.checks.openai import OpenAI
from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.checks.postgres import Postgres
from holistic_asgi_monitor.checks.probe import Probe
from holistic_asgi_monitor.checks.redis import Redis
from holistic_asgi_monitor.checks.system import System
from holistic_asgi_monitor.model import Check, CheckResult, MonitorError, Status
from holistic_asgi_monitor.settings import Settings

__all__ = ("Skipped", "checks_from_environment")

_logger = logging.getLogger("holistic_asgi_monitor")


class Skipped(Options):
    """A check that cannot be made here; `sentence` says why."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name=name)
        self._sentence = sentence

    async def __call__(self) -> CheckResult:
        """Say so."""
        return CheckResult(Status.SKIPPED, self._sentence)


def checks_from_environment(settings: Settings) -> list[Check]:
    """The system's check, and one for each service that `settings` name.

    The app may have reasons for an address that we cannot check, and do without the package that
    it takes: the check is then skipped, with one warning.
    """
    made: list[Check] = [System()]
    for name, variable, make in _named(settings):
        try:
            check = make().configured(settings)
        except MonitorError as error:
            _logger.warning("%s is set, but %s is not checked: %s", variable, name, error)
            made.append(Skipped(name, str(error)))
        else:
            check.lenient = True
            made.append(check)
    return made


def _named(settings: Settings) -> Iterator[tuple[str, str, Callable[[], Probe]]]:
    """Name of the check, variable and maker for each service that is set."""
    database, redis = settings.database_url, settings.redis_url
    if database is not None:
        yield "database", "DATABASE_URL", lambda: Postgres(database)
    if redis is not None:
        yield "redis", "REDIS_URL", lambda: Redis(redis)
    if settings.openai_api_key is not None:
        yield "openai", "OPENAI_API_KEY", OpenAI
