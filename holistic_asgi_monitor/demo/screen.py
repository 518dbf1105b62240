"""What the demo shows: lines, and one line of progress that is rewritten in place on a terminal."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import TextIO

__all__ = ("Colour", "Screen", "warnings_on")

_ERASE_LINE = "\r\x1b[K"


class Colour(Enum):
    """A colour or weight of terminal text, as its ANSI code."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    RED = "1;31"
    GREEN = "1;32"
    YELLOW = "1;33"
    CYAN = "36"


class Screen:
    """Lines on `out`; those of `say` and `progress` bear the time since the start.

    `colour` allows ANSI colours; `in_place` keeps the progress on one line at the bottom. When
    the reader of `out` goes away, `gone` becomes true and nothing more is written.
    """

    def __init__(self, out: TextIO, *, colour: bool = False, in_place: bool = False) -> None:
        self.gone = False
        self.in_place = in_place
        self._out = out
        self._colour = colour
        self._progress = ""
        self._began = time.monotonic()

    @classmethod
    def on(cls, out: TextIO, environ: Mapping[str, str]) -> Screen:
        """The screen that suits `out`: nothing but plain lines unless it is a terminal."""
        terminal = out.isatty() and environ.get("TERM") != "dumb"
        return cls(out, colour=terminal and not environ.get("NO_COLOR"), in_place=terminal)

    def start_clock(self) -> None:
        """Let the times of the lines begin at zero now."""
        self._began = time.monotonic()

    def write(self, text: str = "") -> None:
        """Write `text` as it is, above the progress."""
        if self._progress:
            self._put(f"{_ERASE_LINE}{text}\n{self._progress}")
        else:
            self._put(f"{text}\n")

    def say(self, text: str, colour: Colour = Colour.PLAIN) -> None:
        """Write one line with its time."""
        self.write(self._stamp() + self.paint(text, colour))

    def progress(self, text: str, colour: Colour = Colour.PLAIN) -> None:
        """Show how it goes: in place where that can be done, else as one more line."""
        if not self.in_place:
            self.say(text)
            return
        room = shutil.get_terminal_size().columns - len(self._stamp()) - 1
        self._progress = self._stamp() + self.paint(text[: max(room, 0)], colour)
        self._put(f"{_ERASE_LINE}{self._progress}")

    def end_progress(self) -> None:
        """Take the line of progress away."""
        if self._progress:
            self._progress = ""
            self._put(_ERASE_LINE)

    def paint(self, text: str, colour: Colour) -> str:
        """`text` in a colour, or as it is where colours are not wanted."""
        if not self._colour or not colour.value:
            return text
        return f"\x1b[{colour.value}m{text}\x1b[0m"

    def _stamp(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        return f"{minutes:02}:{seconds:02}  "

    def _put(self, text: str) -> None:
        if self.gone:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            # Nobody reads it any more, or there is no room to write it.
            self.gone = True
            self._swallow_the_rest()

    def _swallow_the_rest(self) -> None:
        """Point the broken descriptor at nothing, or the interpreter complains at its exit."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._out.fileno())
        os.close(nowhere)


@contextmanager
def warnings_on(screen: Screen) -> Iterator[None]:
    """Write the warnings of every logger on `screen`, where they cannot tear its progress."""
    handler = _ScreenHandler(screen)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _ScreenHandler(logging.Handler):
    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(f"{record.levelname.lower()}: {record.getMessage()}", Colour.DIM)
