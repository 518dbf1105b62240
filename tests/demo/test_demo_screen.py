"""What the demo writes: in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging
import os

import pytest

from holistic_asgi_monitor.demo.screen import Colour, Screen, warnings_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    screen = Screen.on(out, {})
    screen.write("Hello")
    screen.progress("40 requests/s", Colour.GREEN)
    screen.say("ALERT", Colour.RED)
    screen.end_progress()

    assert out.getvalue() == "Hello\n00:00  40 requests/s\n00:00  ALERT\n"


def test_a_terminal_keeps_the_progress_on_its_last_line() -> None:
    """A line that is said goes above the progress, which is then drawn again."""
    out = Terminal()
    screen = Screen.on(out, {"NO_COLOR": "1"})
    screen.progress("40 requests/s")
    screen.say("ALERT")
    screen.progress("41 requests/s")
    screen.end_progress()

    erase = "\r\x1b[K"
    assert out.getvalue() == (
        f"{erase}00:00  40 requests/s"
        f"{erase}00:00  ALERT\n00:00  40 requests/s"
        f"{erase}00:00  41 requests/s"
        f"{erase}"
    )


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    environ: dict[str, str], *, coloured: bool
) -> None:
    out = Terminal()
    Screen.on(out, environ).say("ALERT", Colour.RED)

    assert ("\x1b[1;31m" in out.getvalue()) is coloured
    assert "ALERT" in out.getvalue()


def test_the_progress_is_cut_at_the_edge_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer line would wrap, and could not be rewritten."""
    monkeypatch.setenv("COLUMNS", "20")
    out = Terminal()
    Screen.on(out, {"NO_COLOR": "1"}).progress("x" * 100)

    assert out.getvalue() == "\r\x1b[K00:00  " + "x" * 12


def test_when_the_reader_goes_away_nothing_is_raised() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out:
        screen = Screen.on(out, {})
        screen.say("Hello")
        screen.say("Is anybody there?")

        assert screen.gone


def test_warnings_of_any_logger_appear_on_the_screen_and_only_meanwhile() -> None:
    out = io.StringIO()
    logger = logging.getLogger("a.library")
    with warnings_on(Screen.on(out, {})):
        logger.warning("Careful with %s", "that")
        logger.info("All is well")
    logger.warning("Too late")

    assert out.getvalue() == "00:00  warning: Careful with that\n"
