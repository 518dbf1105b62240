"""The last summaries in the statistics."""

from __future__ import annotations

import json

import pytest
from starlette.applications import Starlette

from holistic_asgi_monitor import Monitor, Settings, notifiers
from tests.web.exchanges import get

SAID = {"period": "2026-11-25", "title": "Summary", "text": "$12", "figures": {"usd": 12}}


def monitored(**settings):
    options = {"service": "shop", "history_url": "memory:", "access": "open", **settings}
    return Monitor(
        Starlette(), settings=Settings(**options), checks=[], notifiers=[notifiers.Memory()]
    )


async def summary(monitor):
    return json.loads((await get(monitor, "/api/monitoring/stats")).body)["summary"]


async def test_they_are_those_that_were_sent_last():
    monitor = monitored()
    async with monitor:
        await monitor._parts.recorder.put_state("summary daily", json.dumps(SAID))

        assert await summary(monitor) == {"daily": SAID, "weekly": None}


@pytest.mark.parametrize("url", ["off", "sqlite:////nowhere/history.sqlite", "memory:"])
async def test_before_the_first_and_without_history_there_is_none(url):
    monitor = monitored(history_url=url)
    async with monitor:
        assert await summary(monitor) == {"daily": None, "weekly": None}


async def test_where_nobody_watches_nothing_is_opened_for_it():
    monitor = monitored()

    assert await summary(monitor) == {"daily": None, "weekly": None}
    assert not monitor._parts.recorder._opened
