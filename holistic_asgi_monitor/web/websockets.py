"""WebSocket connections: passed through untouched, and counted on their own."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holistic_asgi_monitor.metrics.series import OTHER
from holistic_asgi_monitor.web.requests import RequestPath, client_left

__all__ = ("Connection",)

_REGISTERED = range(1000, 1016)


class Connection:
    """One WebSocket connection, from the handshake to its close code.

    A refused handshake has the HTTP status as its code (403 where only a close was sent), a
    connection that was cut without a close 1006, one broken by the application's exception 1011.
    """

    __slots__ = ("_accepted", "_code", "_paths", "_receive", "_scope", "_send")

    def __init__(self, paths: RequestPath, scope: Scope, receive: Receive, send: Send) -> None:
        self._paths = paths
        self._scope = scope
        self._receive = receive
        self._send = send
        self._accepted = False
        self._code: str | None = None

    async def run(self, app: ASGIApp) -> None:
        """Run `app` on the connection and count it when it is over."""
        path, root_path = self._scope.get("path", ""), self._scope.get("root_path", "")
        self._paths.open_websockets(+1)
        failure: Exception | None = None
        try:
            await app(self._scope, self.receive, self.send)
        except Exception as error:
            failure = error
            raise
        finally:
            self._paths.open_websockets(-1)
            self._count(path, root_path, failure)

    async def receive(self) -> Message:
        """Pass a message on to the application; notes the client's close code."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect" and self._code is None:
            code = message.get("code") or 1005
            # Beyond the registered codes the client chooses freely, and labels must be bounded.
            self._code = str(code) if code in _REGISTERED else OTHER
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on to the server; notes how the application ends the connection."""
        try:
            await self._send(message)
        except Exception as error:
            if client_left(error) and self._code is None:
                self._code = "1006"
            raise
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close" and self._code is None:
            self._code = str(message.get("code") or 1000) if self._accepted else "403"
        elif kind == "websocket.http.response.start" and self._code is None:
            self._code = str(message.get("status", 403))

    def _count(self, path: str, root_path: str, failure: Exception | None) -> None:
        try:
            paths = self._paths
            status = 101 if self._accepted else 403
            endpoint = paths.routes.locate(self._scope, path, root_path, status).endpoint
            # After a close either side may run into an error that says no more than that.
            if failure is not None and self._code is None:
                self._code = "1011"
                paths.failed(failure, "WEBSOCKET", endpoint)
            label = paths.series.label(endpoint)
            paths.catalogue.websocket_connections.inc(label, self._code or "1006")
        except Exception:
            # The connection is over; what fails here must not become the application's error.
            self._paths.fault("websockets")
