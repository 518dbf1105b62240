"""Commands whose output nobody reads, or that have none: the exit status says what it says."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holistic_asgi_monitor.cli.errors import CannotRunError
from holistic_asgi_monitor.cli.output import put

ROOT = Path(__file__).parent.parent
APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
"""


class Broken(io.StringIO):
    """It cannot be written, as a full disk or a pipe whose reader has left."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def fileno(self) -> int:
        raise OSError

    def flush(self) -> None:
        raise self._error


def test_what_the_encoding_lacks_is_a_question_mark() -> None:
    output = io.TextIOWrapper(io.BytesIO(), "latin-1", newline="")
    put("K\u00e4se \u2713\n", output)

    output.buffer.seek(0)
    assert output.buffer.read() == b"K\xe4se ?\n"


def test_who_has_stopped_reading_has_seen_enough() -> None:
    put("a line\n", Broken(BrokenPipeError(errno.EPIPE, "Broken pipe")))


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (Broken(OSError(errno.ENOSPC, "No space left on device")), "No space left on device"),
        (None, "there is no standard output"),
    ],
)
def test_an_output_that_cannot_be_written_is_one_sentence(
    output: io.StringIO | None, sentence: str
) -> None:
    with pytest.raises(CannotRunError, match=sentence):
        put("a line\n", output)


@pytest.mark.once
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_a_probe_without_an_output_has_the_status_of_its_verdict(
    tmp_path: Path, where: str
) -> None:
    (tmp_path / "mine.py").write_text(APP)
    environ = os.environ | {"PYTHONPATH": str(ROOT), "MONITOR_HISTORY_URL": "off"}
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m holistic_asgi_monitor check mine:app {where}"],
        cwd=tmp_path,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
