"""One query for several images: what they have in common, and other images do not have."""

from collections.abc import Sequence

import numpy as np

from forclip.index.protocol import SearchIndex
from forclip.types import Floats

_SAMPLE = 100  # images of the gallery that the given ones are compared with
_USUAL_SHARE = 0.3  # of the gallery's mean vector that is taken away; chosen on the toy world, as is the rest


def common_vector(index: SearchIndex, images: Sequence[Floats]) -> Floats:
    """Return the unit vector [dim] of what at least two images have in common, from the unit vectors [N, dim] of each.

    A vector's support is the mean of its cosines with the nearest vectors of the other images, less what is usual: the
    mean for random images of the gallery. Else backgrounds, which most images share, would be supported most. Each
    image is represented by the vector with the most support. The query is the mean of these vectors, less a part of the
    gallery's mean vector.
    """
    together, edges = np.concatenate(images), np.cumsum([0, *map(len, images)])
    usual = np.array([scores.mean() for scores in index.scores_many(together, _SAMPLE)])
    chosen: list[Floats] = []
    for vectors, start in zip(images, edges[:-1].tolist(), strict=True):
        nearest = np.maximum.reduceat(vectors @ together.T, edges[:-1], axis=1)  # to itself, the cosine is 1
        support = (nearest.sum(axis=1) - 1) / (len(images) - 1) - usual[start : start + len(vectors)]
        chosen.append(vectors[int(np.argmax(support))])
    _, means = index.mean_vectors(_SAMPLE)
    centre = means.mean(axis=0, dtype=np.float64)
    query = np.mean(chosen, axis=0, dtype=np.float64) - _USUAL_SHARE * centre / max(float(np.linalg.norm(centre)), 1e-9)
    unit: Floats = (query / max(float(np.linalg.norm(query)), 1e-9)).astype(np.float32)
    return unit
