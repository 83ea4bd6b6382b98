"""A map of images: points in the plane, near each other where the images' vectors are."""

import numpy as np

from forclip.types import Floats


def map_points(means: Floats) -> Floats:
    """Return a point [images, 2] for each image, from the images' mean vectors [images, dim].

    The points are the first two principal components, scaled alike so that all are within 0..1. Equal vectors give
    equal points, and the same vectors give the same points each time.
    """
    if not len(means):
        return np.empty((0, 2), np.float32)
    centred = means - means.mean(0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in ascending order of the variance
    directions = directions[:, :-3:-1]
    strongest = np.abs(directions).argmax(0)
    directions *= np.sign(directions[strongest, [0, 1]])  # either direction is as good as its opposite
    points = centred @ directions
    points -= points.min(0)
    scaled: Floats = (points / max(float(points.max()), 1e-6)).astype(np.float32)
    return scaled
