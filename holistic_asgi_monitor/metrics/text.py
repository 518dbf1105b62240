"""The Prometheus text format: names, label values and numbers as both formats write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

__all__ = ("help_text", "label_text", "number", "safe_label")

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LONGEST = 200


def safe_label(value: str) -> str:
    """A label value that every page can carry: no control characters, no surrogates, bounded."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", value[:_LONGEST])


def label_text(labels: Iterable[tuple[str, str]]) -> str:
    """The labels in braces, sorted by name, values escaped; nothing where there are none."""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(labels))
    return f"{{{pairs}}}" if pairs else ""


def help_text(text: str) -> str:
    """A HELP line's text, escaped."""
    return text.replace("\\", r"\\").replace("\n", r"\n")


def number(value: float) -> str:
    """A value as Prometheus writes it: `2.0`, `0.005`, `+Inf`, `NaN`."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
