"""The socket that a command listens on."""

from __future__ import annotations

import errno
import socket

from holistic_asgi_monitor.cli.errors import CannotRunError

__all__ = ("listening", "url_of")


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`; CannotRunError where it cannot."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise CannotRunError(_why_not(host, port, error)) from None


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port, or --port 0 for any"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not open to this user; choose another with --port"
    return f"{host} is no address of this machine that could be listened on"


def url_of(listener: socket.socket) -> str:
    """The address under which `listener` is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
