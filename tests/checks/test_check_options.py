"""The options that every check takes: what is allowed, and what is said of the rest."""

from typing import Any

import pytest

from holistic_asgi_monitor.checks.options import Options
from holistic_asgi_monitor.model import ConfigurationError


@pytest.mark.parametrize("name", ["a", "database", "payments.eu-1_x", "x" * 64])
def test_a_name_of_letters_digits_and_signs_is_allowed(name: str) -> None:
    assert Options(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", " ", "pay ments", "zahlung€", "a/b", "a\n", "x" * 65, 3, None]
)
def test_another_name_is_refused_in_one_sentence(name: Any) -> None:
    with pytest.raises(
        ConfigurationError, match="allowed are 1 to 64 letters, digits and the signs"
    ):
        Options(name=name)


@pytest.mark.parametrize("option", ["timeout", "interval"])
@pytest.mark.parametrize("value", [None, 1, 0.001, 3600.0])
def test_a_duration_is_a_number_of_seconds_or_none(option: str, value: Any) -> None:
    assert getattr(Options(name="a", **{option: value}), option) == value


@pytest.mark.parametrize("option", ["timeout", "interval"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "2"])
def test_another_duration_is_refused_with_check_and_option(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"The check pay has {option}="):
        Options(name="pay", **{option: value})


@pytest.mark.parametrize("names", ["database", None, 3, [1], {"database"}])
def test_dependencies_that_are_no_sequence_of_names_are_refused(names: Any) -> None:
    """A text is a sequence of letters, and no check has one of these for a name."""
    with pytest.raises(ConfigurationError, match="allowed is a sequence of names"):
        Options(name="pay", depends_on=names)


@pytest.mark.parametrize("required", ["no", 1, None])
def test_required_is_true_or_false(required: Any) -> None:
    with pytest.raises(ConfigurationError, match="allowed are True and False"):
        Options(name="pay", required=required)


def test_the_name_of_the_monitor_itself_is_taken() -> None:
    with pytest.raises(ConfigurationError, match="stands for the monitor itself"):
        Options(name="monitor")
