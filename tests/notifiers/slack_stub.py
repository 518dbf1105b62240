"""An incoming webhook of Slack's on this machine, which answers as a script says.

It takes what Slack takes, and refuses what Slack refuses: a message over one of the limits is 400
`invalid_blocks`. What comes after the script is judged and answered like that as well.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

PATH = "/services/T000/B000/XXXXSECRETXXXX"
SECRET = "XXXXSECRETXXXX"


@dataclass(frozen=True)
class Answer:
    """What the webhook does with one request.

    `act` is `answer`, `hang` (never answers), `close` (hangs up without an answer) or `cut` (hangs
    up in the middle of one); `delay` is in seconds.
    """

    status: int = 200
    body: str = "ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    act: str = "answer"
    charset: str = "utf-8"


@dataclass(frozen=True)
class Received:
    """One request: when it came, and what it brought."""

    moment: float
    path: str
    headers: Mapping[str, str]
    payload: Any


class SlackStub:
    """The webhook; use it with `with`. `script` is used up request by request."""

    def __init__(self, script: Sequence[Answer] = ()) -> None:
        self.received: list[Received] = []
        self.script = list(script)
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.stub = self  # type: ignore[attr-defined]  # for its handlers
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{PATH}"

    @property
    def payloads(self) -> list[Any]:
        return [each.payload for each in self.received]

    def next_answer(self, payload: Any) -> Answer:
        if self.script:
            return self.script.pop(0)
        error = refusal(payload)
        return Answer() if error is None else Answer(400, error)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        stub: SlackStub = self.server.stub  # type: ignore[attr-defined]  # set by the stub
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            payload = json.loads(raw)
        except ValueError:
            payload = None
        stub.received.append(Received(time.monotonic(), self.path, dict(self.headers), payload))
        answer = stub.next_answer(payload)
        if answer.delay:
            stub.released.wait(answer.delay)
        if answer.act == "hang":
            stub.released.wait(60)
        if answer.act in {"answer", "cut"}:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        body = answer.body.encode("utf-8", "surrogateescape")
        self.send_response(answer.status)
        self.send_header("Content-Type", f"text/html; charset={answer.charset}")
        self.send_header("Content-Length", str(len(body) + (answer.act == "cut")))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def refusal(payload: Any) -> str | None:
    """The word with which Slack refuses a message, None for one that it takes."""
    if not isinstance(payload, dict):
        return "invalid_payload"
    blocks = payload.get("blocks", [])
    if not payload.get("text") and not blocks:
        return "no_text"
    sound = len(blocks) <= 50 and all(map(_is_sound, blocks))
    return None if sound and len(payload.get("text", "")) <= 40_000 else "invalid_blocks"


def _is_sound(block: Any) -> bool:
    kind = block.get("type")
    if kind == "section":
        return _is_text(block.get("text"), 3000)
    if kind == "context":
        elements = block.get("elements", [])
        return 1 <= len(elements) <= 10 and all(_is_text(each, 2000) for each in elements)
    return bool(kind == "divider")


def _is_text(text: Any, limit: int) -> bool:
    if not isinstance(text, dict) or text.get("type") not in {"mrkdwn", "plain_text"}:
        return False
    said = text.get("text")
    return isinstance(said, str) and 1 <= len(said) <= limit
