"""Exact search of one segment: rank its images by comparing every vector, or score given images exactly."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from forclip.index.segment import ImageLists, Segment
from forclip.index.threads import cores, parallel_map
from forclip.types import Bools, Doubles, Floats, Ints

_ROUNDING = 1e-5  # FAISS's scores are sums in single precision; they are exact to this
_FETCH_PER_IMAGE = 8  # vectors fetched first for each wanted image
_FETCH_GROWTH = 4
_SCORE_ALL_SHARE = 4  # if more than one image in 4 is wanted, all are scored
_VECTORS_PER_THREAD = 1 << 15  # fewer do not pay for another thread
_BLOCK_VECTORS = 1 << 15
_CANDIDATES_PER_IMAGE = 4  # vectors of an image that single precision may not tell apart


@dataclass(frozen=True)
class ScoredImages:
    """Images of one segment in no order: their positions, the rows of their best vectors, and those rows' cosines."""

    images: Ints
    rows: Ints
    scores: Doubles


def search_exactly(segment: Segment, query: Floats, k: int, allowed: Bools | None = None) -> ScoredImages:
    """Find the best k of the allowed images [images] and all images that tie with the last one. query: unit [dim].

    Fetches the nearest vectors, more and more of them, until k images are certain: if the last vector fetched is worse
    than the best vector of the k-th image, every vector that was not fetched is worse too.
    """
    available = len(segment) if allowed is None else int(np.count_nonzero(allowed))
    if k * _SCORE_ALL_SHARE > available:
        return _score_all(segment, query, allowed)
    rows_allowed = None if allowed is None else np.repeat(allowed, np.diff(segment.offsets))
    total = segment.num_vectors if rows_allowed is None else int(rows_allowed.sum())
    fetch = _FETCH_PER_IMAGE * k
    while fetch < total:
        scores, rows = _nearest_rows(segment, query, fetch, rows_allowed)
        first = first_occurrences(segment.owners(rows))
        if len(first) >= k:
            kth = scores[first[k - 1]]
            if scores[-1] < kth - _ROUNDING:
                return score_owners(segment, query, rows[scores >= kth - _ROUNDING])
        fetch *= _FETCH_GROWTH
    return _score_all(segment, query, allowed)


def _score_all(segment: Segment, query: Floats, allowed: Bools | None) -> ScoredImages:
    images = np.arange(len(segment)) if allowed is None else np.flatnonzero(allowed)
    return score_images(segment, query[None], [images])[0]


def _nearest_rows(segment: Segment, query: Floats, fetch: int, allowed: Bools | None) -> tuple[Floats, Ints]:
    """Return the scores and rows of the nearest allowed vectors, best first, in single precision."""
    total = segment.num_vectors
    bits = None if allowed is None else np.packbits(allowed, bitorder="little")
    bitmap = None if bits is None else faiss.IDSelectorBitmap(bits)
    scaled = segment.scale_queries(query)[None]
    # FAISS keeps one query in one thread, so each thread searches a range of the rows.
    threads = max(1, min(cores(), total // _VECTORS_PER_THREAD))
    edges = np.linspace(0, total, threads + 1).astype(np.int64).tolist()

    def search_range(edge: tuple[int, int]) -> tuple[Any, Any]:
        in_range = faiss.IDSelectorRange(*edge, True)
        selected = in_range if bitmap is None else faiss.IDSelectorAnd(in_range, bitmap)
        scores, rows = segment.flat.search(scaled, fetch, params=faiss.SearchParameters(sel=selected))
        return scores[0], rows[0]

    ranges = parallel_map(search_range, itertools.pairwise(edges))
    scores, rows = (np.concatenate(column) for column in zip(*ranges, strict=True))
    scores, rows = scores[rows >= 0], rows[rows >= 0]
    best = np.lexsort((rows, -scores))[:fetch]
    return scores[best], rows[best]


def score_images(segment: Segment, queries: Floats, images: Sequence[Ints]) -> list[ScoredImages]:
    """Score each query's images by the best of all their vectors.

    queries: unit [Q, dim]; images: for each query, positions in the segment without repeats.
    """
    query_of = np.repeat(np.arange(len(queries)), np.array([len(i) for i in images], np.int64))
    pairs, lists = np.concatenate([np.empty(0, np.int64), *images]), segment.lists
    blocks = _blocks(segment, pairs)
    best = parallel_map(lambda b: _score_block(segment, lists, queries, query_of[b], pairs[b]), blocks)
    if len(best) == len(queries) == 1:
        return [ScoredImages(*best[0][1:])]
    of_query, owners, rows, scores = (np.concatenate(column) for column in zip(*best, strict=True))
    ends = np.searchsorted(of_query, np.arange(len(queries) + 1))
    return [ScoredImages(owners[s:e], rows[s:e], scores[s:e]) for s, e in itertools.pairwise(ends)]


def score_owners(segment: Segment, query: Floats, rows: Ints) -> ScoredImages:
    """Score the images that own these rows by the best of the rows. query: unit [dim]."""
    return ScoredImages(*_best_rows(segment, query[None], np.zeros(len(rows), np.int64), rows)[1:])


def score_values(segment: Segment, queries: Floats, images: Ints) -> list[Floats]:
    """Return the scores alone, in no order, of the same images for each query: single precision, within 1e-5."""
    count, lists = len(queries), segment.lists
    if lists is None or not len(images):
        return [f.scores.astype(np.float32) for f in score_images(segment, queries, [images] * count)]
    scaled = segment.scale_queries(queries)
    query_of, pairs = np.repeat(np.arange(count), len(images)), np.tile(images, count)
    blocks = _blocks(segment, pairs)
    scores = parallel_map(lambda b: lists.nearest(scaled[query_of[b]], pairs[b], 1)[0][:, 0], blocks)
    return list(np.concatenate(scores).reshape(count, -1))


def first_occurrences(values: Ints) -> Ints:
    """Return where each distinct value occurs first, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])


def _blocks(segment: Segment, images: Ints) -> list[slice]:
    """Split images into blocks of some ten thousand vectors each."""
    total = int((segment.offsets[images + 1] - segment.offsets[images]).sum())
    if total < 2 * _BLOCK_VECTORS:
        return [slice(len(images))]
    edges = np.linspace(0, len(images), total // _BLOCK_VECTORS + 1).astype(int).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def _score_block(
    segment: Segment, lists: ImageLists | None, queries: Floats, query_of: Ints, images: Ints
) -> tuple[Ints, Ints, Ints, Doubles]:
    """Return what `_best_rows` does, of all rows of these images."""
    of_query, rows = _candidate_rows(segment, lists, queries, query_of, images)
    if len(rows) == len(images):  # one of each, in the order of the images
        return of_query, images, rows, segment.scores(queries.astype(np.float64), rows, of_query)
    return _best_rows(segment, queries, of_query, rows)


def _candidate_rows(
    segment: Segment, lists: ImageLists | None, queries: Floats, query_of: Ints, images: Ints
) -> tuple[Ints, Ints]:
    """Return every row that may be its image's best, and the query of each. FAISS's scores exclude the others."""
    if lists is None:
        return _all_rows(segment, query_of, images)
    scores, rows = lists.nearest(segment.scale_queries(queries)[query_of], images, _CANDIDATES_PER_IMAGE)
    near = scores >= scores[:, :1] - _ROUNDING
    if not near[:, 1:].any():
        return query_of, rows[:, 0]
    all_near = near.all(axis=1)  # further vectors may be as near
    near[all_near] = False
    others = _all_rows(segment, query_of[all_near], images[all_near])
    return np.concatenate([query_of[near.nonzero()[0]], others[0]]), np.concatenate([rows[near], others[1]])


def _all_rows(segment: Segment, query_of: Ints, images: Ints) -> tuple[Ints, Ints]:
    """Return every row of these images, and the query of each."""
    starts, counts = segment.offsets[images], segment.offsets[images + 1] - segment.offsets[images]
    within: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(query_of, counts), np.repeat(starts, counts) + within


def _best_rows(segment: Segment, queries: Floats, query_of: Ints, rows: Ints) -> tuple[Ints, Ints, Ints, Doubles]:
    """Return the best row of each query and image in double precision: query, ascending, image, row, score."""
    scores, images = segment.scores(queries.astype(np.float64), rows, query_of), segment.owners(rows)
    order = np.lexsort((rows, -scores, query_of))
    best = order[first_occurrences(query_of[order] * len(segment) + images[order])]
    return query_of[best], images[best], rows[best], scores[best]
