"""Builds a segment's index for approximate search, of a kind that follows from the vectors.

Its settings are the cheapest that find what exact search finds on sampled queries.
"""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import faiss
import numpy as np

from forclip.index.ann import Ann, AnnSettings, Shard, search_ann
from forclip.index.faiss_lists import count_lists
from forclip.index.image_scores import Found
from forclip.index.scan import scan
from forclip.index.segment import Segment
from forclip.types import Floats, Ints

SCAN_BELOW = 250_000  # vectors: a scan of these takes a few milliseconds
WANTED_RECALL = 0.995  # of sampled queries, so that others find 99 % as well
_TUNED_FOR = 50  # images
_COMPARED = (1.1, 1.3, 1.6, 2, 3, 5, 8, 16)  # images for each that is wanted
_TRAINING_VECTORS = 1 << 16
_ADDED_AT_ONCE = 1 << 16
_DECODED_AT_ONCE = 1 << 13
_SHARD_VECTORS = 250_000  # for each thread that searches them all; one takes a millisecond for them
_MOST_SHARDS = 8
_LISTS = 4  # for the root of the number of vectors: long enough to be read at speed, few enough to compare all centres
_FINER, _MOST_FINER = 4, 1 << 13  # so many times as many lists, up to so many: with more, k-means takes too long,
_TOO_MUCH = 8  # where queries lie between so many lists that so many times as much is read of them as of their centres
_FEW_LISTS = 4  # one in that many: to search more takes longer than to compare all vectors one after the other
_ROUNDS = 4  # of k-means for the lists: more take as much longer, and the lists find the same images


def codes_for(dim: int) -> str:
    """FAISS' name of vectors that are quickly searched without lists: four bits for two dimensions, by fast scan."""
    return f"PQ{dim // 2 if dim % 2 == 0 else dim}x4fs"


def in_lists(lists: int) -> str:
    """FAISS' name of an index in so many lists: 8 bits a dimension; centres in half precision, since all of them are
    compared with a query."""
    return f"IVF{lists}(SQfp16),SQ8"


def build_for_size(segment: Segment, queries: Floats) -> Ann | None:
    """None for a segment that is scanned in a few milliseconds. Else vectors in inverted lists, or, where most of the
    lists would have to be searched, shorter ones side by side. queries: as build_ann takes them."""
    if segment.num_vectors < SCAN_BELOW:
        return None
    lists = 2 ** int(math.log2(_LISTS * math.sqrt(segment.num_vectors)))
    ann = build_ann(segment, in_lists(lists), queries)
    finer = min(_FINER * lists, _MOST_FINER)
    if finer > lists and _read_of_lists(segment, ann) > _TOO_MUCH * _read_of_centres(segment, lists):
        lists, ann = finer, build_ann(segment, in_lists(finer), queries)
    if ann.settings.nprobe * _FEW_LISTS <= lists:
        return ann
    return build_ann(segment, codes_for(segment.header.dim), queries)


def _read_of_lists(segment: Segment, ann: Ann) -> float:
    """Bytes a query."""
    index = ann.shards[0].index
    return ann.settings.nprobe / count_lists(index) * segment.num_vectors * int(index.sa_code_size())


def _read_of_centres(segment: Segment, lists: int) -> float:
    """Bytes a query."""
    return 2.0 * lists * segment.header.dim


def build_ann(segment: Segment, kind: str, queries: Floats, seed: int = 0) -> Ann:
    """Trains on a sample, adds all vectors and chooses settings. queries: unit [Q, dim], such as are to be expected.

    Raises ValueError for a kind that FAISS does not know or can't build.
    """
    try:
        index = faiss.index_factory(segment.header.dim, kind, faiss.METRIC_INNER_PRODUCT)
        lists = count_lists(index)
        if lists:
            faiss.extract_index_ivf(index).cp.niter = _ROUNDS
        sample = min(segment.num_vectors, max(_TRAINING_VECTORS, 40 * lists))
        chosen = np.sort(np.random.default_rng(seed).choice(segment.num_vectors, sample, replace=False))
        index.train(_single(segment, chosen))
        shards = _filled(segment, index)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].split("Error: ")[-1]
        raise ValueError(f"FAISS can't build {kind!r} for {segment.num_vectors} vectors: {reason}") from None
    return Ann(shards, tuned(segment, shards, kind, queries))


def _filled(segment: Segment, trained: Any) -> tuple[Shard, ...]:
    """Copies of a trained index, each with its share of the vectors; lists are not shared out."""
    count = 1 if count_lists(trained) else _shards_for(segment.num_vectors)
    edges = np.linspace(0, segment.num_vectors, count + 1).astype(int).tolist()
    shards = []
    for start, end in pairwise(edges):
        index = trained if count == 1 else faiss.clone_index(trained)
        for at in range(start, end, _ADDED_AT_ONCE):
            index.add(_single(segment, np.arange(at, min(end, at + _ADDED_AT_ONCE))))
        shards.append(Shard(start, index))
    return tuple(shards)


def _shards_for(count: int) -> int:
    return min(_MOST_SHARDS, 1 << max(0, round(math.log2(max(1, count / _SHARD_VECTORS)))))


def tuned(segment: Segment, shards: tuple[Shard, ...], kind: str, queries: Floats) -> AnnSettings:
    """The settings that read the fewest bytes of those that reach WANTED_RECALL; if none do, those that read most."""
    exact = [_top(scan(segment, query, _TUNED_FOR)) for query in queries]

    def measured(nprobe: int, compared: float) -> AnnSettings:
        trial = Ann(shards, AnnSettings(kind, nprobe, compared, 0.0, len(queries)))
        found = map(_top, search_ann(segment, trial, queries, _TUNED_FOR))
        share = np.mean([len(f & e) / len(e) for f, e in zip(found, exact, strict=True)])
        return replace(trial.settings, recall=float(share))

    best: AnnSettings | None = None
    least = math.inf
    for nprobe in _probes(count_lists(shards[0].index)):
        for compared in _COMPARED:
            cost = _bytes_read(segment, shards, nprobe, compared)
            if cost >= least:
                break
            trial = measured(nprobe, compared)
            if trial.recall >= WANTED_RECALL:
                best, least = trial, cost
    return best or trial


def _bytes_read(segment: Segment, shards: tuple[Shard, ...], nprobe: int, compared: float) -> float:
    """Of compressed vectors, and then of the images that are compared."""
    lists = count_lists(shards[0].index)
    share = nprobe / lists if lists else 1.0
    compressed = share * segment.num_vectors * int(shards[0].index.sa_code_size())
    return compressed + compared * _TUNED_FOR * segment.num_vectors / len(segment) * int(segment.flat.code_size)


def _probes(lists: int) -> list[int]:
    """Numbers of lists to try, each a third or a half more than the one before; 0 alone where there are none."""
    if not lists:
        return [0]
    halves = [(lists * part) >> down for down in range(11, -1, -1) for part in (2, 3)]
    return sorted({n for half in halves if 1 <= (n := half // 2) <= lists})


def sampled_queries(segment: Segment, count: int = 64, seed: int = 0) -> Floats:
    """Stand-ins where no text queries are at hand: stored vectors moved half-way to others, unit [count, dim]."""
    rng = np.random.default_rng(seed)
    one, other = (_single(segment, rng.integers(0, segment.num_vectors, count)) for _ in range(2))
    mixed = one + other
    unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _single(segment: Segment, rows: Ints) -> Floats:
    """[rows, dim] in single precision, decoded some at a time: that takes eight bytes a number."""
    single = np.empty((len(rows), segment.header.dim), np.float32)
    for start in range(0, len(rows), _DECODED_AT_ONCE):
        single[start : start + _DECODED_AT_ONCE] = segment.decoded(rows[start : start + _DECODED_AT_ONCE])
    return single


def _top(found: Found) -> set[int]:
    order = np.lexsort((found.images, -found.scores))[:_TUNED_FOR]
    return set(found.images[order].tolist())
