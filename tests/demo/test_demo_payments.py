"""The payments service and the shop's till, over a real connection."""

from __future__ import annotations

import socket

import anyio
import pytest

from holistic_asgi_monitor.demo.payments import PaymentsDownError, PaymentsService, Till


async def test_it_charges_and_numbers_its_receipts(till: Till) -> None:
    await till.ping()

    assert [await till.charge(100), await till.charge(250)] == ["RECEIPT-000001", "RECEIPT-000002"]


async def test_out_of_order_it_hangs_up_and_mended_it_answers_again(
    service: PaymentsService, till: Till
) -> None:
    service.answering = False
    with pytest.raises(PaymentsDownError):
        await till.charge(100)
    with pytest.raises(PaymentsDownError):
        await till.ping()

    service.answering = True
    await till.ping()


async def test_nobody_listening_is_payments_down() -> None:
    """A refused connection says the same as one that is hung up."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(PaymentsDownError):
        await Till(port).ping()


async def test_silence_is_payments_down_after_the_timeout() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        anyio.fail_after(5),
        pytest.raises(PaymentsDownError),
    ):
        await Till(silent.getsockname()[1], timeout=0.05).ping()


@pytest.mark.parametrize("words", [b"", b"no end of line", b"x" * 5000])
async def test_a_client_that_talks_nonsense_breaks_nothing(till: Till, words: bytes) -> None:
    async with await anyio.connect_tcp("127.0.0.1", till.port) as stranger:
        if words:
            await stranger.send(words)

    await till.ping()
