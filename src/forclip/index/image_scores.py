"""Each of some images with the best of its vectors, exactly, for one query or many at once."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forclip.index.image_lists import ImageLists
from forclip.index.segment import Segment
from forclip.index.threads import side_by_side
from forclip.types import Floats, Ints

# FAISS adds in single precision, in an order of its own: its scores are true to this.
ROUNDING = 1e-5
_VECTORS_AT_ONCE = 1 << 15
_KEPT_OF_IMAGE = 4  # vectors, that single precision may not tell apart


@dataclass(frozen=True)
class Found:
    """Images of one segment: places in its keys, the vector that scored best, and its cosine. In no order."""

    images: Ints
    rows: Ints
    scores: NDArray[np.float64]


def score_images(segment: Segment, queries: Floats, images: Sequence[Ints]) -> list[Found]:
    """Each query's images with the best of all their vectors. queries: unit [Q, dim]; images: of each query, places in
    the segment's keys, each once."""
    of = np.repeat(np.arange(len(queries)), np.array([len(i) for i in images], np.int64))
    every, lists = np.concatenate([np.empty(0, np.int64), *images]), segment.lists
    blocks = _blocks(segment, every)
    if lists is None:
        parts = [_rows_of_pairs(segment, of[b], every[b]) for b in blocks]
    else:
        parts = side_by_side(lambda b: _contenders(segment, lists, queries, of[b], every[b]), blocks)
    best = [_best(segment, queries, *part) for part in parts]
    if len(best) == len(queries) == 1:
        return [Found(*best[0][1:])]
    asked, found_images, rows, scores = (np.concatenate(column) for column in zip(*best, strict=True))
    ends = np.searchsorted(asked, np.arange(len(queries) + 1))
    return [Found(found_images[s:e], rows[s:e], scores[s:e]) for s, e in itertools.pairwise(ends)]


def best_rows(segment: Segment, query: Floats, rows: Ints) -> Found:
    """The images that own these vectors, each with the best of them. query: unit [dim]."""
    _, images, best, scores = _best(segment, query[None], np.zeros(len(rows), np.int64), rows)
    return Found(images, best, scores)


def best_scores(segment: Segment, queries: Floats, images: Ints) -> list[Floats]:
    """As score_images of the same images for each query, the scores alone, in no order: in single precision where FAISS
    compares them."""
    count, lists = len(queries), segment.lists
    if lists is None or not len(images):
        return [f.scores.astype(np.float32) for f in score_images(segment, queries, [images] * count)]
    asked = segment.asked(queries)
    of, every = np.repeat(np.arange(count), len(images)), np.tile(images, count)
    parts = side_by_side(lambda b: lists.nearest(asked[of[b]], every[b], 1)[0][:, 0], _blocks(segment, every))
    return list(np.concatenate(parts).reshape(count, -1))


def first_of_each(values: Ints) -> Ints:
    """Where each value stands first, in the order in which they appear."""
    _, first = np.unique(values, return_index=True)
    return np.sort(first)


def _blocks(segment: Segment, images: Ints) -> list[slice]:
    """Of some ten thousand vectors each."""
    total = int((segment.offsets[images + 1] - segment.offsets[images]).sum())
    if total < 2 * _VECTORS_AT_ONCE:
        return [slice(0, len(images))]
    edges = np.linspace(0, len(images), total // _VECTORS_AT_ONCE + 1).astype(int).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def _contenders(segment: Segment, lists: ImageLists, queries: Floats, of: Ints, images: Ints) -> tuple[Ints, Ints]:
    """Every vector that may be its image's best, and the query that it is for."""
    scores, rows = lists.nearest(segment.asked(queries)[of], images, _KEPT_OF_IMAGE)
    near = scores >= scores[:, :1] - ROUNDING
    all_near = near.all(axis=1)  # and others may be as near
    near[all_near] = False
    others = _rows_of_pairs(segment, of[all_near], images[all_near])
    return np.concatenate([of[near.nonzero()[0]], others[0]]), np.concatenate([rows[near], others[1]])


def _rows_of_pairs(segment: Segment, of: Ints, images: Ints) -> tuple[Ints, Ints]:
    """Every vector of each image, with what stands beside the image."""
    starts, counts = segment.offsets[images], segment.offsets[images + 1] - segment.offsets[images]
    within: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(of, counts), np.repeat(starts, counts) + within


def _best(segment: Segment, queries: Floats, of: Ints, rows: Ints) -> tuple[Ints, Ints, Ints, NDArray[np.float64]]:
    """Of each query and image the vector that scores best: query, in ascending order, image, row and score."""
    scores, images = segment.scores(queries.astype(np.float64), rows, of), segment.owners(rows)
    order = np.lexsort((rows, -scores, of))
    best = order[first_of_each(of[order] * len(segment) + images[order])]
    return of[best], images[best], rows[best], scores[best]


def score_by_all(segment: Segment, queries: Floats, images: Ints) -> Found:
    """Each of these images with the mean, over the queries, of the nearest of its vectors; and the vector that is
    nearest to any. queries: unit [Q, dim]; images: places in the segment's keys, each once."""
    images = np.sort(images)
    total, best, rows = np.zeros(len(images)), np.full(len(images), -np.inf), np.full(len(images), -1)
    for found in score_images(segment, queries, [images] * len(queries)):
        at = np.searchsorted(images, found.images)
        total[at] += found.scores
        nearer = found.scores > best[at]
        best[at[nearer]], rows[at[nearer]] = found.scores[nearer], found.rows[nearer]
    return Found(images, rows, total / len(queries))


def found_by_any(found: Sequence[Found]) -> Ints:
    """Images, as places in a segment, that one of several searches of it found."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(f.images for f in found)]))


def most_distinct_vector(vectors: Floats) -> Floats:
    """For where a picture can ask with one vector only: the one that is least like its others. [N, dim] to [dim]."""
    one: Floats = vectors[np.argmin(vectors @ vectors.mean(0))]
    return one
