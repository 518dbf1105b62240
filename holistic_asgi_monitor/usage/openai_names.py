"""Labels for models: bounded, whatever clients ask for and servers answer."""

from __future__ import annotations

from collections.abc import Callable

from holistic_asgi_monitor.metrics.series import OTHER

__all__ = ("Names",)

MODELS_LIMIT = 100
LONGEST_NAME = 100


class Names:
    """The models that have answered, by the name in their answers and by the one asked for.

    Any text may be asked for, so a model that has never answered has a label of its own only
    where `listed` says that its name is known.
    """

    def __init__(self, listed: Callable[[str], bool]) -> None:
        self._listed = listed
        self._labels: set[str] = set()
        self._asked: dict[str, str] = {}

    def answered(self, asked: str | None, named: str | None) -> str:
        """The label of a model that answered as `named`, where `asked` was asked for."""
        label = self._admitted(_family(named or asked or ""))
        if asked and len(self._asked) < MODELS_LIMIT:
            self._asked[asked] = label
        return label

    def failed(self, asked: str | None) -> str:
        """The label of a model that gave no answer."""
        if not asked:
            return OTHER
        if asked in self._asked:
            return self._asked[asked]
        label = _family(asked)
        known = label in self._labels or self._listed(label)
        return self._admitted(label) if known else OTHER

    def _admitted(self, label: str) -> str:
        if label in self._labels:
            return label
        if not label or len(self._labels) >= MODELS_LIMIT:
            return OTHER
        self._labels.add(label)
        return label


def _family(model: str) -> str:
    """The name without what belongs to one customer: `ft:gpt-4o-mini-2024-07-18:org::id`."""
    name = ":".join(model.split(":")[:2]) if model.startswith("ft:") else model
    return name[:LONGEST_NAME]
