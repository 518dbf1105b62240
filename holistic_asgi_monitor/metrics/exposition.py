"""The page: our families from prepared text, the user's own through prometheus_client.

Our part is written on the event loop in slices of about a millisecond; the user's part and the
compression run in a worker thread. The same numbers stand in the registry as a `Collector`, so
that `generate_latest`, the push gateway and other exporters see them too.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
import zlib
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from holistic_asgi_monitor.failures import described
from holistic_asgi_monitor.metrics.catalogue import Catalogue
from holistic_asgi_monitor.metrics.families import Family
from holistic_asgi_monitor.model import ConfigurationError
from holistic_asgi_monitor.threads import own_threads

__all__ = ("Collector", "Exposition", "Page")

_logger = logging.getLogger("holistic_asgi_monitor")

SLICE_SECONDS = 0.001
PIECE_BYTES = 1 << 16
PATIENCE_SECONDS = 3.0
_END = b"# EOF\n"
_NONE: Mapping[str, Collector] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Page:
    """One rendered page: its content type, and its body in pieces of moderate size."""

    content_type: str
    pieces: Sequence[bytes]
    compressed: bool = False

    @property
    def length(self) -> int:
        """The bytes of the whole body."""
        return sum(map(len, self.pieces))


class Collector:
    """Our families as prometheus_client reads them: one for each registry and namespace.

    Monitors that are given the same registry share one collector and so one set of cells, which
    is how both count.
    """

    # The registry is the shared thing, and holds the collectors; this only remembers, for as long
    # as it lives, which of its collectors are ours.
    _registered: ClassVar[
        weakref.WeakKeyDictionary[CollectorRegistry, weakref.WeakValueDictionary[str, Collector]]
    ] = weakref.WeakKeyDictionary()

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._silence = threading.local()

    @classmethod
    def shared(cls, registry: CollectorRegistry, catalogue: Catalogue) -> Catalogue:
        """Register `catalogue`, or give the one that an earlier monitor registered there."""
        known = cls._registered.setdefault(registry, weakref.WeakValueDictionary())
        earlier = known.get(catalogue.namespace)
        if earlier is not None:
            return _compatible(earlier.catalogue, catalogue)
        collector = cls(catalogue)
        try:
            registry.register(collector)
        except ValueError as error:
            raise ConfigurationError(_clash(catalogue.namespace, "the registry")) from error
        known[catalogue.namespace] = collector
        return catalogue

    @classmethod
    @contextmanager
    def silent(cls, registry: CollectorRegistry) -> Iterator[None]:
        """Leave our families out of what this thread collects from `registry`."""
        collectors = list(cls._registered.get(registry, _NONE).values())
        for collector in collectors:
            collector._silence.on = True  # noqa: SLF001 - the class's own instances
        try:
            yield
        finally:
            for collector in collectors:
                collector._silence.on = False  # noqa: SLF001 - the class's own instances

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that a registry knows their names."""
        return [Metric(family.name, family.text, family.kind) for family in self.catalogue]

    def collect(self) -> Iterable[Metric]:
        """All families with all samples."""
        if getattr(self._silence, "on", False):
            return []
        self.catalogue.gather()
        return [family.metric() for family in self.catalogue]


def _compatible(earlier: Catalogue, wanted: Catalogue) -> Catalogue:
    if earlier.series.bounds.le != wanted.series.bounds.le or earlier.constant != wanted.constant:
        message = (
            "Two monitors on one registry must have the same MONITOR_BUCKETS, thresholds and "
            "MONITOR_CONSTANT_LABELS, or another MONITOR_NAMESPACE each"
        )
        raise ConfigurationError(message)
    return earlier


def _clash(namespace: str, where: str) -> str:
    return (
        f"A metric that begins with '{namespace}_' and that the monitor exports is already in "
        f"{where}: rename it, or set MONITOR_NAMESPACE to another prefix"
    )


class Exposition:
    """Renders the page of one monitor.

    `registries` are those whose other metrics stand on the page too, besides our families.
    """

    def __init__(self, catalogue: Catalogue, registries: Sequence[CollectorRegistry]) -> None:
        self._catalogue = catalogue
        self._registries = registries
        self._ours = {*catalogue.names, *(family.name for family in catalogue)}
        self._warned: set[str] = set()

    @classmethod
    def of(
        cls, catalogue: Catalogue, registry: CollectorRegistry | None
    ) -> tuple[Exposition, CollectorRegistry]:
        """The page over `registry` alone, or over an own one and the default one.

        A metric of the user's that has one of our names is a `ConfigurationError`.
        """
        own = CollectorRegistry() if registry is None else registry
        shared = Collector.shared(own, catalogue)
        page = cls(shared, [own, REGISTRY] if registry is None else [own])
        if registry is None and page.clashes(REGISTRY):
            raise ConfigurationError(_clash(catalogue.namespace, "the default registry"))
        return page, own

    @property
    def catalogue(self) -> Catalogue:
        """The families that are rendered."""
        return self._catalogue

    def clashes(self, registry: CollectorRegistry) -> bool:
        """Whether `registry` holds a metric with one of our names that is not ours."""
        with Collector.silent(registry):
            found = registry.restricted_registry(sorted(self._ours)).collect()
            return any(True for _ in found)

    async def page(
        self, accept: str = "", names: Collection[str] = (), *, compress: bool = False
    ) -> Page:
        """Render the page in the format that `accept` asks for, only `names` where given."""
        encoder, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        pieces = [piece async for piece in self._own_pieces(openmetrics=openmetrics, names=names)]
        view = _View(self._registries, self._ours, names, self._warned)

        theirs = await self._theirs(view, encoder, openmetrics=openmetrics)
        pieces.append(theirs)
        if compress:
            pieces = await anyio.to_thread.run_sync(
                _gzipped, pieces, limiter=own_threads("compression", 1)
            )
        return Page(content_type, pieces, compress)

    async def _theirs(self, view: _View, encoder: Encoder, *, openmetrics: bool) -> bytes:
        """The user's part, if it comes in time: his collectors must not hold up our page."""
        limiter = own_threads("collectors", 2)
        if limiter.available_tokens >= 1:
            with anyio.move_on_after(PATIENCE_SECONDS):
                return await anyio.to_thread.run_sync(
                    partial(_encoded, view, encoder, openmetrics=openmetrics),
                    abandon_on_cancel=True,
                    limiter=limiter,
                )
        view.late()
        return _END if openmetrics else b""

    async def _own_pieces(
        self, *, openmetrics: bool, names: Collection[str]
    ) -> AsyncIterator[bytes]:
        parts: list[bytes] = []
        size = 0
        since = time.perf_counter()
        self._catalogue.gather()
        for some in self._batches(openmetrics=openmetrics, names=names):
            parts += some
            size += sum(map(len, some))
            if size >= PIECE_BYTES:
                yield b"".join(parts)
                parts, size = [], 0
            if time.perf_counter() - since > SLICE_SECONDS:
                await anyio.lowlevel.checkpoint()
                since = time.perf_counter()
        yield b"".join(parts)

    def _batches(self, *, openmetrics: bool, names: Collection[str]) -> Iterator[Sequence[bytes]]:
        for family in self._catalogue:
            try:
                if not names:
                    yield (family.head(openmetrics=openmetrics),)
                    yield from family.batches()
                else:
                    for block in _chosen(family, names, openmetrics=openmetrics):
                        yield (block,)
            except Exception as error:
                # One family that cannot be written must not cost the page.
                self._catalogue.faults.inc("exposition")
                if family.name not in self._warned:
                    self._warned.add(family.name)
                    _logger.error("%s could not be written: %s", family.name, described(error))


def _chosen(family: Family, names: Collection[str], *, openmetrics: bool) -> Iterator[bytes]:
    """The blocks of a family that is asked for by its name, or by those of some samples."""
    whole = family.name in names
    if not whole and not any(name in names for name in family.exposed_names):
        return
    yield family.head(openmetrics=openmetrics)
    for block in family.blocks():
        lines = block.splitlines(keepends=True)
        yield b"".join(line for line in lines if whole or _sample_name(line) in names)


def _sample_name(line: bytes) -> str:
    return line.split(b" ", 1)[0].split(b"{", 1)[0].decode()


Encoder = Callable[["_One"], bytes]


class _View:
    """What the user's registries hold besides our own, each family once."""

    def __init__(
        self,
        registries: Sequence[CollectorRegistry],
        ours: Collection[str],
        names: Collection[str],
        warned: set[str],
    ) -> None:
        self._registries = registries
        self._ours = ours
        self._names = names
        self._warned = warned

    def collect(self) -> list[Metric]:
        """The families that could be read; a failing collector ends its registry's list."""
        seen: set[str] = set()
        found: list[Metric] = []
        for registry in self._registries:
            try:
                with Collector.silent(registry):
                    for metric in self._source(registry):
                        if metric.name not in seen and not self._clashes(metric):
                            seen.add(metric.name)
                            found.append(metric)
            except BaseException as error:
                # In a thread of its own, whatever it is must end here.
                self._warn_once(
                    f"collector {type(error).__name__}",
                    "A collector of the application raised %s: its metrics are left out.",
                    type(error).__name__,
                )
        return found

    def _source(self, registry: CollectorRegistry) -> Iterable[Metric]:
        if self._names:
            return registry.restricted_registry(list(self._names)).collect()
        return registry.collect()

    def _clashes(self, metric: Metric) -> bool:
        if metric.name not in self._ours:
            return False
        self._warn_once(
            metric.name,
            "The application's metric %s has the name of one of the monitor's: it is left out of "
            "the page. Rename it, or set MONITOR_NAMESPACE.",
            metric.name,
        )
        return True

    def late(self) -> None:
        """Say once that the user's part did not come in time."""
        self._warn_once(
            "late",
            "The application's own collectors did not answer within %g s: its metrics are left "
            "out until they do",
            PATIENCE_SECONDS,
        )

    def unwritable(self, error: Exception) -> None:
        """Say once that the user's part could not be written."""
        name = type(error).__name__
        self._warn_once(
            f"encoder {name}",
            "The application's own metrics could not be written (%s): they are left out.",
            name,
        )

    def _warn_once(self, what: str, message: str, *arguments: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            _logger.warning(message, *arguments)


def _encoded(view: _View, encoder: Encoder, *, openmetrics: bool) -> bytes:
    """The user's part, family by family; what cannot be written is left out."""
    parts = []
    for metric in view.collect():
        try:
            parts.append(encoder(_One(metric)).removesuffix(_END))
        except Exception as error:
            # One malformed family of the application must not cost the others.
            view.unwritable(error)
    return b"".join([*parts, _END] if openmetrics else parts)


class _One:
    """One family, as the encoders want it."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        """The family."""
        return [self._metric]


def _gzipped(pieces: Iterable[bytes]) -> list[bytes]:
    squeeze = zlib.compressobj(level=1, wbits=31)
    squeezed = [squeeze.compress(piece) for piece in pieces]
    return [piece for piece in (*squeezed, squeeze.flush()) if piece]
