"""One query for several images: what they have in common."""

from collections.abc import Sequence

import numpy as np

from forclip.types import Floats


def common_vector(images: Sequence[Floats]) -> Floats:
    """Return the unit vector [dim] of what images have in common, from the unit vectors [N, dim] of each.

    A vector is supported by another image as much as its cosine with that image's nearest vector. Each image is
    represented by its vector that the other images support most, and the query is the mean of these.
    """
    together = np.concatenate(images)
    starts = np.cumsum([0, *map(len, images)])[:-1]
    chosen: list[Floats] = []
    for vectors in images:
        support = np.maximum.reduceat(vectors @ together.T, starts, axis=1).sum(axis=1)
        chosen.append(vectors[int(np.argmax(support))])
    mean = np.mean(chosen, axis=0, dtype=np.float64)
    unit: Floats = (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)
    return unit
