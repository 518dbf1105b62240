"""Any receiver of POST requests on this machine, which answers as a script says."""

from __future__ import annotations

import ssl

from tests.notifiers.slack_stub import Answer, Received, SlackStub


class Receiver(SlackStub):
    """Takes whatever comes; what comes after the script, or where it has None, is 200."""

    def next_answer(self, request: Received) -> Answer:
        scripted = self.script.pop(0) if self.script else None
        return Answer(200, "") if scripted is None else scripted

    def speak(self, context: ssl.SSLContext) -> None:
        """Speak TLS; called before `with`."""
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # refused handshakes

    @property
    def url(self) -> str:
        return self.api_url.removesuffix("/api/")
