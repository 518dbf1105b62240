"""docs/settings.md and the settings say the same: a row for each, and none for what is not."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from holistic_asgi_monitor.settings import RESERVED_LABELS, Settings, Variable

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
SETTINGS = Settings.variables()


def default_of(name: str) -> str:
    """The default of a field, as the page writes it."""
    variable = SETTINGS[name]
    if variable.otherwise:
        return variable.otherwise
    (default,) = (each.default for each in fields(Settings) if each.name == name)
    assert default is not MISSING, f"{name} is computed, so its `otherwise` must say how"
    return written(default)


def written(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(written, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def row(variable: Variable) -> str:
    """The row of the page that documents a variable."""
    asked = [f"`{name}`" for name in variable.fallbacks]
    text = variable.text
    if variable.secret:
        text += f" Secret; `{variable.name}_FILE` may name a file that holds it."
    default = ", else ".join([*asked, default_of(variable.attribute)])
    return f"| `{variable.name}` | {default} | {variable.allowed} | {text} |"


def documented() -> list[str]:
    """The variables that have a row of their own."""
    return re.findall(r"^\| `([A-Z_]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_has_its_row_with_default_and_range(name: str) -> None:
    expected = row(SETTINGS[name])

    assert expected in PAGE.read_text("utf-8").splitlines(), f"docs/settings.md lacks:\n{expected}"


def test_the_page_has_each_setting_once_and_no_other() -> None:
    assert sorted(documented()) == sorted(variable.name for variable in SETTINGS.values())


def test_the_page_names_no_variable_that_does_not_exist() -> None:
    existing = {"MONITOR_ENV_FILE"}
    for variable in SETTINGS.values():
        existing |= {variable.name, *variable.fallbacks}
        existing |= {f"{variable.name}_FILE"} if variable.secret else set()

    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", PAGE.read_text("utf-8")))

    assert named - existing - {"NAME_FILE"} == set()


def test_the_page_lists_the_label_names_that_are_taken() -> None:
    listed = ", ".join(f"`{name}`" for name in sorted(RESERVED_LABELS))

    assert f"{listed}.\n" in PAGE.read_text("utf-8")


@pytest.mark.parametrize("variable", SETTINGS.values(), ids=lambda variable: variable.name)
def test_each_setting_is_documented_by_one_sentence(variable: Variable) -> None:
    assert variable.text.endswith(".")
    assert "\n" not in variable.text
    assert row(variable).count("|") == 5, "a bar would end its cell"


def test_the_metadata_names_the_variable_of_its_own_field() -> None:
    assert [variable.attribute for variable in SETTINGS.values()] == list(SETTINGS)
