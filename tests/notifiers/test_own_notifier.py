"""The notifier of one's own that docs/alerts.md shows, run against a small SMTP server."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any, Self

import anyio
import pytest

from holistic_asgi_monitor import Notifier, Settings
from holistic_asgi_monitor.alerts.outbox import Outbox
from tests.alerts.rounds import NOON as START
from tests.alerts.rounds import seen
from tests.alerts.virtual_time import VirtualTime, eventually
from tests.notifiers.alerts import alarm, all_clear

PAGE = Path(__file__).parents[2] / "docs" / "alerts.md"


class SmtpStub:
    """Takes mail on this machine; with `refusing` it says that it is busy."""

    def __init__(self) -> None:
        self.mails: list[Message] = []
        self.refusing = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, client.makefile("rw", encoding="utf-8", newline="") as lines:
                    self._talk(lines)

    def _talk(self, lines: Any) -> None:
        def say(line: str) -> None:
            lines.write(f"{line}\r\n")
            lines.flush()

        say("421 busy" if self.refusing else "220 ready")
        for line in lines:
            word = line.split()[0].upper()
            if word == "QUIT":
                say("221 bye")
                return
            if word != "DATA":
                say("250 well")
                continue
            say("354 go on")
            body = iter(lines.readline, ".\r\n")
            self.mails.append(message_from_string("".join(body)))
            say("250 taken")


@pytest.fixture
def smtp() -> Iterator[SmtpStub]:
    """A mail server."""
    with SmtpStub() as smtp:
        yield smtp


@pytest.fixture
def email(smtp: SmtpStub) -> Any:
    """The notifier as the page has it."""
    code = re.search(r"```python\n(import smtplib\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"__name__": "example"}
    exec(code[1], names)
    return names["Email"]("127.0.0.1", "shop@example.org", "you@example.org", smtp.port)


async def test_it_sends_a_mail_that_says_what_there_is(email: Any, smtp: SmtpStub) -> None:
    assert isinstance(email, Notifier)
    await email.send([alarm(title="database\r\nBcc: evil@example.org"), all_clear("redis")])

    (mail,) = smtp.mails
    assert mail["To"] == "you@example.org"
    assert mail["Bcc"] is None
    assert mail["Subject"] == "database Bcc: evil@example.org; redis is healthy again"
    text = mail.get_payload()
    assert "FIRING (critical) database" in text
    assert "since 2026-11-23 12:00:00 UTC, shop on web-1" in text


async def test_through_the_outbox_a_refused_mail_is_brought_again(
    email: Any, smtp: SmtpStub
) -> None:
    time = VirtualTime()
    outcomes: list[str] = []
    outbox = Outbox(
        [email],
        Settings(service="shop", startup_grace_seconds=0),
        outcome=lambda _, outcome: outcomes.append(outcome),
        clock=time.clock,
        sleep=time.sleep,
    )
    smtp.refusing = True
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.run)
        for _ in range(2):
            outbox.post([seen("db", "c")], now=time.now, time=START)
        await eventually(lambda: outcomes == ["failed"])
        smtp.refusing = False
        await time.pass_by(2)
        await eventually(lambda: outcomes == ["failed", "delivered"])
        group.cancel_scope.cancel()

    (mail,) = smtp.mails
    assert mail["Subject"] == "db is critical"
