"""The newest version of a store as searchable parts: segments on disk, and the rest of the images in memory."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import blake2b

import lance
import numpy as np
from filelock import FileLock, Timeout

from forclip.index.approximate_search import ApproximateIndex, load_index, save_index
from forclip.index.segment import Segment, read_segment, segment_in_memory, write_segment, write_segment_details
from forclip.index.store import Store, read_keys, read_vectors
from forclip.types import Bools, Ints

SEGMENTS = "search"
_LOCK = "optimize.lock"
_CACHED = 16  # filters, and samples, of a view

SegmentName = tuple[str, int]  # a segment's folder, and when its segment.json was written


@dataclass(frozen=True)
class Part:
    """A segment in one version of a store. live: [images], whether each image is in that version; index: None if the
    segment is searched exactly; created_ns: when it was written, nanoseconds since 1970, 0 in memory."""

    segment: Segment
    index: ApproximateIndex | None
    live: Bools
    created_ns: int

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

    def __len__(self) -> int:
        return sum(p.num_images for p in self.parts)

    def selected(self, part: Part, where: str | None) -> Bools:
        """Return which images [images] of a part are live and match a filter. Raises ValueError for bad SQL."""
        return _select(part, where, self.matching_keys)

    @cached_property
    def matching_keys(self) -> Callable[[str], Ints]:
        """Function from an SQL expression to the ascending keys of the images that match it. Caches the last ones."""
        table = self.table
        return lru_cache(_CACHED)(lambda where: np.sort(read_keys(table, where)))

    @cached_property
    def sample(self) -> Callable[[int, int, str | None], tuple[Ints, ...]]:
        """Function from a size, a seed and a filter to positions in each part of about `size` random images.

        Caches the last ones: the scores of text after text are compared with those of the same images.
        """
        return lru_cache(_CACHED)(partial(_draw, self.parts, self.matching_keys))


def _select(part: Part, where: str | None, matching_keys: Callable[[str], Ints]) -> Bools:
    return part.live if where is None else part.live & in_sorted(part.segment.keys, matching_keys(where))


def _draw(
    parts: Sequence[Part], matching_keys: Callable[[str], Ints], size: int, seed: int, where: str | None
) -> tuple[Ints, ...]:
    selected = [_select(p, where, matching_keys) for p in parts]
    share = size / max(1, sum(int(s.sum()) for s in selected))
    rng = np.random.default_rng(seed)
    return tuple(np.flatnonzero(s & (rng.random(len(s)) < share)) for s in selected)


class SegmentFolder:
    """The segments and indexes in a store's folder. They can be deleted at any time: they only make search faster."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, store.folder / SEGMENTS
        self._identity = blake2b(store.header.to_json().encode(), digest_size=16).hexdigest()

    def names(self) -> frozenset[SegmentName]:
        """Return the complete segments."""
        names = set()
        for name in os.listdir(self.folder) if self.folder.exists() else ():
            with suppress(FileNotFoundError, NotADirectoryError):  # incomplete, or being removed by another process
                names.add((name, os.stat(f"{self.folder}/{name}/segment.json").st_mtime_ns))
        return frozenset(names)

    def open(self, name: str) -> Part:
        """Map a segment and its index, all images live. Raises ValueError if it is damaged or of another store."""
        segment, details = read_segment(self.store.header, self.folder / name, self._identity)
        index = load_index(segment, self.folder / name, details)
        return Part(segment, index, np.ones(len(segment), bool), details["made"])

    def write(self, segment: Segment) -> None:
        """Write a segment that is in memory."""
        write_segment(segment, self.folder, self._identity, {"made": time.time_ns()})

    def write_index(self, part: Part, index: ApproximateIndex | None) -> None:
        """Give a segment on disk another index, or none."""
        assert part.segment.folder is not None
        details = {} if index is None else save_index(index, part.segment.folder)
        write_segment_details(part.segment.folder, self._identity, {"made": part.created_ns, **details})

    def remove(self, name: str) -> None:
        """Delete a segment. Processes that have it mapped can still search it."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for changes and remove incomplete segments. Raises ValueError if another process holds it."""
        self.folder.mkdir(exist_ok=True)
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                for folder in self.folder.iterdir():
                    if folder.is_dir() and not (folder / "segment.json").exists():
                        self.remove(folder.name)
                yield
        except Timeout:
            raise ValueError(f"{self.store.folder}: another process is optimizing it") from None


class Views:
    """Provides the newest version. What was read for an older version is kept as far as it is still valid."""

    def __init__(self, store: Store, segments: SegmentFolder) -> None:
        self.store, self.segments = store, segments
        self._opened: dict[SegmentName, Part | None] = {}
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
        on_disk = sorted((p for p in self._opened.values() if p is not None), key=lambda p: -p.created_ns)
        in_memory = [p for p in self._current.parts if p.in_memory] if self._current else []
        parts = []
        for part in on_disk + in_memory:
            live = in_sorted(part.segment.keys, remaining)
            if live.any():
                parts.append(Part(part.segment, part.index, live, part.created_ns))
                remaining = remaining[~in_sorted(remaining, np.sort(part.segment.keys))]
        if len(remaining):
            header = self.store.header
            segment = segment_in_memory(header, read_vectors(table, header.dim, remaining))
            parts.append(Part(segment, None, np.ones(len(segment), bool), 0))
        return View(table, names, tuple(parts))

    def _open(self, name: SegmentName) -> Part | None:
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
