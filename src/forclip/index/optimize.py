"""Update what makes search fast: write segments of new images and build indexes of large segments.

An index's kind is chosen by the segment's size, its settings by measured recall.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import faiss
import numpy as np

from forclip.index.approximate_search import ApproximateIndex, IndexSettings, count_lists, search_approximately
from forclip.index.exact_search import ScoredImages, search_exactly
from forclip.index.index_kinds import NO_INDEX, Codes, codes_of, lists_kind, parse_codes, scan_kind
from forclip.index.memory import default_memory
from forclip.index.segment import Segment
from forclip.index.table import StoredVectors, read_vectors
from forclip.index.view import Views
from forclip.types import Floats, Ints

MIN_SEGMENT_VECTORS = 131_072  # fewer are read from the store when it is opened, in a fraction of a second
_MERGE_RATIO = 2  # a segment is rewritten if it is at most 2 times as large as what joins it
_MAX_DEAD_SHARE = 0.25
MIN_INDEXED_VECTORS = 250_000  # exact search of fewer takes a few milliseconds
TARGET_RECALL = 0.995  # on the sample queries, so that other queries reach 99 %
_TUNED_K = 50  # images
_STORED_QUERIES = 64
_COMPARED_CHOICES = (1.1, 1.3, 1.6, 2, 3, 5, 8, 16)
_TRAINING_VECTORS, _MIN_TRAINING_VECTORS, _TRAINING_PER_LIST = 1 << 16, 1 << 12, 40
_TRAINING_SHARE = 4  # of the memory, a quarter: FAISS copies the sample
_LIST_GROWTH = 1.5  # bytes reserved per byte of a list, on average
_ADDED_AT_ONCE = 1 << 16
_DECODED_AT_ONCE = 1 << 13
_SHARD_VECTORS = 250_000  # searched by one thread in a millisecond
_MAX_SHARDS = 8
_LISTS_FACTOR = 4  # times the root of the number of vectors: lists long enough to read fast, few enough centres
_FINER_FACTOR, _MAX_FINER_LISTS = 4, 1 << 13  # k-means takes too long for more lists
_MAX_READ_RATIO = 8  # bytes read of lists per byte read of centres; above, finer lists are better
_MAX_PROBE_SHARE = 4  # if more than one list in 4 is searched, comparing all vectors is faster
_KMEANS_ITERATIONS = 4  # more take longer, and the lists find the same images


def optimize(views: Views, kind: str | None, queries: Floats | None, memory: int | None = None) -> None:
    """Bring segments and indexes up to date, as `Index.optimize`.

    A kill at any time leaves what was there before, or what comes after.
    """
    segments, memory, codes = views.segments, default_memory() if memory is None else memory, parse_codes(kind)
    by_size = kind is None or codes is not None
    with segments.changing():
        codes = codes or _prevailing_codes(views)
        write_segments(views, MIN_SEGMENT_VECTORS if by_size or kind == NO_INDEX else 1, memory)
        cover = views.cover()
        on_disk = {p.segment.folder.name: p for p in cover.parts if p.segment.folder is not None}
        for name, _ in cover.names:
            if name not in on_disk:  # damaged, or all its images are deleted or in newer segments
                segments.remove(name)
            elif (stored := segments.open(name)).places.runs != on_disk[name].places.runs:
                segments.write_places(stored, on_disk[name].places)
        for part in views.cover().parts:
            segment, current = part.segment, NO_INDEX if part.index is None else part.index.settings.kind
            too_small = segment.num_vectors < MIN_INDEXED_VECTORS
            as_wanted = part.index is not None if kind is None else kind in (current, codes_of(current))
            if part.in_memory or as_wanted or (by_size and too_small):
                continue
            index = None
            if kind != NO_INDEX:
                typical = sample_stored_queries(segment) if queries is None else queries
                if by_size:
                    index = build_for_size(segment, typical, memory, codes)
                else:
                    assert kind is not None
                    index = build_index(segment, kind, typical, memory=memory)
            segments.write_index(part, index)


def _prevailing_codes(views: Views) -> Codes:
    """Return the precision of the largest index, that of small stores if there is none."""
    indexed = [(part.num_vectors, codes_of(part.index.settings.kind)) for part in views.cover().parts if part.index]
    return max(indexed, default=(0, None), key=lambda pair: pair[0])[1] or "sq8"


def write_segments(views: Views, min_vectors: int, memory: int | None = None) -> None:
    """Write the images without a segment on disk, if they have `min_vectors`, and the segments worth rewriting, as new
    segments. No segment gets more vectors than an index can be built of with so much memory.

    The caller holds `SegmentFolder.changing`.
    """
    cover, header = views.cover(), views.store.header
    most = max_segment_vectors(default_memory() if memory is None else memory, header.dim)
    on_disk, in_memory = [p for p in cover.parts if not p.in_memory], [p for p in cover.parts if p.in_memory]
    new = sum(p.num_vectors for p in in_memory) + cover.count_rest(header.dim)
    enough = new >= min_vectors
    live = [p.num_vectors for p in on_disk]
    dead = [p.segment.num_vectors - n for p, n in zip(on_disk, live, strict=True)]
    chosen = [on_disk[position] for position in plan_merge(new if enough else 0, live, dead, most)]
    wanted = [np.empty(0, np.uint64)]
    if enough or chosen:
        chosen += in_memory
        wanted.append(cover.rest)
    wanted += [p.addresses(np.flatnonzero(p.live)) for p in chosen]
    wanted = [addresses for addresses in wanted if len(addresses)]
    addresses = wanted[0] if len(wanted) == 1 else np.concatenate([np.empty(0, np.uint64), *wanted])
    if not len(addresses):
        return
    written = 0

    def segment_of(block: StoredVectors) -> int:
        nonlocal written
        written += len(block.codes)
        return (written - 1) // most

    for _, blocks in groupby(read_vectors(cover.table, header.dim, addresses), segment_of):
        views.segments.write(blocks, cover.rows.names)


def max_segment_vectors(memory: int, dim: int) -> int:
    """Return how many vectors a segment may have so that its index is built in so many bytes.

    Half of the memory is for codes of 8 bits and numbers of 8 bytes in growing lists, the rest for training.
    """
    return max(1, int(memory / 2 / _LIST_GROWTH / (dim + 8)))


def plan_merge(new: int, live: Sequence[int], dead: Sequence[int], most: float = math.inf) -> list[int]:
    """Choose the segments to rewrite together with new vectors. All numbers count vectors; returns positions.

    Segments join smallest first while they are not much larger than what they join, so each vector is rewritten a
    logarithmic number of times, and none gets more than `most`. Segments with many dead vectors are rewritten too.
    """
    chosen: list[int] = []
    total = new
    for position in sorted(range(len(live)), key=lambda p: live[p]):
        mostly_dead = dead[position] > _MAX_DEAD_SHARE * (live[position] + dead[position])
        joins = total and live[position] <= _MERGE_RATIO * total and total + live[position] <= most
        if mostly_dead or joins:
            chosen.append(position)
            total += live[position]
    return chosen


def build_for_size(
    segment: Segment, queries: Floats, memory: int | None = None, codes: Codes = "sq8"
) -> ApproximateIndex | None:
    """Build the kind of index that suits a segment, None if exact search takes a few milliseconds.

    Uses inverted lists, or, if most lists of 8-bit codes would have to be searched, shorter codes without lists.
    queries: as for `build_index`; codes: precision of the lists.
    """
    dim = segment.header.dim
    if segment.num_vectors < MIN_INDEXED_VECTORS:
        return None
    memory = default_memory() if memory is None else memory
    trainable = max(1, memory // _TRAINING_SHARE // (_TRAINING_PER_LIST * 4 * dim))
    lists = 2 ** int(math.log2(min(_LISTS_FACTOR * math.sqrt(segment.num_vectors), trainable)))
    index = build_index(segment, lists_kind(lists, dim, codes), queries, memory=memory)
    finer = min(_FINER_FACTOR * lists, _MAX_FINER_LISTS, 2 ** int(math.log2(trainable)))
    read_of_lists = _compressed_bytes(segment, index.shards, index.settings.nprobe)
    read_of_centres = 2.0 * lists * dim
    if finer > lists and read_of_lists > _MAX_READ_RATIO * read_of_centres:
        del index  # two do not fit the memory
        lists, index = finer, build_index(segment, lists_kind(finer, dim, codes), queries, memory=memory)
    if codes != "sq8" or index.settings.nprobe * _MAX_PROBE_SHARE <= lists:
        return index
    del index
    return build_index(segment, scan_kind(dim), queries, memory=memory)


def build_index(segment: Segment, kind: str, queries: Floats, memory: int | None = None) -> ApproximateIndex:
    """Train an index on a sample, add all vectors and choose its settings.

    kind: a FAISS factory string; queries: unit [Q, dim], typical ones, to measure recall with; memory: bytes, of which
    a quarter is for the sample. Raises ValueError for a kind that FAISS does not know or cannot build.
    """
    try:
        index = faiss.index_factory(segment.header.dim, kind, faiss.METRIC_INNER_PRODUCT)
        lists = count_lists(index)
        if lists:
            faiss.extract_index_ivf(index).cp.niter = _KMEANS_ITERATIONS
        fits = (default_memory() if memory is None else memory) // _TRAINING_SHARE // (4 * segment.header.dim)
        wanted = max(_TRAINING_VECTORS, _TRAINING_PER_LIST * lists)
        sample = min(segment.num_vectors, wanted, max(fits, _MIN_TRAINING_VECTORS))
        chosen = np.sort(np.random.default_rng(0).choice(segment.num_vectors, sample, replace=False))
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


def sample_stored_queries(segment: Segment) -> Floats:
    """Return stand-ins for text queries: means of two random stored vectors each, unit [Q, dim]."""
    rng = np.random.default_rng(0)
    one, other = (_decode_single(segment, rng.integers(0, segment.num_vectors, _STORED_QUERIES)) for _ in range(2))
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
