"""The documentation names what exists, and nothing else."""

import re
from pathlib import Path

import pytest

from holistic_asgi_monitor import Monitor, Settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def monitor():
    async def app(scope, receive, send):
        raise AssertionError

    return Monitor(app, settings=Settings(service="docs"), checks=[])


def rows(page):
    """The first cells of the tables' rows, their code text only."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_every_metric_is_documented_and_no_other(monitor):
    prefix = f"{monitor.settings.namespace}_"
    exported = {family.exposed_names[0].removeprefix(prefix) for family in monitor._parts.catalogue}

    assert rows("metrics.md") == exported


def test_every_metrics_kind_and_labels_are_documented(monitor):
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    prefix = f"{monitor.settings.namespace}_"
    for family in monitor._parts.catalogue:
        labels = f" `{', '.join(family.labels)}`" if family.labels else ""
        name = family.exposed_names[0].removeprefix(prefix)
        assert f"| `{name}` | {family.kind}{labels} |" in text


def test_every_path_is_documented_and_no_other(monitor):
    served = {path for path in monitor._parts.endpoints.paths if not path.endswith("/")}

    assert rows("endpoints.md") == served


def test_links_between_the_pages_lead_somewhere():
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+\.md)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_room_of_the_floor_plan_exists_and_no_file_is_missing():
    plan = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = DOCS.parent / "holistic_asgi_monitor"
    named = {
        name
        for line in plan.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([\w./]+)`", line.split("|")[1])
    }

    assert all((package / name).exists() for name in named)
    unnamed = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if not path.name.startswith("_")
        and not any(str(path.relative_to(package)).startswith(name) for name in named)
    ]
    assert unnamed == []
