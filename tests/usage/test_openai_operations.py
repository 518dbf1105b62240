"""Which calls are counted, by their path."""

import pytest

from holistic_asgi_monitor.usage.openai_operations import Operation, operation_at


def operation(**kinds: bool) -> Operation:
    return Operation(
        **{"chat": False, "events": False, "images": False, "free": False, **kinds},
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/chat/completions", operation(chat=True)),
        ("/chat/completions?api-version=2024-10-21", operation(chat=True)),
        ("/deployments/mine/chat/completions", operation(chat=True)),
        ("https://example.org/v1/chat/completions", operation(chat=True)),
        ("/completions", operation()),
        ("/responses", operation(events=True)),
        ("/responses/compact", operation()),
        ("/embeddings", operation()),
        ("/moderations", operation(free=True)),
        ("/images/generations", operation(images=True)),
        ("/images/edits", operation(images=True)),
        ("/audio/speech", operation()),
        ("/audio/transcriptions", operation()),
        ("/videos", operation()),
        ("/videos/edits", operation()),
        ("/videos/extensions", operation()),
        ("/videos/video_1/remix", operation()),
    ],
)
def test_what_is_billed_is_counted(url: str, expected: Operation) -> None:
    assert operation_at(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/models",
        "/files",
        "/batches",
        "/responses/resp_1/cancel",
        "/videos/video_1",
        "/videos/characters",
        "/chat/completions/chatcmpl_1",
        "/files?purpose=/chat/completions",
    ],
)
def test_what_costs_nothing_by_itself_is_not(url: str) -> None:
    assert operation_at(url) is None
