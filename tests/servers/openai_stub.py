"""The API of OpenAI on this machine, in its wire format, which answers as a test says.

    with OpenAIStub() as stub:
        client = openai.AsyncOpenAI(base_url=stub.url, api_key=KEY)
        stub.answer(RATE_LIMITED)                        # from now on, to everything
        stub.answer(BROKEN, OK, route="/models")         # once broken, then well, and so on
        stub.requests[-1].headers["authorization"]

A route is the end of a path, so that Azure's `/openai/models` is `/models` as well. What comes
after `OK` is up to the route: `_routes` has one method for each, which gets the request and
returns the `Answer`; a new endpoint is a new method there.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE = 30.0
MODELS = 112
EVERYWHERE = ""
CHUNKS = 5
CHAT_USAGE = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 200, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": 1000,
    "output_tokens": 2000,
    "total_tokens": 3000,
    "input_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 1500},
}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": '{"name": "Ada"}', "annotations": []}],
}


@dataclass(frozen=True)
class Answer:
    """What is done with one request.

    `act` is `answer`, `hang` (nothing ever comes), `dribble` (the head, then a byte each 20 ms,
    without an end), `close` (the end, without an answer), `cut` (the end amid the body) or `stall`
    (half of a stream, and then nothing). `body` is JSON, or bytes as they are; None is left to the
    route. `parts` are a stream, sent one by one. `delay` is in seconds.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    act: str = "answer"
    content_type: str = "application/json"
    parts: Sequence[bytes] = ()


@dataclass(frozen=True)
class Request:
    """What came: header names in lower case, the path without its query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def refusal(
    status: int,
    message: str,
    kind: str | None,
    code: str | None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """An error as the API words it."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return Answer(status, {"error": error}, headers or {})


def invalid_key(key: str) -> Answer:
    """The answer to a wrong key, which repeats its beginning and its end."""
    masked = f"{key[:8]}{'*' * max(0, len(key) - 12)}{key[-4:]}"
    message = (
        f"Incorrect API key provided: {masked}. You can find your API key at "
        "https://platform.openai.com/account/api-keys."
    )
    return refusal(401, message, "invalid_request_error", "invalid_api_key")


OK = Answer()
FORBIDDEN = refusal(
    403,
    "Country, region, or territory not supported",
    "request_forbidden",
    "unsupported_country_region_territory",
)
NO_SCOPE = refusal(
    403,
    "You have insufficient permissions for this operation. Missing scopes: api.model.read. Check "
    "that you have the correct role in your organization (Reader, Writer, Owner) and project "
    "(Member, Owner), and if you're using a restricted API key, that it has the necessary scopes.",
    "invalid_request_error",
    None,
)
RATE_LIMITED = refusal(
    429,
    "Rate limit reached for requests in organization org-abc on requests per min (RPM): Limit 3, "
    "Used 3, Requested 1. Please try again in 20s.",
    "requests",
    "rate_limit_exceeded",
    {"retry-after": "20", "x-ratelimit-remaining-requests": "0"},
)
QUOTA = refusal(
    429,
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: "
    "https://platform.openai.com/docs/guides/error-codes/api-errors.",
    "insufficient_quota",
    "insufficient_quota",
)
SERVER_ERROR = refusal(
    500,
    "The server had an error while processing your request. Sorry about that!",
    "server_error",
    None,
)
OVERLOADED = Answer(503, b"<html>503 Service Unavailable</html>", content_type="text/html")
NOT_FOUND = refusal(404, "Invalid URL (GET /v1/nothing)", "invalid_request_error", None)
BROKEN = Answer(body=b'{"object": "list", "data": [{"id": "gpt')
PORTAL = Answer(body=b"<html>Please log in</html>", content_type="text/html")
HANG, DRIBBLE, CLOSE, CUT = (Answer(act=act) for act in ("hang", "dribble", "close", "cut"))


class OpenAIStub:
    """The server; use it with `with`.

    `requests` are those that came so far; `connections` is how many clients are connected.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._script: dict[str, deque[Answer]] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        # The first that fits: one end may be the end of another.
        self._routes: dict[str, Callable[[Request], Answer]] = {
            "/models": self._models,
            "/chat/completions": self._chat,
            "/completions": self._completions,
            "/responses": self._responses,
            "/embeddings": self._embeddings,
            "/images/generations": self._images,
            "/audio/transcriptions": self._transcriptions,
            "/audio/speech": self._speech,
            "/moderations": self._moderations,
        }
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """What a client wants as its base URL."""
        return f"http://{self.host}/v1"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        with self._lock:
            return len(self._open)

    def answer(self, *answers: Answer, route: str = EVERYWHERE) -> None:
        """Give these from now on, one by one; the last one stays."""
        with self._lock:
            self._script[route] = deque(answers)

    def reset(self, *answers: Answer) -> None:
        """Forget what came, and give these from now on."""
        with self._lock:
            self.requests.clear()
            self._script.clear()
        self.answer(*answers)

    def reply(self, request: Request) -> Answer:
        """The answer to `request`, which is noted."""
        with self._lock:
            self.requests.append(request)
            answer = self._scripted(request.path)
        if answer.body is not None or answer.parts or answer.status != 200:
            return answer
        made = next(
            (make(request) for end, make in self._routes.items() if request.path.endswith(end)),
            NOT_FOUND,
        )
        return replace(made, delay=answer.delay, act=answer.act)

    def connected(self, client: socket.socket) -> None:
        """Note a connection."""
        with self._lock:
            self._open.add(client)

    def disconnected(self, client: socket.socket) -> None:
        """Note the end of a connection."""
        with self._lock:
            self._open.discard(client)

    def _scripted(self, path: str) -> Answer:
        for route, answers in sorted(self._script.items(), key=lambda each: -len(each[0])):
            if path.endswith(route) and answers:
                return answers.popleft() if len(answers) > 1 else answers[0]
        return OK

    def _models(self, request: Request) -> Answer:
        names = ["gpt-4o", "gpt-4o-mini", "o3", *(f"gpt-{number}" for number in range(MODELS - 3))]
        models = [
            {"id": name, "object": "model", "created": 1_715_367_049, "owned_by": "system"}
            for name in names
        ]
        return Answer(body={"object": "list", "data": models})

    def _chat(self, request: Request) -> Answer:
        asked = request.json
        shared = {"id": "chatcmpl-1", "created": 1_795_000_000, "model": _named(asked["model"])}
        if asked.get("service_tier"):
            shared["service_tier"] = asked["service_tier"]
        if asked.get("stream"):
            return _events(_chunks(shared, asked.get("stream_options") or {}))
        message = {"role": "assistant", "content": '{"name": "Ada"}', "refusal": None}
        reason = "length" if asked.get("max_tokens") == 1 else "stop"
        choice = {"index": 0, "finish_reason": reason, "logprobs": None, "message": message}
        return Answer(
            body={**shared, "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
        )

    def _completions(self, request: Request) -> Answer:
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "text": "hi"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        shared = {"id": "cmpl-1", "object": "text_completion", "created": 1_795_000_000}
        model = request.json["model"]
        return Answer(body={**shared, "model": model, "choices": [choice], "usage": usage})

    def _responses(self, request: Request) -> Answer:
        asked = request.json
        response = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1_795_000_000,
            "model": asked["model"],
            "status": "completed",
            "output": [_MESSAGE],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "service_tier": asked.get("service_tier") or "default",
        }
        done = {**response, "usage": RESPONSES_USAGE}
        if not asked.get("stream"):
            return Answer(body=done)
        begun = {**response, "status": "in_progress", "output": [], "usage": None}
        events = [("created", begun), *[("in_progress", begun)] * 3, ("completed", done)]
        return _events(
            [
                {"type": f"response.{kind}", "sequence_number": number, "response": body}
                for number, (kind, body) in enumerate(events)
            ],
            named=True,
        )

    def _embeddings(self, request: Request) -> Answer:
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.25] * 8}]
        usage = {"prompt_tokens": 10_000, "total_tokens": 10_000}
        model = request.json["model"]
        return Answer(body={"object": "list", "model": model, "data": vectors, "usage": usage})

    def _images(self, request: Request) -> Answer:
        usage = {
            "input_tokens": 50,
            "output_tokens": 1000,
            "total_tokens": 1050,
            "input_tokens_details": {"image_tokens": 0, "text_tokens": 50},
        }
        return Answer(body={"created": 1_795_000_000, "data": [{"b64_json": "eA"}], "usage": usage})

    def _transcriptions(self, request: Request) -> Answer:
        assert request.headers["content-type"].startswith("multipart/form-data")
        if b"whisper-1" in request.body:
            return Answer(body={"text": "hi", "usage": {"type": "duration", "seconds": 60}})
        usage = {
            "type": "tokens",
            "input_tokens": 100,
            "output_tokens": 10,
            "total_tokens": 110,
            "input_token_details": {"audio_tokens": 90, "text_tokens": 10},
        }
        return Answer(body={"text": "hi", "usage": usage})

    def _speech(self, request: Request) -> Answer:
        return Answer(body=b"\xff\xf3sound", content_type="audio/mpeg")

    def _moderations(self, request: Request) -> Answer:
        return Answer(body={"id": "modr-1", "model": "omni-moderation-latest", "results": []})


def _named(model: str) -> str:
    """The name under which a model answers."""
    return {"gpt-4o": "gpt-4o-2024-08-06", "my-deployment": "gpt-4o-2024-08-06"}.get(model, model)


def _chunks(shared: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a streamed chat; with usage, each has it, and only the last is not empty."""
    more = {"usage": None} if options.get("include_usage") else {}
    shared = {**shared, "object": "chat.completion.chunk"}
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant", "content": ""}, None),
        *[({"content": "hi "}, None)] * CHUNKS,
        ({}, "stop"),
    ]
    chunks = [
        {
            **shared,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}],
            **more,
        }
        for delta, reason in deltas
    ]
    return [*chunks, {**shared, "choices": [], "usage": CHAT_USAGE}] if more else chunks


def _events(bodies: Sequence[Mapping[str, Any]], *, named: bool = False) -> Answer:
    """Server-sent events; without names they end with a word instead of a last event."""
    parts = [
        (f"event: {body['type']}\n" if named else "") + f"data: {json.dumps(body)}\n\n"
        for body in bodies
    ]
    parts += [] if named else ["data: [DONE]\n\n"]
    return Answer(parts=[part.encode() for part in parts], content_type="text/event-stream")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stub: OpenAIStub) -> None:
        self.stub = stub
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that leaves is nothing to report."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: the second of two small ones waits for 40 ms to be acknowledged.
    wbufsize = 1 << 16
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.stub.connected(self.request)

    def finish(self) -> None:
        self.server.stub.disconnected(self.request)
        super().finish()

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        address = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(length)
        request = Request(self.command, address.path, address.query, headers, body)
        answer = self.server.stub.reply(request)
        if answer.delay:
            self.server.stub.released.wait(answer.delay)
        self._perform(answer)

    do_POST = do_DELETE = do_GET

    def _perform(self, answer: Answer) -> None:
        self.close_connection = answer.act != "answer"
        if answer.act == "hang":
            self.server.stub.released.wait(PATIENCE)
        if answer.act in {"hang", "close"}:
            return
        if answer.parts:
            self._stream(answer)
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self._head(answer, len(body) + (answer.act == "dribble") * 1_000_000)
        if answer.act == "dribble":
            self._dribble()
            return
        self.wfile.write(body[: len(body) // 2] if answer.act == "cut" else body)

    def _stream(self, answer: Answer) -> None:
        self._head(answer, None)
        whole = answer.act == "answer"
        for part in answer.parts if whole else answer.parts[: len(answer.parts) // 2]:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.flush()
        if answer.act == "stall":
            self.server.stub.released.wait(PATIENCE)
        elif whole:
            self.wfile.write(b"0\r\n\r\n")

    def _head(self, answer: Answer, length: int | None) -> None:
        self.send_response(answer.status)
        sized = {"content-length": str(length)}
        usual = {
            "content-type": answer.content_type,
            **({"transfer-encoding": "chunked"} if length is None else sized),
            "openai-organization": "org-abc",
            "openai-processing-ms": "12",
            "openai-version": "2020-10-01",
            "x-request-id": f"req_{len(self.server.stub.requests):032x}",
        }
        for name, value in {**usual, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _dribble(self) -> None:
        while not self.server.stub.released.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
