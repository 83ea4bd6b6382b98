"""A map of images: points in the plane, near each other where the images' vectors are."""

import numpy as np

from forclip.types import Floats

_FEW = 3  # images, of which there is no map worth computing


def map_points(means: Floats) -> Floats:
    """Return a point [images, 2] for each image, from the images' mean vectors [images, dim].

    The points are the first two principal components, scaled alike so that all are within 0..1. Equal vectors give
    equal points.
    """
    if len(means) < _FEW:
        return np.linspace(0, 1, 2 * len(means), dtype=np.float32).reshape(-1, 2)
    from sklearn.decomposition import PCA  # late: it takes a second to import

    points = PCA(2, random_state=0).fit_transform(means.astype(np.float64))
    points -= points.min(0)
    scaled: Floats = (points / max(float(points.max()), 1e-9)).astype(np.float32)
    return scaled
