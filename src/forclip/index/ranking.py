"""From what was found in each segment to one ranked list."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from forclip.index.scan import Found
from forclip.index.segment import Segment
from forclip.types import SearchResult


def ranked(found: Sequence[tuple[Segment, Found]], k: int) -> list[SearchResult]:
    """The best k images, best first, ties by id."""
    scores = np.concatenate([np.empty(0), *(f.scores for _, f in found)])
    if not len(scores):
        return []
    cut = max(0, len(scores) - k)
    threshold = np.partition(scores, cut)[cut]
    hits = [hit for segment, f in found for hit in _hits(segment, f, float(threshold))]
    hits.sort(key=lambda hit: hit[:2])
    return [
        SearchResult(rank, image_id, uri, -minus, (x0, y0, x1, y1))
        for rank, (minus, image_id, uri, (x0, y0, x1, y1)) in enumerate(hits[:k], start=1)
    ]


def without(results: Sequence[SearchResult], left_out: Collection[str]) -> list[SearchResult]:
    """Those of other images than these ids, ranked anew."""
    kept = [r for r in results if r.image_id not in left_out]
    return [replace(r, rank=rank) for rank, r in enumerate(kept, start=1)]


def _hits(segment: Segment, found: Found, threshold: float) -> list[tuple[float, str, str, list[float]]]:
    """Minus the score, the id, the uri and the winning vector's box, of all that reach the threshold."""
    near = found.scores >= threshold
    images = pa.array(found.images[near])
    ids, uris = (column.take(images).to_pylist() for column in (segment.ids, segment.uris))
    boxes = segment.boxes[found.rows[near]].astype(float).tolist()
    minus = (-found.scores[near]).tolist()
    return list(zip(minus, ids, uris, boxes, strict=True))
