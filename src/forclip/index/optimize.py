"""Update what makes search fast: write segments of new images and build indexes of large segments."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from forclip.index.approximate_build import MIN_INDEXED_VECTORS, build_for_size, build_index, sample_stored_queries
from forclip.index.segment import Segment, segment_in_memory
from forclip.index.segment_folder import SegmentFolder
from forclip.index.store import Store, StoredVectors, read_vectors
from forclip.index.view import Part, Views
from forclip.types import Floats, Ints

NO_INDEX = "none"
MIN_SEGMENT_VECTORS = 131_072  # fewer are read from the store when it is opened, in a fraction of a second
_MAX_SEGMENT_BYTES = 4 << 30  # a segment is built in memory
_MERGE_RATIO = 2  # a segment is rewritten if it is at most 2 times as large as what joins it
_MAX_DEAD_SHARE = 0.25


def optimize(
    store: Store, segments: SegmentFolder, views: Views, kind: str | None = None, queries: Floats | None = None
) -> None:
    """Bring segments and indexes up to date, as `Index.optimize`.

    A kill at any time leaves what was there before, or what comes after.
    """
    with segments.changing():
        write_segments(store, segments, views, MIN_SEGMENT_VECTORS if kind in (None, NO_INDEX) else 1)
        view = views.newest()
        used = {p.segment.folder.name for p in view.parts if p.segment.folder is not None}
        for name, _ in view.names:
            if name not in used:  # damaged, or all its images are deleted or in newer segments
                segments.remove(name)
        for part in views.newest().parts:
            if not part.in_memory:
                _build(segments, part, kind, queries)


def write_segments(store: Store, segments: SegmentFolder, views: Views, min_vectors: int) -> None:
    """Write the images in memory, at least `min_vectors`, and the segments worth rewriting, as new segments.

    The caller holds `SegmentFolder.changing`.
    """
    parts = views.newest().parts
    on_disk, in_memory = [p for p in parts if not p.in_memory], [p for p in parts if p.in_memory]
    new = sum(p.num_vectors for p in in_memory)
    enough = new >= min_vectors
    live = [p.num_vectors for p in on_disk]
    dead = [p.segment.num_vectors - n for p, n in zip(on_disk, live, strict=True)]
    chosen = [on_disk[position] for position in plan_merge(new if enough else 0, live, dead)]
    if enough or chosen:
        chosen += in_memory
    keys = np.concatenate([np.empty(0, np.int64), *(p.segment.keys[p.live] for p in chosen)])
    if len(keys):
        for segment in _build_segments(store, keys):
            segments.write(segment)


def plan_merge(new: int, live: Sequence[int], dead: Sequence[int]) -> list[int]:
    """Choose the segments to rewrite together with new vectors. All numbers count vectors; returns positions.

    Segments join smallest first while they are not much larger than what they join, so each vector is rewritten a
    logarithmic number of times. Segments with many dead vectors are rewritten too.
    """
    chosen: list[int] = []
    total = new
    for position in sorted(range(len(live)), key=lambda p: live[p]):
        mostly_dead = dead[position] > _MAX_DEAD_SHARE * (live[position] + dead[position])
        if mostly_dead or (total and live[position] <= _MERGE_RATIO * total):
            chosen.append(position)
            total += live[position]
    return chosen


def _build_segments(store: Store, keys: Ints) -> Iterator[Segment]:
    """Read images into memory as segments of at most _MAX_SEGMENT_BYTES."""
    waiting: deque[StoredVectors] = deque()
    for block in read_vectors(store.table(), store.header.dim, keys):
        waiting.append(block)
        if sum(b.codes.nbytes for b in waiting) >= _MAX_SEGMENT_BYTES:
            yield _join(store, waiting)
    if waiting:
        yield _join(store, waiting)


def _join(store: Store, waiting: deque[StoredVectors]) -> Segment:
    """Build one segment and empty `waiting` on the way, so that few vectors are in memory twice."""
    total = sum(len(block.codes) for block in waiting)
    return segment_in_memory(store.header, (waiting.popleft() for _ in range(len(waiting))), total)


def _build(segments: SegmentFolder, part: Part, kind: str | None, queries: Floats | None) -> None:
    """Build the wanted index of a segment unless it has that already. Without a kind, an existing index stays."""
    segment, current = part.segment, NO_INDEX if part.index is None else part.index.settings.kind
    if kind == current or (kind is None and (part.index is not None or segment.num_vectors < MIN_INDEXED_VECTORS)):
        return
    if kind == NO_INDEX:
        segments.write_index(part.stored, None)
        return
    typical = sample_stored_queries(segment) if queries is None else queries
    index = build_for_size(segment, typical) if kind is None else build_index(segment, kind, typical)
    segments.write_index(part.stored, index)
