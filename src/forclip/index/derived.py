"""The segments that a store's folder keeps for speed: found, told apart from damaged ones, merged, thrown away."""

import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from filelock import FileLock, Timeout

from forclip.index.ann import Ann, load_ann, save_ann
from forclip.index.ann_building import sampled_queries
from forclip.index.schema import StoreHeader
from forclip.index.segment import Segment, complete_segment, read_segment, segment_in_memory, write_segment
from forclip.index.store import Store, StoredVectors, read_vectors
from forclip.types import Floats, Ints

_LOCK = "optimize.lock"
KEEP_BELOW = 131_072  # vectors: fewer are read from the store at opening, which takes a fraction of a second
_SEGMENT_BYTES = 4 << 30  # a segment is built in memory
_WORTH_MERGING = 2  # a segment is rewritten if it is at most so many times as large as what is added to it
_MOSTLY_DEAD = 0.25


@dataclass(frozen=True)
class Derived:
    """A segment and its index, where it has one. made: nanoseconds; newer segments count before older ones."""

    segment: Segment
    ann: Ann | None
    made: int


class DerivedFolder:
    """`search/` in a store's folder. Everything in it can be deleted at any time."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, store.folder / "search"
        self._identity = blake2b(store.header.to_json().encode(), digest_size=16).hexdigest()

    def complete(self) -> frozenset[tuple[str, int]]:
        """Names of the segments that are complete, and when their segment.json was written (it says which index)."""
        found = set()
        for name in os.listdir(self.folder) if self.folder.exists() else ():
            with suppress(FileNotFoundError, NotADirectoryError):  # not complete, or being removed by another process
                found.add((name, os.stat(f"{self.folder}/{name}/segment.json").st_mtime_ns))
        return frozenset(found)

    def open(self, name: str) -> Derived:
        """Raises ValueError where it is damaged, or derived from another store."""
        segment, known = read_segment(self.store.header, self.folder / name, self._identity)
        return Derived(segment, load_ann(segment, self.folder / name, known), known["made"])

    def write(self, segment: Segment) -> None:
        """Writes what is in memory."""
        write_segment(segment, self.folder, self._identity, {"made": time.time_ns()})

    def index(self, derived: Derived, build: Callable[[Segment, Floats], Ann | None], queries: Floats | None) -> None:
        """Gives a segment the index that is built for it, or none. queries: as build_ann takes them, or stand-ins."""
        segment = derived.segment
        known: dict[str, Any] = {"made": derived.made}
        assert segment.folder is not None
        ann = build(segment, sampled_queries(segment) if queries is None else queries)
        if ann is not None:
            known |= save_ann(ann, segment.folder)
        complete_segment(segment.folder, self._identity, known)

    def remove(self, name: str) -> None:
        """Processes that have it mapped go on with it."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One process at a time. Raises ValueError where another is at it."""
        self.folder.mkdir(exist_ok=True)
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                self._tidy()
                yield
        except Timeout:
            raise ValueError(f"{self.store.folder}: another process is optimizing it") from None

    def _tidy(self) -> None:
        """Takes away what a kill left unfinished."""
        for folder in self.folder.iterdir():
            if folder.is_dir() and not (folder / "segment.json").exists():
                self.remove(folder.name)


def merge_plan(tail: int, live: Sequence[int], dead: Sequence[int]) -> list[int]:
    """Which segments to write anew, with the tail if that is not empty. Counts of vectors; returns places in the lists.

    Smallest first, as long as a segment is not much larger than what would join it: so every vector is rewritten a
    logarithmic number of times, however often a little is added. Segments that are mostly dead are rewritten as well.
    """
    chosen: list[int] = []
    together = tail
    for place in sorted(range(len(live)), key=lambda p: live[p]):
        rotten = dead[place] > _MOSTLY_DEAD * (live[place] + dead[place])
        if rotten or (together and live[place] <= _WORTH_MERGING * together):
            chosen.append(place)
            together += live[place]
    return chosen


def segments_of(store: Store, keys: Ints) -> Iterator[Segment]:
    """In memory, one after the other, none larger than _SEGMENT_BYTES."""
    header = store.header
    table = store.table()
    waiting: deque[StoredVectors] = deque()
    size = 0
    for part in read_vectors(table, header.dim, keys):
        waiting.append(part)
        size += part.codes.nbytes
        if size >= _SEGMENT_BYTES:
            yield _joined(header, waiting)
            size = 0
    if waiting:
        yield _joined(header, waiting)


def _joined(header: StoreHeader, waiting: deque[StoredVectors]) -> Segment:
    """Empties `waiting` on the way, so that hardly any vector is in memory twice."""
    total = sum(len(part.codes) for part in waiting)
    return segment_in_memory(header, (waiting.popleft() for _ in range(len(waiting))), total)
