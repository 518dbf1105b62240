"""Paths of apps that show no routes, with what identifies a single thing replaced by `{id}`.

No rule tells every identifier from every word. What is left over is bounded by the caller, who
accepts only so many labels.
"""

from __future__ import annotations

import re

__all__ = ("normalise",)

_ID = "{id}"
_REST = "{path}"
_MOST_SEGMENTS = 8
_LONGEST_SEGMENT = 40
_LONGEST = 200

# fmt: off
_WORDS = frozenset((
    "2d", "3d", "4k", "8k", "2fa", "3ds", "a11y", "b2b", "b2c", "c14n", "c2c", "e2e", "g11n",
    "h2c", "i18n", "k8s", "l10n", "o11y", "p2p", "h261", "h263", "h264", "h265", "h266", "x264",
    "x265", "x509", "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "crc32", "x86_64",
    "x86-64", "i386", "i686", "amd64", "arm64", "aarch64", "utf8", "utf16", "utf32", "utf-8",
    "utf-16", "utf-32", "iso-8859-1",
))
# fmt: on
_VERSION = re.compile(r"v\d{1,3}(\.\d{1,3}){0,2}((alpha|beta|rc|dev|preview|p)\d{0,3})?")
_NUMBERED = re.compile(r"[A-Za-z]?[a-z]{0,12}\d{1,2}")
_EXTENSION = re.compile(r"[A-Za-z]{1,5}\d?|7z|m3u8")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{8,}")
_CAPITALS = re.compile(r"[A-Z]+")
_STEM = re.compile(r"[\w.~-]+|\{id\}")
_SEPARATOR = re.compile(r"[._~-]+")
_JSON_IN_BASE64 = "eyJ"
_TAIL = re.compile(r"[?;].*", re.DOTALL)


def normalise(path: str) -> str:
    """The label of a path: ids, UUIDs, hashes, dates, addresses and tokens become `{id}`.

    At most eight segments and 200 characters remain; `{path}` stands for what lies beyond.
    Normalising a normalised path changes nothing.
    """
    whole = _TAIL.sub("", path)
    segments = [_segment(part) for part in whole.split("/", 256) if part]
    kept = _within_bounds(segments)
    slash = "/" if kept and kept == segments and whole.endswith("/") else ""
    return "/" + "/".join(kept) + slash


def _within_bounds(segments: list[str]) -> list[str]:
    if len(segments) <= _MOST_SEGMENTS and _length(segments) <= _LONGEST:
        return segments
    kept = segments[: _MOST_SEGMENTS - 1]
    while _length([*kept, _REST]) > _LONGEST:
        kept.pop()
    return [*kept, _REST]


def _length(segments: list[str]) -> int:
    """The characters of a path of these segments, with a slash at both ends."""
    return sum(map(len, segments)) + len(segments) + 1


def _segment(text: str) -> str:
    if text.isalpha() and text.islower() and len(text) <= _LONGEST_SEGMENT:
        return _ID if _HEXADECIMAL.fullmatch(text) else text
    if text.startswith(_JSON_IN_BASE64):
        return _ID
    if text in (_ID, _REST) or _is_name(text):
        return text
    stem, dot, extension = text.rpartition(".")
    if _STEM.fullmatch(stem) and _EXTENSION.fullmatch(extension):
        return (stem if _is_name(stem) else _ID) + dot + extension
    return _ID


def _is_name(text: str) -> bool:
    """Whether a segment looks like something a programmer named."""
    if len(text) > _LONGEST_SEGMENT:
        return False
    if text.lower() in _WORDS or _VERSION.fullmatch(text):
        return True
    pieces = [piece for piece in _SEPARATOR.split(text) if piece]
    return bool(pieces) and all(map(_is_word, pieces))


def _is_word(piece: str) -> bool:
    if piece.lower() in _WORDS or _VERSION.fullmatch(piece):
        return True
    if not piece.isalpha():
        return _NUMBERED.fullmatch(piece) is not None and not piece.isdigit()
    return not (_HEXADECIMAL.fullmatch(piece) or _is_random(piece))


def _is_random(letters: str) -> bool:
    """Whether upper and lower case alternate more than words put together would."""
    capitals = _CAPITALS.findall(letters)
    return len(letters) >= 10 and len(capitals) >= 3 and sum(map(len, capitals)) * 3 > len(letters)
