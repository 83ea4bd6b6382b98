"""Approximate search of one segment: FAISS finds candidates among compressed vectors, exact scores rank them."""

import math
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from forclip.index.exact_search import ScoredImages, first_occurrences, score_images, search_exactly
from forclip.index.segment import Segment
from forclip.index.threads import cores, one_core, parallel_map
from forclip.types import Bools, Floats, Ints

_FETCH_PER_IMAGE, _FETCH_EXTRA = 2, 120  # the best images have several of the nearest vectors
_FETCH_GROWTH = 4
_MIN_IMAGES = 10  # fewer wanted images are searched as if these many were
_EXACT_SHARE = 0.1  # if fewer images are allowed, most candidates would be rejected
_VECTORS_PER_THREAD = 1 << 15  # fewer do not pay for another thread


@dataclass(frozen=True)
class IndexSettings:
    """kind: a FAISS factory string; nprobe: inverted lists searched, 0 if there are none; compared: images scored
    exactly, per wanted image; recall: share of the best 50 images found, the mean over `queries` sample queries."""

    kind: str
    nprobe: int
    compared: float
    recall: float
    queries: int


@dataclass(frozen=True)
class ApproximateIndex:
    """Compressed vectors of a segment. shards: FAISS indexes of consecutive rows, which are searched in parallel."""

    shards: tuple[Any, ...]
    settings: IndexSettings

    def nearest_rows(self, queries: Floats, fetch: int) -> list[Ints]:
        """Return for each query [Q, dim] the rows of the nearest compressed vectors, best first.

        There are at least `fetch` of them unless the searched lists hold fewer.
        """
        queries, nprobe = np.ascontiguousarray(queries, np.float32), self.settings.nprobe
        if nprobe:
            (shard,) = self.shards
            return search_lists(shard, queries, fetch, nprobe)
        results = parallel_map(lambda shard: shard.search(queries, fetch), self.shards)
        scores = np.concatenate([s for s, _ in results], 1)
        valid = np.concatenate([r >= 0 for _, r in results], 1)
        starts = np.cumsum([0, *(shard.ntotal for shard in self.shards[:-1])])
        rows = np.concatenate([r + start for start, (_, r) in zip(starts, results, strict=True)], 1)
        orders = np.argsort(-scores, 1)
        return [r[order][v[order]] for r, v, order in zip(rows, valid, orders, strict=True)]


def search_approximately(
    segment: Segment, index: ApproximateIndex, queries: Floats, k: int, allowed: Bools | None = None
) -> list[ScoredImages]:
    """Find for each unit query [Q, dim] the best k allowed images that the index finds; more may be returned.

    Scores are exact. The search is exact if few images are allowed or the index finds too few.
    """
    available = len(segment) if allowed is None else int(np.count_nonzero(allowed))
    share = available / max(1, len(segment))
    if share < _EXACT_SHARE:
        return [search_exactly(segment, query, k, allowed) for query in queries]
    wanted = min(math.ceil(index.settings.compared * max(k, _MIN_IMAGES)), available)
    fetch = int((_FETCH_PER_IMAGE * wanted + _FETCH_EXTRA) / share)
    images: dict[int, Ints] = {}  # by query, its candidates
    waiting = list(range(len(queries)))
    while waiting and fetch * _FETCH_GROWTH < segment.num_vectors:
        too_few = []
        for query, rows in zip(waiting, index.nearest_rows(queries[waiting], fetch), strict=True):
            owners = segment.owners(rows)
            if allowed is not None:
                owners = owners[allowed[owners]]
            first, exhausted = first_occurrences(owners), len(rows) < fetch
            if len(first) >= wanted or (exhausted and len(first) >= min(k, available)):
                images[query] = owners[first[:wanted]]
            elif not exhausted:
                too_few.append(query)
        waiting = too_few
        fetch *= _FETCH_GROWTH
    found = sorted(images)
    scored = dict(zip(found, score_images(segment, queries[found], [images[q] for q in found]), strict=True))
    return [scored.get(q) or search_exactly(segment, query, k, allowed) for q, query in enumerate(queries)]


def count_lists(index: Any) -> int:
    """Return the number of inverted lists of a FAISS index, 0 for one without."""
    inverted = faiss.try_extract_index_ivf(index)
    return 0 if inverted is None else int(inverted.nlist)


def search_lists(index: Any, queries: Floats, fetch: int, nprobe: int) -> list[Ints]:
    """Return for each query [Q, dim] the at most `fetch` nearest ids in its `nprobe` nearest lists, best first.

    index: inverted lists, possibly behind vector transforms. Several queries share the cores; the lists of a single
    query do, which FAISS itself does only with OpenMP's threads.
    """
    inverted = faiss.extract_index_ivf(index)
    with one_core():
        moved = queries
        if isinstance(index, faiss.IndexPreTransform):
            for position in range(index.chain.size()):
                moved = index.chain.at(position).apply(moved)
        distances, lists = inverted.quantizer.search(moved, nprobe)
        threads = min(cores(), len(queries) * nprobe * index.ntotal // inverted.nlist // _VECTORS_PER_THREAD)
        if threads <= 1:
            return [ids[ids >= 0] for ids in _search_preassigned(inverted, moved, fetch, lists, distances)[1]]
    if len(queries) == 1:
        parts = [(lists[:, start::threads], distances[:, start::threads]) for start in range(threads)]
        results = parallel_map(lambda part: _search_preassigned(inverted, moved, fetch, *part), parts)
        scores, ids = (np.concatenate([column[0] for column in columns]) for columns in zip(*results, strict=True))
        ids = ids[np.argsort(-scores)[:fetch]]
        return [ids[ids >= 0]]
    groups = np.array_split(np.arange(len(queries)), min(threads, len(queries)))
    grouped = parallel_map(lambda g: _search_preassigned(inverted, moved[g], fetch, lists[g], distances[g])[1], groups)
    return [ids[ids >= 0] for group in grouped for ids in group]


def _search_preassigned(
    inverted: Any, queries: Floats, fetch: int, lists: Ints, distances: Floats
) -> tuple[Floats, Ints]:
    """Search the given lists [Q, nprobe] of each query. Returns scores and ids, [Q, fetch]."""
    shape = (len(queries), fetch)
    scores, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
    parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1])
    inputs = [np.ascontiguousarray(array) for array in (lists, distances)]
    pointers = map(faiss.swig_ptr, (*inputs, scores, ids))
    inverted.search_preassigned_c(len(queries), faiss.swig_ptr(queries), fetch, *pointers, False, parameters)
    return scores, ids
