"""The newest version of a store as searchable parts: segments on disk, and the rest of the images in memory."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache

import lance
import numpy as np

from forclip.index.roots import Roots
from forclip.index.segment import segment_in_memory
from forclip.index.segment_folder import SegmentFolder, SegmentName, StoredSegment
from forclip.index.store import Store
from forclip.index.table import read_keys, read_vectors
from forclip.types import Bools, Ints

_CACHED = 16  # filters, and samples, of a view


@dataclass(frozen=True)
class Part(StoredSegment):
    """A segment in one version of a store. live: [images], whether each image is in that version."""

    live: Bools

    @cached_property
    def num_images(self) -> int:
        """Live ones."""
        return int(self.live.sum())

    @property
    def num_vectors(self) -> int:
        """Of live images."""
        return int(np.diff(self.segment.offsets)[self.live].sum())

    @property
    def in_memory(self) -> bool:
        return self.segment.folder is None

    def selected(self, where: str | None, matching_keys: Callable[[str], Ints]) -> Bools:
        """Return which images [images] are live and match a filter. Raises ValueError for bad SQL.

        matching_keys: of the view.
        """
        return self.live if where is None else self.live & in_sorted(self.segment.keys, matching_keys(where))

    def positions(self, image_ids: Sequence[str]) -> Ints:
        """Return the positions of live images with these ids, ascending. Unknown ids are ignored."""
        positions = self.segment.id_lookup.find(image_ids)
        live: Ints = positions[self.live[positions]]
        return live


@dataclass(frozen=True, eq=False)
class View:
    """One version of a store. Each of its images is live in exactly one part. names: the complete segments on disk."""

    table: lance.LanceDataset
    names: frozenset[SegmentName]
    parts: tuple[Part, ...]
    roots: Roots

    def __len__(self) -> int:
        return sum(p.num_images for p in self.parts)

    @cached_property
    def matching_keys(self) -> Callable[[str], Ints]:
        """Function from an SQL expression to the ascending keys of the images that match it. Caches the last ones."""
        table = self.table
        return lru_cache(_CACHED)(lambda where: np.sort(read_keys(table, where)))

    @cached_property
    def sample(self) -> Callable[[int, str | None], tuple[Ints, ...]]:
        """Function from a size and a filter to positions in each part of about `size` random images.

        Caches the last ones: the scores of text after text are compared with those of the same images.
        """
        parts, matching_keys = self.parts, self.matching_keys  # a reference to self would keep the view in memory

        @lru_cache(_CACHED)
        def draw(size: int, where: str | None) -> tuple[Ints, ...]:
            selected = [p.selected(where, matching_keys) for p in parts]
            share = size / max(1, sum(int(s.sum()) for s in selected))
            rng = np.random.default_rng(0)
            return tuple(np.flatnonzero(s & (rng.random(len(s)) < share)) for s in selected)

        return draw


class Views:
    """Provides the newest version. What was read for an older version is kept as far as it is still valid."""

    def __init__(self, store: Store, segments: SegmentFolder) -> None:
        self.store, self.segments = store, segments
        self._opened: dict[SegmentName, StoredSegment | None] = {}
        self._current: View | None = None

    def newest(self) -> View:
        """Raises ValueError for a damaged store."""
        table, names = self.store.table(), self.segments.names()
        current = self._current
        if current is None or (table.version, names) != (current.table.version, current.names):
            current = self._current = self._read(table, names)
        return current

    def _read(self, table: lance.LanceDataset, names: frozenset[SegmentName]) -> View:
        remaining = np.sort(read_keys(table))
        self._opened = {name: self._opened[name] if name in self._opened else self._open(name) for name in names}
        on_disk = sorted((s for s in self._opened.values() if s is not None), key=lambda s: -s.created_ns)
        in_memory = [p for p in self._current.parts if p.in_memory] if self._current else []
        parts = []
        for stored in [*on_disk, *in_memory]:
            live = in_sorted(stored.segment.keys, remaining)
            if live.any():
                parts.append(Part(stored.segment, stored.index, stored.created_ns, live))
                remaining = remaining[~in_sorted(remaining, np.sort(stored.segment.keys))]
        if len(remaining):
            header = self.store.header
            segment = segment_in_memory(header, read_vectors(table, header.dim, remaining))
            parts.append(Part(segment, None, 0, np.ones(len(segment), bool)))
        return View(table, names, tuple(parts), self.store.roots)

    def _open(self, name: SegmentName) -> StoredSegment | None:
        """Return None for a damaged segment: its images are then read from the store."""
        with suppress(ValueError):
            return self.segments.open(name[0])
        return None


def in_sorted(keys: Ints, wanted: Ints) -> Bools:
    """Return which keys are among the wanted ones, which are ascending."""
    if not len(wanted):
        return np.zeros(len(keys), bool)
    positions = np.searchsorted(wanted, keys)
    positions[positions == len(wanted)] = 0
    found: Bools = wanted[positions] == keys
    return found
