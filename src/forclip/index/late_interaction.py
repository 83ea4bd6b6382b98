"""Search by a whole picture: every vector of it asks, and an image answers each with its own nearest (MaxSim).

The score is that of ColBERT's late interaction (Khattab & Zaharia 2020), as a mean: a mean of the picture's vectors
instead would lie near what all images share, and not even find the picture itself.
"""

from collections.abc import Sequence

import numpy as np

from forclip.index.image_scores import Found, score_images
from forclip.index.segment import Segment
from forclip.types import Floats, Ints


def score_by_all(segment: Segment, queries: Floats, images: Ints) -> Found:
    """Each of these images with the mean, over the queries, of the nearest of its vectors; and the vector that is
    nearest to any. queries: unit [Q, dim]; images: places in the segment's numbers, each once."""
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


def particular(vectors: Floats) -> Floats:
    """For where a picture can ask with one vector only: the one that is least like its others. [N, dim] to [dim]."""
    one: Floats = vectors[np.argmin(vectors @ vectors.mean(0))]
    return one
