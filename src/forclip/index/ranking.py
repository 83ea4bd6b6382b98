"""From what was found in each segment to one ranked list."""

from collections.abc import Sequence

import numpy as np

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
    return [_result(rank, *hit) for rank, hit in enumerate(hits[:k], start=1)]


def _hits(segment: Segment, found: Found, threshold: float) -> list[tuple[float, str, Segment, int, int]]:
    """Minus the score, the id, and where the image and its vector are, for all that reach the threshold."""
    near = found.scores >= threshold
    images, rows = found.images[near], found.rows[near]
    ids = segment.images["id"].take(images).to_pylist()
    minus = (-found.scores[near]).tolist()
    return [(m, i, segment, int(p), int(r)) for m, i, p, r in zip(minus, ids, images, rows, strict=True)]


def _result(rank: int, minus: float, image_id: str, segment: Segment, image: int, row: int) -> SearchResult:
    x0, y0, x1, y1 = map(float, segment.boxes[row])
    return SearchResult(rank, image_id, segment.images["uri"][image].as_py(), -minus, (x0, y0, x1, y1))
