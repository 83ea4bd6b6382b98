"""One version of a store, put together from segments: those on disk, and what they lack in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import lance
import numpy as np

from forclip.index.ann import Ann
from forclip.index.derived import Derived, DerivedFolder
from forclip.index.segment import Segment, segment_in_memory
from forclip.index.store import Store, read_keys, read_vectors
from forclip.types import Bools, Ints


@dataclass(frozen=True)
class Part:
    """A segment and which of its images are the store's, [images]. made: 0 for one in memory."""

    segment: Segment
    ann: Ann | None
    alive: Bools
    made: int

    @cached_property
    def allowed(self) -> Bools | None:
        """As scan takes it: None where all images are alive."""
        return None if self.alive.all() else self.alive

    def places(self, image_ids: Sequence[str]) -> Ints:
        """Where images that are alive stand in the segment, in ascending order; ids that are not there are left out."""
        places = self.segment.id_places.find(image_ids)
        alive: Ints = places[self.alive[places]]
        return alive

    @cached_property
    def num_images(self) -> int:
        """That are alive."""
        return int(self.alive.sum())

    @property
    def num_vectors(self) -> int:
        """Of the images that are alive."""
        return int(np.diff(self.segment.offsets)[self.alive].sum())

    @property
    def in_memory(self) -> bool:
        return self.segment.folder is None


@dataclass(frozen=True)
class View:
    """Every image of this version is alive in exactly one part."""

    table: lance.LanceDataset
    complete: frozenset[tuple[str, int]]
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(p.num_images for p in self.parts)


class Views:
    """The newest version, whoever wrote it. What was read for an older one is kept as far as it still counts."""

    def __init__(self, store: Store, derived: DerivedFolder) -> None:
        self.store, self.derived = store, derived
        self._opened: dict[tuple[str, int], Derived | None] = {}
        self._current: View | None = None

    def newest(self) -> View:
        """Raises ValueError for a damaged store."""
        table, complete = self.store.table(), self.derived.complete()
        current = self._current
        if current is None or (table.version, complete) != (current.table.version, current.complete):
            current = self._current = self._look(table, complete)
        return current

    def _look(self, table: lance.LanceDataset, complete: frozenset[tuple[str, int]]) -> View:
        remaining = np.sort(read_keys(table))
        self._opened = {name: self._open(name) for name in complete}
        parts = []
        for known in self._candidates():
            alive = in_sorted(known.segment.keys, remaining)
            if alive.any():
                parts.append(Part(known.segment, known.ann, alive, known.made))
                remaining = remaining[~in_sorted(remaining, np.sort(known.segment.keys))]
        if len(remaining):
            header = self.store.header
            segment = segment_in_memory(header, read_vectors(table, header.dim, remaining))
            parts.append(Part(segment, None, np.ones(len(segment), bool), 0))
        return View(table, complete, tuple(parts))

    def _candidates(self) -> list[Derived]:
        """What may serve a version, best first: segments on disk, newest first, then those in memory."""
        on_disk = sorted((d for d in self._opened.values() if d is not None), key=lambda d: -d.made)
        in_memory = [p for p in self._current.parts if p.in_memory] if self._current else []
        return on_disk + [Derived(p.segment, None, 0) for p in in_memory]

    def _open(self, name: tuple[str, int]) -> Derived | None:
        """None for one that can't be used: it is derived, so search does without."""
        if name in self._opened:
            return self._opened[name]
        try:
            return self.derived.open(name[0])
        except ValueError:
            return None


def in_sorted(keys: Ints, wanted: Ints) -> Bools:
    """Which keys are among the wanted ones, these in ascending order."""
    if not len(wanted):
        return np.zeros(len(keys), bool)
    places = np.searchsorted(wanted, keys)
    places[places == len(wanted)] = 0
    found: Bools = wanted[places] == keys
    return found
