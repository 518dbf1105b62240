"""What a command prints: as well as the terminal can write it, and where there is one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO

from holistic_asgi_monitor.cli.errors import CannotRunError

__all__ = ("encoding_of", "put")


def encoding_of(output: TextIO | None) -> str:
    """The encoding in which `output` is written; it is None where the process has none."""
    return getattr(output, "encoding", None) or "utf-8"


def put(text: str, output: TextIO | None) -> None:
    """Write `text` on `output`, with a question mark for what its encoding lacks.

    Whoever has stopped reading has seen enough; where it cannot be written for another reason,
    that is a CannotRunError.
    """
    if output is None:
        raise CannotRunError("there is no standard output to write on")
    encoding = encoding_of(output)
    try:
        output.write(text.encode(encoding, "replace").decode(encoding))
        output.flush()
    except OSError as error:
        _swallow_the_rest(output)
        if not isinstance(error, BrokenPipeError):
            reason = error.strerror or type(error).__name__
            raise CannotRunError(f"standard output cannot be written: {reason}") from None


def _swallow_the_rest(output: TextIO) -> None:
    """Point the descriptor at nothing, or the interpreter complains at its exit."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output.fileno())
        os.close(nowhere)
