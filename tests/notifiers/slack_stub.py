"""An incoming webhook and the Web API of Slack on this machine, which answer as a script says.

They take what Slack takes, and refuse what Slack refuses: a message over one of the limits is 400
`invalid_blocks`, or 200 with `"ok": false` from the Web API. What comes after the script, or where
it has None, is judged and answered like that as well.
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
TOKEN = "xoxb-17653672481-XXXXSECRETXXXX"
CHANNEL, CHANNEL_ID = "#alerts", "C0G9QF9GZ"


@dataclass(frozen=True)
class Answer:
    """What is done with one request.

    `act` is `answer`, `hang` (never answers), `close` (hangs up without an answer) or `cut` (hangs
    up in the middle of one); `delay` is in seconds.
    """

    status: int = 200
    body: str = "ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    act: str = "answer"
    charset: str = "utf-8"
    kind: str = "text/html"


def api_answer(status: int = 200, headers: Mapping[str, str] | None = None, **body: Any) -> Answer:
    """An answer of the Web API."""
    return Answer(status, json.dumps(body), headers or {}, kind="application/json")


def api_error(word: str) -> Answer:
    """The Web API's way to say no."""
    return api_answer(ok=False, error=word)


@dataclass(frozen=True)
class Received:
    """One request: when it came, and what it brought."""

    moment: float
    path: str
    headers: Mapping[str, str]
    payload: Any
    raw: bytes = b""

    @property
    def method(self) -> str:
        """The last part of the path: what is asked of the Web API."""
        return self.path.rpartition("/")[2]


class SlackStub:
    """Slack; use it with `with`. `script` is used up request by request.

    `messages` are what stands in the channel by timestamp, as it was posted or edited last.
    """

    def __init__(self, script: Sequence[Answer | None] = ()) -> None:
        self.received: list[Received] = []
        self.messages: dict[str, Any] = {}
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
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/api/"

    @property
    def payloads(self) -> list[Any]:
        return [each.payload for each in self.received]

    def next_answer(self, request: Received) -> Answer:
        scripted = self.script.pop(0) if self.script else None
        if scripted is not None:
            return scripted
        if request.path.startswith("/api/"):
            return self._api(request)
        error = refusal(request.payload)
        return Answer() if error is None else Answer(400, error)

    def _api(self, request: Received) -> Answer:
        """What `chat.postMessage` and `chat.update` answer."""
        payload, is_update = request.payload, request.method == "chat.update"
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return api_error("invalid_auth")
        if payload.get("channel") not in ({CHANNEL_ID} if is_update else {CHANNEL, CHANNEL_ID}):
            return api_error("channel_not_found")
        named = payload.get("ts" if is_update else "thread_ts")
        if named is not None and named not in self.messages:
            return api_error("message_not_found" if is_update else "thread_not_found")
        error = refusal(payload)
        if error is not None:
            return api_error(error)
        ts = named if is_update else f"1764000000.{len(self.messages) + 1:06}"
        self.messages[ts] = payload
        return api_answer(ok=True, channel=CHANNEL_ID, ts=ts, message={"text": payload["text"]})


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        stub: SlackStub = self.server.stub  # type: ignore[attr-defined]  # set by the stub
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            payload = json.loads(raw)
        except ValueError:
            payload = None
        request = Received(time.monotonic(), self.path, dict(self.headers), payload, raw)
        stub.received.append(request)
        answer = stub.next_answer(request)
        if answer.delay:
            stub.released.wait(answer.delay)
        if answer.act == "hang":
            stub.released.wait(60)
        if answer.act in {"answer", "cut"}:
            self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        body = answer.body.encode("utf-8", "surrogateescape")
        self.send_response(answer.status)
        self.send_header("Content-Type", f"{answer.kind}; charset={answer.charset}")
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
    # Undocumented, and seen with 11,341 characters of text (bolt-js, issues 2509 and 2867).
    sound = sound and sum(100 + len(text) for block in blocks for text in _texts(block)) <= 11_000
    return None if sound and len(payload.get("text", "")) <= 4_000 else "invalid_blocks"


def _texts(block: Any) -> list[str]:
    return [each["text"] for each in block.get("elements", [block.get("text")]) if each]


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
