"""`Monitor.attach(app)` under the real `fastapi run`, and `app = Monitor(app)` under uvicorn."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from tests.web.exchanges import sample

APP = """
from fastapi import FastAPI
from holistic_asgi_monitor import Monitor

app = FastAPI()

@app.get("/items/{item_id}")
async def read(item_id: int) -> dict[str, int]:
    return {"item": item_id}

"""

WAYS = {
    "fastapi run": ("Monitor.attach(app)\n", ["fastapi", "run", "main.py", "--port"]),
    "uvicorn": ("app = Monitor(app)\n", ["uvicorn", "main:app", "--port"]),
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as response:
        return response.read().decode()


def wait_until_it_answers(url, server):
    deadline = time.monotonic() + 30
    while True:
        try:
            return fetch(url)
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.05)


@pytest.mark.parametrize("way", WAYS)
def test_two_ids_are_one_series_on_a_real_server(way, tmp_path):
    line, (module, *command) = WAYS[way]
    (tmp_path / "main.py").write_text(APP + line, encoding="utf-8")
    port = free_port()
    log = (tmp_path / "log").open("w+")
    server = subprocess.Popen(
        [sys.executable, "-m", module, *command, str(port), "--host", "127.0.0.1"],
        cwd=tmp_path,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_it_answers(f"{base}/api/health/live", server)
        assert fetch(f"{base}/items/1") == '{"item":1}'
        assert fetch(f"{base}/items/2") == '{"item":2}'
        page = fetch(f"{base}/metrics")
        health = fetch(f"{base}/api/health")
    finally:
        server.terminate()
        server.wait(10)
        log.seek(0)
        written = log.read()
        log.close()

    labels = ['endpoint="/items/{item_id}"', 'method="GET"', 'status="200"']
    assert sample(page, "holisticos_requests_total", labels) == ["2.0"]
    assert '"overall_status":"healthy"' in health
    assert "Traceback" not in written
