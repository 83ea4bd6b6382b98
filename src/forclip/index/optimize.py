"""Update what makes search fast: write segments of new images and build indexes of large segments.

An index's kind is chosen by the segment's size, its settings by measured recall.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import faiss
import numpy as np

from forclip.index.approximate_search import ApproximateIndex, IndexSettings, count_lists, search_approximately
from forclip.index.exact_search import ScoredImages, search_exactly
from forclip.index.segment import Segment, segment_in_memory
from forclip.index.table import StoredVectors, read_vectors
from forclip.index.view import Views
from forclip.types import Floats, Ints

NO_INDEX = "none"
MIN_SEGMENT_VECTORS = 131_072  # fewer are read from the store when it is opened, in a fraction of a second
_MAX_SEGMENT_BYTES = 4 << 30  # a segment is built in memory
_MERGE_RATIO = 2  # a segment is rewritten if it is at most 2 times as large as what joins it
_MAX_DEAD_SHARE = 0.25
MIN_INDEXED_VECTORS = 250_000  # exact search of fewer takes a few milliseconds
TARGET_RECALL = 0.995  # on the sample queries, so that other queries reach 99 %
_TUNED_K = 50  # images
_COMPARED_CHOICES = (1.1, 1.3, 1.6, 2, 3, 5, 8, 16)
_TRAINING_VECTORS = 1 << 16
_ADDED_AT_ONCE = 1 << 16
_DECODED_AT_ONCE = 1 << 13
_SHARD_VECTORS = 250_000  # searched by one thread in a millisecond
_MAX_SHARDS = 8
_LISTS_FACTOR = 4  # times the root of the number of vectors: lists long enough to read fast, few enough centres
_FINER_FACTOR, _MAX_FINER_LISTS = 4, 1 << 13  # k-means takes too long for more lists
_MAX_READ_RATIO = 8  # bytes read of lists per byte read of centres; above, finer lists are better
_MAX_PROBE_SHARE = 4  # if more than one list in 4 is searched, comparing all vectors is faster
_KMEANS_ITERATIONS = 4  # more take longer, and the lists find the same images


def optimize(views: Views, kind: str | None, queries: Floats | None) -> None:
    """Bring segments and indexes up to date, as `Index.optimize`.

    A kill at any time leaves what was there before, or what comes after.
    """
    segments = views.segments
    with segments.changing():
        write_segments(views, MIN_SEGMENT_VECTORS if kind in (None, NO_INDEX) else 1)
        view = views.newest()
        used = {p.segment.folder.name for p in view.parts if p.segment.folder is not None}
        for name, _ in view.names:
            if name not in used:  # damaged, or all its images are deleted or in newer segments
                segments.remove(name)
        for part in views.newest().parts:
            segment, current = part.segment, NO_INDEX if part.index is None else part.index.settings.kind
            too_small = segment.num_vectors < MIN_INDEXED_VECTORS
            if part.in_memory or kind == current or (kind is None and (part.index is not None or too_small)):
                continue
            index = None
            if kind != NO_INDEX:
                typical = sample_stored_queries(segment) if queries is None else queries
                index = build_for_size(segment, typical) if kind is None else build_index(segment, kind, typical)
            segments.write_index(part, index)


def write_segments(views: Views, min_vectors: int) -> None:
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
    store, waiting = views.store, deque[StoredVectors]()

    def write_waiting() -> None:
        total = sum(len(block.codes) for block in waiting)
        # Empties `waiting` on the way, so that few vectors are in memory twice.
        segment = segment_in_memory(store.header, (waiting.popleft() for _ in range(len(waiting))), total)
        views.segments.write(segment)

    for block in read_vectors(store.table(), store.header.dim, keys) if len(keys) else ():
        waiting.append(block)
        if sum(b.codes.nbytes for b in waiting) >= _MAX_SEGMENT_BYTES:
            write_waiting()
    if waiting:
        write_waiting()


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


def codes_kind(dim: int) -> str:
    """Return FAISS's name of the codes for search without lists: product quantisation, 4 bits for two dimensions."""
    return f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"


def lists_kind(lists: int) -> str:
    """Return FAISS's name of inverted lists of 8-bit codes. Half-precision centres, since all are compared."""
    return f"IVF{lists}(SQfp16),SQ8"


def build_for_size(segment: Segment, queries: Floats) -> ApproximateIndex | None:
    """Build the kind of index that suits a segment, None if exact search takes a few milliseconds.

    Uses inverted lists, or, if most lists would have to be searched, shorter codes without lists.
    queries: as for `build_index`.
    """
    if segment.num_vectors < MIN_INDEXED_VECTORS:
        return None
    lists = 2 ** int(math.log2(_LISTS_FACTOR * math.sqrt(segment.num_vectors)))
    index = build_index(segment, lists_kind(lists), queries)
    finer = min(_FINER_FACTOR * lists, _MAX_FINER_LISTS)
    read_of_lists = _compressed_bytes(segment, index.shards, index.settings.nprobe)
    read_of_centres = 2.0 * lists * segment.header.dim
    if finer > lists and read_of_lists > _MAX_READ_RATIO * read_of_centres:
        lists, index = finer, build_index(segment, lists_kind(finer), queries)
    if index.settings.nprobe * _MAX_PROBE_SHARE <= lists:
        return index
    return build_index(segment, codes_kind(segment.header.dim), queries)


def build_index(segment: Segment, kind: str, queries: Floats, seed: int = 0) -> ApproximateIndex:
    """Train an index on a sample, add all vectors and choose its settings.

    kind: a FAISS factory string; queries: unit [Q, dim], typical ones, to measure recall with. Raises ValueError for a
    kind that FAISS does not know or cannot build.
    """
    try:
        index = faiss.index_factory(segment.header.dim, kind, faiss.METRIC_INNER_PRODUCT)
        lists = count_lists(index)
        if lists:
            faiss.extract_index_ivf(index).cp.niter = _KMEANS_ITERATIONS
        sample = min(segment.num_vectors, max(_TRAINING_VECTORS, 40 * lists))
        chosen = np.sort(np.random.default_rng(seed).choice(segment.num_vectors, sample, replace=False))
        index.train(_decode_single(segment, chosen))
        # Inverted lists are never split into shards.
        shards_for_size = 1 << max(0, round(math.log2(max(1, segment.num_vectors / _SHARD_VECTORS))))
        count = 1 if lists else min(_MAX_SHARDS, shards_for_size)
        shards = tuple(index if count == 1 else faiss.clone_index(index) for _ in range(count))
        edges = np.linspace(0, segment.num_vectors, count + 1).astype(int).tolist()
        for shard, (start, end) in zip(shards, pairwise(edges), strict=True):
            for at in range(start, end, _ADDED_AT_ONCE):
                shard.add(_decode_single(segment, np.arange(at, min(end, at + _ADDED_AT_ONCE))))
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split("Error: ")[-1]
        raise ValueError(f"FAISS can't build {kind!r} for {segment.num_vectors} vectors: {reason}") from None
    return ApproximateIndex(shards, _choose_settings(segment, shards, kind, queries))


def sample_stored_queries(segment: Segment, count: int = 64, seed: int = 0) -> Floats:
    """Return stand-ins for text queries: means of two random stored vectors each, unit [count, dim]."""
    rng = np.random.default_rng(seed)
    one, other = (_decode_single(segment, rng.integers(0, segment.num_vectors, count)) for _ in range(2))
    mixed = one + other
    unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _choose_settings(segment: Segment, shards: tuple[Any, ...], kind: str, queries: Floats) -> IndexSettings:
    """Return the settings that read the fewest bytes at TARGET_RECALL, or the last tried if none reach it."""
    exact = [_best_images(search_exactly(segment, query, _TUNED_K)) for query in queries]

    def measure(nprobe: int, compared: float) -> IndexSettings:
        settings = IndexSettings(kind, nprobe, compared, 0.0, len(queries))
        found = search_approximately(segment, ApproximateIndex(shards, settings), queries, _TUNED_K)
        recalls = [len(_best_images(f) & e) / len(e) for f, e in zip(found, exact, strict=True)]
        return replace(settings, recall=float(np.mean(recalls)))

    best: IndexSettings | None = None
    least = math.inf
    for nprobe in _nprobe_choices(count_lists(shards[0])):
        for compared in _COMPARED_CHOICES:
            scored_vectors = compared * _TUNED_K * segment.num_vectors / len(segment)
            cost = _compressed_bytes(segment, shards, nprobe) + scored_vectors * int(segment.flat.code_size)
            if cost >= least:
                break
            tried = measure(nprobe, compared)
            if tried.recall >= TARGET_RECALL:
                best, least = tried, cost
    return best or tried


def _compressed_bytes(segment: Segment, shards: tuple[Any, ...], nprobe: int) -> float:
    """Return the bytes of compressed vectors that a query reads."""
    lists = count_lists(shards[0])
    share = nprobe / lists if lists else 1.0
    return share * segment.num_vectors * int(shards[0].sa_code_size())


def _nprobe_choices(lists: int) -> list[int]:
    """Return the numbers of lists to try, each a third or a half more than the last; 0 alone without lists."""
    if not lists:
        return [0]
    halves = [(lists * part) >> down for down in range(11, -1, -1) for part in (2, 3)]
    return sorted({n for half in halves if 1 <= (n := half // 2) <= lists})


def _decode_single(segment: Segment, rows: Ints) -> Floats:
    """Decode rows to single precision [rows, dim], block by block: decoding takes eight bytes per number."""
    single = np.empty((len(rows), segment.header.dim), np.float32)
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        single[start : start + _DECODED_AT_ONCE] = segment.decode(rows[start : start + _DECODED_AT_ONCE])
    return single


def _best_images(scored: ScoredImages) -> set[int]:
    order = np.lexsort((scored.images, -scored.scores))[:_TUNED_K]
    return set(scored.images[order].tolist())
