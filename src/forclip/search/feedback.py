"""Relevance feedback: from a text's vector and right and wrong picks to a query that ranks the rest better, at once.

A logistic probe on the stored vectors: a right image's vector that answered the text should score high, a wrong one's
low. There are a few picks and hundreds of dimensions, so the probe's prior is centred on the text, and what it learns
is a combination of the picked vectors. NumPy only.
"""

from collections.abc import Sequence

import numpy as np

from forclip.index.image_index import Index
from forclip.types import Doubles, Floats

STIFFNESS = 100.0  # of the prior: the probe's weights stay within about 1 / sqrt of it; chosen on base classes
_BIAS = 0.1  # squared size of the bias' own feature: what all picks share moves it rather than the weights
_STEPS = 60
_SAMPLE = 2000  # images by which the spread of the text's scores is known


def refined_query(
    index: Index, query: Floats, right: Sequence[str], wrong: Sequence[str], where: str | None = None
) -> Floats:
    """query: unit [dim]; right, wrong: image ids; where: as Index.search. Returns unit [dim], to be searched with.

    Raises ValueError for an id that the store has not, one that is both right and wrong, or no pick at all.
    """
    if not right and not wrong:
        raise ValueError("no picks: at least one image must be right or wrong")
    both = sorted(set(right) & set(wrong))
    if both:
        raise ValueError(f"image {both[0]!r} is picked as right and as wrong")
    vectors = index.best_vectors([*right, *wrong], query)
    for image_id in (*right, *wrong):
        if image_id not in vectors:
            raise ValueError(f"{index.store.folder}: has no image {image_id!r}")
    picked = np.stack([vectors[i] for i in (*right, *wrong)])
    is_right = np.arange(len(picked)) < len(right)
    spread = float(index.scores(query, _SAMPLE, where=where).std())
    return refine(query, picked, is_right, spread)


def refine(query: Floats, picked: Floats, is_right: np.ndarray, spread: float, stiffness: float = STIFFNESS) -> Floats:
    """The probe. query: unit [dim]; picked: unit [n, dim]; is_right: [n] bool; spread: standard deviation of the
    query's scores over the gallery, above 0: scores count in it. Returns unit [dim].

    Minimises sum of log losses + stiffness / 2 * |weights - query|^2, with a bias whose prior is weak. The weights are
    query + picked.T @ moves, so that only `moves` [n] is sought; each step minimises a quadratic bound of the loss
    (a logistic curve bends by at most 1/4), so that no step makes it worse.
    """
    scale = 1 / max(spread, 1e-6)
    vectors, asked = picked.astype(np.float64), query.astype(np.float64)
    start = scale * (vectors @ asked)
    start -= start.mean()
    alike = vectors @ vectors.T + _BIAS
    moves: Doubles = np.zeros(len(vectors))
    bound = np.linalg.inv(stiffness * np.eye(len(vectors)) + scale**2 / 4 * alike)
    for _ in range(_STEPS):
        wrongness = _logistic(start + scale * (alike @ moves)) - is_right
        moves -= bound @ (stiffness * moves + scale * wrongness)
    weights = asked + vectors.T @ moves
    found: Floats = (weights / np.linalg.norm(weights)).astype(np.float32)
    return found


def _logistic(logits: Doubles) -> Doubles:
    found: Doubles = np.exp(-np.logaddexp(0, -logits))
    return found
