"""A closer look at one image of a store: the places of all its vectors, and which of them answers a text."""

from dataclasses import dataclass

import numpy as np

from forclip.combined_queries import CombinedQuery, combine, text_scales
from forclip.confidence import Calibration
from forclip.index.image_index import Index
from forclip.types import Floats


@dataclass(frozen=True)
class Look:
    """vectors: [N, dim], boxes: [N, 4], of an image as it is stored; scores: [N], each one's cosine with the text that
    decided, the one with that number among the wanted; winner: the vector with the highest."""

    vectors: Floats
    boxes: Floats
    scores: Floats
    decided_by: int
    winner: int


def look_at(
    index: Index,
    number: int,
    query: CombinedQuery,
    where: str | None = None,
    calibration: Calibration | None = None,
) -> Look | None:
    """An image by its number, as a search for `query` sees it: where, calibration as search_combined takes them.

    None where it is not in the store any more. Raises ValueError for bad SQL.
    """
    stored = index.vectors_of(number)
    if stored is None:
        return None
    vectors, boxes = stored
    scores = query.wanted @ vectors.T
    decided = _decided_by(index, query, scores.max(1), where, calibration)
    return Look(vectors, boxes, scores[decided], decided, int(scores[decided].argmax()))


def _decided_by(
    index: Index, query: CombinedQuery, best: Floats, where: str | None, calibration: Calibration | None
) -> int:
    """best: [wanted], the image's scores. One text needs no comparing with others."""
    if len(best) == 1:
        return 0
    scales = text_scales(index, query.wanted, where, calibration)
    standings = [scale.standing(score[None].astype(np.float64)) for scale, score in zip(scales, best, strict=True)]
    return combine(query, np.stack(standings))[1][0]
