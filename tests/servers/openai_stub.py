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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

PATIENCE = 30.0
MODELS = 112
EVERYWHERE = ""


@dataclass(frozen=True)
class Answer:
    """What is done with one request.

    `act` is `answer`, `hang` (nothing ever comes), `dribble` (the head, then a byte each 20 ms,
    without an end), `close` (the end, without an answer) or `cut` (the end amid the body). `body`
    is JSON, or bytes as they are; None is left to the route. `delay` is in seconds.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    act: str = "answer"
    content_type: str = "application/json"


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
        self._routes: dict[str, Callable[[Request], Answer]] = {"/models": self._models}
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

    def reply(self, request: Request) -> Answer:
        """The answer to `request`, which is noted."""
        with self._lock:
            self.requests.append(request)
            answer = self._scripted(request.path)
        if answer.body is not None or answer.status != 200:
            return answer
        made = next(
            (make(request) for end, make in self._routes.items() if request.path.endswith(end)),
            NOT_FOUND,
        )
        return Answer(made.status, made.body, made.headers, answer.delay, answer.act)

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
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self._head(answer, len(body) + (answer.act == "dribble") * 1_000_000)
        if answer.act == "dribble":
            self._dribble()
            return
        self.wfile.write(body[: len(body) // 2] if answer.act == "cut" else body)

    def _head(self, answer: Answer, length: int) -> None:
        self.send_response(answer.status)
        usual = {
            "content-type": answer.content_type,
            "content-length": str(length),
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
