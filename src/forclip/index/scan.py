"""Exact search of one segment: every vector is compared, and the best images are certain."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from forclip.index.image_lists import ImageLists
from forclip.index.segment import Segment
from forclip.index.threads import cores, side_by_side
from forclip.types import Bools, Floats, Ints

# FAISS adds in single precision, in an order of its own: its scores are true to this.
ROUNDING = 1e-5
_FIRST_FETCH = 8  # vectors for each image that is wanted
_WIDER = 4
_FEW_IMAGES = 4  # more than one in that many wanted: all are scored
_VECTORS_AT_ONCE = 1 << 15
_KEPT_OF_IMAGE = 4  # vectors, that single precision may not tell apart
_VECTORS_A_THREAD = 1 << 15  # fewer are not worth another thread


@dataclass(frozen=True)
class Found:
    """Images of one segment: places in its numbers, the vector that scored best, and its cosine. In no order."""

    images: Ints
    rows: Ints
    scores: NDArray[np.float64]


def scan(segment: Segment, query: Floats, k: int, allowed: Bools | None = None) -> Found:
    """The best k images among the allowed ones, and all others that tie with the last of them. query: unit [dim].

    Fetches vectors, more and more of them, until k images are certain: the last vector fetched is worse than the k-th
    image's best, so whatever was not fetched is worse as well.
    """
    searched = np.arange(len(segment)) if allowed is None else np.flatnonzero(allowed)
    if k * _FEW_IMAGES > len(searched):
        return score_images(segment, query, searched)
    rows_allowed = None if allowed is None else segment.rows_of(allowed)
    total = segment.num_vectors if rows_allowed is None else int(rows_allowed.sum())
    fetch = _FIRST_FETCH * k
    while fetch < total:
        scores, rows = _nearest(segment, query, fetch, rows_allowed)
        first = first_of_each(segment.owners(rows))
        if len(first) >= k:
            kth = scores[first[k - 1]]
            if scores[-1] < kth - ROUNDING:
                near = rows[scores >= kth - ROUNDING]
                return best_rows(segment, query, near)
        fetch *= _WIDER
    return score_images(segment, query, searched)


def best_rows(segment: Segment, query: Floats, rows: Ints) -> Found:
    """The images that own these vectors, each with the best of them."""
    scores = segment.scores(query.astype(np.float64), rows)
    order = np.lexsort((rows, -scores))
    first = order[first_of_each(segment.owners(rows[order]))]
    return Found(segment.owners(rows[first]), rows[first], scores[first])


def first_of_each(values: Ints) -> Ints:
    """Where each value stands first, in the order in which they appear."""
    _, first = np.unique(values, return_index=True)
    return np.sort(first)


def score_images(segment: Segment, query: Floats, images: Ints) -> Found:
    """Each of these images with the best of all its vectors. images: places in the segment's numbers."""
    if not len(images):
        return Found(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    blocks, lists = _blocks(segment, images), segment.lists
    if lists is None:
        rows: Iterable[Ints] = (_rows(segment, block) for block in blocks)
    else:
        rows = side_by_side(lambda block: _contenders(segment, lists, query, block), blocks)
    parts = [best_rows(segment, query, r) for r in rows]
    if len(parts) == 1:
        return parts[0]
    return Found(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Found)))


def best_scores(segment: Segment, query: Floats, images: Ints) -> Floats:
    """As score_images, the scores alone, in no order: in single precision where FAISS compares them."""
    lists = segment.lists
    if lists is None or not len(images):
        return score_images(segment, query, images).scores.astype(np.float32)
    asked = segment.asked(query)
    parts = side_by_side(lambda block: lists.nearest(asked, block, 1)[0][:, 0], _blocks(segment, images))
    return np.concatenate(parts)


def _blocks(segment: Segment, images: Ints) -> list[Ints]:
    """Of some ten thousand vectors each."""
    total = int((segment.offsets[images + 1] - segment.offsets[images]).sum())
    return np.array_split(images, total // _VECTORS_AT_ONCE) if total >= _VECTORS_AT_ONCE else [images]


def _contenders(segment: Segment, lists: ImageLists, query: Floats, images: Ints) -> Ints:
    """Every vector that may be its image's best."""
    scores, rows = lists.nearest(segment.asked(query), images, _KEPT_OF_IMAGE)
    near = scores >= scores[:, :1] - ROUNDING
    all_near = near.all(axis=1)  # and others may be as near
    near[all_near] = False
    return np.concatenate([rows[near], _rows(segment, images[all_near])])


def _rows(segment: Segment, images: Ints) -> Ints:
    starts, counts = segment.offsets[images], segment.offsets[images + 1] - segment.offsets[images]
    within: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within


def _nearest(segment: Segment, query: Floats, fetch: int, allowed: Bools | None) -> tuple[Floats, Ints]:
    """The nearest vectors, best first, by FAISS in as many threads as pay: single precision, codes as they are stored.

    One query keeps FAISS in one thread, so each thread asks for a range of the rows.
    """
    total = segment.num_vectors
    bits = None if allowed is None else np.packbits(allowed, bitorder="little")
    bitmap = None if bits is None else faiss.IDSelectorBitmap(bits)
    asked = segment.asked(query)[None]
    threads = max(1, min(cores(), total // _VECTORS_A_THREAD))
    edges = np.linspace(0, total, threads + 1).astype(np.int64)

    def part(edge: tuple[int, int]) -> tuple[Any, Any]:
        chosen = faiss.IDSelectorRange(*edge, True)
        both = chosen if bitmap is None else faiss.IDSelectorAnd(chosen, bitmap)
        scores, rows = segment.flat.search(asked, fetch, params=faiss.SearchParameters(sel=both))
        return scores[0], rows[0]

    parts = side_by_side(part, zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    scores, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    scores, rows = scores[rows >= 0], rows[rows >= 0]
    best = np.lexsort((rows, -scores))[:fetch]
    return scores[best], rows[best]
