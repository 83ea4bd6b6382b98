"""Exact search of one segment: every vector is compared, and the best images are certain."""

from typing import Any

import faiss
import numpy as np

from forclip.index.image_scores import ROUNDING, Found, best_rows, first_of_each, score_images
from forclip.index.segment import Segment
from forclip.index.threads import cores, side_by_side
from forclip.types import Bools, Floats, Ints

_FIRST_FETCH = 8  # vectors for each image that is wanted
_WIDER = 4
_FEW_IMAGES = 4  # more than one in that many wanted: all are scored
_VECTORS_A_THREAD = 1 << 15  # fewer are not worth another thread


def scan(segment: Segment, query: Floats, k: int, allowed: Bools | None = None) -> Found:
    """The best k images among the allowed ones, and all others that tie with the last of them. query: unit [dim].

    Fetches vectors, more and more of them, until k images are certain: the last vector fetched is worse than the k-th
    image's best, so whatever was not fetched is worse as well.
    """
    searched = np.arange(len(segment)) if allowed is None else np.flatnonzero(allowed)
    if k * _FEW_IMAGES > len(searched):
        return score_images(segment, query[None], [searched])[0]
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
    return score_images(segment, query[None], [searched])[0]


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
