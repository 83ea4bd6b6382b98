"""Search by all vectors of a picture: candidates by votes, all of them scored at once, and the best ones exactly.

An image's score is the mean over the picture's vectors of the largest cosine with one of the image's. Images that are
good on average need not be among the best for any one vector, so many more are scored than are wanted.
"""

import itertools
import math
from collections.abc import Sequence

import faiss
import numpy as np

from forclip.index.approximate_search import ApproximateIndex
from forclip.index.exact_search import ScoredImages, first_occurrences, score_images
from forclip.index.segment import Segment
from forclip.index.threads import parallel_map
from forclip.types import Bools, Doubles, Floats, Ints

MIN_WANTED = 50  # fewer wanted images are searched as if these many were
_ROUNDING = 1e-5  # single precision is exact to this
_ROWS_AT_ONCE = 1 << 13
_EXACTLY_AT_ONCE = 1 << 18  # pairs of a query and an image
_QUERIES_AT_ONCE = 32
_FETCH_PER_IMAGE, _FETCH_EXTRA, _FETCH_GROWTH = 2, 120, 4
_EXACT_SHARE = 0.1  # if fewer images are allowed, most candidates would be rejected
_COMPARISONS = 2_000_000  # of two vectors in a search for few images
_SCORED_PER_IMAGE = 10  # images that are scored at least for each wanted one
_LISTS = 2  # how many times as many images are in the lists of all queries as are scored


def search_by_picture(
    segment: Segment, index: ApproximateIndex | None, queries: Floats, k: int, allowed: Bools
) -> ScoredImages:
    """Find the best k of the allowed images [images], and those that tie with the last one.

    queries: unit [Q, dim]; index: finds the images that are scored, None to score all that are allowed. The row of a
    result is that of the vector nearest to any query.
    """
    images = None if index is None else _candidates(segment, index, queries, k, allowed)
    return rank_by_all(segment, queries, k, np.flatnonzero(allowed) if images is None else images)


def rank_by_all(segment: Segment, queries: Floats, k: int, images: Ints) -> ScoredImages:
    """Find the best k of these images, and those that tie with the last one; takes memory for few at a time.

    images: positions in the segment without repeats.
    """
    images = np.sort(images)
    if len(images) > k:
        scores = _rough_scores(segment, queries, images)
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        images = images[scores >= kth - 2 * _ROUNDING]
    count = max(1, _EXACTLY_AT_ONCE // len(queries))
    parts = [_score_exactly(segment, queries, images[n : n + count]) for n in range(0, len(images), count)]
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in parts)])
    return ScoredImages(images, rows, np.concatenate([np.empty(0), *(scores for _, scores in parts)]))


def most_voted(lists: Sequence[Ints], most: int) -> Ints:
    """Return the at most `most` values that are in most of the lists, and near their starts. Lists: best first."""
    values, votes = np.unique(np.concatenate([np.empty(0, np.int64), *lists]), return_inverse=True)
    if len(values) <= most:
        return values
    weights = np.concatenate([2 - np.arange(len(found)) / len(found) for found in lists if len(found)])
    total = np.bincount(votes.ravel(), weights)
    return np.sort(values[np.argsort(-total, kind="stable")[:most]])


def most_compared(queries: int, vectors_per_image: float, k: int) -> int:
    """Return how many candidates to score: what the limit of comparisons allows, but enough for k images."""
    return max(_SCORED_PER_IMAGE * max(k, MIN_WANTED), int(_COMPARISONS / (queries * max(1.0, vectors_per_image))))


def _candidates(segment: Segment, index: ApproximateIndex, queries: Floats, k: int, allowed: Bools) -> Ints | None:
    """Return the images nearest to each query that are worth scoring, None for all that are allowed."""
    available = int(np.count_nonzero(allowed))
    share = available / max(1, len(allowed))
    most = most_compared(len(queries), segment.num_vectors / max(1, len(segment)), k)
    wanted = max(math.ceil(index.settings.compared * max(k, MIN_WANTED)), _LISTS * most // len(queries))
    wanted = min(wanted, available)
    if share < _EXACT_SHARE or min(most, len(queries) * wanted) >= available:
        return None
    fetch = int((_FETCH_PER_IMAGE * wanted + _FETCH_EXTRA) / share)
    while fetch * _FETCH_GROWTH < segment.num_vectors:
        lists = []
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            for rows in index.nearest_rows(queries[start : start + _QUERIES_AT_ONCE], fetch):
                owners = segment.owners(rows)
                owners = owners[allowed[owners]]
                lists.append(owners[first_occurrences(owners)[:wanted]])
        images = most_voted(lists, most)
        if len(images) >= min(k, available):
            return images
        fetch *= _FETCH_GROWTH
    return None


def _rough_scores(segment: Segment, queries: Floats, images: Ints) -> Doubles:
    """Return the scores of images, ascending positions, in single precision."""
    counts = segment.offsets[images + 1] - segment.offsets[images]
    blocks = np.searchsorted(np.cumsum(counts), np.arange(_ROWS_AT_ONCE, counts.sum(), _ROWS_AT_ONCE))
    edges = np.unique([0, *blocks.tolist(), len(images)]).tolist()
    scaled = segment.scale_queries(queries)

    def score(edge: tuple[int, int]) -> Doubles:
        starts, sizes = segment.offsets[images[slice(*edge)]], counts[slice(*edge)]
        firsts = np.cumsum(sizes) - sizes
        rows = np.repeat(starts - firsts, sizes) + np.arange(sizes.sum())
        vectors, cosines = segment.decode_single(rows), np.empty((len(scaled), len(rows)), np.float32)
        for query, row in zip(scaled, cosines, strict=True):
            # A matrix product would be NumPy's, whose threads wait for each other where a core is busy.
            faiss.fvec_inner_products_ny(*map(faiss.swig_ptr, (row, query, vectors)), query.size, len(rows))
        means: Doubles = np.maximum.reduceat(cosines, firsts, axis=1).mean(axis=0, dtype=np.float64)
        return means

    return np.concatenate(parallel_map(score, itertools.pairwise(edges)))


def _score_exactly(segment: Segment, queries: Floats, images: Ints) -> tuple[Ints, Doubles]:
    """Return the row nearest to any query and the score of each image, in double precision."""
    total, best, rows = np.zeros(len(images)), np.full(len(images), -np.inf), np.full(len(images), -1)
    for scored in score_images(segment, queries, [images] * len(queries)):
        at = np.searchsorted(images, scored.images)
        total[at] += scored.scores
        nearer = scored.scores > best[at]
        best[at[nearer]], rows[at[nearer]] = scored.scores[nearer], scored.rows[nearer]
    return rows, total / len(queries)
