"""A real Alertmanager of Prometheus, which sends what it gets to one webhook."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from tests.servers.process import HOST, Server

# Debian's build reads its templates from where the package would be installed.
SHARE = b"/usr/share/prometheus/alertmanager"
HERE = b"./" * (len(SHARE) // 2)
ROUTE = """
route:
  receiver: hook
  group_by: [service, alertname]
  group_wait: 200ms
  group_interval: 200ms
  repeat_interval: 1h
receivers:
  - name: hook
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


class Alertmanager(Server):
    """An Alertmanager that groups by service and alertname, and tells `hook` within moments.

    Its pages are below `prefix`.
    """

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, program: Path, hook: str, *, prefix: str = "") -> None:
        """Take what `movable` made, and the address to tell."""
        super().__init__()
        self._program = program
        self._prefix = prefix
        for template in program.parent.glob("*.tmpl"):
            (self.folder / template.name).symlink_to(template)
        (self.folder / "config.yml").write_text(ROUTE.format(url=hook), encoding="utf-8")

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://{HOST}:{self.port}{self._prefix}"

    def alerts(self) -> list[dict[str, Any]]:
        """Return what burns there now."""
        status, body = self._get("/api/v2/alerts")
        assert status == http.client.OK
        found: list[dict[str, Any]] = json.loads(body)
        return found

    def _get(self, path: str) -> tuple[int, bytes]:
        client = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            client.request("GET", f"{self._prefix}{path}")
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def _command(self) -> list[str]:
        return [str(self._program)]

    def _usual(self) -> dict[str, str]:
        return {
            "cluster.listen-address": "",
            "config.file": str(self.folder / "config.yml"),
            "storage.path": str(self.folder / "data"),
            "web.external-url": self.url,
            "web.listen-address": f"{HOST}:{self.port}",
        }

    def _option(self, name: str, value: str) -> list[str]:
        return [f"--{name}={value}"]

    def _environment(self) -> dict[str, str]:
        proxies = {
            name: os.environ[name] for name in ("NO_PROXY", "no_proxy") if name in os.environ
        }
        return super()._environment() | proxies

    def _is_ready(self, process: object) -> bool:
        try:
            return self._get("/-/ready")[0] == http.client.OK
        except OSError:
            return False


def movable(root: Path, folder: Path) -> Path:
    """Make a program in `folder` of the package unpacked in `root`; return it.

    It finds its templates in the folder in which it is started; they lie beside it.
    """
    program = folder / "prometheus-alertmanager"
    program.write_bytes((root / "usr" / "bin" / program.name).read_bytes().replace(SHARE, HERE))
    program.chmod(0o755)
    for template in root.joinpath(*SHARE.decode().split("/")[1:]).glob("*.tmpl"):
        shutil.copy(template, folder)
    return program
