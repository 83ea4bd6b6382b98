"""A map of images: points in the plane, near each other where the images' vectors are.

There are two: the first two principal components, which take no time, and an arrangement by t-SNE, which shows groups
of like images far better and takes a minute for 10,000 images. Both run on one core: on a busy machine OpenBLAS's
threads, which wait for each other at every step of an eigendecomposition, take up to sixty times as long.
"""

import numpy as np
from threadpoolctl import threadpool_limits

from forclip.types import Doubles, Floats

MIN_ARRANGED = 10  # fewer images are not arranged by t-SNE
_COMPONENTS = 50  # that t-SNE begins with
_PERPLEXITY = 30.0  # about how many neighbours of an image count


def map_points(means: Floats) -> Floats:
    """Return a point [images, 2] for each image, from the images' mean vectors [images, dim]: principal components.

    The points are scaled alike, so that all are within 0..1, around the middle. The same vectors give the same points
    each time.
    """
    with threadpool_limits(1):
        return _within_one(_components(means, 2))


def arrange_points(means: Floats) -> Floats:
    """As `map_points`, so that an image's neighbours are those of its vector (t-SNE).

    means: of at least MIN_ARRANGED images.
    """
    from sklearn.manifold import TSNE  # late: it takes a second to import

    with threadpool_limits(1):
        components = _components(means, _COMPONENTS).astype(np.float32)
        perplexity = min(_PERPLEXITY, (len(means) - 1) / 3)
        # t-SNE refuses a start without any spread, which images that are all equal would give it.
        start = "pca" if float(np.ptp(components)) > 1e-6 else "random"
        arranged = TSNE(2, perplexity=perplexity, init=start, random_state=0, n_jobs=1).fit_transform(components)
    return _within_one(arranged.astype(np.float64))


def _components(means: Floats, count: int) -> Doubles:
    """Return the values [images, count] of the strongest principal components."""
    if not len(means):
        return np.empty((0, count))
    centred = means - means.mean(0, dtype=np.float64)
    _, directions = np.linalg.eigh(centred.T @ centred)  # in ascending order of the variance
    directions = directions[:, : -count - 1 : -1]
    strongest = np.abs(directions).argmax(0)
    directions *= np.sign(directions[strongest, np.arange(directions.shape[1])])  # so that it does not depend on LAPACK
    values: Doubles = centred @ directions
    return values


def _within_one(points: Doubles) -> Floats:
    if not len(points):
        return points.astype(np.float32)
    lowest, highest = points.min(0), points.max(0)
    moved = (points - (lowest + highest) / 2) / max(float((highest - lowest).max()), 1e-6)
    scaled: Floats = (moved + 0.5).clip(0, 1).astype(np.float32)
    return scaled
