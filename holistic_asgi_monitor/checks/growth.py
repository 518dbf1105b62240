"""How much a counter of the kernel's has grown: over the last minutes, and since the last look."""

from __future__ import annotations

__all__ = ("Growth", "Step")

RECENT_SECONDS = 300.0
SPACING_SECONDS = 5.0
SHORTEST_SECONDS = 1.0


class Growth:
    """The growth of one counter, from readings of it.

    It is begun anew where the counter was changed for another or has gone back, as it does in a
    forked child.
    """

    def __init__(self) -> None:
        # Replaced and never changed: a scrape in another thread reads one or the other.
        self._readings: tuple[tuple[float, float], ...] = ()
        self._counter = ""

    def recent(self, counter: str, value: float, now: float) -> tuple[float, float]:
        """Note that `counter` stands at `value`; its growth over five minutes, and their seconds.

        They are fewer seconds while it has been read for less long, none at first, and more where
        it is read more seldom.
        """
        readings = self._readings if counter == self._counter else ()
        if readings and value < readings[-1][1]:
            readings = ()
        while len(readings) > 1 and readings[1][0] <= now - RECENT_SECONDS:
            readings = readings[1:]
        if not readings or now - readings[-1][0] >= SPACING_SECONDS:
            readings = (*readings, (now, value))
        self._readings, self._counter = readings, counter
        began, first = readings[0]
        return value - first, now - began


class Step:
    """The growth of one counter from one look to the next."""

    def __init__(self) -> None:
        self._last: tuple[str, float] | None = None

    def since(self, counter: str, value: float) -> float | None:
        """Note that `counter` stands at `value`; its growth since the last time.

        None the first time, and where the counter was changed for another or has gone back.
        """
        last, self._last = self._last, (counter, value)
        if last is None or last[0] != counter or value < last[1]:
            return None
        return value - last[1]
