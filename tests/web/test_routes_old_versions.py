"""Labels under a FastAPI and a Starlette whose scope says less, or otherwise, than today's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import holistic_asgi_monitor.web.routes

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(holistic_asgi_monitor.web.routes.__file__ or "").absolute().parents[3]


def told_by(script: str, framework: Path) -> dict[str, Any]:
    """What a script prints where `framework` is the first folder that is looked at."""
    folders = [str(framework), str(PACKAGE), str(ROOT)]
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "apps" / script)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout)
    return told


STARLETTE = {
    "GET /items/42": [200, "/items/{id}"],
    "POST /items/42": [405, "/items/{id}"],
    "GET /items/42/": [307, "/items/{id}"],
    "GET /items/x": [404, None],
    "GET /one/1": [200, "/one/{x}"],
    "GET /two/1": [200, "/two/{x}"],
    "GET /t/acme/things/7": [200, "/t/{tenant}/things/{id}"],
    "GET /t/beta/things/7": [200, "/t/{tenant}/things/{id}"],
    "GET /t/beta/nope": [404, None],
    "GET /a/things/7": [200, "/a/things/{id}"],
    "GET /b/c/things/7": [200, "/b/{c}/things/{id}"],
    "GET /static/none.css": [404, "/static/{path}"],
    "GET /raw/any/thing": [200, "/raw/{path}"],
    "GET /nowhere": [404, None],
    "host": [200, "/v/{x}"],
    "proxy": [200, "/t/{tenant}/things/{id}"],
    "websocket": [101, "/chat/{room}"],
}

FASTAPI = {
    "GET /o/7/n/items/5": [200, "/o/{outer}/n/items/{item_id}"],
    "GET /o/7/n/items/x": [422, "/o/{outer}/n/items/{item_id}"],
    "PUT /o/7/n/items/5": [405, "/o/{outer}/n/items/{item_id}"],
    "GET /o/7/n/items/at/a/b": [200, "/o/{outer}/n/items/at/{z}"],
    "GET /v1/items/5": [200, "/v1/items/{item_id}"],
    "GET /v2/items/5": [200, "/v2/items/{item_id}"],
    "GET /v2/items/5/": [307, "/v2/items/{item_id}"],
    "GET /docs": [200, "/docs"],
    "GET /sub/a/s/items/5": [200, "/sub/{s}/s/items/{item_id}"],
    "GET /sub/a/docs": [200, "/sub/{s}/docs"],
    "GET /sub/a/nope": [404, None],
    "GET /plain/leaf/5": [200, "/plain/leaf/{id}"],
    "GET /raw/any/thing": [200, "/raw/{path}"],
    "GET /nowhere": [404, None],
    "websocket": [101, "/v2/items/live/{item_id}"],
}


@pytest.fixture(scope="module")
def starlette(old_starlette: Path) -> dict[str, Any]:
    """What the script for Starlette prints."""
    return told_by("old_starlette_routes.py", old_starlette)


@pytest.fixture(scope="module")
def fastapi(old_fastapi: Path) -> dict[str, Any]:
    """What the script for FastAPI prints."""
    return told_by("old_fastapi_routes.py", old_fastapi)


def test_the_versions_are_the_old_ones(starlette: dict[str, Any], fastapi: dict[str, Any]) -> None:
    assert starlette["version"].startswith("0.46.")
    assert fastapi["version"] == "0.136.3"


@pytest.mark.parametrize("scope", ["seen", "copied"])
@pytest.mark.parametrize("case", STARLETTE)
def test_before_starlette_named_the_route_the_label_is_the_same(
    starlette: dict[str, Any], scope: str, case: str
) -> None:
    assert starlette[scope][case] == STARLETTE[case]


@pytest.mark.parametrize("scope", ["seen", "copied"])
@pytest.mark.parametrize("case", FASTAPI)
def test_before_fastapi_kept_routers_whole_the_label_is_the_same(
    fastapi: dict[str, Any], scope: str, case: str
) -> None:
    assert fastapi[scope][case] == FASTAPI[case]


def test_where_the_scope_names_no_route_nothing_is_remembered_for_it(
    starlette: dict[str, Any],
) -> None:
    assert starlette["cacheable"] is False


def test_a_copied_route_has_one_place_and_decides_its_label(fastapi: dict[str, Any]) -> None:
    assert {"GET /v1/items/5", "GET /v2/items/5", "GET /sub/a/s/items/5"} <= set(
        fastapi["cacheable"]
    )
