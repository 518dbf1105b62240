"""Labels for models stay few, whatever is asked for and answered."""

from holistic_asgi_monitor.metrics.series import OTHER
from holistic_asgi_monitor.usage.openai_names import LONGEST_NAME, MODELS_LIMIT, Names


def names(*listed: str) -> Names:
    return Names(lambda name: name in listed)


def test_a_model_is_called_as_it_answers() -> None:
    assert names().answered("gpt-4o", "gpt-4o-2024-08-06") == "gpt-4o-2024-08-06"
    assert names().answered("my-image-model", None) == "my-image-model"
    assert names().answered(None, None) == OTHER


def test_a_model_that_never_answered_has_no_label_of_its_own() -> None:
    known = names("gpt-4o")

    assert known.failed("gpt-4o") == "gpt-4o"
    assert known.failed("gtp-4o") == OTHER
    assert known.failed(None) == OTHER


def test_a_failure_counts_where_the_answers_count() -> None:
    known = names("gpt-4o")
    known.answered("gpt-4o", "gpt-4o-2024-08-06")
    known.answered("my-deployment", "gpt-4o-2024-08-06")

    assert known.failed("gpt-4o") == "gpt-4o-2024-08-06"
    assert known.failed("my-deployment") == "gpt-4o-2024-08-06"


def test_the_ids_of_fine_tuned_models_fall_together() -> None:
    known = names()
    tuned = "ft:gpt-4o-mini-2024-07-18:shop::"

    assert known.answered(tuned + "a", tuned + "a") == "ft:gpt-4o-mini-2024-07-18"
    assert known.answered(tuned + "b", tuned + "b") == "ft:gpt-4o-mini-2024-07-18"
    assert known.failed(tuned + "c") == "ft:gpt-4o-mini-2024-07-18"


def test_a_name_has_an_end() -> None:
    assert names().answered("m" * 5000, None) == "m" * LONGEST_NAME


def test_there_is_an_end_to_models() -> None:
    known = names(*(f"l{number}" for number in range(1000)))
    answered = {known.answered(f"m{number}", f"m{number}") for number in range(1000)}
    failed = {known.failed(f"l{number}") for number in range(1000)}

    assert len(answered | failed) == MODELS_LIMIT + 1
    assert OTHER in answered
    assert len(known._asked) <= MODELS_LIMIT
    assert known.answered("m1", "m1") == "m1"
