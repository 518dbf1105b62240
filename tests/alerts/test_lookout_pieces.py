"""Many bad endpoints are judged in pieces, between which the event loop does other things."""

from __future__ import annotations

from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from holistic_asgi_monitor.alerts.lookout import JUDGED_AT_ONCE
from holistic_asgi_monitor.alerts.rules import Asked
from holistic_asgi_monitor.alerts.verdicts import Verdict
from holistic_asgi_monitor.settings import Settings
from tests.alerts.test_rules_lookout import INTERVAL, Shop


async def test_a_thousand_bad_endpoints_do_not_hold_up_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop, turns, judged = Shop(), 0, Counter[int]()
    judge = Asked.verdict

    def noted(self: Asked, settings: Settings) -> Verdict:
        judged[turns] += 1
        return judge(self, settings)

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    for number in range(900):
        for _ in range(20):
            shop.request(f"/{number}", 500)
    monkeypatch.setattr(Asked, "verdict", noted)
    shop.now += INTERVAL
    async with anyio.create_task_group() as group:
        group.start_soon(spin)
        await shop.round()
        group.cancel_scope.cancel()

    assert sum(judged.values()) == 900
    # On trio others may come after two pieces, or three.
    assert max(judged.values()) <= 6 * JUDGED_AT_ONCE
